"""Channel selection after BPFNet."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import NoParams
from ..shapes import Shape
from .base import Features, Fused, present


class ChannelSelectionFusion(nn.Module):
    """Adds to each channel of a modality the most similar channel of every other, and averages the modalities.

    After the idea of Li et al., "BPFNet: A Unified Framework for Bimodal Palmprint Alignment and Fusion", 2021,
    https://arxiv.org/abs/2110.01179: channels that look alike in both modalities should meet, whatever their index.
    z = (x1 + x2[best for x1] + x2 + x1[best for x2]) / 2. Similarity is the cosine between two channels over all
    positions, so maps are needed. It has no parameters; the choice is not differentiated, the chosen channels are. A
    missing modality is left out; one modality alone passes unchanged.
    """

    def __init__(self, params: NoParams, *, modalities: Sequence[str], shape: Shape) -> None:
        super().__init__()
        self.modalities = tuple(modalities)

    def forward(self, features: Features) -> Fused:
        found = list(present(features, self.modalities).values())
        enriched = [
            sum((self._select(x, other) for rank, other in enumerate(found) if rank != place), start=x)
            for place, x in enumerate(found)
        ]
        return Fused(torch.stack(enriched).mean(0))

    @staticmethod
    def _select(x: Tensor, other: Tensor) -> Tensor:
        """For each channel of ``x`` (N, D, h, w), the channel of ``other`` with the largest cosine."""
        with torch.no_grad():
            similarity = F.normalize(x.flatten(2), dim=2) @ F.normalize(other.flatten(2), dim=2).transpose(1, 2)
            choice = similarity.argmax(dim=2)[:, :, None, None].expand_as(other)
        return other.gather(1, choice)
