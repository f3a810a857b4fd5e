"""Multiplicative fusion for pvzoo: what modalities agree on is amplified, what one of them lacks is damped.

This is the hook module: names, parameters and shapes. pvzoo imports it to list and check models, so it imports no
torch; :mod:`pvzoo_hadamard.fusion` is imported when a model is built.
"""

from __future__ import annotations

from pydantic import Field

import pvzoo


class ProductParams(pvzoo.Params):
    """Product of the modalities."""

    root: bool = Field(True, description="signed n-th root of a product of n, so that it keeps the inputs' scale")


class ResidualParams(pvzoo.Params):
    """Sum of the modalities, and their product at a learned rate."""

    gamma: float = Field(0.0, ge=-1, le=1, description="rate of the product before training; 0 starts as the sum")


@pvzoo.hookimpl
def register_fusions(register: pvzoo.Register) -> None:
    register(
        "hadamard/product",
        build="pvzoo_hadamard.fusion:ProductFusion",
        params=ProductParams,
        accepts={"vector", "map"},
        missing="ignore",
        summary="Element-wise product of the modalities that are present (after Kim et al. 2017)",
    )
    register(
        "hadamard/residual",
        build="pvzoo_hadamard.fusion:ResidualFusion",
        params=ResidualParams,
        accepts={"vector", "map"},
        missing="ignore",
        parameters=lambda params, modalities, dim: dim,
        summary="Sum of the modalities, and their product at a rate learned per channel",
    )
