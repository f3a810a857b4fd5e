"""What a model attends to in palms: the weights of its fusion, or Grad-CAM where it gives none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import EvaluationError, InputError, count
from ..images import ImageLike, naming, unit_range
from ..model import Model
from .cells import Cells
from .gradcam import finest_branch, grad_cam

Method = Literal["weights", "grad_cam"]
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Seen:
    """What a model attended to in one palm.

    Attributes:
        name: For the picture.
        images: By modality, the image as it was given, (H, W) or (H, W, 3); ``None`` for a missing one.
        method: Whether maps are fusion weights or Grad-CAM.
        maps: By branch and modality, (H, W) at the pixels of that image. Fusion weights are shares of the modalities,
            averaged over channels where every value has one; Grad-CAM is from 0 up, on one scale a palm.
        channels: By branch and modality, (C,) fusion weights of branches that weigh channels.
        masks: By modality, (H, W) bool, what to outline: where the lines or vessels are, if that is known.
    """

    name: str
    images: Mapping[str, Array | None]
    method: Method
    maps: Mapping[str, Mapping[str, Array]]
    channels: Mapping[str, Mapping[str, Array]]
    masks: Mapping[str, Array] = field(default_factory=dict)


def look(
    model: Model,
    palms: Sequence[Sequence[ImageLike | None]],
    *,
    names: Sequence[str] = (),
    method: Method | None = None,
) -> list[Seen]:
    """Looks at palms with a model.

    Grad-CAM explains a score, so it needs two palms: each is compared with the first, and the first with the second.

    Args:
        model: In eval mode.
        palms: Of each, its images in the order of the model's modalities, ``None`` for a missing one; anything that
            ``model.preprocess`` takes.
        names: Of the palms; they are numbered if left out.
        method: Grad-CAM also for a fusion that gives weights, or nothing but weights; the latter where there are some,
            if left out.

    Raises:
        ImageError: Naming the image that cannot be used.
        InputError: If there are no palms, or a palm has too many images or too few, or none.
        MissingModalityError: If a modality is missing that the fusion cannot do without.
        EvaluationError: If Grad-CAM has no second palm to compare with, or no map, or the fusion gives no weights.
    """
    if not palms:
        raise InputError("there are no palms to look at")
    pixels = [_pixels(model, palm, number) for number, palm in enumerate(palms, 1)]
    inputs = [{m: None if x is None else model.preprocess(x) for m, x in palm.items()} for palm in pixels]
    chosen = method or choose_method(model, inputs[0])
    references: list[Tensor | None] = [None] * len(palms)
    if chosen == "grad_cam":
        if len(palms) < 2:
            message = f"{_why(model)}: it explains a score, so give a second palm as well, best of the same hand"
            raise EvaluationError(message)
        with torch.no_grad():
            first, second = (model.embed(**palm) for palm in inputs[:2])
        references = [second, *[first] * (len(palms) - 1)]
    shown = [{m: None if x is None else _drawable(x) for m, x in palm.items()} for palm in pixels]
    titles = names or [f"palm {number}" for number in range(1, len(palms) + 1)]
    return [
        on_images(model, title, images, attend(model, x, chosen, references=reference), chosen)
        for title, images, x, reference in zip(titles, shown, inputs, references, strict=True)
    ]


def _pixels(model: Model, palm: Sequence[ImageLike | None], number: int) -> dict[str, Tensor | None]:
    """The images of a palm by modality, (C, H, W) in [0, 1]."""
    modalities = model.spec.modalities
    if len(palm) != len(modalities) or not any(image is not None for image in palm):
        each = " and ".join(modalities)
        has = "none of them" if len(palm) == len(modalities) else f"{len(palm)} images"
        raise InputError(f"palm {number} has {has}; a palm is {count(len(modalities), 'image')} ({each})")
    found: dict[str, Tensor | None] = {}
    for modality, image in zip(modalities, palm, strict=True):
        with naming(fspath(image) if isinstance(image, str | PathLike) else f"palm {number}, {modality}"):
            found[modality] = None if image is None else unit_range(image)
    return found


def _drawable(pixels: Tensor) -> Array:
    """(C, H, W) to (H, W), or (H, W, 3) for colours."""
    if len(pixels) in (3, 4):
        return pixels[:3].permute(1, 2, 0).numpy()
    return pixels.mean(0).numpy()


@dataclass(frozen=True)
class Attention:
    """Of N samples, by branch and modality: ``maps`` (N, h, w) and ``channels`` (N, C)."""

    maps: dict[str, dict[str, Tensor]]
    channels: dict[str, dict[str, Tensor]]


def choose_method(model: Model, images: Mapping[str, Tensor | None]) -> Method:
    """Weights where a fusion of the model gives some, else Grad-CAM; found out by running it on a batch."""
    with torch.no_grad():
        details = model.fuse(model.features(**images)).details
    return "weights" if any(details.values()) else "grad_cam"


def attend(
    model: Model, images: Mapping[str, Tensor | None], method: Method, *, references: Tensor | None = None
) -> Attention:
    """What a model attends to in a batch.

    Args:
        model: In eval mode.
        images: By modality, (N, C, H, W); ``None`` for a missing one.
        method: Fusion weights, or Grad-CAM of the scores with ``references``.
        references: (N, D) embeddings.

    Raises:
        EvaluationError: If there are no weights.
    """
    if method == "grad_cam":
        assert references is not None
        return Attention({finest_branch(model): grad_cam(model, images, references)}, {})
    with torch.no_grad():
        details = model.fuse(model.features(**images)).details
    maps: dict[str, dict[str, Tensor]] = {}
    channels: dict[str, dict[str, Tensor]] = {}
    for branch, weights in details.items():
        for modality in model.spec.modalities if weights else ():
            weight = weights[f"w_{modality}"]
            if weight.ndim == 4:
                maps.setdefault(branch, {})[modality] = weight.mean(1)
            else:
                channels.setdefault(branch, {})[modality] = weight
    if not maps and not channels:
        raise EvaluationError(_why(model))
    return Attention(maps, channels)


def _why(model: Model) -> str:
    names = " and ".join(dict.fromkeys(ref.name for ref in model.spec.fusion.values()))
    if len(model.spec.modalities) == 1 or not names:
        return "a model of one modality has no fusion weights, so its map is a Grad-CAM"
    return f"fusion {names} gives no weights, so its map is a Grad-CAM"


def on_images(
    model: Model,
    name: str,
    images: Mapping[str, Array | None],
    found: Attention,
    method: Method,
    row: int = 0,
    masks: Mapping[str, Array] | None = None,
) -> Seen:
    """One sample of a batch at the pixels of its images."""
    maps: dict[str, dict[str, Array]] = {}
    for branch, by_modality in found.maps.items():
        maps[branch] = {}
        for modality, x in by_modality.items():
            image = images[modality]
            if image is not None:
                cells = Cells.of(model.spec, branch, modality, (x.shape[-2], x.shape[-1]))
                maps[branch][modality] = cells.spread(x[row].float().cpu(), image.shape[:2]).numpy()
    channels = {
        branch: {modality: x[row].float().cpu().numpy() for modality, x in by_modality.items()}
        for branch, by_modality in found.channels.items()
    }
    return Seen(name, images, method, maps, channels, masks or {})
