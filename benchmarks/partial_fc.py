"""A training step of a head over many identities, with a sample of their class centres against all: time and memory.

Needs Linux, which tells peaks of memory.

Example:
    python benchmarks/partial_fc.py --classes 100000 --rate 0.1
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from timing import compare, resident, seconds

from pvzoo.heads import ArcFaceParams
from pvzoo.heads.margin import ArcFace
from pvzoo.training.centers import ClassCenters

DIM, BATCH = 512, 64
SPEED_GOAL, MEMORY_GOAL = 1 / 8, 1 / 3


def step_of(classes: int, rate: float, optimiser: str) -> Callable[[], None]:
    """Forward, backward and optimiser step of a head, as ``pvzoo train`` does them."""
    generator = torch.Generator().manual_seed(0)
    head = ArcFace(ArcFaceParams(sample_rate=rate), dim=DIM, num_classes=classes)
    centers = None
    if rate < 1:
        centers = ClassCenters(head, batch=BATCH, seed=0, shard=False, device=torch.device("cpu"))
    trained = [centers.rows if centers else head.weight]
    moves = (
        torch.optim.SGD(trained, lr=0.01, momentum=0.9, fused=True)
        if optimiser == "sgd"
        else torch.optim.AdamW(trained, lr=1e-3, fused=True)
    )
    numbers = count()

    def step() -> None:
        embedding = torch.randn(BATCH, DIM, generator=generator).requires_grad_()
        labels = torch.randint(classes, (BATCH,), generator=generator)
        moves.zero_grad()
        if centers is None:
            F.cross_entropy(head(embedding, labels), labels).backward()
            moves.step()
        else:
            centers.loss(embedding, labels, step=next(numbers)).backward()
            centers.before_step(moves)
            moves.step()
            centers.after_step(moves)

    return step


def spent(step: Callable[[], None]) -> float:
    """Seconds of a step: wall time, or with one thread CPU time, to which other programs matter little."""
    if torch.get_num_threads() > 1:
        return seconds(step)
    start = time.process_time()
    step()
    return time.process_time() - start


def peak(classes: int, rate: float, optimiser: str) -> None:
    """Prints the peak of memory above the class centres in MB, over steps that include the first."""
    step_of(1000, rate, optimiser)()  # what the libraries need once
    before = resident("VmRSS")
    step = step_of(classes, rate, optimiser)
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(3):
        step()
    print(json.dumps(resident("VmHWM") - before - classes * DIM * 4 / 2**20))


def memory(classes: int, rate: float, optimiser: str, rounds: int) -> None:
    """Prints the peaks of both, each in processes of its own."""
    found: dict[float, list[float]] = {rate: [], 1.0: []}
    for _ in range(rounds):
        for each, values in found.items():
            command = [
                sys.executable,
                __file__,
                "--peak",
                str(each),
                "--classes",
                str(classes),
                "--optimiser",
                optimiser,
            ]
            values.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    ours, theirs = (median(values) for values in found.values())
    met = "met" if ours / theirs <= MEMORY_GOAL else "MISSED"
    ratio = f"{ours / theirs:.3f} (goal {MEMORY_GOAL:.3f}, {met})"
    print(f"{optimiser}, added memory: {ratio}   {ours:.0f} MB / {theirs:.0f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--classes", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=0.1, help="sample_rate of the head")
    parser.add_argument("--optimiser", choices=("adamw", "sgd"), action="append", help="both if left out")
    parser.add_argument("--rounds", type=int, default=9, help="pairs of steps that count")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--peak", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    optimisers = args.optimiser or ["adamw", "sgd"]
    if args.peak:
        peak(args.classes, args.peak, optimisers[0])
        return
    print(
        f"{args.classes:,} classes, dimension {DIM}, batch {BATCH}, sample rate {args.rate:g}, {args.threads} threads"
    )
    for optimiser in optimisers:
        ours, theirs = (partial(spent, step_of(args.classes, rate, optimiser)) for rate in (args.rate, 1.0))
        name = f"{optimiser}, step with a sample / with all"
        compare(name, ours, theirs, goal=SPEED_GOAL, rounds=args.rounds, warmup=2)
        del ours, theirs
        memory(args.classes, args.rate, optimiser, rounds=1)


if __name__ == "__main__":
    main()
