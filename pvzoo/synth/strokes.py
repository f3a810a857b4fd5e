"""Curves with a width: how they are made, and how they are drawn.

A stroke has points in shares of the palm, x to the right and y down, (0, 0) to (1, 1) inside the image; its radii are
in shares too. All strokes of an identity are kept in flat arrays, so that one call bends them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from ..extras import opencv

Array = NDArray[Any]
SUBPIXEL = 4  # fractional bits of the coordinates that OpenCV is given


@dataclass(frozen=True)
class Strokes:
    """Many strokes.

    Attributes:
        points: (P, 2), those of all strokes one after another.
        radii: (P,), half the width at each point.
        depth: (S,), how dark each stroke is, 0 to 1.
        ends: (S + 1,), where each stroke begins in ``points``.
    """

    points: Array
    radii: Array
    depth: Array
    ends: Array

    @staticmethod
    def join(strokes: Sequence[tuple[Array, Array, float]]) -> Strokes:
        """From (points, radii, depth) of each, the faintest first, so that dark ones are drawn over them."""
        strokes = sorted(strokes, key=lambda stroke: stroke[2])
        lengths = [len(points) for points, _, _ in strokes]
        return Strokes(
            np.concatenate([points for points, _, _ in strokes]).astype(np.float32),
            np.concatenate([radii for _, radii, _ in strokes]).astype(np.float32),
            np.array([depth for _, _, depth in strokes]),
            np.cumsum([0, *lengths]),
        )

    def __len__(self) -> int:
        return len(self.depth)


def bezier(controls: Array, count: int) -> Array:
    """The Bezier curve of control points (C, 2), as (count, 2)."""
    t = np.linspace(0, 1, count)[:, None, None]
    points = np.broadcast_to(controls, (count, *np.shape(controls)))
    while points.shape[1] > 1:
        points = points[:, :-1] * (1 - t) + points[:, 1:] * t
    return np.ascontiguousarray(points[:, 0])


def wander(random: RandomState, count: int, knots: int) -> Array:
    """A smooth random walk-about, (count,), of deviation about 1: cosine steps between random knots."""
    values = random.standard_normal(knots + 1)
    at = np.linspace(0, knots - 1e-6, count)
    left = at.astype(int)
    share = (1 - np.cos(np.pi * (at - left))) / 2
    return np.asarray(values[left] * (1 - share) + values[left + 1] * share)


def draw(strokes: Strokes, points: Array, radii: Array, keep: Array, shape: int, fine: int) -> Array:
    """Draws strokes as antialiased polygons.

    Args:
        strokes: Says where each begins and how dark it is.
        points: (P, 2) in pixels of the image; the strokes' own, moved by pose and bend.
        radii: (P,) in pixels.
        keep: (S,), false for strokes to leave out.
        shape: Height and width of the image, in pixels.
        fine: Pixels drawn to one of the image; averaged afterwards.

    Returns:
        (shape, shape) float32, 0 to 1.
    """
    cv2 = opencv()
    image = np.zeros((shape * fine, shape * fine), np.uint8)
    tangent = np.empty_like(points)
    tangent[1:-1] = points[2:] - points[:-2]
    first, last = strokes.ends[:-1], strokes.ends[1:] - 1
    tangent[first], tangent[last] = points[first + 1] - points[first], points[last] - points[last - 1]
    normal = tangent[:, ::-1] * (1, -1) / (np.hypot(tangent[:, 0], tangent[:, 1])[:, None] + 1e-6) * radii[:, None]
    # A pixel's centre has whole coordinates in OpenCV; hence the half pixels.
    unit, half = fine * (1 << SUBPIXEL), (0.5 * fine - 0.5) * (1 << SUBPIXEL)
    sides = np.round(np.stack([points + normal, points - normal]) * unit + half).astype(np.int32)
    colours = np.round(255 * strokes.depth).astype(int).tolist()
    ends = strokes.ends.tolist()
    for number in np.flatnonzero(keep).tolist():
        a, b = ends[number], ends[number + 1]
        outline = np.concatenate([sides[0, a:b], sides[1, a:b][::-1]])
        cv2.fillPoly(image, [outline], colours[number], cv2.LINE_AA, SUBPIXEL)
    small = image if fine == 1 else cv2.resize(image, (shape, shape), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255)
