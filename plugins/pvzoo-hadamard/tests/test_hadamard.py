"""What the plugin promises, seen through pvzoo's public API alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import pvzoo

NAMES = ["hadamard/product", "hadamard/residual"]
KINDS = ["vector", "map"]
ALIGNMENT = {"vector": "linear", "map": "conv1x1"}
MODALITIES = ("palm", "vein", "palm_infrared")


def model_of(fusion: object, kind: str = "vector", modalities: int = 2) -> pvzoo.Model:
    """A small model around a fusion, with 8 channels where the modalities meet."""
    torch.manual_seed(0)
    branch = {
        "backbone": "convnext_atto",
        "features": kind,
        "alignment": {"name": ALIGNMENT[kind], "params": {"dim": 8}},
    }
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


def test_both_fusions_are_listed() -> None:
    assert set(NAMES) <= set(pvzoo.list_components("fusion"))


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_shape_is_as_declared_and_gradients_reach_every_modality(name: str, kind: str, modalities: int) -> None:
    model = model_of(name, kind, modalities)
    declared = model.spec.geometry.fused["local"]
    size = (declared.dim,) if declared.grid is None else (declared.dim, *declared.grid)
    features = [torch.randn(2, *size, requires_grad=True) for _ in range(modalities)]

    fused = fuse(model, *features)
    torch.autograd.backward(fused.square().sum())

    assert fused.shape == (2, *size)
    for x in features:
        assert x.grad is not None and x.grad.isfinite().all() and x.grad.any()
    assert all(p.grad is not None and p.grad.any() for p in model.fusions.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_whole_model_runs_with_either_modality_missing(name: str, kind: str) -> None:
    model = model_of(name, kind)
    image = torch.randn(2, 1, 64, 64)
    for images in ((image, image), (image, None), (None, image)):
        embedding = model.embed(*images)
        assert embedding.shape == (2, 8)
        assert torch.allclose(embedding.norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("name", NAMES)
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


def test_rooted_product_has_a_finite_slope_at_zero() -> None:
    zero = torch.zeros(1, 8, requires_grad=True)
    torch.autograd.backward(fuse(model_of("hadamard/product"), zero, torch.ones(1, 8)).sum())
    assert zero.grad is not None and zero.grad.isfinite().all()


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


@pytest.mark.parametrize("kind", KINDS)
def test_saved_model_is_bit_equal_in_a_fresh_process(kind: str, tmp_path: Path) -> None:
    model = model_of({"name": "hadamard/residual", "params": {"gamma": 0.25}}, kind)
    image = torch.randn(2, 1, 64, 64)
    folder = model.save(tmp_path / "saved")
    torch.save((image, model.embed(image, image.flip(3))), tmp_path / "expected.pt")

    script = """
import sys, pvzoo, torch
torch.set_num_threads(int(sys.argv[3]))
image, expected = torch.load(sys.argv[2])
assert torch.equal(pvzoo.create(f"local-dir:{sys.argv[1]}").embed(image, image.flip(3)), expected)
"""
    run(script, str(folder), str(tmp_path / "expected.pt"), str(torch.get_num_threads()))
    config = json.loads((folder / "config.json").read_text())
    assert config["requires"] == {"hadamard": {"distribution": "pvzoo-hadamard", "version": "0.1.0"}}


def test_listing_and_checking_import_no_torch() -> None:
    run("""
import sys, pvzoo
assert "hadamard/product" in pvzoo.list_components("fusion")
pvzoo.spec("stage2_spatial", **{"fusion.local": "hadamard/residual"})
assert "pvzoo_hadamard" in sys.modules
assert "torch" not in sys.modules
""")


def run(script: str, *arguments: str) -> None:
    """Runs Python code in a fresh process; what it writes to stderr is shown if it fails."""
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
