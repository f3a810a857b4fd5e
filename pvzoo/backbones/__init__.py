"""Backbones: from the image of one modality to a vector, or to a map that keeps position.

Contract: ``forward(x, pool=True)`` takes (N, C, H, W) and gives (N, D); with ``pool=False`` the map (N, D, h, w).
The builder is called as ``build(params, in_chans=..., image_size=(height, width))``.

This module holds the light part: parameters, shapes and names. The networks stand in :mod:`pvzoo.backbones.timm`.
"""

from __future__ import annotations

from functools import partial
from math import ceil

from pydantic import Field

from ..hookspecs import Register, hookimpl
from ..registry import Params
from ..shapes import BackboneShape, Level, Shape

EFFICIENTVIT_STRIDES = (16, 32, 64)
CONVNEXT_STRIDES = (4, 8, 16, 32)
EFFICIENTVIT_DIMS = {
    "efficientvit_m0": (64, 128, 192),
    "efficientvit_m1": (128, 144, 192),
    "efficientvit_m2": (128, 192, 224),
    "efficientvit_m3": (128, 240, 320),
    "efficientvit_m4": (128, 256, 384),
    "efficientvit_m5": (192, 288, 384),
}
CONVNEXT_DIMS = {
    "convnext_atto": (40, 80, 160, 320),
    "convnext_nano": (80, 160, 320, 640),
    "convnext_tiny": (96, 192, 384, 768),
}
# Trained values up to each level, for one channel and the smallest image; others add less than a percent.
WEIGHTS = {
    "efficientvit_m0": (68_860, 564_868, 2_155_152),
    "efficientvit_m1": (263_378, 1_104_872, 2_786_369),
    "efficientvit_m2": (259_764, 1_499_034, 3_961_248),
    "efficientvit_m3": (259_892, 2_001_130, 6_578_134),
    "efficientvit_m4": (259_764, 2_181_436, 8_417_416),
    "efficientvit_m5": (577_787, 4_128_020, 12_086_756),
    "convnext_atto": (31_000, 155_640, 1_491_640, 3_373_240),
    "convnext_nano": (113_200, 592_880, 7_500_400, 14_950_000),
    "convnext_tiny": (239_712, 1_231_968, 12_344_928, 27_817_056),
}


class EfficientViTParams(Params):
    """EfficientViT (MSRA)."""

    stride: int | None = Field(None, description="level to stop at, by its stride in pixels: 16, 32 or 64 (all)")


class ConvNeXtParams(Params):
    """ConvNeXt."""

    stride: int | None = Field(None, description="level to stop at, by its stride in pixels: 4, 8, 16 or 32 (all)")
    drop_path_rate: float = Field(0.0, ge=0, lt=1, description="stochastic depth while training")


class TimmParams(Params):
    """Any other architecture of timm."""

    arch: str = Field(description="name in timm, such as 'resnet18'; weights tags do not belong here")
    drop_path_rate: float = Field(0.0, ge=0, lt=1, description="stochastic depth while training, where supported")


def pyramid(
    name: str, levels: tuple[Level, ...], stride: int | None, smallest: int, size: tuple[int, int], *, up: bool
) -> BackboneShape:
    """The shape of a network whose levels halve the map, cut after one level.

    Args:
        name: For messages.
        levels: From fine to coarse.
        stride: Level to stop at; the last one if ``None``.
        smallest: Smallest image side that the network takes.
        size: Height and width of the image.
        up: Whether sizes that do not divide are rounded up (padded convolutions) or down (patches).

    Raises:
        ValueError: If the image is too small or there is no such level.
    """
    if min(size) < smallest:
        raise ValueError(f"an image of {size[0]}x{size[1]} is too small; {name} takes {smallest} pixels a side or more")
    last = levels[-1].stride if stride is None else stride
    chosen = next((level for level in levels if level.stride == last), None)
    if chosen is None:
        raise ValueError(f"has no level of stride {stride}; it has {', '.join(str(x.stride) for x in levels)}")
    grid = tuple(ceil(side / last) if up else side // last for side in size)
    return BackboneShape(chosen.dim, Shape(chosen.dim, (grid[0], grid[1])), last, levels, 0.0 if up else None)


def _efficientvit_shape(
    name: str, params: EfficientViTParams, in_chans: int, image_size: tuple[int, int]
) -> BackboneShape:
    levels = tuple(map(Level, EFFICIENTVIT_STRIDES, EFFICIENTVIT_DIMS[name]))
    return pyramid(name, levels, params.stride, 16, image_size, up=True)


def _convnext_shape(name: str, params: ConvNeXtParams, in_chans: int, image_size: tuple[int, int]) -> BackboneShape:
    levels = tuple(map(Level, CONVNEXT_STRIDES, CONVNEXT_DIMS[name]))
    return pyramid(name, levels, params.stride, 32, image_size, up=False)


def level_of(strides: tuple[int, ...], stride: int | None) -> int:
    """Index of the level to stop at."""
    return len(strides) - 1 if stride is None else strides.index(stride)


def _efficientvit_size(name: str, params: EfficientViTParams, in_chans: int, image_size: tuple[int, int]) -> int:
    return WEIGHTS[name][level_of(EFFICIENTVIT_STRIDES, params.stride)]


def _convnext_size(name: str, params: ConvNeXtParams, in_chans: int, image_size: tuple[int, int]) -> int:
    return WEIGHTS[name][level_of(CONVNEXT_STRIDES, params.stride)]


def _any_size(params: TimmParams, in_chans: int, image_size: tuple[int, int]) -> int:
    from .timm import any_size  # as heavy as the shape, which was asked for before

    return any_size(params, in_chans, image_size)


@hookimpl
def register_backbones(register: Register) -> None:
    for name, dims in EFFICIENTVIT_DIMS.items():
        register(
            name,
            build=f"pvzoo.backbones.timm:{name}",
            params=EfficientViTParams,
            shape=partial(_efficientvit_shape, name),
            parameters=partial(_efficientvit_size, name),
            summary=f"EfficientViT-{name[-2:].upper()} (MSRA, CVPR 2023): global features, {dims[-1]} channels",
        )
    for name, widths in CONVNEXT_DIMS.items():
        register(
            name,
            build=f"pvzoo.backbones.timm:{name}",
            params=ConvNeXtParams,
            shape=partial(_convnext_shape, name),
            parameters=partial(_convnext_size, name),
            summary=f"ConvNeXt-{name[9:].capitalize()} (CVPR 2022): local detail, {widths[-1]} channels",
        )
    register(
        "timm",
        build="pvzoo.backbones.timm:any_architecture",
        params=TimmParams,
        # Only timm knows the shapes of a thousand architectures, so a spec that names one costs timm's import.
        shape="pvzoo.backbones.timm:any_shape",
        parameters=_any_size,
        summary="Any architecture of timm by name: {name: timm, params: {arch: resnet18}}",
    )
