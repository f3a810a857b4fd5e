"""The modules behind the names.

* Product: Kim et al., "Hadamard Product for Low-rank Bilinear Pooling", ICLR 2017, https://arxiv.org/abs/1610.04325.
  With a linear alignment of each modality in front, ``product`` is its low-rank bilinear pooling, and the biases of
  the alignments give it the terms of first order too.
* Signed square root: Fukui et al., "Multimodal Compact Bilinear Pooling for Visual Question Answering and Visual
  Grounding", EMNLP 2016, https://arxiv.org/abs/1606.01847; here the n-th root, for n modalities.
* A rate that starts at zero: Zhang et al., "Self-Attention Generative Adversarial Networks", ICML 2019,
  https://arxiv.org/abs/1805.08318; Bachlechner et al., "ReZero is All You Need", UAI 2021,
  https://arxiv.org/abs/2003.04887.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

import pvzoo

from . import ProductParams, ResidualParams

# The slope of a root is infinite at 0. Moving the root's foot to -EPSILON bounds it, at 50 for two modalities.
EPSILON = 1e-4


def stacked(features: Mapping[str, Tensor | None]) -> Tensor:
    """The modalities that are present, (n, N, D) or (n, N, D, h, w); a model calls with at least one."""
    return torch.stack([x for x in features.values() if x is not None])


def signed_root(x: Tensor, n: int) -> Tensor:
    """The n-th root of the magnitude, with the sign of ``x``; continuous, with a finite slope at 0."""
    magnitude: Tensor = (x.abs() + EPSILON) ** (1 / n) - EPSILON ** (1 / n)
    return x.sign() * magnitude


class ProductFusion(nn.Module):
    """Element-wise product of the modalities that are present; one alone passes as it is."""

    def __init__(self, params: ProductParams, *, modalities: Sequence[str], shape: pvzoo.Shape) -> None:
        super().__init__()
        self.root = params.root

    def forward(self, features: Mapping[str, Tensor | None]) -> pvzoo.Fused:
        found = stacked(features)
        product = found.prod(0)
        # One modality alone needs no root, and rounding in its root of order 1 would only blur it.
        return pvzoo.Fused(signed_root(product, len(found)) if self.root and len(found) > 1 else product)


class ResidualFusion(nn.Module):
    """Sum of the modalities that are present, plus gamma times their product; one alone passes as it is."""

    def __init__(self, params: ResidualParams, *, modalities: Sequence[str], shape: pvzoo.Shape) -> None:
        super().__init__()
        broadcastable = (shape.dim,) if shape.grid is None else (shape.dim, 1, 1)
        self.gamma = nn.Parameter(torch.full(broadcastable, params.gamma))

    def forward(self, features: Mapping[str, Tensor | None]) -> pvzoo.Fused:
        found = stacked(features)
        if len(found) == 1:
            return pvzoo.Fused(found[0])
        return pvzoo.Fused(found.sum(0) + self.gamma * found.prod(0))
