"""Augmentation: one geometry for images taken at once, a light for each, and equal bits for equal seeds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from pvzoo.data.augment import Augmentation, AugmentParams, GrowingAugmentation

GEOMETRIC = ("rotation", "shift", "scale", "shear", "bend")
PHOTOMETRIC = ("brightness", "contrast", "gamma", "blur", "noise", "erase")
NOTHING = dict.fromkeys((*GEOMETRIC, *PHOTOMETRIC), 0.0)
STRONG = {"rotation": 40.0, "shift": 0.2, "scale": 0.3, "shear": 20.0, "bend": 0.05} | dict.fromkeys(PHOTOMETRIC, 0.5)


def only(*names: str) -> Augmentation:
    return Augmentation.of(AugmentParams(**{**NOTHING, **{name: STRONG[name] for name in names}}))


def noise(*shape: int) -> Tensor:
    smooth = torch.rand(1, shape[0], 6, 6, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(smooth, shape[1:], mode="bicubic")[0].clamp(0, 1)


def twice(augment: Augmentation, image: Tensor, *, together: bool, seed: int = 1) -> tuple[Tensor, Tensor]:
    """What becomes of one image that is both palm and vein."""
    made = augment({"palm": image, "vein": image}, together=together, seed=seed)
    assert list(made) == ["palm", "vein"]
    return made["palm"], made["vein"]


def test_every_part_is_of_one_kind() -> None:
    assert set(AugmentParams.model_fields) == {*GEOMETRIC, *PHOTOMETRIC}


@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometry_is_one_where_images_were_taken_together(name: str) -> None:
    image = noise(1, 40, 56)
    palm, vein = twice(only(name), image, together=True)
    assert not torch.equal(palm, image)
    assert torch.equal(palm, vein)
    palm, vein = twice(only(name), image, together=False)
    assert not torch.equal(palm, vein)


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_light_is_never_shared(name: str) -> None:
    image = noise(1, 40, 56)
    made = [twice(only(name), image, together=True, seed=seed) for seed in range(8)]
    assert any(not torch.equal(palm, image) for palm, _ in made)
    assert any(not torch.equal(palm, vein) for palm, vein in made)


def test_zero_leaves_images_as_they_are() -> None:
    image = noise(3, 20, 30)
    for made in twice(only(), image, together=True):
        assert torch.equal(made, image)


@settings(max_examples=30, deadline=None)
@given(
    params=st.fixed_dictionaries({name: st.sampled_from([0.0, STRONG[name] / 4, STRONG[name]]) for name in NOTHING}),
    channels=st.sampled_from([1, 3]),
    together=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
)
def test_images_stay_images(params: dict[str, float], channels: int, together: bool, seed: int) -> None:
    image = noise(channels, 24, 32)
    for made in twice(Augmentation.of(AugmentParams(**params)), image, together=together, seed=seed):
        assert type(made) is Tensor
        assert made.dtype is torch.float32
        assert made.shape == image.shape
        assert made.min() >= 0
        assert made.max() <= 1


ROWS, COLUMNS = torch.meshgrid(torch.arange(48.0), torch.arange(96.0), indexing="ij")
CENTRE = torch.tensor([23.5, 47.5])


def spot(*at: float) -> Tensor:
    return torch.exp(-((ROWS - at[0]) ** 2 + (COLUMNS - at[1]) ** 2) / 8)[None]


def place(image: Tensor) -> Tensor:
    """Of a spot, the row and column from the centre."""
    return torch.stack([(image[0] * ROWS).sum(), (image[0] * COLUMNS).sum()]) / image.sum() - CENTRE


def test_lengths_are_shares_of_the_side_and_angles_are_degrees() -> None:
    def places(name: str, *at: float) -> Tensor:
        return torch.stack([place(twice(only(name), spot(*at), together=True, seed=seed)[0]) for seed in range(60)])

    most = places("shift", 23.5, 47.5).abs().amax(0) / torch.tensor([48, 96])
    assert (most <= 0.2).all()
    assert (most > 0.15).all()
    arms = places("rotation", 23.5, 57.5)
    assert torch.allclose(arms.norm(dim=1), torch.tensor(10.0), atol=0.1)  # sides of two lengths shear nothing
    angles = torch.rad2deg(torch.atan2(arms[:, 0], arms[:, 1]))
    assert 35 < angles.abs().max() <= 40.1
    assert angles.min() < -20 < 20 < angles.max()
    lengths = places("scale", 23.5, 57.5).norm(dim=1) / 10
    assert 0.69 < lengths.min() < 0.8 < 1.2 < lengths.max() < 1.31


def test_beyond_its_edge_an_image_goes_on_mirrored() -> None:
    bright = torch.full((1, 32, 32), 0.8)
    for made in twice(only(*GEOMETRIC), bright, together=False):
        assert torch.allclose(made, bright, atol=1e-5)


def test_seeds_decide_and_the_stream_of_torch_goes_on() -> None:
    image = noise(1, 32, 32)
    augment = only(*GEOMETRIC, *PHOTOMETRIC)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = twice(augment, image, together=True, seed=7)
    assert torch.equal(torch.rand(3), expected)
    assert all(map(torch.equal, first, twice(augment, image, together=True, seed=7)))
    assert not torch.equal(first[0], twice(augment, image, together=True, seed=8)[0])


@pytest.mark.parametrize("together", [True, False])
def test_an_image_does_not_depend_on_which_others_there_are(together: bool) -> None:
    augment = Augmentation.of(AugmentParams(**STRONG))
    both = {"palm": noise(1, 40, 56), "vein": noise(1, 40, 56)}
    made = augment(both, together=together, seed=5)
    for modality, image in both.items():
        assert torch.equal(augment({modality: image}, together=together, seed=5)[modality], made[modality])


def test_augmentation_grows_from_nothing_to_its_full_extent() -> None:
    full = AugmentParams(**STRONG)
    growing = GrowingAugmentation(full, {0: 0.0, 1: 0.5, 2: 1.0}.__getitem__)
    image = {"palm": noise(1, 40, 56)}
    plain, half, whole = (growing(image, together=True, seed=3, epoch=epoch)["palm"] for epoch in range(3))
    assert torch.equal(plain, image["palm"])
    assert torch.equal(whole, Augmentation.of(full)(image, together=True, seed=3)["palm"])
    assert torch.equal(half, Augmentation.of(full.scaled(0.5))(image, together=True, seed=3)["palm"])
    assert full.scaled(0.5).rotation == 20


def test_any_transforms_of_torchvision_will_do() -> None:
    image = noise(1, 20, 30)
    augment = Augmentation(v2.RandomHorizontalFlip(0.5), v2.RandomInvert(0.5))
    made = [twice(augment, image, together=True, seed=seed) for seed in range(20)]

    def flipped(x: Any) -> bool:
        return any(torch.allclose(x, other) for other in (image.flip(2), 1 - image.flip(2)))

    assert all(flipped(palm) == flipped(vein) for palm, vein in made)
    assert len({flipped(palm) for palm, _ in made}) == 2
    assert any(not torch.equal(palm, vein) for palm, vein in made)
