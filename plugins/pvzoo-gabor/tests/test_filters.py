"""The Gabor filters by themselves: what they answer to, and what learning can do to them."""

from __future__ import annotations

from math import cos, pi, sin

import pytest
import torch
from pvzoo_gabor import CompNetParams
from pvzoo_gabor.compnet import GaborBank
from torch import Tensor

SIZES = [35, 17, 7]


def bank(kernel_size: int, orientations: int = 9) -> GaborBank:
    return GaborBank(CompNetParams(orientations=orientations), kernel_size)


def line(kernel_size: int, angle: float) -> Tensor:
    """An image of a bright line through the centre, at an angle from the x axis towards the y axis."""
    offsets = torch.arange(kernel_size) - kernel_size // 2
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    distance = y * cos(angle) - x * sin(angle)
    return torch.exp(-((distance / (kernel_size / 8)) ** 2))[None, None]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("orientations", [4, 9])
def test_each_filter_wins_on_lines_of_its_own_orientation(size: int, orientations: int) -> None:
    filters = bank(size, orientations)
    for i in range(orientations):
        responses = filters(line(size, i * pi / orientations)).flatten()
        assert responses.argmax() == i


@pytest.mark.parametrize("size", SIZES)
def test_filters_have_no_mean_and_unit_norm(size: int) -> None:
    kernels = bank(size).kernels()
    assert kernels.shape == (9, 1, size, size)
    assert kernels.mean((1, 2, 3)).abs().max() < 1e-7
    assert torch.allclose(kernels.flatten(1).norm(dim=1), torch.ones(9))


@pytest.mark.parametrize("size", SIZES)
def test_brighter_light_changes_nothing(size: int) -> None:
    filters, image = bank(size), torch.rand(1, 1, 64, 64)
    assert torch.allclose(filters(image), filters(image + 3), atol=1e-4)


def test_a_quarter_turn_of_the_image_moves_the_winner_by_half_of_the_orientations() -> None:
    filters, image = bank(17, orientations=8), line(17, pi / 8)
    assert filters(image).argmax() == 1
    assert filters(image.rot90(1, (2, 3))).argmax() == 5


@pytest.mark.parametrize("value", [-50.0, 50.0])
@pytest.mark.parametrize("name", ["log_sigma", "log_gamma", "logit_frequency", "phase"])
def test_whatever_is_learned_the_filters_stay_finite(name: str, value: float) -> None:
    filters = bank(17)
    torch.nn.init.constant_(getattr(filters, name), value)
    assert filters.kernels().isfinite().all()


def test_filters_learn_the_wavelength_of_a_grating() -> None:
    torch.manual_seed(0)
    filters = bank(17)
    wave = torch.cos(2 * pi * 0.2 * (torch.arange(40.0) - 20)).expand(1, 1, 40, 40)
    optimizer = torch.optim.Adam(filters.parameters(), lr=0.1)
    for _ in range(40):
        optimizer.zero_grad()
        torch.autograd.backward(-filters(wave).square().mean())
        optimizer.step()
    assert 0.5 * filters.logit_frequency.sigmoid().item() == pytest.approx(0.2, abs=0.02)
