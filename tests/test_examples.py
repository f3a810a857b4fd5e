"""The example images: what the script draws, and fit for the models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pvzoo.images import preprocess
from pvzoo.pairs import read_samples
from pvzoo.specs import Preprocessing

EXAMPLES = Path(__file__).parent.parent / "examples"
SAMPLES = ["anna_1", "anna_2", "ben_1", "ben_2"]


def make_palms(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, EXAMPLES / "make_palms.py", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_images_are_what_the_script_draws() -> None:
    result = make_palms("--check")
    assert result.returncode == 0, result.stderr


def test_check_names_every_missing_file(tmp_path: Path) -> None:
    result = make_palms("--check", "--out", tmp_path)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 9  # 8 images and the table


@pytest.mark.parametrize("source", ["pairs.csv", "palms"])
def test_pvzoo_reads_them_by_table_and_by_folder(source: str) -> None:
    samples = read_samples(EXAMPLES / source, ["palm", "vein"])
    assert [sample.id for sample in samples] == SAMPLES
    files = [sample.images[modality] for modality in ("palm", "vein") for sample in samples]
    assert len(set(files)) == 8
    batch = preprocess([file for file in files if file is not None], Preprocessing())
    assert batch.shape == (8, 1, 224, 224)
    assert batch.isfinite().all()


@pytest.mark.parametrize("modality", ["palm", "vein"])
def test_captures_of_one_person_are_alike_but_not_the_same(modality: str) -> None:
    files = [EXAMPLES / "palms" / modality / f"{sample}.png" for sample in SAMPLES]
    images = preprocess(files, Preprocessing())
    # Structure alone: without the light, which is the capture's, and the finest detail, which a small shift moves.
    coarse = torch.nn.functional.avg_pool2d(images, 7)
    light = torch.nn.functional.avg_pool2d(coarse, 9, stride=1, padding=4, count_include_pad=False)
    likeness = torch.corrcoef((coarse - light).flatten(1))
    same = torch.stack([likeness[0, 1], likeness[2, 3]])
    different = likeness[:2, 2:]
    assert same.min() > different.max() + 0.1
    assert same.max() < 0.98
