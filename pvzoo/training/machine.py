"""Where a training runs: Lightning's trainer for a recipe, and its errors in words that say what to do."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.split import Split
from ..specs import ModelSpec
from .checkpoint import SafeCheckpointIO
from .lightning import Callback, MisconfigurationException, Trainer
from .module import TrainingError
from .recipe import Recipe

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


def trainer_of(recipe: Recipe, machine: Machine, out: Path, callbacks: list[Callback], **more: Any) -> Trainer:
    """The trainer for a recipe; ``more`` replaces its settings."""
    settings: dict[str, Any] = {
        "precision": precision_of(recipe, machine),
        "max_epochs": recipe.epochs,
        "limit_train_batches": recipe.epoch_share,
        "sync_batchnorm": recipe.sync_batchnorm,
        "gradient_clip_val": recipe.optimiser.clip_norm,
        "accumulate_grad_batches": recipe.batch.accumulate,
        "callbacks": callbacks,
        "plugins": [SafeCheckpointIO()],
        "default_root_dir": out,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
    }
    return _trainer(machine, settings | more)


def _trainer(machine: Machine, settings: Mapping[str, Any]) -> Trainer:
    """A trainer that shows nothing.

    Raises:
        TrainingError: If this machine has no such accelerator or devices, or the settings do not go together.
    """
    where = {name: getattr(machine, name) for name in ("accelerator", "devices", "num_nodes", "strategy")}
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    try:
        return Trainer(**{**where, **silent, **settings})
    except Exception as error:  # of half a dozen classes, that of a missing package among them
        asked = ", ".join(f"{name} {value}" for name, value in where.items())
        raise TrainingError(f"cannot train here with {asked}: {error}") from error


def strategy_of(recipe: Recipe, split: Split, spec: ModelSpec, machine: Machine) -> str:
    """Lightning's word. Processes wait for the gradient of each parameter; do some have none in some steps?"""
    late = any(group.from_epoch for group in recipe.plan)
    missing = any(len(pair.records) < len(spec.modalities) for pair in split.train)
    several = machine.num_nodes > 1 or machine.devices != 1
    if several and machine.strategy in ("auto", "ddp") and (late or missing or recipe.modality_dropout):
        return "ddp_find_unused_parameters_true"
    return machine.strategy


def precision_of(recipe: Recipe, machine: Machine) -> str:
    """Lightning's word; ``auto`` is bfloat16 where the hardware multiplies it fast, and else float32."""
    named = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    if recipe.precision != "auto":
        return named[recipe.precision]
    if machine.accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        return named["bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"]
    on_cpu = machine.accelerator in ("auto", "cpu") and not torch.backends.mps.is_available()
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return named["bf16" if on_cpu and fast else "fp32"]


def device_of(machine: Machine) -> torch.device:
    """Where this process computes, as Lightning will choose it.

    Raises:
        TrainingError: If this machine has no such device.
    """
    with explained():
        return _trainer(machine, {"enable_checkpointing": False}).strategy.root_device


def dtype_of(recipe: Recipe, machine: Machine) -> torch.dtype:
    """The type of autocast that :func:`precision_of` means."""
    precision = precision_of(recipe, machine)
    return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision, torch.float32)


@contextmanager
def explained() -> Iterator[None]:
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
    except MisconfigurationException as error:
        raise TrainingError(str(error)) from error
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
