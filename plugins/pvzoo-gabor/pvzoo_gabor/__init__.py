"""CompNet for pvzoo: a palmprint backbone of learnable Gabor filters that compete.

This is the hook module: parameters, shapes and names. pvzoo imports it to list and check models, so it imports no
torch; :mod:`pvzoo_gabor.compnet` is imported when a model is built.
"""

from __future__ import annotations

from importlib.resources import files
from math import prod
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

import pvzoo

# What a block does behind its filters: a 5x5 convolution without padding, then a 2x2 max-pooling.
CONV = 5
POOL = 2

KernelSize = Annotated[int, Field(ge=3, le=127)]


class CompNetParams(pvzoo.Params):
    """CompNet; lengths of a filter are given as parts of its kernel, so that one value serves all sizes."""

    kernel_sizes: Annotated[tuple[KernelSize, ...], Field(min_length=1, max_length=8)] = Field(
        (35, 17, 7), description="odd sizes of the Gabor filters in pixels, a block each"
    )
    orientations: int = Field(9, ge=2, le=64, description="filters a block, evenly over 180 degrees")
    stride: int = Field(3, ge=1, le=16, description="pixels from filter position to filter position")
    hidden: int = Field(32, ge=1, le=4096, description="channels of the 5x5 convolution of a block")
    channels: int = Field(12, ge=1, le=4096, description="channels that a block gives")
    dim: int | None = Field(
        512, ge=1, le=65_536, description="width of the vector; null leaves the projection out and averages the map"
    )
    dropout: float = Field(0.25, ge=0, lt=1, description="on the projected vector, while training")
    sigma: float = Field(0.25, gt=0, le=1, description="first width of the envelope across the lines, in kernel sizes")
    gamma: float = Field(1.0, gt=0, le=10, description="first width of the envelope across the lines over that along")
    cycles: float = Field(2.0, gt=0, description="first number of waves across the kernel")

    @field_validator("kernel_sizes")
    @classmethod
    def _odd(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        even = [size for size in sizes if size % 2 == 0]
        if even:
            raise ValueError(f"must be odd, so that a filter has a centre, got {', '.join(map(str, even))}")
        return sizes

    @field_validator("cycles")
    @classmethod
    def _representable(cls, cycles: float, info: ValidationInfo) -> float:
        smallest = min(info.data.get("kernel_sizes", (127,)))
        if cycles >= smallest / 2:
            raise ValueError(f"must be below {smallest / 2}, two pixels a wave in a kernel of {smallest}, got {cycles}")
        return cycles


def block_grid(params: CompNetParams, kernel_size: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the map that the block of one kernel size gives; not positive for an image too small."""
    height, width = (((side - kernel_size) // params.stride + 1 - (CONV - 1)) // POOL for side in image_size)
    return height, width


def compnet_shape(params: CompNetParams, in_chans: int, image_size: tuple[int, int]) -> pvzoo.BackboneShape:
    """Exact for every image; the map has the grid of the largest kernel, to which the others are cropped.

    Raises:
        ValueError: If not one cell remains.
    """
    largest = max(params.kernel_sizes)
    grid = block_grid(params, largest, image_size)
    if min(grid) < 1:
        smallest = largest + params.stride * (CONV - 1 + POOL - 1)
        size = f"{image_size[0]}x{image_size[1]}"
        reason = f"a kernel of {largest} at stride {params.stride} takes {smallest} pixels a side or more"
        raise ValueError(f"an image of {size} is too small; {reason}")
    channels = len(params.kernel_sizes) * params.channels
    first = (largest - 1) / 2 + params.stride * ((CONV - 1) / 2 + (POOL - 1) / 2)  # nothing is padded
    return pvzoo.BackboneShape(params.dim or channels, pvzoo.Shape(channels, grid), params.stride * POOL, first=first)


def compnet_parameters(params: CompNetParams, in_chans: int, image_size: tuple[int, int]) -> int:
    """Number of trained values; nearly all of them project the maps, whose size grows with the image."""
    block = 4 + params.hidden * (params.orientations * CONV**2 + 1) + params.channels * (params.hidden + 1)
    cells = sum(prod(block_grid(params, size, image_size)) for size in params.kernel_sizes)
    projection = params.dim * (params.channels * cells + 1) if params.dim else 0
    return len(params.kernel_sizes) * block + projection


@pvzoo.hookimpl
def register_backbones(register: pvzoo.Register) -> None:
    register(
        "gabor/compnet",
        build="pvzoo_gabor.compnet:CompNet",
        params=CompNetParams,
        shape=compnet_shape,
        parameters=compnet_parameters,
        summary="CompNet: learnable Gabor filters of three sizes that compete over orientations (Liang et al. 2021)",
    )


@pvzoo.hookimpl
def register_models(register: pvzoo.Register) -> None:
    register("gabor/compnet_palm", spec=files(__name__) / "compnet_palm.yaml")
