"""``pvzoo train``: runs recipes. torch and Lightning are imported when the command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import console, note, table
from .settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..training.preview import Preview


def train(
    recipe: Annotated[
        str, typer.Argument(help="Name of a recipe, or a YAML file; 'pvzoo recipes' lists those that ship.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.", show_default=False)],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Name of the zoo, or a spec file.", show_default=False)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A SynthPalm release, drawn while training; a table; or a folder.", show_default=False),
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Layout of the folder; 'pvzoo data layouts' lists them.", show_default=False)
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the images; the model's own if left out.", show_default=False)
    ] = None,
    init: Annotated[
        list[str] | None,
        typer.Option(
            help="Model to start from, a saved folder or a name with pretrained weights; several for its branches.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="A field of the recipe, such as optimiser.lr=1e-4."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the recipe, what is trained and what it costs; train nothing.")
    ] = False,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, mps, or auto.")] = "auto",
    devices: Annotated[str, typer.Option(help="How many devices of this machine, or auto.")] = "1",
    num_nodes: Annotated[int, typer.Option(min=1, help="How many machines.")] = 1,
    strategy: Annotated[str, typer.Option(help="How several devices work together: ddp, ...")] = "auto",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Branches of stage 1 to train side by side.")] = 1,
) -> None:
    """Train a model in one stage or two, and keep the one that verifies the dev identities best.

    The run folder gets the recipe with everything filled in, checkpoints, metrics, curves, and the model. A run that
    was ended goes on with [bold]--resume[/] as if nothing had happened. The test identities are never read.

    Examples: [bold]pvzoo train two_stage --model stage2_spatial_nano --data synthpalm-mini --set batch.size=16 -o a[/],
    [bold]pvzoo train stage1 --model stage1_convnext_palm --data palms/ -o runs/palm --set epochs=30[/],
    [bold]pvzoo train stage2_plan_b --init stage2_spatial --data palms/ -o runs/mine[/]
    """
    from ..training.recipe import load_recipe

    given = {"model": model, "data.source": data, "data.layout": layout, "image_size": image_size, "init": init}
    resolved = load_recipe(
        recipe if not recipe.endswith((".yaml", ".yml", ".json")) else Path(recipe),
        {
            **{path: value for path, value in given.items() if value is not None},
            **read_settings(settings or [], "PATH=VALUE, such as optimiser.lr=1e-4"),
        },
    )
    from ..training.folder import is_first
    from ..training.machine import Machine
    from ..training.preview import preview
    from ..training.run import train as run

    machine = Machine(accelerator, int(devices) if devices.isdecimal() else devices, num_nodes, strategy, jobs=jobs)
    if dry_run:
        import yaml

        sys.stdout.write(yaml.safe_dump(resolved.to_dict(), sort_keys=False, default_flow_style=None, width=100))
        table(("training", "what", ""), (row for found in preview(resolved, out, machine) for row in _rows(found)))
        return
    made = run(resolved, out, resume=resume, machine=machine)
    if not is_first():
        return
    models = [made] if (made / "config.json").is_file() else sorted(made.glob("*/model"))
    for path in models:
        console.print(f"model: {path}", highlight=False, markup=False, soft_wrap=True)
    if len(models) == 1:
        note(f"next: pvzoo compare --model {made} IMAGES..., or pvzoo.create('local-dir:{made}')")
    else:
        branches = " ".join(f"--init {path}" for path in models)
        note(f"next: pvzoo train stage2_plan_a --model {resolved.model} {branches} -o FOLDER")


def _rows(found: Preview) -> Iterator[tuple[str, str, str]]:
    """A preview as rows of a table."""
    facts = found.facts
    for group in facts["trained"]:
        yield (
            found.name,
            f"trained at {group['lr']:g}: {', '.join(group['parts'])}",
            f"{group['parameters']:,} parameters",
        )
    yield found.name, "frozen", f"{facts['frozen_parameters']:,} parameters"
    for part, counts in facts["parts"].items():
        yield found.name, part, f"{counts['samples']:,} samples of {counts['identities']:,} identities"
    for remark in facts["notes"]:
        yield found.name, "note", remark
    steps = f"{found.steps:,} {'step' if found.steps == 1 else 'steps'} of {_time(found.seconds)}"
    yield found.name, "time", f"{steps}: {_time(found.steps * found.seconds)}, less from cached features"
    if found.memory:
        yield found.name, "memory", f"{found.memory / 1e9:.1f} GB at the peak of these steps"
    yield found.name, "first batch", str(found.picture)


def _time(seconds: float) -> str:
    """In a unit in which it is not nought."""
    if seconds >= 60:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.3g} ms"


def recipes() -> None:
    """List the recipes that ship; 'pvzoo train NAME --dry-run' shows one with everything filled in."""
    from ..training.recipe import list_recipes, load_recipe

    table(("recipe", "summary"), [(name, load_recipe(name).summary) for name in list_recipes()])
