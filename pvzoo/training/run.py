"""Runs recipes: a folder a run, in which nothing is lost and from which an interrupted run goes on."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint
from torch.utils.data import DataLoader

from .. import __version__, weights
from ..data.augment import Augmentation, GrowingAugmentation
from ..data.loading import Batch
from ..data.module import PairDataModule
from ..data.protocols import open_protocol
from ..data.sampling import Balanced, InOrder, Sampler, Shuffled
from ..data.sources import Images, open_images
from ..data.split import Split
from ..manifest import WEIGHTS
from ..model import Model
from ..progress import track
from ..specs import ModelSpec, Source, load_spec
from .checkpoint import SafeCheckpointIO
from .features import FeatureBatch, FeatureDataset, cache_features, whole
from .folder import RunError, claimed, is_first, write
from .jobs import train_branches
from .journal import Journal, Watch
from .module import TrainingError, TrainingModule
from .recipe import Recipe, load_recipe
from .starts import Start, find_start, find_starts

RECIPE, RUN, MODEL, CHECKPOINTS = "recipe.yaml", "run.json", "model", "checkpoints"
_GONE = re.compile(r"gloo|NCCL|Connection (closed|reset) by peer|DDP expects same model across all ranks")


@dataclass(frozen=True)
class Machine:
    """Where a training runs: Lightning's words.

    Attributes:
        accelerator: ``auto``, ``cpu``, ``cuda``, ``mps``.
        devices: How many of a machine.
        num_nodes: Machines.
        strategy: ``auto``, ``ddp``, ...
        progress: Whether to show progress bars.
        features: Folder of cached features, which several runs may share; one in the run's folder by default.
        jobs: Branches of stage 1 that are trained side by side, each in a process of its own on one device.
    """

    accelerator: str = "auto"
    devices: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"
    progress: bool = True
    features: str | None = None
    jobs: int = 1


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    out: str | os.PathLike[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    machine: Machine | None = None,
) -> Path:
    """Trains as a recipe says.

    Args:
        recipe: A name of :func:`~pvzoo.training.recipe.list_recipes`, a file, a mapping, or a recipe.
        out: Folder of the run. It gets the resolved recipe, checkpoints, metrics, curves, and ``model``.
        overrides: Fields of the recipe by dotted path.
        resume: Go on with the run that is in the folder.
        machine: Where to run; this process by default.

    Returns:
        The folder of the model that was chosen by the dev identities, as ``model.save`` writes it; after stage 1 of
        several branches, the run's folder, which holds ``<modality>_<branch>/model``.

    Raises:
        SpecError: The recipe or the model's spec is wrong.
        DataError: The data cannot be used as the recipe says.
        RunError: The folder holds another run, or one that is being written.
        JobError: Branches that were trained side by side failed.
        TrainingError: The training cannot go on.
    """
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    folder = Path(out).expanduser()
    machine = machine or Machine()
    if machine.jobs > 1 and (machine.devices != 1 or machine.num_nodes > 1):
        raise RunError("jobs train on one device each; leave out either jobs, or devices and num_nodes")
    find_starts(resolved)  # what is not there should not be found out after hours
    with claimed(folder, RECIPE, resolved.to_dict(), resume):
        return _run(resolved, folder, (), machine)


def _run(recipe: Recipe, out: Path, init: Sequence[str], machine: Machine) -> Path:
    """A recipe with all its steps; each starts from what the one before it trained."""
    if recipe.steps:
        before = init
        made: list[Path] = []
        for name, step in recipe.steps.items():
            made = _trained(step, out / name, before, machine)
            before = [str(path) for path in made]
        return _published(made[0], out / MODEL)
    made = _trained(recipe, out, init, machine)
    return made[0] if len(made) == 1 else out


def _trained(recipe: Recipe, out: Path, init: Sequence[str], machine: Machine) -> list[Path]:
    """One step: the model, or in stage 1 a model for each branch."""
    images = open_images(recipe.data)
    split = open_protocol(recipe.data.protocol, recipe.data.protocol_params).split(images.table)
    spec = recipe.spec(len(split.classes))
    init = recipe.init or init
    if recipe.stage == 2:
        return [fit(recipe, spec, split, images, out, init, machine)]
    specs = branch_specs(spec)
    if machine.jobs > 1:
        left = [name for name in specs if not (out / name / MODEL / WEIGHTS).is_file()]
        train_branches(recipe, left, out, init, machine, machine.jobs)
    return [fit(recipe, alone, split, images, out / name, init, machine) for name, alone in specs.items()]


def train_branch(recipe: Recipe, name: str, out: Path, init: Sequence[str], machine: Machine) -> None:
    """Trains one branch of stage 1, in a run folder that is claimed."""
    images = open_images(recipe.data)
    split = open_protocol(recipe.data.protocol, recipe.data.protocol_params).split(images.table)
    spec = branch_specs(recipe.spec(len(split.classes)))[name]
    fit(recipe, spec, split, images, out / name, init, machine)


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
    for label, spec in (branch_specs(whole) if recipe.stage == 1 else {"": whole}).items():
        model = Model(spec)
        data = _data(plain, model, split, images, out)
        batches = data.train_dataloader()
        module = TrainingModule(model, plain, split.dev)
        label = "_".join(filter(None, (name, label))) or "model"
        picture = out / f"{label}.png"
        out.mkdir(parents=True, exist_ok=True)
        _picture(next(iter(batches)), picture)
        with _explained():
            timer = _Timer()
            quiet = replace(machine, progress=False, devices=1, num_nodes=1)
            few = {"limit_train_batches": 3, "limit_val_batches": 0, "max_epochs": 1, "enable_checkpointing": False}
            trainer = _trainer(plain, quiet, out, [timer], strategy="auto", **few)
            trainer.fit(module, datamodule=data)
        facts, steps = _facts(recipe, split, images, module), recipe.epochs * int(recipe.epoch_share * len(batches))
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
    """Seconds of a step, without the first, which warms up."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self._ends.append(time.perf_counter())

    def step(self) -> float:
        return (self._ends[-1] - self._ends[0]) / max(1, len(self._ends) - 1)


