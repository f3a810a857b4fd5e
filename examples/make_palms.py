"""Draws the images in examples/palms: palmprints and palm veins of two people who do not exist.

Each person has creases, wrinkles, ridges and a tree of veins, drawn once; each capture bends, lights and blurs them a
little differently, and both modalities share the pose of the hand, as with a two-band sensor.

    python examples/make_palms.py           # writes palms/ and pairs.csv beside this file
    python examples/make_palms.py --check   # compares them with what it would write
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE = 224  # of an image, in pixels; all lengths below are in these pixels or in shares of the palm
BORDER = 28  # drawn around the palm, so that a shifted hand has no empty edge
FINE = 2  # layers have this many pixels to one of the image, and strokes are drawn at twice that
CANVAS = (SIZE + 2 * BORDER) * FINE
PEOPLE, CAPTURES = ("anna", "ben"), (1, 2)

Array = np.ndarray
Random = np.random.RandomState  # its streams are frozen for good, unlike those of np.random.Generator
Stroke = tuple[Array, Array, float]  # points (n, 2) in shares of the palm, radii (n,) in pixels, darkness


def blur(layer: Array, sigma: float) -> Array:
    """Gaussian blur; sigma in image pixels."""
    pad = int(4 * sigma * FINE) + 1
    padded = np.pad(layer, pad, mode="symmetric")
    fy, fx = np.fft.fftfreq(padded.shape[0])[:, None], np.fft.rfftfreq(padded.shape[1])
    gain = np.exp(-2 * (np.pi * sigma * FINE) ** 2 * (fx**2 + fy**2))
    return np.fft.irfft2(np.fft.rfft2(padded) * gain, padded.shape)[pad:-pad, pad:-pad]


def smooth_noise(random: Random, size: int, sigma: float) -> Array:
    """A smooth random field of mean 0 and deviation 1."""
    field = blur(random.standard_normal((size, size)), sigma)
    return (field - field.mean()) / field.std()


def ridges(random: Random) -> Array:
    """Skin ridges: band-passed noise whose direction turns slowly over the palm."""
    fy, fx = np.fft.fftfreq(CANVAS)[:, None] * FINE, np.fft.rfftfreq(CANVAS) * FINE
    spectrum = np.fft.rfft2(random.standard_normal((CANVAS, CANVAS)))
    ring = np.exp(-(((np.hypot(fx, fy) - 0.27) / 0.045) ** 2))
    turn = smooth_noise(random, CANVAS, 40) * 0.5 + random.uniform(0.4, 1.0)
    total = np.zeros((CANVAS, CANVAS))
    for direction in np.arange(8) * np.pi / 8:
        fan = np.exp((np.cos(2 * (np.arctan2(fy, fx) - direction)) - 1) / 0.1)
        total += np.fft.irfft2(spectrum * ring * fan) * np.exp((np.cos(2 * (turn - direction)) - 1) / 0.15)
    return total / total.std()


def curve(controls: Array) -> Array:
    """The Bezier curve of some control points, as 240 points."""
    t = np.linspace(0, 1, 240)[:, None, None]
    points = np.broadcast_to(controls, (240, *np.shape(controls)))
    while points.shape[1] > 1:
        points = points[:, :-1] * (1 - t) + points[:, 1:] * t
    return points[:, 0]


def ink(strokes: Iterable[Stroke]) -> Array:
    """Draws strokes, antialiased, the darker over the lighter."""
    image = Image.new("L", (CANVAS * 2, CANVAS * 2))
    pen, unit = ImageDraw.Draw(image), 2 * FINE
    for points, radii, darkness in sorted(strokes, key=lambda stroke: stroke[2]):
        for (x, y), r in zip((points * SIZE + BORDER) * unit, radii * unit, strict=True):
            pen.ellipse((x - r, y - r, x + r, y + r), fill=round(255 * min(darkness, 1)))
    return np.asarray(image.reduce(2), float) / 255


def main_lines(random: Random) -> list[Stroke]:
    """The life, head and heart line, each with finer lines that run along it for a while."""
    start = random.normal((-0.06, 0.34), 0.04)
    shapes = [
        np.array([start, (0.34, 0.32), (0.54, 0.60), (0.46, 0.84), (0.40, 1.12)]),
        np.array([start + random.normal(0, 0.03, 2), (0.30, 0.36), (0.66, 0.46), (0.98, 0.74)]),
        np.array([(1.12, 0.36), (0.84, 0.38), (0.50, 0.32), (0.36, 0.20), (0.26, -0.04)]),
    ]
    strokes: list[Stroke] = []
    along = np.linspace(0, 1, 240)
    for shape in shapes:
        shape[1:] += random.normal(0, 0.065, shape[1:].shape)
        line = curve(shape)
        line = line + 0.004 * np.stack([np.interp(along, np.linspace(0, 1, 14), random.normal(0, 1, 14))] * 2, 1)
        width = random.uniform(1.0, 1.5) * (0.7 + 0.3 * np.sin(np.pi * along)) * np.minimum(1, (1 - along) * 5 + 0.25)
        strokes.append((line, width, random.uniform(0.85, 1.0)))
        for _ in range(7):
            first = random.randint(0, 180)
            part = slice(first, first + random.randint(30, 75))
            drift = np.linspace(-0.4, 1, len(line[part]))[:, None] * random.normal(0, 0.013, 2)
            strokes.append((line[part] + drift, width[part] * 0.5, random.uniform(0.3, 0.7)))
    return strokes


def wrinkles(random: Random, count: int, length: float, radius: float) -> list[Stroke]:
    """Short lines, most of which run across the palm's long lines."""
    strokes: list[Stroke] = []
    taper = 0.25 + 0.75 * np.sin(np.pi * np.linspace(0, 1, 240))
    for _ in range(count):
        angle = random.choice((-0.9, 0.5, 1.5), p=(0.3, 0.25, 0.45)) + random.normal(0, 0.3)
        half = np.array([np.cos(angle), np.sin(angle)]) * length * random.uniform(0.4, 1.6) / 2
        middle = random.uniform(-0.05, 1.05, 2)
        controls = np.array([middle - half, middle + half[::-1] * random.normal(0, 0.35), middle + half])
        strokes.append((curve(controls), radius * random.uniform(0.7, 1.3) * taper, random.uniform(0.25, 0.9)))
    return strokes


