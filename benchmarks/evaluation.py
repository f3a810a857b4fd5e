"""Error rates of embeddings, all against all: against scikit-learn, their memory, and the subject bootstrap.

Needs scikit-learn, 8 GB of memory, and Linux, which tells peaks of memory.

Example:
    python benchmarks/evaluation.py --rounds 3
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_curve
from timing import compare, resident, seconds

from pvzoo.evaluation.metrics import eer, roc
from pvzoo.evaluation.results import evaluate
from pvzoo.evaluation.scores import Comparisons, count_scores
from pvzoo.evaluation.trials import Population, all_pairs

DIM = 512
MEMORY_GOAL = 100  # MB above the embeddings


def compared(count: int) -> Comparisons:
    """All against all: subjects of 2 hands with 10 samples each."""
    generator = torch.Generator().manual_seed(0)
    identity = torch.arange(count) // 10
    vectors = torch.randn(count, DIM, generator=generator).mul_(1.6)
    vectors += torch.randn(count // 10 + 1, DIM, generator=generator)[identity]
    population = Population.of(identity.tolist(), (identity // 2).tolist())
    return Comparisons(vectors, population, all_pairs(count))


def spent(work: Callable[[], object]) -> float:
    """Seconds of one call: wall time, or with one thread CPU time, to which other programs matter little."""
    if torch.get_num_threads() > 1:
        return seconds(work)
    start = time.process_time()
    work()
    return time.process_time() - start


def rates(source: Comparisons, *, exact: bool = True) -> None:
    """EER and ROC."""
    counts = count_scores(source, method="histogram", refine=exact).tally
    eer(counts)
    roc(counts)


def against_scikit_learn(count: int, rounds: int) -> None:
    source = compared(count)
    scores = np.empty(source.counts.genuine + source.counts.impostor, np.float32)
    labels = np.zeros(len(scores), bool)
    done = 0
    for tile in source.tiles():
        for part, label in zip(tile.split(), (True, False), strict=True):
            scores[done : done + part.numel()] = part.reshape(-1)
            labels[done : done + part.numel()] = label
            done += part.numel()
    print(f"{len(scores):,} comparisons of {count:,} embeddings of dimension {DIM}")
    histogram, exact = (partial(spent, partial(rates, source, exact=choice)) for choice in (False, True))
    compare("exact EER / histogram alone", exact, histogram, goal=2, rounds=max(rounds, 5))
    theirs = partial(spent, partial(roc_curve, labels, scores))
    compare("EER + ROC, histogram / scikit-learn", histogram, theirs, goal=1 / 40, rounds=rounds, warmup=0)
    compare("EER + ROC, exact / scikit-learn", exact, theirs, goal=1 / 20, rounds=rounds, warmup=0)


def bootstrap(count: int, rounds: int) -> None:
    source = compared(count)
    print(f"{source.counts.genuine + source.counts.impostor:,} comparisons of {source.subjects} subjects")
    ours, one = (partial(spent, partial(evaluate, source, folds=folds)) for folds in (1000, 0))
    compare("all figures with 1,000 folds / without", ours, one, goal=20, rounds=rounds)


def peak(count: int) -> None:
    """Prints CPU seconds and the peak of memory above the embeddings, of one count, as JSON."""
    torch.set_num_threads(1)  # so that CPU time is work, not waiting
    rates(compared(100))  # what the libraries need once
    before = resident("VmRSS")
    source = compared(count)
    Path("/proc/self/clear_refs").write_text("5")
    cpu = spent(partial(rates, source))
    held = before + source.embeddings.nbytes / 2**20
    print(json.dumps([cpu, resident("VmHWM") - held]))


def growth() -> None:
    """Prints how time and memory grow with the number of embeddings, each in a process of its own."""
    times = {}
    for count in (12_500, 25_000, 50_000):
        command = [sys.executable, __file__, "--peak", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        times[count], memory = json.loads(done.stdout)
        met = "met" if memory <= MEMORY_GOAL else "MISSED"
        print(f"{count:,} embeddings: {memory:.0f} MB above them (goal {MEMORY_GOAL}, {met})", flush=True)
    for count in (25_000, 50_000):
        ratio, square = times[count] / times[12_500], (count / 12_500) ** 2
        print(f"CPU time of {count:,} / of 12,500: {ratio:.1f} ({square:.0f} times the comparisons)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs that count")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    parser.add_argument("--only", choices=("rates", "bootstrap", "growth"), help="one of the three")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        peak(args.peak)
        return
    torch.set_num_threads(args.threads)
    print(f"{args.threads} threads")
    parts = {
        "bootstrap": partial(bootstrap, 6000, args.rounds),
        "growth": growth,
        "rates": partial(against_scikit_learn, 12_000, args.rounds),
    }
    for name, part in parts.items():
        if args.only in (None, name):
            part()


if __name__ == "__main__":
    main()
