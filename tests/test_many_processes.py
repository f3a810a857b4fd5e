"""Training by several processes: they do what one does, fail together, go on together, and work side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import pvzoo
from pvzoo.data.protocols import open_protocol
from pvzoo.data.sampling import InOrder
from pvzoo.data.table import Table
from pvzoo.synth import SynthConfig, generate
from pvzoo.training.checkpoint import SafeCheckpointIO
from pvzoo.training.folder import RunError, is_first
from pvzoo.training.jobs import JobError
from pvzoo.training.machine import Machine
from pvzoo.training.module import TrainingError
from pvzoo.training.run import train

# A map of ConvNeXt, whose last norm then gets no gradient, and no BatchNorm, whose statistics are each process's own.
TINY = """
preprocessing: {size: 32}
branches:
  local: {backbone: convnext_atto, features: map, alignment: identity}
fusion: {local: sum}
head: {name: arcface, params: {scale: 16, margin: 0.2}}
"""
SGD = {"name": "sgd", "lr": 0.02}  # Adam makes steps of the sign of a gradient, and so of its rounding
CPU = Machine(accelerator="cpu", progress=False)
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "tiny.yaml").write_text(TINY)
    model = str(tmp_path / "tiny.yaml")
    return {"model": model, "data.source": "synthpalm-mini", "precision": "fp32", "optimiser": SGD, "epochs": 2}


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Starts ``pvzoo train`` as a process that leads a group; what is left of the group ends with the test."""
    started = []

    def run(recipe: str, out: Path, changes: dict[str, Any], *options: str, launcher: tuple[str, ...] = ()) -> Any:
        settings = [f"--set={path}={json.dumps(value)}" for path, value in changes.items()]
        command = [*launcher, "-m", "pvzoo", "train", recipe, "-o", str(out), "--accelerator", "cpu", *settings]
        process = subprocess.Popen(
            [sys.executable, *command, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(pvzoo.__file__).parents[1])},
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        finally:
            process.communicate()


def ended(process: subprocess.Popen[str], seconds: float = 110) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 110
    while not file.is_file():
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.01)


def weights(model: Path) -> dict[str, torch.Tensor]:
    return pvzoo.create(f"local-dir:{model}").state_dict()


def assert_alike(one: Path, two: Path) -> None:
    """The same weights and metrics, to rounding."""
    first, second = weights(one / "model"), weights(two / "model")
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5)
    rows = [[line.split(",")[:5] for line in (run / "metrics.csv").read_text().splitlines()[1:]] for run in (one, two)]
    assert len(rows[0]) == len(rows[1])
    for (_, loss, eer, _, lr), (_, other_loss, other_eer, _, other_lr) in zip(*rows, strict=True):
        assert float(other_loss) == pytest.approx(float(loss), rel=1e-4)
        assert float(other_eer) == pytest.approx(float(eer), abs=0.02)  # two of 48 comparisons may swap places
        assert float(other_lr) == pytest.approx(float(lr))


