"""Matchers that need no training: the floor under every result (extra ``data``).

``extract`` turns images into templates, ``scores`` compares all of one set with all of another. A score is a
similarity in [0, 1], higher is more alike. Both matchers code an image as bits or weights on a small grid and take the
best of some shifts, so that comparing all with all is one matrix product a shift.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..extras import opencv

Array = NDArray[Any]


class Matcher(Protocol):
    """What both baselines are."""

    def extract(self, images: Sequence[Array]) -> Array:
        """Templates (N, ...) of N grey images (H, W), uint8."""

    def scores(self, probes: Array, gallery: Array) -> Array:
        """Scores (P, G), float32, of templates."""


@dataclass(frozen=True)
class CompCode:
    """Competitive code of palmprints (Kong and Zhang, "Competitive Coding Scheme for Palmprint Verification", 2004).

    At each point of a grid, the code is the one of six Gabor orientations, pi / 6 apart, whose real response is least:
    that of the dark line through it. Two codes a, b are min(|a - b|, 6 - |a - b|) apart, 0 to 3; the score is
    1 - sum of distances / (3 x points), over the points that overlap, at the best shift.

    Attributes:
        size: Images are resized to this height and width.
        wavelength: Of the Gabor filters, in pixels of the resized image.
        sigma: Of their envelope, in these pixels; the envelope is half as long again along the line.
        step: Pixels between points of the grid.
        shift: Points of the grid that templates are shifted by, at most, each way.
    """

    size: int = 128
    wavelength: float = 9.0
    sigma: float = 3.6
    step: int = 4
    shift: int = 3

    def extract(self, images: Sequence[Array]) -> Array:
        """Codes (N, 3, g, g), float32: three bits, -1 or 1, that differ in as many places as the codes are apart."""
        cv2 = opencv()
        kernels = [self._kernel(np.pi * number / 6) for number in range(6)]
        codes = []
        for image in images:
            small = cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_AREA).astype(np.float32)
            responses = np.stack([cv2.filter2D(small, -1, kernel, borderType=cv2.BORDER_REFLECT) for kernel in kernels])
            codes.append(responses[:, self.step // 2 :: self.step, self.step // 2 :: self.step].argmin(0))
        # 000, 001, 011, 111, 110, 100: neighbours on the circle of orientations differ in one bit.
        bits = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 1], [1, 1, 1], [1, 1, 0], [1, 0, 0]], np.float32) * 2 - 1
        return np.asarray(np.moveaxis(bits[np.stack(codes)], -1, 1))

    def _kernel(self, angle: float) -> Array:
        """The real part of a Gabor filter without its mean, which would answer to brightness; lines at ``angle``."""
        reach = int(3 * self.sigma)
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        across, along = x * np.sin(angle) - y * np.cos(angle), x * np.cos(angle) + y * np.sin(angle)
        envelope = np.exp(-(across**2 + (along / 1.5) ** 2) / (2 * self.sigma**2))
        wave = np.cos(2 * np.pi * across / self.wavelength)
        kernel = envelope * (wave - (envelope * wave).sum() / envelope.sum())
        return np.asarray(kernel / np.abs(kernel).sum(), np.float32)

    def scores(self, probes: Array, gallery: Array) -> Array:
        """Scores (P, G). Equal codes score 1; those of independent images about 0.5."""
        best = np.zeros((len(probes), len(gallery)), np.float32)
        for a, b in _shifted(probes, gallery, self.shift):
            # A product of -1 and 1 sums up to bits that agree minus bits that differ.
            np.maximum(best, (1 + a @ b.T / a.shape[1]) / 2, out=best)
        return best


@dataclass(frozen=True)
class MaximumCurvature:
    """Maximum-curvature veins (Miura, Nagasaka and Miyatake, "Extraction of Finger-Vein Patterns Using Maximum
    Curvature Points in Image Profiles", 2007), compared as in Miura matching.

    Along profiles P in four directions, curvature is P'' / (1 + P'^2)^(3/2). Where it is positive, a dark dent, its
    peak adds (peak x width of the dent) to the centre of a vein. Centres are joined along each direction,
    G = max over directions of min(max of two points ahead, max of two points behind), and points with at least the
    median of the positive G are vein.
    The score of veins A, B, pooled to a grid, is 2 sum(A B) / (sum(A^2) + sum(B^2)) over the overlap, at the best
    shift.

    Attributes:
        size: Images are resized to this height and width.
        sigma: Of the Gaussian whose derivatives give P' and P'', in pixels of the resized image.
        pool: Pixels of a grid cell; veins a cell apart no longer match.
        shift: Cells that templates are shifted by, at most, each way.
    """

    size: int = 112
    sigma: float = 2.5
    pool: int = 3
    shift: int = 4

    def extract(self, images: Sequence[Array]) -> Array:
        """Share of vein (N, 1, g, g), float32, in each cell of the grid, spread to the cells beside it."""
        cv2 = opencv()
        grid = self.size // self.pool
        found = [cv2.resize(self.veins(image), (grid, grid), interpolation=cv2.INTER_AREA) for image in images]
        return np.stack([cv2.GaussianBlur(veins, (0, 0), 0.7) for veins in found])[:, None]

    def veins(self, image: Array) -> Array:
        """The veins of an image (H, W), uint8: 1 where there is one, else 0; (size, size) float32."""
        cv2 = opencv()
        small = cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_AREA).astype(np.float32)
        at = np.arange(-int(4 * self.sigma), int(4 * self.sigma) + 1)
        plain = np.exp(-(at**2) / (2 * self.sigma**2)) / (self.sigma * np.sqrt(2 * np.pi))
        first, second = -at / self.sigma**2 * plain, (at**2 / self.sigma**4 - 1 / self.sigma**2) * plain

        def derive(along_x: Array, along_y: Array) -> Array:
            # filter2D correlates; flipping the odd kernel makes it the derivative.
            return np.asarray(cv2.sepFilter2D(small, -1, along_x[::-1], along_y[::-1], borderType=cv2.BORDER_REFLECT))

        fx, fy = derive(first, plain), derive(plain, first)
        fxx, fyy, fxy = derive(second, plain), derive(plain, second), derive(first, first)
        profiles = (
            ((0, 1), fx, fxx),
            ((1, 0), fy, fyy),
            ((1, 1), (fx + fy) / np.sqrt(2), (fxx + fyy) / 2 + fxy),
            ((1, -1), (fy - fx) / np.sqrt(2), (fxx + fyy) / 2 - fxy),
        )
        centres = np.zeros_like(small)
        for step, slope, bend in profiles:
            centres += _dents(bend / (1 + slope**2) ** 1.5, step)
        joined = np.max([_joined(centres, step) for step, _, _ in profiles], axis=0)
        positive = joined[joined > 0]
        threshold = np.median(positive) if len(positive) else np.inf
        return np.asarray(joined >= threshold, np.float32)

    def scores(self, probes: Array, gallery: Array) -> Array:
        """Scores (P, G)."""
        best = np.zeros((len(probes), len(gallery)), np.float32)
        for a, b in _shifted(probes, gallery, self.shift):
            total = (a**2).sum(1)[:, None] + (b**2).sum(1)[None]
            np.maximum(best, 2 * (a @ b.T) / np.maximum(total, 1e-6), out=best)
        return best


def _dents(curvature: Array, step: tuple[int, int]) -> Array:
    """At the peak of each run of positive curvature along ``step``: peak x length of the run; elsewhere 0."""
    order, line = _lines(len(curvature), step)
    values = curvature.ravel()[order]
    inside = np.flatnonzero(values > 0)
    result = np.zeros_like(values)
    if len(inside):
        starts = np.flatnonzero(np.r_[True, (np.diff(inside) > 1) | (np.diff(line[inside]) != 0)])
        lengths = np.diff(np.r_[starts, len(inside)])
        peaks = np.maximum.reduceat(values[inside], starts)
        at_peak = inside[values[inside] == np.repeat(peaks, lengths)]
        run = np.repeat(np.arange(len(starts)), lengths)[values[inside] == np.repeat(peaks, lengths)]
        result[at_peak] = peaks[run] * lengths[run]
    scores = np.zeros_like(values)
    scores[order] = result
    return scores.reshape(curvature.shape)


def _lines(size: int, step: tuple[int, int]) -> tuple[Array, Array]:
    """The pixels of a square image, one line in direction ``step`` after another, and the line each is on."""
    y, x = np.divmod(np.arange(size * size), size)
    line = y if step == (0, 1) else x if step == (1, 0) else y - x + size if step == (1, 1) else y + x
    order = np.lexsort((x if step == (0, 1) else y, line))
    return order, line[order]


def _joined(centres: Array, step: tuple[int, int]) -> Array:
    """min(max of two points ahead, max of two points behind) along ``step``; the image is framed by zeros."""
    size = len(centres)
    framed = np.pad(centres, 2)

    def at(count: int) -> Array:
        y, x = 2 + step[0] * count, 2 + step[1] * count
        return framed[y : y + size, x : x + size]

    return np.asarray(np.minimum(np.maximum(at(1), at(2)), np.maximum(at(-1), at(-2))))


def _shifted(a: Array, b: Array, shift: int) -> Iterator[tuple[Array, Array]]:
    """For each shift, the parts of templates (N, C, g, g) that overlap, flat: (N, n) and (M, n)."""
    size = a.shape[-1]
    offsets = range(-shift, shift + 1)

    def part(templates: Array, dy: int, dx: int) -> Array:
        rows, columns = (slice(max(0, d), size + min(0, d)) for d in (dy, dx))
        return templates[..., rows, columns].reshape(len(templates), -1)

    for dy in offsets:
        for dx in offsets:
            yield part(a, dy, dx), part(b, -dy, -dx)
