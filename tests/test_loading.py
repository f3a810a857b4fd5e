"""From a table to batches: the bits of model.preprocess, pairs augmented as one, bad files named, in any process."""

from __future__ import annotations

import pickle
import re
import resource
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from pvzoo import DataError, ImageError
from pvzoo.data.augment import Augmentation, AugmentParams
from pvzoo.data.cache import MEGABYTE, CachedReader
from pvzoo.data.loading import Batch, Item, PairDataset, SampleError, Skipped, collate
from pvzoo.data.reading import FileReader, Reader, SynthReader, synth_table
from pvzoo.data.sampling import Balanced, Draw, Sampler, Shuffled
from pvzoo.data.table import PAIRINGS, Pair, Record, Table
from pvzoo.images import preprocess
from pvzoo.specs import Preprocessing
from pvzoo.synth import SynthConfig

HOW = Preprocessing(size=64)
STRONG = Augmentation.of(AugmentParams())
GEOMETRY = Augmentation(STRONG.geometric, v2.Identity())


def pair_of(folder: Path, pairing: Any = "simultaneous", **paths: str | None) -> Pair:
    images = {m: path and Record(path, m, "7", "left", 1, 1, "", pairing) for m, path in paths.items()}
    return Pair("7", "left", 1, 1, images)


def batches(dataset: PairDataset, sampler: Sampler, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=sampler.batch_size, sampler=sampler, collate_fn=collate, **options)


def same(a: Batch, b: Batch) -> bool:
    pairs = zip(a.images.values(), b.images.values(), strict=True)
    images = all(torch.equal(x, y) if x is not None and y is not None else x is y for x, y in pairs)
    rest = zip((a.labels, a.positions, *a.present.values()), (b.labels, b.positions, *b.present.values()), strict=True)
    return images and all(torch.equal(x, y) for x, y in rest) and a.skipped == b.skipped


# --- one sample -------------------------------------------------------------------------------------------------------


def draw_files(folder: Path) -> list[str]:
    """Images of every kind that files have."""
    random = np.random.default_rng(3)
    grey = random.integers(0, 256, (70, 50), np.uint8)
    colour = random.integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(grey).save(folder / "grey 8 bits é.png")
    Image.fromarray(random.integers(0, 65536, (64, 64), np.uint16)).save(folder / "grey16.png")
    Image.fromarray(random.random((40, 90), np.float32)).save(folder / "floats.TIF", format="TIFF")
    Image.fromarray(colour).save(folder / "colour.JPG", format="JPEG")
    Image.fromarray(colour).quantize(16).save(folder / "palette.png")
    cv2.imwrite(str(folder / "colour16.png"), random.integers(0, 65536, (64, 64, 3), np.uint16))
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(grey).save(folder / "on its side.jpg", exif=exif)
    Image.fromarray(grey).save(folder / "grey.bmp")
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "how",
    [HOW, Preprocessing(size=(48, 80), channels=3, mean=(0.2, 0.4, 0.6), std=(0.3,), interpolation="bilinear")],
    ids=["grey", "colour"],
)
def test_images_are_bit_equal_to_preprocess(tmp_path: Path, how: Preprocessing) -> None:
    names = draw_files(tmp_path)
    pairs = [replace(pair_of(tmp_path, palm=name, vein=names[0]), sample=n) for n, name in enumerate(names)]
    for reader in (FileReader(tmp_path), CachedReader(FileReader(tmp_path), pairs, 1)):
        dataset = PairDataset(pairs, how, reader)
        for _ in range(2):  # the second time, from the cache
            for position, name in enumerate(names):
                images = dataset[position].images
                assert torch.equal(images["palm"], preprocess(tmp_path / name, how)[0]), name
                assert torch.equal(images["vein"], preprocess(tmp_path / names[0], how)[0])


@pytest.mark.parametrize("pairing", [pairing for pairing in PAIRINGS if pairing])
def test_palm_and_vein_move_as_one_where_they_were_taken_at_once(palms: Table, pairing: str) -> None:
    path = palms.records[0].path
    twins = [pair_of(palms.root, pairing, palm=path, vein=path)]
    images = PairDataset(twins, HOW, FileReader(palms.root), augment=GEOMETRY)[0].images
    still = preprocess(palms.root / path, HOW)[0]
    assert not torch.equal(images["palm"], still)
    assert torch.equal(images["palm"], images["vein"]) == (pairing == "simultaneous")
    lit = PairDataset(twins, HOW, FileReader(palms.root), augment=STRONG)[0].images
    assert not torch.equal(lit["palm"], lit["vein"])


