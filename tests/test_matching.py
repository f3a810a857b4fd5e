"""The main job, as people do it: compare two palms, embed a folder of palms."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pvzoo
from pvzoo import ImageError, InputError
from pvzoo.embedding import Embedded, embed_samples, write_npz
from pvzoo.model import Model
from pvzoo.pairs import Sample, read_samples

PALMS = Path(__file__).parents[1] / "examples/palms"
NAMES = ("anna_1", "anna_2", "ben_1", "ben_2")
SMALL = {"image_size": 64, "num_classes": 3}


def images(*names: str) -> list[str]:
    """Palm and vein of each name."""
    return [str(PALMS / modality / f"{name}.png") for name in names for modality in ("palm", "vein")]


ANNA_AND_BEN = images("anna_1", "ben_1")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved models: attention and concat fusion, one modality, and one whose weights are no longer the first."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    saved = {
        "attention": pvzoo.create("stage2_local_nano", **SMALL),
        "concat": pvzoo.create("stage2_local_nano", **SMALL, **{"fusion.local": "concat"}),
        "vein": pvzoo.create("stage1_convnext_vein_nano", **SMALL),
    }
    paths = {name: model.save(root / name) for name, model in saved.items()}
    with torch.no_grad():
        for parameter in saved["attention"].parameters():
            parameter.mul_(1.01)
    return {**paths, "trained": saved["attention"].save(root / "trained")}


@pytest.fixture(scope="session")
def model(models: dict[str, Path]) -> Model:
    return pvzoo.create(f"local-dir:{models['attention']}")


@pytest.fixture
def palms(tmp_path: Path) -> Path:
    """A copy of the example palms, to be damaged."""
    return Path(shutil.copytree(PALMS, tmp_path / "palms"))


def contents(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


# compare


def test_a_palm_is_like_itself(call: Callable[..., Any], models: dict[str, Path]) -> None:
    done = call("compare", "--model", models["attention"], *images("anna_1", "anna_1"))
    assert (done.code, done.out) == (0, "score 1.0000\n")


def test_an_untrained_model_of_the_zoo_is_the_same_at_each_run_and_says_so(
    call: Callable[..., Any], run_pvzoo: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    arguments = ("compare", "-m", "stage2_shared_nano", "--json", *ANNA_AND_BEN)
    here, again, other = call(*arguments), run_pvzoo(*arguments), call(*arguments, "--seed", "1")
    assert again.returncode == here.code == 0
    assert json.loads(again.stdout) == pytest.approx(json.loads(here.out), abs=1e-6)
    assert json.loads(here.out)["score"] != json.loads(other.out)["score"]
    warning = (
        "warning: the weights of stage2_shared_nano are untrained (random, seed {}): scores say nothing about identity"
    )
    assert here.err == again.stderr == warning.format(0) + "\n"
    assert other.err == warning.format(1) + "\n"


def test_json(call: Callable[..., Any], models: dict[str, Path], model: Model) -> None:
    done = call("compare", "-m", models["attention"], "--json", *ANNA_AND_BEN)
    found = json.loads(done.out)
    assert found.keys() == {"score", "model", "untrained", "decision"}
    assert found["model"] == str(models["attention"])
    assert found["untrained"] is True
    with torch.inference_mode():
        a, b = (model.embed(*map(model.preprocess, images(name))) for name in ("anna_1", "ben_1"))
    assert found["score"] == pytest.approx(float((a * b).sum()), abs=1e-5)
    assert call("compare", "-m", models["attention"], *ANNA_AND_BEN).out == f"score {found['score']:.4f}\n"


def test_a_saved_model_says_whether_it_is_untrained(call: Callable[..., Any], models: dict[str, Path]) -> None:
    folder, file = models["attention"], models["attention"] / "model.safetensors"
    as_folder, as_file = (call("compare", "-m", path, *ANNA_AND_BEN) for path in (folder, file))
    assert as_folder.out == as_file.out
    assert f"warning: the weights of {folder} are untrained (random): scores say nothing" in as_folder.err
    trained = call("compare", "-m", models["trained"], *ANNA_AND_BEN)
    assert trained.code == 0
    assert trained.err.startswith("note: no decision: the model has no threshold for an FMR of 0.001; it has none; ")


def test_a_spec_file_is_a_model(call: Callable[..., Any], tmp_path: Path) -> None:
    spec = tmp_path / "mine.json"
    spec.write_text(json.dumps(pvzoo.spec("stage2_local_nano", **{"preprocessing.size": 64}).to_dict()))
    done = call("compare", "-m", spec, *images("anna_1", "anna_1"))
    assert (done.code, done.out) == (0, "score 1.0000\n")
    assert "untrained (random, seed 0)" in done.err


def test_one_modality(call: Callable[..., Any], models: dict[str, Path]) -> None:
    vein = images("ben_1")[1]
    assert call("compare", "-m", models["vein"], vein, vein).out == "score 1.0000\n"
    done = call("compare", "-m", models["vein"], *ANNA_AND_BEN)
    assert done.code == 2
    assert done.err == f"error: {models['vein']} needs 2 images (vein of palm A, then of palm B), and 4 were given\n"


@pytest.mark.parametrize("count", [1, 3, 5])
def test_the_wrong_number_of_images(call: Callable[..., Any], models: dict[str, Path], count: int) -> None:
    done = call("compare", "-m", models["attention"], *(ANNA_AND_BEN * 2)[:count])
    assert (done.code, done.out) == (2, "")
    needs = "needs 4 images (palm and vein of palm A, then of palm B)"
    assert done.err == f"error: {models['attention']} {needs}, and {count} were given\n"


def test_a_missing_modality(call: Callable[..., Any], models: dict[str, Path]) -> None:
    palm, vein = images("anna_1")
    one_sided = call("compare", "-m", models["attention"], palm, "-", palm, "-")
    assert (one_sided.code, one_sided.out) == (0, "score 1.0000\n")
    across = call("compare", "-m", models["attention"], palm, vein, "-", vein)
    assert across.code == 0
    concat = call("compare", "-m", models["concat"], palm, vein, palm, "-")
    assert (concat.code, concat.out) == (2, "")
    assert concat.err.startswith("error: ")
    assert concat.err.count("\n") == 1
    assert "vein" in concat.err
    nothing = call("compare", "-m", models["attention"], "-", "-", palm, vein)
    assert nothing.code == 2
    assert nothing.err == "error: every modality is missing; give at least one of palm, vein\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stage2_spatal", "no model named 'stage2_spatal'; did you mean 'stage2_spatial'?"),
        ("nobody.safetensors", "nobody.safetensors: no such file"),
        ("runs/nobody", "; and there is no folder runs/nobody"),
        ("nobody.yaml", "nobody.yaml: no such file"),
        (str(PALMS), f"{PALMS}: there is no config.json in it"),
        (images("anna_1")[0], None),
    ],
)
def test_models_that_are_none(call: Callable[..., Any], name: str, message: str | None) -> None:
    done = call("compare", "-m", name, *ANNA_AND_BEN)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert message is None or done.err.endswith(f"{message}\n")


@pytest.mark.parametrize("device", ["nonsense", "cuda:99", "meta", ""])
def test_devices_that_are_none(call: Callable[..., Any], models: dict[str, Path], device: str) -> None:
    done = call("compare", "-m", models["attention"], "--device", device, *ANNA_AND_BEN)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: device {device!r} cannot be used: ")
    assert done.err.count("\n") == 1


def test_bad_images_are_named_in_one_line(call: Callable[..., Any], models: dict[str, Path], palms: Path) -> None:
    bad = palms / "vein/ben_1.png"
    arguments = [*images("anna_1"), images("ben_1")[0], str(bad)]
    content = bad.read_bytes()
    for damage, message in (
        (lambda: bad.write_bytes(content[:3000]), "cannot be decoded: the file is truncated"),
        (lambda: bad.write_bytes(b""), "the file is empty"),
        (lambda: bad.write_text("id,palm"), "not an image that can be read (PNG, JPEG, BMP or TIFF)"),
        (lambda: bad.unlink(), "no such file"),
    ):
        damage()
        done = call("compare", "-m", models["attention"], *arguments)
        assert (done.code, done.out, done.err) == (2, "", f"error: {bad}: {message}\n")


def test_damaged_tiff_gives_one_line_too(
    run_pvzoo: Callable[..., subprocess.CompletedProcess[str]], models: dict[str, Path], tmp_path: Path
) -> None:
    cut = tmp_path / "cut.tif"
    Image.open(PALMS / "vein/ben_1.png").save(cut)
    cut.write_bytes(cut.read_bytes()[:-40])
    done = run_pvzoo("compare", "-m", str(models["attention"]), *images("anna_1"), images("ben_1")[0], str(cut))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {cut}: ")
    assert done.stderr.count("\n") == 1


# embed


def test_batches_change_nothing(model: Model) -> None:
    samples = read_samples(PALMS, model.spec.modalities)
    palm_only = [Sample(f"{s.id} palm", {**s.images, "vein": None}) for s in samples]
    vein_only = [Sample(f"{s.id} vein", {**s.images, "palm": None}) for s in samples]
    mixed = [s for three in zip(samples, palm_only, vein_only, strict=True) for s in three] + samples
    done: list[int] = []
    with torch.inference_mode():
        alone = [
            model.embed(*(path and model.preprocess(path) for path in s.images.values())).numpy()  # type: ignore[misc]
            for s in mixed
        ]
    for size in (1, 3, 5, 100):
        done.clear()
        result = embed_samples(model, mixed, size, advance=done.append)
        assert result.ids == [sample.id for sample in mixed]
        assert result.embeddings.dtype == np.float32
        assert np.abs(result.embeddings - np.concatenate(alone)).max() < 1e-5
        assert sum(done) == len(mixed)
        assert len(done) == -(-len(mixed) // size)


def test_failures_are_collected_or_raised(models: dict[str, Path], tmp_path: Path) -> None:
    concat = pvzoo.create(f"local-dir:{models['concat']}")
    good = read_samples(PALMS, concat.spec.modalities)
    lost = Sample("lost", {"palm": tmp_path / "lost.png", "vein": good[0].images["vein"]})
    half = Sample("half", {"palm": good[0].images["palm"], "vein": None})
    failures: list[Any] = []
    done: list[int] = []
    samples = [good[0], lost, half, good[1], half]
    result = embed_samples(concat, samples, 4, failures=failures, advance=done.append)
    assert result.ids == ["anna_1", "anna_2"]
    assert np.allclose(result.embeddings, embed_samples(concat, good[:2]).embeddings, atol=1e-5)
    assert sorted(name for name, _ in failures) == ["half", "half", "lost"]
    assert sum(done) == 5
    with pytest.raises(ImageError, match=r"lost\.png: no such file"):
        embed_samples(concat, [lost])
    with pytest.raises(InputError, match="vein"):
        embed_samples(concat, [half])


def test_nothing_to_embed(model: Model) -> None:
    assert embed_samples(model, []).embeddings.shape == (0, model.spec.geometry.embedding)
    with pytest.raises(InputError, match="batch_size should be 1 or more, got 0"):
        embed_samples(model, [], 0)


@pytest.mark.parametrize("source", [PALMS, PALMS.parent / "pairs.csv"])
def test_embed_writes_an_npz(
    source: Path, call: Callable[..., Any], models: dict[str, Path], model: Model, tmp_path: Path
) -> None:
    output = tmp_path / "out.npz"
    done = call("embed", source, "-o", output, "-m", models["attention"], "--batch-size", "3")
    assert (done.code, done.out) == (0, f"{output}: 4 x 256\n")
    assert "are untrained (random)" in done.err
    found = contents(output)
    assert found.keys() == {"ids", "embeddings", "model", "untrained"}
    assert found["ids"].tolist() == list(NAMES)
    assert found["model"] == str(models["attention"])
    assert found["untrained"]
    expected = embed_samples(model, read_samples(PALMS, model.spec.modalities)).embeddings
    assert found["embeddings"].dtype == np.float32
    assert np.abs(found["embeddings"] - expected).max() < 1e-5
    assert np.allclose(np.linalg.norm(found["embeddings"], axis=1), 1, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_embed_and_compare_agree(call: Callable[..., Any], models: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    done = call("embed", PALMS, "-o", output, "-m", models["trained"])
    assert (done.code, done.err) == (0, "")
    embeddings = contents(output)["embeddings"]
    score = json.loads(call("compare", "-m", models["trained"], "--json", *ANNA_AND_BEN).out)["score"]
    assert float(embeddings[0] @ embeddings[2]) == pytest.approx(score, abs=1e-5)


def test_bad_samples_are_listed_and_the_others_written(
    call: Callable[..., Any], models: dict[str, Path], palms: Path, tmp_path: Path
) -> None:
    (palms / "palm/anna_2.png").write_bytes((palms / "palm/anna_2.png").read_bytes()[:2000])
    (palms / "vein/ben_1.png").unlink()
    output = tmp_path / "out.npz"
    done = call("embed", palms, "-o", output, "-m", models["concat"])
    assert done.code == 2
    assert done.out == f"{output}: 2 x 512\n"
    assert contents(output)["ids"].tolist() == ["anna_1", "ben_2"]
    lines = done.err.splitlines()
    assert lines[0] == "warning: 1 of 4 samples lack an image, such as ben_1 (no vein)"
    assert f"error: anna_2: {palms / 'palm/anna_2.png'}: cannot be decoded: the file is truncated" in lines
    assert sum(line.startswith("error: ben_1: ") and "vein" in line for line in lines) == 1
    assert lines[-1] == "error: 2 of 4 samples could not be embedded; 2 were written"


def test_names_that_do_not_match_are_noticed(
    call: Callable[..., Any], models: dict[str, Path], palms: Path, tmp_path: Path
) -> None:
    for image in (palms / "vein").iterdir():
        image.rename(image.with_stem(f"{image.stem}_vein"))
    done = call("embed", palms, "-o", tmp_path / "out.npz", "-m", models["trained"])
    assert done.code == 0
    assert done.err == "warning: 8 of 8 samples lack an image, such as anna_1 (no vein)\n"


def test_nothing_is_written_when_every_sample_is_bad(
    call: Callable[..., Any], models: dict[str, Path], tmp_path: Path
) -> None:
    table, output = tmp_path / "pairs.csv", tmp_path / "out.npz"
    table.write_text("id,palm,vein\na,x.png,y.png\nb,,\n")
    output.write_bytes(b"older")
    done = call("embed", table, "-o", output, "-m", models["attention"])
    assert (done.code, done.out) == (2, "")
    assert f"error: a: {tmp_path / 'x.png'}: no such file\n" in done.err
    assert "error: b: every modality is missing" in done.err
    assert done.err.endswith("error: 2 of 2 samples could not be embedded; nothing was written\n")
    assert output.read_bytes() == b"older"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz", "pairs.csv"]


def test_an_older_file_is_replaced_whole(call: Callable[..., Any], models: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    output.write_bytes(b"older")
    with output.open("rb") as reader:
        assert call("embed", PALMS, "-o", output, "-m", models["trained"]).code == 0
        assert reader.read() == b"older", "who reads the older file goes on reading it"
    assert len(contents(output)["ids"]) == 4


def test_an_interrupted_write_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.npz"
    output.write_bytes(b"older")

    def interrupted(file: Path, **_: Any) -> None:
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_npz(output, Embedded(["a"], np.zeros((1, 2), np.float32)), model="m", untrained=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]
    assert output.read_bytes() == b"older"


def test_names_in_any_script_are_kept(tmp_path: Path) -> None:
    ids = ["ä/手掌 1", "", "x" * 300]
    write_npz(tmp_path / "a.npz", Embedded(ids, np.zeros((3, 2), np.float32)), model="modèle", untrained=True)
    found = contents(tmp_path / "a.npz")
    assert found["ids"].tolist() == ids
    assert found["model"] == "modèle"


def test_outputs_that_cannot_be(call: Callable[..., Any], models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "dir.npz").mkdir()
    for output, message in (
        (tmp_path / "out.csv", "the output is an .npz file"),
        (tmp_path / "none/out.npz", f"there is no folder {tmp_path / 'none'}"),
        (tmp_path / "dir.npz", "is a folder"),
    ):
        done = call("embed", PALMS, "-o", output, "-m", models["attention"])
        assert (done.code, done.out, done.err) == (2, "", f"error: {output}: {message}\n")
    with pytest.raises(pvzoo.PvzooError, match="cannot be written: Is a directory"):
        write_npz(tmp_path / "dir.npz", Embedded([], np.zeros((0, 2), np.float32)), model="m", untrained=False)
    assert [path.name for path in tmp_path.iterdir()] == ["dir.npz"]


def test_inputs_that_cannot_be(call: Callable[..., Any], models: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    for source, message in (
        (tmp_path / "nobody", "no such file or folder"),
        (PALMS / "palm", "the model takes palm and vein, and there is no"),
        (PALMS / "palm/anna_1.png", "not a CSV file"),
    ):
        done = call("embed", source, "-o", output, "-m", models["attention"])
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"error: {source}: {message}")
        assert done.err.count("\n") == 1
    zero = call("embed", PALMS, "-o", output, "-m", models["attention"], "--batch-size", "0")
    assert zero.code == 2
    assert not output.exists()


def test_ctrl_c_leaves_nothing(models: dict[str, Path], tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="needs a terminal")
    palm, vein = images("anna_1")
    table = tmp_path / "pairs.csv"
    table.write_text("id,palm,vein\n" + "".join(f"{n},{palm},{vein}\n" for n in range(20_000)))
    screen, terminal = pty.openpty()
    command = ["embed", str(table), "-o", str(tmp_path / "out.npz"), "-m", str(models["attention"])]
    process = subprocess.Popen(
        [sys.executable, "-m", "pvzoo", *command],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(terminal)
    shown = b""
    try:
        while b"16/20000" not in shown and b"32/20000" not in shown:
            shown += os.read(screen, 4096)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        while True:
            try:
                more = os.read(screen, 4096)
            except OSError:  # the other end is closed
                break
            if not more:
                break
            shown += more
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    assert process.returncode == 130
    assert time.monotonic() - started < 10
    assert output == b""
    assert b"embedding" in shown
    assert b"Traceback" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.csv"]
