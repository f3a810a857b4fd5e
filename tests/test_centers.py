"""Class centres in training: samples and shards of them give the losses and steps that the whole matrix gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from pvzoo.plugins import host
from pvzoo.registry import Head
from pvzoo.training.centers import ClassCenters, center_head

DIM, CLASSES, BATCH = 8, 23, 6
CPU = torch.device("cpu")


def build(name: str = "arcface", classes: int = CLASSES, **params: Any) -> Any:
    torch.manual_seed(0)
    entry = host().find("head", name)
    assert isinstance(entry, Head)
    return entry.builder()(entry.params(**params), dim=DIM, num_classes=classes).train()


def centers_of(head: Any, **more: Any) -> ClassCenters:
    return ClassCenters(head, **{"batch": BATCH, "seed": 0, "shard": False, "device": CPU, **more})


def batch(step: int = 0, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(BATCH, DIM, generator=generator), torch.randint(classes, (BATCH,), generator=generator)


def optimiser_of(name: str, parameter: nn.Parameter) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD([parameter], lr=0.1, momentum=0.9, weight_decay=0.01, fused=True)
    return torch.optim.AdamW([parameter], lr=0.01, weight_decay=0.01, fused=True)


def moved(centers: ClassCenters, optimiser: torch.optim.Optimizer, step: int) -> float:
    embedding, labels = batch(step)
    optimiser.zero_grad()
    loss = centers.loss(embedding, labels, step=step)
    loss.backward()
    centers.before_step(optimiser)
    optimiser.step()
    centers.after_step(optimiser)
    return float(loss.detach())


HEADS = [("arcface", {}), ("cosface", {}), ("adaface", {}), ("subcenter_arcface", {"centers": 3})]


@pytest.mark.parametrize(("name", "params"), HEADS)
def test_logits_of_some_classes_are_those_of_all(name: str, params: dict[str, Any]) -> None:
    head = build(name, **params).eval()
    embedding, labels = batch()
    chosen = torch.cat([labels.unique(), torch.tensor([k for k in range(CLASSES) if k not in labels][:4])])
    places = torch.stack([(chosen == label).nonzero()[0, 0] for label in labels])
    weight = head.weight.unflatten(0, (CLASSES, -1))[chosen].flatten(0, 1)
    torch.testing.assert_close(head(embedding, places, weight), head(embedding, labels)[:, chosen])
    # A sample whose class is not there has no margin anywhere.
    without = torch.full_like(places, -1)
    torch.testing.assert_close(head(embedding, without, weight), head(embedding)[:, chosen])


def test_the_gradient_without_normalised_centres_is_exact() -> None:
    head = build().double()
    embedding, labels = (batch()[0].double().requires_grad_(), batch()[1])
    weight = head.weight.detach().clone().mul_(100).requires_grad_()
    assert torch.autograd.gradcheck(lambda e, w: head(e, labels, w), (embedding, weight))
    zero = torch.zeros(3, DIM, requires_grad=True)
    head.float()(batch()[0], torch.zeros(BATCH, dtype=torch.long), zero).sum().backward()
    assert zero.grad is not None and zero.grad.isfinite().all()


@pytest.mark.parametrize(("rate", "drawn"), [(0.01, BATCH), (0.3, 7), (0.5, 12), (0.9, 21)])
def test_the_classes_of_the_batch_are_always_drawn(rate: float, drawn: int) -> None:
    head = build(sample_rate=rate)
    centers = centers_of(head)
    assert centers.rows.shape == (drawn, DIM)
    seen = set()
    for step in range(200):
        embedding, labels = batch(step)
        centers.loss(embedding, labels, step=step)
        index = centers._index
        assert index is not None and set(labels.tolist()) <= set(index.tolist())
        assert index.tolist() == sorted(set(index.tolist())) and len(index) == drawn
        assert torch.equal(centers.rows, head.weight[index])
        seen |= set(index.tolist())
    assert seen == set(range(CLASSES))


def test_the_rest_is_drawn_uniformly() -> None:
    centers = centers_of(build(sample_rate=0.5))
    label, hits = torch.tensor([3]), torch.zeros(CLASSES)
    for step in range(2000):
        centers._draw(label, step)
        hits[centers._index] += 1
    assert hits[3] == 2000
    others = torch.cat([hits[:3], hits[4:]]) / 2000
    assert (others - 11 / 22).abs().max() < 5 * (0.25 / 2000) ** 0.5  # 12 rows, of which one is label 3's


@pytest.mark.parametrize(("name", "params"), HEADS)
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_all_classes_drawn_give_the_steps_of_the_plain_head(name: str, params: dict[str, Any], optimiser: str) -> None:
    plain, head = build(name, scale=16, **params), build(name, scale=16, **params)
    for each in (plain, head):
        each.weight.data *= 100  # short centres turn far in a step, and rounding with them
    centers = centers_of(head, shard=True)  # over one process: all of it
    one, other = optimiser_of(optimiser, plain.weight), optimiser_of(optimiser, centers.rows)
    for step in range(5):
        embedding, labels = batch(step)
        one.zero_grad()
        loss = F.cross_entropy(plain(embedding, labels), labels)
        loss.backward()
        one.step()
        assert moved(centers, other, step) == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(head.weight, plain.weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_row_moves_as_an_optimiser_of_its_own_would_move_it(name: str) -> None:
    """Lazily: rows that were not drawn keep their values and momentum, and are not decayed."""
    head, rate = build("subcenter_arcface", centers=2, sample_rate=0.4), 0.4
    centers = centers_of(head)
    optimiser = optimiser_of(name, centers.rows)
    weight = head.weight.detach().clone().view(CLASSES, -1)
    state = [torch.zeros_like(weight) for _ in range(2)]
    for step in range(1, 7):
        before = head.weight.detach().clone()
        moved(centers, optimiser, step)
        index, gradient = centers._index, centers.rows.grad
        assert index is not None and gradient is not None and len(index) == round(rate * CLASSES + 0.5)
        untouched = torch.ones(CLASSES, dtype=torch.bool).scatter(0, index, False)
        assert torch.equal(head.weight.view(CLASSES, -1)[untouched], before.view(CLASSES, -1)[untouched])
        gradient = gradient.view(len(index), -1)
        if name == "sgd":
            state[0][index] = 0.9 * state[0][index] + gradient + 0.01 * weight[index]
            weight[index] -= 0.1 * state[0][index]
        else:
            weight[index] *= 1 - 0.01 * 0.01
            state[0][index] = 0.9 * state[0][index] + 0.1 * gradient
            state[1][index] = 0.999 * state[1][index] + 0.001 * gradient**2
            root = (state[1][index] / (1 - 0.999**step)).sqrt() + 1e-8
            weight[index] -= 0.01 * state[0][index] / (1 - 0.9**step) / root
        torch.testing.assert_close(head.weight.view(CLASSES, -1), weight, rtol=1e-4, atol=1e-6)


def test_what_was_saved_goes_on_as_if_nothing_had_happened() -> None:
    whole = build(sample_rate=0.4)
    centers = centers_of(whole)
    optimiser = optimiser_of("adamw", centers.rows)
    for step in range(4):
        if step == 2:
            weight, values = centers.save()
            kept = weight.clone(), {name: value.clone() for name, value in values.items()}
            inner = optimiser.state_dict()
            inner = {**inner, "state": {0: {k: v.clone() for k, v in inner["state"][0].items()}}}
        moved(centers, optimiser, step)
    again = build(sample_rate=0.4)
    resumed = centers_of(again)
    other = optimiser_of("adamw", resumed.rows)
    other.load_state_dict(inner)
    resumed.load(*kept)
    for step in (2, 3):
        moved(resumed, other, step)
    assert torch.equal(again.weight, whole.weight)


def test_the_head_itself_knows_nothing_of_samples() -> None:
    embedding, labels = batch()
    assert torch.equal(build(sample_rate=0.1)(embedding, labels), build()(embedding, labels))
    assert list(build(sample_rate=0.1).state_dict()) == ["weight"]
    assert center_head(build("linear")) is None and center_head(build("arcface")) is not None


# --- several processes ------------------------------------------------------------------------------------------------

# A linear "backbone" in front of the head, trained by one process or several on the same samples.
WORKER = """
import json, sys
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from pvzoo.plugins import host
from pvzoo.training.centers import ClassCenters

out, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if world > 1:
    where = f"file://{out}/store"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=world, timeout=timedelta(seconds=60))

def run(label, shard, name="arcface", smoothing=0.0, clip=None, seed=0, kind="sgd", **params):
    torch.manual_seed(0)
    entry = host().find("head", name)
    head = entry.builder()(entry.params(scale=16, **params), dim=8, num_classes=61).train()
    head.weight.data *= 100  # short centres turn far in a step, and rounding with them
    backbone = nn.Linear(5, 8)
    centers = None
    if shard or head.sample_rate < 1:
        centers = ClassCenters(head, batch=12, seed=seed, shard=shard, device=torch.device("cpu"))
    net = DistributedDataParallel(backbone) if world > 1 else backbone
    trained = [*backbone.parameters(), centers.rows if centers else head.weight]
    make = partial(torch.optim.SGD, momentum=0.9) if kind == "sgd" else torch.optim.AdamW
    optimiser = make(trained, lr=0.05, fused=True)
    losses = []
    for step in range(6):
        generator = torch.Generator().manual_seed(step)
        images, labels = torch.randn(12, 5, generator=generator), torch.randint(61, (12,), generator=generator)
        images, labels = images[rank::world], labels[rank::world]
        optimiser.zero_grad()
        embedding = net(images)
        if centers:
            loss = centers.loss(embedding, labels, step=step, label_smoothing=smoothing)
        else:
            loss = F.cross_entropy(head(embedding, labels), labels, label_smoothing=smoothing)
        loss.backward()
        if centers:
            centers.average()
        if clip:
            centers.clip(trained, clip) if centers else nn.utils.clip_grad_norm_(trained, clip)
        if centers:
            centers.before_step(optimiser)
        optimiser.step()
        if centers:
            centers.after_step(optimiser)
        loss = loss.detach()
        if world > 1:
            dist.all_reduce(loss)
        losses.append(loss / world)
    weight = centers.save()[0] if centers else head.weight.detach()
    found = {"weight": weight, "backbone": backbone.weight.detach(), "losses": torch.stack(losses)}
    save_file({k: v.clone() for k, v in found.items()}, f"{out}/{label}.{rank}of{world}.safetensors")