def test_augmentation_depends_on_seed_sample_epoch_and_turn(palms: Table) -> None:
    def palm(draw: int | Draw, seed: int = 0) -> Tensor:
        dataset = PairDataset([palms.pairs()[0]] * 2, HOW, FileReader(palms.root), augment=GEOMETRY, seed=seed)
        return dataset[draw].images["palm"]

    first = palm(0)
    assert torch.equal(first, palm(Draw(0, 0, 0)))
    others = [palm(1), palm(Draw(0, 1)), palm(Draw(0, 0, 1)), palm(0, seed=1)]
    assert not any(torch.equal(a, b) for n, a in enumerate([first, *others]) for b in others[n:])


def test_labels_are_places_in_the_classes_and_strangers_follow(palms: Table) -> None:
    dataset = PairDataset(palms.pairs(), HOW, FileReader(palms.root), classes=("5/left", "2/right"))
    found = {pair.identity: label for pair, label in zip(palms.pairs(), dataset.labels, strict=True)}
    assert (found["5/left"], found["2/right"], found["1/left"], found["6/right"]) == (0, 1, 2, 11)
    assert sorted(found.values()) == list(range(12))
    item = dataset[0]
    assert (item.label, item.position) == (2, 0)


@pytest.mark.parametrize(
    ("pairs", "modalities", "message"),
    [
        ([], None, "there are no samples to load"),
        (["both"], ("palm", "vien"), "the samples have no modality 'vien'; did you mean 'vein'?"),
        (["both"], ("ear",), "the samples have no modality 'ear'; they have palm and vein"),
        (
            ["both", "palm"],
            ("vein",),
            "1 of 2 samples have no vein image, the first identity 7/left, session 1, sample 1",
        ),
    ],
)
def test_samples_that_do_not_fit_are_refused(
    tmp_path: Path, pairs: list[str], modalities: tuple[str, ...] | None, message: str
) -> None:
    known = {"both": pair_of(tmp_path, palm="a", vein="b"), "palm": pair_of(tmp_path, palm="c", vein=None)}
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        PairDataset([known[name] for name in pairs], HOW, FileReader(tmp_path), modalities=modalities)


def test_a_model_of_one_modality_reads_one_file(palms: Table, tmp_path: Path) -> None:
    shutil.copytree(palms.root / "vein", tmp_path / "vein")
    dataset = PairDataset(palms.pairs(), HOW, FileReader(tmp_path), modalities=["vein"])
    batch = collate([dataset[0], dataset[1]])
    assert list(batch.images) == ["vein"]
    assert batch.images["vein"].shape == (2, 1, 64, 64)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_a_missing_modality_is_zeros_and_marked_and_none_where_all_lack_it(palms: Table) -> None:
    whole = palms.pairs()[:4]
    lacking = [replace(pair, images={**pair.images, "vein": None}) for pair in whole]
    dataset = PairDataset([*whole, *lacking], HOW, FileReader(palms.root), augment=STRONG)
    batch = collate([dataset[0], dataset[5], dataset[2]])
    assert batch.present["palm"].tolist() == [True, True, True]
    assert batch.present["vein"].tolist() == [True, False, True]
    assert batch.images["vein"].shape == (3, 1, 64, 64)
    assert batch.images["vein"][1].abs().sum() == 0
    assert torch.equal(batch.images["vein"][2], dataset[2].images["vein"])
    assert (batch.positions.tolist(), batch.labels.dtype) == ([0, 5, 2], torch.int64)
    palm_only = collate([dataset[4], dataset[5]])
    assert palm_only.images["vein"] is None
    assert palm_only.present["vein"].tolist() == [False, False]


def spoil(palms: Table, folder: Path, number: int) -> tuple[Table, str]:
    """A copy in which one vein image was cut off; and what is said of it."""
    shutil.copytree(palms.root, folder)
    table = Table(palms.records, folder)
    pair = table.pairs()[number]
    file = table.file(pair.images["vein"])
    file.write_bytes(file.read_bytes()[:500])
    return table, f"{file}: cannot be decoded: the file is truncated ({pair})"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_in_the_middle_of_an_epoch_stops_it_and_is_named(
    palms: Table, tmp_path: Path, workers: int
) -> None:
    table, message = spoil(palms, tmp_path / "copy", 21)
    dataset = PairDataset(table.pairs(), HOW, FileReader(table.root))
    seen = []
    with pytest.raises(SampleError) as caught:
        for batch in DataLoader(dataset, batch_size=4, collate_fn=collate, num_workers=workers):
            seen += batch.positions.tolist()
    assert str(caught.value) == message  # and no traceback of the worker
    assert isinstance(caught.value, ImageError)
    assert seen == list(range(20))


