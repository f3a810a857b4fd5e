"""Results and reports: every figure with its interval, counts and reasons; the ``eval`` command; thresholds."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pvzoo
from pvzoo import EvaluationError, InputError
from pvzoo.evaluation import metrics, report
from pvzoo.evaluation.results import choose_thresholds, evaluate, passes
from pvzoo.evaluation.scorefile import ScoreSet, read_scores, score_set, write_scores
from pvzoo.evaluation.scores import Comparisons
from pvzoo.evaluation.trials import Population, all_pairs, gallery_probe
from pvzoo.model import Model

TITLES = ["EER", "AUC", "d'", *(f"TAR at FMR 1e-{n}" for n in range(2, 7)), "FMR100", "FMR1000", "ZeroFMR"]


def compared(
    subjects: int = 24, *, noise: float = 1.1, first: int = 0, known: float = 1.0, samples: int = 4
) -> ScoreSet:
    """Two hands of each subject; the first sample is the gallery's, of a share of the subjects."""
    people = np.repeat(np.arange(subjects), 2 * samples)
    hand = np.tile(np.repeat([0, 1], samples), subjects)
    generator = torch.Generator().manual_seed(first)
    centres = torch.randn(2 * subjects, 16, generator=generator)
    vectors = centres[2 * people + hand] + noise * torch.randn(len(people), 16, generator=generator)
    labels = [f"{first + subject}/{'left' if side else 'right'}" for subject, side in zip(people, hand, strict=True)]
    population = Population.of(labels, [str(first + subject) for subject in people])
    gallery = [row for row in range(0, len(people), samples) if people[row] < known * subjects]
    probes = [row for row in range(len(people)) if row % samples]
    source = Comparisons(vectors, population, gallery_probe(gallery, probes))
    return score_set(source, [f"{label}/{row}" for row, label in enumerate(labels)])


# --- results ----------------------------------------------------------------------------------------------------------


def test_every_figure_has_an_interval_and_counts() -> None:
    source = compared(known=0.5)
    result = evaluate(source, folds=200)
    assert [each.title for each in result.figures] == [*TITLES, "rank-1", "rank-5", "FNIR at FPIR 1e-2"]
    assert result.counts == source.counts
    assert (result.counts.subjects, result.counts.identities) == (24, 48)
    for each in result.figures:
        assert each.counts == source.counts
        if math.isnan(each.value):
            assert each.reason
        else:
            assert each.interval.low <= each.value <= each.interval.high
    genuine, impostor = source.scores[source.genuine], source.scores[~source.genuine]
    assert result.figure("eer").value == metrics.eer(metrics.tally(genuine, impostor)).value
    assert result.figure("tar_at_fmr", 1e-2).value == metrics.tar_at_fmr(metrics.tally(genuine, impostor), 1e-2)
    assert result.figure("d_prime").value == pytest.approx(
        metrics.d_prime(metrics.Moments.of(genuine), metrics.Moments.of(impostor))
    )
    with pytest.raises(KeyError):
        result.figure("tar_at_fmr", 0.5)


def test_figures_below_the_resolution_say_so() -> None:
    result = evaluate(compared(noise=0.05), folds=20)
    assert result.figure("eer").value == 0
    assert result.figure("eer").remarks == (
        "0 false matches in 6,768: below the resolution; none in N shows a rate below 3 / N, here 4.4e-04, or 1.2e-01 "
        "if only the 24 subjects are independent",
        "0 false non-matches in 144: below the resolution; none in N shows a rate below 3 / N, here 2.1e-02, or "
        "1.2e-01 if only the 24 subjects are independent",
    )
    (_, few) = evaluate(compared(2, noise=0.05), folds=0).figure("eer").remarks
    assert few.endswith("here 2.5e-01, or nothing if only the 2 subjects are independent")
    below = result.figure("tar_at_fmr", 1e-4)
    assert math.isnan(below.value)
    assert below.reason == "6,768 impostor comparisons cannot show an FMR of 1e-4; 10,000 or more are needed"
    near = evaluate(compared(30), folds=0).figure("tar_at_fmr", 1e-4)
    assert near.remarks == ("10,620 impostor comparisons; by the rule of three this FMR needs 30,000",)
    assert near.interval.reason == "no bootstrap was asked for"


