"""A drawing of a spec: the way from images to embedding and logits, as SVG (no torch).

Its colours are CSS variables of the class ``pvzoo-diagram``: they follow the reader's light or dark scheme, and a page
into which the drawing is pasted may set them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count
from textwrap import wrap
from typing import Any

from .shapes import Shape
from .specs import ModelSpec
from .specs.fields import Ref

# Of palm, vein, and two more; then they come round again. Ends with what is of all modalities.
LIGHT = ("#fdeedd #c9742a", "#e4edfc #4273c8", "#e2f3e6 #3b8552", "#fbe6ef #b8447c", "#ece8fa #6b54b8")
DARK = ("#3d2b1a #e0954f", "#1d2c47 #7aa5ee", "#1b3524 #6cbf86", "#40202f #e383ae", "#2b2546 #a996ee")
HUES = len(LIGHT) - 1
OWN_HUES = {"palm": 0, "vein": 1}
IMAGE, BOX, ROW, BAND, GAP, MARGIN, TOP, SPLIT = 88, 56, 90, 52, 18, 28, 56, 62


def _variables(paper: str, ink: str, soft: str, band: str, pairs: Sequence[str]) -> str:
    named = zip([*map(str, range(HUES)), "all"], map(str.split, pairs), strict=True)
    plain = f"--paper: {paper}; --ink: {ink}; --soft: {soft}; --band: {band}"
    return "; ".join([plain, *(f"--fill-{hue}: {fill}; --line-{hue}: {line}" for hue, (fill, line) in named)])


COLOURS: Mapping[str, str] = {
    "light": _variables("#fdfdfe", "#1f2328", "#4b545e", "#f1f3f7", LIGHT),
    "dark": _variables("#16191f", "#e6e9ee", "#a9b2bd", "#20252d", DARK),
}
STYLE = f"""
  .pvzoo-diagram {{ {COLOURS["light"]} }}
  @media (prefers-color-scheme: dark) {{ .pvzoo-diagram {{ {COLOURS["dark"]} }} }}
  .pvzoo-diagram text {{
    font-family: -apple-system, BlinkMacSystemFont, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif;
    fill: var(--ink); text-anchor: middle;
  }}
  .pvzoo-diagram .name {{ font-size: 14px; font-weight: 600 }}
  .pvzoo-diagram .sub {{ font-size: 12px; fill: var(--soft) }}
  .pvzoo-diagram .head {{ font-size: 12px; font-weight: 600; letter-spacing: .08em; fill: var(--soft) }}
  .pvzoo-diagram .branch {{ font-size: 13px; font-weight: 600; text-anchor: start }}
  .pvzoo-diagram .paper {{ fill: var(--paper) }}
  .pvzoo-diagram .band {{ fill: var(--band) }}
