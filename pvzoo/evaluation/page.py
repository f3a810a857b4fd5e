"""A report as one HTML page, with nothing to be fetched: figures and pictures are inside it (extra ``viz``)."""

from __future__ import annotations

import re
from base64 import b64encode
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from .. import __version__
from . import report
from .bootstrap import CONFIDENCE
from .figures import COLOURS, FAINT, INK, draw
from .report import ALONE, PAGE, Beside
from .results import Evaluation

# What each figure shows, and what to look at.
_CAPTIONS = {
    "roc": (
        "ROC",
        "Share of genuine comparisons that are accepted, by the share of impostor comparisons that are: "
        "higher and further left is better.",
    ),
    "det": (
        "DET",
        "Both error rates on normal-deviate axes: lower and further left is better. Dots are equal error rates.",
    ),
    "scores": ("Scores", "How genuine and impostor scores are spread: the less they overlap, the better."),
    "cmc": ("CMC", "Share of searches in which the right identity is among the best."),
}
_ROLES = {INK: "ink", FAINT: "faint", **{colour: f"line{number}" for number, colour in enumerate(COLOURS)}}


def write_page(result: Evaluation, folder: Path, beside: Beside = ALONE) -> list[Path]:
    """Writes ``index.html``, and each of its figures as an SVG file.

    Args:
        result: What was found.
        folder: Of the report.
        beside: What else there is to show.

    Raises:
        MissingExtraError: If matplotlib is not installed.
        EvaluationError: If they cannot be written.
    """
    drawn = draw({"this result": result, **beside.baselines})
    figures = [
        {"title": title, "caption": caption, "svg": inline(drawn[name], f"{title}. {caption}")}
        for name, (title, caption) in _CAPTIONS.items()
        if name in drawn
    ]
    matchers = {"this result": result, **beside.baselines} if beside.baselines else {}
    text = render(
        "report.html.jinja",
        result=result,
        beside=beside,
        title=result.protocol.get("model") or result.protocol.get("scores") or "scores",
        figures=figures,
        matchers={name: report.compared_figures(each) for name, each in matchers.items()},
        report=report,
        confidence=f"{CONFIDENCE:.0%}",
    )
    return report.write_texts(folder, {PAGE: text} | {f"{name}.svg": svg for name, svg in drawn.items()})


def render(name: str, package: str = __package__, **values: Any) -> str:
    """A page from a template, which may extend ``base.html.jinja``: its head, style and frame.

    Args:
        name: Of the template.
        package: That holds it.
        **values: What it is filled in with, beside ``version`` and the filter ``base64``.
    """

    def source(name: str) -> str | None:
        places = (files(package) / name, files(__package__) / name)
        return next((place.read_text(encoding="utf-8") for place in places if place.is_file()), None)

    environment = Environment(
        loader=FunctionLoader(source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"base64": lambda content: b64encode(content).decode("ascii")}
    return environment.get_template(name).render(version=__version__, **values)


def inline(svg: str, description: str) -> Markup:
    """An SVG document of matplotlib's as an element of a page: its colours become those of the page's style."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*">', "<g>", body)  # equal in every figure; what is referred to has names of its own
    body = re.sub(r"font-family: [^;\"]*", "font-family: inherit", body)
    for colour, role in _ROLES.items():
        body = body.replace(colour, f"var(--{role})")
    opening = Markup('<svg role="img" aria-label="{}" viewBox="{}">').format(description, _view(body))
    return opening + Markup(body[body.index(">") + 1 :])


def _view(body: str) -> str:
    found = re.search(r'viewBox="([^"]*)"', body)
    assert found is not None
    return found[1]
