"""CPU time of importing pvzoo and of its light commands, against ``import timm``.

Example:
    python benchmarks/startup.py --rounds 5
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from timing import compare, cpu_seconds

TIMM = [sys.executable, "-c", "import timm"]
PVZOO = [sys.executable, "-m", "pvzoo"]
CASES = {
    "import pvzoo": ([sys.executable, "-c", "import pvzoo"], 1 / 30),
    "pvzoo --help": ([*PVZOO, "--help"], 1 / 12),
    "pvzoo list": ([*PVZOO, "list"], 1 / 8),
    "pvzoo show stage2_spatial": ([*PVZOO, "show", "stage2_spatial"], 1 / 8),
    "pvzoo plugins": ([*PVZOO, "plugins"], 1 / 8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs that count")
    rounds = parser.parse_args().rounds
    for name, (command, goal) in CASES.items():
        compare(
            f"{name} / import timm", partial(cpu_seconds, command), partial(cpu_seconds, TIMM), goal=goal, rounds=rounds
        )


if __name__ == "__main__":
    main()