"""


@dataclass(frozen=True)
class _Column:
    """A column of boxes: its left edge, and how wide they are; 0 for one that nothing stands in."""

    x: float
    width: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def middle(self) -> float:
        return self.x + self.width / 2


def diagram(spec: ModelSpec) -> str:
    """Draws the architecture of a spec, those of plugins included.

    Args:
        spec: A checked spec of any number of modalities and branches.

    Returns:
        An SVG document without scripts, references or fonts of its own.
    """
    return _Drawing(spec).svg()


class _Drawing:
    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.modalities = list(spec.modalities)
        self.branches = list(spec.branches)
        # Palm and vein have the same colours in every drawing; others get what is left.
        spare = count(len(OWN_HUES))
        self.hues = {name: OWN_HUES[name] if name in OWN_HUES else next(spare) for name in self.modalities}
        self.marks: list[str] = []
        self._place()

    def _place(self) -> None:
        """Works out where the columns and rows stand, from the texts that have to fit."""
        spec, geometry = self.spec, self.spec.geometry
        cells = [(branch, modality) for branch in self.branches for modality in self.modalities]
        self.backbones = {cell: self._backbone(*cell) for cell in cells}
        self.alignments = {cell: self._alignment(*cell) for cell in cells}
        self.fusions = {name: (spec.fusion[name].name, self._fusion_lines(name)) for name in spec.fusion}
        self.raw = {cell: str(self._raw(*cell)) for cell in cells}
        self.aligned = {(branch, modality): str(geometry.aligned[branch][modality]) for branch, modality in cells}
        self.head = self._head()
        self.joined = str(geometry.embedding)

        titles = _width(map(self._title, self.branches), 13) * 1.1
        self.images = _Column(MARGIN, max(IMAGE, _width([self._image_label()], 12)))
        self.backbone = _Column(self.images.right + 70, _box(self.backbones.values(), titles))
        self.alignment = _after(self.backbone, self.raw.values(), self.alignments.values(), 100)
        self.fusion = _after(self.alignment, self.aligned.values(), self.fusions.values(), 144)
        maps = [str(shape) for shape in geometry.fused.values() if shape.grid]
        self.pool = _after(self.fusion, maps, [("pool", [])] if maps else [], 62)
        self.stub = self.pool.right + _arrow(str(shape.dim) for shape in geometry.fused.values())
        self.join = self.stub + (54 if len(self.branches) > 1 else 0)
        self.neck = _Column(self.join + 48, 88) if spec.embedding.bnneck else _Column(self.join, 0)
        self.fork = self.neck.right + (_arrow([self.joined]) if len(self.branches) > 1 or self.neck.width else 0)
        self.end = _Column(self.fork + 50, _box([self._embedding(), self.head], 110))
        self.width = self.end.right + MARGIN

        self.band = BAND + (len(self.modalities) - 1) * ROW + BOX + 10
        needed = len(self.branches) * (self.band + GAP) - GAP
        room = max(needed, len(self.modalities) * (IMAGE + 62), 2 * SPLIT + BOX + 18)
        self.origin = TOP + (room - needed) / 2
        self.height = TOP + room + MARGIN
        self.middle = self.origin + needed / 2 if len(self.branches) > 1 else self._middle(self.branches[0])

    # --- what the boxes say -------------------------------------------------------------------------------------------

    def _title(self, branch: str) -> str:
        return f"{branch} branch: {'maps' if self.spec.branches[branch].features == 'map' else 'vectors'}"

    def _raw(self, branch: str, modality: str) -> Shape:
        shape = self.spec.geometry.backbones[branch][modality].features(self.spec.branches[branch].features)
        assert shape is not None
        return shape

    def _backbone(self, branch: str, modality: str) -> tuple[str, list[str]]:
        ref = self.spec.branches[branch].backbone[modality]
        kept = "keeps position" if self.spec.branches[branch].features == "map" else "pooled"
        shared = ["shared weights"] if self.spec.share_branches else []
        return ref.name, [", ".join([kept, *_changed(ref), *shared])]

    def _alignment(self, branch: str, modality: str) -> tuple[str, list[str]] | None:
        ref = self.spec.branches[branch].alignment[modality]
        before, after = self._raw(branch, modality), self.spec.geometry.aligned[branch][modality]
        if ref.name == "identity" and before == after:
            return None
        change = f"{before.dim} → {after.dim}" if before.dim != after.dim else f"{after.dim} channels"
        if before.grid != after.grid:
            change += f", {after.grid[0]}x{after.grid[1]} cells" if after.grid else ", pooled"
        return ref.name, [change]

    def _fusion_lines(self, branch: str) -> list[str]:
        ref = self.spec.fusion[branch]
        room = 1 if len(self.modalities) == 1 else 5
        lines = [*wrap(self.spec.entry(ref).summary, 22), *_changed(ref)]
        return lines if len(lines) <= room else [*lines[: room - 1], f"{lines[room - 1]} …"]

    def _head(self) -> tuple[str, list[str]] | None:
        if self.spec.num_classes is None:
            return None
        values = self.spec.head.params.model_dump()
        values.pop("sample_rate", None)  # of training alone
        numbers = [f"{name} {value:g}" for name, value in values.items() if type(value) in (int, float)]
        return self.spec.head.name, [*filter(None, [", ".join(numbers[:2])]), f"{self.spec.num_classes} logits"]

    def _embedding(self) -> tuple[str, list[str]]:
        return "embedding", [*(["L2 norm"] if self.spec.embedding.normalize else []), f"{self.joined} values"]

    def _image_label(self) -> str:
        height, width = self.spec.preprocessing.size
        return f"{self.spec.preprocessing.channels}x{height}x{width}"

    # --- drawing ------------------------------------------------------------------------------------------------------

    def svg(self) -> str:
        self._headings()
        for branch in self.branches:
            self._branch(branch)
        self._images()
        self._ends()
        name = self.spec.name or "a model of pvzoo"
        title = f"Architecture of {name}: {self.spec.summary}" if self.spec.summary else f"Architecture of {name}"
        size = f'viewBox="0 0 {self.width:.0f} {self.height:.0f}" width="{self.width:.0f}" height="{self.height:.0f}"'
        opening = f'<svg xmlns="http://www.w3.org/2000/svg" class="pvzoo-diagram" role="img" {size}>'
        paper = f'<rect class="paper" width="{self.width:.0f}" height="{self.height:.0f}" rx="14"/>'
        lines = [opening, f"<title>{_safe(title)}</title>", f"<style>{STYLE}</style>", paper, *self.marks, "</svg>"]
        return "\n".join(lines) + "\n"

    def _headings(self) -> None:
        columns = {
            "IMAGES": self.images,
            "BACKBONES": self.backbone,
            "ALIGNMENT": self.alignment,
            "FUSION": self.fusion,
        }
        for text, column in columns.items():
            if column.width:
                self._text("head", column.middle, 34, text)
        self._text("head", self.end.middle, 34, "EMBEDDING")

    def _row(self, branch: str, modality: str) -> float:
        """The height at which a branch of a modality runs."""
        top = self.origin + self.branches.index(branch) * (self.band + GAP) + BAND - 8
        return top + BOX / 2 + self.modalities.index(modality) * ROW

    def _middle(self, branch: str) -> float:
        return (self._row(branch, self.modalities[0]) + self._row(branch, self.modalities[-1])) / 2

    def _branch(self, branch: str) -> None:
        top = self.origin + self.branches.index(branch) * (self.band + GAP)
        left, right = self.backbone.x - 18, max(self.backbone.right, self.alignment.right, self.fusion.right) + 16
        place = f'x="{left:.0f}" y="{top:.0f}" width="{right - left:.0f}" height="{self.band:.0f}"'
        self.marks.append(f'<rect class="band" {place} rx="12"/>')
        self._text("branch", self.backbone.x, top + 25, self._title(branch))
        x, hue = 0.0, self.hues[self.modalities[0]] if len(self.modalities) == 1 else "all"
        for modality in self.modalities:
            x = self._modality(branch, modality)
        middle = self._middle(branch)
        if branch in self.fusions:
            self._box(self.fusion, middle, (len(self.modalities) - 1) * ROW + BOX, "all", *self.fusions[branch])
            x = self.fusion.right
        fused = self.spec.geometry.fused[branch]
        if fused.grid:
            self._straight(x, self.pool.x, middle, hue, str(fused))
            self._box(self.pool, middle, 38, "all", "pool", [], round_ends=True)
            x = self.pool.right
        self._plain(x, self.stub, middle, str(fused.dim))
        if len(self.branches) > 1:
            self._bend(self.stub, middle, self.join - 20, self.middle, "all")

    def _modality(self, branch: str, modality: str) -> float:
        """One modality's way through a branch, up to the fusion; returns where it ends."""
        y, cell, aligned = self._row(branch, modality), (branch, modality), self.alignments[branch, modality]
        number = self.hues[modality]
        self._bend(self.images.middle + IMAGE / 2, self._image_y(modality), self.backbone.x, y, number)
        self._box(self.backbone, y, BOX, number, *self.backbones[cell])
        x = self.backbone.right
        if aligned:
            self._straight(x, self.alignment.x, y, number, self.raw[cell])
            self._box(self.alignment, y, BOX, number, *aligned)
            x = self.alignment.right
        if branch in self.fusions:
            self._straight(x, self.fusion.x, y, number, self.aligned[cell])
        return x

    def _images(self) -> None:
        for modality, number in self.hues.items():
            x, y = self.images.middle - IMAGE / 2, self._image_y(modality) - IMAGE / 2
            place = f'x="{x:.0f}" y="{y:.0f}" width="{IMAGE}" height="{IMAGE}"'
            self.marks.append(f'<rect {place} rx="8" {_paint(number)}/>')
            colour = f'fill="none" stroke="{_line(number)}" stroke-linecap="round"'
            self.marks.append(f'<g transform="translate({x:.0f} {y:.0f})" {colour}>{_sketch(modality)}</g>')
            self._text("name", self.images.middle, y + IMAGE + 20, modality)
            self._text("sub", self.images.middle, y + IMAGE + 38, self._image_label())

    def _image_y(self, modality: str) -> float:
        if len(self.modalities) == 1:
            return self.middle
        room = (self.height - TOP - MARGIN) / len(self.modalities)
        return TOP + room * (self.modalities.index(modality) + 0.5) - 20

    def _ends(self) -> None:
        """From the join to embedding and logits."""
        y, x = self.middle, self.stub
        if len(self.branches) > 1:
            self.marks.append(f'<circle cx="{self.join:.0f}" cy="{y:.0f}" r="20" {_paint("all")}/>')
            self._text("name", self.join, y + 5, "join")
            x = self.join + 20
        if self.neck.width:
            self._straight(x, self.neck.x, y, "all", "")
            self._box(self.neck, y, BOX, "all", "BNNeck", ["BatchNorm"])
            x = self.neck.right
        if x < self.fork:
            self._plain(x, self.fork, y, self.joined)
        for end, to_y in ((self._embedding(), y - (SPLIT if self.head else 0)), (self.head, y + SPLIT)):
            if end:
                self._bend(self.fork, y, self.end.x, to_y, "all")
                self._box(self.end, to_y, BOX + 18, "all", *end)

    def _text(self, kind: str, x: float, y: float, text: str) -> None:
        self.marks.append(f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}">{_safe(text)}</text>')

    def _box(
        self,
        column: _Column,
        middle: float,
        height: float,
        hue: int | str,
        name: str,
        lines: Sequence[str],
        round_ends: bool = False,
    ) -> None:
        top, radius = middle - height / 2, height / 2 if round_ends else 9
        place = f'x="{column.x:.0f}" y="{top:.0f}" width="{column.width:.0f}" height="{height:.0f}" rx="{radius:.0f}"'
        self.marks.append(f"<rect {place} {_paint(hue)}/>")
        y = middle + 5 - 9 * len(lines)
        self._text("name", column.middle, y, name)
        for number, line in enumerate(lines):
            self._text("sub", column.middle, y + 18 + 16 * number, line)

    def _plain(self, x: float, to_x: float, y: float, label: str) -> None:
        """A line without a tip, which goes on."""
        self.marks.append(f'<path d="M{x:.0f} {y:.0f}H{to_x:.0f}" fill="none" {_stroke("all")}/>')
        self._text("sub", (x + to_x) / 2, y - 8, label)

    def _straight(self, x: float, to_x: float, y: float, hue: int | str, label: str) -> None:
        self._bend(x, y, to_x, y, hue)
        if label:
            self._text("sub", (x + to_x) / 2 - 3, y - 8, label)

    def _bend(self, x: float, y: float, to_x: float, to_y: float, hue: int | str) -> None:
        """A line with a tip."""
        middle, end = (x + to_x) / 2, to_x - 8
        curve = f"H{end:.0f}" if y == to_y else f"C{middle:.0f} {y:.0f} {middle:.0f} {to_y:.0f} {end:.0f} {to_y:.0f}"
        self.marks.append(f'<path d="M{x:.0f} {y:.0f}{curve}" fill="none" {_stroke(hue)}/>')
        tip = f"M{end:.0f} {to_y - 4:.0f}L{to_x:.0f} {to_y:.0f}L{end:.0f} {to_y + 4:.0f}z"
        self.marks.append(f'<path d="{tip}" fill="{_line(hue)}"/>')


