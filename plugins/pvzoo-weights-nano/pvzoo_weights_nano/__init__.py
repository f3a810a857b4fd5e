"""Pretrained weights for pvzoo: files with their digests, and the manifest that says what they are."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pvzoo


@pvzoo.hookimpl
def register_weight_sources(register: pvzoo.Register) -> None:
    register(
        "weights-nano/packed",
        build=f"{__name__}:source",
        manifest=files(__name__) / "weights.json",
        summary="Weights in the package pvzoo-weights-nano",
    )


def source(params: Any) -> Any:
    from pvzoo.hub.packages import Packaged

    return Packaged(files(__name__))
