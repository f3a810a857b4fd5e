"""Fusions in which the modalities compete for weight: per channel, per position, or per value."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..registry import NoParams
from ..shapes import Shape
from . import ChannelAttentionParams, SpatialAttentionParams, hidden
from .base import Features, Fused, joined, pointwise, present, weigh


class ChannelAttentionFusion(nn.Module):
    """One weight per channel and modality.

    z = w1 * x1 + w2 * x2 with w = softmax(W ReLU(V [x1, x2])): a bottleneck sees all modalities, maps averaged over
    positions, and scores each channel of each; the softmax over the modalities gives weights (N, D).
    Squeeze-and-excitation (Hu et al., CVPR 2018, https://arxiv.org/abs/1709.01507) over modalities instead of channels
    alone. A missing modality is seen as zeros and gets weight 0.
    """

    def __init__(self, params: ChannelAttentionParams, *, modalities: Sequence[str], shape: Shape) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        width = len(self.modalities) * shape.dim
        inner = hidden(width, params.reduction)
        self.score = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, width))

    def forward(self, features: Features) -> Fused:
        found = present(features, self.modalities)
        pooled = {name: x.mean((2, 3)) if x.ndim == 4 else x for name, x in found.items()}
        scores = self.score(joined(pooled, self.modalities)).chunk(len(self.modalities), dim=1)
        logits = dict(zip(self.modalities, scores, strict=True))
        if next(iter(found.values())).ndim == 2:
            return weigh(found, logits, self.modalities)
        fused = weigh(found, {name: x[:, :, None, None] for name, x in logits.items()}, self.modalities)
        return Fused(fused.features, {name: w[:, :, 0, 0] for name, w in fused.weights.items()})


class SpatialAttentionFusion(nn.Module):
    """One weight per position and modality, for maps.

    z = w1 * x1 + w2 * x2 with w = softmax(conv(ReLU(BatchNorm(V [x1, x2])))): a bottleneck of 1x1 convolution,
    BatchNorm and ReLU sees all modalities, and a small convolution scores each position of each; the softmax over the
    modalities gives weights (N, 1, h, w). A convolution weighs positions in CBAM too (Woo et al., ECCV 2018,
    https://arxiv.org/abs/1807.06521); here the modalities compete for each. A missing modality is seen as zeros and
    gets weight 0.
    """

    def __init__(self, params: SpatialAttentionParams, *, modalities: Sequence[str], shape: Shape) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        inner = hidden(shape.dim, params.reduction)
        self.score = nn.Sequential(
            nn.Conv2d(len(self.modalities) * shape.dim, inner, kernel_size=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, len(self.modalities), params.kernel_size, padding=params.kernel_size // 2),
        )

    def forward(self, features: Features) -> Fused:
        found = present(features, self.modalities)
        scores = self.score(joined(found, self.modalities)).split(1, dim=1)
        return weigh(found, dict(zip(self.modalities, scores, strict=True)), self.modalities)


class GatedFusion(nn.Module):
    """Gated multimodal unit: one gate per value and modality.

    Arevalo et al., "Gated Multimodal Units for Information Fusion", 2017, https://arxiv.org/abs/1702.01992:
    h = z * tanh(W1 x1) + (1 - z) * tanh(W2 x2) with z = sigmoid(Wz [x1, x2]); with N modalities the softmax over
    N gates, which is the sigmoid for two. A missing modality is seen as zeros and gets weight 0.
    """

    def __init__(self, params: NoParams, *, modalities: Sequence[str], shape: Shape) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        count = len(self.modalities)
        self.value = nn.ModuleDict({name: pointwise(shape, shape.dim, shape.dim) for name in self.modalities})
        self.gate = pointwise(shape, count * shape.dim, count * shape.dim)

    def forward(self, features: Features) -> Fused:
        found = present(features, self.modalities)
        gates: Tensor = self.gate(joined(found, self.modalities))
        logits = dict(zip(self.modalities, gates.chunk(len(self.modalities), dim=1), strict=True))
        values = {name: torch.tanh(self.value[name](x)) for name, x in found.items()}
        return weigh(values, logits, self.modalities)