def test_a_batch_without_a_single_sample_stops_even_where_bad_ones_are_skipped(tmp_path: Path) -> None:
    dataset = PairDataset([pair_of(tmp_path, palm="a.png")] * 3, HOW, FileReader(tmp_path), on_error="skip")
    assert isinstance(dataset[0], Skipped)
    message = f"none of the 3 samples of a batch can be read; the first: {tmp_path / 'a.png'}: no such file ("
    with pytest.raises(SampleError, match=f"^{re.escape(message)}"):
        next(iter(DataLoader(dataset, batch_size=3, collate_fn=collate)))


def test_pixels_that_do_not_fit_are_named_too(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 2, np.float32)).save(tmp_path / "bright.tif")
    dataset = PairDataset([pair_of(tmp_path, palm="bright.tif")], HOW, FileReader(tmp_path))
    message = "bright.tif: float pixels must lie in [0, 1], and these run from 2 to 2 (identity 7/left, session 1"
    with pytest.raises(SampleError, match=f"^{re.escape(message)}"):
        dataset[0]


# --- any number of processes ------------------------------------------------------------------------------------------


def epochs(table: Table, workers: int, start: str | None) -> tuple[list[Batch], CachedReader]:
    """Two balanced epochs, augmented, one bad file skipped, through a cache."""
    reader = CachedReader(FileReader(table.root), table.pairs(), 1)
    dataset = PairDataset(table.pairs(), HOW, reader, augment=STRONG, seed=4, on_error="skip")
    sampler = Balanced(dataset.labels, 4, 5, seed=4)
    options = {"num_workers": workers, "multiprocessing_context": start, "persistent_workers": workers > 0}
    loader = batches(dataset, sampler, **options)
    return [batch for _ in range(2) for batch in loader], reader


@pytest.mark.slow
def test_workers_change_no_bit(palms: Table, tmp_path: Path, two_threads: None) -> None:
    table, message = spoil(palms, tmp_path / "copy", 21)
    alone, reader = epochs(table, 0, None)
    skipped = [sample for batch in alone for sample in batch.skipped]
    assert skipped
    assert set(skipped) == {Skipped(21, message)}
    assert sum(len(batch.labels) for batch in alone) + len(skipped) == 2 * 60
    assert reader.images == 2 * 48 - 2
    for start in ("fork", "spawn"):
        found, shared = epochs(table, 2, start)
        assert len(found) == len(alone)
        assert all(map(same, found, alone)), start
        assert (shared.images, shared.used) == (reader.images, reader.used)  # what the workers kept is seen here