def test_targets_are_shares() -> None:
    with pytest.raises(EvaluationError, match=r"^an FMR to read the TAR at lies between 0 and 1, not at 1\.0$"):
        evaluate(compared(), targets=(1e-2, 1.0))
    odd = evaluate(compared(), targets=(0.05,), folds=0, method="histogram")
    same = evaluate(compared(), targets=(0.05,), folds=0, method="sorted")
    for name, at in (("tar_at_fmr", 0.05), ("fmr100", None), ("fmr1000", None), ("zero_fmr", None), ("eer", None)):
        assert odd.figure(name, at).value == same.figure(name, at).value


def test_few_or_unknown_subjects_are_said() -> None:
    few = evaluate(compared(6), folds=20)
    assert few.warnings == ("intervals from 6 subjects are too narrow; take 20 or more",)
    source = compared(6)
    unknown = evaluate(ScoreSet(source.scores, source.genuine), folds=20)
    assert unknown.warnings == (
        "the scores do not say whose they are: no intervals, and no check that pairs are there once",
    )
    assert unknown.figure("eer").interval.reason.startswith("the scores do not say whose they are")
    assert unknown.figure("rank_1").reason == "the scores do not say whose they are"
    assert passes(source) == 3 and passes(ScoreSet(source.scores, source.genuine)) == 2


def test_hands_that_count_as_people_are_said() -> None:
    vectors = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    vectors[20:] = vectors[:20] + 0.3
    result = evaluate(Comparisons(vectors, Population.of([*range(20)] * 2), all_pairs(40)), folds=20)
    assert result.warnings == (
        "each identity counts as a person of its own; if some are two hands of one, intervals are too narrow",
    )
    assert result.figure("rank_1").reason.startswith("identification needs a gallery")


def test_reversed_scores_are_refused() -> None:
    source = compared()
    turned = ScoreSet(-source.scores, source.genuine, source.who)
    for use in (evaluate, choose_thresholds):
        with pytest.raises(
            EvaluationError, match=r"^the EER is 0\.8\d+, above 0\.5: impostors score higher .*--distances"
        ):
            use(turned)  # type: ignore[operator]


def test_guessing_is_no_reversal() -> None:
    constant = ScoreSet(np.zeros(6), np.arange(6) < 3)
    assert evaluate(constant).figure("eer").value == 0.5
    assert evaluate(constant).figure("d_prime").reason == "neither genuine nor impostor scores vary"
    for seed in range(20):
        guesses = compared(24, noise=30, first=seed)
        rate = evaluate(guesses, folds=0)
        assert rate.eer.value < 0.5 + 1 / 24**0.5
        told = [text for text in rate.warnings if "is that of guessing: the scores tell nobody apart" in text]
        assert len(told) == (rate.eer.value >= 0.5)
        choose_thresholds(guesses)


@pytest.mark.parametrize(("above", "refused"), [(0.02, False), (0.12, True)])
def test_how_far_above_half_an_eer_may_be_follows_from_how_many_were_compared(above: float, refused: bool) -> None:
    # Of unknown people, 100 genuine comparisons count: two standard errors of 0.5 are 0.1.
    ranks = np.arange(100) / 100
    source = ScoreSet(np.concatenate([ranks, ranks + 2 * above]), np.arange(200) < 100)
    rate = metrics.eer(metrics.tally(source.scores[:100], source.scores[100:]))
    assert rate.value == pytest.approx(0.5 + above, abs=0.011)
    if refused:
        with pytest.raises(EvaluationError, match="impostors score higher"):
            evaluate(source)
    else:
        assert "is that of guessing" in evaluate(source).warnings[0]