def vein_tree(random: Random) -> list[Stroke]:
    """Veins that grow from the wrist towards tissue that has none yet (space colonisation)."""
    roots = np.array([(0.2, 1.12), (0.62, 1.12), (1.12, 0.75)]) + random.normal(0, 0.07, (3, 2))
    nodes, parents = list(roots), [0, 1, 2]
    tissue = random.uniform(-0.15, 1.15, (260, 2))
    for _ in range(120):
        offsets = tissue[:, None] - np.array(nodes)
        distances = np.hypot(offsets[..., 0], offsets[..., 1])
        nearest = distances.argmin(1)
        for node in np.unique(nearest):
            pull = sum(offsets[i, node] / distances[i, node] for i in np.flatnonzero(nearest == node))
            step = pull + random.normal(0, 0.35, 2) + (nodes[node] - nodes[parents[node]]) * 45
            nodes.append(nodes[node] + 0.018 * step / np.hypot(*step))
            parents.append(int(node))
        tissue = tissue[distances.min(1) > 0.06]
        if not len(tissue):
            break
    points, flow = np.array(nodes), np.zeros(len(nodes))
    for node in range(len(nodes) - 1, 2, -1):  # a child always comes after its parent
        flow[node] = max(flow[node], 1)
        flow[parents[node]] += flow[node]
    for _ in range(3):
        points[3:] = (points[3:] + points[parents[3:]]) / 2
    radii = np.clip(0.55 * flow**0.42, 0.75, 3.4)
    t = np.linspace(0, 1, 8)[:, None]
    ends = [(points[node], points[parents[node]], node) for node in range(3, len(nodes))]
    return [(a * (1 - t) + b * t, np.full(8, radii[n]), 0.38 + 0.2 * radii[n]) for a, b, n in ends]


def person(name: str) -> Array:
    """What stays the same between captures, drawn with the name as the seed.

    Returns:
        Main lines, wrinkles, ridges, mounds and veins: (5, CANVAS, CANVAS); ridges around 0, the others from 0 to 1.
    """
    random = Random(zlib.crc32(name.encode()))
    y, x = (np.mgrid[:CANVAS, :CANVAS] / FINE - BORDER) / SIZE
    hills = ((0.10, 0.78, 0.30), (0.88, 0.70, 0.28), (0.55, 0.08, 0.26))  # thumb, little finger, below the fingers
    mounds = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * (s * 0.7) ** 2)) for a, b, s in hills)
    long, short = random.randint(16, 45), random.randint(120, 300)
    fine = wrinkles(random, long, 0.24, 0.62) + wrinkles(random, short, 0.08, 0.42)
    veins = blur(ink(vein_tree(random)), 1.5)
    return np.stack([ink(main_lines(random)), ink(fine), ridges(random), mounds, veins])


