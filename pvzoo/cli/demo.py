"""``pvzoo demo``: the main job in one command. torch is imported when it runs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated

import typer

from ..demo import SEED
from ..errors import PvzooError, WeightsError
from ..progress import track
from ..threshold import DEFAULT_FMR
from .matching import DeviceOption, ModelOption
from .output import console, note, table

if TYPE_CHECKING:
    from ..model import Model


def demo(
    model: ModelOption = "stage2_spatial",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the people; not that of a release.")] = SEED,
    identities: Annotated[int, typer.Option(min=2, max=100, help="How many people.")] = 6,
    fmr: Annotated[
        float, typer.Option(help="Decide by the model's threshold for this false match rate.")
    ] = DEFAULT_FMR,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for demo.json and index.html, a page.", show_default=False),
    ] = None,
    device: DeviceOption = "cpu",
) -> None:
    """Enrol, verify and identify a few people that do not exist, with a trained model.

    Examples: [bold]pvzoo demo[/], [bold]pvzoo demo --model runs/first/model --out demo[/]
    """
    from ..demo.run import run_demo

    if out is not None and out.exists() and not out.is_dir():
        raise PvzooError(f"{out}: is a file; a folder is needed")
    if out is not None and not out.absolute().parent.is_dir():
        raise PvzooError(f"{out}: there is no folder {out.absolute().parent}")
    if out is not None:
        from ..demo.page import write_demo  # before the work: without matplotlib, it is refused here
    net = _open(model, device)
    from .loading import weights_of

    done = run_demo(net, model, seed=seed, identities=identities, fmr=fmr, track=track)
    done = replace(done, weights=weights_of(model, net))
    answer = {True: "accepted", False: "rejected"}
    rows = [
        (
            each.probe,
            f"{each.score:z.3f}",
            answer[each.verified],
            f"{each.other}, {each.other_score:z.3f}",
            answer[each.confused],
            each.identified,
        )
        for each in done.outcomes
    ]
    table(("sample", "own score", "claim", "most similar other", "false claim", "identified as"), rows)
    for line in (done.summary, f"threshold for an FMR of {fmr:g}: {done.threshold}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    note("note: these people are drawn; their scores say nothing about error rates on people")
    if out is not None:
        files = write_demo(done, net, out, join(["pvzoo", *sys.argv[1:]]))
        console.print(", ".join(map(str, files)), highlight=False, markup=False, soft_wrap=True)


def _open(name: str, device: str) -> Model:
    """A model with trained weights."""
    from .. import catalog
    from ..specs import names_file
    from .loading import open_model

    path = Path(name).expanduser()
    elsewhere = path.exists() or names_file(name) or path.suffix == ".safetensors" or name.startswith("hf-hub:")
    if not elsewhere and not (name and catalog.list_models(catalog.find_model(name).name, pretrained=True)):
        message = f"there are no pretrained weights for {name}, and a demo of random ones would show nothing"
        listed = ", ".join(catalog.list_models(pretrained=True))
        raise WeightsError(
            f"{message}: there are {listed}; or name a model that you trained, as in --model runs/first/model"
        )
    net = open_model(name, device, 0)
    if net.untrained:
        raise WeightsError(f"{name} is untrained, and a demo of random weights would show nothing: train it first")
    return net
