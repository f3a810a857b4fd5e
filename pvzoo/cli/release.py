"""``pvzoo pack`` and ``pvzoo reproduce``: weights as a package, and trained again. torch is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import file_size
from ..progress import track
from .matching import DeviceOption
from .output import console, note, silence_pillow, table


def pack(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", help="What becomes which weights.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the package.", show_default=False)],
    manifest: Annotated[
        Path | None,
        typer.Option(help="A manifest that lists these weights too; others in it stay.", show_default=False),
    ] = None,
    device: DeviceOption = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 0,
) -> None:
    """Make a package of weights from trained models: float16, shared branches once, every figure measured.

    docs/weights.md has the form of the plan. Nothing of the package changes before all of it was checked.

    Example: [bold]pvzoo pack weights.yaml -o plugins/pvzoo-weights[/]
    """
    from ..release.pack import pack as run
    from ..release.pack import read_plan
    from .loading import find_device

    silence_pillow()
    chosen, where = read_plan(plan.expanduser()), find_device(device)
    made = run(chosen, out.expanduser(), manifest=manifest, device=where, workers=workers, track=track)
    rows = [
        (
            each.name,
            file_size(each.entry.size),
            f"{each.cosine:.6f}",
            str(each.entry.metrics[0] if each.entry.metrics else ""),
        )
        for each in made
    ]
    table(("weights", "size", "least cosine in float16", "figure"), rows)
    unique = {file.sha256: file.size for each in made for file in each.entry.files.values()}
    text = f"{out}: {len(made)} models, {file_size(sum(unique.values()))} in {len(unique)} files"
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    where_it_is = out if out.is_absolute() else f"./{out}"  # a bare name would be looked up in an index
    note(f"next: pip install {where_it_is} && pvzoo verify --all")


def reproduce(
    name: Annotated[
        str, typer.Argument(help="Model, or model.tag, as 'pvzoo list --pretrained' shows it.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run; reproduce/NAME if left out.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    accelerator: Annotated[str, typer.Option(help="Where to train and evaluate: cpu, cuda, mps, or auto.")] = "auto",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Branches of stage 1 to train side by side.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images to evaluate.")] = 0,
) -> None:
    """Train pretrained weights again by their recorded recipe, and compare with the recorded figures.

    Each figure should lie in the interval that the manifest records; the exit code is 1 if one does not.

    Example: [bold]pvzoo reproduce stage2_spatial_nano[/]
    """
    from ..evaluation.report import number
    from ..release import reproduce as release
    from ..training.machine import Machine
    from .loading import find_device

    silence_pillow()
    full, entry = release.recorded(name)
    folder = (out or Path("reproduce") / full.replace("/", "-")).expanduser()
    assert entry.recipe is not None
    note(f"{full}: {entry.recipe.name}, into {folder}")
    machine = Machine(accelerator, jobs=jobs)
    where = find_device(accelerator)
    found = release.reproduce(full, folder, resume=resume, machine=machine, device=where, workers=workers, track=track)
    rows = []
    for each in found:
        metric = each.recorded
        spread = "-" if metric.low is None or metric.high is None else f"{metric.low:.4g} to {metric.high:.4g}"
        verdict = "inside" if each.inside else "OUTSIDE"
        rows.append((metric.title, f"{metric.value:.4g}", spread, number(each.value, 4), verdict))
    table(("figure", "recorded", "95% interval", "reproduced", ""), rows)
    console.print(f"{folder / release.FOUND}", highlight=False, markup=False, soft_wrap=True)
    wrong = sum(not each.inside for each in found)
    if wrong:
        note(f"{wrong} of {len(found)} figures lie outside the recorded interval")
        raise typer.Exit(1)
