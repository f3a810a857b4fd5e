"""Reports: a result as JSON, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import EvaluationError
from ..tensorfile import replacing
from ..threshold import Threshold
from . import metrics
from .bootstrap import CONFIDENCE, Interval
from .extremes import Worst
from .metrics import power
from .results import Applied, Evaluation, Figure

CURVE_POINTS = 2000
PAGE, FIGURES = "index.html", ("roc", "det", "scores", "cmc")


def _plain(value: float) -> float | None:
    """JSON knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def _pair(interval: Interval) -> list[float | None]:
    return [_plain(interval.low), _plain(interval.high)]


@dataclass(frozen=True, eq=False)
class Beside:
    """What a report holds beside a result.

    Attributes:
        command: The command that made it.
        baselines: Results of matchers that need no training, on the same comparisons, by name.
        left_out: Why there are no baselines.
        worst: The comparisons that went most wrong.
    """

    command: str = ""
    baselines: Mapping[str, Evaluation] = field(default_factory=dict)
    left_out: str = ""
    worst: Worst = field(default_factory=Worst)


ALONE = Beside()


def to_json(result: Evaluation, beside: Beside = ALONE) -> dict[str, Any]:
    """The content of ``metrics.json``: a value for each figure, ``null`` with a reason where there is none."""
    worst = {"genuine": beside.worst.genuine, "impostor": beside.worst.impostor}
    rate = result.eer
    return {
        **_figures(result),
        "eer_low": rate.low,
        "eer_high": rate.high,
        "eer_threshold": _plain(rate.point.threshold),
        "auc_error": metrics.auc_error(result.counted.tally),
        **{f"n_{name}": count for name, count in asdict(result.counts).items()},
        "bootstrap": dict(result.bootstrap),
        "thresholds": [
            {"dev": each.threshold.model_dump(), "fmr": each.point.fmr, "fnmr": each.point.fnmr}
            for each in result.applied
        ],
        "model_thresholds": [
            {"model": each.threshold.model_dump(), "fmr": each.point.fmr, "fnmr": each.point.fnmr}
            for each in result.carried
        ],
        "baselines": {name: _figures(each) for name, each in beside.baselines.items()},
        "baselines_left_out": beside.left_out,
        "worst": {
            kind: [{"score": pair.score, "first": pair.first.name, "second": pair.second.name} for pair in pairs]
            for kind, pairs in worst.items()
        },
        "warnings": list(result.warnings),
        "protocol": dict(result.protocol),
        "pvzoo": __version__,
        "command": beside.command,
    }


def _figures(result: Evaluation) -> dict[str, Any]:
    """A value for each figure, and its interval, reason and remarks by the same name."""
    values: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    care: dict[str, list[str]] = {}
    for figure in result.figures:
        name = figure.name
        if figure.at is None:
            values[name], intervals[name] = _plain(figure.value), _pair(figure.interval)
        else:
            values.setdefault(name, {})[power(figure.at)] = _plain(figure.value)
            intervals.setdefault(name, {})[power(figure.at)] = _pair(figure.interval)
            name = f"{name}.{power(figure.at)}"
        if figure.reason or figure.interval.reason:
            reasons[name] = figure.reason or figure.interval.reason
        if figure.remarks:
            care[name] = list(figure.remarks)
    return {**values, "intervals": intervals, "reasons": reasons, "remarks": care}


def number(value: float, digits: int = 6) -> str:
    """A value as reports show it."""
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def span(interval: Interval) -> str:
    """An interval as reports show it."""
    return "-" if interval.reason else f"{number(interval.low, 4)} to {number(interval.high, 4)}"


def brief(figure: Figure | None) -> str:
    """A value and its interval, in a table of several matchers."""
    if figure is None or math.isnan(figure.value):
        return "-"
    text = number(figure.value, 4)
    return text if figure.interval.reason else f"{text} ({span(figure.interval)})"


def amount(of: int | None) -> str:
    """A number of subjects or comparisons as reports show it."""
    return "unknown" if of is None else f"{of:,}"


def remarks(figure: Figure) -> str:
    """Why there is no value, and what to know of it."""
    return "; ".join(filter(None, (figure.reason, *figure.remarks)))


# By which matchers are set side by side.
BASIS = {
    "EER": ("eer", None),
    "TAR at FMR 1e-2": ("tar_at_fmr", 1e-2),
    "TAR at FMR 1e-3": ("tar_at_fmr", 1e-3),
    "rank-1": ("rank_1", None),
}


def compared_figures(result: Evaluation) -> list[Figure | None]:
    """The figures of :data:`BASIS`; ``None`` where there is none."""
    found = {(figure.name, figure.at): figure for figure in result.figures}
    return [found.get(key) for key in BASIS.values()]


def rule(threshold: Threshold) -> str:
    """How a threshold was chosen, as reports write it."""
    return "EER" if threshold.target is None else f"FMR <= {power(threshold.target)}"


