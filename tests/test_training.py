"""Runs: two stages end to end, nothing lost when a process is killed, and folders that are not overwritten."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from lightning.pytorch.utilities import rank_zero_only

import pvzoo
from pvzoo import DataError, PvzooError, WeightsError
from pvzoo.data.protocols import open_protocol
from pvzoo.data.sources import open_images
from pvzoo.data.table import Table
from pvzoo.training.checkpoint import Kept, SafeCheckpointIO
from pvzoo.training.folder import RunError, claimed
from pvzoo.training.machine import Machine, device_of
from pvzoo.training.module import TrainingError
from pvzoo.training.recipe import list_recipes, load_recipe
from pvzoo.training.run import branch_specs, samples_for, train

SMALL: dict[str, Any] = {
    "data.source": "synthpalm-mini",
    "image_size": 32,
    "batch.size": 16,
    "precision": "fp32",
}
ONE = {**SMALL, "stage": 1, "model": "stage1_convnext_palm_nano"}
KEEP = {"data.protocol_params": {"incomplete": "keep"}}
CPU = Machine(accelerator="cpu", progress=False)


def steps(**more: Any) -> dict[str, Any]:
    return {f"steps.{step}.{key}": value for step in ("stage1", "stage2") for key, value in {**SMALL, **more}.items()}


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as lines:
        return [
            {key: value for key, value in row.items() if not key.endswith(("seconds", "second"))}
            for row in csv.DictReader(lines)
        ]


def weights(model: pvzoo.Model) -> dict[str, torch.Tensor]:
    return model.state_dict()


@pytest.mark.slow
def test_two_stages_end_in_a_model_that_can_be_used(tmp_path: Path) -> None:
    changes = {
        **steps(model="stage2_spatial_nano", epochs=1),
        "steps.stage2.cache_features": 1,
        "steps.stage2.batch.samples": 4,
    }
    made = train("two_stage", tmp_path / "run", overrides=changes, machine=CPU)
    assert made == tmp_path / "run/model"
    model = pvzoo.create(f"local-dir:{made}")
    assert not model.untrained
    assert model.spec.num_classes == 14
    assert model.embed(*torch.rand(2, 1, 1, 32, 32)).shape == (1, 512)
    stage1 = sorted(path.name for path in (tmp_path / "run/stage1").iterdir())
    assert stage1 == ["palm_global", "palm_local", "vein_global", "vein_local"]
    # Plan A: branches, BatchNorm statistics included, are those of stage 1.
    for name in stage1:
        alone = weights(pvzoo.create(f"local-dir:{tmp_path / 'run/stage1' / name / 'model'}"))
        for key in (key for key in alone if key.startswith("branches.")):
            assert torch.equal(alone[key], weights(model)[key]), key
    facts = json.loads((tmp_path / "run/stage2/run.json").read_text())
    assert facts["protocol"].startswith("open_subject(")
    assert facts["parts"]["train"] == {"identities": 14, "subjects": 7, "samples": 56}
    assert facts["frozen_parameters"] == sum(p.numel() for p in model.branches.parameters())
    assert (tmp_path / "run/stage2/curves.png").stat().st_size > 1000


def states(checkpoint: Path) -> list[torch.Tensor]:
    """The tensors of the model and of the optimiser."""
    held = SafeCheckpointIO().load_checkpoint(checkpoint)
    known = [moments for state in held["optimizer_states"] for moments in state["state"].values()]
    return [tensor for tensors in (held["state_dict"], *known) for tensor in tensors.values()]


KILLED = """
import json, sys
from pvzoo.training.recipe import list_recipes, load_recipe
from pvzoo.training.machine import Machine
from pvzoo.training.run import train
train("stage1", sys.argv[1], overrides=json.loads(sys.argv[2]), machine=Machine(accelerator="cpu", progress=False))
"""


@pytest.mark.parametrize(
    "more",
    [
        {},
        pytest.param({"ema": 0.9}, marks=pytest.mark.slow),
        pytest.param({"batch.accumulate": 2, "optimiser.name": "sgd"}, marks=pytest.mark.slow),
    ],
    ids=["plain", "ema", "sgd"],
)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, more: dict[str, Any]) -> None:
    recipe = {**ONE, "epochs": 4, "batch.workers": 0, **more}
    whole = train("stage1", tmp_path / "whole", overrides=recipe, machine=CPU)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "cut"), json.dumps(recipe)])
    metrics = tmp_path / "cut/palm_local/metrics.csv"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_text().count("\n") > 2):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut/palm_local/model").exists()
    resumed = train("stage1", tmp_path / "cut", overrides=recipe, resume=True, machine=CPU)
    assert rows(tmp_path / "cut/palm_local") == rows(tmp_path / "whole/palm_local")
    a, b = (weights(pvzoo.create(f"local-dir:{folder}")) for folder in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)
    # Not only the chosen weights: the last step's, and what the optimiser knows.
    x, y = (states(tmp_path / name / "palm_local/checkpoints/last.safetensors") for name in ("whole", "cut"))
    assert len(x) == len(y) > 100
    assert all(map(torch.equal, x, y))


@pytest.mark.parametrize(
    ("devices", "environment", "place"),
    [
        (1, {}, 0),
        ("1,", {}, 1),
        ("2,3", {}, 2),
        (4, {"NTASKS": "4", "NTASKS_PER_NODE": "4", "NODEID": "0", "PROCID": "3", "LOCALID": "3"}, 3),
    ],
    ids=["one", "named", "several", "slurm"],
)
def test_features_are_computed_on_the_device_that_trains(
    monkeypatch: pytest.MonkeyPatch, devices: int | str, environment: dict[str, str], place: int
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)  # which Lightning sets
    for name, value in environment.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert device_of(Machine(accelerator="cuda", devices=devices)) == torch.device("cuda", place)


@contextmanager
def running(out: Path, *settings: str) -> Iterator[subprocess.Popen[str]]:
    """``pvzoo train`` in a process of its own, after its first epoch."""
    command = ["train", "stage1", "--model", "stage1_convnext_palm_nano", "--data", "synthpalm-mini", "-o", str(out)]
    how = ["--image-size=32", "--set=epochs=500", "--set=batch.size=16", "--accelerator=cpu", *settings]
    process = subprocess.Popen([sys.executable, "-m", "pvzoo", *command, *how], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not (out / "palm_local/checkpoints/last.safetensors").is_file():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_a_worker_that_is_killed_ends_the_run_with_an_error_that_says_so(tmp_path: Path) -> None:
    with running(tmp_path, "--set=batch.workers=1") as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert children
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        _, told = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "a process that loads images ended: " in told
    assert "lower batch.workers, and resume from the last checkpoint" in told and "Traceback" not in told
    assert (tmp_path / "palm_local/checkpoints/last.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of a running process's files")
def test_where_no_checkpoint_can_be_written_the_last_one_is_kept(tmp_path: Path) -> None:
    import resource

    with running(tmp_path) as process:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))  # as a disk that is full
        _, told = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "the checkpoint cannot be written: " in told and "the last one is untouched" in told, told
    kept = tmp_path / "palm_local/checkpoints/last.safetensors"
    assert states(kept)
    assert [path.name for path in kept.parent.iterdir() if path.suffix != ".safetensors"] == []


def test_a_run_that_has_ended_is_not_trained_again(tmp_path: Path) -> None:
    recipe = {**ONE, "epochs": 1}
    made = train("stage1", tmp_path / "run", overrides=recipe, machine=CPU)
    before = (made / "model.safetensors").stat().st_mtime_ns
    assert train("stage1", tmp_path / "run", overrides=recipe, resume=True, machine=CPU) == made
    assert (made / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_that_was_moved_goes_on_and_knows_what_was_best(tmp_path: Path) -> None:
    recipe = {**ONE, "epochs": 1}
    made = train("stage1", tmp_path / "old", overrides=recipe, machine=CPU)
    whole = weights(pvzoo.create(f"local-dir:{made}"))
    shutil.rmtree(made)  # as if it had been ended just before
    (tmp_path / "old").rename(tmp_path / "new")
    folder = (tmp_path / "new/palm_local/checkpoints").resolve()
    kept = Kept(folder, "best", "dev_eer")
    state = SafeCheckpointIO().load_checkpoint(folder / "last.safetensors")["callbacks"][kept.state_key]
    kept.load_state_dict(state)
    assert kept.best_model_score == state["best_model_score"] is not None
    assert kept.best_k_models == {str(folder / "best.safetensors"): kept.best_model_score}
    resumed = train("stage1", tmp_path / "new", overrides=recipe, resume=True, machine=CPU)
    again = weights(pvzoo.create(f"local-dir:{resumed}"))
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_another_recipe_cannot_be_resumed_and_a_run_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(RunError, match="there is no run to resume; leave out --resume"):
        train("stage1", out, overrides=ONE, resume=True, machine=CPU)
    with pytest.raises(DataError):
        train("stage1", out, overrides={**ONE, "data.source": "nowhere"}, machine=CPU)
    assert [path.name for path in out.iterdir() if path.name != ".lock"] == []  # nothing was begun
    with claimed(out, "recipe.yaml", load_recipe("stage1", {**ONE, "data.source": "nowhere"}).to_dict(), False):
        pass
    with pytest.raises(RunError, match="holds a run; --resume goes on with it, or choose another folder"):
        train("stage1", out, overrides=ONE, machine=CPU)
    with pytest.raises(RunError, match=r"another recipe; data.source, optimiser.lr differ"):
        train("stage1", out, overrides={**ONE, "optimiser.lr": 1e-4}, resume=True, machine=CPU)


def test_a_folder_that_another_process_writes_is_left_alone(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(RunError, match="another process is writing this run; wait for it, or choose another folder"),
    ):
        train("stage1", tmp_path, overrides=ONE, machine=CPU)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"data.source": "synthpalm-minni"}, DataError, "synthpalm-minni: neither a SynthPalm release nor a table or"),
        ({"init": ["nowhere"]}, PvzooError, "init nowhere: there is no such folder, and no model named 'nowhere'"),
        ({"batch.size": 64}, DataError, "56 samples are too few for a batch of 64"),
        ({"batch.size": 40, "batch.samples": 2}, DataError, "a batch of 20 identities cannot be made of 14"),
        ({"epoch_share": 0.1}, DataError, "epoch_share: 0.1 of 3 batches is none; set at least 0.334"),
        ({"data.protocol_params": {"folds": 11}}, DataError, "10 subjects cannot be split into 11 folds"),
        ({"optimiser.lr": 1e30, "optimiser.clip_norm": None, "epochs": 3}, TrainingError, "the loss is not finite (cl"),
    ],
)
def test_what_cannot_be_trained_is_an_error(tmp_path: Path, changes: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error) as caught:
        train("stage1", tmp_path / "run", overrides={**ONE, "epochs": 1, **changes}, machine=CPU)
    assert message in str(caught.value)
    assert not (tmp_path / "run/palm_local/model").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"accelerator": "tpu"}, "cannot train here with accelerator tpu, devices 1, num_nodes 1, strategy auto: "),
        ({"accelerator": "cudaa"}, "You selected an invalid accelerator name"),
        ({"devices": 0}, "`Trainer(devices=0)` value is not a valid input"),
        ({"devices": "two"}, "devices two, "),
        ({"strategy": "dpp"}, "You selected an invalid strategy name"),
    ],
)
def test_a_machine_that_is_not_as_asked_is_an_error_before_anything_is_written(
    tmp_path: Path, asked: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError, match=re.escape(message)):
        train("stage1", tmp_path / "run", overrides=ONE, machine=replace(CPU, **asked))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry run"])
@pytest.mark.parametrize(
    ("init", "message"),
    [
        ([], "the recipe leaves all branches as they are, and these are random: name a model of 'pvzoo list --pretr"),
        (
            ["--init", "saved"],
            r"init saved: .* It is stage2_local_nano: --model stage2_local_nano trains that\n",
        ),
    ],
    ids=["random", "another model"],
)
def test_a_stage_2_needs_branches_to_start_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, init: list[str], message: str, dry: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pvzoo.create("stage2_local_nano", image_size=32).save("saved")
    settings = [
        "--set=batch.size=16",
        "--set=precision=fp32",
        "--set=cache_features=1",
        "--image-size=32",
        "--accelerator=cpu",
    ]
    command = ["train", "stage2_plan_a", "--model", "stage2_global_nano", "--data", "synthpalm-mini", *settings]
    done = call(*command, *init, "-o", "run", *dry)
    assert done.code == 2
    assert re.match(f"error: {message}", done.err), done.err
    assert {path.name for path in tmp_path.glob("run/*")} <= {".lock"}  # features of random branches least of all


def test_mixed_precision_clips_gradients_too(tmp_path: Path) -> None:
    how = {"name": "sgd", "clip_norm": 1e-4, "lr": 1.0, "weight_decay": 0.0, "momentum": 0.0}
    recipe = {**ONE, "precision": "bf16", "epochs": 1, "optimiser": how, "schedule": {"warmup": 0.0, "final": 1.0}}
    made = train("stage1", tmp_path / "run", overrides=recipe, machine=CPU)
    model = pvzoo.create(f"local-dir:{made}")
    torch.manual_seed(0)  # as the recipe
    start = pvzoo.Model(model.spec).state_dict()
    moved = torch.cat([(value - start[name]).flatten() for name, value in model.named_parameters()]).detach().norm()
    assert 1e-4 < float(moved) < 3.1e-4  # three steps of the largest norm, in no opposite directions


def test_epochs_may_be_a_share_of_the_batches(tmp_path: Path) -> None:
    train("stage1", tmp_path / "run", overrides={**ONE, "epochs": 3, "epoch_share": 0.34}, machine=CPU)
    checkpoint = SafeCheckpointIO().load_checkpoint(tmp_path / "run/palm_local/checkpoints/last.safetensors")
    assert checkpoint["global_step"] == 3  # of 3 an epoch


def test_a_seed_may_be_as_large_as_a_date(tmp_path: Path) -> None:
    train("stage1", tmp_path / "run", overrides={**ONE, "epochs": 1, "seed": 20260131123456}, machine=CPU)


def test_stage_1_of_another_architecture_is_refused(tmp_path: Path) -> None:
    made = train("stage1", tmp_path / "one", overrides={**ONE, "epochs": 1}, machine=CPU)
    changes = {**SMALL, "model": "stage2_spatial_nano", "epochs": 1, "init": [str(made)]}
    with pytest.raises(WeightsError, match=r"no source holds branch palm.global_, vein.global_, vein.local"):
        train("stage2_plan_b", tmp_path / "two", overrides=changes, machine=CPU)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_that_was_saved_in_half_precision_trains_in_full(tmp_path: Path, precision: str) -> None:
    spec = load_recipe("stage1", ONE).spec(14)
    pvzoo.create(spec, dtype=torch.bfloat16).save(tmp_path / "half")
    recipe = {**ONE, "epochs": 1, "precision": precision, "init": [str(tmp_path / "half")]}
    made = train("stage1", tmp_path / "run", overrides=recipe, machine=CPU)
    assert pvzoo.create(f"local-dir:{made}").dtype == torch.float32


def test_modality_dropout_and_every_loss_train(tmp_path: Path) -> None:
    changes = {
        **SMALL,
        "model": "stage2_shared_nano",
        "epochs": 1,
        "modality_dropout": 0.5,
        "losses": {"label_smoothing": 0.1, "supcon": 0.2, "triplet": 0.1, "consistency": 0.1},
        "batch.samples": 2,
    }
    made = train("end_to_end", tmp_path / "run", overrides=changes, machine=CPU)
    model = pvzoo.create(f"local-dir:{made}")
    image = torch.rand(2, 1, 32, 32)
    assert model.embed(image, None).isfinite().all() and model.embed(None, image).isfinite().all()


@pytest.fixture(scope="module")
def lacking(palms: Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table in which a quarter of the samples have no vein."""
    file = tmp_path_factory.mktemp("lacking") / "lacking.csv"
    kept = (r for r in palms if r.modality == "palm" or (r.session, r.sample) != (1, 1))
    Table(kept, palms.root).write(file)
    return file


