"""What every fusion returns, and the few steps that fusions share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError, MissingModalityError
from ..shapes import Shape

Features = Mapping[str, Tensor | None]


class Fused(NamedTuple):
    """Result of a fusion.

    Attributes:
        features: One vector (N, D) or map (N, D, h, w).
        weights: By modality, the share that it had, where the fusion weighs: (N, D), (N, 1, h, w) or (N, D, h, w).
            They sum to 1 over the modalities; that of a missing one is 0. Empty for a fusion that does not weigh.
    """

    features: Tensor
    weights: Mapping[str, Tensor] = {}


def present(features: Features, modalities: Sequence[str]) -> dict[str, Tensor]:
    """The modalities that are there, in the model's order.

    Raises:
        MissingModalityError: If none is.
        InputError: If they are not of one shape; broadcasting would hide it.
    """
    found = {name: x for name in modalities if (x := features.get(name)) is not None}
    if not found:
        raise MissingModalityError(f"every modality is missing; give at least one of {', '.join(modalities)}")
    (first, example), *others = found.items()
    for name, x in others:
        if x.shape != example.shape:
            message = f"{first} has shape {tuple(example.shape)}, and {name} {tuple(x.shape)}"
            raise InputError(f"{message}; a fusion joins features of one shape")
    return found


def require_all(features: Features, modalities: Sequence[str], fusion: str) -> list[Tensor]:
    """All modalities in order, for fusions that cannot do without one.

    Raises:
        MissingModalityError: Naming the missing ones, and what can be used instead.
    """
    found = present(features, modalities)
    missing = [name for name in modalities if name not in found]
    if missing:
        message = f"fusion {fusion!r} needs every modality, and {', '.join(missing)} is missing"
        raise MissingModalityError(f"{message}; channel_attention, gated, sum and others do without")
    return list(found.values())


def with_zeros(found: Mapping[str, Tensor], modalities: Sequence[str]) -> dict[str, Tensor]:
    """All modalities in order, zeros in place of missing ones: for layers of fixed width, and for weights."""
    zero = torch.zeros_like(next(iter(found.values())))
    return {name: found.get(name, zero) for name in modalities}


def joined(found: Mapping[str, Tensor], modalities: Sequence[str]) -> Tensor:
    """All modalities side by side along the channels, zeros in place of missing ones."""
    return torch.cat(list(with_zeros(found, modalities).values()), dim=1)


def weigh(found: Mapping[str, Tensor], logits: Mapping[str, Tensor], modalities: Sequence[str]) -> Fused:
    """Softmax of the logits over the modalities that are present, and the weighted sum.

    Args:
        found: Features by modality.
        logits: By modality, broadcastable to the features; those of missing modalities are not used.
        modalities: All modalities of the model.
    """
    shares = torch.softmax(torch.stack([logits[name] for name in found]), dim=0)
    fused = sum(share * x for share, x in zip(shares, found.values(), strict=True))
    assert isinstance(fused, Tensor)
    return Fused(fused, with_zeros(dict(zip(found, shares, strict=True)), modalities))


def pointwise(shape: Shape, dim_in: int, dim_out: int) -> nn.Module:
    """A linear layer at every position: ``Linear`` for vectors, 1x1 convolution for maps."""
    return nn.Linear(dim_in, dim_out) if shape.kind == "vector" else nn.Conv2d(dim_in, dim_out, kernel_size=1)