def _picture(batch: Batch, file: Path) -> None:
    """The images of a batch: one row a modality, each image stretched to its own darkest and lightest."""
    from torchvision.utils import save_image

    rows = [image for image in batch.images.values() if image is not None]
    save_image(torch.cat([row[:12] for row in rows]), file, nrow=min(12, len(rows[0])), normalize=True, scale_each=True)


def branch_specs(spec: ModelSpec) -> dict[str, ModelSpec]:
    """What stage 1 trains: each branch of each modality alone, by ``modality_branch``.

    The tensors of such a model have the names that they have in the whole one. A branch that the modalities share is
    trained on all of them at once, as a sum.
    """
    plain = spec.model_dump(mode="json", include={"preprocessing", "embedding", "head", "num_classes"})
    found = {}
    owners = [spec.modalities] if spec.share_branches else [(modality,) for modality in spec.modalities]
    for modalities in owners:
        for name, branch in spec.branches.items():
            backbone = {modality: branch.backbone[modality].model_dump(mode="json") for modality in modalities}
            data: dict[str, Any] = {
                **plain,
                "modalities": list(modalities),
                "branches": {name: {"backbone": backbone, "features": "vector"}},
            }
            if len(modalities) > 1:
                data |= {"share_branches": True, "fusion": {name: "sum"}}
            found[f"{'_'.join(modalities)}_{name}"] = load_spec(Source("stage 1", data))
    return found


