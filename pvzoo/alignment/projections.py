"""Linear and 1x1-convolution projections into the common space."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..shapes import Shape
from . import Conv1x1Params, LinearParams, ResampleParams


class LinearAlignment(nn.Sequential):
    """(N, D) to (N, dim): y = W x + b, then BatchNorm if asked for."""

    def __init__(self, params: LinearParams, *, shape: Shape) -> None:
        layers: list[nn.Module] = [nn.Linear(shape.dim, params.dim, bias=params.bias)]
        if params.batch_norm:
            layers.append(nn.BatchNorm1d(params.dim))
        super().__init__(*layers)


class IdentityAlignment(nn.Module):
    """y = x; maps are resampled if ``grid`` is set."""

    def __init__(self, params: ResampleParams, *, shape: Shape) -> None:
        super().__init__()
        resample = params.grid is not None and shape.kind == "map" and params.grid != shape.grid
        self.grid = params.grid if resample else None
        self.mode = params.mode

    def forward(self, x: Tensor) -> Tensor:
        if self.grid is None:
            return x
        if self.mode == "bilinear":
            return F.interpolate(x, self.grid, mode="bilinear", align_corners=False, antialias=True)
        return F.interpolate(x, self.grid, mode=self.mode)


class Conv1x1Alignment(IdentityAlignment):
    """(N, D, h, w) to (N, dim, h, w): y = BatchNorm(W x) at each position; resampled if ``grid`` is set."""

    def __init__(self, params: Conv1x1Params, *, shape: Shape) -> None:
        super().__init__(params, shape=shape)
        self.conv = nn.Conv2d(shape.dim, params.dim, kernel_size=1, bias=False)
        self.norm = nn.BatchNorm2d(params.dim)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(self.conv(x)))