@pytest.mark.parametrize("how", [{"modality_dropout": 0.5}, KEEP], ids=["dropped", "lacking"])
def test_batchnorm_trains_where_a_sample_has_its_modalities_for_itself(
    tmp_path: Path, lacking: Path, how: dict[str, Any]
) -> None:
    norms = {"embedding.bnneck": True, "branches.global.alignment": {"name": "linear", "params": {"batch_norm": True}}}
    changes = {**SMALL, "data.source": str(lacking), "model": "stage2_shared_nano", "overrides": norms}
    changes |= {"batch.size": 4, "epochs": 1, **how}
    made = train("end_to_end", tmp_path / "run", overrides=changes, machine=CPU)
    last = SafeCheckpointIO().load_checkpoint(tmp_path / "run/checkpoints/last.safetensors")
    # The neck saw each batch once and as a whole.
    assert weights(pvzoo.create(f"local-dir:{made}"))["neck.num_batches_tracked"] == last["global_step"] > 1


def test_stage_1_leaves_out_what_has_no_image_for_a_branch_and_says_so(tmp_path: Path, lacking: Path) -> None:
    changes = {**ONE, "model": "stage2_local_nano", "data.source": str(lacking), "epochs": 1, **KEEP}
    run = train("stage1", tmp_path / "run", overrides=changes, machine=CPU)
    facts = {name: json.loads((run / name / "run.json").read_text()) for name in ("palm_local", "vein_local")}
    assert [each["parts"]["train"]["samples"] for each in facts.values()] == [24, 18]
    assert [each["notes"] for each in facts.values()] == [[], ["left out: 8 samples with no vein image"]]


