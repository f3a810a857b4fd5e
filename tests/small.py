"""A model of the zoo's form that is built in a blink, values for its tensors that matter, and images for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pvzoo.model import Model

TINY: dict[str, Any] = {
    "preprocessing": {"size": 64},
    "branches": {
        "global": {"backbone": "efficientvit_m0", "alignment": {"name": "linear", "params": {"dim": 16}}},
        "local": {
            "backbone": "convnext_atto",
            "features": "map",
            "alignment": {"name": "conv1x1", "params": {"dim": 16}},
        },
    },
    "fusion": {"global": "channel_attention", "local": "spatial_attention"},
    "head": "arcface",
    "num_classes": 5,
}


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Gives every tensor values that matter: a fresh EfficientViT has a third of its norms at weight 0, so that its
    attention changes nothing and no test would see it broken."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator) * 0.1
                tensor.copy_(noise.abs() + 0.5 if "running_var" in name or tensor.ndim == 1 else noise)


def batch(model: Model, count: int = 3) -> list[Tensor]:
    shape = (count, model.spec.preprocessing.channels, *model.spec.preprocessing.size)
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(shape, generator=generator) for _ in model.spec.modalities]
