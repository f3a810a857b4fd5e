"""Recipes: what ships is valid, what is wrong is named, and what extends what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pvzoo import SpecError, UnknownNameError
from pvzoo.training.recipe import Growth, Recipe, list_recipes, load_recipe


def test_what_ships() -> None:
    assert list_recipes() == [
        "end_to_end", "stage1", "stage1_progressive", "stage2_plan_a", "stage2_plan_b", "stage2_shared", "two_stage"
    ]  # fmt: skip


@pytest.mark.parametrize("name", list_recipes())
def test_a_shipped_recipe_is_valid_says_what_it_is_and_survives_being_written(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.summary
    assert load_recipe(recipe.to_dict()) == recipe


def test_plan_a_freezes_the_branches_and_plan_b_trains_them_slowly() -> None:
    a, b = load_recipe("stage2_plan_a"), load_recipe("stage2_plan_b")
    assert (a.optimiser.name, a.optimiser.lr) == ("adam", 1e-3)
    assert [group.parts for group in a.plan] == [("alignments", "fusions", "neck", "head")]
    assert {part: group.lr for group in b.plan for part in group.parts} == {
        "alignments": 1e-3, "fusions": 1e-3, "neck": 1e-3, "head": 1e-3, "branches": 1e-5
    }  # fmt: skip


def test_steps_can_be_changed_from_outside() -> None:
    recipe = load_recipe("two_stage", {"steps.stage1.epochs": 3, "steps.stage2.optimiser.lr": 0.01})
    assert {name: (step.stage, step.epochs) for name, step in recipe.steps.items()} == {
        "stage1": (1, 3),
        "stage2": (2, 40),
    }
    assert recipe.steps["stage2"].optimiser.lr == 0.01
    assert recipe.steps["stage2"].optimiser.name == "adam"  # of the recipe that it extends


def test_what_is_set_without_a_step_is_set_in_every_one() -> None:
    recipe = load_recipe("two_stage", {"batch.size": 16, "epochs": 7, "steps.stage1.epochs": 3})
    assert [(step.batch.size, step.epochs) for step in recipe.steps.values()] == [(16, 3), (16, 7)]
    assert load_recipe("stage1", {"batch.size": 16}).batch.size == 16


@pytest.mark.parametrize("name", ["two_stage", "stage1_progressive"])
def test_only_the_first_step_starts_from_what_is_given_and_each_other_from_the_one_before(name: str) -> None:
    given = load_recipe(name, {"init": ["runs/mine"]})
    assert [step.init for step in given.steps.values()] == [("runs/mine",)] + [()] * (len(given.steps) - 1)
    last = list(given.steps)[-1]
    assert load_recipe(name, {f"steps.{last}.init": ["runs/mine"]}).steps[last].init == ("runs/mine",)


@pytest.mark.parametrize(
    ("growth", "shares"),
    [
        ({}, [1, 1, 1, 1, 1, 1, 1, 1]),
        ({"end": 0.5}, [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]),
        ({"begin": 0.25, "end": 0.5}, [0, 0, 0, 0.5, 1, 1, 1, 1]),
        ({"begin": 0.5, "end": 0.5}, [0, 0, 0, 0, 1, 1, 1, 1]),
    ],
)
def test_growth_goes_from_nothing_to_all(growth: dict[str, float], shares: list[float]) -> None:
    assert [Growth(**growth).at(epoch, 8) for epoch in range(8)] == shares


def test_extends_takes_what_is_not_said_anew(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: stage2_plan_b\nepochs: 3\noptimiser: {lr: 0.1}\n")
    mine, base = load_recipe(tmp_path / "mine.yaml"), load_recipe("stage2_plan_b")
    assert (mine.epochs, mine.optimiser.lr, mine.optimiser.name) == (3, 0.1, "adam")
    assert mine.plan == base.plan


def test_extends_that_goes_round_in_a_circle_is_refused(tmp_path: Path) -> None:
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text(f"extends: {b}\n")
    b.write_text(f"extends: {a}\n")
    with pytest.raises(SpecError, match="comes back to itself"):
        load_recipe(a)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "mine.yaml:1:8: epoch: unknown field; did you mean 'epochs'?"),
        ("epochs: 0", "mine.yaml:1:9: epochs: input should be greater than or equal to 1, got 0"),
        ("optimiser: {lr: fast}", "mine.yaml:1:17: optimiser.lr: input should be a valid number, got 'fast'"),
        (
            "optimiser: {name: adan}",
            "mine.yaml:1:19: optimiser.name: input should be 'adamw', 'adam' or 'sgd', got 'adan'",
        ),
        ("plan: [{parts: [backbones]}]", "mine.yaml:1:17: plan.0.parts.0: "),
        ("batch: {size: 10, samples: 4}", "batch.samples: 4 samples of each identity do not divide a batch of 10"),
        (
            "cache_features: 2",
            "cache_features: features of branches that are trained change; leave branches out of plan",
        ),
        (
            "{extends: stage2_plan_a, schedule: {augmentation: {end: 0.5}}}",
            "cache_features: cached features are augmented once and for all; leave schedule.augmentation out",
        ),
        ("epoch_share: 0", "epoch_share: input should be greater than 0, got 0"),
        ("schedule: {margin: {begin: 0.5, end: 0.2}}", "schedule.margin.end: 0.2 lies before begin, 0.5"),
        ("{stage: 1, modality_dropout: 0.1}", "modality_dropout: a branch alone has no other modality to go on with"),
        ("{shard_head: true, ema: 0.9}", "ema: no average is kept of a head that is sharded; leave out one of the two"),
        (
            "{shard_head: true, precision: fp16}",
            "precision: a step that overflows is skipped by each process for itself",
        ),
        ("[1]", "mine.yaml:1:1: should be a mapping of fields"),
        ("steps: {one: {epochs: -1}}", "steps.one.epochs: input should be greater than or equal to 1, got -1"),
        ("extends: stage3", "no recipe named 'stage3'; did you mean 'stage1'?"),
    ],
)
def test_faults_are_named_where_they_stand(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises((SpecError, UnknownNameError)) as caught:
        load_recipe(tmp_path / "mine.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two_stages", "no recipe named 'two_stages'; did you mean 'two_stage'?"),
        ("x", "no recipe named 'x'; there are end_to_end, stage1, "),
    ],
)
def test_an_unknown_name_is_an_error_with_a_suggestion(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load_recipe(name)
    assert str(caught.value).startswith(message)


def test_an_empty_mapping_is_the_default_recipe() -> None:
    default: Any = load_recipe({})
    assert default == Recipe()
