"""SynthPalm: samples, their seeds, and the files of a data set."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pvzoo.errors import UnknownNameError
from pvzoo.extras import MissingExtraError, opencv
from pvzoo.synth import RELEASES, Generator, PalmSample, SynthConfig, SynthError, generate, release

MINI = release("synthpalm-mini")


def digest(sample: PalmSample) -> str:
    layers = (sample.palm, sample.vein, sample.crease_mask, sample.vein_mask)
    return hashlib.sha256(b"".join(layer.tobytes() for layer in layers)).hexdigest()


def files(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


# --- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 112, 224])
def test_a_sample_has_two_images_two_masks_and_numbers_for_json(size: int) -> None:
    sample = Generator(replace(MINI, size=size)).sample(1, "left", 1, 1)
    for layer in (sample.palm, sample.vein, sample.crease_mask, sample.vein_mask):
        assert layer.shape == (size, size)
        assert layer.dtype == np.uint8
    assert set(np.unique(sample.crease_mask)) == {0, 255} == set(np.unique(sample.vein_mask))
    assert json.loads(json.dumps(sample.params)) == sample.params
    assert 50 < sample.palm.mean() < 220
    assert sample.palm.std() > 4


def test_any_sample_alone_is_the_one_among_all() -> None:
    generator = Generator(MINI, cache=1)
    among = {key: digest(generator.sample(*key)) for hand in MINI.identities() for key in MINI.keys(*hand)}
    assert len(set(among.values())) == len(MINI) == len(among)
    for key in reversed(list(among)[::5]):
        assert digest(Generator(MINI).sample(*key)) == among[key]


def test_another_process_draws_the_same_bytes(python: Callable[..., Any]) -> None:
    code = """
