"""Training: stage 2 from cached features, against computing them again; and a stage-1 step, against a bare loop.

On a GPU also images a second, with the floating-point operations that they take and the share of the device's peak.

Example:
    python benchmarks/training.py
    python benchmarks/training.py --gpu --peak 989e12    # H100 SXM, dense bfloat16
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from timing import compare
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

import pvzoo
from pvzoo.data.loading import Batch
from pvzoo.data.protocols import open_protocol
from pvzoo.data.sources import open_images
from pvzoo.data.split import Comparisons, Split
from pvzoo.synth import SynthConfig, generate
from pvzoo.training.machine import Machine, explained, trainer_of
from pvzoo.training.module import TrainingModule
from pvzoo.training.recipe import Recipe, load_recipe

CACHED_GOAL, STEP_GOAL = 50, 1.05
STEPS = 8


def rate(recipe: str, data: Path, out: Path, **changes: Any) -> float:
    """Samples a second of a training from its second epoch on."""
    how = {"data.source": str(data), "batch.size": 16, "model": "stage2_spatial", "precision": "fp32", **changes}
    pvzoo.train(recipe, out, overrides=how, machine=Machine("cpu", progress=False))
    with (out / "metrics.csv").open(newline="") as lines:
        return median(float(row["samples_per_second"]) for row in list(csv.DictReader(lines))[1:])


def cached(folder: Path, rounds: int) -> None:
    """Plan A of the flagship at 224 px, batch 16."""
    data = folder / "palms"
    generate(SynthConfig(seed=3, subjects=10, sessions=2, samples=2), data)
    ratios = []
    for number in range(rounds):
        again = rate("stage2_plan_a", data, folder / f"again{number}", cache_features=0, epochs=2)
        once = rate("stage2_plan_a", data, folder / f"once{number}", cache_features=1, epochs=12)
        ratios.append(once / again)
        print(f"  {again:.2f} samples a second, {once:.1f} from cached features", flush=True)
    verdict = "met" if median(ratios) >= CACHED_GOAL else "MISSED"
    print(f"plan A, cached features / computed again: {median(ratios):.1f} x (goal {CACHED_GOAL} x, {verdict})")


def batches(split: Split, recipe: Recipe, size: int, device: str) -> list[Batch]:
    """Batches of random pixels, which cost no loading."""
    classes = len(split.classes)
    side = recipe.spec(classes).preprocessing.size
    generator = torch.Generator().manual_seed(0)
    return [
        Batch(
            {m: torch.rand(size, 1, *side, generator=generator).to(device) for m in recipe.spec(classes).modalities},
            {m: torch.ones(size, dtype=torch.bool) for m in recipe.spec(classes).modalities},
            torch.randint(classes, (size,), generator=generator).to(device),
            torch.arange(size),
        )
        for _ in range(STEPS)
    ]


def by_lightning(recipe: Recipe, dev: Comparisons, classes: int, given: list[Batch], accelerator: str) -> float:
    """Seconds of a step of ``pvzoo train``; the first is left out."""
    torch.manual_seed(0)
    module = TrainingModule(pvzoo.Model(recipe.spec(classes)), recipe, dev)
    module.model.check_inputs = False
    ends: list[float] = []

    class Ends(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            if accelerator == "cuda":
                torch.cuda.synchronize()
            ends.append(time.perf_counter())

    few = {"max_epochs": 1, "limit_val_batches": 0, "enable_checkpointing": False}
    machine = Machine(accelerator, progress=False)
    with explained():
        trainer: Trainer = trainer_of(recipe, machine, Path(tempfile.gettempdir()), [Ends()], strategy="auto", **few)
        trainer.fit(module, DataLoader(given, batch_size=None))
    return median(b - a for a, b in pairwise(ends[1:]))


def by_hand(recipe: Recipe, classes: int, given: list[Batch]) -> float:
    """Seconds of the same step in a bare loop: forward, loss, backward, clipping, AdamW."""
    torch.manual_seed(0)
    model = pvzoo.Model(recipe.spec(classes)).train()
    model.check_inputs = False
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05, fused=True)
    ends = []
    for batch in given:
        logits, _, _ = model(**batch.images, labels=batch.labels)
        loss = F.cross_entropy(logits, batch.labels)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        ends.append(time.perf_counter())
    return median(b - a for a, b in pairwise(ends[1:]))


def step(rounds: int) -> None:
    """Stage 1 of ConvNeXt-Tiny at 112 px, batch 16."""
    how = {"model": "stage1_convnext_palm", "image_size": 112, "batch.size": 16, "precision": "fp32", "epochs": 1}
    recipe = load_recipe("stage1", how)
    split = open_protocol("open_subject").split(open_images(recipe.data).table)
    classes = len(split.classes)
    given = batches(split, recipe, recipe.batch.size, "cpu")
    compare(
        "a stage-1 step of pvzoo train / of a bare loop",
        partial(by_lightning, recipe, split.dev, classes, given, "cpu"),
        partial(by_hand, recipe, classes, given),
        goal=STEP_GOAL,
        rounds=rounds,
    )


def gpu(peak: float) -> None:
    """Images a second in bfloat16, of stage 1 at batch 128 and end to end at batch 64."""
    for name, recipe_name, size in (("stage1_convnext_palm", "stage1", 128), ("stage2_spatial", "end_to_end", 64)):
        recipe = load_recipe(recipe_name, {"model": name, "batch.size": size, "precision": "bf16", "epochs": 1})
        split = open_protocol("open_subject").split(open_images(recipe.data).table)
        classes = len(split.classes)
        given = batches(split, recipe, size, "cuda")
        seconds = by_lightning(recipe, split.dev, classes, given, "cuda")
        images = [x[:1].to("meta") for x in given[0].images.values() if x is not None]
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            pvzoo.Model(recipe.spec(classes))(*images)
        flops = 3 * size * counter.get_total_flops() / seconds  # backward takes twice what forward does
        speed = f"{size * len(images) / seconds:.0f} images a second"
        print(f"{recipe_name} of {name}, batch {size}: {speed}, {flops:.3g} FLOP/s, {flops / peak:.1%} of the peak")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs that count")
    parser.add_argument("--only", choices=("cached", "step"), help="one of them")
    parser.add_argument("--gpu", action="store_true", help="images a second on the GPU instead")
    parser.add_argument("--peak", type=float, default=989e12, help="the GPU's peak in bfloat16, FLOP/s")
    args = parser.parse_args()
    if args.gpu:
        gpu(args.peak)
        return
    if args.only != "step":
        with tempfile.TemporaryDirectory() as folder:
            cached(Path(folder), args.rounds)
    if args.only != "cached":
        step(args.rounds)


if __name__ == "__main__":
    main()
