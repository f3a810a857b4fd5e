"""One sample at a time: an identity's geometry, moved, bent and photographed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import RandomState

from ..extras import opencv
from .config import SynthConfig
from .identity import MARGIN, Identity, make_identity
from .strokes import Array, Strokes, draw

FINE = 2  # palm lines are drawn with this many pixels to one of the image
PIXELS = 224  # the image size that lengths below, in pixels, are meant for


@dataclass(frozen=True)
class PalmSample:
    """A palm image and the vein image taken at the same moment, with what they show.

    Attributes:
        palm: (H, W) uint8, visible light.
        vein: (H, W) uint8, near infrared.
        crease_mask: (H, W) uint8, 255 on main creases and strong wrinkles of the palm image, else 0.
        vein_mask: (H, W) uint8, 255 on vessels of the vein image, else 0.
        params: What was drawn for this sample: pose, light, blur, noise, occlusion; plain numbers for JSON.
    """

    palm: Array
    vein: Array
    crease_mask: Array
    vein_mask: Array
    params: dict[str, Any]


class Generator:
    """Draws the samples of a data set, any of them without the others.

    Args:
        config: The data set.
        cache: Hands whose geometry is kept; a sample of one of them costs about half.
    """

    def __init__(self, config: SynthConfig, *, cache: int = 8) -> None:
        self.config = config
        self._identity = lru_cache(cache)(self._make_identity)

    def _make_identity(self, subject: int, hand: str) -> Identity:
        return make_identity(self.config.random("identity", subject, hand), hand, self.config.size)

    def params(self, subject: int, hand: str, session: int, sample: int) -> dict[str, Any]:
        """What is drawn for a sample, without drawing the sample. Lengths are pixels at 224, angles degrees."""
        self.config.check(subject, hand, session, sample)
        visit = self.config.random("session", session)
        random = self.config.random("sample", subject, hand, session, sample)
        k = self.config.k
        return {
            "pose": _pose(random, k),
            "disparity": random.normal(0, 0.5 + 0.25 * k, 2).tolist(),
            "palm": _camera(visit, random, k, blur=(0.35, 1.0), noise=(0.010, 0.028)),
            "vein": _camera(visit, random, k, blur=(0.5, 1.4), noise=(0.012, 0.030)),
        }

    def sample(self, subject: int, hand: str, session: int, sample: int) -> PalmSample:
        """Draws one sample.

        Args:
            subject: From 1.
            hand: ``"left"`` or ``"right"``.
            session: From 1.
            sample: From 1.

        Raises:
            SynthError: If the data set has no such sample.
            MissingExtraError: If OpenCV is not installed.
        """
        params = self.params(subject, hand, session, sample)
        identity = self._identity(subject, hand)
        random = self.config.random("pixels", subject, hand, session, sample)
        hand_view = _View(params["pose"], (0.0, 0.0), random, self.config)
        lines, wrinkles, texture = _skin(identity, hand_view, random, self.config.k)
        palm = _palm_image(lines, wrinkles, texture, params["palm"], random)
        vein_view = hand_view.seen_from(params["disparity"])
        vessels = _stroke_layer(identity.veins, vein_view, random, 0.09 * self.config.k, 0.0045, fine=1)
        depth = vein_view.warp(identity.depth)
        vein = _vein_image(vessels, depth, lines, texture, params["vein"], random)
        crease_mask = np.where(np.maximum(lines, wrinkles) > 0.3, 255, 0).astype(np.uint8)
        return PalmSample(palm, vein, crease_mask, np.where(vessels > 0.3, 255, 0).astype(np.uint8), params)


def _pose(random: RandomState, k: float) -> dict[str, Any]:
    return {
        "rotation": random.normal(0, 1.8 * k),
        "scale": float(np.exp(random.normal(0, 0.022 * k))),
        "shear": random.normal(0, 0.015 * k),
        "shift": random.normal(0, 4.0 * k, 2).tolist(),
        "bend": random.uniform(0.7, 1.3) * 1.45 * k,
    }


def _camera(
    visit: RandomState, random: RandomState, k: float, *, blur: tuple[float, float], noise: tuple[float, float]
) -> dict[str, Any]:
    """Light, focus and sensor: some of the session, some of the sample. None of it depends on the identity.

    Clouds and tone do not shrink with k: a matcher must find no identity in an image without its lines.
    """
    gamma, contrast, focus, dirt, rim = visit.uniform((-0.18, 0.85, 0.8, 0.8, 0.08), (0.18, 1.1, 1.2, 1.2, 0.22))
    occluder = None
    if random.uniform() < 0.22 * k:
        occluder = [*random.uniform(0, 1, 2).tolist(), random.uniform(8, 24), random.uniform(0.15, 0.75)]
    return {
        "tone": random.normal(0, 0.05),
        "gamma": float(np.exp(gamma + random.normal(0, 0.06 + 0.06 * k))),
        "contrast": contrast * float(np.exp(random.normal(0, 0.06 + 0.06 * k))),
        "slope": random.normal(0, 0.05 + 0.05 * k, 2).tolist(),
        "clouds": random.uniform(0.7, 1.3),
        "vignette": rim * random.uniform(0.7, 1.3),
        "light": random.uniform(0, 2 * np.pi),
        "blur": focus * random.uniform(*blur),
        "noise": dirt * random.uniform(*noise),
        "occluder": occluder,
    }


class _View:
    """Where the camera sees each point of the hand: a pose, and a bend that is smooth over the image."""

    def __init__(self, pose: dict[str, Any], offset: Any, random: RandomState | None, config: SynthConfig) -> None:
        self.size = config.size
        self.unit = config.size / PIXELS
        angle, scale = np.deg2rad(pose["rotation"]), pose["scale"]
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.matrix = scale * turn @ [[1, pose["shear"]], [0, 1]]
        self.shift = (np.array(pose["shift"]) + offset) * self.unit + self.size / 2 - 0.5
        if random is not None:
            cv2 = opencv()
            # Knots 16 pixels apart: bends of about a finger's width, which a shift of the whole cannot undo.
            knots = random.standard_normal((16, 16, 2)).astype(np.float32)
            knots = cv2.GaussianBlur(knots, (0, 0), 0.9)
            knots *= pose["bend"] * self.unit / (np.sqrt((knots**2).mean()) + 1e-6)
            self.bend = cv2.resize(knots, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
        self.pose, self.config = pose, config

    def seen_from(self, offset: Any) -> _View:
        """The same hand, from a camera ``offset`` pixels aside."""
        other = _View(self.pose, offset, None, self.config)
        other.bend = self.bend
        return other

    def project(self, points: Array) -> Array:
        """From shares of the palm (P, 2) to pixels of the image (P, 2).

        The bend is a field over the image, q = pose(p) + bend(q); three rounds find q, as the bend is gentle.
        """
        cv2 = opencv()
        posed = ((points - 0.5) * self.size) @ self.matrix.T + self.shift
        seen = posed
        for _ in range(3):
            at = np.ascontiguousarray(seen, np.float32)[:, None]
            seen = posed + cv2.remap(self.bend, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
        return np.asarray(seen)

    def warp(self, layer: Array) -> Array:
        """A layer over the palm and its margin, (T, T), as the camera sees it: (H, W) float32."""
        cv2 = opencv()
        y, x = np.mgrid[: self.size, : self.size].astype(np.float32)
        back = (np.linalg.inv(self.matrix) / self.size).astype(np.float32)
        u, v = x - self.bend[..., 0] - np.float32(self.shift[0]), y - self.bend[..., 1] - np.float32(self.shift[1])
        scale = np.float32(len(layer) / (1 + 2 * MARGIN))
        middle = np.float32((len(layer) - 1) / 2)
        across = (back[0, 0] * u + back[0, 1] * v) * scale + middle
        down = (back[1, 0] * u + back[1, 1] * v) * scale + middle
        return np.asarray(cv2.remap(layer, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))


def _stroke_layer(
    strokes: Strokes, view: _View, random: RandomState, drop: float, jitter: float, *, fine: int
) -> Array:
    """Draws strokes as seen now: each moved a little on its own, and some not visible."""
    k = view.config.k
    moves = random.normal(0, jitter * k, (len(strokes), 2))
    keep = random.uniform(size=len(strokes)) >= drop
    lengths = np.diff(strokes.ends)
    points = view.project(strokes.points + np.repeat(moves, lengths, axis=0))
    radii = strokes.radii * view.size * np.repeat(np.exp(random.normal(0, 0.1 * k, len(strokes))), lengths)
    return draw(strokes, points, radii, keep, view.size, fine)


def _skin(identity: Identity, view: _View, random: RandomState, k: float) -> tuple[Array, Array, Array]:
    """Main creases, wrinkles, texture as seen now: (H, W) each."""
    lines = _stroke_layer(identity.lines, view, random, 0.05 * k, 0.0025, fine=FINE)
    wrinkles = _stroke_layer(identity.wrinkles, view, random, 0.10 * k, 0.002, fine=FINE)
    return lines, wrinkles, view.warp(identity.texture)


def _palm_image(lines: Array, wrinkles: Array, texture: Array, camera: dict[str, Any], random: RandomState) -> Array:
    """Skin in visible light: dark folds with soft shoulders, and relief where the light comes from one side."""
    size, unit = len(lines), len(lines) / PIXELS
    press = 0.75 + 0.25 * _clouds(random, size, 7)  # how firmly the hand is stretched, here and there
    folds = lines * press
    shoulder = _blur(folds, 3.0 * unit)
    height = -1.6 * shoulder - 0.9 * _blur(lines + 1.6 * wrinkles, 0.7 * unit) + 0.17 * texture
    relief = _relief(height, camera["light"])
    signal = 0.18 * relief - 0.30 * folds - 0.22 * shoulder - 0.40 * wrinkles * press + 0.022 * texture
    mottle = 0.012 * _clouds(random, size, 40)
    return _expose(0.62 + _local(signal, 11 * unit) + mottle, camera, random)


def _vein_image(
    vessels: Array, depth: Array, lines: Array, texture: Array, camera: dict[str, Any], random: RandomState
) -> Array:
    """Skin in near infrared: blood absorbs, tissue scatters, the more the deeper; a trace of the print remains."""
    unit = len(vessels) / PIXELS
    shallow, middle, deep = (_blur(vessels, sigma * unit) for sigma in (1.3, 2.4, 4.2))
    share = np.clip(2 * depth, 0, 2)
    blurred = np.where(share < 1, shallow + share * (middle - shallow), middle + (share - 1) * (deep - middle))
    seen = blurred * (1.1 - 0.45 * depth)
    halo = _blur(seen, 6 * unit)
    signal = -0.30 * seen - 0.22 * halo - 0.05 * _blur(lines, 1.5 * unit) + 0.003 * texture
    mottle = 0.016 * _clouds(random, len(vessels), 24)
    return _expose(0.58 + _local(signal, 11 * unit) + mottle, camera, random)


def _local(signal: Array, sigma: float) -> Array:
    """Takes the low frequencies out: how many lines lie in a region must not show as its tone."""
    cv2 = opencv()
    size = len(signal)
    small = cv2.resize(signal, (size // 4, size // 4), interpolation=cv2.INTER_AREA)
    low = cv2.GaussianBlur(small, (0, 0), sigma / 4, borderType=cv2.BORDER_REFLECT)
    return np.asarray(signal - cv2.resize(low, (size, size), interpolation=cv2.INTER_LINEAR))


def _expose(scene: Array, camera: dict[str, Any], random: RandomState) -> Array:
    """The camera: uneven light, something in the way, blur, tone curve, noise, 8 bits."""
    cv2 = opencv()
    size, unit = len(scene), len(scene) / PIXELS
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = axis[None], axis[:, None]
    light = np.float32(1) + np.float32(camera["slope"][0]) * x + np.float32(camera["slope"][1]) * y
    light += np.float32(0.10 * camera["clouds"]) * _clouds(random, size, 4)
    light -= np.float32(camera["vignette"]) * (x * x + y * y) / 2
    image = np.float32(0.6) + (scene - np.float32(0.6)) * np.float32(camera["contrast"])
    image = image * light + np.float32(camera["tone"])
    if camera["occluder"]:
        across, down, radius, shade = camera["occluder"]
        spot = np.zeros((size, size), np.float32)
        tilt = 180 * ((across * 7.3 + down * 3.1) % 1)
        middle, axes = (across * size, down * size), (2 * radius * unit, 2 * radius * unit * 0.6)
        cv2.ellipse(spot, (middle, axes, tilt), 1.0, -1)
        spot = _blur(spot, 3 * unit)
        image = image + spot * (np.float32(shade) - image)
    image = cv2.pow(np.clip(_blur(image, camera["blur"] * unit), 0.01, 1), camera["gamma"])
    grey = image * 255 + _noise(random, size) * np.float32(255 * camera["noise"])
    return np.asarray(cv2.convertScaleAbs(np.clip(grey, 0, 255)))


def _noise(random: RandomState, size: int) -> Array:
    """Sensor noise of deviation 1, (size, size): the sum of four bytes is close to normal, and cheap."""
    bytes_ = np.frombuffer(random.bytes(4 * size * size), np.uint8).reshape(size, size, 4)
    total = bytes_.view(np.uint32)[..., 0]
    total = (total & 0x00FF00FF) + ((total >> 8) & 0x00FF00FF)
    total = (total & 0xFFFF) + (total >> 16)
    return np.asarray((total.astype(np.float32) - np.float32(510)) / np.float32(147.8))


def _relief(height: Array, light: float) -> Array:
    """Shading of a relief by light from an angle, in radians; about -1 to 1."""
    cv2 = opencv()
    kernel = np.array([[-0.5, 0, 0.5]], np.float32)
    across, down = cv2.filter2D(height, -1, kernel), cv2.filter2D(height, -1, kernel.T)
    slope = np.float32(np.cos(light)) * across + np.float32(np.sin(light)) * down
    return np.asarray(slope / (1 + np.abs(slope)))


def _clouds(random: RandomState, size: int, knots: int) -> Array:
    """Smooth noise of deviation about 0.8, (size, size), with ``knots`` random values a side."""
    cv2 = opencv()
    coarse = random.standard_normal((knots, knots)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))


def _blur(image: Array, sigma: float) -> Array:
    cv2 = opencv()
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT))
