"""Heads without a margin."""

from __future__ import annotations

from torch import Tensor, nn

from ..registry import NoParams
from . import LinearHeadParams


class LinearHead(nn.Linear):
    """(N, D) to (N, num_classes): logits = W x + b; labels change nothing."""

    def __init__(self, params: LinearHeadParams, *, dim: int, num_classes: int) -> None:
        super().__init__(dim, num_classes, bias=params.bias)

    def forward(self, embedding: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(embedding)


class NoHead(nn.Module):
    """For models that only embed: logits are ``None``."""

    def __init__(self, params: NoParams, *, dim: int, num_classes: int | None) -> None:
        super().__init__()

    def forward(self, embedding: Tensor, labels: Tensor | None = None) -> None:
        return None
