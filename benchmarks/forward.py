"""Forward pass of ``stage2_spatial``, against timm's networks and the same layers called by hand.

Example:
    python benchmarks/forward.py --rounds 15
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from by_hand import Stage2Spatial
from timing import compare, seconds

import pvzoo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=15, help="pairs of runs that count, at batch 1")
    rounds = parser.parse_args().rounds
    ours, theirs = pvzoo.create("stage2_spatial"), Stage2Spatial().eval()
    for batch, count in ((1, rounds), (16, max(rounds // 3, 3))):
        palm, vein = torch.rand(2, batch, 1, 224, 224)
        with torch.inference_mode():
            compare(
                f"forward at batch {batch} / by hand",
                partial(seconds, partial(ours, palm, vein)),
                partial(seconds, partial(theirs, palm, vein)),
                goal=1.03,
                rounds=count,
                warmup=2,
            )


if __name__ == "__main__":
    main()
