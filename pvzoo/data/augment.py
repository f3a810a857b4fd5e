"""Augmentation of palm and vein: one bend of the hand for both where they were taken at once, and a light for each."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from .params import AugmentParams

KNOTS = 7  # of the bend, along each side: about a finger's width apart


@dataclass(frozen=True)
class Augmentation:
    """Two transforms of torchvision, for images (C, H, W) of float32 in [0, 1] at the model's size.

    Attributes:
        geometric: Where things are. Of palm and vein taken simultaneously, it is called with both at once, so that
            v2 draws once for the two; else with each alone.
        photometric: How they look: always called with each image alone.
    """

    geometric: Callable[[Any], Any]
    photometric: Callable[[Any], Any]

    @classmethod
    def of(cls, params: AugmentParams) -> Augmentation:
        """In the order of a camera: the hand, the light, what is in the way, the lens, the sensor."""
        p = params
        moves = p.rotation or p.shift or p.scale or p.shear or p.bend
        blur = v2.GaussianBlur(2 * math.ceil(3 * p.blur) + 1, (p.blur / 10, p.blur)) if p.blur else v2.Identity()
        light = [
            v2.ColorJitter(brightness=p.brightness, contrast=p.contrast),
            Gamma(p.gamma),
            v2.RandomErasing(0.25, (p.erase / 4, p.erase), value=0.5) if p.erase else v2.Identity(),
            v2.RandomApply([blur]),
            v2.RandomApply([v2.GaussianNoise(sigma=p.noise)]),
        ]
        return cls(Warp(p) if moves else v2.Identity(), v2.Compose(light))

    def __call__(self, images: Mapping[str, Tensor], *, together: bool, seed: int, epoch: int = 0) -> dict[str, Tensor]:
        """Augments the images of a sample.

        Args:
            images: By modality, (C, H, W) in [0, 1].
            together: Whether one geometric transform is for all.
            seed: Of all that is drawn. Equal seeds give equal bits on one thread, which a dataset uses.
            epoch: For augmentation that changes while a model trains; see :class:`GrowingAugmentation`.
        """
        moved: Any = {modality: tv_tensors.Image(image) for modality, image in images.items()}
        if together:
            with _stream(seed):
                moved = self.geometric(moved)
        changed = {}
        for modality, image in moved.items():
            with _stream(_derived(seed, modality)):  # so that an image does not depend on which others there are
                lit = self.photometric(image if together else self.geometric(image))
            changed[modality] = lit.as_subclass(Tensor).clamp(0, 1)  # the weights of a blur may sum to more than 1
        return changed


@dataclass(frozen=True)
class GrowingAugmentation:
    """Augmentation of which more is seen from epoch to epoch.

    From few images, a network learns nothing while every one of them looks different each time; see them as they are
    first, and it does.

    Attributes:
        params: Its full extent.
        share: Of it, by epoch.
    """

    params: AugmentParams
    share: Callable[[int], float]

    def __call__(self, images: Mapping[str, Tensor], *, together: bool, seed: int, epoch: int = 0) -> dict[str, Tensor]:
        """As :meth:`Augmentation.__call__`."""
        share = self.share(epoch)
        if not share:
            return dict(images)
        return _scaled(self.params, share)(images, together=together, seed=seed)


@lru_cache(maxsize=4)
def _scaled(params: AugmentParams, share: float) -> Augmentation:
    return Augmentation.of(params.scaled(share))


class Warp(v2.Transform):  # type: ignore[misc]
    """Rotates, shifts, scales, shears and bends in one resampling; beyond its edge, an image goes on mirrored.

    The bend interpolates a few random knots. ``v2.ElasticTransform`` filters noise of the image's size for as smooth a
    field, which took 60 times as long at 224 px.
    """

    def __init__(self, params: AugmentParams) -> None:
        super().__init__()
        self.params = params

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.query_size(flat_inputs)
        p = self.params
        turn, shear = (torch.deg2rad(_either_way(1) * limit) for limit in (p.rotation, p.shear))
        scale = 1 + _either_way(1) * p.scale
        matrix = torch.cat([turn.cos(), -turn.sin(), turn.sin(), turn.cos()]).view(2, 2)
        matrix = matrix @ torch.tensor([[1.0, float(shear.tan())], [0.0, 1.0]]) / scale
        # Coordinates run from -1 to 1 along both sides, whatever their lengths.
        matrix *= torch.tensor([[1, height / width], [width / height, 1]])
        shift = 2 * p.shift * _either_way(2)
        grid = F.affine_grid(torch.cat([matrix, shift[:, None]], 1)[None], [1, 1, height, width], align_corners=False)
        if p.bend:
            knots = 2 * p.bend * torch.randn(1, 2, KNOTS, KNOTS)
            bend = F.interpolate(knots, (height, width), mode="bicubic", align_corners=True)
            grid = grid + bend.permute(0, 2, 3, 1)
        return {"grid": grid}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Any:
        image = inpt.as_subclass(Tensor)[None]
        moved = F.grid_sample(image, params["grid"], mode="bilinear", padding_mode="reflection", align_corners=False)
        return tv_tensors.wrap(moved[0], like=inpt)


class Gamma(v2.Transform):  # type: ignore[misc]
    """Raises pixels to a power from 1 - limit to 1 / (1 - limit), as often below 1 as above."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"gamma": (1 - self.limit) ** float(_either_way(1))}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Any:
        return v2.functional.adjust_gamma(inpt, params["gamma"])


def _either_way(count: int) -> Tensor:
    return 2 * torch.rand(count) - 1


def _derived(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "little")


@contextmanager
def _stream(seed: int) -> Iterator[None]:
    """Torch's random numbers from a seed; afterwards, its own stream goes on as if nothing had been drawn."""
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
