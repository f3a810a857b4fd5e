"""Shapes of features, known from a spec alone (no torch): what the contract between components is written in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FeatureKind = Literal["vector", "map"]


@dataclass(frozen=True)
class Shape:
    """Shape of one sample's features, without the batch axis.

    Attributes:
        dim: Number of channels.
        grid: Height and width of a map in cells; ``None`` for a vector.
    """

    dim: int
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not all(type(size) is int and size > 0 for size in (self.dim, *(self.grid or ()))):
            raise ValueError(f"the sizes of a shape are whole numbers from 1, and these are {self}")

    @property
    def kind(self) -> FeatureKind:
        return "vector" if self.grid is None else "map"

    def __str__(self) -> str:
        return str(self.dim) if self.grid is None else f"{self.dim}x{self.grid[0]}x{self.grid[1]}"


@dataclass(frozen=True)
class Level:
    """One level of a backbone's feature pyramid: its stride in pixels and its number of channels."""

    stride: int
    dim: int


@dataclass(frozen=True)
class BackboneShape:
    """What a backbone gives for one image size.

    Attributes:
        vector: Width of the pooled vector (``pool=True``).
        map: Shape of the map (``pool=False``); ``None`` if the backbone has no map.
        stride: Stride of the map in pixels, if it has one.
        levels: The levels that the backbone could give instead, used to propose a repair.
        first: The pixel, from 0 along either side, on which the receptive field of the map's first cell is centred: 0
            after padded convolutions of odd size. ``None`` is (stride - 1) / 2, of patches that tile the image.
    """

    vector: int
    map: Shape | None = None
    stride: int | None = None
    levels: tuple[Level, ...] = ()
    first: float | None = None

    def __post_init__(self) -> None:
        Shape(self.vector)  # raises if that is no width

    def features(self, kind: FeatureKind) -> Shape | None:
        return Shape(self.vector) if kind == "vector" else self.map
