"""Where the cells of a feature map lie in the image, and maps at the image's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..specs import ModelSpec


@dataclass(frozen=True)
class Cells:
    """The cells of a map. Pixels are counted from 0 at the centre of the first; pairs are (along y, along x).

    A map must not be stretched over the image as if its cells were the image's tiles: 112 pixels at stride 32 are 3
    patches, and the last 16 pixels belong to none; padded convolutions centre the first cell on pixel 0 and not on the
    middle of a patch, half a cell away.

    Attributes:
        first: The pixel that the first cell's receptive field is centred on.
        stride: Pixels from one cell to the next.
        size: Height and width of the image that the model takes.
    """

    first: tuple[float, float]
    stride: tuple[float, float]
    size: tuple[int, int]

    @classmethod
    def of(cls, spec: ModelSpec, branch: str, modality: str, grid: tuple[int, int]) -> Cells:
        """The cells of a map that a branch's backbone gives, or of one that an alignment resampled to another grid.

        A backbone that tells no stride is taken to tile the image.
        """
        size = spec.preprocessing.size
        shape = spec.geometry.backbones[branch][modality]
        if shape.stride is None or shape.map is None or shape.map.grid is None:
            strides = (size[0] / grid[0], size[1] / grid[1])
            return cls(((strides[0] - 1) / 2, (strides[1] - 1) / 2), strides, size)
        start = (shape.stride - 1) / 2 if shape.first is None else shape.first
        # Resampling keeps the outer edges of the grid: half a cell beyond its outer centres.
        ratios = [has / wanted for has, wanted in zip(shape.map.grid, grid, strict=True)]
        first_y, first_x = (start + shape.stride * (ratio - 1) / 2 for ratio in ratios)
        stride_y, stride_x = (shape.stride * ratio for ratio in ratios)
        return cls((first_y, first_x), (stride_y, stride_x), size)

    def spread(self, maps: Tensor, shape: tuple[int, int]) -> Tensor:
        """Maps at the pixels of an image that was resized for the model.

        Linear between the centres of cells; beyond the outer ones, the value of the nearest cell.

        Args:
            maps: (..., h, w).
            shape: Height and width of the image before it was resized.

        Returns:
            (..., H, W). A cell's value stands at its centre.
        """
        rows, columns = (
            _hats(maps.shape[axis - 2], self.first[axis], self.stride[axis], self.size[axis], shape[axis]).to(maps)
            for axis in (0, 1)
        )
        return rows @ maps @ columns.T


def _hats(cells: int, first: float, stride: float, size: int, pixels: int) -> Tensor:
    """(pixels, cells) shares of the cells in each pixel; they sum to 1."""
    resized = (torch.arange(pixels, dtype=torch.float64) + 0.5) * size / pixels - 0.5
    place = ((resized - first) / stride).clamp(0, cells - 1)
    return (1 - (place[:, None] - torch.arange(cells)).abs()).clamp(min=0)
