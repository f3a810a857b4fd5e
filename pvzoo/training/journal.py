"""What a training shows while it runs, and leaves to read: a row of metrics an epoch, and their curves."""

from __future__ import annotations

import csv
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ..tensorfile import replacing
from .lightning import Callback, LightningModule, Trainer

COLUMNS = ("epoch", "loss", "dev_eer", "dev_tar", "lr", "seconds", "samples_per_second")
MEASURED = COLUMNS[1:4]
METRICS, CURVES, TENSORBOARD = "metrics.csv", "curves.png", "tensorboard"


class _Clock(Callback):
    """Time and samples of the training steps of an epoch, validation left out."""

    def __init__(self) -> None:
        self._started = self._ended = 0.0
        self._samples = 0

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._started = self._ended = time.perf_counter()
        self._samples = 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, out: Any, batch: Any, number: int) -> None:
        self._ended = time.perf_counter()
        self._samples += trainer.world_size * len(batch.labels)

    @property
    def rate(self) -> float:
        """Samples a second, of all processes."""
        seconds = self._ended - self._started
        return self._samples / seconds if seconds else 0.0


class Journal(_Clock):
    """Writes ``metrics.csv`` after every epoch, ``curves.png`` where matplotlib is installed, and TensorBoard likewise.

    A resumed run keeps the rows of the epochs before the one that it goes on from.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._rows: list[dict[str, Any]] = []
        self._board: Any = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        file = self._folder / METRICS
        if trainer.current_epoch and file.is_file():
            with file.open(newline="", encoding="utf-8") as lines:
                self._rows = [row for row in csv.DictReader(lines) if int(row["epoch"]) <= trainer.current_epoch]
        if trainer.is_global_zero:
            self._board = _board(self._folder / TENSORBOARD, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        values = {name: float(trainer.callback_metrics[name]) for name in MEASURED if name in trainer.callback_metrics}
        values["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        epoch = trainer.current_epoch + 1
        seconds = f"{time.perf_counter() - self._started:.2f}"
        self._rows.append({"epoch": epoch, **values, "seconds": seconds, "samples_per_second": f"{self.rate:.1f}"})
        if trainer.is_global_zero:
            with replacing(self._folder / METRICS) as file, file.open("w", newline="", encoding="utf-8") as lines:
                writer = csv.DictWriter(lines, COLUMNS, restval="", lineterminator="\n")
                writer.writeheader()
                writer.writerows(self._rows)
        if self._board is not None:
            for name, value in (values | {"samples_per_second": self.rate}).items():
                self._board.add_scalar(name, value, epoch)
            self._board.flush()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero:
            draw_curves(self._folder)

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None


class Watch(_Clock):
    """Shows a training: one bar on a terminal, and a line an epoch elsewhere.

    Args:
        name: What is trained.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._progress: Progress | None = None
        self._console = Console(stderr=True)
        self._shown: dict[str, float] = {}
        self._begun = 0.0
        self._first = 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._begun, self._first = time.perf_counter(), trainer.current_epoch
        if not (trainer.is_global_zero and self._console.is_terminal):
            return
        columns = (TextColumn(self._name), BarColumn(), TextColumn("{task.fields[about]}"), TimeRemainingColumn())
        self._progress = Progress(*columns, console=self._console, transient=True)
        batches = int(trainer.num_training_batches)
        done = trainer.current_epoch * batches
        self._progress.add_task("", total=_epochs(trainer) * batches, completed=done, about="")
        self._progress.start()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, out: Any, batch: Any, number: int) -> None:
        super().on_train_batch_end(trainer, module, out, batch, number)
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], advance=1, about=self._about(trainer))

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        found = trainer.callback_metrics
        self._shown = {name: float(found[name]) for name in MEASURED if name in found}
        if self._progress is None and trainer.is_global_zero:
            done = trainer.current_epoch + 1 - self._first
            left = (time.perf_counter() - self._begun) / done * (_epochs(trainer) - trainer.current_epoch - 1)
            about = f"{self._name}: {self._about(trainer)}, {timedelta(seconds=round(left))} left"
            self._console.print(about, highlight=False, markup=False, soft_wrap=True)

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _about(self, trainer: Trainer) -> str:
        parts = [f"epoch {trainer.current_epoch + 1}/{_epochs(trainer)}"]
        if "loss" in self._shown:
            parts.append(f"loss {self._shown['loss']:.3f}")
        if "dev_eer" in self._shown:
            parts.append(f"dev EER {100 * self._shown['dev_eer']:.2f} %")
        return ", ".join([*parts, f"{self.rate:,.0f} samples/s"])


def _epochs(trainer: Trainer) -> int:
    assert trainer.max_epochs is not None
    return trainer.max_epochs


def _board(folder: Path, epoch: int) -> Any:
    """A writer of TensorBoard's files, where that is installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=epoch + 1)


def draw_curves(folder: Path) -> None:
    """Draws loss and dev EER by epoch; without matplotlib, nothing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    with (folder / METRICS).open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    epochs = [int(row["epoch"]) for row in rows]
    figure = Figure(figsize=(8, 3), layout="constrained")
    for axes, name, label, scale in zip(
        figure.subplots(1, 2), ("loss", "dev_eer"), ("loss", "EER of the dev identities, %"), (1, 100), strict=True
    ):
        axes.plot(epochs, [scale * float(row[name] or "nan") for row in rows], marker="." if len(rows) < 40 else "")
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    figure.savefig(folder / CURVES, dpi=110)
