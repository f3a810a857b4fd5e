"""``pvzoo attention``: pictures of what a model attends to. torch and matplotlib are imported when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, InputError, PvzooError, count, did_you_mean
from ..progress import track
from .matching import MISSING, DeviceOption, SeedOption, say_if_untrained
from .output import console, note, silence_pillow, table
from .settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model import Model
    from ..visualization.attention import Method

ModelArgument = Annotated[
    str,
    typer.Argument(help="Name of the zoo, a saved folder or .safetensors file, or a spec file.", show_default=False),
]
SizeOption = Annotated[
    int | None,
    typer.Option(min=1, help="Height and width that the model takes, in place of its own.", show_default=False),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the protocol, such as fold=1."),
]


def attention(
    model: ModelArgument,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[IMAGES]...",
            help="The images of each palm, in the order of the model's modalities. '-' stands for a missing one.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Picture to write, .png, .svg or .pdf; with --data, a folder."),
    ] = Path("attention.png"),
    data: Annotated[
        str | None,
        typer.Option(help="Instead of images: a SynthPalm release, whose masks the maps are scored against."),
    ] = None,
    protocol: Annotated[str, typer.Option("--protocol", "-p", help="With --data: its test samples.")] = "open_subject",
    settings: SetOption = None,
    modalities: Annotated[
        str | None,
        typer.Option(
            help="Modalities of the images, such as palm; all of the model's if left out.", show_default=False
        ),
    ] = None,
    grad_cam: Annotated[
        bool, typer.Option("--grad-cam", help="Grad-CAM of the scores, also for a fusion that gives weights.")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, help="With --data: of the pointing game, in pixels; 3 % of the side if left out."),
    ] = None,
    folds: Annotated[int, typer.Option(min=1, help="With --data: folds of the subject bootstrap.")] = 1000,
    size: SizeOption = None,
    device: DeviceOption = "cpu",
    seed: SeedOption = 0,
) -> None:
    """Draw what a model attends to in palms: the weights of its fusion as heat maps over the images, or as bars.

    A fusion that gives no weights is explained by Grad-CAM of a score: each palm is compared with the first, and the
    first with the second. With --data, the maps of all test samples are scored against what SynthPalm has drawn.

    Examples: [bold]pvzoo attention stage2_spatial palm.png vein.png -o map.png[/],
    [bold]pvzoo attention runs/first/model a_palm.png a_vein.png b_palm.png - -o map.pdf[/],
    [bold]pvzoo attention runs/first/model --data synthpalm-mini -o report[/]
    """
    if bool(images) == bool(data):
        raise InputError("give the images of one palm or more, or --data and a SynthPalm release")
    from ..visualization import draw_attention, look, save  # says first if matplotlib is missing
    from ..visualization.figures import check_picture
    from .loading import open_model

    method: Method | None = "grad_cam" if grad_cam else None
    silence_pillow()
    if data:
        _score(model, data, protocol, settings or [], method, tolerance, folds, size, device, seed, out)
        return
    check_picture(out)
    net = open_model(model, device, seed, size=size)
    palms = _palms(net, images or [], modalities)
    save(draw_attention(look(net, palms, names=_names(palms), method=method)), out)
    console.print(f"{out}", highlight=False, markup=False, soft_wrap=True)
    say_if_untrained(net, model, seed)


def _palms(net: Model, images: Sequence[str], modalities: str | None) -> list[list[str | None]]:
    """One row a palm, its images in the order of the model's modalities."""
    takes = net.spec.modalities
    given = takes if modalities is None else tuple(part.strip() for part in modalities.split(","))
    for name in given:
        if name not in takes:
            hint = did_you_mean(name, takes) or f"; it takes {' and '.join(takes)}"
            raise InputError(f"--modalities {modalities}: the model has no modality {name!r}{hint}")
    if len(images) % len(given):
        each = " and ".join(given)
        message = f"{count(len(images), 'image')} given; a palm has {len(given)} ({each}), '-' for a missing one"
        raise InputError(message)
    rows = [images[start : start + len(given)] for start in range(0, len(images), len(given))]
    palms = [dict(zip(given, row, strict=True)) for row in rows]
    return [[None if (path := palm.get(m, MISSING)) == MISSING else path for m in takes] for palm in palms]


def _names(palms: Sequence[Sequence[str | None]]) -> list[str]:
    """The name of each palm's first image, where it tells them apart."""
    names = [next((Path(path).stem for path in palm if path), "") for palm in palms]
    return names if len(set(names)) == len(names) else []


def _score(
    name: str,
    data: str,
    protocol: str,
    settings: list[str],
    method: Method | None,
    tolerance: float | None,
    folds: int,
    size: int | None,
    device: str,
    seed: int,
    out: Path,
) -> None:
    from ..data.protocols import open_protocol
    from ..data.reading import synth_table
    from ..synth import RELEASES
    from ..visualization.scoring import HEAD, score_attention, table_rows, write_scoring
    from .loading import open_model

    if data not in RELEASES:
        hint = did_you_mean(data, RELEASES) or f"; there are {', '.join(RELEASES)}"
        raise DataError(f"--data {data}: maps are scored against masks, which SynthPalm alone has{hint}")
    if out.exists() and not out.is_dir():
        raise PvzooError(f"{out}: is a file; with --data a folder is needed")
    if not out.absolute().parent.is_dir():
        raise PvzooError(f"{out}: there is no folder {out.absolute().parent}")
    split = open_protocol(protocol, read_settings(settings, "NAME=VALUE, such as fold=1")).split(
        synth_table(RELEASES[data])
    )
    net = open_model(name, device, seed, size=size)
    pairs = split.test.samples
    with track("scoring", len(pairs)) as advance:
        found = score_attention(
            net, RELEASES[data], pairs, method=method, tolerance=tolerance, folds=folds, seed=seed, advance=advance
        )
    about = {"model": name, "data": data, "protocol": split.protocol, "untrained": net.untrained}
    files = write_scoring(found, out, about=about, command=join(["pvzoo", *sys.argv[1:]]))
    table(HEAD, table_rows(found))
    for warning in found.warnings:
        note(f"warning: {warning}")
    console.print(f"{', '.join(map(str, files))}", highlight=False, markup=False, soft_wrap=True)
    say_if_untrained(net, name, seed)
