"""Attentional feature fusion.

Dai et al., "Attentional Feature Fusion", WACV 2021, https://arxiv.org/abs/2009.14082.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..shapes import Shape
from . import AffParams, hidden
from .base import Features, Fused, present, weigh


class MultiScaleChannelAttention(nn.Module):
    """MS-CAM: point-wise bottlenecks over each position and over the average of all positions, added.

    Args:
        dim: Channels in.
        out: Channels out.
        reduction: Hidden channels are ``dim / reduction``.
    """

    def __init__(self, dim: int, out: int, reduction: int) -> None:
        super().__init__()
        self.local_context = self._bottleneck(dim, out, hidden(dim, reduction))
        self.global_context = self._bottleneck(dim, out, hidden(dim, reduction))

    @staticmethod
    def _bottleneck(dim: int, out: int, inner: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(dim, inner, kernel_size=1),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, out, kernel_size=1),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, h, w) to (N, out, h, w)."""
        context: Tensor = self.local_context(x) + self.global_context(x.mean((2, 3), keepdim=True))
        return context


class AttentionalFusion(nn.Module):
    """AFF: Z = M(X + Y) * X + (1 - M(X + Y)) * Y with M = sigmoid(MS-CAM).

    With N modalities, the softmax over N logits of which the last is 0; for two that is the sigmoid of the paper.
    Weights have the features' shape. A missing modality adds nothing to the sum and gets weight 0.
    """

    def __init__(self, params: AffParams, *, modalities: Sequence[str], shape: Shape) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.attention = self._attention(params, shape)

    def _attention(self, params: AffParams, shape: Shape) -> nn.Module | None:
        rivals = len(self.modalities) - 1
        return MultiScaleChannelAttention(shape.dim, rivals * shape.dim, params.reduction) if rivals else None

    def forward(self, features: Features) -> Fused:
        found = present(features, self.modalities)
        return self._weigh(found, torch.stack(list(found.values())).sum(0), self.attention)

    def _weigh(self, found: Mapping[str, Tensor], mixed: Tensor, attention: nn.Module | None) -> Fused:
        logits = {self.modalities[-1]: torch.zeros_like(mixed)}
        if attention is not None:
            scores = attention(mixed if mixed.ndim == 4 else mixed[:, :, None, None])
            scores = scores if mixed.ndim == 4 else scores[:, :, 0, 0]
            chunks = scores.chunk(len(self.modalities) - 1, dim=1)
            logits.update(zip(self.modalities[:-1], chunks, strict=True))
        return weigh(found, logits, self.modalities)


class IterativeAttentionalFusion(AttentionalFusion):
    """iAFF: Z = M(S) * X + (1 - M(S)) * Y, where S is itself an attended sum of X and Y, by a second MS-CAM."""

    def __init__(self, params: AffParams, *, modalities: Sequence[str], shape: Shape) -> None:
        super().__init__(params, modalities=modalities, shape=shape)
        self.first_attention = self._attention(params, shape)

    def forward(self, features: Features) -> Fused:
        found = present(features, self.modalities)
        mixed = self._weigh(found, torch.stack(list(found.values())).sum(0), self.first_attention).features
        return self._weigh(found, mixed, self.attention)