def test_what_is_left_to_compare_is_what_a_list_names(lacking: Path) -> None:
    split = open_protocol("open_subject", {"incomplete": "keep"}).split(Table.read(lacking))
    places = range(len(split.dev.samples))
    listed = replace(split.dev, listed=tuple((a, b) for a in places for b in places if a != b))
    vein = branch_specs(pvzoo.spec("stage2_local_nano"))["vein_local"]
    left = samples_for(vein, replace(split, dev=listed)).dev
    assert left.listed is not None
    named = {(left.gallery[a], left.probes[b]) for a, b in left.listed}
    has = [pair for pair in split.dev.samples if pair.images["vein"]]
    assert named == {(a, b) for a in has for b in has if a != b} and len(has) == 6


def test_a_branch_that_cannot_be_trained_is_an_error_before_any_other_is(tmp_path: Path, lacking: Path) -> None:
    kept = (r for r in Table.read(lacking) if r.modality == "palm" or r.subject == "1")
    Table(kept, lacking.parent).write(tmp_path / "few.csv")
    changes = {**ONE, "model": "stage2_local_nano", "data.source": str(tmp_path / "few.csv"), "epochs": 1, **KEEP}
    with pytest.raises(DataError, match=r"samples with no vein image; open_subject.*: no sample is left"):
        train("stage1", tmp_path / "run", overrides=changes, machine=CPU)
    assert not (tmp_path / "run/palm_local").exists()


