"""The training-free matchers."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from biometrics import eer

from pvzoo.evaluation.baselines import CompCode, MaximumCurvature
from pvzoo.synth import Generator, release


@pytest.fixture(scope="module")
def images() -> dict[str, list[Any]]:
    generator = Generator(release("synthpalm-v1"))
    samples = [generator.sample(subject, "left", 1, 1) for subject in (1, 2, 3)]
    return {
        "palm": [s.palm for s in samples],
        "vein": [s.vein for s in samples],
        "mask": [s.vein_mask for s in samples],
    }


def line(angle: float, size: int, middle: int) -> Any:
    """A dark line through (middle, middle), at an angle in radians from x towards y."""
    image = np.full((size, size), 200, np.uint8)
    reach = np.array([np.cos(angle), np.sin(angle)]) * size
    start, end = (tuple(np.round(middle + sign * reach).astype(int).tolist()) for sign in (-1, 1))
    cv2.line(image, start, end, 60, 4, cv2.LINE_AA)
    return image


@pytest.mark.parametrize("modality", ["palm", "vein"])
def test_scores_are_symmetric_best_with_oneself_and_forgive_a_shift(images: Any, modality: str) -> None:
    matcher = CompCode() if modality == "palm" else MaximumCurvature()
    templates = matcher.extract(images[modality])
    scores = matcher.scores(templates, templates)
    assert scores.shape == (3, 3)
    assert np.allclose(scores, scores.T)
    assert np.allclose(np.diag(scores), 1, atol=1e-5)
    others = scores[~np.eye(3, dtype=bool)]
    assert scores.min() >= 0
    # 14 pixels at 224 are two points of the palm's grid, and two and a third cells of the vein's.
    moved = matcher.extract([np.roll(image, (14, -14), (0, 1)) for image in images[modality]])
    assert np.diag(matcher.scores(moved, templates)).min() > others.max() + 0.1


def test_compcode_gives_lines_their_orientation_and_counts_steps_on_the_circle() -> None:
    matcher = CompCode(shift=0)
    templates = matcher.extract([line(np.pi * number / 6, 128, 66) for number in range(6)])
    middle = templates[:, :, 16, 16]  # the point of the grid at pixel 66
    apart = (3 - middle @ middle.T) / 2
    circle = np.abs(np.subtract.outer(np.arange(6), np.arange(6)))
    assert np.array_equal(apart, np.minimum(circle, 6 - circle))


@pytest.mark.parametrize("angle", [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4])
def test_maximum_curvature_finds_the_centre_of_a_dark_line(angle: float) -> None:
    found = MaximumCurvature().veins(line(angle, 112, 56))
    y, x = np.nonzero(found)
    away = np.abs((x - 56) * np.sin(angle) - (y - 56) * np.cos(angle))
    assert len(y) > 60
    assert away.max() <= 2.5


def test_maximum_curvature_finds_the_veins_that_were_drawn(images: Any) -> None:
    for image, mask in zip(images["vein"], images["mask"], strict=True):
        found = MaximumCurvature().veins(image) > 0
        near = cv2.resize(cv2.dilate(mask, np.ones((7, 7))), (112, 112), interpolation=cv2.INTER_NEAREST) > 0
        # Chance is the share of the image that is near a vein.
        assert near[found].mean() > 1.8 * near.mean()


def test_flat_images_score_without_a_warning() -> None:
    flat = [np.full((224, 224), 128, np.uint8)] * 2
    for matcher in (CompCode(), MaximumCurvature()):
        scores = matcher.scores(matcher.extract(flat), matcher.extract(flat))
        assert np.isfinite(scores).all()


def test_eer_is_exact() -> None:
    assert eer([3, 4], [1, 2]) == 0
    assert eer([1, 2], [3, 4]) == 1
    assert eer([1, 1], [1, 1]) == 0.5
    assert eer([1, 3, 4, 5], [0, 1, 2, 3.5]) == pytest.approx(0.25)
