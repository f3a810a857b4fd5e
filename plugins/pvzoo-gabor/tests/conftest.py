from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

import pvzoo


@pytest.fixture
def make() -> Callable[..., pvzoo.Model]:
    """Makes a palm model of small, quick blocks; arguments are parameters of the backbone."""

    def make(*, size: object = 64, in_chans: int = 1, features: str = "vector", **params: Any) -> pvzoo.Model:
        torch.manual_seed(0)
        small: Mapping[str, Any] = {"kernel_sizes": [17, 7], "orientations": 4, "dim": 16}
        backbone = {"name": "gabor/compnet", "params": {**small, **params}}
        return pvzoo.create(
            {
                "preprocessing": {"size": size, "channels": in_chans},
                "modalities": ["palm"],
                "branches": {"local": {"backbone": backbone, "features": features}},
            }
        )

    return make
