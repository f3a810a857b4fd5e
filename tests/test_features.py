"""Cached features: those that the branches give, shared by what has them in common, and never stale."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import TINY, randomise
from torch.utils.data import DataLoader

import pvzoo
from pvzoo import DataError
from pvzoo.data.augment import Augmentation, AugmentParams
from pvzoo.data.loading import PairDataset
from pvzoo.data.reading import SynthReader, synth_table
from pvzoo.data.sampling import Draw
from pvzoo.synth import SynthConfig
from pvzoo.training.features import FeatureBatch, cache_features, whole

CONFIG = SynthConfig(seed=3, subjects=1, sessions=1, samples=3, size=64)
PAIRS = synth_table(CONFIG).pairs()
PIXELS = {"files": "seed 3"}


def model(**changes: Any) -> pvzoo.Model:
    made = pvzoo.create({**TINY, **changes})
    randomise(made)
    return made


def dataset(made: pvzoo.Model, *, seed: int = 0, augment: bool = True, pairs: Any = PAIRS) -> PairDataset:
    return PairDataset(
        pairs,
        made.spec.preprocessing,
        SynthReader(CONFIG),
        modalities=made.spec.modalities,
        augment=Augmentation.of(AugmentParams()) if augment else None,
        seed=seed,
    )


def folders(parent: Path) -> set[str]:
    return {path.name for path in parent.iterdir() if path.is_dir()}


def test_they_are_what_the_branches_give_in_every_view(tmp_path: Path) -> None:
    made = model().train()
    data = dataset(made)
    cached = cache_features(made, data, tmp_path, views=2, pixels=PIXELS, batch_size=4)
    assert made.training
    made.eval()
    for epoch in range(3):
        order = [Draw(position, epoch) for position in (4, 0, 5)]
        (batch,) = DataLoader(cached, batch_size=3, sampler=order, collate_fn=whole)  # type: ignore[arg-type]
        assert isinstance(batch, FeatureBatch)
        assert batch.positions.tolist() == [4, 0, 5] and batch.labels.tolist() == [data.labels[n] for n in (4, 0, 5)]
        items = [data[Draw(position, epoch % 2)] for position in (4, 0, 5)]
        with torch.inference_mode():
            images = {m: torch.stack([item.images[m] for item in items]) for m in made.spec.modalities}  # type: ignore[union-attr]
            expected = made.features(**images)
            logits = made(**images).logits
        for branch, by_modality in expected.items():
            for modality, values in by_modality.items():
                torch.testing.assert_close(batch.features[branch][modality], values, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(made.fuse(batch.features).logits, logits, rtol=1e-3, atol=1e-3)


def test_they_are_computed_in_the_type_of_the_training(tmp_path: Path) -> None:
    made = model().eval()
    data = dataset(made)
    items = [data[Draw(position)] for position in range(len(data))]
    images = {m: torch.stack([item.images[m] for item in items]) for m in made.spec.modalities}  # type: ignore[union-attr]
    cached = cache_features(made, data, tmp_path, views=1, pixels=PIXELS, dtype=torch.bfloat16)
    found = cached.__getitems__([Draw(position) for position in range(len(data))]).features["local"]["palm"]
    with torch.inference_mode():
        whole = made.features(**images)["local"]["palm"]
        with torch.autocast("cpu", torch.bfloat16):
            half = made.features(**images)["local"]["palm"]
    assert half is not None and whole is not None
    torch.testing.assert_close(found, half.float())
    assert not torch.equal(found, whole)


Change = Callable[[], tuple[pvzoo.Model, PairDataset, dict[str, Any]]]


def _weights() -> tuple[pvzoo.Model, PairDataset, dict[str, Any]]:
    made = model()
    with torch.no_grad():
        next(made.branch("local", "palm").parameters()).mul_(1.001)
    return made, dataset(made), {}


def _vein_alone() -> tuple[pvzoo.Model, PairDataset, dict[str, Any]]:
    made, both = model(modalities=["vein"], fusion={}), model()
    for branch in made.spec.branches:
        made.branch(branch, "vein").load_state_dict(both.branch(branch, "vein").state_dict())
    return made, dataset(made), {}


@pytest.mark.parametrize(
    ("change", "computed"),
    [
        (lambda: (model(), dataset(model()), {}), 0),
        (lambda: (model(fusion={"global": "sum", "local": "concat"}, num_classes=9), dataset(model()), {}), 0),
        (_vein_alone, 0),
        (_weights, 1),
        (lambda: (model(), dataset(model(), seed=1), {}), 4),
        (lambda: (model(), dataset(model(), augment=False), {}), 4),
        (lambda: (model(), dataset(model()), {"pixels": {"files": "seed 4"}}), 4),
        (lambda: (model(), dataset(model()), {"views": 2}), 4),
        (lambda: (model(), dataset(model()), {"dtype": torch.bfloat16}), 4),
        (lambda: (model(), dataset(model(), pairs=PAIRS[:5]), {}), 4),
    ],
    ids=["same", "another head", "vein alone", "weights", "seed", "augmentation", "files", "views", "type", "samples"],
)
def test_what_is_the_same_is_shared_and_what_differs_is_computed(tmp_path: Path, change: Change, computed: int) -> None:
    first = model()
    cache_features(first, dataset(first), tmp_path, views=1, pixels=PIXELS)
    before = folders(tmp_path)
    assert len(before) == 4
    made, data, more = change()
    cache_features(made, data, tmp_path, **{"views": 1, "pixels": PIXELS, **more})
    assert len(folders(tmp_path) - before) == computed


def test_a_missing_modality_is_zero_and_not_present(tmp_path: Path) -> None:
    made = model()
    pairs = [replace(pair, images={**pair.images, "vein": None}) if n == 1 else pair for n, pair in enumerate(PAIRS)]
    cached = cache_features(made, dataset(made, pairs=pairs), tmp_path, views=1, pixels=PIXELS)
    batch = cached.__getitems__([Draw(position) for position in range(3)])
    assert batch.present["vein"].tolist() == [True, False, True] and all(batch.present["palm"])
    for by_modality in batch.features.values():
        assert not by_modality["vein"][1].any() and by_modality["vein"][2].any() and by_modality["palm"][1].any()


def test_features_that_overflow_are_an_error_and_nothing_is_left(tmp_path: Path) -> None:
    made = model()
    with torch.no_grad():
        made.branch("local", "palm").get_parameter("net.stem.0.weight").mul_(1e6)
    cache_features(made, dataset(made), tmp_path / "whole", views=1, pixels=PIXELS)
    with pytest.raises(DataError, match=r"^branches\.palm\.local: features in float16 are not finite; set prec"):
        cache_features(made, dataset(made), tmp_path / "half", views=1, pixels=PIXELS, dtype=torch.float16)
    assert not folders(tmp_path / "half")


def test_a_folder_that_cannot_be_written_is_an_error_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="features cannot be cached: "):
        cache_features(model(), dataset(model()), tmp_path / "file" / "cache", views=1, pixels=PIXELS)
    broken = dataset(model())
    broken.reader = SynthReader(replace(CONFIG, samples=1))
    with pytest.raises(pvzoo.ImageError, match="not of this SynthPalm data set"):
        cache_features(model(), broken, tmp_path / "cache", views=1, pixels=PIXELS)
    assert not folders(tmp_path / "cache")