def test_stage_1_trains_every_branch_under_the_name_it_has_in_the_whole_model() -> None:
    whole = pvzoo.create("stage2_spatial_nano", num_classes=5)
    specs = branch_specs(whole.spec)
    names = {
        name for spec in specs.values() for name in pvzoo.create(spec).state_dict() if name.startswith("branches.")
    }
    assert names == {name for name in whole.state_dict() if name.startswith("branches.")}
    shared = branch_specs(pvzoo.create("stage2_shared_nano").spec)
    assert list(shared) == ["palm_vein_global", "palm_vein_local"]


def test_the_test_split_is_out_of_reach(tmp_path: Path) -> None:
    from pvzoo.data.module import PairDataModule

    images = open_images(load_recipe("stage1", SMALL).data)
    split = open_protocol("open_subject").split(images.table)
    module = PairDataModule(split, pvzoo.spec("stage2_spatial_nano"), reader=images.reader)
    with pytest.raises(DataError, match="the test split cannot be read while training"):
        module.test_dataloader()


def test_without_lightning_the_command_says_what_to_install(python: Callable[..., Any]) -> None:
    code = "import sys; sys.modules['lightning'] = None; from pvzoo.cli import main; sys.argv[0] = 'pvzoo'; main()"
    done = python("-c", code, "train", "two_stage", "--data", "synthpalm-mini", "-o", "first")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: this needs Lightning, .*: pip install 'pvzoo\[train\]'\n", done.stderr), done.stderr


