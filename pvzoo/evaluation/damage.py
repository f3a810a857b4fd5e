"""Damage to images: what a worse camera, light or hand does to one, in five severities.

Each is a pure function of an image (C, H, W) in [0, 1], a level, and a generator; it gives an image like it. The same
generator state gives the same direction, place and noise at every level, so that a higher one is worse for each image.
Lengths are shares of the image's side, as in augmentation, so that they mean the same at every size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as v2

from ..errors import EvaluationError, did_you_mean

SEVERITIES = 5


def blur(image: Tensor, level: float, random: Generator) -> Tensor:
    """Gaussian blur; ``level`` is its sigma."""
    sigma = level * max(image.shape[-2:])
    reach = min(math.ceil(3 * sigma), min(image.shape[-2:]) - 1)  # what is mirrored at the edge is there once
    blurred: Tensor = v2.gaussian_blur(image, [2 * reach + 1] * 2, [sigma] * 2)
    return blurred.clamp(0, 1)


def noise(image: Tensor, level: float, random: Generator) -> Tensor:
    """White Gaussian noise; ``level`` is its standard deviation, of pixels in [0, 1]."""
    return (image + level * torch.randn(image.shape, generator=random)).clamp(0, 1)


def occlusion(image: Tensor, level: float, random: Generator) -> Tensor:
    """A grey box of the image's proportions, anywhere; ``level`` is its share of the area."""
    place = torch.rand(2, generator=random).tolist()
    hidden = image.clone()
    rows, columns = (
        slice(round(at * (side - length)), round(at * (side - length)) + round(length))
        for at, side in zip(place, image.shape[-2:], strict=True)
        for length in (side * math.sqrt(level),)
    )
    hidden[..., rows, columns] = 0.5
    return hidden


def low_contrast(image: Tensor, level: float, random: Generator) -> Tensor:
    """Pixels drawn to their mean; ``level`` is the share of the contrast that is lost."""
    mean = image.mean((-2, -1), keepdim=True)
    return mean + (1 - level) * (image - mean)


def misalignment(image: Tensor, level: float, random: Generator) -> Tensor:
    """A shift in any direction; ``level`` is its length. Beyond its edge the image goes on mirrored."""
    angle = 2 * math.pi * float(torch.rand((), generator=random))
    height, width = image.shape[-2:]
    away = level * max(height, width)
    # Coordinates run from -1 to 1 along both sides; a pixel is taken from where it was before the shift.
    shift = [[1, 0, -2 * away * math.cos(angle) / width], [0, 1, -2 * away * math.sin(angle) / height]]
    grid = F.affine_grid(torch.tensor([shift]), [1, 1, height, width], align_corners=False)
    return F.grid_sample(image[None], grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]


@dataclass(frozen=True)
class Damage:
    """A kind of damage.

    Attributes:
        apply: The function.
        levels: Its level at severity 1 to 5, ascending.
        unit: What a level is.
    """

    apply: Callable[[Tensor, float, Generator], Tensor]
    levels: tuple[float, ...]
    unit: str


DAMAGES = MappingProxyType(
    {
        "blur": Damage(blur, (0.005, 0.01, 0.02, 0.03, 0.05), "sigma, share of the side"),
        "noise": Damage(noise, (0.02, 0.05, 0.1, 0.2, 0.4), "standard deviation, of pixels in [0, 1]"),
        "occlusion": Damage(occlusion, (0.05, 0.1, 0.2, 0.35, 0.5), "share of the area"),
        "low_contrast": Damage(low_contrast, (0.3, 0.5, 0.7, 0.85, 0.95), "share of the contrast that is lost"),
        "misalignment": Damage(misalignment, (0.02, 0.05, 0.1, 0.15, 0.25), "shift, share of the side"),
    }
)


def damaged(image: Tensor, kind: str, severity: int, seed: int) -> Tensor:
    """Damages an image.

    Args:
        image: (C, H, W) float32 in [0, 1].
        kind: One of :data:`DAMAGES`.
        severity: 1 to 5; 0 gives the image as it is.
        seed: Of direction, place and noise. Equal seeds give equal bits.

    Raises:
        EvaluationError: If there is no such kind or severity.
    """
    if kind not in DAMAGES:
        hint = did_you_mean(kind, DAMAGES) or f"; there are {', '.join(DAMAGES)}"
        raise EvaluationError(f"no damage named {kind!r}{hint}")
    if severity not in range(SEVERITIES + 1):
        raise EvaluationError(f"severity is {severity}; it is from 0, none, to {SEVERITIES}")
    if not severity:
        return image
    damage = DAMAGES[kind]
    return damage.apply(image, damage.levels[severity - 1], Generator().manual_seed(seed))
