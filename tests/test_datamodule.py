"""The data module under a real trainer: what a model gets, and that the test split is out of reach while it trains."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import pvzoo
from pvzoo import DataError
from pvzoo.data.augment import Augmentation, AugmentParams
from pvzoo.data.loading import Batch, SampleError
from pvzoo.data.module import PairDataModule
from pvzoo.data.protocols import open_protocol
from pvzoo.data.reading import SynthReader, synth_table
from pvzoo.data.sampling import Balanced, Shuffled
from pvzoo.data.split import Split
from pvzoo.data.table import Table
from pvzoo.extras import MissingExtraError
from pvzoo.synth import SynthConfig

SPEC = pvzoo.spec("stage2_spatial_nano").override(num_classes=6, **{"preprocessing.size": 64})


def split(table: Table, name: str = "open_subject", **params: Any) -> Split:
    return open_protocol(name, {"folds": 3, **params} if name == "open_subject" else params).split(table)


class Task(lightning.LightningModule):
    """Classification, and the embeddings of dev; notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.model = pvzoo.create(SPEC).train()
        self.train_batches: list[Batch] = []
        self.dev: list[int] = []

    def training_step(self, batch: Batch, number: int) -> Tensor:
        self.train_batches.append(batch)
        logits, _, _ = self.model(**batch.images, labels=batch.labels)
        return F.cross_entropy(logits, batch.labels)

    def validation_step(self, batch: Batch, number: int) -> None:
        assert self.model.embed(**batch.images).shape[0] == len(batch.positions)
        self.dev += batch.positions.tolist()

    def test_step(self, batch: Batch, number: int) -> None:
        self.validation_step(batch, number)

    def predict_step(self, batch: Batch, number: int) -> Tensor:
        return self.model.embed(**batch.images)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), lr=1e-3)


def trainer(folder: Path, **options: Any) -> lightning.Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "barebones": False}
    return lightning.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **quiet,
        **options,
    )


def test_a_trainer_fits_and_sees_other_batches_each_epoch(palms: Table, tmp_path: Path) -> None:
    made = split(palms)
    module = PairDataModule(
        made, SPEC, balanced=(3, 2), augment=Augmentation.of(AugmentParams()), seed=3, cache=5, workers=1
    )
    assert module.num_classes == len(made.classes) == 6
    task = Task()
    trainer(tmp_path, max_epochs=2, limit_train_batches=2).fit(task, module)
    sampler = Balanced(module.train_set.labels, 3, 2, seed=3)
    expected = [[draw.position for draw in sampler][: 2 * 6] for _ in range(2)]
    found = [position for batch in task.train_batches for position in batch.positions.tolist()]
    assert [found[:12], found[12:]] == expected
    assert task.dev == [*range(len(made.dev.samples))] * 2
    assert module.skipped == {}
    for batch in task.train_batches:
        identities = [made.classes.index(made.train[position].identity) for position in batch.positions]
        assert batch.labels.tolist() == identities
        assert batch.images["palm"].shape == (6, 1, 64, 64)


def test_the_test_split_cannot_be_read_while_training(palms: Table, tmp_path: Path) -> None:
    module = PairDataModule(split(palms), SPEC, batch_size=6)
    message = f"{module.split.protocol}: the test split cannot be read while training; "
    message = f"^{re.escape(message + 'make another module with purpose=')}'evaluation'$"
    for read in (
        module.test_dataloader,
        module.predict_dataloader,
        lambda: trainer(tmp_path).test(Task(), module),
        lambda: trainer(tmp_path).predict(Task(), module),
    ):
        with pytest.raises(DataError, match=message):
            read()


def test_a_module_for_evaluation_has_dev_and_test_and_trains_nobody(palms: Table, tmp_path: Path) -> None:
    made = split(palms)
    module = PairDataModule(made, SPEC, purpose="evaluation", batch_size=5, augment=Augmentation.of(AugmentParams()))
    task = Task()
    trainer(tmp_path).test(task, module, verbose=False)
    assert task.dev == [*range(len(made.test.samples))]
    batch = next(iter(module.val_dataloader()))
    assert torch.equal(
        batch.images["vein"],
        task.model.preprocess([made.root / pair.images["vein"].path for pair in made.dev.samples[:5]]),
    )
    assert batch.labels.min() >= len(made.classes)  # of no class: they did not train
    with pytest.raises(DataError, match="the training samples cannot be read while evaluating; make another module"):
        module.train_dataloader()


