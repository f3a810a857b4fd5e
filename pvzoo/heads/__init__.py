"""Heads: from the embedding to logits over identities.

Contract: ``forward(embedding, labels=None)`` takes (N, D), before L2 normalisation, and gives logits
(N, num_classes); a margin acts only with labels. The builder is called as ``build(params, dim=..., num_classes=...)``.
Comparison of palms uses the embedding, never the head.

A head of class centres may offer two things more, and is then trained with a sample of its classes or sharded over
processes (:mod:`pvzoo.training.centers`): an attribute ``sample_rate``, and ``forward(embedding, labels, weight)``,
which gives the logits over the classes whose rows of ``self.weight`` are given; the label -1 is for a class that is not
among them.

This module holds the light part: parameters and names.
"""

from __future__ import annotations

from math import pi

from pydantic import Field

from ..hookspecs import Register, hookimpl
from ..registry import Params


class LinearHeadParams(Params):
    """Linear classifier."""

    bias: bool = Field(True, description="add a learned offset to each logit")


class CentersParams(Params):
    """What heads over class centres have in common."""

    sample_rate: float = Field(
        1.0, gt=0, le=1, description="share of the classes that a training step looks at; for 100,000 or more"
    )


class CosFaceParams(CentersParams):
    """CosFace."""

    scale: float = Field(64.0, gt=0, description="s, the inverse temperature of the cosine logits")
    margin: float = Field(0.35, ge=0, lt=2, description="m, subtracted from the cosine of the true class")


class ArcFaceParams(CentersParams):
    """ArcFace."""

    scale: float = Field(64.0, gt=0, description="s; between 32 and 64, larger makes harder class borders")
    margin: float = Field(0.5, ge=0, lt=pi / 2, description="m in radians; between 0.3 and 0.5, smaller for few images")
    easy_margin: bool = Field(False, description="apply the margin only where the angle is below 90 degrees")


class SubcenterArcFaceParams(ArcFaceParams):
    """Sub-center ArcFace."""

    centers: int = Field(3, ge=1, le=64, description="K, centres a class; 1 is ArcFace")


class AdaFaceParams(CentersParams):
    """AdaFace."""

    scale: float = Field(64.0, gt=0, description="s, the inverse temperature of the cosine logits")
    margin: float = Field(0.4, ge=0, lt=pi / 4, description="m, of both the angular and the additive margin")
    concentration: float = Field(0.333, gt=0, description="h; how strongly the feature norm moves the margin")
    momentum: float = Field(0.01, gt=0, le=1, description="t_alpha; of the running mean and deviation of the norm")


def _linear_size(params: LinearHeadParams, dim: int, num_classes: int) -> int:
    return num_classes * (dim + params.bias)


def _centers_size(params: Params, dim: int, num_classes: int) -> int:
    return num_classes * dim * int(getattr(params, "centers", 1))


@hookimpl
def register_heads(register: Register) -> None:
    register(
        "arcface",
        build="pvzoo.heads.margin:ArcFace",
        params=ArcFaceParams,
        parameters=_centers_size,
        summary="Additive angular margin: cos(theta + m) (Deng et al. 2019)",
    )
    register(
        "cosface",
        build="pvzoo.heads.margin:CosFace",
        params=CosFaceParams,
        parameters=_centers_size,
        summary="Additive cosine margin: cos(theta) - m (Wang et al. 2018)",
    )
    register(
        "adaface",
        build="pvzoo.heads.margin:AdaFace",
        params=AdaFaceParams,
        parameters=_centers_size,
        summary="Margin that adapts to image quality through the feature norm (Kim et al. 2022)",
    )
    register(
        "subcenter_arcface",
        build="pvzoo.heads.margin:SubcenterArcFace",
        params=SubcenterArcFaceParams,
        parameters=_centers_size,
        summary="ArcFace with K centres a class, for noisy labels (Deng et al. 2020)",
    )
    register(
        "linear",
        build="pvzoo.heads.linear:LinearHead",
        params=LinearHeadParams,
        parameters=_linear_size,
        summary="Linear classifier",
    )
    register(
        "none",
        build="pvzoo.heads.linear:NoHead",
        classes=False,
        summary="No classifier: logits are None",
    )
