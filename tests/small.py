"""Models that are built in a blink, values for their tensors that matter, images for them, and a plugin with one."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor, nn

import pvzoo
from pvzoo.model import Model
from pvzoo.plugins import Host

# Weights that pvzoo's own manifest lists; those of plugins come before them or behind, by name.
OWN = sorted(json.loads((files("pvzoo.zoo") / "weights.json").read_text())["weights"])

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

# Of one modality, and 0.8 MB on disk.
PALM: dict[str, Any] = {
    "modalities": ["palm"],
    "preprocessing": {"size": 64},
    "branches": {"local": {"backbone": {"name": "timm", "params": {"arch": "test_convnext"}}}},
    "head": "arcface",
    "num_classes": 3,
}


class Acme:
    """A plugin with that as its model ``acme/palm``, and a source of weights."""

    def __init__(self, source: dict[str, Any]) -> None:
        self.source = source

    @pvzoo.hookimpl
    def register_models(self, register: Any) -> None:
        register("acme/palm", spec=PALM, summary="One small branch")

    @pvzoo.hookimpl
    def register_weight_sources(self, register: Any) -> None:
        register("acme/weights", **self.source)


def acme(**source: Any) -> Host:
    """A host with this plugin alone."""
    host = Host(plugins=[])
    host.add("acme", Acme(source), distribution="pvzoo-acme", version="0.3")
    return host


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
