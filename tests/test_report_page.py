"""The page of a report, in a browser; and the comparisons that went most wrong, which it shows."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from browser import CONTRAST, DESKTOP, OVERFLOW, PHONE, Open
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pvzoo.evaluation import extremes, page, report
from pvzoo.evaluation.figures import draw
from pvzoo.evaluation.results import choose_thresholds, evaluate
from pvzoo.evaluation.scorefile import ScoreSet, score_set
from pvzoo.evaluation.scores import Comparisons
from pvzoo.evaluation.trials import Population, all_pairs, gallery_probe, listed

HOSTILE = '<img src="https://example.org/x"><script>alert(1)</script> & "quotes"'


def people(subjects: int, samples: int = 3, noise: float = 0.8) -> tuple[torch.Tensor, Population]:
    generator = torch.Generator().manual_seed(subjects)
    whose = np.repeat(np.arange(2 * subjects), samples)
    centres = torch.randn(2 * subjects, 16, generator=generator)
    vectors = centres[whose] + noise * torch.randn(len(whose), 16, generator=generator)
    return vectors, Population.of(whose.tolist(), (whose // 2).tolist())


# --- extremes ---------------------------------------------------------------------------------------------------------


@given(st.integers(2, 9), st.integers(1, 8), st.sampled_from(["all", "gallery", "listed"]), st.booleans())
def test_extremes_are_those_of_all_scores(subjects: int, count: int, kind: str, as_set: bool) -> None:
    vectors, population = people(subjects)
    numbers = range(len(vectors))
    trials = {
        "all": all_pairs(len(vectors)),
        "gallery": gallery_probe([n for n in numbers if n % 3 == 0], [n for n in numbers if n % 3]),
        "listed": listed([(a, b) for a in numbers for b in range(a) if (a + b) % 3 or a // 3 == b // 3]),
    }[kind]
    source = Comparisons(vectors, population, trials)
    whole = score_set(source, [str(n) for n in numbers])
    assert whole.who is not None
    found = extremes.extremes(whole if as_set else source, count)
    for pairs, mask, sign in ((found.genuine, whole.genuine, 1), (found.impostor, ~whole.genuine, -1)):
        best = sign * np.sort(sign * whole.scores[mask])[:count]
        assert [pair.score for pair in pairs] == pytest.approx(best.tolist(), abs=1e-6)
        assert len({(pair.first, pair.second) for pair in pairs}) == len(pairs) == min(count, mask.sum())
        unit = torch.nn.functional.normalize(vectors)
        for pair in pairs:
            assert float(unit[pair.first] @ unit[pair.second]) == pytest.approx(pair.score, abs=1e-5)
            same = bool(population.identity[pair.first] == population.identity[pair.second])
            assert same == (sign == 1)


def test_extremes_of_equal_scores_and_of_nobody_knows_whom() -> None:
    vectors = torch.ones(2500, 4)
    source = Comparisons(vectors, Population.of([n // 2 for n in range(2500)]), all_pairs(2500))
    found = extremes.extremes(source, 3)
    assert len(found.genuine) == len(found.impostor) == 3
    assert all(pair.first // 2 == pair.second // 2 for pair in found.genuine)
    assert extremes.extremes(ScoreSet(np.arange(4.0), np.arange(4) > 1)) == extremes.Extremes((), ())


# --- what is written --------------------------------------------------------------------------------------------------


def written(folder: Path) -> str:
    """A report with everything in it, and names that try to be markup."""
    vectors, population = people(12)
    rows = range(len(vectors))
    source = Comparisons(
        vectors, population, gallery_probe([n for n in rows if n % 3 == 0], [n for n in rows if n % 3])
    )
    other, others = people(21, noise=1.5)
    dev = choose_thresholds(Comparisons(other, others, all_pairs(len(other))))
    about = {"protocol": {"model": HOSTILE, HOSTILE: 1}, "warnings": [HOSTILE]}
    result = evaluate(source, dev=dev, carried=dev[:1], folds=50, **about)
    noisy, _ = people(12, noise=1.6)
    baseline = evaluate(Comparisons(noisy, population, source.trials), folds=50)
    pixels = io.BytesIO()
    Image.new("L", (40, 30), 90).save(pixels, "JPEG")

    def sample(number: int) -> extremes.Sample:
        return extremes.Sample(f"{HOSTILE} {number}", dict.fromkeys(("palm", "vein"), pixels.getvalue()))

    worst = extremes.shown(extremes.extremes(source, 2), sample, sample)
    beside = report.Beside(f"pvzoo eval {HOSTILE}", {f"lines $x {HOSTILE} $y^": baseline}, "", worst)
    report.write_report(result, folder, beside)
    page.write_page(result, folder, beside)
    return (folder / "index.html").read_text(encoding="utf-8")


class Outline(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_page_says_everything_and_is_all_there_is(tmp_path: Path) -> None:
    text = written(tmp_path / "out")
    assert len(text) < 300_000
    outline = Outline(text)
    assert not outline.all("script") and [link["href"] for link in outline.all("link")] == ["data:,"]
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,") for image in outline.all("img"))
    assert len(outline.all("img")) == 2 * 2 * 2 * 2 and all(image["alt"] for image in outline.all("img"))
    assert [(svg["role"], (svg["aria-label"] or "").split(".")[0]) for svg in outline.all("svg")] == [
        ("img", "ROC"),
        ("img", "DET"),
        ("img", "Scores"),
        ("img", "CMC"),
    ]
    assert all(cell.get("scope") in ("row", "col") for cell in outline.all("th"))
    names = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(names) == len(set(names))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(names)
    # What figures are drawn in follows the page's light or dark.
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}", drawn) and "var(--line0)" in drawn and "var(--ink)" in drawn
    assert "Intervals: 50 folds of subjects" in text
    thresholds = ("Thresholds of the dev set", "Thresholds that the model came with")
    for heading in ("Read with care", "Beside matchers without training", *thresholds, "Command"):
        assert f">{heading}<" in text
    # Figures stand alone as well.
    for name in ("roc", "det", "scores", "cmc"):
        root = ElementTree.parse(tmp_path / f"out/{name}.svg").getroot()
        assert root.tag.endswith("svg") and "var(" not in (tmp_path / f"out/{name}.svg").read_text()


def test_equal_results_give_equal_figures() -> None:
    vectors, population = people(6)
    source = Comparisons(vectors, population, all_pairs(len(vectors)))
    first, second = (draw({"this result": evaluate(source, folds=0)}) for _ in range(2))
    assert first == second and list(first) == ["roc", "det", "scores"]


def test_large_results_make_no_larger_page(tmp_path: Path) -> None:
    vectors, population = people(250, noise=1.2)
    result = evaluate(Comparisons(vectors, population, all_pairs(len(vectors))), folds=0)
    assert len(result.counted.tally.thresholds) > 900_000
    page.write_page(result, tmp_path / "out")
    assert (tmp_path / "out/index.html").stat().st_size < 150_000


@pytest.mark.parametrize("scores", [[1.0, 1, 0, 0], [0.5, 0.5, 0.5, 0.5], [1e30, 2e30, -1e30, 0]])
def test_extreme_scores_can_be_drawn(tmp_path: Path, scores: list[float]) -> None:
    result = evaluate(ScoreSet(np.array(scores), np.arange(4) < 2))
    page.write_page(result, tmp_path / "out")
    assert (tmp_path / "out/roc.svg").is_file()
    assert "folds of subjects" not in (tmp_path / "out/index.html").read_text()


def test_without_matplotlib_all_but_the_page_is_written(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scores.csv").write_text("score,genuine\n1,1\n0.5,1\n0.1,0\n0,0\n")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    command = ("eval", "--scores", tmp_path / "scores.csv", "--out", tmp_path / "out")
    done = call(*command)
    assert done.code == 2
    assert done.out.startswith("EER\t0\t")
    assert done.err.splitlines()[-1].startswith("error: this needs matplotlib, which cannot be imported")
    assert done.err.endswith(": pip install 'pvzoo[viz]'\n")
    assert (tmp_path / "out/metrics.json").is_file() and not (tmp_path / "out/index.html").exists()
    assert call(*command, "--no-page").code == 0


def test_the_page_of_an_earlier_report_does_not_stay(tmp_path: Path) -> None:
    written(tmp_path)
    vectors, population = people(6)
    report.write_report(evaluate(Comparisons(vectors, population, all_pairs(len(vectors))), folds=0), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.csv", "metrics.csv", "metrics.json", "report.md"]


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_the_page_in_a_browser(open_page: Open, tmp_path: Path, width: int, scheme: Any) -> None:
    written(tmp_path / "out")
    file = tmp_path / "out/index.html"
    seen = open_page(file, width=width, scheme=scheme)
    assert seen.errors == []
    assert seen.requests == [file.as_uri()]
    assert seen.js(OVERFLOW) == 0
    assert seen.js("[...document.images].every(image => image.complete && image.naturalWidth === 40)")
    assert seen.js("document.images.length") == 16
    assert seen.js("document.querySelector('h1').textContent") == f"Evaluation of {HOSTILE}"
    dark = seen.js("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    assert dark == (scheme == "dark")
    ratio, where = seen.js(CONTRAST)
    assert ratio >= 4.5, where
    # Every figure is as wide as its column, and its text is of a size that can be read.
    for box in seen.js("[...document.querySelectorAll('figure svg')].map(svg => svg.getBoundingClientRect().width)"):
        assert 300 < box <= width
    assert seen.screenshot(tmp_path / "page.png").stat().st_size > 20_000


def test_the_browser_tells_errors_and_requests(open_page: Open, tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    file.write_text(
        "<button onclick=\"document.title = 'clicked'\">go</button><img src='missing.png'>"
        "<script>console.error('oh no'); throw new Error('broken')</script>"
    )
    seen = open_page(file)
    assert "oh no" in seen.errors and "broken" in seen.errors
    assert seen.requests == [file.as_uri(), (tmp_path / "missing.png").as_uri()]
    seen.page.click("button")
    assert seen.js("document.title") == "clicked"
