"""``pvzoo check``: the conformance kit for those without tests. torch is imported if a component needs it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from .output import console, print_json

if TYPE_CHECKING:
    from ..testing import Candidate, Result


OUTCOMES = ("passed", "failed", "warned", "not run")


def check(
    name: Annotated[
        str, typer.Argument(help="Vendor name of an installed plugin, such as acme; or a component, acme/gated.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that a plugin or component keeps pvzoo's contracts: shapes, types, gradients, missing modalities, ...

    A vendor name checks the plugin and everything that it registers. Each failure says what was expected, what was
    found and what to do, and the exit code is 1. A check is not run where it needs what only a test can give, such as
    parameters without defaults or a small data set; docs/testing.md shows how, and lists all checks.

    Examples: [bold]pvzoo check acme[/], [bold]pvzoo check acme/gated[/], [bold]pvzoo check spatial_attention[/]
    """
    records = []
    for candidate in _candidates(name):
        results = candidate.results()
        records += [{"kind": candidate.kind, "name": candidate.name, **_record(result)} for result in results]
        if not as_json:
            _show(candidate, results)
    if as_json:
        print_json(records)
    if any(record["outcome"] == "failed" for record in records):
        raise typer.Exit(1)


def _candidates(name: str) -> list[Candidate]:
    """The components that a name means; for a plugin, it and all that it registers and that can be checked."""
    from ..plugins import host
    from ..testing import KINDS, candidate, kinds_of

    found = [candidate(kind, name) for kind in kinds_of(name)]
    for plugin in host().plugins:
        if plugin.vendor == name:
            host().load(plugin)
            found += [candidate(entry.kind, entry.name) for entry in plugin.entries if entry.kind in KINDS]
    return found


def _record(result: Result) -> dict[str, str]:
    record = asdict(result)
    del record["error"]
    return record


def _show(candidate: Candidate, results: list[Result]) -> None:
    outcomes = [result.outcome for result in results]
    counts = [f"{outcomes.count(each)} {each}" for each in OUTCOMES if each in outcomes]
    lines = [f"{candidate}: {', '.join(counts)}"]
    lines += [f"  {result.outcome} {result}" for result in results if result.outcome in ("failed", "warned")]
    not_run: dict[str, list[str]] = {}
    for result in results:
        if result.outcome == "not run":
            not_run.setdefault(result.found, []).append(result.check)
    lines += [f"  not run {', '.join(names)}: {reason}" for reason, names in not_run.items()]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
