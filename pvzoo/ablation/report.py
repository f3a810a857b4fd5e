"""Reports of studies: JSON, Markdown, CSV, and a plot of the rates with their intervals."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..evaluation.bootstrap import CONFIDENCE, Interval
from ..evaluation.metrics import power
from ..evaluation.report import markdown_table, write_texts
from ..extras import missing
from .compare import Difference, Measured, difference, holm
from .run import FMR, NAMES, Outcome, Results

INK, FAINT, BLUE, RED = "#1c1e22", "#9aa0a8", "#0072b2", "#d55e00"  # of Okabe and Ito's colours


@dataclass(frozen=True, eq=False)
class Row:
    """An arm, as the report shows it.

    Attributes:
        eer: ``None`` if the arm failed.
        tar: At :data:`~pvzoo.ablation.run.FMR`.
        against: Its EER against that of the reference; ``None`` for the reference itself.
        p: Of that, adjusted for the number of arms.
    """

    outcome: Outcome
    eer: Measured | None = None
    tar: Measured | None = None
    against: Difference | None = None
    p: float = math.nan

    @property
    def name(self) -> str:
        return self.outcome.arm.name

    @property
    def group(self) -> str:
        return self.outcome.arm.group or "reference"


def rows(results: Results) -> list[Row]:
    """The reference, and every arm with its difference; p-values are Holm's, over all arms."""
    first, *others = results.outcomes
    reference = measured(first, "eer") if first.trials else None
    made = [Row(first, reference, measured(first, "tar") if first.trials else None)]
    for outcome in others:
        if not outcome.trials:
            made.append(Row(outcome))
            continue
        eer = measured(outcome, "eer")
        against = difference(eer, reference) if reference is not None else None
        made.append(Row(outcome, eer, measured(outcome, "tar"), against))
    compared = [row for row in made if row.against is not None]
    adjusted = holm([row.against.p for row in compared if row.against is not None])
    p = dict(zip(map(id, compared), adjusted, strict=True))
    return [Row(row.outcome, row.eer, row.tar, row.against, p.get(id(row), math.nan)) for row in made]


def measured(outcome: Outcome, name: str) -> Measured:
    """A figure of an arm that did not fail."""
    values = np.array([trial.figures[name] for trial in outcome.trials])
    return Measured(values, np.stack([trial.folds[NAMES.index(name)] for trial in outcome.trials]))


def to_json(results: Results, *, command: str = "") -> dict[str, Any]:
    """The content of ``results.json``."""

    def span(interval: Interval) -> list[float] | None:
        return None if interval.reason else [interval.low, interval.high]

    found = []
    for row in rows(results):
        entry: dict[str, Any] = {"group": row.group, "arm": row.name, "changes": dict(row.outcome.arm.changes)}
        if row.eer is None or row.tar is None:
            entry["error"] = row.outcome.error
        else:
            for name, figure in (("eer", row.eer), ("tar_at_fmr", row.tar)):
                values = [float(value) for value in figure.values]
                entry[name] = {"mean": figure.mean, "interval": span(figure.interval), "seeds": values}
            entry |= {name: row.outcome.trials[0].figures[name] for name in ("parameters", "trained")}
            entry["seconds"] = [trial.figures["seconds"] for trial in row.outcome.trials]
        if row.against is not None:
            interval = span(row.against.interval)
            entry["eer_difference"] = {"mean": row.against.value, "interval": interval, "p_holm": row.p}
        found.append(entry)
    return {
        **results.about,
        **{f"n_{name}": count for name, count in asdict(results.counts).items()},
        "fmr": FMR,
        "seeds": results.study.seeds,
        "bootstrap": {"folds": results.folds, "unit": "subject", "confidence": CONFIDENCE},
        "arms": found,
        "left_out": [asdict(each) for each in results.arms.left_out],
        "pvzoo": __version__,
        "command": command,
    }