@pytest.fixture
def two_threads() -> Iterator[None]:
    """The main process computes on two threads, and a worker on one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# --- the cache --------------------------------------------------------------------------------------------------------


def big(folder: Path, count: int) -> list[Pair]:
    """Samples whose images take 262 kB each, so that three fit into a megabyte."""
    random = np.random.default_rng(1)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (512, 512), np.uint8)).save(folder / f"{number}.png", compress_level=0)
    return [replace(pair_of(folder, palm=f"{n}.png"), sample=n) for n in range(count)]


def test_the_cache_keeps_to_its_bound_and_what_came_first(tmp_path: Path) -> None:
    pairs = big(tmp_path, 6)
    plain = [FileReader(tmp_path).read(pair)["palm"] for pair in pairs]
    reader = CachedReader(FileReader(tmp_path), pairs, 1)
    loader = DataLoader(PairDataset(pairs, HOW, reader), batch_size=2, collate_fn=collate, num_workers=2)
    for _ in range(2):
        assert sum(len(batch.labels) for batch in loader) == 6
    assert reader.images == 3
    assert 3 * 512**2 < reader.used <= reader.size == MEGABYTE
    kept = [reader._get(f"{n}.png") for n in range(6)]
    for pixels, expected, pair in zip(kept, plain, pairs, strict=True):
        assert pixels is None or np.array_equal(pixels, expected)
        assert np.array_equal(reader.read(pair)["palm"], expected)
    for file in tmp_path.iterdir():
        file.unlink()
    for pixels, pair in zip(kept, pairs, strict=True):
        if pixels is None:
            with pytest.raises(ImageError, match="no such file"):
                reader.read(pair)
        else:
            assert np.array_equal(reader.read(pair)["palm"], pixels)
            with pytest.raises(ValueError, match="read-only"):
                reader.read(pair)["palm"][0, 0] = 1


def test_samples_that_the_cache_does_not_know_are_read_each_time(tmp_path: Path) -> None:
    pairs = big(tmp_path, 2)
    reader = CachedReader(FileReader(tmp_path), pairs[:1], 1)
    for pair in (*pairs, *pairs):
        assert np.array_equal(reader.read(pair)["palm"], FileReader(tmp_path).read(pair)["palm"])
    assert reader.images == 1


def test_the_cache_leaves_no_file_and_a_full_disk_is_an_error_at_once(tmp_path: Path) -> None:
    pairs = [pair_of(tmp_path, palm="a.png")]
    reader = CachedReader(FileReader(tmp_path), pairs, 2, tmp_path)
    assert reader.size == 2 * MEGABYTE
    assert list(tmp_path.iterdir()) == []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEGABYTE, hard))
    try:
        message = (
            f"no room for a cache of 2 MB in {tmp_path}: File too large; make it smaller, or choose another folder"
        )
        with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
            CachedReader(FileReader(tmp_path), pairs, 2, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with pytest.raises(DataError, match=r"in .*nowhere: No such file or directory; make it"):
        CachedReader(FileReader(tmp_path), pairs, 2, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"^a cache of 0 MB is too small: 1 MB are needed to list 1 images alone$"):
        CachedReader(FileReader(tmp_path), pairs, 0)


# --- drawn on the fly -------------------------------------------------------------------------------------------------

CONFIG = SynthConfig(seed=3, subjects=6, sessions=2, samples=2, size=64)


def test_drawn_on_the_fly_is_what_the_files_hold(palms: Table) -> None:
    table = synth_table(CONFIG)
    assert table.records == palms.records
    files, drawn = FileReader(palms.root), SynthReader(CONFIG)
    for pair in table.pairs()[::5]:
        for modality, pixels in files.read(pair).items():
            assert np.array_equal(pixels, drawn.read(pair)[modality])
    vein = replace(table.pairs()[0], images={"palm": None, "vein": table.pairs()[0].images["vein"]})
    assert drawn.read(vein)["palm"] is None


def test_workers_draw_on_the_fly_after_opencv_ran_threads(palms: Table) -> None:
    cv2.setNumThreads(4)
    cv2.GaussianBlur(np.zeros((2000, 2000), np.float32), (0, 0), 3)
    reader: Reader = SynthReader(CONFIG, hands=2)
    assert cv2.getNumThreads() == 1  # a fork with threads of OpenCV alive may never end
    dataset = PairDataset(synth_table(CONFIG).pairs(), HOW, reader)
    sampler = Shuffled(len(dataset), 8)
    from_files = PairDataset(palms.pairs(), HOW, FileReader(palms.root))
    for batch in batches(dataset, sampler, num_workers=2, multiprocessing_context="fork"):
        assert same(batch, collate([from_files[position] for position in batch.positions]))


def test_a_synth_reader_goes_to_other_processes_without_its_hands() -> None:
    reader = SynthReader(CONFIG, hands=9)
    pair = synth_table(CONFIG).pairs()[0]
    before = reader.read(pair)
    data = pickle.dumps(reader)
    assert len(data) < 1000
    copy = pickle.loads(data)
    assert (copy.config, copy.hands) == (CONFIG, 9)
    assert np.array_equal(copy.read(pair)["palm"], before["palm"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"subject": "anna"}, "invalid literal for int() with base 10: 'anna'"),
        ({"subject": "7"}, "subject is 7; this data set has subjects 1 to 6"),
        ({"hand": ""}, "hand is ''; it is 'left' or 'right'"),
    ],
)
def test_a_sample_of_another_data_set_cannot_be_drawn(change: dict[str, Any], reason: str) -> None:
    pair = replace(synth_table(CONFIG).pairs()[0], **change)
    message = f"palm/0001_left_1_01.png: not of this SynthPalm data set: {reason}"
    with pytest.raises(ImageError, match=f"^{re.escape(message)}$"):
        SynthReader(CONFIG).read(pair)


def test_a_reader_of_ones_own(tmp_path: Path) -> None:
    class Noise:
        def read(self, pair: Pair) -> dict[str, np.ndarray | None]:
            return {"palm": None if pair.sample else np.full((9, 9), 255, np.uint8)}

    pairs = [pair_of(tmp_path, palm="a.npy"), replace(pair_of(tmp_path, palm="b.npy"), sample=0)]
    dataset = PairDataset(pairs, Preprocessing(size=9, mean=(0.0,), std=(1.0,)), Noise())
    assert torch.equal(dataset[1].images["palm"], torch.ones(1, 9, 9))
    assert isinstance(dataset[1], Item)
    with pytest.raises(SampleError, match=r"^a\.npy: the reader has no such image \(identity 7/left"):
        dataset[0]
