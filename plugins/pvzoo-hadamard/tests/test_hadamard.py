"""What the plugin promises beyond pvzoo's contracts, which ``pvzoo.testing`` checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import pvzoo
from pvzoo.testing import parametrize_checks

MODALITIES = ("palm", "vein", "palm_infrared")


@parametrize_checks("hadamard")
def test_plugin(check: Callable[[], None]) -> None:
    check()


@parametrize_checks("hadamard/product")
def test_product(check: Callable[[], None]) -> None:
    check()


@parametrize_checks("hadamard/product", params={"root": False})
def test_product_without_root(check: Callable[[], None]) -> None:
    check()


@parametrize_checks("hadamard/residual")
def test_residual(check: Callable[[], None]) -> None:
    check()


def model_of(fusion: object, modalities: int = 2) -> pvzoo.Model:
    """A small model around a fusion, with 8 channels where the modalities meet."""
    torch.manual_seed(0)
    branch = {"backbone": "convnext_atto", "alignment": {"name": "linear", "params": {"dim": 8}}}
    return pvzoo.create(
        {
            "preprocessing": {"size": 64},
            "modalities": list(MODALITIES[:modalities]),
            "branches": {"local": branch},
            "fusion": {"local": fusion},
        }
    )


def fuse(model: pvzoo.Model, *features: Tensor | None) -> Tensor:
    """Runs the model's fusion alone."""
    fused: pvzoo.Fused = model.fusions["local"](dict(zip(model.spec.modalities, features, strict=True)))
    return fused.features


@pytest.mark.parametrize("name", ["hadamard/product", "hadamard/residual"])
def test_one_modality_alone_passes_unchanged(name: str) -> None:
    x = torch.randn(2, 8)
    assert torch.equal(fuse(model_of(name), None, x), x)


def test_product_multiplies() -> None:
    x, y = torch.randn(2, 2, 8)
    model = model_of({"name": "hadamard/product", "params": {"root": False}})
    assert torch.equal(fuse(model, x, y), x * y)


@pytest.mark.parametrize("modalities", [2, 3])
def test_rooted_product_keeps_scale_and_sign(modalities: int) -> None:
    x = torch.full((1, 8), -3.0)
    fused = fuse(model_of("hadamard/product", modalities=modalities), *[x] * modalities)
    assert torch.allclose(fused, torch.full_like(x, 3.0 * (-1) ** modalities), atol=0.1)


def test_residual_starts_as_the_sum_and_learns_the_product() -> None:
    x, y = torch.randn(2, 2, 8)
    model = model_of("hadamard/residual")
    assert torch.equal(fuse(model, x, y), x + y)
    torch.nn.init.constant_(model.fusions["local"].gamma, 0.5)  # type: ignore[arg-type]
    assert torch.allclose(fuse(model, x, y), x + y + 0.5 * x * y)


@pytest.mark.parametrize(
    ("name", "params", "path", "message"),
    [
        ("hadamard/product", {"rooot": True}, "fusion.local.params.rooot", "did you mean 'root'?"),
        ("hadamard/product", {"root": "yes"}, "fusion.local.params.root", "valid boolean, got 'yes'"),
        ("hadamard/residual", {"gamma": 3.0}, "fusion.local.params.gamma", "less than or equal to 1, got 3.0"),
    ],
)
def test_wrong_params_are_reported_where_they_stand(name: str, params: object, path: str, message: str) -> None:
    with pytest.raises(pvzoo.PvzooError) as caught:
        model_of({"name": name, "params": params})
    assert f"{path}: " in str(caught.value)
    assert message in str(caught.value)


def test_a_saved_model_names_the_plugin_and_is_loaded_with_it(tmp_path: Path) -> None:
    model = model_of({"name": "hadamard/residual", "params": {"gamma": 0.25}})
    palm, vein = torch.randn(2, 2, 1, 64, 64)
    folder = model.save(tmp_path / "saved")
    assert torch.equal(pvzoo.create(f"local-dir:{folder}").embed(palm, vein), model.embed(palm, vein))
    config = json.loads((folder / "config.json").read_text())
    assert config["requires"] == {"hadamard": {"distribution": "pvzoo-hadamard", "version": "0.1.0"}}