def warp(layers: Array, random: Random) -> Array:
    """Gives layers (n, CANVAS, CANVAS) a random pose and bend, and cuts out the palm: (n, SIZE * FINE, SIZE * FINE)."""
    size = SIZE * FINE
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    angle, scale, shift = random.normal(0, 0.035), np.exp(random.normal(0, 0.02)), random.normal(0, 3.0 * FINE, 2)
    bend = [smooth_noise(random, size, 22) * 1.6 * FINE for _ in range(2)]
    u = (np.cos(angle) * x - np.sin(angle) * y) * scale + shift[0] + bend[0] + (CANVAS - 1) / 2
    v = (np.sin(angle) * x + np.cos(angle) * y) * scale + shift[1] + bend[1] + (CANVAS - 1) / 2
    u, v = np.clip(u, 0, CANVAS - 1.001), np.clip(v, 0, CANVAS - 1.001)
    i, j = v.astype(int), u.astype(int)
    a, b = v - i, u - j
    top = layers[:, i, j] * (1 - b) + layers[:, i, j + 1] * b
    return top * (1 - a) + (layers[:, i + 1, j] * (1 - b) + layers[:, i + 1, j + 1] * b) * a


def finish(image: Array, random: Random, sharpness: float, noise: float) -> Image.Image:
    """The sensor: uneven light, blur, noise, 8 bits."""
    y, x = np.mgrid[-1 : 1 : 1j * len(image), -1 : 1 : 1j * len(image)]
    slope, centre = random.normal(0, 0.06, 2), random.normal(0, 0.15, 2)
    falloff = 1 - 0.16 * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2)
    lit = blur(image * falloff * (1 + slope[0] * x + slope[1] * y), sharpness)
    small = lit.reshape(SIZE, FINE, SIZE, FINE).mean((1, 3)) ** np.exp(random.normal(0, 0.07))
    small = small + random.normal(0, noise, small.shape)
    return Image.fromarray((small.clip(0, 1) * 255).round().astype(np.uint8))


def capture(layers: Array, seed: str) -> dict[str, Image.Image]:
    """One capture of a person's palm in both modalities, under one pose."""
    random = Random(zlib.crc32(seed.encode()))
    lines, fine, ridge, mounds, veins = warp(layers, random)
    wide = blur(lines, 2.5)
    # The palm: darker in the folds, and lit from one side, which shows the skin's relief.
    height = 16 * mounds - 2.2 * wide - 1.4 * blur(lines, 0.6) - 0.8 * fine + 0.16 * ridge
    dy, dx = np.gradient(height * FINE)
    light = random.normal(0.9, 0.25)
    relief = np.tanh(0.55 * (np.cos(light) * dx + np.sin(light) * dy))
    mottle = smooth_noise(random, SIZE * FINE, 9)
    uneven = 0.85 + 0.12 * smooth_noise(random, SIZE * FINE, 7)
    palm = 0.70 + 0.09 * mounds + 0.16 * relief - (0.26 * wide + 0.28 * lines) * uneven - 0.14 * fine + 0.010 * mottle
    # The vein image: light scattered in the skin, absorbed by blood; of the print, only a trace of the main lines.
    cloud = smooth_noise(random, SIZE * FINE, 14)
    vein = 0.70 + 0.08 * mounds - 0.36 * veins - 0.24 * blur(veins, 5) - 0.05 * wide + 0.016 * cloud + 0.004 * ridge
    return {"palm": finish(palm, random, 0.45, 0.008), "vein": finish(vein, random, 0.9, 0.010)}


def alike(a: Image.Image, b: Image.Image) -> bool:
    """Whether pixels agree, but for one grey level of rounding, which may differ between processors."""
    same_kind = (a.size, a.mode) == (b.size, b.mode)
    return same_kind and bool(np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1)


def main() -> int:
    """Writes the images, or checks those that are there."""
    parser = argparse.ArgumentParser(description="Draw palmprint and palm-vein images of people who do not exist.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to (default: here)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the files there differ")
    args = parser.parse_args()
    table, wrong = "id,palm,vein\n", []
    for name in PEOPLE:
        layers = person(name)
        for number in CAPTURES:
            sample = f"{name}_{number}"
            table += f"{sample},palms/palm/{sample}.png,palms/vein/{sample}.png\n"
            for modality, image in capture(layers, sample).items():
                path = args.out / "palms" / modality / f"{sample}.png"
                if not args.check:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    image.save(path, optimize=True)
                elif not path.is_file() or not alike(image, Image.open(path)):
                    wrong.append(path)
    pairs = args.out / "pairs.csv"
    if not args.check:
        pairs.write_text(table, encoding="utf-8", newline="\n")
    elif not pairs.is_file() or pairs.read_text(encoding="utf-8") != table:
        wrong.append(pairs)
    for path in wrong:
        print(f"{path}: differs from what this script draws", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