def _safe(text: str) -> str:
    """Without characters that XML cannot hold, or that would end a line."""
    return escape("".join(char if char.isprintable() else " " for char in text))


def _hue(hue: int | str) -> int | str:
    return hue % HUES if isinstance(hue, int) else hue


def _line(hue: int | str) -> str:
    return f"var(--line-{_hue(hue)})"


def _stroke(hue: int | str) -> str:
    return f'stroke="{_line(hue)}" stroke-width="1.8"'


def _paint(hue: int | str) -> str:
    return f'fill="var(--fill-{_hue(hue)})" stroke="{_line(hue)}" stroke-width="1.4"'


SKETCHES: Mapping[str, str] = {
    "palm": '<path stroke-width="2.4" d="M4 33C26 28 44 52 42 84M4 32C28 28 46 44 78 62M84 32C62 34 40 26 28 4"/>'
    '<path stroke-width="1" opacity=".6" d="M52 10l-5 14M62 8l3 13M14 46l10 16M10 60l10 16M60 56l-8 24M70 44l12-6"/>',
    "vein": '<path stroke-width="4" d="M24 84C26 66 14 48 20 28"/><path stroke-width="3" d="M62 84C58 70 66 58 58 40"/>'
    '<path stroke-width="2" d="M20 28C22 16 14 10 12 5M58 40C52 26 46 18 48 5M58 40C70 30 72 16 78 5M21 56C34 50 38 38 '
    '36 22M20 28C28 22 28 10 30 5M60 64C74 60 78 52 84 50M18 46C12 44 8 40 5 38"/>',
}


