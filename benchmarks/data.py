"""Scan and check of a copy of a data set: CPU time per file against a plain loop, and memory by the number of files.

Example:
    python benchmarks/data.py --rounds 3
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from PIL import Image
from timing import compare

FILES = (6_000, 24_000)
GOAL = 1.5
PER_PALM = 40  # 2 modalities x 2 sessions x 10 samples


def make(root: Path, files: int, side: int) -> None:
    """Writes palms of Tongji's layout, no two images with the same bytes."""
    image = Image.frombytes("L", (side, side), os.urandom(side * side))
    buffer = io.BytesIO()
    image.save(buffer, "BMP")
    content = bytearray(buffer.getvalue())
    for folder in ("ROI", "Palmvein"):
        for session in (1, 2):
            place = root / folder / f"session{session}"
            place.mkdir(parents=True)
            for number in range(1, files // 4 + 1):
                content[-8:] = os.urandom(8)
                (place / f"{number:05d}.bmp").write_bytes(content)


def by_pvzoo(root: Path) -> int:
    from pvzoo.data.adapters import open_layout
    from pvzoo.data.check import check

    adapter = open_layout("tongji")
    table = adapter.scan(root)
    report = check(table, adapter)
    bad = [finding for finding in report.findings if finding.kind != "counts"]
    assert not bad, bad[:3]
    return len(table)


def by_hand(root: Path) -> int:
    """Lists, hashes and decodes every file; knows nothing of identities."""
    seen = set()
    for folder, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:  # noqa: PTH118
                seen.add(hashlib.file_digest(file, "sha256").digest())
                Image.open(file).load()
    return len(seen)


def cpu_seconds(work: Callable[[Path], int], root: Path) -> float:
    start = time.process_time()
    work(root)
    return time.process_time() - start


def peak(root: Path) -> int:
    """Bytes by which a fresh process grows at most during scan and check, after everything is imported (Linux)."""
    command = [sys.executable, __file__, "--grow", str(root)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def grow(root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), PER_PALM, 8)
        by_pvzoo(Path(folder))
    before = high_water()
    by_pvzoo(root)
    print(high_water() - before)


def high_water() -> int:
    """Most resident memory that this process ever had; ``ru_maxrss`` would begin with that of its parent."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs that count")
    parser.add_argument("--grow", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, default=128, help="pixels of the side of an image")
    args = parser.parse_args()
    if args.grow:
        grow(args.grow)
        return
    peaks = []
    for files in FILES:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            make(root, files, args.side)
            name = f"scan + check of {files} files / list, hash and decode by hand"
            ours, theirs = (partial(cpu_seconds, work, root) for work in (by_pvzoo, by_hand))
            compare(name, ours, theirs, goal=GOAL, rounds=args.rounds)
            best = min(ours() for _ in range(args.rounds))
            peaks.append(peak(root))
            print(
                f"{files} files: {1e6 * best / files:.0f} us of CPU a file, memory grows by {peaks[-1] / 2**20:.1f} MiB"
            )
    print(f"each further file: {(peaks[1] - peaks[0]) / (FILES[1] - FILES[0]):.0f} bytes")


if __name__ == "__main__":
    main()
