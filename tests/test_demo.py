"""``pvzoo demo``: what it compares and decides, its page in a browser, and what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import CONTRAST, DESKTOP, OVERFLOW, PHONE, Open
from huggingface_hub import constants
from small import PALM, TINY, acme
from test_manifest import FACTS

import pvzoo
from pvzoo.cli.loading import weights_of
from pvzoo.demo import SEED
from pvzoo.demo.page import write_demo
from pvzoo.demo.run import Demo, people, run_demo
from pvzoo.errors import InputError
from pvzoo.hub import digests, packages, verify
from pvzoo.manifest import CONFIG, WEIGHTS
from pvzoo.model import Model
from pvzoo.plugins import using
from pvzoo.synth import RELEASES, Generator
from pvzoo.threshold import Threshold
from pvzoo.zoo import Access


def cut(value: float, target: float = 1e-3) -> Threshold:
    return Threshold(value=value, rule="fmr", target=target, fmr=target, fnmr=0.1, genuine=40, impostor=9000)


def made(spec: dict[str, Any], value: float = 0.9) -> Model:
    torch.manual_seed(0)
    model = pvzoo.create(spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)  # so that it counts as trained
    model.set_thresholds([cut(value), cut(0.99, 1e-4)])
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(TINY).save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return pvzoo.create(f"local-dir:{folder}")


@pytest.fixture(scope="module")
def done(model: Model) -> Demo:
    """With a threshold in the middle of all scores, so that each decision occurs."""
    first = run_demo(model, "tiny", seed=SEED, identities=3, fmr=1e-3)
    low, high = sorted(first.scores.ravel().tolist())[8:10]
    middle = made(TINY, (low + high) / 2)
    return run_demo(middle.eval(), "tiny", seed=SEED, identities=3, fmr=1e-3)


def test_scores_and_decisions_are_those_of_the_model(done: Demo, model: Model) -> None:
    assert [(p.subject, p.session, p.sample) for p in done.enrolled] == [(str(n), 1, 1) for n in (1, 2, 3)]
    assert [(p.subject, p.session, p.sample) for p in done.probes] == [
        (str(n), 2, k) for n in (1, 2, 3) for k in (1, 2)
    ]
    drawn = Generator(people(SEED, 3))

    def images(subject: int, session: int, sample: int) -> tuple[Any, Any]:
        found = drawn.sample(subject, "right", session, sample)
        return found.palm, found.vein

    for row, outcome in enumerate(done.outcomes):
        mine, sample = row // 2, row % 2 + 1
        probe = images(mine + 1, 2, sample)
        scores = [model.score(probe, images(n, 1, 1)) for n in (1, 2, 3)]
        assert done.scores[row] == pytest.approx(scores, abs=1e-5)
        others = {score: f"person {n + 1}" for n, score in enumerate(scores) if n != mine}
        assert outcome.score == pytest.approx(scores[mine], abs=1e-5)
        assert (outcome.other, outcome.verified) == (others[max(others)], scores[mine] >= done.threshold.value)
        best = max(scores)
        found = f"person {scores.index(best) + 1}" if best >= done.threshold.value else "nobody"
        assert (outcome.identified, outcome.right) == (found, found == f"person {mine + 1}")
    assert {yes for outcome in done.outcomes for yes in (outcome.verified, outcome.confused)} == {True, False}
    right, wrong = (
        sum(o.verified for o in done.outcomes),
        int(done.accepted.sum()) - sum(o.verified for o in done.outcomes),
    )
    named = sum(o.right for o in done.outcomes)
    claims = f"{right} of 6 true claims accepted, {wrong} of 12 false claims accepted"
    assert done.summary == f"{claims}, {named} of 6 identified among 3"


@pytest.mark.parametrize("name", RELEASES)
def test_people_of_a_release_are_refused(name: str, call: Callable[..., Any], folder: Path) -> None:
    message = f"seed {RELEASES[name].seed} is that of {name}, whose people models are trained or tested on; "
    message += "the demo is of people that no model has seen: choose another"
    result = call("demo", "--model", folder, "--seed", RELEASES[name].seed)
    assert (result.code, result.out, result.err) == (2, "", f"error: {message}\n")


def test_another_seed_draws_other_people(model: Model, done: Demo) -> None:
    with pytest.raises(InputError, match=r"^1 identities: to tell people apart there have to be two or more$"):
        people(SEED, 1)
    assert SEED not in [release.seed for release in RELEASES.values()]
    other = run_demo(model, "tiny", seed=SEED + 1, identities=3, fmr=1e-4)
    assert other.threshold.value == 0.99
    assert not torch.allclose(torch.tensor(other.scores), torch.tensor(done.scores), atol=1e-3)


def test_the_command(call: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = call("demo", "--model", folder, "--identities", 2, "--out", out)
    assert result.code == 0, result.err
    *rows, summary, threshold, files = result.out.splitlines()
    told = json.loads((out / "demo.json").read_text())
    assert [row.split("\t")[0] for row in rows] == [each["probe"] for each in told["probes"]]
    assert [row.split("\t")[1] for row in rows] == [f"{each['score']:.3f}" for each in told["probes"]]
    assert summary == told["summary"]
    assert threshold == f"threshold for an FMR of 0.001: {cut(0.9)}"
    assert files == f"{out / 'demo.json'}, {out / 'index.html'}"
    assert result.err == "note: these people are drawn; their scores say nothing about error rates on people\n"
    assert (told["model"], told["seed"], told["enrolled"]) == (str(folder), SEED, ["person 1", "person 2"])
    files = ", ".join(f"{name} {digests.sha256(folder / name)}" for name in (CONFIG, WEIGHTS))
    assert (told["weights"], told["weights_sha256"]) == (str(folder), files)
    assert files in (out / "index.html").read_text()
    assert all(math.isfinite(score) for row in told["scores"] for score in row)
    assert f"pvzoo demo --model {folder} --identities 2" in (out / "index.html").read_text()


def test_what_cannot_be_shown_is_refused(call: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    fresh = pvzoo.create(TINY).save(tmp_path / "fresh")
    bare = made(TINY)
    bare.set_thresholds([])
    bare.save(tmp_path / "bare")
    (tmp_path / "file").touch()
    listed = ", ".join(pvzoo.list_models(pretrained=True))
    for arguments, message in (
        (
            ["--model", "stage2_shared"],
            "there are no pretrained weights for stage2_shared, and a demo of random ones would show nothing: "
            f"there are {listed}; or name a model that you trained, as in --model runs/first/model",
        ),
        (["--model", "stage2_spatail"], "no model named 'stage2_spatail'; did you mean 'stage2_spatial'?"),
        (["--model", fresh], f"{fresh} is untrained, and a demo of random weights would show nothing: train it first"),
        (
            ["--model", tmp_path / "bare"],
            "the model has no threshold for an FMR of 0.001; it has none; "
            "'pvzoo eval FOLDER --data ... --export-thresholds' measures them",
        ),
        (
            ["--model", folder, "--fmr", "0.5"],
            "the model has no threshold for an FMR of 0.5; it has 0.001, 0.0001; "
            "'pvzoo eval FOLDER --data ... --export-thresholds' measures them",
        ),
        (["--model", folder, "--out", tmp_path / "file"], f"{tmp_path / 'file'}: is a file; a folder is needed"),
        (["--model", folder, "--out", tmp_path / "a/b"], f"{tmp_path / 'a/b'}: there is no folder {tmp_path / 'a'}"),
    ):
        result = call("demo", *arguments)
        assert (result.code, result.out, result.err) == (2, "", f"error: {message}\n")


def test_without_matplotlib_a_page_is_refused_before_the_work(python: Callable[..., Any]) -> None:
    code = "import sys; sys.modules['matplotlib'] = None; from pvzoo.cli import main; main()"
    done = python("-c", code, "demo", "--model", "nobody", "--out", "page")
    assert done.returncode == 2
    assert done.stderr.startswith("error: this needs matplotlib, which cannot be imported (")
    assert "pip install 'pvzoo[viz]'" in done.stderr


def test_weights_that_are_on_the_hub_alone(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = made({**PALM, "name": "acme/palm"}).save(tmp_path / "model")
    files = {name: saved / name for name in (CONFIG, WEIGHTS)}
    entry = verify.describe(files, FACTS, repo="acme/palm", revision="v1", build=Model)
    manifest = {"weights": {"acme/palm.v1": entry.model_dump(mode="json")}}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with using(acme(build="pvzoo.hub.sources:HubSource", params=Access, manifest=manifest)):
        result = call("demo", "--model", "acme/palm")
    assert result.code == 2
    assert result.err.startswith("error: acme/palm: config.json of v1 is not in the cache")


def test_the_weights_of_a_package_are_named_with_their_tag_and_all_files(
    tmp_path: Path, call: Callable[..., Any]
) -> None:
    saved = made({**PALM, "name": "acme/palm"}).save(tmp_path / "model")
    entry = packages.add(tmp_path, saved, "acme/palm.v1", FACTS, repo="acme/palm", revision="v1", build=Model)
    manifest = tmp_path / packages.MANIFEST
    with using(acme(build=lambda params: packages.Packaged(tmp_path), manifest=manifest)):
        assert call("demo", "--model", "acme/palm", "--identities", 2, "--out", tmp_path / "out").code == 0
    told = json.loads((tmp_path / "out/demo.json").read_text())
    assert len(entry.files) > 2  # in shards
    files = ", ".join(f"{name} {file.sha256}" for name, file in sorted(entry.files.items()))
    assert (told["weights"], told["weights_sha256"]) == ("acme/palm.v1", files)
    assert weights_of("acme/palm", pvzoo.create(PALM)) == {"weights": "random"}


@pytest.fixture(scope="module")
def page(model: Model, done: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_demo(done, model, tmp_path_factory.mktemp("page") / "out", "pvzoo demo <b>")[1]


@pytest.mark.parametrize(("width", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_the_page_in_a_browser(
    open_page: Open, page: Path, done: Demo, tmp_path: Path, width: int, scheme: Any
) -> None:
    seen = open_page(page, width=width, scheme=scheme)
    assert seen.errors == []
    assert seen.requests == [page.as_uri()]
    assert seen.js(OVERFLOW) == 0
    assert seen.js("document.querySelector('h1').textContent") == "Demo of tiny"
    assert seen.js("document.images.length") == 3 * 3 * 2 + 1
    assert seen.js("[...document.images].every(image => image.complete && image.naturalWidth > 100 && image.alt)")
    assert seen.js("document.querySelectorAll('#claims ~ .scroll tbody tr').length") == 2 * 6
    bold = seen.js("[...document.querySelectorAll('td b')].map(cell => cell.textContent)")
    assert bold == [f"{score:.2f}" for score in done.scores[done.accepted]]
    assert seen.js("document.querySelector('pre').textContent") == "pvzoo demo <b>"
    assert seen.js("getComputedStyle(document.body).backgroundColor") == {"dark": "rgb(21, 23, 26)"}.get(
        scheme, "rgb(255, 255, 255)"
    )
    ratio, where = seen.js(CONTRAST)
    assert ratio >= 4.5, where
    assert seen.screenshot(tmp_path / "page.png").stat().st_size > 20_000


def test_the_page_marks_errors_and_says_what_it_leaves_out(
    model: Model, done: Demo, tmp_path: Path, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "a person, with the weights" in write_demo(done, model, tmp_path / "all")[1].read_text()
    monkeypatch.setattr("pvzoo.demo.page.SHOWN", 2)
    scores = done.scores.copy()
    # A false claim that is accepted, a true one that is not, and a score that rounds to nought.
    scores[0, 1], scores[1, 0], scores[0, 2] = 1.0, -1.0, -0.001
    wrong = replace(done, scores=scores)
    text = write_demo(wrong, model, tmp_path / "out")[1].read_text()
    assert text.count("accepted (wrong)") == sum(each.confused for each in wrong.outcomes) > 0
    assert text.count("rejected (wrong)") == sum(not each.verified for each in wrong.outcomes) > 0
    assert "<td>0.00</td>" in text and "-0.00<" not in text
    assert "samples a person, of the first 2 of 3 people, with" in text
    assert f"[default: {SEED}]" in " ".join(call("demo", "--help").out.replace("│", " ").split())


def test_a_model_of_one_modality_is_shown_by_grad_cam(tmp_path: Path) -> None:
    model = made(PALM).eval()
    found = run_demo(model, "palm", seed=SEED, identities=2, fmr=1e-3)
    text = write_demo(found, model, tmp_path / "out")[1].read_text()
    assert text.count("<img ") == 2 * 3 * 1 + 1
    assert "Command" not in text