def fit(
    recipe: Recipe, spec: ModelSpec, split: Split, images: Images, out: Path, init: Sequence[str], machine: Machine
) -> Path:
    """Trains one model; a run that has ended gives its result.

    Args:
        recipe: How.
        spec: What.
        split: Who trains, and who chooses.
        images: Where the pixels of the split come from.
        out: Folder of the run, which the caller has claimed.
        init: What to start from, by name or path; see :func:`~pvzoo.training.starts.find_start`.
        machine: Where.

    Returns:
        The folder of the saved model.
    """
    if (out / MODEL / WEIGHTS).is_file():
        return out / MODEL
    torch.manual_seed(recipe.seed)
    starts = [find_start(name) for name in init]
    model = _started(spec, starts)
    model.check_inputs = False  # the loader made them
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    data = _data(recipe, model, split, images, Path(machine.features or out / "features"))
    module = TrainingModule(model, recipe, split.dev)
    best = ModelCheckpoint(out / CHECKPOINTS, "best", "dev_eer", enable_version_counter=False)
    every = ModelCheckpoint(out / CHECKPOINTS, "last", enable_version_counter=False)
    best.FILE_EXTENSION = every.FILE_EXTENSION = ".safetensors"
    callbacks: list[Callback] = [Journal(out), best, every]
    if machine.progress:
        callbacks.append(Watch(out.name))
    if recipe.ema is not None:
        callbacks.append(EMAWeightAveraging(decay=recipe.ema))
    if recipe.patience is not None:
        callbacks.append(EarlyStopping("dev_eer", patience=recipe.patience))
    if is_first():
        out.mkdir(parents=True, exist_ok=True)
        facts = _facts(recipe, split, images, module) | {"init": [start.facts() for start in starts]}
        write(out / RUN, json.dumps(facts, indent=2))
    last = out / CHECKPOINTS / "last.safetensors"
    if recipe.compile:
        for backbone in {model.branch(branch, m) for branch in spec.branches for m in spec.modalities}:
            backbone.compile()
    with _explained():
        trainer = _trainer(recipe, machine, out, callbacks, strategy=_strategy(recipe, split, spec, machine))
        try:
            trainer.fit(module, datamodule=data, ckpt_path=last if last.is_file() else None)
        except BaseException:
            if trainer.strategy.launcher is not None:
                # Processes that wait for this one, in C++, where Python's handler of SIGTERM never runs.
                trainer.strategy.launcher.kill(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
            raise
    if trainer.is_global_zero:
        chosen = SafeCheckpointIO().load_checkpoint(best.best_model_path)["state_dict"]
        model.load_state_dict({name.removeprefix("model."): value for name, value in chosen.items()})
        model.eval().save(out / MODEL)
    trainer.strategy.barrier()
    return out / MODEL


def _strategy(recipe: Recipe, split: Split, spec: ModelSpec, machine: Machine) -> str:
    """Lightning's word. Processes wait for the gradient of each parameter; do some have none in some steps?"""
    late = any(group.from_epoch for group in recipe.plan)
    missing = any(len(pair.records) < len(spec.modalities) for pair in split.train)
    several = machine.num_nodes > 1 or machine.devices != 1
    if several and machine.strategy in ("auto", "ddp") and (late or missing or recipe.modality_dropout):
        return "ddp_find_unused_parameters_true"
    return machine.strategy


def _trainer(recipe: Recipe, machine: Machine, out: Path, callbacks: list[Callback], **more: Any) -> Trainer:
    settings: dict[str, Any] = {
        "accelerator": machine.accelerator,
        "devices": machine.devices,
        "num_nodes": machine.num_nodes,
        "precision": _precision(recipe, machine),
        "max_epochs": recipe.epochs,
        "limit_train_batches": recipe.epoch_share,
        "sync_batchnorm": recipe.sync_batchnorm,
        "gradient_clip_val": recipe.optimiser.clip_norm,
        "accumulate_grad_batches": recipe.batch.accumulate,
        "callbacks": callbacks,
        "plugins": [SafeCheckpointIO()],
        "logger": False,
        "default_root_dir": out,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
    }
    return Trainer(**settings | more)


_PARTS = {"modalities", "share_branches", "fusion", "embedding"}


def _started(spec: ModelSpec, starts: Sequence[Start]) -> Model:
    """A new model; or one that goes on from a saved one of the same parts, whatever its head; or with its branches."""
    if len(starts) == 1:
        header = starts[0].header
        saved = load_spec(Source(str(header.path), header.about.spec)) if header.about.spec else None
        if saved is not None and _parts(saved) == _parts(spec):
            return weights.load_model(spec, header, Model)
    model = Model(spec)
    if starts:
        model.set_load_report(weights.load_branches(model, [(start.name, start.header) for start in starts]))
    return model


def _parts(spec: ModelSpec) -> tuple[Any, ...]:
    return spec.model_dump(include=_PARTS), spec.written_out()


def _data(recipe: Recipe, model: Model, split: Split, images: Images, features: Path) -> LightningDataModule:
    size, samples = recipe.batch.size, recipe.batch.samples
    data = PairDataModule(
        split,
        model.spec,
        reader=images.reader,
        batch_size=size,
        balanced=(size // samples, samples) if samples else None,
        augment=_augmentation(recipe),
        seed=0 if recipe.cache_features else recipe.seed,  # cached views serve trainings with other seeds as well
        workers=recipe.batch.workers,
    )
    if not recipe.cache_features:
        return data
    assert data.train_set is not None
    workers = recipe.batch.workers
    cached = partial(
        cache_features, model, parent=features, pixels=pixels(recipe, images), workers=workers, track=track
    )
    train, dev = cached(data.train_set, views=recipe.cache_features), cached(data.dev_set, views=1)
    return FeatureDataModule(train, dev, recipe)


def pixels(recipe: Recipe, images: Images) -> dict[str, Any]:
    """What the pixels that a model sees depend on, for :func:`~pvzoo.training.features.cache_features`."""
    return {"files": images.digest, "augmentation": recipe.augmentation.model_dump(mode="json")}


def _augmentation(recipe: Recipe) -> Augmentation | GrowingAugmentation:
    if not recipe.schedule.augmentation.end:
        return Augmentation.of(recipe.augmentation)
    return GrowingAugmentation(recipe.augmentation, partial(recipe.schedule.augmentation.at, epochs=recipe.epochs))


class FeatureDataModule(LightningDataModule):
    """Batches of cached features.

    Args:
        train: Of the training samples.
        dev: Of the dev samples.
        recipe: Says how batches are made.
    """

    def __init__(self, train: FeatureDataset, dev: FeatureDataset, recipe: Recipe) -> None:
        super().__init__()
        self._train, self._dev, self._recipe = train, dev, recipe

    def train_dataloader(self) -> DataLoader[FeatureBatch]:
        size, samples, seed = self._recipe.batch.size, self._recipe.batch.samples, self._recipe.seed
        sampler: Sampler
        if samples is None:
            sampler = Shuffled(len(self._train), size, seed=seed, **self._ranks())
        else:
            sampler = Balanced(self._train.labels, size // samples, samples, seed=seed, **self._ranks())
        return self._loader(self._train, sampler)

    def val_dataloader(self) -> DataLoader[FeatureBatch]:
        return self._loader(self._dev, InOrder(len(self._dev), self._recipe.batch.size, **self._ranks()))

    def _ranks(self) -> dict[str, int]:
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size} if self.trainer else {}

    @staticmethod
    def _loader(dataset: FeatureDataset, sampler: Sampler) -> DataLoader[FeatureBatch]:
        return DataLoader(dataset, sampler.batch_size, sampler=sampler, collate_fn=whole)  # type: ignore[arg-type]


def _precision(recipe: Recipe, machine: Machine) -> str:
    """Lightning's word; ``auto`` is bfloat16 where the hardware multiplies it fast, and else float32."""
    named = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    if recipe.precision != "auto":
        return named[recipe.precision]
    if machine.accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        return named["bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"]
    on_cpu = machine.accelerator in ("auto", "cpu") and not torch.backends.mps.is_available()
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return named["bf16" if on_cpu and fast else "fp32"]


def _facts(recipe: Recipe, split: Split, images: Images, module: TrainingModule) -> dict[str, Any]:
    """What a reader needs to know of a run, beside the recipe."""
    trained = [
        {
            "parts": list(group.parts),
            "lr": group.lr or recipe.optimiser.lr,
            "parameters": sum(p.numel() for p in m.values()),
        }
        for group, m in zip(module.plan.groups, module.plan.members, strict=True)
    ]
    return {
        "model": module.model.spec.to_dict(),
        "protocol": split.protocol,
        "notes": list(split.notes),
        "parts": split.counts(),
        "excluded": len(split.excluded),
        "data": {"source": recipe.data.source, "digest": images.digest},
        "trained": trained,
        "frozen_parameters": sum(module.model.get_parameter(name).numel() for name in module.plan.frozen),
        "started_from": str(module.model.load_report) if module.model.load_report else None,
        "seed": recipe.seed,
        "versions": {"pvzoo": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "git": _git_revision(),
    }


def _git_revision() -> str | None:
    """Of the working folder, where there is one."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


@contextmanager
def _explained() -> Iterator[None]:
    """Lightning without its remarks and advertisements; errors of torch in words that say what to do."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", "Grad strides do not match")  # of 1x1 convolutions: the same layout
            yield
    except RuntimeError as error:
        if torch.distributed.is_initialized() and _GONE.search(str(error)):
            message = "another process of this training ended, and says why"
            raise TrainingError(f"{message}; mend that, and resume from the last checkpoint") from error
        if "DataLoader worker" not in str(error):
            raise
        message = f"a process that loads images ended: {str(error).splitlines()[0]}; it may lack memory"
        raise TrainingError(f"{message}: lower batch.workers, and resume from the last checkpoint") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _published(model: Path, place: Path) -> Path:
    """Copies the last step's model to where it is looked for."""
    if not (place / WEIGHTS).is_file() and is_first():
        partial = place.with_name(f".{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(model, partial)
        partial.replace(place)
    return place