def test_bad_images_stop_the_trainer_or_are_listed(palms: Table, tmp_path: Path) -> None:
    shutil.copytree(palms.root, tmp_path / "copy")
    made = split(Table(palms.records, tmp_path / "copy"))
    bad = made.root / made.train[5].images["palm"].path
    bad.write_bytes(b"")
    reason = f"{bad}: the file is empty ({made.train[5]})"
    with pytest.raises(SampleError, match=f"^{re.escape(reason)}$"):
        trainer(tmp_path, max_epochs=1).fit(Task(), PairDataModule(made, SPEC, batch_size=8, workers=1))
    module = PairDataModule(made, SPEC, batch_size=8, on_error="skip")
    trainer(tmp_path, max_epochs=2).fit(Task(), module)
    assert module.skipped == {reason: 2}


def test_plain_batches_are_shuffled_and_need_no_files() -> None:
    config = SynthConfig(seed=3, subjects=6, sessions=2, samples=2, size=64)
    made = split(synth_table(config), "closed_s1_s2")
    module = PairDataModule(made, SPEC, reader=SynthReader(config), batch_size=10)
    loader = module.train_dataloader()
    assert isinstance(loader.sampler, Shuffled)
    assert sum(len(batch.labels) for batch in loader) == len(loader.sampler) == 10
    dev = [label for batch in module.val_dataloader() for label in batch.labels.tolist()]
    assert dev == [made.classes.index(pair.identity) for pair in made.dev.samples]  # in a closed set, all train


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balanced": (8, 2)}, "a batch of 8 identities cannot be made of 6"),
        ({"balanced": (3, 0)}, "a batch of 3 identities with 0 samples each is none"),
        ({"batch_size": 64}, "24 samples are too few for a batch of 64"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(palms: Table, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        PairDataModule(split(palms), SPEC, **options).train_dataloader()


def test_a_table_without_a_modality_of_the_model_is_refused(palms: Table) -> None:
    palm = Table([record for record in palms if record.modality == "palm"], palms.root)
    with pytest.raises(DataError, match=r"^the samples have no modality 'vein'; they have palm$"):
        PairDataModule(split(palm), SPEC)
    unimodal = pvzoo.spec("stage1_convnext_palm_nano").override(num_classes=6, **{"preprocessing.size": 64})
    batch = next(iter(PairDataModule(split(palm), unimodal, batch_size=4).train_dataloader()))
    assert list(batch.images) == ["palm"]


def test_without_lightning_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pvzoo.data.module")
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pvzoo\[train\]'"):
        importlib.import_module("pvzoo.data.module")


RANKS = """
import json, sys
from pathlib import Path
import lightning, torch
sys.path.insert(0, {tests!r})
from test_datamodule import PairDataModule, Table, Task, split, SPEC, trainer

class Noting(Task):
    def on_fit_end(self):
        positions = [batch.positions.tolist() for batch in self.train_batches]
        Path(f"rank{{self.global_rank}}.json").write_text(json.dumps([positions, self.dev]))

if __name__ == "__main__":
    module = PairDataModule(split(Table.read(Path({table!r}))), SPEC, batch_size=4)
    trainer(Path("."), devices=2, strategy="ddp_spawn_find_unused_parameters_true", max_epochs=2).fit(Noting(), module)
"""


@pytest.mark.slow
def test_on_two_ranks_no_sample_is_lost_or_doubled(palms: Table, tmp_path: Path, python: Callable[..., Any]) -> None:
    code = RANKS.format(tests=str(Path(__file__).parent), table=str(palms.root / "table.csv"))
    (tmp_path / "ranks.py").write_text(code)
    done = python("ranks.py", PYTHONPATH=str(Path(pvzoo.__file__).parents[1]))
    assert done.returncode == 0, done.stderr
    (first, dev), (second, other_dev) = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert len(first) == len(second) == 2 * 3
    for epoch in (slice(3), slice(3, 6)):
        assert sorted(position for batch in (*first[epoch], *second[epoch]) for position in batch) == list(range(24))
    assert first[:3] != first[3:]
    assert sorted([*dev, *other_dev]) == sorted([*range(len(split(palms).dev.samples))] * 2)
