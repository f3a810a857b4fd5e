"""What a training leaves to read: a row of metrics an epoch, and their curves."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from ..tensorfile import replacing

COLUMNS = ("epoch", "loss", "dev_eer", "dev_tar", "lr", "seconds")
METRICS, CURVES = "metrics.csv", "curves.png"


class Journal(Callback):
    """Writes ``metrics.csv`` after every epoch, and ``curves.png`` where matplotlib is installed.

    A resumed run keeps the rows of the epochs before the one that it goes on from.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[dict[str, Any]] = []
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        file = self._folder / METRICS
        if trainer.current_epoch and file.is_file():
            with file.open(newline="", encoding="utf-8") as lines:
                self._rows = [row for row in csv.DictReader(lines) if int(row["epoch"]) <= trainer.current_epoch]

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        values = {
            name: float(trainer.callback_metrics[name]) for name in COLUMNS[1:4] if name in trainer.callback_metrics
        }
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        seconds = f"{time.perf_counter() - self._started:.2f}"
        self._rows.append({"epoch": trainer.current_epoch + 1, **values, "lr": rate, "seconds": seconds})
        if trainer.is_global_zero:
            with replacing(self._folder / METRICS) as file, file.open("w", newline="", encoding="utf-8") as lines:
                writer = csv.DictWriter(lines, COLUMNS, restval="", lineterminator="\n")
                writer.writeheader()
                writer.writerows(self._rows)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero:
            draw_curves(self._folder)


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
