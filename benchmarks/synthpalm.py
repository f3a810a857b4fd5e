"""SynthPalm: pairs drawn a second, and the difficulty table of docs/synthpalm.md.

Example:
    python benchmarks/synthpalm.py --workers 2 --subjects 30
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2

from pvzoo.evaluation.baselines import CompCode, MaximumCurvature
from pvzoo.synth import Generator, SynthConfig, release

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from biometrics import draw_all, eer, low_pass_scores, split_scores

GOAL = 60  # pairs of 224 x 224 a second, on 2 cores


def draw_hand(identity: tuple[int, str]) -> float:
    """Draws all pairs of one hand of synthpalm-v1; returns the CPU seconds that it took."""
    cv2.setNumThreads(1)
    config = release("synthpalm-v1")
    start = time.process_time()
    generator = Generator(config)
    for key in config.keys(*identity):
        generator.sample(*key)
    return time.process_time() - start


def speed(workers: int, hands: int, rounds: int) -> None:
    """Prints the pairs a second of ``workers`` processes, started beforehand."""
    config = release("synthpalm-v1")
    identities = list(config.identities())[:hands]
    pairs = hands * config.sessions * config.samples
    best, cpu = 0.0, float("inf")
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(draw_hand, identities[: 2 * workers]))
        for _ in range(rounds):
            start = time.perf_counter()
            spent = sum(pool.map(draw_hand, identities))
            best, cpu = max(best, pairs / (time.perf_counter() - start)), min(cpu, spent / pairs)
    met = "met" if best >= GOAL else "MISSED"
    print(f"{workers} workers: {best:.0f} pairs/s (goal {GOAL}, {met}); {1000 * cpu:.1f} ms of CPU a pair")


def difficulty(subjects: int) -> None:
    """Prints equal error rates, all against all, by k."""
    matchers = {"palm": CompCode(), "vein": MaximumCurvature()}
    print(f"EER in %, {2 * subjects} hands x 2 sessions x 2 samples, all against all")
    print("| k | palm, CompCode | vein, maximum curvature | palm, low pass | vein, low pass |")
    print("| --- | --- | --- | --- | --- |")
    for k in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0):
        images, labels = draw_all(SynthConfig(seed=1, subjects=subjects, sessions=2, samples=2, k=k))
        templates = {name: matcher.extract(images[name]) for name, matcher in matchers.items()}
        found = [matcher.scores(templates[name], templates[name]) for name, matcher in matchers.items()]
        found += [low_pass_scores(images[name]) for name in matchers]
        print(f"| {k} | " + " | ".join(f"{100 * eer(*split_scores(s, labels)):.1f}" for s in found) + " |", flush=True)


def contact_sheet(file: Path, hands: int = 4) -> None:
    """Draws docs/synthpalm.png: a hand a row; two sessions of palm and vein, and the masks of the first."""
    generator, rows = Generator(release("synthpalm-v1")), []
    for subject in range(1, hands + 1):
        first, second = (generator.sample(subject, "right", session, 1) for session in (1, 2))
        layers = (first.palm, first.vein, second.palm, second.vein, first.crease_mask, first.vein_mask)
        small = [cv2.resize(layer, (160, 160), interpolation=cv2.INTER_AREA) for layer in layers]
        rows.append(cv2.hconcat([cv2.copyMakeBorder(s, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=255) for s in small]))
    cv2.imwrite(str(file), cv2.vconcat(rows), [cv2.IMWRITE_PNG_COMPRESSION, 9])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--hands", type=int, default=24, help="hands drawn a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the fastest counts")
    parser.add_argument("--subjects", type=int, default=30, help="subjects of the difficulty table; 0 for none")
    parser.add_argument(
        "--sheet", type=Path, help="draw the contact sheet of the docs into this file, and nothing else"
    )
    args = parser.parse_args()
    if args.sheet:
        contact_sheet(args.sheet)
        return
    speed(args.workers, args.hands, args.rounds)
    if args.subjects:
        difficulty(args.subjects)


if __name__ == "__main__":
    main()
