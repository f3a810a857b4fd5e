"""Models on protocols: what is embedded, which thresholds are applied, the floor, and the command that does it all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import pvzoo
from pvzoo import DataError, EvaluationError, MissingModalityError
from pvzoo.data.params import Data
from pvzoo.data.protocols import open_protocol
from pvzoo.data.sources import Images, open_images
from pvzoo.data.split import Comparisons as Part
from pvzoo.data.split import Split
from pvzoo.data.table import Table
from pvzoo.evaluation import metrics
from pvzoo.evaluation.baselines import CompCode, MaximumCurvature
from pvzoo.evaluation.floor import floors
from pvzoo.evaluation.models import embed_part, evaluate_model
from pvzoo.evaluation.protocols import compared
from pvzoo.evaluation.results import choose_thresholds, evaluate
from pvzoo.model import Model

CLOSED, OPEN = "closed_s1_s2", "open_half"


def made(name: str = "stage2_local_nano", classes: int = 20, **overrides: Any) -> Model:
    """A model whose weights are not those it began with, so that it counts as trained."""
    torch.manual_seed(0)
    model = pvzoo.create(name, image_size=32, num_classes=classes, **overrides)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    return model


@pytest.fixture(scope="module")
def model() -> Model:
    return made()


@pytest.fixture(scope="module")
def images() -> Images:
    return open_images(Data(source="synthpalm-mini"))


@pytest.fixture(scope="module")
def splits(images: Images) -> dict[str, Split]:
    return {name: open_protocol(name).split(images.table) for name in (CLOSED, OPEN)}


# --- embeddings -------------------------------------------------------------------------------------------------------


def test_a_part_is_embedded_as_its_files_are(model: Model, palms: Table) -> None:
    found = open_images(Data(source=str(palms.root)))
    pairs = found.table.pairs()[:7]
    lacking = [replace(pair, images={**pair.images, m: None}) for pair, m in zip(pairs, ("palm", "vein"), strict=False)]
    samples = [pairs[0], lacking[0], pairs[1], lacking[1], *pairs[2:]]
    expected = []
    with torch.inference_mode():
        for pair in samples:
            records = (pair.images[m] for m in model.spec.modalities)
            expected.append(model.embed(*(r and model.preprocess(found.table.file(r)) for r in records))[0])
    for size, workers in ((1, 0), (4, 0), (100, 1)):
        done: list[int] = []
        part = embed_part(model, samples, found.reader, batch_size=size, workers=workers, advance=done.append)
        assert torch.allclose(part.embeddings, torch.stack(expected), atol=1e-5)
        assert part.rank is None and sum(done) == len(samples)


def test_embeddings_that_tell_nothing_are_named_by_sample(images: Images, splits: dict[str, Split]) -> None:
    dead = made()
    with torch.no_grad():
        for parameter in dead.parameters():
            parameter.zero_()
    samples = splits[OPEN].dev.samples
    message = rf"^embeddings: that of {samples[0]} is all zeros, which has no direction$"
    with pytest.raises(EvaluationError, match=message):
        embed_part(dead, samples, images.reader)
    with pytest.raises(EvaluationError, match=r"training mode; call model\.eval\(\) first"):
        embed_part(made().train(), samples, images.reader)


# --- a model on a protocol --------------------------------------------------------------------------------------------


def test_thresholds_come_from_dev_and_figures_from_the_test(
    model: Model, images: Images, splits: dict[str, Split]
) -> None:
    split = splits[OPEN]
    steps: list[tuple[str, int]] = []

    @contextmanager
    def watch(what: str, total: int) -> Iterator[Callable[[int], None]]:
        done: list[int] = []
        yield done.append
        assert sum(done)
        steps.append((what, total))

    done = evaluate_model(model, images, split, name="mine", folds=50, track=watch)
    assert steps == [("embedding dev", 12), ("embedding test", 40), ("evaluating", 780 * 3)]
    dev, test = (
        compared(embed_part(model, part.samples, images.reader).embeddings, part) for part in (split.dev, split.test)
    )
    assert list(done.thresholds) == choose_thresholds(dev, name=f"synthpalm-mini, {split.protocol}, dev")
    by_hand = evaluate(test, dev=done.thresholds, folds=50)
    assert repr(done.result.figures) == repr(by_hand.figures)
    assert done.result.protocol["protocol"] == split.protocol
    assert done.result.protocol["data_sha256"] == images.digest
    assert done.result.protocol["test"] == (
        "40 samples of 10 identities, 8 subjects; 60 genuine and 720 impostor comparisons"
    )
    assert done.result.warnings[:2] == (*split.notes, "intervals from 8 subjects are too narrow; take 20 or more")


def test_the_head_is_judged_on_its_own_classes_alone(model: Model, images: Images, splits: dict[str, Split]) -> None:
    split = splits[CLOSED]
    figure = evaluate_model(model, images, split, folds=50).result.figure("accuracy")
    probes = split.test.probes
    with torch.inference_mode():
        batch = [model.preprocess([images.reader.read(p)[m] for p in probes]) for m in model.spec.modalities]
        logits = model(*batch).logits
    labels = [split.classes.index(pair.identity) for pair in probes]
    assert figure.value == metrics.accuracy(logits, labels)
    assert figure.remarks == ("40 samples of 20 classes",)
    assert figure.interval.low <= figure.value <= figure.interval.high

    other = evaluate_model(made(classes=7), images, split, folds=0).result.figure("accuracy")
    assert np.isnan(other.value)
    assert other.reason == "the head has 7 classes, and by this protocol 20 identities train"
    for alone, part in ((model, splits[OPEN]), (made(classes=0), split)):
        assert "accuracy" not in [f.name for f in evaluate_model(alone, images, part, folds=0).result.figures]


def test_equal_labels_of_two_data_sets_are_not_classes_of_the_head(images: Images, palms: Table) -> None:
    tested = open_images(Data(source=str(palms.root)))
    split = open_protocol("cross_dataset").split(images.table, tested.table)
    assert {pair.identity for pair in split.test.samples} & set(split.classes)
    done = evaluate_model(made(classes=len(split.classes)), images, split, tested=tested, folds=0)
    assert "accuracy" not in [figure.name for figure in done.result.figures]
    assert done.result.protocol["tested_sha256"] == tested.digest
    assert done.result.counts.genuine == 12 * 6
    assert not any("closed set" in warning for warning in done.result.warnings)


def test_a_modality_may_be_left_out_where_the_fusion_can_do_without(
    model: Model, images: Images, splits: dict[str, Split]
) -> None:
    split = splits[OPEN]
    cut = evaluate_model(model, images, split, folds=0).thresholds[0]
    model.set_thresholds([cut.model_copy(update={"modalities": only, "value": 0.5}) for only in ((), ("palm",))])
    palm = evaluate_model(model, images, split, modalities=["palm"], folds=0)
    model.set_thresholds([])
    assert {applied.threshold.modalities for applied in palm.result.carried} == {("palm",)}
    assert {applied.point.threshold for applied in palm.result.carried} == {0.5}
    assert palm.result.warnings[0] == "the model was evaluated without vein"
    assert palm.result.protocol["modalities"] == "palm"
    alone = embed_part(model, split.test.samples, images.reader, modalities=["palm"]).embeddings
    both = embed_part(model, split.test.samples, images.reader).embeddings
    assert torch.equal(palm.scores.embeddings, alone) and not torch.allclose(alone, both)
    with pytest.raises(MissingModalityError, match="vein"):
        evaluate_model(made(**{"fusion.local": "concat"}), images, split, modalities=["palm"])
    with pytest.raises(EvaluationError, match=r"^the model has no modality 'plam'; did you mean 'palm'\?$"):
        evaluate_model(model, images, split, modalities=["plam"])


def test_what_a_reader_must_know_is_in_the_warnings(images: Images, splits: dict[str, Split]) -> None:
    torch.manual_seed(0)
    fresh = pvzoo.create("stage2_local_nano", image_size=32, num_classes=20)
    found = evaluate_model(fresh, images, splits[CLOSED], name="fresh", folds=0).result.warnings
    assert found[:2] == (
        "UNTRAINED: the weights of fresh are random, so these figures say nothing about identity",
        "closed set: by this split the identities that are tested also train; "
        "of a model that was trained so, the figures say nothing about new people",
    )
    records = [
        replace(r, pairing="virtual") for r in images.table if (r.subject, r.sample, r.modality) != ("1", 1, "vein")
    ]
    table = Table(records, images.table.root)
    split = open_protocol(OPEN).split(table)
    found = evaluate_model(made(), replace(images, table=table), split, folds=0).result.warnings
    assert "palm and vein are paired as virtual, not simultaneous" in found
    assert any(text.startswith("left out: 4 samples, no vein image; the first is identity 1/") for text in found)


# --- the floor --------------------------------------------------------------------------------------------------------


def test_the_floor_is_what_the_matchers_give(images: Images, splits: dict[str, Split]) -> None:
    part = splits[OPEN].test
    found = floors(part, images.reader, ("palm", "vein"), folds=20)
    assert list(found) == ["CompCode, palm", "maximum curvature, vein"]
    rows, columns = np.triu_indices(len(part.samples), 1)
    same = np.array([a.identity == b.identity for a in part.samples for b in part.samples]).reshape(40, 40)[
        rows, columns
    ]
    for (name, result), matcher in zip(found.items(), (CompCode(), MaximumCurvature()), strict=True):
        modality = name.rpartition(" ")[2]
        templates = matcher.extract([images.reader.read(pair)[modality] for pair in part.samples])
        scores = matcher.scores(templates, templates)[rows, columns]
        expected = metrics.tally(scores[same], scores[~same])
        assert result.eer.value == metrics.eer(expected).value < 0.1
        assert (result.counts.genuine, result.counts.impostor) == (60, 720)


def test_the_floor_of_listed_pairs(images: Images, splits: dict[str, Split]) -> None:
    part = splits[OPEN].test
    pairs = [(a, b) for a in range(0, 12) for b in range(a + 1, 12)]
    listed = Part(part.gallery[:12], part.gallery[:12], tuple(pairs))
    whole = Part(part.gallery[:12], part.gallery[:12])
    a, b = (floors(each, images.reader, ["palm"], folds=0)["CompCode, palm"] for each in (listed, whole))
    assert a.counts == b.counts and a.eer == b.eer


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.save(tmp_path_factory.mktemp("evaluated") / "model")


def test_eval_of_a_model(
    call: Callable[..., Any], folder: Path, images: Images, splits: dict[str, Split], tmp_path: Path
) -> None:
    out, scores = tmp_path / "out", tmp_path / "scores.csv"
    done = call(
        *("eval", folder, "--data", "synthpalm-mini", "-p", CLOSED, "--set", "gallery=first", "--out", out),
        *("--folds", 50, "--write-scores", scores, "--batch-size", 7),
    )
    assert done.code == 0, done.err
    data = json.loads((out / "metrics.json").read_text())
    split = open_protocol(CLOSED, {"gallery": "first"}).split(images.table)
    result = evaluate_model(pvzoo.create(f"local-dir:{folder}"), images, split, folds=0).result
    assert data["eer"] == pytest.approx(result.eer.value)
    assert data["accuracy"] == result.figure("accuracy").value
    assert data["protocol"]["protocol"] == split.protocol and data["protocol"]["model"] == str(folder)
    digest = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert list(data["protocol"])[:3] == ["model", "weights", "weights_sha256"]
    assert data["protocol"]["weights"] == str(folder) and digest in data["protocol"]["weights_sha256"]
    assert digest in (out / "report.md").read_text() and digest in (out / "index.html").read_text()
    assert set(data["baselines"]) == {"CompCode, palm", "maximum curvature, vein"}
    assert data["baselines"]["CompCode, palm"]["eer"] < 0.1
    assert len(data["worst"]["genuine"]) == len(data["worst"]["impostor"]) == 6
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert ["EER of CompCode, palm", "baseline"] in [[line[0], line[-1]] for line in lines]
    assert done.out.endswith(f"{out / 'index.html'}\n")
    assert "warning: closed set" in done.err and "UNTRAINED" not in done.err
    names = {"metrics.json", "report.md", "metrics.csv", "curve.csv", "index.html"}
    assert {path.name for path in out.iterdir()} == names | {f"{n}.svg" for n in ("roc", "det", "scores", "cmc")}
    text = (out / "report.md").read_text()
    assert "> **closed set" in text and "| CompCode, palm |" in text and "## Genuine pairs with the lowest" in text

    again = call("eval", "--scores", scores, "--out", tmp_path / "again", "--folds", 0)
    assert again.code == 0, again.err
    of_file = json.loads((tmp_path / "again/metrics.json").read_text())
    assert [of_file[name] for name in ("eer", "auc", "rank_1", "n_subjects")] == [
        data[name] for name in ("eer", "auc", "rank_1", "n_subjects")
    ]
    pair = of_file["worst"]["impostor"][0]
    assert pair["score"] == pytest.approx(data["worst"]["impostor"][0]["score"])
    assert pair["first"].count("/") == 3


def test_thresholds_are_exported_and_decide(call: Callable[..., Any], model: Model, tmp_path: Path) -> None:
    folder = model.save(tmp_path / "half", dtype=torch.float16)
    before = load_file(folder / "model.safetensors")
    images = [str(Path(__file__).parents[1] / f"examples/palms/{m}/anna_1.png") for m in ("palm", "vein")] * 2
    done = call("compare", "--model", folder, *images)
    assert done.out == "score 1.0000\n"
    assert "note: no decision: the model has no threshold for an FMR of 0.001; it has none; 'pvzoo eval" in done.err
    done = call("compare", "--model", folder, "--fmr", "1e-2", *images)
    assert (done.code, done.out) == (2, "") and "the model has no threshold for an FMR of 0.01; it has none" in done.err

    options = ("--data", "synthpalm-mini", "-p", CLOSED, "--no-baselines", "--no-page", "--folds", 0)
    done = call("eval", f"local-dir:{folder}", *options, "--out", tmp_path / "out", "--export-thresholds")
    assert done.code == 0, done.err
    assert f"{folder}: has thresholds now for an FMR of 0.01" in done.err
    assert not (tmp_path / "out/index.html").exists()
    after = load_file(folder / "model.safetensors")
    assert after.keys() == before.keys() and all(torch.equal(before[n], after[n]) for n in after)
    assert {t.dtype for t in after.values() if t.is_floating_point()} == {torch.float16}
    saved = pvzoo.create(f"local-dir:{folder}").thresholds
    written = json.loads((tmp_path / "out/metrics.json").read_text())
    digest = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert written["protocol"]["weights_sha256"].endswith(f"model.safetensors {digest}")  # as it is now
    chosen = written["thresholds"]
    assert [cut.model_dump(mode="json") for cut in saved] == [each["dev"] for each in chosen]

    done = call("compare", "--model", folder, "--fmr", "1e-2", *images)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[1].startswith("yes: score 1, at or above threshold 0.")
    assert done.out.endswith("380 impostor comparisons of 10 subjects on synthpalm-mini, "
                             "closed_s1_s2(dev=0.1, gallery=all, incomplete=drop, seed=0), dev\n")  # fmt: skip
    found = json.loads(call("compare", "--model", folder, "--fmr", "1e-2", "--json", *images).out)
    assert found["decision"] == {"same": True, "threshold": saved[1].model_dump(mode="json")}
    assert "for an FMR of 0.001; it has 0.01; " in call("compare", "--model", folder, *images).err

    # Those of palm alone are others, and come beside them.
    palm = ("--model", folder, "--fmr", "1e-2", images[0], "-", images[0], "-")
    message = "error: the model has no threshold for an FMR of 0.01 with palm alone; it has none; 'pvzoo eval FOLDER "
    assert call("compare", *palm).err == f"{message}--data ... --modalities palm --export-thresholds' measures them\n"
    options = (*options, "--modalities", "palm", "--export-thresholds")
    assert call("eval", folder, *options, "--out", tmp_path / "alone").code == 0
    assert json.loads((tmp_path / "alone/metrics.json").read_text())["model_thresholds"] == []
    both = pvzoo.create(f"local-dir:{folder}").thresholds
    assert both[: len(saved)] == saved and {cut.modalities for cut in both[len(saved) :]} == {("palm",)}
    assert " impostor comparisons of palm alone of 10 subjects on synthpalm-mini, " in call("compare", *palm).out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "out"], "give a MODEL, or --scores FILE"),
        (["{model}", "--scores", "s.csv", "--out", "out"], "give a MODEL, or --scores FILE, not both"),
        (["{model}", "--out", "out"], "--data is missing: a SynthPalm release such as synthpalm-mini, a table, or a"),
        (["--scores", "s.csv", "--data", "x", "--out", "out"], "--data belongs to a MODEL"),
        (["{model}", "--data", "x", "--distances", "--out", "out"], "--distances belongs to --scores FILE"),
        (["{model}", "--data", "synthpalm-minni", "--out", "out"], "did you mean 'synthpalm-mini'?"),
        (["stage2_spatal", "--data", "synthpalm-mini", "--out", "out"], "did you mean 'stage2_spatial'?"),
        (["{model}", "--data", "synthpalm-mini", "-p", "open_hlaf", "--out", "out"], "did you mean 'open_half'?"),
        (["{model}", "--data", "synthpalm-mini", "--set", "fold", "--out", "out"], "write NAME=VALUE, such as fold=1"),
        (["{model}", "--data", "synthpalm-mini", "--set", "fodl=1", "--out", "out"], "did you mean 'fold'?"),
        (
            ["{model}", "--data", "synthpalm-mini", "--set", "folds=11", "--out", "out"],
            "10 subjects cannot be split into 11 folds",
        ),
        (["{model}", "--data", "synthpalm-mini", "-p", "cross_dataset", "--out", "out"], "needs a second data set"),
        (["{model}", "--data", "synthpalm-mini", "--test", "synthpalm-mini", "--out", "out"], "takes one data set"),
        (["{model}", "--data", "palms", "-p", CLOSED, "--out", "out"], "palms/lost.png: cannot be read: No such file"),
        (
            ["{model}", "--data", "one.csv", "-p", "open_half", "--out", "out"],
            "the data set has palm, and the model takes",
        ),
        (
            ["{model}", "--data", "one.csv", "-p", "closed_s1_s2", "--out", "out"],
            "needs two sessions, and the table has",
        ),
        (
            ["stage2_shared_nano", "--data", "synthpalm-mini", "--export-thresholds", "--out", "out"],
            "--export-thresholds saves into a model's folder, and stage2_shared_nano is none",
        ),
        (["{model}", "--data", "synthpalm-mini", "--modalities", "plam", "--out", "out"], "did you mean 'palm'?"),
        (
            ["{model}", "--data", "synthpalm-mini", "--write-scores", "s.txt", "--out", "out"],
            "scores are written as .csv",
        ),
        (["{model}", "--data", "synthpalm-mini", "--device", "cuda:99", "--out", "out"], "device 'cuda:99' cannot be"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_a_line(
    call: Callable[..., Any],
    folder: Path,
    palms: Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "palms" in arguments:
        shutil.copytree(palms.root, tmp_path / "palms")
        table = Table.read(tmp_path / "palms/table.csv")
        Table([replace(table.records[0], path="lost.png"), *table.records[1:]], table.root).write(
            tmp_path / "palms/table.csv"
        )
    Table([r for r in palms if r.modality == "palm" and r.session == 1], palms.root).write(tmp_path / "one.csv")
    done = call("eval", *(text.format(model=folder) for text in arguments))
    assert (done.code, done.out) == (2, ""), done.err
    assert message in done.err and done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_thresholds_of_an_untrained_model_are_refused(call: Callable[..., Any], tmp_path: Path) -> None:
    folder = pvzoo.create("stage2_local_nano", image_size=32, num_classes=20).save(tmp_path / "fresh")
    done = call("eval", folder, "--data", "synthpalm-mini", "--out", tmp_path / "out", "--export-thresholds")
    assert done.code == 2
    assert done.err == f"error: {folder} is untrained; thresholds of random weights decide nothing\n"


def test_a_damaged_image_is_named(model: Model, palms: Table, tmp_path: Path) -> None:
    root = Path(shutil.copytree(palms.root, tmp_path / "palms"))
    found = open_images(Data(source=str(root)))
    split = open_protocol(CLOSED).split(found.table)
    record = split.test.probes[0].images["vein"]
    assert record is not None
    (root / record.path).write_bytes((root / record.path).read_bytes()[:300])
    with pytest.raises(pvzoo.ImageError, match=rf"{record.path}: cannot be decoded.*\(identity .*, session 2"):
        evaluate_model(model, found, split)
    with pytest.raises(
        DataError, match=r"^the data set has palm, and the model takes palm and vein; --modalities palm "
    ):
        table = Table([r for r in found.table if r.modality == "palm"], root)
        evaluate_model(model, replace(found, table=table), open_protocol(CLOSED).split(table))


def test_baselines_that_are_left_out_are_said_to_be(
    call: Callable[..., Any], folder: Path, palms: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = [r for r in palms if (r.modality, r.session, r.sample) != ("vein", 2, 1)]
    Table(lacking, palms.root).write(tmp_path / "lacking.csv")
    command = ("eval", folder, "--out", tmp_path / "out", "--no-page", "--folds", 0, "-p", CLOSED, "--data")
    keep = (tmp_path / "lacking.csv", "--set", "incomplete=keep")
    first = "identity 1/left, session 2, sample 1: has no vein image"
    done = call(*command, *keep)
    assert done.code == 0 and f"baselines: left out: {first}\n" in done.err
    assert json.loads((tmp_path / "out/metrics.json").read_text())["baselines_left_out"] == f"left out: {first}"
    assert f"Matchers without training: left out: {first}." in (tmp_path / "out/report.md").read_text()
    done = call(*command, *keep, "--baselines")
    assert (done.code, done.out, done.err) == (2, "", f"error: {first}\n")

    monkeypatch.setattr("pvzoo.evaluation.floor.AFFORDABLE", 100)
    few = (*command, "synthpalm-mini", "-p", "open_subject")
    done = call(*few)
    left_out = "left out, as 120 comparisons take them long; --baselines has them all the same"
    assert done.code == 0 and f"baselines: {left_out}\n" in done.err
    assert "EER of CompCode, palm" in call(*few, "--baselines").out


def test_a_model_of_the_zoo_without_weights_is_loudly_untrained(call: Callable[..., Any], tmp_path: Path) -> None:
    spec = tmp_path / "small.json"
    spec.write_text(json.dumps(pvzoo.spec("stage1_convnext_palm_nano", **{"preprocessing.size": 32}).to_dict()))
    done = call("eval", spec, "--data", "synthpalm-mini", "--out", tmp_path / "out", "--folds", 0, "--no-pictures")
    assert done.code == 0
    assert done.err.startswith(f"warning: UNTRAINED: the weights of {spec} are random, so these figures say nothing")
    page = (tmp_path / "out/index.html").read_text()
    assert page.index("UNTRAINED: the weights") < page.index('<h2 id="figures">')
    assert "<img" not in page and "Genuine pairs with the lowest scores" in page
    assert "maximum curvature" not in page  # the model takes palms alone
