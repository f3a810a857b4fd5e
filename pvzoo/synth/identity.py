"""What stays the same between the images of one hand: creases, wrinkles, ridges, veins."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState

from ..extras import opencv
from .strokes import Array, Strokes, bezier, wander
from .vessels import grow

MARGIN = 0.14  # of skin around the palm, in shares of it, so that a shifted hand has no empty edge

# Right hand, fingers up, thumb to the left: life, head and heart line as Bezier controls.
MAIN_LINES = (
    ((-0.05, 0.32), (0.32, 0.32), (0.54, 0.60), (0.46, 0.86), (0.42, 1.12)),
    ((-0.05, 0.34), (0.28, 0.36), (0.62, 0.46), (0.80, 0.60), (0.98, 0.76)),
    ((1.12, 0.38), (0.84, 0.38), (0.50, 0.32), (0.36, 0.20), (0.28, 0.02)),
)


@dataclass(frozen=True)
class Identity:
    """The geometry of one hand.

    Attributes:
        lines: Main creases and the finer strands along them.
        wrinkles: Secondary lines and fine wrinkles.
        veins: Vessels.
        texture: (T, T) float32 around 0: ridges and pores on the palm and ``MARGIN`` around it.
        depth: (8, 8) float32, 0 to 1: how deep under the skin the veins run.
    """

    lines: Strokes
    wrinkles: Strokes
    veins: Strokes
    texture: Array
    depth: Array


def make_identity(random: RandomState, hand: str, size: int) -> Identity:
    """Draws the geometry of a hand.

    Args:
        random: Stream of the identity alone.
        hand: ``"left"`` mirrors the shapes that lines and veins are varied from.
        size: Of the images, in pixels; sets the resolution of the texture.
    """
    mirrored = hand == "left"
    return Identity(
        Strokes.join(_main_lines(random, mirrored)),
        Strokes.join(_wrinkles(random, mirrored)),
        Strokes.join(grow(random, mirrored)),
        _texture(random, size),
        random.uniform(0, 1, (8, 8)).astype(np.float32),
    )


def _main_lines(random: RandomState, mirrored: bool) -> list[tuple[Array, Array, float]]:
    strokes = []
    spread = random.normal(0, 0.045, 2)
    for shape in MAIN_LINES:
        controls = np.array(shape) + spread * 0.5 + random.normal(0, 0.062, (5, 2))
        line = bezier(controls, 72)[random.randint(0, 6) : 72 - int(18 * random.uniform() ** 2)]
        count = len(line)
        line = line + 0.0035 * np.stack([wander(random, count, 11), wander(random, count, 11)], 1)
        fade = np.minimum(1, np.linspace(0.35, 7, count)) * np.minimum(1, np.linspace(4, 0.15, count))
        width = random.uniform(0.0040, 0.0066) * fade * (1 + 0.22 * wander(random, count, 9))
        strokes.append((line, np.maximum(width, 0.0012), random.uniform(0.75, 1.0)))
        # Strands that leave the line for a while and come back: real creases are bundles of them.
        for _ in range(random.randint(4, 8)):
            first = random.randint(0, count - 16)
            part = slice(first, min(count, first + random.randint(12, 30)))
            length = part.stop - part.start
            drift = np.sin(np.linspace(0, random.uniform(1.5, 3.1), length))[:, None] * random.normal(0, 0.013, 2)
            thin = width[part] * 0.45 * np.sin(np.linspace(0.3, 2.8, length))
            strokes.append((line[part] + drift, np.maximum(thin, 0.0010), random.uniform(0.35, 0.75)))
        # Short side branches, which cross it at a slant.
        for _ in range(random.randint(2, 6)):
            foot = line[random.randint(4, count - 4)]
            strokes.append(
                _short(random, foot, random.normal(1.2, 0.6), random.uniform(0.04, 0.12), 0.0016, (0.3, 0.7))
            )
    return _mirror(strokes) if mirrored else strokes


def _wrinkles(random: RandomState, mirrored: bool) -> list[tuple[Array, Array, float]]:
    strokes = []
    # Directions that wrinkles of one palm share, as the skin folds: few long ones and many short ones.
    folds = random.normal((1.5, 0.6, -0.7), 0.25)
    for count, length, radius, depth in (
        (random.randint(8, 18), (0.14, 0.38), 0.0024, (0.3, 0.75)),
        (random.randint(70, 130), (0.03, 0.11), 0.0015, (0.15, 0.5)),
    ):
        for _ in range(count):
            angle = folds[random.choice(3, p=(0.5, 0.3, 0.2))] + random.normal(0, 0.25)
            middle, reach = random.uniform(-0.05, 1.05, 2), random.uniform(*length)
            points, radii, dark = _short(random, middle, angle, reach, radius, depth)
            if reach > 0.12:  # long ones are broken into strokes with gaps, each a little aside of the last
                cuts = np.sort(random.choice(np.arange(4, len(points) - 4), random.randint(1, 4), replace=False))
                for part in np.split(np.arange(len(points)), cuts):
                    part = part[: max(4, len(part) - random.randint(0, 3))] if len(part) > 5 else part
                    if len(part) >= 4:
                        shifted = points[part] + random.normal(0, 0.004, 2)
                        ends = np.sin(np.linspace(0.5, 2.64, len(part)))
                        strokes.append((shifted, radii[part] * ends, dark * random.uniform(0.6, 1.0)))
            else:
                strokes.append((points, radii, dark))
    return _mirror(strokes) if mirrored else strokes


def _short(
    random: RandomState, middle: Array, angle: float, length: float, radius: float, depth: tuple[float, float]
) -> tuple[Array, Array, float]:
    half = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    bow = half[::-1] * (-1, 1) * np.clip(random.normal(0, 0.35), -0.6, 0.6)
    count = max(6, int(length * 80))
    points = bezier(np.stack([middle - half, middle + bow, middle + half]), count)
    radii = radius * random.uniform(0.7, 1.3) * (0.3 + 0.7 * np.sin(np.linspace(0.1, 3.04, count)))
    return points, radii, float(random.uniform(*depth))


def _mirror(strokes: list[tuple[Array, Array, float]]) -> list[tuple[Array, Array, float]]:
    return [(points * (-1, 1) + (1, 0), radii, depth) for points, radii, depth in strokes]


def _texture(random: RandomState, size: int) -> Array:
    """Friction ridges, whose direction turns slowly over the palm, interrupted by pores and flakes.

    A phase that grows along a bent direction gives ridges; smooth noise in the phase gives their endings and forks.
    """
    cv2 = opencv()
    side = round(size * (1 + 2 * MARGIN))
    coarse = random.standard_normal((3, 24, 24)).astype(np.float32)
    fork, patch, bend = (cv2.resize(c, (side, side), interpolation=cv2.INTER_CUBIC) for c in coarse)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    bend = cv2.GaussianBlur(bend, (0, 0), side / 9)
    bend *= 0.9 * side / 6 / (np.abs(bend).max() + 1e-6)
    angle, period = random.uniform(0.3, 2.8), random.uniform(4.6, 6.0)
    phase = 2 * np.pi / period * (np.cos(angle) * x + np.sin(angle) * y + bend) + 1.1 * fork
    grain = random.standard_normal((side, side)).astype(np.float32)
    grain = cv2.GaussianBlur(grain, (0, 0), 0.8)
    return np.asarray((np.cos(phase) * np.clip(0.6 + 0.4 * patch, 0.05, 1.2) + 1.5 * grain) / 1.2, np.float32)