HEAD = (
    "arm",
    "EER %",
    f"{CONFIDENCE:.0%} interval",
    "seeds",
    "against the reference",
    f"{CONFIDENCE:.0%} interval",
    "p",
    f"TAR % at FMR {power(FMR)}",
    "trained parameters",
)


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table that people read."""
    if row.eer is None or row.tar is None:
        return (row.name, "failed", row.outcome.error, *[""] * (len(HEAD) - 3))
    against = ("", "", "")
    if row.against is not None:
        p = f"{row.p:.3f}" if row.p >= 0.001 else "< 0.001"
        against = (f"{100 * row.against.value:+.2f}", _span(row.against.interval, "+.2f"), p)
    seeds = " ".join(f"{100 * value:.2f}" for value in row.eer.values)
    trained = f"{row.outcome.trials[0].figures['trained']:,}"
    return (
        row.name,
        f"{100 * row.eer.mean:.2f}",
        _span(row.eer.interval, ".2f"),
        seeds,
        *against,
        f"{100 * row.tar.mean:.1f}",
        trained,
    )


def _span(interval: Interval, form: str) -> str:
    return "-" if interval.reason else f"{100 * interval.low:{form}} to {100 * interval.high:{form}}"


def to_markdown(results: Results, *, command: str = "") -> str:
    """The report for people."""
    study, counts = results.study, results.counts
    lines = [f"# {study.summary or 'Ablation'}", ""]
    lines += [f"* data: {results.about['data']}", f"* protocol: {results.about['protocol']}"]
    lines += [
        f"* test: {counts.subjects:,} subjects, {counts.identities:,} identities, {counts.genuine:,} genuine and "
        f"{counts.impostor:,} impostor comparisons",
        f"* seeds of stage 2: {study.seeds}",
        *(f"* {note}" for note in results.about["notes"]),
        "",
        f"Intervals: {results.folds:,} folds of test subjects drawn with replacement, of the mean over the seeds; what "
        "other seeds do is seen in the column of seeds. A difference is paired: both arms are tested on the same "
        "subjects in every fold. p is two-sided, and adjusted for all arms (Holm).",
        "",
    ]
    found = rows(results)
    lines += [*markdown_table(HEAD, [cells(found[0])]), ""]
    for name, group in study.groups.items():
        members = [cells(row) for row in found[1:] if row.group == name]
        if members:
            lines += [
                f"## {name}: {group.summary}" if group.summary else f"## {name}",
                "",
                *markdown_table(HEAD, members),
                "",
            ]
    left_out = [f"* {each.group} / {each.name}: {each.reason}" for each in results.arms.left_out]
    lines += ["## Installed, and not for this model", "", *left_out, ""] if left_out else []
    lines += [f"pvzoo {__version__}" + (f", `{command}`" if command else "")]
    return "\n".join(lines) + "\n"


def to_csv(results: Results) -> str:
    """A line for each arm and seed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("group", "arm", "seed", "eer", "tar", "dev_eer", "parameters", "trained", "seconds", "error"))
    for row in rows(results):
        for trial in row.outcome.trials:
            of = trial.figures
            numbers = [of[name] for name in ("eer", "tar", "dev_eer", "parameters", "trained", "seconds")]
            writer.writerow((row.group, row.name, trial.seed, *numbers, ""))
        if not row.outcome.trials:
            writer.writerow((row.group, row.name, *[""] * 7, row.outcome.error))
    return text.getvalue()


def draw(results: Results) -> Any:
    """The EER of every arm with its interval and its seeds, as a matplotlib figure.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing("matplotlib", "viz", error) from error
    found = [row for row in rows(results) if row.eer is not None]
    heads = [n for n, row in enumerate(found) if not n or row.group != found[n - 1].group]
    places, place = [], 0.0
    for number in range(len(found)):
        place += 1.0 + 0.9 * (number in heads)
        places.append(place)
    figure = Figure(figsize=(7.5, 0.9 + 0.24 * (place + 1)), layout="constrained")
    axes = figure.subplots()
    for row, y in zip(found, places, strict=True):
        assert row.eer is not None
        differs = row.against is not None and row.p < 1 - CONFIDENCE
        colour = INK if row.against is None else (RED if row.against.value > 0 else BLUE) if differs else FAINT
        interval = row.eer.interval
        if not interval.reason:
            axes.plot([100 * interval.low, 100 * interval.high], [y, y], color=colour, lw=1.6, solid_capstyle="butt")
        axes.plot(100 * row.eer.values, [y] * len(row.eer.values), "|", color=colour, ms=7, mew=1)
        axes.plot(100 * row.eer.mean, y, "o", color=colour, ms=5)
    if found and found[0].against is None and found[0].eer is not None:
        axes.axvline(100 * found[0].eer.mean, color=INK, lw=0.8, ls=":")
    labels = [(y, row.name, "normal") for row, y in zip(found, places, strict=True)]
    labels += [(places[n] - 0.95, found[n].group, "bold") for n in heads]
    axes.set_yticks([y for y, _, _ in labels], [text for _, text, _ in labels])
    for tick, (_, _, weight) in zip(axes.get_yticklabels(), labels, strict=True):
        tick.set_fontweight(weight)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(place + 0.8, 0)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"EER, % (dot: mean over seeds; ticks: seeds; line: {CONFIDENCE:.0%} interval by subject)")
    axes.grid(axis="x", alpha=0.25)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure


def write_report(results: Results, folder: Path, *, command: str = "") -> list[Path]:
    """Writes ``report.md``, ``results.json``, ``results.csv``, ``eer.png`` and ``eer.svg``."""
    texts = {
        "report.md": to_markdown(results, command=command),
        "results.json": json.dumps(to_json(results, command=command), indent=2, ensure_ascii=False) + "\n",
        "results.csv": to_csv(results),
    }
    write_texts(folder, texts)
    figure = draw(results)
    for name in ("eer.png", "eer.svg"):
        figure.savefig(folder / name, dpi=150)
    return [folder / name for name in (*texts, "eer.png", "eer.svg")]