def state(run: Path) -> dict[str, torch.Tensor]:
    """All that the last checkpoint holds of weights, averages, momentum and class centres."""
    kept = SafeCheckpointIO().load_checkpoint(run / "checkpoints/last.safetensors")
    return {name: value for name, value in tensors(kept) if not name.startswith(("/callbacks", "/loops"))}


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All in a nest of mappings and lists, by path."""
    if isinstance(value, torch.Tensor):
        yield path, value
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in inside:
        yield from tensors(item, f"{path}/{key}")


TWO = ("--devices", "2", "--strategy", "ddp")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "launcher"),
    [
        pytest.param({}, (), id="ddp"),
        pytest.param(
            {"shard_head": True, "optimiser": {**SGD, "clip_norm": 0.5}}, TORCHRUN, id="sharded", marks=pytest.mark.slow
        ),
        pytest.param({"overrides": {"head.params.sample_rate": 0.9}}, (), id="sampled"),
        pytest.param(
            {"plan": [{"parts": ["head"]}, {"parts": ["branches"], "from_epoch": 1}], "losses": {"supcon": 0.0}},
            (),
            id="unfrozen",
        ),
        pytest.param({"modality_dropout": 0.5}, (), id="dropout"),
    ],
)
def test_two_processes_train_as_one(
    tmp_path: Path, tiny: dict[str, Any], start: Start, more: dict[str, Any], launcher: tuple[str, ...]
) -> None:
    options = TWO if not launcher else ("--devices", "2", "--num-nodes", "1")
    process = start("end_to_end", tmp_path / "two", {**tiny, "batch.size": 8, **more}, *options, launcher=launcher)
    code, out, err = ended(process)
    assert code == 0, err
    assert out.count("model: ") == 1  # the first process speaks for all
    assert not list((tmp_path / "two").glob("**/.*partial"))
    facts = json.loads((tmp_path / "two/run.json").read_text())
    assert facts["frozen_parameters"] == 2 * 2 * 320  # the last norms of both ConvNeXts
    if "modality_dropout" in more:
        return  # each process drops modalities of samples of its own
    train("end_to_end", tmp_path / "one", overrides={**tiny, "batch.size": 16, **more}, machine=CPU)
    assert_alike(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
def test_two_processes_that_were_killed_go_on_as_if_nothing_had_happened(
    tmp_path: Path, tiny: dict[str, Any], start: Start, shard: bool
) -> None:
    overrides = {"head.params.sample_rate": 0.9} if shard else {}
    recipe = {**tiny, "batch.size": 8, "epochs": 4, "shard_head": shard, "overrides": overrides}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert ended(start("end_to_end", whole, recipe, *TWO))[0] == 0
    process = start("end_to_end", cut, recipe, *TWO)
    wait_for(cut / "checkpoints/last.safetensors", process)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(RunError, match="another process is writing this run"):
        train("end_to_end", cut, overrides=recipe, resume=True, machine=CPU)
    process.kill()  # the first; the other ends when it waits for this one
    process.wait()
    assert not (cut / "model").exists()
    resumed = start("end_to_end", cut, recipe, "--resume", *TWO)
    code, _, err = ended(resumed)
    assert code == 0, err
    a, b = weights(whole / "model"), weights(cut / "model")
    assert all(torch.equal(a[name], b[name]) for name in a)
    kept, same = state(whole), state(cut)
    assert kept.keys() == same.keys() and all(torch.equal(value, same[name]) for name, value in kept.items())
    assert not shard or kept["/class_centers/momentum_buffer"].shape == a["head.weight"].shape


@pytest.mark.slow
def test_a_sharded_run_goes_on_with_another_number_of_processes(
    tmp_path: Path, tiny: dict[str, Any], start: Start
) -> None:
    overrides = {"head.params.sample_rate": 0.9}
    recipe = {**tiny, "batch.size": 8, "epochs": 6, "shard_head": True, "overrides": overrides}
    process = start("end_to_end", tmp_path / "run", recipe, *TWO)
    wait_for(tmp_path / "run/checkpoints/last.safetensors", process)
    process.kill()
    process.wait()
    made = train("end_to_end", tmp_path / "run", overrides=recipe, resume=True, machine=CPU)
    assert all(value.isfinite().all() for value in weights(made).values())
    assert len((tmp_path / "run/metrics.csv").read_text().splitlines()) == 7


@pytest.mark.slow
def test_an_error_of_one_process_ends_all(tmp_path: Path, tiny: dict[str, Any], start: Start) -> None:
    generate(SynthConfig(seed=3, subjects=12, sessions=2, samples=2, size=32), tmp_path / "palms")
    changes = {**tiny, "data.source": str(tmp_path / "palms"), "batch.size": 8, "epochs": 50}
    process = start("end_to_end", tmp_path / "run", changes, *TWO)
    wait_for(tmp_path / "run/metrics.csv", process)
    split = open_protocol("open_subject").split(Table.read(tmp_path / "palms/table.csv"))
    image = split.root / split.train[0].records[0].path
    image.write_bytes(image.read_bytes()[:60])  # one process reads it, and the other waits
    code, _, err = ended(process, 60)
    assert code == 2 or code == -signal.SIGKILL  # Lightning ends the first when it sees that another has ended
    assert "error: " in err and image.name in err
    assert (tmp_path / "run/checkpoints/last.safetensors").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sync_batchnorm": True}, "sync_batchnorm: torch has none on the CPU; leave it out"),
        ({"shard_head": True, "overrides": {"head": "linear"}}, "shard_head: head 'linear' has no class centres that"),
    ],
)
@pytest.mark.slow
def test_what_several_processes_cannot_do_is_an_error(
    tmp_path: Path, tiny: dict[str, Any], start: Start, changes: dict[str, Any], message: str
) -> None:
    code, _, err = ended(start("end_to_end", tmp_path / "run", {**tiny, "batch.size": 8, **changes}, *TWO))
    assert code and f"error: {message}" in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard_head": True, "overrides": {"head": "linear"}}, "shard_head: head 'linear' has no class centres that"),
        (
            {"batch.accumulate": 2, "overrides": {"head.params.sample_rate": 0.5}},
            "head.params.sample_rate is 0.5: each step looks at other classes, so gradients of several steps cannot be "
            "summed; set batch.accumulate to 1, or sample_rate to 1",
        ),
    ],
)
def test_what_class_centres_cannot_do_is_an_error(
    tmp_path: Path, tiny: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TrainingError) as caught:
        train("end_to_end", tmp_path / "run", overrides={**tiny, "batch.size": 16, **changes}, machine=CPU)
    assert message in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_sampled_head_trains_and_goes_on_bit_by_bit(tmp_path: Path, tiny: dict[str, Any], ema: float | None) -> None:
    more = {"optimiser": {"name": "adamw"}, "overrides": {"head.params.sample_rate": 0.5}, "ema": ema, "batch.size": 7}
    recipe = {**tiny, **more, "epochs": 3}
    made = [train("end_to_end", tmp_path / "whole", overrides=recipe, machine=CPU)]

    from pvzoo.training import run

    class CutError(Exception):
        pass

    class Cutting(run.Journal):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            super().on_train_epoch_start(trainer, module)
            if trainer.current_epoch == 2:
                raise CutError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(CutError):
        patch.setattr(run, "Journal", Cutting)
        train("end_to_end", tmp_path / "cut", overrides=recipe, machine=CPU)
    made.append(train("end_to_end", tmp_path / "cut", overrides=recipe, resume=True, machine=CPU))
    a, b = (weights(folder) for folder in made)
    assert all(torch.equal(a[name], b[name]) for name in a)
    a, b = (state(tmp_path / name) for name in ("whole", "cut"))
    assert {"/class_centers/exp_avg", "/class_centers/exp_avg_sq"} < a.keys()
    assert a.keys() == b.keys() and all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_gradients_are_clipped_in_mixed_precision_too(tmp_path: Path, tiny: dict[str, Any], rate: float) -> None:
    """By a norm that nothing reaches, only decay would move; so the weights stay where they began."""
    more = {"precision": "bf16", "optimiser": {**SGD, "weight_decay": 0.0, "clip_norm": 1e-12}, "epochs": 1}
    recipe = {**tiny, **more, "overrides": {"head.params.sample_rate": rate}, "batch.size": 16}
    made = weights(train("end_to_end", tmp_path / "run", overrides=recipe, machine=CPU))
    torch.manual_seed(0)
    fresh = pvzoo.create(tiny["model"], num_classes=14).state_dict()
    for name, value in fresh.items():
        torch.testing.assert_close(made[name], value, rtol=0, atol=1e-9)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [4, 5, 7, 9, 12, 13, 25])
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_all_ranks_validate_equally_many_batches(world: int, count: int, size: int) -> None:
    samplers = [InOrder(count, size, rank=rank, world_size=world) for rank in range(world)]
    batches = {-(-len(sampler) // sampler.batch_size) for sampler in samplers}
    assert len(batches) == 1
    assert sorted(draw.position for sampler in samplers for draw in sampler) == list(range(count))
    assert world > 1 or samplers[0].batch_size == size


@pytest.mark.parametrize(
    ("env", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),  # the first of torchrun's second machine
        ({"NODE_RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"NODE_RANK": "0", "LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1"}, False),  # before Lightning starts the others of this machine
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
        ({"SLURM_PROCID": "0", "NODE_RANK": "0", "LOCAL_RANK": "1"}, False),
    ],
)
def test_the_first_process_is_known_before_they_meet(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], first: bool
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert is_first() is first


# --- branches side by side --------------------------------------------------------------------------------------------

BRANCHES: dict[str, Any] = {
    "model": "stage1_convnext_palm_nano",
    "data.source": "synthpalm-mini",
    "overrides": {
        "preprocessing.size": 32,
        "modalities": ["palm", "vein"],
        "fusion": {"local": "sum"},
    },
    "batch.size": 16,
    "precision": "fp32",
    "epochs": 1,
}


@pytest.mark.slow
def test_branches_side_by_side_are_those_in_turn(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    together = train("stage1", tmp_path / "jobs", overrides=BRANCHES, machine=Machine("cpu", progress=False, jobs=2))
    torch.set_num_threads(max(1, threads // 2))  # each had its share, and sums differ with their number
    try:
        alone = train("stage1", tmp_path / "turn", overrides=BRANCHES, machine=CPU)
    finally:
        torch.set_num_threads(threads)
    for name in ("palm_local", "vein_local"):
        a, b = weights(together / name / "model"), weights(alone / name / "model")
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert (together / "palm_local/log.txt").is_file()
    before = (together / "palm_local/model/model.safetensors").stat().st_mtime_ns
    train("stage1", together, overrides=BRANCHES, resume=True, machine=Machine("cpu", progress=False, jobs=2))
    assert (together / "palm_local/model/model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
def test_an_error_of_a_branch_is_told_and_the_others_end_first(tmp_path: Path) -> None:
    generate(SynthConfig(seed=3, subjects=12, sessions=2, samples=2, size=32), tmp_path / "palms")
    for image in (tmp_path / "palms/vein").rglob("*.png"):
        image.write_bytes(image.read_bytes()[:60])
    changes = {**BRANCHES, "data.source": str(tmp_path / "palms"), "batch.size": 8}
    machine = Machine("cpu", progress=False, jobs=2)
    with pytest.raises(JobError) as caught:
        train("stage1", tmp_path / "run", overrides=changes, machine=machine)
    first, *_, last = str(caught.value).splitlines()
    assert first.startswith("vein_local: ") and ".png" in first
    assert last == "what else ran has ended; mend it, and go on with --resume"
    assert (tmp_path / "run/palm_local/model/config.json").is_file()
    assert not (tmp_path / "run/vein_local/model").exists()


def alive(text: str) -> list[str]:
    """Processes that run with this text in their arguments or environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "environ").read_bytes() and folder.name != str(os.getpid()):
                found.append(folder.name)
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_branches_end_with_the_process_that_started_them(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals, code: int
) -> None:
    monkeypatch.setenv("PVZOO_TEST_MARK", str(tmp_path))
    process = start("stage1", tmp_path / "run", {**BRANCHES, "epochs": 1000}, "--jobs", "2")
    wait_for(tmp_path / "run/palm_local/metrics.csv", process)
    assert len(alive(str(tmp_path))) >= 3
    process.send_signal(sent)
    assert ended(process, 20)[0] == code
    deadline = time.monotonic() + 10
    while left := alive(str(tmp_path)):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_jobs_and_several_devices_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match="jobs train on one device each; leave out either jobs, or devices and num_nodes"
    ):
        train("stage1", tmp_path, overrides=BRANCHES, machine=Machine("cpu", devices=2, jobs=2))
