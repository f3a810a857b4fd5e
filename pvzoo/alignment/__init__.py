"""Alignments: from the features of one modality into the space where modalities meet.

Contract: ``forward(x)`` takes vectors (N, D) and gives vectors, or maps (N, D, h, w) and gives maps.
The builder is called as ``build(params, shape=...)`` with the :class:`~pvzoo.shapes.Shape` of its input.

This module holds the light part; the modules stand in :mod:`pvzoo.alignment.projections`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..hookspecs import Register, hookimpl
from ..registry import Params
from ..shapes import Shape

Cells = Annotated[int, Field(ge=1, le=1024)]


class LinearParams(Params):
    """Linear projection of vectors."""

    dim: int = Field(256, ge=1, description="width of the common space")
    bias: bool = Field(True, description="add a learned offset to each channel")
    batch_norm: bool = Field(False, description="BatchNorm after the projection")


class ResampleParams(Params):
    """Resampling of maps to a common grid; none unless a grid is given."""

    grid: tuple[Cells, Cells] | None = Field(None, description="height and width to resample a map to")
    mode: Literal["bilinear", "nearest", "area"] = Field("bilinear", description="how to resample")


class Conv1x1Params(ResampleParams):
    """1x1 convolution of maps, then BatchNorm."""

    dim: int = Field(256, ge=1, description="channels of the common space")


def _resampled(dim: int, params: ResampleParams, shape: Shape) -> Shape:
    return Shape(dim, params.grid or shape.grid)


def _identity_shape(params: ResampleParams, shape: Shape) -> Shape:
    return shape if shape.kind == "vector" else _resampled(shape.dim, params, shape)


def _linear_size(params: LinearParams, shape: Shape) -> int:
    return params.dim * (shape.dim + params.bias + 2 * params.batch_norm)


def _conv_size(params: Conv1x1Params, shape: Shape) -> int:
    return params.dim * (shape.dim + 2)


@hookimpl
def register_alignments(register: Register) -> None:
    register(
        "linear",
        build="pvzoo.alignment.projections:LinearAlignment",
        params=LinearParams,
        accepts={"vector"},
        out=lambda params, shape: Shape(params.dim),
        parameters=_linear_size,
        summary="Linear projection of vectors, BatchNorm optional (FeatureAlign)",
    )
    register(
        "conv1x1",
        build="pvzoo.alignment.projections:Conv1x1Alignment",
        params=Conv1x1Params,
        accepts={"map"},
        out=lambda params, shape: _resampled(params.dim, params, shape),
        parameters=_conv_size,
        summary="1x1 convolution of maps and BatchNorm, resampling optional (ConvAlign2d)",
    )
    register(
        "identity",
        build="pvzoo.alignment.projections:IdentityAlignment",
        params=ResampleParams,
        accepts={"vector", "map"},
        out=_identity_shape,
        summary="Features as they are; maps may be resampled to a grid",
    )


__all__ = ["Conv1x1Params", "LinearParams", "ResampleParams", "register_alignments"]
