"""Damaged and missing input: damage grows with its severity, and is measured on the comparisons of the test."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import TINY, randomise
from torch import Tensor

import pvzoo
from pvzoo.cli.degrade import labels
from pvzoo.data.protocols import open_protocol
from pvzoo.data.reading import SynthReader, synth_table
from pvzoo.errors import DataError, EvaluationError
from pvzoo.evaluation import metrics
from pvzoo.evaluation.damage import DAMAGES, SEVERITIES, damaged
from pvzoo.evaluation.degraded import (
    CLEAN,
    Condition,
    Degraded,
    _seed,
    conditions,
    embed_degraded,
    evaluate_degraded,
)
from pvzoo.evaluation.degraded_report import find, write_degraded
from pvzoo.evaluation.protocols import compared
from pvzoo.evaluation.results import evaluate
from pvzoo.images import normalize, scale
from pvzoo.model import Model
from pvzoo.synth import Generator, SynthConfig
from pvzoo.visualization.curves import draw_degraded

CONFIG = SynthConfig(seed=6, subjects=4, sessions=2, samples=1, size=48)
SHALLOW = {"name": "convnext_atto", "params": {"stride": 8}}  # its first two stages
SMALL = {"preprocessing.size": 32, "branches.global.backbone": SHALLOW, "branches.local.backbone": SHALLOW}


def texture(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) * 0.5 + 0.25


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DAMAGES)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**62), shape=st.tuples(st.sampled_from([1, 2, 3]), st.integers(8, 40), st.integers(8, 40)))
def test_damage_keeps_shape_and_range_and_depends_on_its_seed_alone(
    kind: str, seed: int, shape: tuple[int, int, int]
) -> None:
    image = texture(*shape)
    before = image.clone()
    state = torch.get_rng_state()
    assert damaged(image, kind, 0, seed) is image
    for severity in (1, 5):
        worse = damaged(image, kind, severity, seed)
        assert worse.shape == image.shape and worse.dtype == image.dtype
        assert 0 <= worse.min() <= worse.max() <= 1
        assert torch.equal(worse, damaged(image, kind, severity, seed))
    assert torch.equal(image, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "misalignment"])
def test_a_higher_severity_is_further_from_the_image(kind: str) -> None:
    sample = Generator(CONFIG).sample(1, "left", 1, 1)
    for seed, pixels in enumerate((sample.palm, sample.vein)):
        image = torch.from_numpy(pixels)[None] / 255
        away = [float((damaged(image, kind, severity, seed) - image).norm()) for severity in range(SEVERITIES + 1)]
        assert away == sorted(away) and len(set(away)) == len(away)


def test_levels_grow() -> None:
    for damage in DAMAGES.values():
        assert len(damage.levels) == SEVERITIES
        assert list(damage.levels) == sorted(set(damage.levels))
        assert damage.unit


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("severity", range(1, SEVERITIES + 1))
def test_blur_has_the_sigma_that_it_says(size: int, severity: int) -> None:
    impulse = torch.zeros(1, size, size)
    impulse[0, size // 2, size // 2] = 1
    spread = damaged(impulse, "blur", severity, 0)[0]
    offsets = torch.arange(size) - size // 2
    sigma = DAMAGES["blur"].levels[severity - 1] * size
    assert float(spread.sum()) == pytest.approx(1, abs=1e-4)
    if sigma > 0.6:  # below, pixels are too coarse for a Gaussian
        assert math.sqrt(float((spread.sum(0) * offsets**2).sum())) == pytest.approx(sigma, rel=0.05)


def test_noise_has_the_deviation_that_it_says() -> None:
    grey = torch.full((1, 100, 100), 0.5)
    for level, severity in zip(DAMAGES["noise"].levels[:3], (1, 2, 3), strict=True):
        assert float((damaged(grey, "noise", severity, 8) - grey).std()) == pytest.approx(level, rel=0.03)


def test_low_contrast_keeps_the_mean_and_loses_the_share_that_it_says() -> None:
    image = texture(2, 30, 40)
    for level, severity in zip(DAMAGES["low_contrast"].levels, range(1, 6), strict=True):
        worse = damaged(image, "low_contrast", severity, 0)
        assert worse.mean((1, 2)) == pytest.approx(image.mean((1, 2)))
        assert worse.std((1, 2)) == pytest.approx((1 - level) * image.std((1, 2)), rel=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**62))
def test_occlusion_is_a_box_of_the_share_that_it_says_and_grows_from_one_place(seed: int) -> None:
    image = torch.ones(1, 60, 90)
    hidden_before = torch.zeros(60, 90, dtype=torch.bool)
    for level, severity in zip(DAMAGES["occlusion"].levels, range(1, 6), strict=True):
        hidden = damaged(image, "occlusion", severity, seed)[0] == 0.5
        assert float(hidden.float().mean()) == pytest.approx(level, abs=0.02)
        rows, columns = hidden.any(1).sum(), hidden.any(0).sum()
        assert int(rows * columns) == int(hidden.sum())
        grown = torch.nn.functional.max_pool2d(hidden[None].float(), 3, 1, 1)[0] > 0  # by a pixel, for rounding
        assert bool((grown | ~hidden_before).all())
        hidden_before = hidden


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**62))
def test_misalignment_shifts_by_the_length_that_it_says_in_one_direction(seed: int) -> None:
    size = 200
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    blob = torch.exp(-((y - 100) ** 2 + (x - 100) ** 2) / 50.0)[None]
    angles = []
    for level, severity in zip(DAMAGES["misalignment"].levels, range(1, 6), strict=True):
        moved = damaged(blob, "misalignment", severity, seed)[0]
        dy, dx = (float((moved * at).sum() / moved.sum()) - 100 for at in (y, x))
        assert math.hypot(dy, dx) == pytest.approx(level * size, abs=0.5)
        angles.append(math.atan2(dy, dx))
    assert np.ptp(np.unwrap(angles)) < 0.1


@pytest.mark.parametrize(
    ("kind", "severity", "message"),
    [
        ("blurr", 1, "no damage named 'blurr'; did you mean 'blur'?"),
        ("rain", 1, "no damage named 'rain'; there are blur, noise, occlusion, low_contrast, misalignment"),
        ("blur", 6, "severity is 6; it is from 0, none, to 5"),
    ],
)
def test_an_unknown_damage_is_an_error(kind: str, severity: int, message: str) -> None:
    with pytest.raises(EvaluationError, match=f"^{message.replace('?', '[?]')}$"):
        damaged(texture(1, 8, 8), kind, severity, 0)


# --- models -----------------------------------------------------------------------------------------------------------


def tiny(**overrides: Any) -> Model:
    model = pvzoo.create(TINY, **{**SMALL, **overrides})
    randomise(model)
    return model


def split_of(**params: Any) -> Any:
    return open_protocol("open_subject", {"folds": 2, **params}).split(synth_table(CONFIG))


def measure(model: Model, part: Any, **options: Any) -> list[Degraded]:
    embedded = embed_degraded(model, part, SynthReader(CONFIG), batch_size=3)
    return evaluate_degraded(embedded, part, model.spec.modalities, **options)


def test_conditions_are_all_damages_of_all_modalities() -> None:
    found = conditions(("palm", "vein"))
    assert len(found) == len(set(found)) == 1 + 2 + 2 * 5 * SEVERITIES
    assert found[:3] == [CLEAN, Condition("missing", "palm"), Condition("missing", "vein")]
    assert len(conditions(("palm",))) == 1 + 5 * SEVERITIES  # nothing is left without its only modality
    assert (found[3].level, found[3].unit) == (0.005, "sigma, share of the side")
    assert (CLEAN.level, CLEAN.unit) == (None, "")


@pytest.mark.parametrize("gallery", ["all", "first"])
def test_probes_are_embedded_as_the_model_embeds_damaged_images(gallery: str) -> None:
    model, part = tiny(), split_of(gallery=gallery).test
    embedded = embed_degraded(model, part, SynthReader(CONFIG), seed=9, batch_size=3)
    reader = SynthReader(CONFIG)
    probes = [part.samples[row] for row in embedded.rows]
    assert set(probes) == set(part.probes)
    how = model.spec.preprocessing

    def embed(pair: Any, condition: Condition) -> Tensor:
        images: dict[str, Tensor | None] = {}
        for m, pixels in reader.read(pair).items():
            assert pixels is not None
            image = scale(pixels, how)
            if m == condition.modality and condition.severity:
                image = damaged(image, condition.damage, condition.severity, _seed(9, pair, m))
            images[m] = (
                None if (condition.damage, condition.modality) == ("missing", m) else normalize(image, how)[None]
            )
        with torch.no_grad():
            return model.embed(**images)[0]

    for row, pair in enumerate(part.samples):
        assert torch.allclose(embedded.clean[row], embed(pair, CLEAN), atol=1e-5)
    for condition in (CLEAN, Condition("missing", "vein"), Condition("noise", "palm", 2), Condition("blur", "vein", 5)):
        wanted = torch.stack([embed(pair, condition) for pair in probes])
        assert torch.allclose(embedded.probes[condition].embeddings, wanted, atol=1e-5)


@pytest.mark.parametrize("trials", ["all", "first", "listed"])
def test_each_condition_has_the_comparisons_of_the_clean_test(trials: str) -> None:
    model, part = tiny(), split_of(gallery="first" if trials == "first" else "all").test
    if trials == "listed":
        part = replace(part, listed=tuple((g, p) for p in range(8) for g in range(p) if (g, p) != (2, 5)))
    embedded = embed_degraded(model, part, SynthReader(CONFIG))
    results = evaluate_degraded(embedded, part, model.spec.modalities, folds=20)
    assert [each.condition for each in results] == conditions(("palm", "vein"))
    counts = {figure.counts for each in results for figure in each.figures}
    ((genuine, impostor),) = {(each.genuine, each.impostor) for each in counts}
    assert (genuine, impostor) == (part.genuine, part.impostor)
    plain = compared(embedded.clean, part)
    rate = metrics.eer(metrics.tally(*by_hand(plain.embeddings, plain.embeddings, part)))
    assert results[0].figures[0].value == pytest.approx(rate.value)
    condition = Condition("misalignment", "palm", 4)
    worse = embedded.clean.clone()
    worse[list(embedded.rows)] = embedded.probes[condition].embeddings
    rate = metrics.eer(metrics.tally(*by_hand(embedded.clean, worse, part)))
    assert find(results, condition).figures[0].value == pytest.approx(rate.value)
    interval = find(results, condition).figures[0].interval
    assert 0 <= interval.low <= interval.high <= 1


def by_hand(gallery: Tensor, probes: Tensor, part: Any) -> tuple[list[float], list[float]]:
    """Genuine and impostor cosines: of two samples of a symmetric test, the later one is the probe."""
    scores: tuple[list[float], list[float]] = ([], [])
    samples = part.samples
    for p, probe in enumerate(samples):
        for g, reference in enumerate(samples):
            asked = g < p if part.symmetric else reference in part.gallery and probe in part.probes
            if asked if part.listed is None else (g, p) in part.listed:
                cosine = float(torch.cosine_similarity(gallery[g], probes[p], dim=0))
                scores[probe.identity != reference.identity].append(cosine)
    return scores


def test_the_clean_condition_is_what_evaluation_says() -> None:
    model, part = tiny(), split_of().test
    embedded = embed_degraded(model, part, SynthReader(CONFIG))
    results = evaluate_degraded(embedded, part, model.spec.modalities, folds=50, seed=3)
    source = compared(embedded.clean, part)
    wanted = evaluate(source, folds=50, seed=3).figure("eer")
    assert (results[0].figures[0].value, results[0].figures[0].interval) == (wanted.value, wanted.interval)
    tar = results[0].figures[2]
    assert math.isnan(tar.value) and "impostor comparisons cannot show an FMR of 1e-3" in tar.reason


def test_weights_are_those_of_the_damaged_modality() -> None:
    model, part = tiny(), split_of().test
    results = measure(model, part, folds=20)
    clean = find(results, CLEAN).weights
    for branch in ("global", "local"):
        assert clean[f"{branch}, palm"].value + clean[f"{branch}, vein"].value == pytest.approx(1)
        for modality in ("palm", "vein"):
            assert find(results, Condition("missing", modality)).weights[branch].value == 0
            weight = find(results, Condition("noise", modality, 5)).weights[branch]
            assert 0 < weight.value < 1 and weight.value != clean[f"{branch}, {modality}"].value
            assert weight.interval.low <= weight.value <= weight.interval.high


def test_a_fusion_that_needs_every_modality_says_why_it_has_no_value() -> None:
    results = measure(tiny(**{"fusion.global": "concat", "fusion.local": "sum"}), split_of().test, folds=0)
    for modality in ("palm", "vein"):
        gone = find(results, Condition("missing", modality))
        assert all(math.isnan(figure.value) for figure in gone.figures)
        assert gone.figures[0].reason.startswith(f"fusion 'concat' needs every modality, and {modality} is missing")
    assert not math.isnan(find(results, Condition("blur", "palm", 5)).figures[0].value)
    assert all(not each.weights for each in results)


def test_what_cannot_be_measured_is_an_error() -> None:
    part = split_of().test
    with pytest.raises(EvaluationError, match=r"the model is in training mode; call model.eval\(\) first"):
        embed_degraded(tiny().train(), part, SynthReader(CONFIG))
    table = synth_table(CONFIG)
    lacking = type(table)([r for r in table if (r.modality, r.subject) != ("vein", "1")], table.root)
    kept = open_protocol("open_subject", {"folds": 2, "incomplete": "keep", "fold": 0}).split(lacking)
    both = [kept.test, open_protocol("open_subject", {"folds": 2, "incomplete": "keep", "fold": 1}).split(lacking).test]
    part = next(part for part in both if any(pair.subject == "1" for pair in part.samples))
    with pytest.raises(DataError, match=r"^4 samples of \d+ without palm and vein images, the first identity 1/left"):
        embed_degraded(tiny(), part, SynthReader(CONFIG))


# --- report and command -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_report_holds_every_figure(tmp_path: Path) -> None:
    part = split_of().test
    results = {"spatial": measure(tiny(), part, folds=20), "one": measure(tiny(modalities=["palm"]), part, folds=20)}
    drawn = draw_degraded(results)
    assert list(drawn) == ["eer", "weights"] or list(drawn) == ["eer", "tar_1e-2", "weights"]
    eer = drawn["eer"]
    titles = [axes.get_title() for axes in eer.axes]
    assert titles[:6] == ["missing", "blur", "noise", "occlusion", "low contrast", "misalignment"]
    assert [text.get_text() for text in eer.legends[0].texts] == ["spatial", "one"]
    line = eer.axes[1].containers[0].lines[0]
    wanted = [100 * find(results["spatial"], Condition("blur", "palm", s)).figures[0].value for s in range(6)]
    assert list(line.get_ydata()) == pytest.approx(wanted)

    files = write_degraded(
        results, tmp_path / "out", about={"data": "made up"}, pictures=["eer.png"], command="pvzoo x"
    )
    table = list(csv.DictReader(io.StringIO((tmp_path / "out/degraded.csv").read_text())))
    row = next(
        r for r in table if (r["model"], r["damage"], r["modality"], r["severity"]) == ("spatial", "blur", "vein", "4")
    )
    assert (row["level"], row["unit"], row["figure"]) == ("0.03", "sigma, share of the side", "eer")
    assert float(row["value"]) == find(results["spatial"], Condition("blur", "vein", 4)).figures[0].value
    weights = [
        r["figure"] for r in table if r["model"] == "spatial" and r["damage"] == "missing" and "weight" in r["figure"]
    ]
    assert weights == ["weight of global", "weight of local"] * 2
    facts = json.loads((tmp_path / "out/degraded.json").read_text())
    assert (facts["data"], len(facts["models"]["spatial"])) == ("made up", len(conditions(("palm", "vein"))))
    assert facts["warnings"] == ["intervals from 2 subjects are too narrow; take 20 or more"]
    text = (tmp_path / "out/degraded.md").read_text()
    assert "![eer](eer.png)" in text and "## one" in text
    assert "TAR at FMR 0.001 cannot be had: " in text
    assert "Mean weight of the damaged modality, local fusion:" in text
    assert [file.name for file in files] == ["degraded.csv", "degraded.json", "degraded.md"]


def test_the_command_compares_models(call: Any, tmp_path: Path) -> None:
    small = {
        **TINY,
        "preprocessing": {"size": 32},
        "branches": {"local": {**TINY["branches"]["local"], "backbone": SHALLOW}},
    }
    for fusion in ("spatial_attention", "concat"):
        (tmp_path / f"{fusion}.yaml").write_text(json.dumps({**small, "fusion": {"local": fusion}}))
    models = [str(tmp_path / f"{fusion}.yaml") for fusion in ("spatial_attention", "concat")]
    out = tmp_path / "out"
    done = call("degrade", *models, "--data", "synthpalm-mini", "--set", "gallery=first", "--folds", "10", "-o", out)
    assert done.code == 0, done.err
    rows = [line.split("\t") for line in done.out.splitlines() if "\t" in line]
    assert [row[1:4] for row in rows[:3]] == [["none", "-", "0"], ["missing", "palm", "0"], ["missing", "vein", "0"]]
    assert "fusion 'concat' needs every modality" in done.out
    assert {"degraded.csv", "degraded.json", "degraded.md", "eer.png", "eer.svg"} <= {f.name for f in out.iterdir()}
    assert "gallery=first" in (out / "degraded.md").read_text()


@pytest.mark.parametrize(
    ("models", "wanted"),
    [
        (["stage2_spatial", "stage2_concat"], ["stage2_spatial", "stage2_concat"]),
        (["/a/runs/one/model", "b/runs/two/model"], ["one/model", "two/model"]),
        (["a/one/model", "b/one/model", "x.yaml"], ["a/one/model", "b/one/model", "x.yaml"]),
        (["a/m", "./a/m"], ["a/m", "./a/m"]),
    ],
)
def test_models_are_called_by_what_tells_them_apart(models: list[str], wanted: list[str]) -> None:
    assert labels(models) == wanted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.yaml", "-o", "taken", "--data", "synthpalm-mini"], "taken: is a file; a folder is needed"),
        (["a.yaml", "-o", "no/where", "--data", "synthpalm-mini"], "no/where: there is no folder "),
        (["a.yaml", "a.yaml", "-o", "out", "--data", "synthpalm-mini"], "a.yaml is given twice"),
    ],
)
def test_a_wrong_command_says_why(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()
    done = call("degrade", *arguments)
    assert done.code == 2
    assert message in done.err
