"""Fusions: one vector or map a modality in, one out.

Contract: ``forward(features)`` takes a mapping from modality to tensor, all of one shape, ``None`` for a missing one,
and returns :class:`~pvzoo.fusion.base.Fused`. The builder is called as ``build(params, modalities=..., shape=...)``
with the names of the modalities and the :class:`~pvzoo.shapes.Shape` that they share.

This module holds the light part: parameters and names.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, field_validator

from ..hookspecs import Register, hookimpl
from ..registry import NoParams, Params


class ChannelAttentionParams(Params):
    """Channel attention."""

    reduction: int = Field(4, ge=1, description="hidden width is (modalities x channels) / reduction")


class SpatialAttentionParams(Params):
    """Spatial attention."""

    reduction: int = Field(4, ge=1, description="hidden channels are channels / reduction")
    kernel_size: int = Field(3, ge=1, le=31, description="odd size of the convolution that scores each position")

    @field_validator("kernel_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError(f"must be odd, so that the map keeps its size, got {value}")
        return value


class ConcatParams(Params):
    """Concatenation."""

    dim: int | None = Field(None, ge=1, description="project the concatenation to this width; not at all if left out")


class CrossAttentionParams(Params):
    """Cross-attention."""

    heads: int = Field(4, ge=1, description="attention heads; must divide the channels")


class AffParams(Params):
    """Attentional feature fusion."""

    reduction: int = Field(4, ge=1, description="hidden channels of MS-CAM are channels / reduction")


class BilinearParams(Params):
    """Low-rank bilinear pooling."""

    rank: int = Field(256, ge=1, description="width of the element-wise product")
    dim: int | None = Field(None, ge=1, description="output width; that of the input if left out")


def hidden(width: int, reduction: int) -> int:
    """Hidden width of an attention bottleneck: at least 8."""
    return max(width // reduction, 8)


def _channel_size(params: ChannelAttentionParams, modalities: int, dim: int) -> int:
    width = modalities * dim
    inner = hidden(width, params.reduction)
    return inner * (width + 1) + width * (inner + 1)


def _spatial_size(params: SpatialAttentionParams, modalities: int, dim: int) -> int:
    inner = hidden(dim, params.reduction)
    return inner * (modalities * dim + 2) + modalities * (inner * params.kernel_size**2 + 1)


def _concat_size(params: ConcatParams, modalities: int, dim: int) -> int:
    return params.dim * (modalities * dim + 1) if params.dim else 0


def _gated_size(params: NoParams, modalities: int, dim: int) -> int:
    return modalities * dim * (dim + 1) + modalities * dim * (modalities * dim + 1)


def _cross_size(params: CrossAttentionParams, modalities: int, dim: int) -> int:
    return 4 * dim * (dim + 1) + 2 * dim + modalities * dim  # and one position embedding a cell


def _aff_size(params: AffParams, modalities: int, dim: int) -> int:
    inner = hidden(dim, params.reduction)
    out = (modalities - 1) * dim
    return 2 * (inner * (dim + 3) + out * (inner + 3)) if modalities > 1 else 0


def _bilinear_size(params: BilinearParams, modalities: int, dim: int) -> int:
    return modalities * params.rank * (dim + 1) + (params.dim or dim) * (params.rank + 1)


def _concat_dim(params: ConcatParams, dims: Sequence[int]) -> int:
    return params.dim or sum(dims)


def _cross_dim(params: CrossAttentionParams, dims: Sequence[int]) -> int:
    if dims[0] % params.heads:
        raise ValueError(f"{params.heads} heads do not divide {dims[0]} channels")
    return dims[0]


@hookimpl
def register_fusions(register: Register) -> None:
    register(
        "channel_attention",
        build="pvzoo.fusion.attention:ChannelAttentionFusion",
        params=ChannelAttentionParams,
        accepts={"vector", "map"},
        missing="reweight",
        parameters=_channel_size,
        summary="One weight per channel and modality, competing over the modalities",
    )
    register(
        "spatial_attention",
        build="pvzoo.fusion.attention:SpatialAttentionFusion",
        params=SpatialAttentionParams,
        accepts={"map"},
        missing="reweight",
        parameters=_spatial_size,
        summary="One weight per position and modality, competing over the modalities",
    )
    register(
        "gated",
        build="pvzoo.fusion.attention:GatedFusion",
        accepts={"vector", "map"},
        missing="reweight",
        parameters=_gated_size,
        summary="Gated multimodal unit: one gate per value (Arevalo et al. 2017)",
    )
    register(
        "cross_attention",
        build="pvzoo.fusion.tokens:CrossAttentionFusion",
        params=CrossAttentionParams,
        accepts={"vector", "map"},
        out_dim=_cross_dim,
        missing="reweight",
        parameters=_cross_size,
        summary="Tokens of each modality attend to the tokens of all (Vaswani et al. 2017)",
    )
    register(
        "aff",
        build="pvzoo.fusion.aff:AttentionalFusion",
        params=AffParams,
        accepts={"vector", "map"},
        missing="reweight",
        parameters=_aff_size,
        summary="Attentional feature fusion with multi-scale channel attention (Dai et al. 2021)",
    )
    register(
        "iaff",
        build="pvzoo.fusion.aff:IterativeAttentionalFusion",
        params=AffParams,
        accepts={"vector", "map"},
        missing="reweight",
        parameters=lambda params, modalities, dim: 2 * _aff_size(params, modalities, dim),
        summary="Iterative attentional feature fusion: attention over the attended sum (Dai et al. 2021)",
    )
    register(
        "channel_selection",
        build="pvzoo.fusion.selection:ChannelSelectionFusion",
        accepts={"map"},
        missing="ignore",
        summary="Adds to each channel the most similar channel of the other modality (BPFNet's idea)",
    )
    register(
        "concat",
        build="pvzoo.fusion.simple:ConcatFusion",
        params=ConcatParams,
        accepts={"vector", "map"},
        out_dim=_concat_dim,
        missing="refuse",
        parameters=_concat_size,
        summary="Concatenation, projected to a width if asked for",
    )
    register(
        "sum",
        build="pvzoo.fusion.simple:SumFusion",
        accepts={"vector", "map"},
        missing="ignore",
        summary="Sum of the modalities that are present",
    )
    register(
        "max",
        build="pvzoo.fusion.simple:MaxFusion",
        accepts={"vector", "map"},
        missing="ignore",
        summary="Element-wise maximum of the modalities that are present",
    )
    register(
        "low_rank_bilinear",
        build="pvzoo.fusion.simple:LowRankBilinearFusion",
        params=BilinearParams,
        accepts={"vector", "map"},
        out_dim=lambda params, dims: params.dim or dims[0],
        missing="refuse",
        parameters=_bilinear_size,
        summary="Low-rank bilinear pooling: product of projections (Kim et al. 2017)",
    )
