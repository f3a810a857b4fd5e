"""What a training would be, before it runs: a few steps are measured on throw-away models."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..data.loading import Batch
from ..data.protocols import open_protocol
from ..data.sources import open_images
from .batches import data_module
from .lightning import Callback
from .machine import Machine, explained, trainer_of
from .module import TrainingModule
from .recipe import Recipe
from .run import branch_specs, facts_of, refuse_random, samples_for, started
from .starts import find_start


@dataclass(frozen=True)
class Preview:
    """What a training would be.

    Attributes:
        name: Of the step and branch.
        facts: As ``run.json`` will hold them.
        steps: Optimiser steps.
        seconds: A step's, measured with branch features that are not cached.
        memory: Bytes, at the peak of those steps: on the accelerator, or of this process on a CPU.
        picture: The first training batch.
    """

    name: str
    facts: dict[str, Any]
    steps: int
    seconds: float
    memory: int
    picture: Path


def preview(recipe: Recipe, out: Path, machine: Machine, name: str = "") -> Iterator[Preview]:
    """Measures a few steps of everything that a recipe would train, on throw-away models.

    Args:
        recipe: What would run.
        out: Folder for the pictures of first batches.
        machine: Where.
        name: Of the step.
    """
    for step, inner in recipe.steps.items():
        yield from preview(inner, out, machine, step)
    if recipe.steps:
        return
    images = open_images(recipe.data)
    split = open_protocol(recipe.data.protocol, recipe.data.protocol_params).split(images.table)
    whole = recipe.spec(len(split.classes))
    plain = recipe.model_copy(update={"cache_features": 0})
    starts = [find_start(init) for init in recipe.init]
    for label, spec in (branch_specs(whole) if recipe.stage == 1 else {"": whole}).items():
        model = started(spec, starts, any_size=recipe.stage == 1)
        part = samples_for(spec, split)
        data = data_module(plain, model, part, images, machine, out)
        batches = data.train_dataloader()
        module = TrainingModule(model, plain, part.dev)
        if not name:  # a later step starts from the one before
            refuse_random(module, starts)
        label = "_".join(filter(None, (name, label))) or "model"
        picture = out / f"{label}.png"
        out.mkdir(parents=True, exist_ok=True)
        _picture(next(iter(batches)), picture)
        with explained():
            timer = _Timer()
            quiet = replace(machine, progress=False, devices=1, num_nodes=1)
            few = {"limit_train_batches": 3, "limit_val_batches": 0, "max_epochs": 1, "enable_checkpointing": False}
            trainer = trainer_of(plain, quiet, out, [timer], strategy="auto", **few)
            trainer.fit(module, datamodule=data)
        facts, steps = facts_of(recipe, part, images, module), recipe.epochs * int(recipe.epoch_share * len(batches))
        yield Preview(label, facts, steps, timer.step(), _peak_memory(trainer.strategy.root_device), picture)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _Timer(Callback):
    """Seconds of a step, without the first, which warms up, unless it is the only one."""

    def __init__(self) -> None:
        self._begun = 0.0
        self._ends: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self._begun = self._begun or time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self._ends.append(time.perf_counter())

    def step(self) -> float:
        times = [self._begun, *self._ends] if len(self._ends) == 1 else self._ends
        return (times[-1] - times[0]) / (len(times) - 1)


def _picture(batch: Batch, file: Path) -> None:
    """The images of a batch: one row a modality, each image stretched to its own darkest and lightest."""
    from torchvision.utils import save_image

    rows = [image for image in batch.images.values() if image is not None]
    save_image(torch.cat([row[:12] for row in rows]), file, nrow=min(12, len(rows[0])), normalize=True, scale_each=True)
