"""Commands about names, specs and plugins. Nothing here imports torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import PvzooError, SpecError, UnknownNameError, a, nearest
from . import (
    ablate,
    attention,
    check,
    data,
    degrade,
    demo,
    evaluate,
    hub,
    matching,
    plugins,
    protocols,
    release,
    synth,
    train,
)
from .output import console, heading, note, print_json, table
from .settings import read_settings


class _Commands(TyperGroup):
    """The built-in commands; ``vendor/name`` is a plugin's, imported when it is typed."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if "/" not in cmd_name:
            return super().get_command(ctx, cmd_name)
        from ..plugins import host
        from ..registry import Command

        entry = host().find("command", cmd_name)
        assert isinstance(entry, Command)
        built = entry.builder()
        if isinstance(built, typer.Typer):
            return typer.main.get_command(built)
        single = typer.Typer(add_completion=False)
        if hasattr(built, "main"):
            # A click command reads its own arguments: Typer may carry a copy of click that is not the plugin's.
            settings = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

            @single.command(context_settings=settings)
            def run(context: typer.Context) -> None:
                built.main(args=list(context.args), prog_name=context.command_path)
        else:
            single.command(help=entry.summary)(built)
        return typer.main.get_command(single)


if TYPE_CHECKING:
    from ..manifest import Weights
    from ..registry import Entry
    from ..specs import ModelSpec

app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A model zoo for palm biometrics: palmprint and palm vein, alone and fused.",
    epilog="First steps: [bold]pvzoo list[/], [bold]pvzoo show stage2_spatial[/], "
    "[bold]pvzoo demo[/]. Commands of plugins are called by their full name, vendor/command.",
)
app.add_typer(plugins.app, name="plugins")
data.app.command()(protocols.protocols)
data.app.command()(protocols.split)
app.add_typer(data.app, name="data")
app.command()(demo.demo)
app.command()(matching.compare)
app.command()(matching.embed)
app.command()(synth.synth)
app.command("eval")(evaluate.evaluate)
app.command()(degrade.degrade)
app.command()(attention.attention)
app.command()(train.train)
app.command()(train.recipes)
app.command()(ablate.ablate)
app.command()(check.check)
app.command()(hub.pull)
app.command()(hub.push)
app.command()(hub.verify)
app.command()(hub.publish)
app.command()(release.pack)
app.command()(release.reproduce)
app.add_typer(hub.weights_app, name="weights")


