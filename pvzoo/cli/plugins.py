"""``pvzoo plugins``: what is installed and what became of it. Works when every plugin is broken."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UnknownNameError, did_you_mean
from .output import console, note, print_json, table

if TYPE_CHECKING:
    from ..plugins import Plugin

app = typer.Typer(invoke_without_command=True, help="List installed plugins, diagnose broken ones, begin a new one.")

BROKEN = ("failed", "conflict", "incompatible")


@app.callback()
def overview(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    no_import: Annotated[bool, typer.Option("--no-import", help="Read metadata only; import nothing.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if a plugin is broken or its metadata needs mending.")
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="Load each plugin in its own process: time, heavy imports, crashes.")
    ] = False,
) -> None:
    """List installed plugins with their state, what they register, and how long they take to import."""
    if ctx.invoked_subcommand is not None:
        return
    from ..plugins import discover, host

    # Neither way of looking without importing goes through the host.
    found = discover(os.environ.get("PVZOO_DISABLE_PLUGINS", "")) if no_import or probe else host().load_all()
    records = [_record(plugin) for plugin in found]
    if probe:
        for plugin, record in zip(found, records, strict=True):
            record["probe"] = _probe(plugin) if plugin.state == "found" else None
    if as_json:
        print_json(records)
    else:
        table(("vendor", "distribution", "state", "registers", "seconds"), map(_row, records))
        for plugin, record in zip(found, records, strict=True):
            if plugin.state in BROKEN:
                note(plugin.problem())
            for remark in record["remarks"]:
                note(f"plugin {plugin.label}: {remark}")
        if not found:
            note("no plugins are installed")
    if check and any(_needs_mending(record) for record in records):
        raise typer.Exit(1)


@app.command()
def show(vendor: Annotated[str, typer.Argument(help="Vendor or distribution name.")]) -> None:
    """Everything about one plugin: where it is, what it registers, and the traceback if it failed."""
    from ..plugins import host, normalise

    found = [
        plugin
        for plugin in host().plugins
        if vendor == plugin.vendor or normalise(vendor) == normalise(plugin.distribution)
    ]
    if not found:
        names = [name for plugin in host().plugins for name in (plugin.vendor, plugin.distribution)]
        message = f"no plugin named {vendor!r} is installed{did_you_mean(vendor, names)}"
        raise UnknownNameError(f"{message}; this Python is {sys.executable}", kind="plugin", name=vendor)
    for plugin in found:
        host().load(plugin)
        facts = [
            ("vendor", plugin.vendor),
            ("distribution", f"{plugin.distribution} {plugin.version}"),
            ("installed in", plugin.location),
            ("module", plugin.module),
            ("state", plugin.state if plugin.state == "loaded" else plugin.problem()),
            ("seconds", f"{plugin.seconds:.3f}"),
            *(("remark", remark) for remark in plugin.remarks),
        ]
        table(("", ""), facts)
        if plugin.entries:
            builds = [(e.kind, e.name, str(getattr(e, "build", "")), e.summary) for e in plugin.entries]
            console.print()
            table(("kind", "name", "built by", "summary"), builds)
        if plugin.error:
            note(plugin.traceback())


Names = Annotated[list[str] | None, typer.Option(metavar="NAME", help="A component of this kind.", show_default=False)]


@app.command()
def new(
    vendor: Annotated[str, typer.Argument(help="Prefix of all that the plugin registers, such as acme.")],
    fusion: Names = None,
    backbone: Names = None,
    alignment: Names = None,
    head: Names = None,
    out: Annotated[Path, typer.Option(help="Folder to write pvzoo-VENDOR into.")] = Path(),
) -> None:
    """Write a new plugin: a small package of working components, with tests, README and CI, to make your own.

    Give at least one component; an option may be repeated.

    Example: [bold]pvzoo plugins new acme --fusion gated --backbone tiny --backbone wide[/]
    """
    from ..scaffold import new_plugin

    given = {"fusion": fusion, "backbone": backbone, "alignment": alignment, "head": head}
    folder = new_plugin(vendor, {kind: names or [] for kind, names in given.items()}, out)
    lines = (f"{folder} is written; next:", f"  pip install -e '{folder}[test]'", f"  pytest {folder}")
    for line in (*lines, f"  pvzoo check {vendor}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _record(plugin: Plugin) -> dict[str, Any]:
    return {
        "vendor": plugin.vendor,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "module": plugin.module,
        "location": plugin.location,
        "state": plugin.state,
        "stage": plugin.stage,
        "reason": plugin.reason,
        "seconds": round(plugin.seconds, 4),
        "remarks": list(plugin.remarks),
        "entries": [{"kind": entry.kind, "name": entry.name, "revision": entry.revision} for entry in plugin.entries],
        "probe": None,
    }


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    state = f"{record['state']} ({record['stage']})" if record["stage"] else record["state"]
    counts = Counter(entry["kind"] for entry in record["entries"])
    registers = ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in sorted(counts.items()))
    seconds = f"{record['seconds']:.3f}" if record["seconds"] else ""
    if record["probe"]:
        registers, seconds = record["probe"]["outcome"], f"{record['probe']['seconds']:.3f}"
    return record["vendor"], f"{record['distribution']} {record['version']}", state, registers, seconds


def _needs_mending(record: dict[str, Any]) -> bool:
    probe = record["probe"]
    return record["state"] in BROKEN or bool(record["remarks"]) or bool(probe and probe["outcome"] != "ok")


def _probe(plugin: Plugin) -> dict[str, Any]:
    """Loads a plugin in a process of its own."""
    from ..testing.watch import probe

    found = probe(plugin.module, plugin.vendor)
    outcome = found.fault or (f"imports {', '.join(found.heavy)}" if found.heavy else "ok")
    return {"outcome": outcome, "seconds": found.seconds, "heavy": list(found.heavy)}
