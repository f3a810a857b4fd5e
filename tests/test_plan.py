"""Plans: which parameters a recipe trains, and that the rest does not move."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import pvzoo
from pvzoo.training.plan import PlanError, make_plan
from pvzoo.training.recipe import Group


@pytest.fixture(scope="module")
def model() -> pvzoo.Model:
    return pvzoo.create("stage2_spatial_nano", image_size=64, num_classes=4, **{"embedding.bnneck": True})


def groups(*parts: Any, **more: Any) -> list[Group]:
    return [Group(parts=part, **more) for part in parts]


def test_every_parameter_is_in_one_group_or_frozen(model: pvzoo.Model) -> None:
    plan = make_plan(model, groups(("alignments", "head"), ("branches.palm",), ("branches.palm.local",)))
    first, palm, local = (set(members) for members in plan.members)
    assert {name.split(".")[0] for name in first} == {"alignments", "head"}
    assert all(name.startswith("branches.palm.global_") for name in palm)  # the longer part takes the local branch
    assert all(name.startswith("branches.palm.local.") for name in local)
    everything = [*first, *palm, *local, *plan.frozen]
    assert sorted(everything) == sorted(name for name, _ in model.named_parameters())


def test_a_branch_is_named_as_in_the_spec(model: pvzoo.Model) -> None:
    assert make_plan(model, groups(("branches.vein.global",))).members[0]


def test_parameters_that_the_embedding_does_not_depend_on_are_frozen(model: pvzoo.Model) -> None:
    modes = [module.training for module in model.modules()]
    plan = make_plan(model, groups(("branches", "alignments", "fusions", "neck", "head")))
    norms = {f"branches.{m}.local.net.head.norm.{what}" for m in ("palm", "vein") for what in ("weight", "bias")}
    assert set(plan.frozen) == norms | {"neck.bias"}  # maps of ConvNeXt do not go through its last norm
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_bias_of_a_bnneck_stays_at_zero(model: pvzoo.Model) -> None:
    plan = make_plan(model, groups(("neck",)))
    assert list(plan.members[0]) == ["neck.weight"]


def test_frozen_parts_get_no_gradient_and_their_batchnorm_does_not_move(model: pvzoo.Model) -> None:
    plan = make_plan(model, groups(("alignments", "fusions", "neck", "head")))
    model.train()
    plan.apply(model, 0)
    before = {name: value.clone() for name, value in model.branches.state_dict().items()}
    model(*torch.rand(2, 4, 1, 64, 64), labels=torch.arange(4)).logits.sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.branches.state_dict().items())
    assert all(parameter.grad is None for parameter in model.branches.parameters())
    norms = {name: m.training for name, m in model.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)}
    assert {on for name, on in norms.items() if name.startswith("branches")} == {False}
    assert {on for name, on in norms.items() if not name.startswith("branches")} == {True}


def test_a_group_can_begin_later(model: pvzoo.Model) -> None:
    plan = make_plan(model, [*groups(("head",)), *groups(("branches.palm",), from_epoch=2)])
    trained = []
    for epoch in (1, 2):
        plan.apply(model, epoch)
        trained.append({name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad})
    assert trained == [{"head"}, {"head", "branches"}]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            "branches.plam",
            "nothing of model stage2_spatial_nano is named 'branches.plam'; did you mean 'branches.palm'?",
        ),
        ("branches.palm.local.nett", "did you mean 'branches.palm.local.net'?"),
    ],
)
def test_a_part_that_is_not_there_is_an_error(model: pvzoo.Model, part: str, message: str) -> None:
    model.spec.__dict__["name"] = "stage2_spatial_nano"
    with pytest.raises(PlanError) as caught:
        make_plan(model, groups((part,)))
    assert message in str(caught.value)