def thresholds(result: Evaluation) -> Iterator[tuple[str, str, Sequence[Applied]]]:
    """The thresholds that reports show, with a title and a word for where they were chosen."""
    if result.applied:
        yield "Thresholds of the dev set", "dev", result.applied
    if result.carried:
        yield "Thresholds that the model came with", "then", result.carried


def to_markdown(result: Evaluation, beside: Beside = ALONE) -> str:
    """The report for people."""
    rows: list[Sequence[str]] = []
    for each in result.figures:
        rests = each.counts
        sizes = map(amount, (rests.subjects, rests.identities, rests.genuine, rests.impostor))
        rows.append((each.title, number(each.value), span(each.interval), *sizes, remarks(each)))
    head = ("figure", "value", f"{CONFIDENCE:.0%} interval", "subjects", "identities", "genuine", "impostor", "remarks")
    rate = result.eer
    lines = ["# Evaluation", "", *(f"> **{warning}**\n>" for warning in result.warnings), ""]
    lines += [f"* {name}: {value}" for name, value in result.protocol.items()]
    lines += ["", *markdown_table(head, rows), ""]
    where = f"threshold {number(rate.point.threshold)}, FMR {number(rate.point.fmr)}, FNMR {number(rate.point.fnmr)}"
    lines += [f"EER: {where}; between the neighbouring thresholds, {number(rate.low)} to {number(rate.high)}.", ""]
    for title, where, applied in thresholds(result):
        rows = [
            (
                rule(each.threshold),
                *map(number, (each.threshold.value, each.threshold.fmr, each.threshold.fnmr)),
                *map(number, (each.point.fmr, each.point.fnmr)),
            )
            for each in applied
        ]
        lines += [f"## {title}", ""]
        lines += [*markdown_table(("rule", "threshold", f"{where} FMR", f"{where} FNMR", "FMR", "FNMR"), rows), ""]
    if beside.baselines:
        matchers = {"this result": result, **beside.baselines}
        rows = [(name, *map(brief, compared_figures(each))) for name, each in matchers.items()]
        lines += ["## Beside matchers without training", "", *markdown_table(("matcher", *BASIS), rows), ""]
    lines += [f"Matchers without training: {beside.left_out}.", ""] * bool(beside.left_out)
    for kind, pairs in (("Genuine", beside.worst.genuine), ("Impostor", beside.worst.impostor)):
        rows = [(number(pair.score, 4), pair.first.name, pair.second.name) for pair in pairs]
        end = "lowest" if kind == "Genuine" else "highest"
        lines += [f"## {kind} pairs with the {end} scores", "", *markdown_table(("score", "", ""), rows), ""] * bool(
            rows
        )
    folds, seed = result.bootstrap.get("folds"), result.bootstrap.get("seed")
    if not all(each.interval.reason for each in result.figures):
        lines += [f"Intervals: {folds} folds of subjects drawn with replacement, seed {seed}.", ""]
    lines += [f"pvzoo {__version__}" + (f", `{beside.command}`" if beside.command else "")]
    return "\n".join(lines) + "\n"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return [line(head), line(["---"] * len(head)), *map(line, rows)]


def to_csv(result: Evaluation) -> str:
    """One figure a line, with its counts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    counts = ("subjects", "identities", "genuine", "impostor")
    writer.writerow(("figure", "at", "value", "low", "high", *counts, "reason", "remarks"))
    for each in result.figures:
        numbers = (each.value, each.interval.low, each.interval.high)
        writer.writerow(
            (
                each.name,
                "" if each.at is None else power(each.at),
                *("" if math.isnan(number) else number for number in numbers),
                *("" if count is None else count for count in asdict(each.counts).values()),
                each.reason or each.interval.reason,
                "; ".join(each.remarks),
            )
        )
    return text.getvalue()


def curve_csv(result: Evaluation) -> str:
    """Threshold, FMR and FNMR, at most 2,000 points, dense where one of them is small."""
    counts = result.counted.tally
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("threshold", "fmr", "fnmr"))
    for place in metrics.steps(counts, CURVE_POINTS):
        writer.writerow((counts.points[place], counts.fmr[place], counts.fnmr[place]))
    return text.getvalue()


def write_report(result: Evaluation, folder: Path, beside: Beside = ALONE) -> list[Path]:
    """Writes ``metrics.json``, ``report.md``, ``metrics.csv`` and ``curve.csv``; a page of an earlier report goes.

    Raises:
        EvaluationError: If they cannot be written.
    """
    texts = {
        "metrics.json": json.dumps(to_json(result, beside), indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "report.md": to_markdown(result, beside),
        "metrics.csv": to_csv(result),
        "curve.csv": curve_csv(result),
    }
    written = write_texts(folder, texts)
    for name in (PAGE, *(f"{figure}.svg" for figure in FIGURES)):
        (folder / name).unlink(missing_ok=True)
    return written


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Writes files by name, each whole or not at all.

    Raises:
        EvaluationError: If they cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        for name, text in texts.items():
            with replacing(folder / name) as new:
                new.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return [folder / name for name in texts]
