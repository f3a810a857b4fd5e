"""Ablation: arms that differ in one thing, compared subject by subject; runs that go on, and arms that fail alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pvzoo import SpecError, UnknownNameError
from pvzoo.ablation.compare import Measured, difference, holm
from pvzoo.ablation.report import cells, rows, write_report
from pvzoo.ablation.run import run_study
from pvzoo.ablation.study import LeftOut, arms, list_studies, load_study
from pvzoo.training.folder import RunError
from pvzoo.training.machine import Machine

CPU = Machine(accelerator="cpu", progress=False)
SMALL: dict[str, Any] = {
    "model": "stage2_local_nano",
    "image_size": 32,
    "data": {"source": "synthpalm-mini"},
    "batch": {"size": 16},
    "precision": "fp32",
    "epochs": 1,
}
STUDY: dict[str, Any] = {
    "summary": "A small study",
    "reference": "spatial",
    "seeds": 2,
    "branches": {"extends": "stage1", "batch": {"size": 16}, "epochs": 1, "precision": "fp32"},
    "recipe": {"extends": "stage2_plan_a", "cache_features": 1, **SMALL},
    "groups": {
        "fusion": {"summary": "how", "arms": {"sum": {"overrides": {"fusion.local": "sum"}}}},
        "modalities": {"arms": {"palm only": {"overrides": {"modalities": ["palm"]}, "without": ["fusion"]}}},
        "training": {"arms": {"too large": {"batch": {"size": 64}}}},
    },
}


@pytest.mark.slow
def test_a_study_runs_every_arm_shares_branches_and_survives_an_arm_that_fails(tmp_path: Path) -> None:
    told: list[str] = []
    results = run_study(load_study(STUDY), tmp_path, folds=50, machine=CPU, tell=told.append)
    assert [line.partition(":")[0] for line in told] == [
        "spatial", "fusion / sum", "modalities / palm only", "training / too large"
    ]  # fmt: skip
    assert "failed: 56 samples are too few for a batch of 64" in told[-1]
    # One palm and one vein branch for all arms, and each one's features once for training, dev and test.
    assert len(list((tmp_path / "branches").iterdir())) == 2
    assert len([path for path in (tmp_path / "features").iterdir() if path.is_dir()]) == 6
    files = write_report(results, tmp_path, command="pvzoo ablate")
    assert [file.name for file in files] == ["report.md", "results.json", "results.csv", "eer.png", "eer.svg"]
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["n_subjects"] == 2 and found["seeds"] == 2 and found["protocol"].startswith("open_subject(")
    by_name = {arm["arm"]: arm for arm in found["arms"]}
    assert by_name["sum"]["changes"] == {"overrides": {"fusion.local": "sum"}}
    assert by_name["sum"]["trained"] < by_name["spatial"]["trained"]
    assert "eer_difference" not in by_name["spatial"] and 0 < by_name["sum"]["eer_difference"]["p_holm"] <= 1
    assert "too few for a batch" in by_name["too large"]["error"]
    with (tmp_path / "results.csv").open(newline="") as lines:
        table = list(csv.DictReader(lines))
    assert [(row["arm"], row["seed"]) for row in table if not row["error"]] == [
        (arm, seed) for arm in ("spatial", "sum", "palm only") for seed in "01"
    ]
    text = (tmp_path / "report.md").read_text()
    assert "| too large | failed | 56 samples are too few" in text and "## fusion: how" in text

    # What has ended is not run again; what failed is.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("arms/*/*/*/figures.json")}
    assert len(before) == 6
    again = run_study(load_study(STUDY), tmp_path, folds=50, resume=True, machine=CPU)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [cells(row)[:8] for row in rows(again)] == [cells(row)[:8] for row in rows(results)]
    with pytest.raises(RunError, match="holds a run; --resume goes on with it"):
        run_study(load_study(STUDY), tmp_path, folds=50, machine=CPU)
    with pytest.raises(RunError, match=r"was begun with another study; study\.seeds differ"):
        run_study(load_study(STUDY, {"seeds": 3}), tmp_path, folds=50, resume=True, machine=CPU)

    # Branches that are given need not be trained, and make the same model.
    made = sorted((tmp_path / "branches").glob("*/model"))
    study = load_study(STUDY, {"seeds": 1})
    other = run_study(study, tmp_path / "other", groups=["fusion"], init=made, folds=20, machine=CPU)
    assert not (tmp_path / "other/branches").exists()
    assert [outcome.trials[0].figures["eer"] for outcome in other.outcomes] == [
        outcome.trials[0].figures["eer"] for outcome in results.outcomes[:2]
    ]


def test_what_ships_can_be_run_and_tries_every_installed_fusion_and_head() -> None:
    assert list_studies() == ["reference"]
    for model in ("stage2_spatial", "stage2_spatial_nano"):
        found = arms(load_study("reference", {"recipe.model": model}))
        groups = {group: [arm.name for arm in found if arm.group == group] for group in ("fusion", "head", "")}
        assert groups[""] == ["spatial"]
        assert {"channel", "concat", "sum", "gated", "cross_attention", "aff", "max"} <= set(groups["fusion"])
        assert {"linear", "cosface", "adaface", "subcenter_arcface"} <= set(groups["head"])
        assert not {"spatial_attention", "arcface"} & {arm.name for arm in found}  # the reference has them
        assert [(each.group, each.name) for each in found.left_out] == [("head", "none")]
        assert isinstance(found.left_out[0], LeftOut) and "has no classes" in found.left_out[0].reason


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups.fusion.arms": {"x": {"epoch": 3}}}, "arm 'x' of fusion: recipe: epoch: unknown field; did you mean"),
        ({"groups.fusion.arms": {"x": {"without": ["fusion.locl"]}}}, "there is nothing to leave out: no 'locl' in"),
        (
            {"groups.fusion.arms": {"x": {"overrides": {"fusion.local": "summ"}}}},
            "fusion.local: no fusion named 'summ'; did you mean 'sum'?",
        ),
        ({"seed": 3}, "seed: unknown field; did you mean 'seeds'?"),
        ({"groups.fusion.arms": {"../x": {}}}, "groups.fusion.arms"),
    ],
)
def test_a_study_is_checked_as_a_whole_before_anything_runs(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        arms(load_study(STUDY, changes))
    assert message in str(caught.value)


def test_unknown_names_have_suggestions() -> None:
    with pytest.raises(UnknownNameError, match="no study named 'referense'; did you mean 'reference'"):
        load_study("referense")
    with pytest.raises(UnknownNameError, match="the study has no group 'fussion'; did you mean 'fusion'"):
        arms(load_study(STUDY), ("fussion",))


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    generator = np.random.default_rng(0)
    hard = generator.normal(0.05, 0.01, 1000)  # what a fold's subjects are like, for both arms
    one = Measured(np.array([0.05]), hard[None])
    other = Measured(np.array([0.052]), hard[None] + 0.002 + generator.normal(0, 0.0003, (1, 1000)))
    found = difference(other, one)
    assert found.value == pytest.approx(0.002)
    assert 0.001 < found.interval.low < 0.002 < found.interval.high < 0.003
    assert found.p == pytest.approx(2 / 1001)
    assert other.interval.low < one.mean < other.interval.high  # which two intervals alone would not have shown
    assert difference(one, one).p == 1


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [([0.01], [0.01]), ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.5, 0.9], [1.0, 1.0]), ([], [])],
)
def test_holm(p: list[float], adjusted: list[float]) -> None:
    assert holm(p) == pytest.approx(adjusted)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_only_makes_larger_and_keeps_the_order(p: list[float]) -> None:
    found = holm(p)
    assert all(before <= after <= 1 for before, after in zip(p, found, strict=True))
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(np.array(found)[order]) >= 0)


def test_the_command_lists_arms(call: Any, tmp_path: Path) -> None:
    seen = call("ablate", "--model", "stage2_spatial_nano", "--only", "modalities", "-o", tmp_path / "x", "--dry-run")
    assert seen.code == 0, seen.err
    assert seen.out.splitlines() == [
        "reference\tspatial\t",
        'modalities\tpalm only\tmodalities: ["palm"], without fusion',
        'modalities\tvein only\tmodalities: ["vein"], without fusion',
    ]
    assert not (tmp_path / "x").exists()