for label, case in json.loads(sys.argv[4]).items():
    run(label, **case)
if world > 1:
    dist.destroy_process_group()
"""

EXACT: dict[str, dict[str, Any]] = {
    "sharded": {"shard": True},
    "adamw": {"shard": True, "kind": "adamw"},
    "smoothed": {"shard": True, "smoothing": 0.1},
    "clipped": {"shard": True, "clip": 0.5},
    "subcenters": {"shard": True, "name": "subcenter_arcface", "centers": 3},
    "adaface": {"shard": True, "name": "adaface"},
    "sampled": {"shard": False, "sample_rate": 0.6, "clip": 0.5},
}
SAMPLED: dict[str, dict[str, Any]] = {
    "one": {"shard": True, "sample_rate": 0.6, "smoothing": 0.1},
    "again": {"shard": True, "sample_rate": 0.6, "smoothing": 0.1},
    "other": {"shard": True, "sample_rate": 0.6, "smoothing": 0.1, "seed": 1},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process, two and three made of each case."""
    out = tmp_path_factory.mktemp("trained")
    plain = {label: {**case, "shard": False} for label, case in EXACT.items()}
    for world, cases in ((1, plain), (2, EXACT | SAMPLED)):
        processes = [
            subprocess.Popen([sys.executable, "-c", WORKER, str(out), str(rank), str(world), json.dumps(cases)])
            for rank in range(world)
        ]
        assert [process.wait(timeout=120) for process in processes] == [0] * world
    return out


@pytest.mark.slow
@pytest.mark.parametrize("label", EXACT)
def test_two_processes_train_as_one(trained: Path, label: str) -> None:
    one = load_file(trained / f"{label}.0of1.safetensors")
    first, second = (load_file(trained / f"{label}.{rank}of2.safetensors") for rank in (0, 1))
    assert one["losses"].isfinite().all()
    for name in ("losses", "weight", "backbone"):
        torch.testing.assert_close(first[name], one[name], rtol=1e-4, atol=1e-5)
    assert torch.equal(first["backbone"], second["backbone"])


@pytest.mark.slow
def test_samples_of_shards_follow_from_the_seed(trained: Path) -> None:
    one, again, other = (load_file(trained / f"{label}.0of2.safetensors") for label in SAMPLED)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["weight"], other["weight"])
    assert one["losses"].isfinite().all()