import hashlib, sys
from pvzoo.synth import Generator, release
s = Generator(release("synthpalm-mini")).sample(2, "right", 2, 1)
layers = (s.palm, s.vein, s.crease_mask, s.vein_mask)
print(hashlib.sha256(b"".join(x.tobytes() for x in layers)).hexdigest(), "torch" in sys.modules)
"""
    done = python("-c", code, PYTHONHASHSEED="7")
    assert done.stdout.split() == [digest(Generator(MINI).sample(2, "right", 2, 1)), "False"], done.stderr


def test_counts_do_not_change_a_sample_but_seed_and_k_do() -> None:
    first = digest(Generator(MINI).sample(1, "left", 1, 1))
    assert digest(Generator(replace(MINI, subjects=900, sessions=7, samples=9)).sample(1, "left", 1, 1)) == first
    for other in (replace(MINI, seed=21), replace(MINI, k=0.6)):
        assert digest(Generator(other).sample(1, "left", 1, 1)) != first


def test_no_identity_is_in_two_releases() -> None:
    # So whoever trains on one may be tested on another.
    assert len({config.seed for config in RELEASES.values()}) == len(RELEASES)


def test_the_streams_of_random_numbers_are_frozen() -> None:
    # A release is its numbers: whoever changes this line makes another data set, and names it so.
    assert MINI.random("identity", 1, "left").randint(0, 1 << 30, 3).tolist() == [718542204, 263636884, 440206089]


def test_the_hands_of_a_subject_are_as_different_as_those_of_two() -> None:
    generator = Generator(replace(MINI, k=0))

    def overlap(a: PalmSample, b: PalmSample) -> float:
        return float(((a.vein_mask > 0) & (b.vein_mask > 0)).sum() / ((a.vein_mask > 0) | (b.vein_mask > 0)).sum())

    left, right = (generator.sample(1, hand, 1, 1) for hand in ("left", "right"))
    mirrored = replace_mask(right)
    assert overlap(left, generator.sample(1, "left", 2, 2)) > 0.5
    assert overlap(left, right) < 0.35
    assert overlap(left, mirrored) < 0.35


def replace_mask(sample: PalmSample) -> PalmSample:
    return PalmSample(sample.palm, sample.vein, sample.crease_mask, sample.vein_mask[:, ::-1], sample.params)


def test_masks_lie_on_dark_lines() -> None:
    generator = Generator(replace(RELEASES["synthpalm-v1"], k=0.5))
    for subject in (1, 2, 3):
        sample = generator.sample(subject, "right", 1, 1)
        for image, mask in ((sample.palm, sample.crease_mask), (sample.vein, sample.vein_mask)):
            local = image.astype(float) - cv2.GaussianBlur(image.astype(np.float32), (0, 0), 9)
            near = cv2.dilate(mask, np.ones((9, 9))) > 0
            assert 0.01 < (mask > 0).mean() < 0.25
            assert local[mask > 0].mean() < local[~near].mean() - 4


def test_vein_and_palm_share_the_pose_and_sessions_differ_in_light() -> None:
    config = RELEASES["synthpalm-v1"]
    generator = Generator(config)
    params = [generator.params(s, "left", v, n) for v in (1, 2) for s in range(1, 31) for n in range(1, 6)]
    assert max(np.abs(p["disparity"]).max() for p in params) < 5
    focus = [p["vein"]["blur"] for p in params]
    assert abs(np.mean(focus[:150]) - np.mean(focus[150:])) > 0.02
    # Occlusion and rotation are parts of k.
    assert 0.1 < np.mean([p["palm"]["occluder"] is not None for p in params]) < 0.4
    calm = Generator(replace(config, k=0)).params(1, "left", 1, 1)
    assert calm["pose"]["rotation"] == 0
    assert calm["palm"]["occluder"] is None


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subjects": 0}, "subjects is 0; it is at least 1"),
        ({"size": 8}, "size is 8; it is from 32 to 1024 pixels"),
        ({"k": float("nan")}, "k is nan; it is from 0 to 4"),
        ({"k": -1.0}, "k is -1.0; it is from 0 to 4"),
    ],
)
def test_a_config_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SynthError) as caught:
        replace(MINI, **change)
    assert str(caught.value) == message


def test_a_sample_that_is_not_in_the_data_set_is_refused() -> None:
    generator = Generator(MINI)
    with pytest.raises(SynthError, match=r"^subject is 11; this data set has subjects 1 to 10$"):
        generator.sample(11, "left", 1, 1)
    with pytest.raises(SynthError, match=r"^session is 0; this data set has sessions 1 to 2$"):
        generator.sample(1, "left", 0, 1)
    with pytest.raises(SynthError, match=r"^hand is 'both'; it is 'left' or 'right'$"):
        generator.sample(1, "both", 1, 1)


def test_an_unknown_release_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'synthpalm-mini'"):
        release("synthpalm-mni")
    with pytest.raises(UnknownNameError, match="there are synthpalm-mini, synthpalm-v1"):
        release("x")


def test_without_opencv_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pvzoo\[data\]'"):
        opencv()


# --- files ------------------------------------------------------------------------------------------------------------

TINY = SynthConfig(seed=3, subjects=2, sessions=1, samples=2, size=64)


def test_a_folder_has_images_masks_parameters_and_a_table(tmp_path: Path) -> None:
    seen: list[int] = []
    generate(TINY, tmp_path, progress=seen.append)
    assert sum(seen) == len(TINY) == 8
    rows = list(csv.DictReader((tmp_path / "table.csv").open(newline="")))
    assert len(rows) == 16
    assert rows[1] == {
        "path": "vein/0001_left_1_01.png",
        "modality": "vein",
        "subject": "1",
        "hand": "left",
        "session": "1",
        "sample": "1",
        "spectrum": "nir",
        "pairing": "simultaneous",
    }
    sample = Generator(TINY).sample(1, "left", 1, 1)
    assert np.array_equal(cv2.imread(str(tmp_path / rows[1]["path"]), cv2.IMREAD_UNCHANGED), sample.vein)
    found = json.loads((tmp_path / "synth.json").read_text())
    assert found["config"]["k"] == 1.0
    assert found["samples"]["0001_left_1_01"] == sample.params
    assert len(files(tmp_path)) == 4 * 8 + 2


def test_workers_change_no_byte(tmp_path: Path) -> None:
    generate(TINY, tmp_path / "one")
    generate(TINY, tmp_path / "two", workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_run_goes_on_where_it_was_ended(tmp_path: Path) -> None:
    class EndedError(Exception):
        pass

    def end(count: int) -> None:
        if count:
            raise EndedError

    with pytest.raises(EndedError):
        generate(TINY, tmp_path / "a", progress=end)
    begun = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.png")}
    assert 0 < len(begun) < 4 * 8
    assert not (tmp_path / "a" / "table.csv").exists()
    generate(TINY, tmp_path / "a")
    generate(TINY, tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert all(path.stat().st_mtime_ns == when for path, when in begun.items())


def test_a_folder_of_another_data_set_is_refused(tmp_path: Path) -> None:
    generate(replace(TINY, subjects=1, samples=1), tmp_path)
    before = files(tmp_path)
    with pytest.raises(SynthError, match="holds another data set"):
        generate(TINY, tmp_path)
    assert files(tmp_path) == before
    (tmp_path / "synth.json").write_text("[]")
    with pytest.raises(SynthError, match="not what pvzoo synth writes"):
        generate(TINY, tmp_path)
    with pytest.raises(SynthError, match="cannot be written"):
        generate(TINY, tmp_path / "table.csv")


def test_the_command_draws_a_release(run_pvzoo: Callable[..., Any], tmp_path: Path) -> None:
    done = run_pvzoo("synth", "--release", "synthpalm-mini", "--out", "palms", "--workers", "2")
    assert (done.returncode, done.stdout) == (0, "80 pairs of 20 hands in palms\n"), done.stderr
    assert len(list((tmp_path / "palms" / "vein").iterdir())) == 80
    wrong = run_pvzoo("synth", "--release", "synthpalm-v2", "--out", "palms")
    assert wrong.returncode == 2
    assert "did you mean 'synthpalm-" in wrong.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a process alone")
@pytest.mark.parametrize("images", [0, 5], ids=["while workers start", "while they draw"])
def test_ctrl_c_leaves_whole_files_and_130(tmp_path: Path, images: int) -> None:
    command = [sys.executable, "-m", "pvzoo", "synth", "--out", str(tmp_path), "--workers", "2"]
    # A session of its own, so that the signal reaches the workers too, as Ctrl-C on a terminal does.
    run = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    while time.monotonic() < deadline:
        started = not children.exists() or len(children.read_text().split()) > 2  # two workers, and Python's tracker
        if started and len(list(tmp_path.glob("palm/*.png"))) >= images:
            break
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert b"Traceback" not in errors
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "table.csv").exists()
    drawn = list(tmp_path.rglob("*.png"))
    assert len(drawn) >= images
    assert all(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape == (224, 224) for path in drawn)
