"""``pvzoo data split`` and ``pvzoo data protocols``. Nothing here imports torch or numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import DataError, count
from .output import console, note, print_json, table
from .settings import read_settings


def protocols(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the protocols: how each splits a data set, and its parameters with their defaults.

    Example: [bold]pvzoo data protocols[/], then [bold]pvzoo data split T.csv --protocol open_subject --set fold=1[/]
    """
    from ..data.protocols import PROTOCOLS, ProtocolParams

    if as_json:
        schemas = {name: protocol.params_type.model_json_schema() for name, protocol in PROTOCOLS.items()}
        print_json([{"name": n, "summary": PROTOCOLS[n].summary, "params": schema} for n, schema in schemas.items()])
        return
    rows = []
    for name, protocol in PROTOCOLS.items():
        own = {k: f for k, f in protocol.params_type.model_fields.items() if k not in ProtocolParams.model_fields}
        rows.append((name, protocol.summary))
        rows += [("", f"  --set {_setting(key, field)}: {field.description}") for key, field in own.items()]
    rows.append(("all", "parameters of every protocol"))
    rows += [
        ("", f"  --set {_setting(key, field)}: {field.description}")
        for key, field in ProtocolParams.model_fields.items()
    ]
    table(("protocol", "what"), rows)


def _setting(name: str, field: Any) -> str:
    return f"{name}=" if field.is_required() else f"{name}={'null' if field.default is None else field.default}"


def split(
    source: Annotated[
        Path, typer.Argument(metavar="TABLE", help="A table; 'pvzoo data scan' makes one.", show_default=False)
    ],
    protocol: Annotated[
        str, typer.Option("--protocol", "-p", help="'pvzoo data protocols' lists them.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Table to write, with parts and roles: .csv, .parquet.", show_default=False
        ),
    ] = None,
    tested: Annotated[
        Path | None, typer.Option("--test", help="For cross_dataset: the table to test on.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter, such as fold=1 or gallery=first."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Split a data set by a protocol, print what is in each part, and refuse a split that leaks.

    Every file is read once for its digest, so that equal images on both sides are found whatever they are called.

    Examples: [bold]pvzoo data split palms/table.csv --protocol open_subject -o split.csv[/],
    [bold]pvzoo data split casia.csv --protocol closed_s1_s2 --set gallery=first[/]
    """
    from ..data.protocols import open_protocol
    from ..data.split import reasons
    from ..data.table import Table
    from ..progress import track

    if output and output.suffix.lower() not in (".csv", ".parquet"):
        raise DataError(f"{output}: a table is a .csv or .parquet file")
    chosen = open_protocol(protocol, read_settings(settings or [], "NAME=VALUE, such as fold=1"))
    tables = [Table.read(path) for path in filter(None, (source, tested))]
    with track("reading", sum(map(len, tables))) as advance:
        made = chosen.split(*(found.hashed(advance) for found in tables))
    if output:
        made.write(output)
    excluded = {reason: len(pairs) for reason, pairs in reasons(made.excluded).items()}
    if as_json:
        facts = {"protocol": made.protocol, "pairing": made.pairing, "parts": made.counts()}
        print_json({**facts, "excluded": excluded, "notes": list(made.notes)})
        return
    console.print(made.protocol, highlight=False, markup=False, soft_wrap=True)
    columns = ("identities", "subjects", "samples", "genuine", "impostor")
    parts = made.counts().items()
    table(
        ("part", *columns),
        [(part, *(f"{counts[c]:,}" if c in counts else "" for c in columns)) for part, counts in parts],
    )
    for reason, pairs in reasons(made.excluded).items():
        note(f"left out: {count(len(pairs), 'sample')}, {reason}; the first is {pairs[0]}")
    for remark in made.notes:
        note(f"note: {remark}")
    if made.pairing not in ("", "simultaneous"):
        note(f"note: palm and vein are paired as {made.pairing}, not simultaneous")