def test_the_command_trains_and_says_what_to_do_next(tmp_path: Path, call: Any) -> None:
    settings = [f"--set={path}={value}" for path, value in (("epochs", 1), ("batch.size", 16), ("precision", "fp32"))]
    settings.append("--image-size=32")
    command = ["train", "stage1", "--model", "stage1_convnext_palm_nano", "--data", "synthpalm-mini", *settings]
    seen = call(*command, "-o", tmp_path / "dry", "--dry-run")
    assert seen.code == 0, seen.err
    assert "trained at 0.001: branches, alignments, fusions, neck, head" in seen.out
    assert "56 samples of 14 identities" in seen.out
    assert re.search(r"palm_local\tmemory\t\d\.\d GB at the peak of these steps", seen.out)
    time = r"palm_local\ttime\t3 steps of (\S+) (ms|s): (\S+) (ms|s), less"
    assert re.search(time, seen.out)
    once = call(*command, "--set=batch.size=56", "-o", tmp_path / "dry", "--dry-run").out
    found = re.search(time.replace("3 steps", "1 step"), once)
    assert found and float(found[1]) > 0 and found[1] == found[3], once
    assert (tmp_path / "dry/palm_local.png").is_file() and not (tmp_path / "dry/recipe.yaml").exists()
    done = call(*command, "-o", tmp_path / "run", "--accelerator", "cpu")
    model = tmp_path / "run/palm_local/model"
    assert done.code == 0, done.err
    assert f"model: {model}" in done.out
    assert f"pvzoo compare --model {model}" in done.err
    again = call(*command, "-o", tmp_path / "run")
    assert again.code == 2 and "--resume goes on with it, or choose another folder" in again.err


