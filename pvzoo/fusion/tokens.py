"""Fusion by attention between tokens."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from ..shapes import Shape
from . import CrossAttentionParams
from .base import Features, Fused, present, with_zeros


class CrossAttentionFusion(nn.Module):
    """Tokens of each modality attend to the tokens of all modalities that are present.

    Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762. A vector is one token, a map
    one token a cell, each with a learned embedding of its modality and position. One pre-norm attention block with a
    residual, z = t + W softmax(q k / sqrt(d)) v, then the mean over the modalities. The weights are the attention
    that each modality received, averaged over heads and the modalities that asked: (N, 1, h, w) for maps; for vectors
    (N, D), each head's share on the channels of that head. A missing modality sends no tokens and gets weight 0.
    """

    def __init__(self, params: CrossAttentionParams, *, modalities: Sequence[str], shape: Shape) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.heads = params.heads
        self.norm = nn.LayerNorm(shape.dim)
        self.query_key_value = nn.Linear(shape.dim, 3 * shape.dim)
        self.project = nn.Linear(shape.dim, shape.dim)
        self.position = nn.Parameter(torch.zeros(prod(shape.grid or (1,)), shape.dim))
        self.modality = nn.ParameterDict({name: nn.Parameter(torch.zeros(shape.dim)) for name in self.modalities})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for embedding in (self.position, *self.modality.values()):
            nn.init.normal_(embedding, std=0.02)

    def forward(self, features: Features) -> Fused:
        found = present(features, self.modalities)
        example = next(iter(found.values()))
        tokens = torch.cat([self._tokens(name, x) for name, x in found.items()], dim=1)
        attended, attention = self._attend(self.norm(tokens))
        tokens = tokens + attended

        # (N, M, T, D) -> mean over modalities -> back to the shape of the input
        batch, dim = example.shape[:2]
        count, cells = len(found), len(self.position)
        fused = tokens.view(batch, count, cells, dim).mean(1)
        shares = attention.view(batch, self.heads, count, cells, count, cells).sum(-1).mean(2)
        if example.ndim == 2:
            by_modality = shares[:, :, 0].repeat_interleave(dim // self.heads, dim=1).unbind(-1)
            result = fused[:, 0]
        else:
            by_modality = shares.mean(1).view(batch, 1, *example.shape[2:], len(found)).unbind(-1)
            result = fused.transpose(1, 2).reshape(example.shape)
        return Fused(result, with_zeros(dict(zip(found, by_modality, strict=True)), self.modalities))

    def _tokens(self, name: str, x: Tensor) -> Tensor:
        """(N, D) or (N, D, h, w) to (N, T, D), marked with modality and position."""
        tokens = x[:, None] if x.ndim == 2 else x.flatten(2).transpose(1, 2)
        marked: Tensor = tokens + self.position + self.modality[name]
        return marked

    def _attend(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Multi-head attention; returns values (N, T, D) and attention (N, heads, T, T)."""
        batch, count, dim = tokens.shape
        packed = self.query_key_value(tokens).view(batch, count, 3, self.heads, dim // self.heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        attention = torch.softmax(query @ key.transpose(-2, -1) * (dim // self.heads) ** -0.5, dim=-1)
        mixed = (attention @ value).transpose(1, 2).reshape(batch, count, dim)
        projected: Tensor = self.project(mixed)
        return projected, attention
