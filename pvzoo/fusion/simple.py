"""Fusions without attention: the baselines of every ablation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..registry import NoParams
from ..shapes import Shape
from . import BilinearParams, ConcatParams
from .base import Features, Fused, pointwise, present, require_all


class ConcatFusion(nn.Module):
    """z = [x1, x2] along the channels, W [x1, x2] + b if ``dim`` is set. Refuses a missing modality."""

    def __init__(self, params: ConcatParams, *, modalities: Sequence[str], shape: Shape) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        width = len(self.modalities) * shape.dim
        self.project = pointwise(shape, width, params.dim) if params.dim else nn.Identity()

    def forward(self, features: Features) -> Fused:
        return Fused(self.project(torch.cat(require_all(features, self.modalities, "concat"), dim=1)))


class SumFusion(nn.Module):
    """z = x1 + x2, over the modalities that are present."""

    def __init__(self, params: NoParams, *, modalities: Sequence[str], shape: Shape) -> None:
        super().__init__()
        self.modalities = tuple(modalities)

    def forward(self, features: Features) -> Fused:
        return Fused(torch.stack(list(present(features, self.modalities).values())).sum(0))


class MaxFusion(nn.Module):
    """z = max(x1, x2) element by element, over the modalities that are present."""

    def __init__(self, params: NoParams, *, modalities: Sequence[str], shape: Shape) -> None:
        super().__init__()
        self.modalities = tuple(modalities)

    def forward(self, features: Features) -> Fused:
        return Fused(torch.stack(list(present(features, self.modalities).values())).amax(0))


class LowRankBilinearFusion(nn.Module):
    """z = P (tanh(U1 x1) * tanh(U2 x2)): all pairwise products at a low rank. Refuses a missing modality.

    Kim et al., "Hadamard Product for Low-rank Bilinear Pooling", ICLR 2017, https://arxiv.org/abs/1610.04325.
    """

    def __init__(self, params: BilinearParams, *, modalities: Sequence[str], shape: Shape) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.factor = nn.ModuleDict({name: pointwise(shape, shape.dim, params.rank) for name in self.modalities})
        self.project = pointwise(shape, params.rank, params.dim or shape.dim)

    def forward(self, features: Features) -> Fused:
        found = require_all(features, self.modalities, "low_rank_bilinear")
        factors = [torch.tanh(self.factor[name](x)) for name, x in zip(self.modalities, found, strict=True)]
        return Fused(self.project(torch.stack(factors).prod(0)))
