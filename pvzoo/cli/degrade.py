"""``pvzoo degrade``: models on damaged and missing images. torch and matplotlib are imported when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import join
from typing import Annotated, Any

import typer

from ..errors import PvzooError
from ..progress import track
from .attention import SetOption, SizeOption
from .matching import DeviceOption, SeedOption, say_if_untrained
from .output import console, note, silence_pillow, table
from .settings import read_settings


def degrade(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODELS",
            help="Names of the zoo, saved folders or .safetensors files, or spec files; drawn together.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str, typer.Option(help="A SynthPalm release, a table, or a data set's folder.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.", show_default=False)],
    layout: Annotated[
        str | None, typer.Option(help="Layout of the folder; 'pvzoo data layouts' lists them.", show_default=False)
    ] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", "-p", help="Whose test is used; 'pvzoo data protocols' lists them.")
    ] = "open_subject",
    settings: SetOption = None,
    folds: Annotated[int, typer.Option(min=0, help="Folds of the subject bootstrap; 0 for no intervals.")] = 200,
    size: SizeOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples at once.")] = 32,
    device: DeviceOption = "cpu",
    seed: SeedOption = 0,
) -> None:
    """Measure what a missing modality does to models, and blur, noise, occlusion, low contrast, misalignment.

    The probes of the test are damaged in five severities, one modality at a time, and compared with the clean gallery.
    Writes error rates and fusion weights with their intervals as CSV, JSON and Markdown, and curves as PNG and SVG.

    Example: [bold]pvzoo degrade runs/spatial/model runs/concat/model --data synthpalm-v1 --set gallery=first -o out[/]
    """
    if out.exists() and not out.is_dir():
        raise PvzooError(f"{out}: is a file; a folder is needed")
    if not out.absolute().parent.is_dir():
        raise PvzooError(f"{out}: there is no folder {out.absolute().parent}")
    twice = next((model for model in models if models.count(model) > 1), None)
    if twice is not None:
        raise PvzooError(f"{twice} is given twice")
    from ..data.params import Data
    from ..data.protocols import open_protocol
    from ..data.sources import open_images
    from ..evaluation.degraded import conditions, embed_degraded, evaluate_degraded
    from ..evaluation.degraded_report import find, warnings, write_degraded
    from ..visualization import save
    from ..visualization.curves import draw_degraded
    from .loading import open_model

    silence_pillow()
    names = labels(models)
    nets = {name: open_model(model, device, seed, size=size) for name, model in zip(names, models, strict=True)}
    images = open_images(Data(source=data, layout=layout))
    split = open_protocol(protocol, read_settings(settings or [], "NAME=VALUE, such as fold=1")).split(images.table)
    results: dict[str, Any] = {}
    for model, net in nets.items():
        modalities = net.spec.modalities
        count = len(conditions(modalities))
        with track(f"embedding with {model}", len(split.test.samples) * count) as advance:
            made = embed_degraded(net, split.test, images.reader, seed=seed, batch_size=batch_size, advance=advance)
        with track(f"evaluating {model}", count) as advance:
            results[model] = evaluate_degraded(made, split.test, modalities, folds=folds, seed=seed, advance=advance)
    counts = {name: f"{number:,}" for name, number in split.counts()["test"].items()}
    named = {name: model for name, model in zip(names, models, strict=True) if name != model}
    about = {**named, "data": data, "protocol": split.protocol, **counts, "folds": folds, "seed": seed}
    drawn = draw_degraded(results)
    command = join(["pvzoo", *sys.argv[1:]])
    files = write_degraded(results, out, about=about, pictures=[f"{name}.png" for name in drawn], command=command)
    for name, figure in drawn.items():
        for suffix in (".png", ".svg"):
            files.append(out / f"{name}{suffix}")
            save(figure, files[-1])
    table(
        ("model", "damage", "of", "severity", "EER"),
        [
            (model, c.damage, c.modality or "-", str(c.severity), _rate(find(found, c).figures[0]))
            for model, found in results.items()
            for c in (each.condition for each in found)
            if c.severity in (0, 5)
        ],
    )
    console.print("\n".join(map(str, files)), highlight=False, markup=False, soft_wrap=True)
    for warning in warnings(results):
        note(f"warning: {warning}")
    for model, net in nets.items():
        say_if_untrained(net, model, seed)


def labels(models: list[str]) -> list[str]:
    """What pictures call models: names as they are, and of paths the end that tells them apart."""
    longest = max(len(Path(model).parts) for model in models)
    for count in range(2, longest + 1):
        names = ["/".join(Path(model).parts[-count:]) for model in models]
        if len(set(names)) == len(names):
            return names
    return models


def _rate(figure: Any) -> str:
    return figure.reason or f"{100 * figure.value:.2f} %"
