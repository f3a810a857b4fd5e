"""``pvzoo ablate``: what each part of a model is worth. torch is imported when the command runs."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import join
from typing import Annotated, Any

import typer

from .output import console, note, table
from .settings import read_settings


def ablate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the study.", show_default=False)],
    study: Annotated[str, typer.Argument(help="Name of a study that ships, or a YAML file.")] = "reference",
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The reference: a name of the zoo, or a spec file.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A SynthPalm release, a table, or a folder.", show_default=False)
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Layout of the folder; 'pvzoo data layouts' lists them.", show_default=False)
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="'pvzoo data protocols' lists them.", show_default=False)] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the images; the model's own if left out.", show_default=False)
    ] = None,
    init: Annotated[
        list[str] | None,
        typer.Option(help="Saved model whose branches are used; what is missing is trained.", show_default=False),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Group of arms to run; all by default.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings of each arm.", show_default=False)] = None,
    folds: Annotated[int, typer.Option(min=1, help="Folds of the subject bootstrap.")] = 1000,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="A field of the study, such as recipe.epochs=10."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study in the folder.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the arms and what each changes.")] = False,
    accelerator: Annotated[str, typer.Option(help="cpu, cuda, mps, or auto.")] = "auto",
) -> None:
    """Find out what each part of a model is worth: train it again and again with one thing changed.

    Branches are trained once and their features computed once, for all arms. Each arm is trained with several seeds
    and tested on the same subjects, so differences have paired intervals. The folder gets report.md, results.json,
    results.csv and eer.png. A study that was ended goes on with [bold]--resume[/]; an arm that fails is reported, and
    the others go on.

    Examples: [bold]pvzoo ablate --model stage2_spatial_nano --data synthpalm-v1 -o runs/study[/],
    [bold]pvzoo ablate --only fusion --init runs/first/model --data palms/ -o runs/fusion --seeds 5[/]
    """
    from ..ablation.study import arms, load_study

    given = {
        "model": model,
        "image_size": image_size,
        "data.source": data,
        "data.layout": layout,
        "data.protocol": protocol,
    }
    changes: dict[str, Any] = {f"recipe.{path}": value for path, value in given.items() if value is not None}
    changes |= {"seeds": seeds} if seeds is not None else {}
    changes |= read_settings(settings or [], "PATH=VALUE, such as recipe.epochs=10")
    loaded = load_study(study if not study.endswith((".yaml", ".yml", ".json")) else Path(study), changes)
    found = arms(loaded, tuple(only or ()))
    if dry_run:
        rows = [(arm.group or "reference", arm.name, arm.summary) for arm in found]
        rows += [(each.group, each.name, f"left out: {each.reason}") for each in found.left_out]
        table(("group", "arm", "changes"), rows)
        return
    from ..ablation import report
    from ..ablation.run import run_study
    from ..training.machine import Machine

    results = run_study(
        loaded,
        out,
        groups=only or (),
        init=init or (),
        folds=folds,
        resume=resume,
        machine=Machine(accelerator),
        tell=note,
    )
    files = report.write_report(results, out, command=join(["pvzoo", *sys.argv[1:]]))
    table(("group", *report.HEAD), [(row.group, *report.cells(row)) for row in report.rows(results)])
    console.print(f"report: {files[0]}", highlight=False, markup=False, soft_wrap=True)
    failed = [outcome for outcome in results.outcomes if outcome.error]
    if failed:
        note(f"{len(failed)} of {len(results.outcomes)} arms failed; --resume tries them again")
        raise typer.Exit(1)
