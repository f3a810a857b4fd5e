"""What damage does to models, as files: ``degraded.csv``, ``degraded.json``, ``degraded.md``."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from .bootstrap import CONFIDENCE
from .damage import DAMAGES, SEVERITIES
from .degraded import CLEAN, TARGETS, Condition, Degraded
from .report import markdown_table, number, span, write_texts
from .results import FEW_SUBJECTS, Figure

Results = Mapping[str, Sequence[Degraded]]  # by model

COLUMNS = ("model", "damage", "modality", "severity", "level", "unit", "figure", "at", "value", "low", "high", "reason")


def find(results: Sequence[Degraded], condition: Condition) -> Degraded:
    """A model in one condition; at severity 0, as it is."""
    wanted = condition if condition.severity or condition.damage == "missing" else CLEAN
    return next(each for each in results if each.condition == wanted)


def figures(found: Degraded) -> list[tuple[str, Figure]]:
    """Error rates, then weights as ``weight of BRANCH``."""
    return [(each.name, each) for each in found.figures] + [
        (f"weight of {branch}", each) for branch, each in found.weights.items()
    ]


def warnings(results: Results) -> list[str]:
    """What a reader has to know."""
    people = [each.counts.subjects or 0 for found in results.values() for each in found[0].figures]
    few = min(people, default=0)
    return [f"intervals from {few} subjects are too narrow; take {FEW_SUBJECTS} or more"] * (few < FEW_SUBJECTS)


def to_csv(results: Results) -> str:
    """One figure a line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for model, found in results.items():
        for each in found:
            place = each.condition
            level = "" if place.level is None else place.level
            for name, figure in figures(each):
                at = "" if figure.at is None else f"{figure.at:g}"
                spread = figure.interval
                values = ("" if math.isnan(x) else x for x in (figure.value, spread.low, spread.high))
                where = (model, place.damage, place.modality, place.severity, level, place.unit)
                writer.writerow((*where, name, at, *values, figure.reason or spread.reason))
    return text.getvalue()


def to_json(results: Results, about: Mapping[str, Any], command: str) -> dict[str, Any]:
    def plain(value: float) -> float | None:
        return None if math.isnan(value) else value

    def facts(figure: Figure) -> dict[str, Any]:
        spread = figure.interval
        found: dict[str, Any] = {"value": plain(figure.value), "interval": [plain(spread.low), plain(spread.high)]}
        reason = figure.reason or spread.reason
        return {**found, "reason": reason} if reason else found

    models = {
        model: [
            {
                "damage": each.condition.damage,
                "modality": each.condition.modality or None,
                "severity": each.condition.severity,
                "level": each.condition.level,
                "eer": facts(each.figures[0]),
                "tar_at_fmr": {f"{figure.at:g}": facts(figure) for figure in each.figures[1:]},
                "weights": {branch: facts(figure) for branch, figure in each.weights.items()},
            }
            for each in found
        ]
        for model, found in results.items()
    }
    units = {name: {"unit": damage.unit, "levels": list(damage.levels)} for name, damage in DAMAGES.items()}
    notes = {"warnings": warnings(results), "pvzoo": __version__, "command": command}
    return {**about, "damages": units, "models": models, **notes}


def to_markdown(results: Results, about: Mapping[str, Any], command: str, pictures: Sequence[str]) -> str:
    lines = ["# Degraded and missing input", "", *(f"* {name}: {value}" for name, value in about.items()), ""]
    lines += ["Probes are damaged, the gallery is not; severity 0 is the clean test.", ""]
    levels = [(kind, damage.unit, *(f"{level:g}" for level in damage.levels)) for kind, damage in DAMAGES.items()]
    severities = [str(severity) for severity in range(1, SEVERITIES + 1)]
    lines += [*markdown_table(("damage", "level", *severities), levels), ""]
    lines += [f"![{Path(picture).stem}]({picture})" for picture in pictures] + [""] * bool(pictures)
    for model, found in results.items():
        lines += [f"## {model}", ""]
        for title, name, at in (("EER", "eer", None), *((f"TAR at FMR {t:g}", "tar_at_fmr", t) for t in TARGETS)):
            rows, reasons = _rows(found, name, at)
            if rows:
                head = ("damage", "of", "0", *severities, f"{CONFIDENCE:.0%} interval of the last")
                lines += [f"{title}:", "", *markdown_table(head, rows), ""]
            lines += [f"{title} cannot be had: {reason}." for reason in reasons] + [""] * bool(reasons)
        for branch in find(found, next((e.condition for e in found if e.condition.modality), CLEAN)).weights:
            rows, _ = _rows(found, f"weight of {branch}", None)
            head = ("damage", "of", "0", *severities, f"{CONFIDENCE:.0%} interval of the last")
            lines += [f"Mean weight of the damaged modality, {branch} fusion:", "", *markdown_table(head, rows), ""]
    lines += ["## Read with care", "", *(f"* {warning}" for warning in warnings(results)), ""] * bool(warnings(results))
    lines += [f"pvzoo {__version__}" + (f", `{command}`" if command else "")]
    return "\n".join(lines) + "\n"


def _rows(found: Sequence[Degraded], name: str, at: float | None) -> tuple[list[tuple[str, ...]], list[str]]:
    """A row for each damage and modality, missing ones in the column of severity 1; and why values are missing."""
    rows, reasons = [], []
    places = dict.fromkeys((e.condition.damage, e.condition.modality) for e in found if e.condition.modality)
    for damage, modality in places:
        steps = [Condition("missing", modality)] if damage == "missing" else []
        steps = steps or [Condition(damage, modality, severity) for severity in range(1, SEVERITIES + 1)]
        values = [
            _value(find(found, CLEAN), name, at, modality),
            *(_value(find(found, s), name, at, "") for s in steps),
        ]
        reasons += [each.reason for each in values if each is not None and each.reason]
        if all(each is None or math.isnan(each.value) for each in values[1:]):
            continue
        cells = ["-" if each is None else number(each.value, 3) for each in values]
        last = values[-1]
        rows.append((damage, modality, *cells, *[""] * (6 - len(cells)), "-" if last is None else span(last.interval)))
    return rows, list(dict.fromkeys(reasons))


def _value(found: Degraded, name: str, at: float | None, modality: str) -> Figure | None:
    """A figure; where nothing is damaged, the weights are those of each modality."""
    wanted = f"{name}, {modality}" if modality and name.startswith("weight") else name
    return next((figure for title, figure in figures(found) if (title, figure.at) == (wanted, at)), None)


def write_degraded(
    results: Results, folder: Path, *, about: Mapping[str, Any], pictures: Sequence[str] = (), command: str = ""
) -> list[Path]:
    """Writes the files.

    Args:
        results: By model.
        folder: Made if it is not there.
        about: What was evaluated: data set, protocol.
        pictures: Names of files in the folder, for the report to show.
        command: How it was made.

    Raises:
        EvaluationError: If they cannot be written.
    """
    facts = to_json(results, about, command)
    texts = {
        "degraded.csv": to_csv(results),
        "degraded.json": json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "degraded.md": to_markdown(results, about, command, pictures),
    }
    return write_texts(folder, texts)
