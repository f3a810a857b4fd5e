"""Draws the images in examples/palms: palmprints and palm veins of two people who do not exist.

They are SynthPalm's (docs/synthpalm.md): one hand of each, in two sessions, and in no release.

    python examples/make_palms.py           # writes palms/ and pairs.csv beside this file
    python examples/make_palms.py --check   # compares them with what it would write
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pvzoo.synth import Generator, SynthConfig

CONFIG = SynthConfig(seed=2026, subjects=2, sessions=2, samples=1, k=0.5)
PEOPLE = {1: "anna", 2: "ben"}
TABLE = "pairs.csv"


def draw() -> dict[str, bytes]:
    """All files, by path."""
    generator, files, rows = Generator(CONFIG), {}, ["id,palm,vein"]
    for subject, person in PEOPLE.items():
        for session in (1, 2):
            sample = generator.sample(subject, "right", session, 1)
            name = f"{person}_{session}"
            paths = {modality: f"palms/{modality}/{name}.png" for modality in ("palm", "vein")}
            for modality, path in paths.items():
                file = io.BytesIO()
                Image.fromarray(getattr(sample, modality)).save(file, "PNG", optimize=True)
                files[path] = file.getvalue()
            rows.append(f"{name},{paths['palm']},{paths['vein']}")
    return {**files, TABLE: ("\n".join(rows) + "\n").encode()}


def same(path: Path, wanted: bytes) -> bool:
    """Equal text; equal pixels but for a grey level, by which OpenCV's rounding differs between processors."""
    if path.suffix != ".png":
        return path.read_bytes() == wanted
    with Image.open(path) as found, Image.open(io.BytesIO(wanted)) as drawn:
        return found.size == drawn.size and bool((np.abs(np.asarray(found, int) - np.asarray(drawn, int)) <= 1).all())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="compare with what is there; write nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    args = parser.parse_args()
    faults = 0
    for name, data in draw().items():
        path = args.out / name
        if not args.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        elif not path.is_file() or not same(path, data):
            print(f"{path}: {'not what the script draws' if path.is_file() else 'missing'}", file=sys.stderr)
            faults += 1
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
