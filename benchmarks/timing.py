"""Shared by the benchmarks: A and B in turn, and the median of their ratios."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a whole process; its output is thrown away."""
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = os.times()
    return (after.children_user + after.children_system) - (before.children_user + before.children_system)


def resident(field: str) -> float:
    """Memory of this process in MB: ``VmRSS`` now, ``VmHWM`` the most since it was last reset (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def compare(
    name: str, ours: Callable[[], float], theirs: Callable[[], float], *, goal: float, rounds: int, warmup: int = 1
) -> float:
    """Runs both in turn and prints the median of the pairwise ratios, ours / theirs.

    Args:
        name: What is compared.
        ours: Gives one measurement of pvzoo, in seconds.
        theirs: Gives one measurement of the other side.
        goal: The ratio that pvzoo promises at most.
        rounds: Pairs that count.
        warmup: Pairs before them that do not.
    """
    pairs = [(ours(), theirs()) for _ in range(warmup + rounds)][warmup:]
    ratio = statistics.median(a / b for a, b in pairs)
    a, b = (statistics.median(side) for side in zip(*pairs, strict=True))
    met = "met" if ratio <= goal else "MISSED"
    sys.stdout.write(f"{name}: {ratio:.3f} (goal {goal:.3f}, {met})   {a * 1000:.1f} ms / {b * 1000:.1f} ms\n")
    sys.stdout.flush()
    return ratio
