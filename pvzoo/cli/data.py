"""``pvzoo data``: tables of data sets, checks of copies, contact sheets. Nothing here imports torch or numpy."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import BuildError, DataError, count
from ..progress import track
from .output import console, note, print_json, silence_pillow, table
from .settings import read_settings

if TYPE_CHECKING:
    from ..data.adapters import Adapter, Table
    from ..data.check import Report

app = typer.Typer(
    no_args_is_help=True,
    help="Data sets: one table of palm and vein images from any layout, checks of copies, contact sheets. "
    "Nothing is downloaded; docs/data.md says whom to ask for each data set.",
    epilog="First steps: [bold]pvzoo data layouts[/], then [bold]pvzoo data check DIR --layout tongji[/].",
)

DirArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the data set.", show_default=False)]
LayoutOption = Annotated[
    str, typer.Option("--layout", "-l", help="Its layout; 'pvzoo data layouts' lists them.", show_default=False)
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Parameter of the layout, such as palm=WHT or two_hands=true; 'pvzoo show LAYOUT' lists them.",
    ),
]


@app.command()
def layouts(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the layouts of data sets: pairing, published counts of each modality, and a path of theirs.

    Pairing says how sure it is that a palm and a vein image belong together:

    [bold]simultaneous[/], at one moment; [bold]same_sample[/], at one visit to the camera;

    [bold]same_identity[/], one hand at different times; [bold]virtual[/], two people put together.
    """
    from ..plugins import host
    from ..registry import Component

    facts = []
    for entry in host().entries("dataset"):
        assert isinstance(entry, Component)
        try:
            facts.append(_layout_facts(entry.name, entry.summary, entry.builder()))
        except BuildError as error:
            note(str(error))
    if as_json:
        print_json([{**fact, "expected": asdict(fact["expected"])} for fact in facts])
        return
    rows = [
        (
            fact["name"],
            " and ".join(fact["modalities"]) or "palm, vein",
            fact["pairing"],
            *("" if number is None else str(number) for number in asdict(fact["expected"]).values()),
            fact["example"],
        )
        for fact in facts
    ]
    table(("layout", "shows", "pairing", "identities", "sessions", "samples", "images", "a path"), rows)


def _layout_facts(name: str, summary: str, builder: Any) -> dict[str, Any]:
    from ..data.adapters import Expected

    return {
        "name": name,
        "summary": summary,
        "modalities": list(getattr(builder, "modalities", ())),
        "pairing": getattr(builder, "pairing", ""),
        "expected": getattr(builder, "expected", Expected()),
        "example": getattr(builder, "example", ""),
    }


@app.command()
def scan(
    folder: DirArgument,
    layout: LayoutOption,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Table to write: .csv or .parquet.", show_default=False),
    ] = None,
    settings: SettingsOption = None,
) -> None:
    """Find the images of a data set and write one table: a row an image, with subject, hand, session and sample.

    No image is opened. Paths in the table are relative to it where the images lie below it, so both can be moved.

    Examples: [bold]pvzoo data scan tongji --layout tongji -o tongji.parquet[/],
    [bold]pvzoo data scan casia --layout casia_ms --set palm=WHT --set vein=940[/]
    """
    from ..data.check import survey

    adapter = _open(layout, settings)
    found = adapter.scan(folder)
    if output:
        found.write(output)
    table(("what", "found"), [*_facts(found), *([("table", str(output))] if output else [])])
    for doubt in found.doubts:
        note(f"warning: {doubt}")
    findings = list(survey(found, adapter))
    for finding in findings:
        if not finding.where:
            note(f"warning: {finding.message}")
    if findings:
        options = [option for setting in settings or [] for option in ("--set", setting)]
        command = shlex.join(["pvzoo", "data", "check", str(folder), "--layout", layout, *options])
        note(f"{count(len(findings), 'finding')} in names alone; to list them, and open every image: {command}")


