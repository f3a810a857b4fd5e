"""Alignments: shapes and sizes as declared, and what each does to features."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from pvzoo import Shape
from pvzoo.plugins import host
from pvzoo.registry import Alignment

VECTOR = Shape(6)
MAP = Shape(6, (4, 3))

# name, parameters, shape in, shape out
CASES: list[tuple[str, dict[str, Any], Shape, Shape]] = [
    ("linear", {}, VECTOR, Shape(256)),
    ("linear", {"dim": 5}, VECTOR, Shape(5)),
    ("linear", {"dim": 5, "bias": False}, VECTOR, Shape(5)),
    ("linear", {"dim": 5, "batch_norm": True}, VECTOR, Shape(5)),
    ("linear", {"dim": 5, "bias": False, "batch_norm": True}, VECTOR, Shape(5)),
    ("linear", {"dim": 256}, Shape(192), Shape(256)),
    ("conv1x1", {}, MAP, Shape(256, (4, 3))),
    ("conv1x1", {"dim": 5}, MAP, Shape(5, (4, 3))),
    ("conv1x1", {"dim": 5, "grid": (7, 7)}, MAP, Shape(5, (7, 7))),
    ("conv1x1", {"dim": 5, "grid": (2, 3)}, MAP, Shape(5, (2, 3))),
    ("conv1x1", {"dim": 5, "grid": (8, 6), "mode": "nearest"}, MAP, Shape(5, (8, 6))),
    ("conv1x1", {"dim": 5, "grid": (2, 2), "mode": "area"}, MAP, Shape(5, (2, 2))),
    ("identity", {}, VECTOR, VECTOR),
    ("identity", {}, MAP, MAP),
    ("identity", {"grid": (4, 3)}, MAP, MAP),
    ("identity", {"grid": (7, 5)}, MAP, Shape(6, (7, 5))),
    ("identity", {"grid": (1, 1)}, MAP, Shape(6, (1, 1))),
    ("identity", {"grid": (7, 5)}, VECTOR, VECTOR),  # a vector has no grid to resample
]


def entry_of(name: str) -> Alignment:
    entry = host().find("alignment", name)
    assert isinstance(entry, Alignment)
    return entry


def build(name: str, shape: Shape, **params: Any) -> nn.Module:
    torch.manual_seed(0)
    entry = entry_of(name)
    module: nn.Module = entry.builder()(entry.params(**params), shape=shape)
    return module.eval()


def sample(shape: Shape, batch: int = 5) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, shape.dim, *(shape.grid or ()))


@pytest.mark.parametrize(("name", "params", "before", "after"), CASES)
def test_declared_shape_and_size_are_real(name: str, params: dict[str, Any], before: Shape, after: Shape) -> None:
    entry, module = entry_of(name), build(name, before, **params)
    assert before.kind in entry.accepts
    assert entry.out(entry.params(**params), before) == after
    out = module(sample(before))
    assert out.shape == (5, after.dim, *(after.grid or ()))
    assert out.isfinite().all()
    assert module(sample(before, batch=0)).shape == (0, *out.shape[1:])
    assert sum(p.numel() for p in module.parameters()) == entry.parameters(entry.params(**params), before)


@pytest.mark.parametrize(("name", "params", "before", "after"), CASES)
def test_one_sample_does_not_see_another(name: str, params: dict[str, Any], before: Shape, after: Shape) -> None:
    module, x = build(name, before, **params), sample(before)
    torch.testing.assert_close(torch.cat([module(x[i : i + 1]) for i in range(5)]), module(x))


@pytest.mark.parametrize(("name", "params", "before", "after"), CASES)
def test_gradient_is_exact(name: str, params: dict[str, Any], before: Shape, after: Shape) -> None:
    module = build(name, before, **{**params, "dim": 2} if name != "identity" else params).double()
    assert torch.autograd.gradcheck(module, sample(before, batch=1).double().requires_grad_())


def test_the_reference_model_maps_both_branches_to_256() -> None:
    assert entry_of("linear").parameters(entry_of("linear").params(), Shape(192)) == 192 * 256 + 256
    assert entry_of("conv1x1").parameters(entry_of("conv1x1").params(), Shape(768, (7, 7))) == 768 * 256 + 2 * 256


class TestLinear:
    def test_is_an_affine_map(self) -> None:
        module, x = build("linear", VECTOR, dim=5), sample(VECTOR)
        torch.testing.assert_close(module(x), x @ module[0].weight.T + module[0].bias)

    @pytest.mark.parametrize("batch_norm", [False, True])
    def test_batch_norm_is_an_option(self, batch_norm: bool) -> None:
        module = build("linear", VECTOR, dim=5, batch_norm=batch_norm).train()
        x = 100 + 30 * sample(VECTOR, batch=64)
        out = module(x)
        standardised = bool((out.mean(0).abs() < 1e-3).all() and ((out.std(0, correction=0) - 1).abs() < 1e-3).all())
        assert standardised == batch_norm
        assert any("running_mean" in name for name, _ in module.named_buffers()) == batch_norm

    def test_without_bias_zero_stays_zero(self) -> None:
        assert not build("linear", VECTOR, dim=5, bias=False)(torch.zeros(2, 6)).any()
        assert build("linear", VECTOR, dim=5)(torch.zeros(2, 6)).any()


class TestConv1x1:
    def test_is_the_same_affine_map_at_every_position(self) -> None:
        module, x = build("conv1x1", MAP, dim=5).train(), sample(MAP)
        mixed = torch.einsum("nchw,oc->nohw", x, module.conv.weight[:, :, 0, 0])
        mean, deviation = mixed.mean((0, 2, 3), keepdim=True), mixed.std((0, 2, 3), keepdim=True, correction=0)
        torch.testing.assert_close(module(x), (mixed - mean) / (deviation**2 + 1e-5).sqrt())

    def test_has_no_bias_that_the_norm_would_undo(self) -> None:
        assert set(dict(build("conv1x1", MAP).named_parameters())) == {"conv.weight", "norm.weight", "norm.bias"}


class TestResampling:
    """Maps keep their grid unless a grid is given: two grids that differ are a spec error, not a silent resize."""

    @pytest.mark.parametrize("name", ["identity", "conv1x1"])
    @pytest.mark.parametrize("grid", [(1, 1), (4, 4), (7, 7), (2, 9)])
    def test_no_grid_no_resampling(self, name: str, grid: tuple[int, int]) -> None:
        assert build(name, Shape(6, grid))(sample(Shape(6, grid))).shape[2:] == grid

    @pytest.mark.parametrize("params", [{}, {"grid": (4, 3)}, {"grid": (4, 3), "mode": "area"}])
    def test_identity_returns_the_very_tensor(self, params: dict[str, Any]) -> None:
        x = sample(MAP)
        assert build("identity", MAP, **params)(x) is x

    def test_identity_of_a_vector(self) -> None:
        x = sample(VECTOR)
        assert build("identity", VECTOR, grid=(7, 7))(x) is x

    @pytest.mark.parametrize("mode", ["bilinear", "nearest", "area"])
    @given(height=st.integers(1, 9), width=st.integers(1, 9), rows=st.integers(1, 9), columns=st.integers(1, 9))
    @settings(max_examples=30, deadline=None)
    def test_never_invents_values(self, mode: str, height: int, width: int, rows: int, columns: int) -> None:
        """A flat map stays as it is, and nothing lies outside the range of what came in."""
        shape = Shape(2, (height, width))
        module = build("identity", shape, grid=(rows, columns), mode=mode)
        flat = torch.full((1, 2, height, width), 3.0)
        torch.testing.assert_close(module(flat), torch.full((1, 2, rows, columns), 3.0))
        x = sample(shape)
        out = module(x)
        assert out.shape == (5, 2, rows, columns)
        assert (out.amin((2, 3)) >= x.amin((2, 3)) - 1e-5).all() and (out.amax((2, 3)) <= x.amax((2, 3)) + 1e-5).all()

    @pytest.mark.parametrize(("mode", "before", "after"), [("area", (6, 4), (3, 2)), ("nearest", (3, 2), (6, 4))])
    def test_whole_factors_preserve_the_mean(self, mode: str, before: tuple[int, int], after: tuple[int, int]) -> None:
        x = sample(Shape(6, before))
        out = build("identity", Shape(6, before), grid=after, mode=mode)(x)
        torch.testing.assert_close(out.mean((2, 3)), x.mean((2, 3)))

    def test_bilinear_takes_every_cell_into_account(self) -> None:
        """Antialiased: plain bilinear would look at 4 of 64 cells here, and miss what lies between."""
        shape = Shape(1, (8, 8))
        module = build("identity", shape, grid=(1, 1))
        for cell in range(64):
            x = F.one_hot(torch.tensor(cell), 64).float().view(1, 1, 8, 8)
            assert module(x).item() > 0
        ignored = F.one_hot(torch.tensor(0), 64).float().view(1, 1, 8, 8)
        assert F.interpolate(ignored, (1, 1), mode="bilinear").item() == 0

    def test_bilinear_keeps_left_and_right(self) -> None:
        shape = Shape(1, (1, 2))
        out = build("identity", shape, grid=(1, 4))(torch.tensor([[[[0.0, 1.0]]]]))
        torch.testing.assert_close(out, torch.tensor([[[[0.0, 0.25, 0.75, 1.0]]]]))


class TestParams:
    @pytest.mark.parametrize(
        ("name", "params", "message"),
        [
            ("linear", {"dim": 0}, "Input should be greater than or equal to 1"),
            ("linear", {"grid": (7, 7)}, "Extra inputs are not permitted"),
            ("conv1x1", {"grid": (0, 7)}, "Input should be greater than or equal to 1"),
            ("conv1x1", {"grid": (7, 1025)}, "Input should be less than or equal to 1024"),
            ("conv1x1", {"grid": (7,)}, "Field required"),
            ("conv1x1", {"mode": "bicubic"}, "Input should be 'bilinear', 'nearest' or 'area'"),
            ("identity", {"dim": 5}, "Extra inputs are not permitted"),
        ],
    )
    def test_refused(self, name: str, params: dict[str, Any], message: str) -> None:
        with pytest.raises(ValidationError) as caught:
            entry_of(name).params(**params)
        assert [error["msg"] for error in caught.value.errors()] == [message]
