"""Samples of a table, decoded, augmented and batched, as a map-style torch dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from ..errors import DataError, ImageError, did_you_mean
from ..images import naming, normalize, scale
from ..specs import Preprocessing
from .reading import Reader
from .sampling import Draw
from .table import Pair, natural

if TYPE_CHECKING:
    from .augment import Augmentation, GrowingAugmentation  # brings torchvision, which takes a worker seconds to import


class SampleError(ImageError):
    """A sample has an image that cannot be used; names the file, why, and the sample.

    What a worker process raised, torch raises once more with the worker's traceback for a message; the error itself is
    kept of that.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rstrip().rpartition(f"{type(self).__name__}: ")[2])


class Item(NamedTuple):
    """A sample.

    Attributes:
        images: By modality, (C, H, W); ``None`` for a missing one.
        label: Number of its identity.
        position: Its place in the dataset.
    """

    images: dict[str, Tensor | None]
    label: int
    position: int


class Skipped(NamedTuple):
    """A sample that was left out, and why."""

    position: int
    reason: str


class Batch(NamedTuple):
    """Samples, as models take them: ``model(**batch.images, labels=batch.labels)``.

    Attributes:
        images: By modality, (N, C, H, W); zeros where a sample lacks it, and ``None`` where all do.
        present: By modality, (N,) bool: whether the sample has it.
        labels: (N,) int64.
        positions: (N,) int64, places in the dataset.
        skipped: What was left out of the batch.
    """

    images: dict[str, Tensor | None]
    present: dict[str, Tensor]
    labels: Tensor
    positions: Tensor
    skipped: tuple[Skipped, ...] = ()


class PairDataset(Dataset["Item | Skipped"]):
    """The samples of a table or of a part of a split.

    Without augmentation, images are bit-equal to what ``model.preprocess`` makes of the files. With it, they depend on
    the seed and the :class:`~pvzoo.data.sampling.Draw` alone, whichever process reads them.

    Args:
        pairs: The samples.
        preprocessing: That of the model's spec.
        reader: Where pixels come from.
        modalities: Those to read, in the model's order; all of the samples' if left out.
        classes: Identities with the numbers 0, 1, ...; others follow in natural order.
        augment: What is done to images between decoding and normalisation; nothing if left out.
        seed: Of the augmentation.
        on_error: What becomes of a sample that cannot be read: ``"stop"`` raises :class:`SampleError`, ``"skip"`` gives
            a :class:`Skipped`.

    Attributes:
        labels: Of each sample, the number of its identity.

    Raises:
        DataError: If there are no samples, or one has none of the modalities.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        preprocessing: Preprocessing,
        reader: Reader,
        *,
        modalities: Sequence[str] | None = None,
        classes: Sequence[str] = (),
        augment: Augmentation | GrowingAugmentation | None = None,
        seed: int = 0,
        on_error: Literal["stop", "skip"] = "stop",
    ) -> None:
        if not pairs:
            raise DataError("there are no samples to load")
        has = tuple(pairs[0].images)
        self.modalities = tuple(has if modalities is None else modalities)
        for modality in self.modalities:
            if modality not in has:
                hint = did_you_mean(modality, has) or f"; they have {' and '.join(has)}"
                raise DataError(f"the samples have no modality {modality!r}{hint}")
        self.pairs = [replace(pair, images={m: pair.images[m] for m in self.modalities}) for pair in pairs]
        empty = [pair for pair in self.pairs if not pair.records]
        if empty:
            what = " or ".join(self.modalities)
            raise DataError(f"{len(empty)} of {len(pairs)} samples have no {what} image, the first {empty[0]}")
        others = sorted({pair.identity for pair in pairs} - set(classes), key=natural)
        numbers = {identity: number for number, identity in enumerate((*classes, *others))}
        self.labels = [numbers[pair.identity] for pair in pairs]
        self.preprocessing = preprocessing
        self.reader = reader
        self.augment = augment
        self.seed = seed
        self.on_error = on_error

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, draw: int | Draw) -> Item | Skipped:
        """Reads a sample.

        Raises:
            SampleError: If one of its images cannot be used, and ``on_error`` is ``"stop"``.
        """
        draw = draw if isinstance(draw, Draw) else Draw(int(draw))
        pair = self.pairs[draw.position]
        with _one_thread():
            try:
                images = self._read(pair)
            except ImageError as error:
                reason = f"{error} ({pair})"
                if self.on_error == "skip":
                    return Skipped(draw.position, reason)
                raise SampleError(reason) from error
            if self.augment is not None:
                images = self.augment(images, together=pair.simultaneous, seed=self._seed(draw), epoch=draw.epoch)
            ready = {modality: normalize(image, self.preprocessing) for modality, image in images.items()}
        return Item({m: ready.get(m) for m in self.modalities}, self.labels[draw.position], draw.position)

    def _read(self, pair: Pair) -> dict[str, Tensor]:
        """The images that the sample has, in [0, 1]."""
        images = {}
        pixels = self.reader.read(pair)
        for record in pair.records:
            with naming(record.path):
                image = pixels[record.modality]
                if image is None:
                    raise ImageError("the reader has no such image")
                images[record.modality] = scale(image, self.preprocessing)
        return images

    def _seed(self, draw: Draw) -> int:
        digest = hashlib.blake2b(repr((self.seed, *draw)).encode(), digest_size=8)
        return int.from_bytes(digest.digest(), "little")


@contextmanager
def _one_thread() -> Iterator[None]:
    """As torch has it in workers, so that the bits are the same without: sums depend on the number of threads.

    It is faster as well. A single image is too small to be shared out, most of all where other work wants the cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def collate(items: Sequence[Item | Skipped]) -> Batch:
    """Makes one batch of samples.

    Raises:
        SampleError: If not one of them could be read.
    """
    found = [item for item in items if isinstance(item, Item)]
    skipped = tuple(item for item in items if isinstance(item, Skipped))
    if not found:
        raise SampleError(f"none of the {len(skipped)} samples of a batch can be read; the first: {skipped[0].reason}")
    images: dict[str, Tensor | None] = {}
    present: dict[str, Tensor] = {}
    for modality in found[0].images:
        column = [item.images[modality] for item in found]
        present[modality] = torch.tensor([image is not None for image in column])
        images[modality] = None
        some = next((image for image in column if image is not None), None)
        if some is not None:
            blank = torch.zeros_like(some)
            # It writes to memory that a worker shares with the main process.
            images[modality] = default_collate([blank if image is None else image for image in column])
    labels, positions = (torch.tensor(numbers) for numbers in list(zip(*found, strict=True))[1:])
    return Batch(images, present, labels, positions, skipped)