def test_thresholds_of_dev_are_applied_to_test() -> None:
    dev, test = compared(20, first=100), compared()
    chosen = choose_thresholds(dev, name="dev of a test")
    assert [(each.rule, each.target) for each in chosen] == [("eer", None), ("fmr", 1e-2), ("fmr", 1e-3)]
    assert (chosen[1].subjects, chosen[1].impostor, chosen[1].measured_on) == (20, dev.counts.impostor, "dev of a test")
    assert chosen[1].fmr <= 1e-2
    result = evaluate(test, dev=chosen, folds=100)
    for each in result.applied:
        accepted = test.scores >= each.threshold.value
        assert each.point.fmr == accepted[~test.genuine].mean()
        assert each.point.fnmr == (~accepted)[test.genuine].mean()
    hter = result.figure("hter")
    assert hter.value == result.applied[0].point.hter != result.figure("eer").value
    assert hter.interval.low < hter.value < hter.interval.high


def test_shares_of_folds_are_by_probe() -> None:
    result = evaluate(compared(noise=2.5), folds=300, seed=1)
    rank = result.figure("rank_1")
    assert result.searches is not None
    assert rank.value == (result.searches.rank == 1).mean()
    # 24 subjects of 6 probes each: near the normal approximation by subject.
    each = np.bincount(result.searches.subject, result.searches.rank == 1) / 6
    error = each.std(ddof=1) / np.sqrt(24)
    assert rank.interval.high - rank.interval.low == pytest.approx(2 * 1.96 * error, rel=0.25)


# --- reports ----------------------------------------------------------------------------------------------------------


def test_report_files(tmp_path: Path) -> None:
    dev = choose_thresholds(compared(20, first=100))
    carried = dev[1].model_copy(update={"value": 2.0})  # which no score reaches
    result = evaluate(compared(known=0.5), dev=dev, carried=[carried], folds=50, protocol={"set": "x|y"})
    files = report.write_report(result, tmp_path / "report", report.Beside(command="pvzoo eval"))
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted(path.name for path in files)

    data = json.loads(files[0].read_text())
    assert data["eer"] == result.figure("eer").value
    assert data["eer_low"] <= data["eer"] <= data["eer_high"]
    assert list(data["tar_at_fmr"]) == ["1e-2", "1e-3", "1e-4", "1e-5", "1e-6"]
    assert data["tar_at_fmr"]["1e-6"] is None and "1,000,000 or more" in data["reasons"]["tar_at_fmr.1e-6"]
    assert (data["n_subjects"], data["n_genuine"]) == (24, result.counts.genuine)
    assert data["n_impostor"] == result.counts.impostor
    assert {"auc", "d_prime", "hter", "rank_1", "rank_5", "fnir_at_fpir", "fmr100", "fmr1000", "zero_fmr"} < set(data)
    assert data["intervals"]["eer"] == [result.figure("eer").interval.low, result.figure("eer").interval.high]
    assert data["bootstrap"] == {"folds": 50, "seed": 0, "confidence": 0.95, "unit": "subject"}
    assert data["thresholds"][1]["dev"]["target"] == 1e-2 and data["thresholds"][1]["fmr"] > 0
    assert data["model_thresholds"] == [{"model": carried.model_dump(mode="json"), "fmr": 0, "fnmr": 1}]
    assert (data["protocol"], data["command"], data["pvzoo"]) == ({"set": "x|y"}, "pvzoo eval", pvzoo.__version__)

    text = files[1].read_text()
    assert "| figure | value | 95% interval | subjects | identities | genuine | impostor | remarks |" in text
    assert f"| EER | {data['eer']:.6g} |" in text and "* set: x|y" in text
    assert "| FMR <= 1e-2 |" in text and "50 folds of subjects" in text and "`pvzoo eval`" in text

    rows = list(csv.DictReader(files[2].open()))
    assert [row["figure"] for row in rows][:5] == ["eer", "auc", "d_prime", "tar_at_fmr", "tar_at_fmr"]
    assert float(rows[0]["value"]) == data["eer"] and rows[3]["at"] == "1e-2" and rows[7]["value"] == ""
    assert {row["subjects"] for row in rows} == {"24"}

    points = list(csv.DictReader(files[3].open()))
    assert (points[0]["fmr"], points[0]["fnmr"]) == ("1.0", "0.0")
    assert (points[-1]["threshold"], points[-1]["fmr"], points[-1]["fnmr"]) == ("inf", "0.0", "1.0")


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    paths = {name: tmp_path / f"{name}.csv" for name in ("test", "dev")}
    write_scores(paths["test"], compared(), "csv")
    write_scores(paths["dev"], compared(20, first=100), "csv")
    return paths


