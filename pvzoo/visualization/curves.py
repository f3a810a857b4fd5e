"""Curves of what damage does to models: error rates and fusion weights by severity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evaluation.damage import DAMAGES, SEVERITIES
from ..evaluation.degraded import CLEAN, TARGETS, Condition, Degraded
from ..evaluation.degraded_report import find
from ..evaluation.results import Figure as Rate
from .figures import COLOURS, STYLE

MARKERS = "os^Dv<>Pp"
LINES = ("-", "--", ":", "-.")


def draw_degraded(results: Mapping[str, Sequence[Degraded]]) -> dict[str, Figure]:
    """Draws all that is known, a figure each: ``eer``, ``tar_1e-2``, ``tar_1e-3``, ``weights``.

    A row is the modality that is damaged, a column a kind of damage; the first column of error rates is the modality
    missing. Bars are intervals by subject.

    Args:
        results: By model; see :func:`~pvzoo.evaluation.degraded.evaluate_degraded`.
    """
    every = [each for found in results.values() for each in found]
    drawn = {"eer": _draw(results, "eer", None, "EER, %")}
    for target in TARGETS:
        if any(figure.at == target and not math.isnan(figure.value) for each in every for figure in each.figures):
            digits = f"{target:.0e}".replace("e-0", "e-")
            drawn[f"tar_{digits}"] = _draw(results, "tar_at_fmr", target, f"TAR at FMR {digits}, %")
    if any(each.weights for each in every):
        drawn["weights"] = _draw(results, "weight", None, "its weight, %")
    return drawn


def _draw(results: Mapping[str, Sequence[Degraded]], name: str, at: float | None, label: str) -> Figure:
    modalities = list(
        dict.fromkeys(
            each.condition.modality for found in results.values() for each in found if each.condition.modality
        )
    )
    # The weight of a missing modality is 0: it would only stretch the scale.
    missing = name != "weight" and any(e.condition.damage == "missing" for found in results.values() for e in found)
    columns = (["missing"] if missing else []) + list(DAMAGES)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.7 + 1.45 * len(modalities)), layout="constrained")
        grid = figure.subplots(
            *(len(modalities), len(columns)),
            sharey=True,
            squeeze=False,
            width_ratios=[0.45 if column == "missing" else 1.0 for column in columns],
        )
        for row, (axes, modality) in enumerate(zip(grid, modalities, strict=True)):
            for place, damage in zip(axes, columns, strict=True):
                for number, (model, found) in enumerate(results.items()):
                    _lines(place, found, damage, modality, (name, at), number, len(results), model)
                if not row:
                    place.set_title(damage.replace("_", " "), fontsize=8)
                _dress(place, damage, row == len(modalities) - 1)
            axes[0].set_ylabel(f"{modality} damaged\n{label}", fontsize=8)
        handles: dict[str, Any] = {}
        for place in grid.ravel():
            handles |= dict(zip(*place.get_legend_handles_labels()[::-1], strict=True))
        figure.legend(
            list(handles.values()), list(handles), loc="outside upper center", ncols=3, frameon=False, fontsize=7
        )
    return figure


def _dress(place: Axes, damage: str, last: bool) -> None:
    place.grid(alpha=0.25, linewidth=0.5)
    place.spines[["top", "right"]].set_visible(False)
    place.tick_params(labelsize=7, length=2)
    if damage == "missing":
        place.set(xlim=(-0.6, 1.6))
        place.set_xticks([0, 1], labels=["no", "yes"])
    else:
        place.set(xlim=(-0.3, SEVERITIES + 0.3))
        place.set_xticks(range(SEVERITIES + 1))
    if last:
        place.set_xlabel("missing" if damage == "missing" else "severity", fontsize=7)


def _lines(
    place: Axes,
    found: Sequence[Degraded],
    damage: str,
    modality: str,
    what: tuple[str, float | None],
    number: int,
    models: int,
    model: str,
) -> None:
    """One line a model, or of weights one a branch."""
    if damage == "missing":
        steps = [CLEAN, Condition("missing", modality)]
    else:
        steps = [CLEAN, *(Condition(damage, modality, severity) for severity in range(1, SEVERITIES + 1))]
    known = [each.condition for each in found]
    if steps[1] not in known:  # a model of one modality
        return
    colour = colormaps[COLOURS](np.linspace(0, 0.85, models)[number])
    at = np.arange(len(steps)) + 0.09 * (number - (models - 1) / 2)  # side by side, that bars do not hide each other
    for line, (branch, rates) in enumerate(_series(found, steps, modality, *what)):
        values = np.array([100 * rate.value for rate in rates])
        low, high = (np.array([100 * getattr(rate.interval, end) for rate in rates]) for end in ("low", "high"))
        # The interval need not hold the value: a fold of few subjects is a coarse thing.
        reach = np.nan_to_num(np.stack([values - low, high - values]).clip(min=0))
        title = f"{model}, {branch}" if branch else model
        style = {"color": colour, "marker": MARKERS[number % len(MARKERS)], "markersize": 3, "linewidth": 1}
        place.errorbar(
            at, values, reach, label=title, linestyle=LINES[line % len(LINES)], elinewidth=0.6, capsize=1.5, **style
        )


def _series(
    found: Sequence[Degraded], steps: Sequence[Condition], modality: str, name: str, at: float | None
) -> Iterator[tuple[str, list[Rate]]]:
    """A rate at each step; of weights, that of the modality in each branch."""
    conditions = [find(found, step) for step in steps]
    if name != "weight":
        yield "", [next(r for r in each.figures if (r.name, r.at) == (name, at)) for each in conditions]
        return
    for branch in conditions[1].weights:
        yield (
            branch,
            [conditions[0].weights[f"{branch}, {modality}"], *(each.weights[branch] for each in conditions[1:])],
        )