@app.command()
def check(
    folder: DirArgument,
    layout: LayoutOption,
    settings: SettingsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that a copy of a data set is whole: every image is opened, and counts are compared with the published ones.

    Finds images that are missing, unreadable, not of the layout, or there twice, byte for byte;

    identities with a wrong number of samples; samples without palm or vein; two files for one image.

    Exits with 1 if there is a finding.

    Example: [bold]pvzoo data check tongji --layout tongji[/]
    """
    from ..data.check import check as run

    silence_pillow()
    adapter = _open(layout, settings)
    found = adapter.scan(folder)
    with track("checking", len(found)) as advance:
        report = run(found, adapter, advance)
    if as_json:
        print_json({"layout": layout, **_counts(found), **asdict(report)})
    else:
        for line in (*report.findings, *report.notes, _verdict(found, report)):
            sys.stdout.write(f"{line}\n")
    if report.findings:
        raise typer.Exit(1)


@app.command()
def show(
    source: Annotated[
        Path, typer.Argument(metavar="TABLE|DIR", help="A table, or a folder and its --layout.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .png file to write.", show_default=False)],
    layout: Annotated[
        str | None, typer.Option("--layout", "-l", help="Layout of a folder.", show_default=False)
    ] = None,
    settings: SettingsOption = None,
    rows: Annotated[int, typer.Option(min=1, max=50, help="Identities, one a row.")] = 8,
    samples: Annotated[int, typer.Option(min=1, max=6, help="Pairs of each session.")] = 2,
    seed: Annotated[int, typer.Option(help="Another seed shows other identities and samples.")] = 0,
) -> None:
    """Draw a contact sheet: some identities, palm and vein side by side, session after session.

    Look before you train: a wrong pairing or two hands in one identity are seen at a glance.

    Examples: [bold]pvzoo data show palms/table.csv -o sheet.png[/],
    [bold]pvzoo data show casia --layout casia_ms -o sheet.png --rows 20 --seed 1[/]
    """
    from ..data.sheet import draw_sheet
    from ..data.table import Table

    if output.suffix.lower() != ".png":
        raise DataError(f"{output}: the sheet is a .png file")
    if not output.absolute().parent.is_dir():
        raise DataError(f"{output}: there is no folder {output.absolute().parent}")
    if settings and not layout:
        raise DataError("--set is for a folder and its --layout; a table has no parameters")
    silence_pillow()
    if layout:
        found = _open(layout, settings).scan(source)
    elif source.is_dir():
        inside = next(
            (f"; it holds {name}" for name in ("table.csv", "table.parquet") if (source / name).is_file()), ""
        )
        raise DataError(f"{source}: is a folder: say its --layout, or give a table{inside}")
    else:
        found = Table.read(source)
    sheet = draw_sheet(found, rows=rows, samples=samples, seed=seed)
    try:
        sheet.image.save(output)
    except OSError as error:
        raise DataError(f"{output}: cannot be written: {error.strerror or error}") from error
    for fault in sheet.faults:
        note(f"warning: {fault}")
    text = f"{output}: {sheet.image.width} x {sheet.image.height}"
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _open(layout: str, settings: list[str] | None) -> Adapter[Any]:
    from ..data.adapters import open_layout

    return open_layout(layout, read_settings(settings or [], "NAME=VALUE, such as palm=WHT"))


def _counts(found: Table) -> dict[str, Any]:
    """What a table holds, for programs."""
    samples: dict[object, set[str]] = {}
    for record in found:
        samples.setdefault(record.key, set()).add(record.modality)
    return {
        "images": dict(sorted(Counter(record.modality for record in found).items())),
        "identities": len(found.identities),
        "subjects": len(found.subjects),
        "sessions": list(found.sessions),
        "samples": len(samples),
        "complete": sum(len(modalities) == len(found.modalities) for modalities in samples.values()),
        "pairing": found.pairing,
        "unused": found.unused,
        "unexpected": len(found.unexpected),
    }


def _facts(found: Table) -> Iterator[tuple[str, str]]:
    """What a table holds, for people."""
    counts = _counts(found)
    for modality, number in counts["images"].items():
        yield modality, count(number, "image")
    yield "identities", str(counts["identities"])
    yield "subjects", str(counts["subjects"])
    yield "sessions", str(len(counts["sessions"])) if any(counts["sessions"]) else "not known"
    both = f", {counts['complete']} of {counts['samples']} samples with palm and vein"
    yield "pairing", (found.pairing or "none") + (both if len(found.modalities) > 1 else "")
    yield "unused", count(found.unused, "file") + " of the layout" * bool(found.unused)
    unexpected = count(len(found.unexpected), "file")
    yield "unexpected", unexpected + (f", such as {found.unexpected[0]}" if found.unexpected else "")


def _verdict(found: Table, report: Report) -> str:
    kinds = Counter(finding.kind for finding in report.findings)
    each = f" ({', '.join(f'{number} {kind}' for kind, number in kinds.most_common())})" if kinds else ""
    findings = count(len(report.findings), "finding") if kinds else "no findings"
    what = f"{count(len(found), 'image')} of {count(len(found.identities), 'identity', 'identities')}"
    return f"{findings}{each}: {what}, pairing {found.pairing or 'none'}"