def _sketch(modality: str) -> str:
    """A few lines that say what kind of image it is; a grid for a modality that has no sketch."""
    grid = "".join(f"M{at} 12V76M12 {at}H76" for at in (22, 44, 66))
    return SKETCHES.get(modality, f'<path stroke-width="1" opacity=".5" d="{grid}"/>')


def _changed(ref: Ref) -> list[str]:
    """The parameters of a component that are not its defaults."""
    params: Any = ref.params
    fields = type(params).model_fields
    return [
        f"{name} {value}"
        for name, value in params.model_dump().items()
        if fields[name].is_required() or value != fields[name].default
    ]


def _width(texts: Iterable[str], size: int) -> float:
    """Room for the longest text, in pixels: no font is at hand to measure with, so a wide one is supposed."""
    return max((len(text) for text in texts), default=0) * size * 0.52


def _arrow(labels: Iterable[str]) -> float:
    return max(48.0, _width(labels, 12) + 22)


def _box(boxes: Iterable[tuple[str, Sequence[str]] | None], least: float) -> float:
    found = [box for box in boxes if box]
    names, lines = [name for name, _ in found], [line for _, lines in found for line in lines]
    return max(least, _width(names, 14) * 1.1 + 20, _width(lines, 12) + 20) if found else 0


def _after(
    column: _Column, labels: Iterable[str], boxes: Iterable[tuple[str, Sequence[str]] | None], least: float
) -> _Column:
    """The next column of boxes, behind arrows with labels; it has no width where there are no boxes."""
    width = _box(boxes, least)
    return _Column(column.right + _arrow(labels), width) if width else _Column(column.right, 0)


__all__ = ["COLOURS", "diagram"]