def test_eval_of_scores(call: Callable[..., Any], files: dict[str, Path], tmp_path: Path) -> None:
    done = call(
        "eval", "--scores", files["test"], "--dev-scores", files["dev"], "--out", tmp_path / "out", "--folds", 50
    )
    assert (done.code, done.err) == (0, "")
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert [line[0] for line in lines[:-2]] == [*TITLES, "HTER", "rank-1", "rank-5"]
    data = json.loads((tmp_path / "out/metrics.json").read_text())
    assert lines[0][:3] == ["EER", f"{data['eer']:.6g}", "{:.4g} to {:.4g}".format(*data["intervals"]["eer"])]
    rests = "24 subjects, 48 identities, 144 genuine and 6,768 impostor comparisons"
    assert lines[-2:] == [[f"{tmp_path / 'out/metrics.json'}: {rests}"], [str(tmp_path / "out/index.html")]]
    assert data["command"].startswith("pvzoo eval --scores ")
    assert data["protocol"]["scores"] == "test.csv" and len(data["protocol"]["dev_scores_sha256"]) == 64
    assert data["eer"] == evaluate(read_scores(files["test"]), folds=0).figure("eer").value


def test_eval_of_distances(call: Callable[..., Any], files: dict[str, Path], tmp_path: Path) -> None:
    scores = read_scores(files["test"])
    write_scores(tmp_path / "ccnet.txt", ScoreSet(-scores.scores, scores.genuine), "ccnet")
    done = call("eval", "--scores", tmp_path / "ccnet.txt", "--out", tmp_path / "out")
    assert done.code == 2 and "--distances" in done.err
    assert not (tmp_path / "out").exists()
    done = call("eval", "--scores", tmp_path / "ccnet.txt", "--out", tmp_path / "out", "--distances")
    assert done.code == 0 and "warning: the scores do not say whose they are" in done.err
    data = json.loads((tmp_path / "out/metrics.json").read_text())
    assert data["eer"] == evaluate(scores, folds=0).figure("eer").value
    assert data["intervals"]["eer"] == [None, None] and data["n_subjects"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scores", "none.csv", "--out", "out"], "none.csv: cannot be read: No such file or directory"),
        (["--scores", "test.csv", "--out", "test.csv"], "test.csv: is a file; a folder is needed"),
        (["--scores", "test.csv", "--out", "no/out"], "no/out: there is no folder {here}/no"),
        (
            ["--scores", "test.csv", "--dev-scores", "test.csv", "--out", "out"],
            "subject '0' is in the dev scores and in the test scores (24 in all)",
        ),
    ],
)
def test_eval_refuses(
    call: Callable[..., Any],
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("eval", *arguments)
    assert (done.code, done.out, done.err) == (2, "", f"error: {message.format(here=tmp_path)}\n")
    assert not (tmp_path / "out").exists()


# --- thresholds that travel with a model ------------------------------------------------------------------------------

PALMS = Path(__file__).parents[1] / "examples/palms"


def palm(name: str) -> list[str]:
    return [str(PALMS / modality / f"{name}.png") for modality in ("palm", "vein")]


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    made = pvzoo.create("stage2_local_nano", image_size=64, num_classes=3)
    made.set_thresholds(choose_thresholds(compared(20), name="twenty people"))
    return made


def test_verify_says_yes_or_no_and_what_was_measured(model: Model) -> None:
    for other in ("anna_1", "anna_2", "ben_1"):
        decision = model.verify(palm("anna_1"), palm(other), fmr=1e-2)
        with torch.inference_mode():
            first, second = (
                model.embed(*(model.preprocess(image) for image in palm(name))) for name in ("anna_1", other)
            )
        assert decision.score == pytest.approx(float(first[0] @ second[0]), abs=1e-6)
        assert bool(decision) == decision.same == (decision.score >= model.thresholds[1].value)
        assert decision.threshold.target == 1e-2 and decision.threshold.fmr <= 1e-2
    assert str(model.verify(palm("anna_1"), palm("anna_1"), fmr=1e-2)).startswith(
        "yes: score 1, at or above threshold "
    )
    text = str(model.verify(palm("anna_1"), palm("anna_1"), fmr=1e-2))
    assert text.endswith("impostor comparisons of 20 subjects on twenty people")
    high = model.thresholds[1].model_copy(update={"value": 1.5})
    other = pvzoo.create("stage1_convnext_vein_nano", image_size=64, num_classes=3)
    other.set_thresholds([high])
    vein = palm("anna_1")[1]
    assert str(other.verify(vein, vein, fmr=1e-2)).startswith("no: score 1, below threshold 1.5, with FMR ")
    with pytest.raises(InputError, match=r"^a palm is 1 images \(vein\), and 2 were given$"):
        other.verify(palm("anna_1"), vein, fmr=1e-2)


def test_scores_of_random_weights_come_with_a_warning(model: Model) -> None:
    with pytest.warns(UserWarning, match=r"^the model is untrained, and its scores say nothing; pvzoo"):
        model.score(palm("anna_1"), palm("ben_1"))


def test_palms_with_other_modalities_have_other_thresholds(model: Model) -> None:
    (anna, vein), ben = palm("anna_1"), palm("ben_1")[0]
    alone = (
        r"^the model has no threshold for an FMR of 0\.01 with palm alone; it has none; .*--modalities palm --export"
    )
    with pytest.raises(EvaluationError, match=alone):
        model.verify((anna, None), (ben, None), fmr=1e-2)
    with pytest.raises(EvaluationError, match=alone):
        model.decide(0.5, fmr=1e-2, modalities=["palm"])
    with pytest.raises(EvaluationError, match=r"^one palm has palm and vein, the other palm; thresholds are measured"):
        model.verify((anna, vein), (ben, None), fmr=1e-2)
    assert model.decide(2.0, fmr=1e-2, modalities=["vein", "palm"]).same
    cut = model.thresholds[1].model_copy(update={"modalities": ("palm",), "value": -1.0})
    every = model.thresholds
    try:
        model.set_thresholds([*every, cut])
        assert model.verify((anna, None), (ben, None), fmr=1e-2).threshold == cut
        assert model.verify((anna, vein), (anna, vein), fmr=1e-2).threshold == every[1]
    finally:
        model.set_thresholds(every)


def test_thresholds_are_saved_and_shown(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "saved")
    again = pvzoo.create(f"local-dir:{tmp_path / 'saved'}")
    assert again.thresholds == model.thresholds and len(again.thresholds) == 3
    assert f"* FMR 0.01: {model.thresholds[1]}" in (tmp_path / "saved/README.md").read_text()
    decisions = [net.verify(palm("anna_1"), palm("anna_2"), fmr=1e-3) for net in (model, again)]
    assert decisions[0] == decisions[1]


def test_thresholds_do_not_outlive_their_weights(model: Model, tmp_path: Path) -> None:
    model.save(tmp_path / "saved")
    net = pvzoo.create(f"local-dir:{tmp_path / 'saved'}")
    with pytest.raises(
        EvaluationError, match=r"^the model has no threshold for an FMR of 0\.0001; it has 0\.01, 0\.001; "
    ):
        net.verify(palm("anna_1"), palm("anna_2"), fmr=1e-4)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.01)
    assert net.thresholds == ()
    with pytest.raises(EvaluationError, match=r"it has none, since its weights have changed since they were chosen"):
        net.verify(palm("anna_1"), palm("anna_2"), fmr=1e-2)
    net.save(tmp_path / "changed")
    assert pvzoo.create(f"local-dir:{tmp_path / 'changed'}").thresholds == ()
    fresh = pvzoo.create("stage1_convnext_vein_nano", image_size=64)
    with pytest.raises(EvaluationError, match=r"for an FMR of 0\.01; it has none; 'pvzoo eval FOLDER"):
        fresh.verify(palm("anna_1")[1], palm("anna_2")[1], fmr=1e-2)
