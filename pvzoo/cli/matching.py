"""The main job: compare the palms of two people, embed a folder of palms. torch is imported when a command runs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import EvaluationError, ImageError, InputError, PvzooError
from ..threshold import DEFAULT_FMR, Decision
from .output import console, note, print_json, silence_pillow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model import Model
    from ..pairs import Sample

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Name of the zoo, a saved folder or .safetensors file, hf-hub:NAMESPACE/NAME, or a spec file.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1, mps, auto.")]
SeedOption = Annotated[int, typer.Option(help="Seed of the random weights of an untrained model.")]
MISSING = "-"


def compare(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES...",
            help="The images of palm A, then those of palm B, each in the order of the model's modalities. "
            "'-' stands for a missing one.",
            show_default=False,
        ),
    ],
    model: ModelOption = "stage2_spatial",
    fmr: Annotated[
        float | None,
        typer.Option(
            help="Decide by the model's threshold for this false match rate; 1e-3 if left out and the model has it.",
            show_default=False,
        ),
    ] = None,
    device: DeviceOption = "cpu",
    seed: SeedOption = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two palms and print their score: the cosine of their embeddings, in [-1, 1], higher is more alike.

    A model with thresholds ([bold]pvzoo eval --export-thresholds[/]) also says whether they are one, and which false
    match rate was measured on what.

    Example: [bold]pvzoo compare --model stage2_spatial a_palm.png a_vein.png b_palm.png b_vein.png[/]
    """
    from .loading import open_model

    silence_pillow()
    net = open_model(model, device, seed)
    modalities = net.spec.modalities
    if len(images) != 2 * len(modalities):
        each = f"{' and '.join(modalities)} of palm A, then of palm B"
        raise InputError(f"{model} needs {2 * len(modalities)} images ({each}), and {len(images)} were given")
    paths = [None if path == MISSING else path for path in images]
    a, b = paths[: len(modalities)], paths[len(modalities) :]
    threshold, lacking = None, ""
    try:
        threshold = net.threshold_for(a, b, fmr=DEFAULT_FMR if fmr is None else fmr)  # before anything is read
    except EvaluationError as error:
        if fmr is not None:
            raise
        lacking = str(error)
    with warnings.catch_warnings(action="ignore"):  # what is to be said of untrained weights is said below
        score = net.score(a, b)
    decision = None if threshold is None else Decision(score >= threshold.value, score, threshold)
    if as_json:
        about = decision and {"same": decision.same, "threshold": decision.threshold.model_dump()}
        print_json({"score": score, "model": model, "untrained": net.untrained, "decision": about})
    else:
        console.print(f"score {score:.4f}", highlight=False)
        if decision is not None:
            console.print(str(decision), highlight=False, markup=False, soft_wrap=True)
    say_if_untrained(net, model, seed)
    if lacking and not net.untrained:
        note(f"note: no decision: {lacking}")


def embed(
    pairs: Annotated[
        Path,
        typer.Argument(
            help="A CSV with a column for each modality (and 'id' if wanted), or a folder with a subfolder for each "
            "modality, in which the images of one sample have the same name.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz file to write.", show_default=False)],
    model: ModelOption = "stage2_spatial",
    batch_size: Annotated[int, typer.Option(min=1, help="Samples at once.")] = 16,
    device: DeviceOption = "cpu",
    seed: SeedOption = 0,
) -> None:
    """Embed all samples of a folder or CSV into an .npz file: 'ids' (N,) and 'embeddings' (N, D).

    A sample with a bad image is listed and left out, the others are written, and the exit code is 2.

    Example: [bold]pvzoo embed palms/ -o palms.npz --model stage2_spatial[/]
    """
    from ..embedding import embed_samples, write_npz
    from ..pairs import read_samples
    from ..progress import track
    from .loading import open_model

    if output.suffix != ".npz":
        raise PvzooError(f"{output}: the output is an .npz file")
    if not output.absolute().parent.is_dir():
        raise PvzooError(f"{output}: there is no folder {output.absolute().parent}")
    if output.is_dir():
        raise PvzooError(f"{output}: is a folder")
    silence_pillow()
    net = open_model(model, device, seed)
    samples = read_samples(pairs, net.spec.modalities)
    _say_if_incomplete(samples)
    failures: list[tuple[str, PvzooError]] = []
    with track("embedding", len(samples)) as advance:
        result = embed_samples(net, samples, batch_size, failures=failures, advance=advance)
    if result.ids:
        write_npz(output, result, model=model, untrained=net.untrained)
        shape = " x ".join(map(str, result.embeddings.shape))
        console.print(f"{output}: {shape}", highlight=False, markup=False, soft_wrap=True)
    say_if_untrained(net, model, seed)
    for identifier, error in failures:
        note(f"error: {identifier}: {error}")
    if failures:
        written = f"{len(result.ids)} were written" if result.ids else "nothing was written"
        raise ImageError(f"{len(failures)} of {len(samples)} samples could not be embedded; {written}")


def _say_if_incomplete(samples: Sequence[Sample]) -> None:
    """An attention fusion takes a sample without its partner, so names that do not match would go unnoticed."""
    lacking = [sample for sample in samples if None in sample.images.values()]
    if lacking:
        without = " and ".join(modality for modality, image in lacking[0].images.items() if image is None)
        note(f"warning: {len(lacking)} of {len(samples)} samples lack an image, such as {lacking[0].id} (no {without})")


def say_if_untrained(net: Model, name: str, seed: int) -> None:
    """Warns that a model's weights are random."""
    if net.untrained:
        source = "random" if net.load_report else f"random, seed {seed}"
        note(f"warning: the weights of {name} are untrained ({source}): scores say nothing about identity")