def test_what_a_training_shows_and_leaves_to_read(tmp_path: Path, call: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    command = ["train", "stage1", "--model", "stage1_convnext_palm_nano", "--data", "synthpalm-mini"]
    how = ["--image-size=32", "--set=epochs=2", "--set=batch.size=16", "--accelerator=cpu"]
    done = call(*command, *how, "-o", tmp_path / "run")
    shown = [line for line in done.err.splitlines() if line.startswith("palm_local: epoch")]
    form = r"palm_local: epoch {}/2, loss \d+\.\d+, dev EER \d+\.\d\d %, [\d,]+ samples/s, 0:\d\d:\d\d left"
    assert len(shown) == 2 and all(re.fullmatch(form.format(n), line) for n, line in enumerate(shown, 1)), shown
    with (tmp_path / "run/palm_local/metrics.csv").open(newline="") as lines:
        found = list(csv.DictReader(lines))
    assert [row["epoch"] for row in found] == ["1", "2"] and all(float(row["samples_per_second"]) > 0 for row in found)
    board = EventAccumulator(str(tmp_path / "run/palm_local/tensorboard"))
    board.Reload()
    assert [event.value for event in board.Scalars("dev_eer")] == pytest.approx([float(r["dev_eer"]) for r in found])


@pytest.mark.slow
def test_compiled_backbones_train_to_nearly_the_same_weights(tmp_path: Path) -> None:
    tiny = {"branches.local.backbone": {"name": "timm", "params": {"arch": "test_convnext"}}}
    one = {**ONE, "epochs": 1, "overrides": tiny}
    plain = train("stage1", tmp_path / "plain", overrides=one, machine=CPU)
    compiled = train("stage1", tmp_path / "compiled", overrides={**one, "compile": True}, machine=CPU)
    a, b = (weights(pvzoo.create(f"local-dir:{folder}")) for folder in (plain, compiled))
    assert a.keys() == b.keys() and any(not torch.equal(a[name], b[name]) for name in a)  # it was another code
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=1e-3)


def test_channels_last_trains_the_same(tmp_path: Path) -> None:
    plain = train("stage1", tmp_path / "plain", overrides={**ONE, "epochs": 1}, machine=CPU)
    other = train("stage1", tmp_path / "other", overrides={**ONE, "epochs": 1, "channels_last": True}, machine=CPU)
    a, b = (weights(pvzoo.create(f"local-dir:{folder}")) for folder in (plain, other))
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-2, atol=1e-3)


def test_the_command_lists_recipes(call: Any) -> None:
    assert [line.split("\t")[0] for line in call("recipes").out.splitlines()] == list_recipes()
