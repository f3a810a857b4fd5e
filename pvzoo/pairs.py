"""Samples of image files: a CSV, or a folder a modality. Images are paired by name, never by order."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import PairsError, did_you_mean

# What pvzoo reads; a folder's other files are not images.
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True)
class Sample:
    """The images of one palm at one time.

    Attributes:
        id: Its name: the CSV's ``id`` column, or the images' common name.
        images: By modality; ``None`` where there is none.
    """

    id: str
    images: Mapping[str, Path | None]


def read_samples(path: Path, modalities: Sequence[str]) -> list[Sample]:
    """Reads the samples of a CSV file or folder.

    Args:
        path: A CSV with a column for each modality, whose paths are relative to it, and perhaps ``id``; or a folder
            with a subfolder for each modality. A model of one modality also takes a folder of images.
        modalities: Those of the model.

    Raises:
        PairsError: If the layout is not one of these, there is no image, or two samples have one name.
    """
    if path.is_dir():
        samples = _read_folder(path, modalities)
    elif path.is_file():
        samples = _read_csv(path, modalities)
    else:
        raise PairsError(f"{path}: no such file or folder")
    if not samples:
        raise PairsError(f"{path}: no images in it ({', '.join(sorted(SUFFIXES))})")
    return samples


def _read_folder(folder: Path, modalities: Sequence[str]) -> list[Sample]:
    roots = {modality: folder / modality for modality in modalities}
    if len(modalities) == 1 and not roots[modalities[0]].is_dir():
        roots = {modalities[0]: folder}
    absent = [str(root) for root in roots.values() if not root.is_dir()]
    if absent:
        takes = " and ".join(modalities)
        raise PairsError(f"{folder}: the model takes {takes}, and there is no {', no '.join(absent)}")
    found: dict[str, dict[str, Path]] = {}
    for modality, root in roots.items():
        for file in sorted(root.rglob("*")):
            # A Mac leaves hidden files beside images, with their names and suffixes.
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file():
                name = file.relative_to(root).with_suffix("").as_posix()
                if modality in found.setdefault(name, {}):
                    raise PairsError(f"{file}: {found[name][modality].name} has the same name; keep one")
                found[name][modality] = file
    return [
        Sample(name, {modality: images.get(modality) for modality in modalities})
        for name, images in sorted(found.items())
    ]


def _read_csv(path: Path, modalities: Sequence[str]) -> list[Sample]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames = [column.strip() for column in reader.fieldnames or []]
            for modality in modalities:
                if modality not in columns:
                    hint = did_you_mean(modality, columns) or f"; it has {', '.join(columns) or 'none'}"
                    raise PairsError(f"{path}: there is no column {modality!r}{hint}")
            samples: dict[str, Sample] = {}
            for row in reader:
                sample = _sample(path, row, reader.line_num, modalities)
                if sample.id in samples:
                    raise PairsError(f"{path}: line {reader.line_num}: the id {sample.id!r} is there already")
                samples[sample.id] = sample
            return list(samples.values())
    except (csv.Error, UnicodeDecodeError) as error:
        raise PairsError(f"{path}: not a CSV file: {error}") from error
    except OSError as error:
        raise PairsError(f"{path}: cannot be read: {error.strerror or error}") from error


def _sample(path: Path, row: Mapping[str, str | None], line: int, modalities: Sequence[str]) -> Sample:
    images = {m: path.parent / value if (value := (row.get(m) or "").strip()) else None for m in modalities}
    return Sample((row.get("id") or "").strip() or f"line {line}", images)
