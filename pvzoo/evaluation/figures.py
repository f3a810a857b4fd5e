"""The figures of a report, drawn by matplotlib as SVG (extra ``viz``)."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch

from ..extras import missing
from . import metrics
from .metrics import Array, Tally
from .report import FIGURES
from .results import Evaluation

INK, FAINT, PAPER = "#1c1e22", "#767b84", "#ffffff"
# Okabe and Ito's colours, which the colour-blind tell apart as well; lines differ in their dashes too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1)))
_POINTS, _BINS, _RANKS = 400, 60, 20
_TICKS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5, 0.8, 0.95)

Drawing = Callable[[Any, Mapping[str, Evaluation]], None]


def draw(results: Mapping[str, Evaluation], names: Collection[str] = FIGURES) -> dict[str, str]:
    """Draws ``roc``, ``det``, ``scores`` and, where there is identification, ``cmc``.

    Args:
        results: By name, the result, and then those that it is compared with.
        names: Those to draw.

    Returns:
        SVG documents by name; equal results give equal text.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    results = {name.replace("$", r"\$"): result for name, result in results.items()}  # else it would begin a formula
    drawings: dict[str, Drawing] = {"roc": _roc, "det": _det, "scores": _scores}
    if any(_mated(result) for result in results.values()):
        drawings["cmc"] = _cmc
    return {name: _svg(name, drawing, results) for name, drawing in drawings.items() if name in names}


def _svg(name: str, drawing: Drawing, results: Mapping[str, Evaluation]) -> str:
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing("matplotlib", "viz", error) from error
    style: Any = {
        "svg.fonttype": "none",  # text stays text: to be read aloud, found and copied
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": FAINT,
        "grid.alpha": 0.25,
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "legend.frameon": False,
    }
    with rc_context(style):
        figure = Figure(figsize=(4.8, 3.6), layout="constrained")
        FigureCanvasSVG(figure)
        drawing(figure.add_subplot(), results)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return text.getvalue()


def _line(number: int) -> dict[str, Any]:
    style = number % len(COLOURS)
    return {"color": COLOURS[style], "linestyle": _DASHES[style], "linewidth": 1.6}


def _roc(axes: Any, results: Mapping[str, Evaluation]) -> None:
    least = min(1 / result.counts.impostor for result in results.values())
    for number, (name, result) in enumerate(results.items()):
        fmr, fnmr = _rates(result.counted.tally)
        axes.plot(np.maximum(fmr, least / 2), 1 - fnmr, label=name, **_line(number))
    axes.set_xscale("log")
    axes.set_xlim(least / 2, 1)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("false match rate, FMR")
    axes.set_ylabel("true accept rate, 1 - FNMR")
    axes.legend()


def _det(axes: Any, results: Mapping[str, Evaluation]) -> None:
    least = min(min(1 / r.counts.impostor, 1 / r.counts.genuine) for r in results.values()) / 2
    low = min(least, 0.005)
    for number, (name, result) in enumerate(results.items()):
        x, y = (_deviates(rate.clip(low, 1 - low)) for rate in _rates(result.counted.tally))
        axes.plot(x, y, label=name, **_line(number))
        point = result.eer.point
        at = [float(_deviates(np.array([min(max(rate, low), 1 - low)]))[0]) for rate in (point.fmr, point.fnmr)]
        axes.plot(*[[value] for value in at], marker="o", markersize=5, color=COLOURS[number % len(COLOURS)])
    ticks = [tick for tick in _TICKS if tick >= low]
    high = 0.6 if max(result.eer.value for result in results.values()) < 0.3 else 0.97
    bounds = _deviates(np.array([low, high]))
    axes.plot(bounds, bounds, color=FAINT, linewidth=0.8, linestyle=":")
    for axis, limits in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
        axis.set_ticks(_deviates(np.array(ticks)), [f"{tick:.4%}".rstrip("0%").rstrip(".") + " %" for tick in ticks])
        limits(*bounds)
    axes.tick_params(axis="x", rotation=45)
    axes.set_xlabel("false match rate, FMR")
    axes.set_ylabel("false non-match rate, FNMR")
    axes.legend()


def _scores(axes: Any, results: Mapping[str, Evaluation]) -> None:
    result = next(iter(results.values()))
    counts = result.counted.tally
    bins = int(np.clip(2 * counts.n_genuine**0.5, 10, _BINS))
    edges = np.linspace(counts.thresholds[0], np.nextafter(counts.thresholds[-1], np.inf), bins + 1)
    kinds = (("genuine", counts.genuine, COLOURS[0]), ("impostor", counts.impostor, COLOURS[1]))
    for number, (kind, weights, colour) in enumerate(kinds):
        heights, _ = np.histogram(counts.thresholds, edges, weights=weights / weights.sum())
        axes.stairs(heights, edges, label=kind, color=colour, linestyle=_DASHES[number], linewidth=1.4)
        axes.stairs(heights, edges, fill=True, color=colour, alpha=0.25)
    cut = result.applied[0].threshold.value if result.applied else result.eer.point.threshold
    if np.isfinite(cut):
        label = f"threshold of {'dev' if result.applied else 'the EER'}"
        axes.axvline(cut, color=INK, linewidth=1, linestyle=_DASHES[2], label=label)
    axes.set_ylim(0)
    axes.set_xlabel("score (higher is more alike)")
    axes.set_ylabel("share of the comparisons")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)


def _cmc(axes: Any, results: Mapping[str, Evaluation]) -> None:
    most = 1
    for number, (name, result) in enumerate(results.items()):
        searches = result.searches
        if searches is None or not _mated(result):
            continue
        shares = metrics.cmc(searches.rank[searches.mated], searches.identities)[:_RANKS]
        most = max(most, len(shares))
        axes.plot(np.arange(1, len(shares) + 1), shares, label=name, marker=".", **_line(number))
    axes.set_xlim(0.5, most + 0.5)
    axes.set_ylim(top=1.01)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("rank")
    axes.set_ylabel("searches with the right identity\nwithin the rank")
    axes.legend()


def _mated(result: Evaluation) -> bool:
    return result.searches is not None and bool(result.searches.mated.any())


def _rates(counts: Tally) -> tuple[Array, Array]:
    """FMR and FNMR at some of the thresholds."""
    places = metrics.steps(counts, _POINTS)
    return counts.fmr[places], counts.fnmr[places]


def _deviates(rates: Array) -> Array:
    return np.asarray(torch.special.ndtri(torch.from_numpy(rates)).numpy())
