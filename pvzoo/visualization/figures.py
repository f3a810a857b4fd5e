"""Pictures for papers: heat maps over palms, in colours that print in grey and that the colour-blind can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ..errors import PvzooError
from ..tensorfile import replacing
from .attention import Array, Seen

# Perceptually uniform and colour-blind-safe; cividis would be too, but its middle is the grey of the images below it.
COLOURS = "viridis"
HEAT = 0.55  # opacity over the image
PANEL = 1.35  # inches
FORMATS = (".png", ".svg", ".pdf")
STYLE: Any = {
    "font.size": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "pvzoo",
    "pdf.fonttype": 42,
    "text.parse_math": False,
}


def draw_attention(seen: Sequence[Seen]) -> Figure:
    """A row a palm: each image, the maps over it, and the weights of channels as bars.

    One colour scale serves all maps of fusion weights, centred on the equal share. Grad-CAM is scaled for each palm to
    its largest value in any modality, so that palm and vein stay comparable.

    Raises:
        PvzooError: If there is nothing to draw.
    """
    if not seen:
        raise PvzooError("there is nothing to draw")
    first = seen[0]
    modalities = list(first.images)
    columns = [(m, branch) for m in modalities for branch in (None, *first.maps)] if first.maps else []
    columns = columns or [(m, None) for m in modalities]
    widths = [1.0] * len(columns) + [1.5] * len(first.channels)
    with rc_context(STYLE):
        figure = Figure(
            figsize=(PANEL * sum(widths) + 0.9, PANEL * len(seen) * 1.04 + 0.5 + 0.3 * bool(first.channels)),
            layout="compressed",
        )
        grid = figure.subplots(len(seen), len(widths), squeeze=False, width_ratios=widths)
        norm = _norm(seen)
        for row, (axes, palm) in enumerate(zip(grid, seen, strict=True)):
            for place, (modality, branch) in zip(axes, columns, strict=False):
                _image(place, palm, modality, branch, norm)
                if not row:
                    place.set_title(modality if branch is None else _title(palm, modality, branch), fontsize=8)
            for place, (branch, weights) in zip(axes[len(columns) :], palm.channels.items(), strict=True):
                _bars(place, weights)
                if not row:
                    place.set_title(f"{branch}: channel weights", fontsize=8)
                if row == len(seen) - 1:
                    place.set_xlabel("channels, by weight", fontsize=7)
            axes[0].set_ylabel(palm.name, fontsize=8)
        if first.maps:
            _colour_bar(figure, grid[:, : len(columns)], norm, first)
    return figure


def _title(palm: Seen, modality: str, branch: str) -> str:
    return f"{modality}, {branch} {'weight' if palm.method == 'weights' else 'Grad-CAM'}"


def _norm(seen: Sequence[Seen]) -> Normalize:
    if seen[0].method == "grad_cam":
        return Normalize(0, 1)
    equal = 1 / len(seen[0].images)
    values = [x for palm in seen for maps in palm.maps.values() for x in maps.values()]
    reach = max((float(np.abs(x - equal).max()) for x in values), default=0.0)
    reach = max(reach, 0.01)
    return Normalize(max(0.0, equal - reach), min(1.0, equal + reach))


def _image(axes: Axes, palm: Seen, modality: str, branch: str | None, norm: Normalize) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    image = palm.images[modality]
    if image is None:
        axes.set_aspect("equal")
        axes.set(xlim=(0, 1), ylim=(0, 1), facecolor="0.95")
        axes.text(0.5, 0.5, f"no {modality}", ha="center", va="center", color="0.4", transform=axes.transAxes)
    else:
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        if branch is not None:
            heat = palm.maps[branch][modality]
            if palm.method == "grad_cam":
                most = max(float(x.max()) for x in palm.maps[branch].values())
                heat = heat / (most or 1.0)
            axes.imshow(heat, cmap=COLOURS, norm=norm, alpha=HEAT, interpolation="nearest")
            if modality in palm.masks:
                axes.contour(palm.masks[modality], levels=[0.5], colors="white", linewidths=0.5)
                y, x = np.argwhere(heat == heat.max()).mean(0)
                axes.plot(x, y, marker="+", color="black", markersize=8, markeredgewidth=2.4, clip_on=False)
                axes.plot(x, y, marker="+", color="white", markersize=7, markeredgewidth=1, clip_on=False)
    for spine in axes.spines.values():
        spine.set(linewidth=0.5, color="0.6")


def _bars(axes: Axes, weights: Mapping[str, Array]) -> None:
    """A stacked bar a channel, by the weight of the first modality: the modalities share each channel."""
    names = list(weights)
    order = np.argsort(-weights[names[0]], kind="stable")
    shades = colormaps[COLOURS](np.linspace(0.15, 0.9, len(names)))
    base = np.zeros(len(order))
    for name, shade in zip(names, shades, strict=True):
        top = base + weights[name][order]
        places = np.arange(len(order) + 1)
        # One filled outline and not hundreds of rectangles, between which a printer leaves gaps.
        axes.fill_between(places, np.append(base, base[-1]), np.append(top, top[-1]), step="post", color=shade, lw=0)
        base = top
    for equal in range(1, len(names)):
        axes.axhline(equal / len(names), color="white", linewidth=0.8, linestyle="--")
    axes.set(xlim=(0, len(order)), ylim=(0, 1), yticks=[0, 0.5, 1], box_aspect=0.66)
    axes.tick_params(labelsize=7, length=2)
    # From the bottom left, where the first modality has its largest weights, to the top right.
    for name, place in zip(names, np.linspace(0.05, 0.95, len(names)), strict=True):
        axes.text(
            place,
            place,
            f"{name} {weights[name].mean():.2f}",
            ha="left" if place < 0.3 else "right" if place > 0.7 else "center",
            va="bottom" if place < 0.3 else "top" if place > 0.7 else "center",
            fontsize=7,
            transform=axes.transAxes,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.5},
        )


def _colour_bar(figure: Figure, grid: Any, norm: Normalize, palm: Seen) -> None:
    bar = figure.colorbar(
        ScalarMappable(norm, COLOURS),
        ax=list(grid.ravel()),
        location="right",
        shrink=0.9,
        aspect=12 * len(grid),
        pad=0.01,
        alpha=HEAT,
    )
    if palm.method == "weights":
        low, high = float(norm.vmin or 0), float(norm.vmax or 1)
        bar.set_ticks([low, 1 / len(palm.images), high], labels=[f"{low:.2f}", "equal", f"{high:.2f}"])
        bar.set_label("weight of the modality", fontsize=8)
    else:
        bar.set_ticks([0, 1], labels=["0", "largest"])
        bar.set_label("part of the score, for each palm", fontsize=8)
    bar.ax.tick_params(labelsize=7, length=2)


def check_picture(path: Path) -> None:
    """Raises :class:`PvzooError` if a picture cannot be written there, before anything is computed."""
    if path.suffix.lower() not in FORMATS:
        raise PvzooError(f"{path}: a picture is a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file")
    if path.is_dir():
        raise PvzooError(f"{path}: is a folder")
    if not path.absolute().parent.is_dir():
        raise PvzooError(f"{path}: there is no folder {path.absolute().parent}")


def save(figure: Figure, path: Path, *, dpi: int = 200) -> None:
    """Writes a picture, PNG, SVG or PDF by its suffix, whole or not at all; the same figure gives the same bytes.

    Raises:
        PvzooError: If it is none of these, or cannot be written.
    """
    check_picture(path)
    kind = path.suffix.lower()[1:]
    # The time of writing is left out.
    about: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind, {})
    try:
        with rc_context(STYLE), replacing(path) as new:
            figure.savefig(new, format=kind, dpi=dpi, metadata=about, bbox_inches="tight", pad_inches=0.03)
    except OSError as error:
        raise PvzooError(f"{path}: cannot be written: {error.strerror or error}") from error
