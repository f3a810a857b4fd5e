"""What pvzoo takes of Lightning; where that is not installed, the error says which extra brings it."""

from __future__ import annotations

from ..extras import missing

try:
    from lightning import LightningDataModule as LightningDataModule
    from lightning import LightningModule as LightningModule
    from lightning import Trainer as Trainer
    from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO as CheckpointIO
    from lightning.fabric.utilities.exceptions import MisconfigurationException as MisconfigurationException
    from lightning.pytorch.callbacks import Callback as Callback
    from lightning.pytorch.callbacks import EarlyStopping as EarlyStopping
    from lightning.pytorch.callbacks import EMAWeightAveraging as EMAWeightAveraging
    from lightning.pytorch.callbacks import ModelCheckpoint as ModelCheckpoint
except ImportError as error:
    raise missing("Lightning", "train", error) from error