def _version(value: bool) -> None:
    if value:
        console.print(f"pvzoo {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command("list")
def list_names(
    pattern: Annotated[str | None, typer.Argument(help="Wildcard, such as 'stage2_*'.", show_default=False)] = None,
    exclude: Annotated[str | None, typer.Option(help="Wildcard of names to leave out.", show_default=False)] = None,
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Only models with weights, by tag.")] = False,
    kind: Annotated[
        str | None, typer.Option(help="Only 'unimodal' or 'multimodal' models.", show_default=False)
    ] = None,
    components: Annotated[
        str | None,
        typer.Option(
            help="List components of a kind instead: backbone, alignment, fusion, head, ...", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models of the zoo, or the components of one kind.

    Plugins are listed with the rest; one that is broken is left out and named on stderr.

    Examples: [bold]pvzoo list[/], [bold]pvzoo list 'stage2_*' --exclude '*_nano'[/],
    [bold]pvzoo list --components fusion[/]
    """
    from fnmatch import fnmatchcase

    from .. import catalog
    from ..plugins import host

    pinned: dict[str, Weights | None] = {}
    if components is None:
        names = catalog.list_models(pattern, exclude=exclude, pretrained=pretrained, kind=kind)  # type: ignore[arg-type]
        pinned = {name: catalog.weights(name) for name in names if pretrained}
        rows = [(name, weights.summary if (weights := pinned.get(name)) else catalog.summary(name)) for name in names]
    else:
        wanted = catalog.list_components(components)
        summaries = {entry.name: entry.summary for entry in host().entries(components.removesuffix("s"))}
        rows = [
            (name, summaries[name])
            for name in wanted
            if fnmatchcase(name, pattern or "*") and not fnmatchcase(name, exclude or "")
        ]
    for plugin in host().plugins:
        if plugin.state in ("failed", "conflict", "incompatible"):
            note(f"{plugin.problem()} ('pvzoo plugins show {plugin.vendor}' has more)")
    if as_json:
        more = {name: {"weights": weights.model_dump(mode="json")} for name, weights in pinned.items() if weights}
        print_json([{"name": name, "summary": text, **more.get(name, {})} for name, text in rows])
    else:
        table(("name", "summary"), rows)
    if not rows:
        note("nothing matches")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Model or component, such as stage2_spatial or arcface, or a spec file.")],
    diagram: Annotated[bool, typer.Option("--diagram", help="Draw the model's architecture, as SVG.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File for the drawing.", show_default="standard output")
    ] = None,
) -> None:
    """Explain a model or a component: its parts and shapes, or its parameters. Nothing is built.

    Examples: [bold]pvzoo show stage2_spatial[/], [bold]pvzoo show arcface[/],
    [bold]pvzoo show my.yaml --diagram -o my.svg[/]
    """
    from .. import catalog
    from ..plugins import host
    from ..registry import ENTRY_TYPES, Component
    from ..specs import load_spec, names_file
    from .describe import component_rows, weights_rows

    if out and not diagram:
        raise PvzooError(f"--out {out} is a file for the drawing; add --diagram")
    if names_file(name):
        _show_model(load_spec(Path(name)), name, diagram, out)
        return
    found: list[Entry] = []
    unknown: list[UnknownNameError] = []
    for kind in ENTRY_TYPES:
        try:
            found.append(host().find(kind, name.partition(".")[0] if kind == "model" else name))
        except UnknownNameError as error:
            unknown.append(error)
    if not found:
        raise _unknown(name, unknown)
    if diagram and all(isinstance(entry, Component) for entry in found):
        raise PvzooError(f"{name} is {a(found[0].kind)}; a drawing is made of a model or a spec file")
    for number, entry in enumerate(found):
        if number and not diagram:
            console.print()
        if not isinstance(entry, Component):
            _show_model(catalog.spec(name), name, diagram, out)
            for tagged, weights in [] if diagram else _weights(name, entry.name):
                console.print()
                heading(tagged, " (weights)", "")
                table(("fact", "value"), weights_rows(tagged, weights))
        elif not diagram:
            origin = f", from {entry.origin.distribution} {entry.origin.version}" if entry.origin.distribution else ""
            heading(entry.name, f" ({entry.kind}, revision {entry.revision}{origin})", entry.summary)
            table(("parameter", "type", "default", "meaning"), component_rows(entry))


def _show_model(spec: ModelSpec, title: str, diagram: bool, out: Path | None) -> None:
    from .describe import model_rows

    if not diagram:
        heading(title, "", spec.summary)
        table(("part", "what", "gives"), model_rows(spec))
        return
    from ..diagram import diagram as draw

    if out is None:
        sys.stdout.write(draw(spec))
        return
    try:
        out.write_text(draw(spec), encoding="utf-8")
    except OSError as error:
        raise PvzooError(f"cannot write {out}: {error.strerror}") from error


def _weights(asked: str, model: str) -> list[tuple[str, Weights]]:
    """What manifests say: of the tag that was asked for, or of all of the model."""
    from .. import catalog

    tag = catalog.split_tag(asked)[1]
    names = [f"{model}.{each}" for each in catalog.tags(model) if tag in (None, each)]
    return [(name, weights) for name in names if (weights := catalog.weights(name))]


def _unknown(name: str, errors: list[UnknownNameError]) -> UnknownNameError:
    """The one error of a name that is of no kind."""
    from ..plugins import host
    from ..registry import ENTRY_TYPES, parse_name

    malformed = next((error for error in errors if error.kind == "name"), None)
    revision = next((error for error in errors if "@" in error.name), None)
    if malformed or revision:
        return malformed or revision or errors[0]
    vendor = parse_name(name).vendor
    if "/" in name and vendor not in (plugin.vendor for plugin in host().plugins):
        return errors[0]
    near = nearest(name, [entry.name for kind in ENTRY_TYPES for entry in host().builtins(kind)])
    hint = f"did you mean {near!r}?" if near else "'pvzoo list' shows all models"
    message = f"no model or component named {name!r}; {hint}"
    return UnknownNameError(message, kind="model", name=name, suggestions=[near] if near else [])


@app.command()
def validate(
    specs: Annotated[list[Path], typer.Argument(help="Spec files, YAML or JSON.", show_default=False)],
) -> None:
    """Check spec files: names, parameters, shapes, sizes. Nothing is built.

    Prints every fault as file:line:column: path: message, and exits with 1 if there is one.
    """
    from ..specs import load_spec

    faults = 0
    for path in specs:
        try:
            spec = load_spec(path)
        except SpecError as error:
            faults += len(error.problems)
            console.print(str(error), highlight=False, markup=False, soft_wrap=True)
        else:
            text = f"{path}: ok, an embedding of {spec.geometry.embedding} from {' and '.join(spec.modalities)}"
            console.print(text, highlight=False, markup=False, soft_wrap=True)
    if faults:
        raise typer.Exit(1)


@app.command()
def resolve(
    spec: Annotated[str, typer.Argument(help="Spec file, or name of a model.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Override a field, such as fusion.local=concat."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of YAML.")] = False,
) -> None:
    """Print a spec with everything filled in: defaults, pinned revisions, plugins. Nothing is built.

    Examples: [bold]pvzoo resolve stage2_spatial[/], [bold]pvzoo resolve my.yaml --set head.params.margin=0.3[/]
    """
    import yaml

    from .. import catalog
    from ..specs import load_spec, names_file

    settings = read_settings(changes or [], "PATH=VALUE, such as fusion.local=concat")
    is_file = names_file(spec)
    plain = load_spec(Path(spec) if is_file else catalog.source(spec), settings).to_dict()
    if as_json:
        print_json(plain)
    else:
        sys.stdout.write(yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True))


@app.command()
def schema() -> None:
    """Print the JSON Schema of specs, installed plugins included, for editors.

    Example: [bold]pvzoo schema > pvzoo.schema.json[/], and in a spec file
    [bold]# yaml-language-server: $schema=pvzoo.schema.json[/]
    """
    from ..specs import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
