"""CompNet, written anew from its published description; the README says which details were chosen here.

Liang, Yang, Lu and Zhang, "CompNet: Competitive Neural Network for Palmprint Recognition Using Learnable Gabor
Kernels", IEEE Signal Processing Letters 28, 2021, pp. 1739-1743, https://doi.org/10.1109/LSP.2021.3103475.

Each of three blocks filters the image at nine orientations, lets the orientations compete, and looks at who won::

    image (N, 1, 128, 128) -> Gabor 35x35 / 3 -> softmax -> conv 5x5 -> max-pool 2 -> conv 1x1 -> (N, 12, 14, 14) -+
                           -> Gabor 17x17 / 3 ->   ...                                         -> (N, 12, 17, 17) -+
                           -> Gabor   7x7 / 3 ->   ...                                         -> (N, 12, 18, 18) -+
    vector (N, 512) <- dropout <- linear from 9708 values <--------------------------------------------------------+
"""

from __future__ import annotations

from math import log, pi, prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import CONV, POOL, CompNetParams, block_grid


class GaborBank(nn.Module):
    """Gabor filters at orientations fixed evenly over 180 degrees, all of one learned shape.

    Filter ``i`` answers to lines that run at ``i / orientations`` of 180 degrees, from the x axis towards the y axis
    (which points down). With ``v`` along the lines and ``u`` across them it is ::

        exp(-(u^2 + gamma^2 v^2) / (2 sigma^2)) cos(2 pi frequency u + phase)

    less its mean, so that even light gives no answer, and of unit norm, so that no orientation wins by its size.

    What is learned stays in range by its form: sigma and gamma are exponentials, and the frequency is a sigmoid below
    half a wave a pixel, beyond which it would alias.
    """

    def __init__(self, params: CompNetParams, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.orientations = params.orientations
        self.stride = params.stride
        relative = 2 * params.cycles / kernel_size
        self.log_sigma = nn.Parameter(torch.tensor(log(params.sigma * kernel_size)))
        self.log_gamma = nn.Parameter(torch.tensor(log(params.gamma)))
        self.logit_frequency = nn.Parameter(torch.tensor(log(relative / (1 - relative))))
        self.phase = nn.Parameter(torch.tensor(0.0))

    def kernels(self) -> Tensor:
        """The filters, (orientations, 1, k, k), float32 or better: half precision is too coarse for their angles."""
        dtype = torch.promote_types(self.phase.dtype, torch.float32)
        sigma, gamma = self.log_sigma.to(dtype).exp(), self.log_gamma.to(dtype).exp()
        frequency = 0.5 * self.logit_frequency.to(dtype).sigmoid()
        offsets = torch.arange(self.kernel_size, device=sigma.device, dtype=dtype) - self.kernel_size // 2
        y, x = torch.meshgrid(offsets, offsets, indexing="ij")
        angle = (
            torch.arange(self.orientations, device=sigma.device, dtype=dtype)[:, None, None] * pi / self.orientations
        )
        along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
        envelope = torch.exp(-(across**2 + (gamma * along) ** 2) / (2 * sigma**2))
        wave = torch.cos(2 * pi * frequency * across + self.phase.to(dtype))
        flat = (envelope * wave).flatten(1)
        balanced = F.normalize(flat - flat.mean(1, keepdim=True))
        return balanced.view(self.orientations, 1, self.kernel_size, self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """Grey image (N, 1, H, W) to responses (N, orientations, h, w); nothing is padded."""
        return F.conv2d(x, self.kernels().to(x.dtype), stride=self.stride)


class CompetitiveBlock(nn.Module):
    """Filters of one size, the competition of their orientations, and two convolutions over its outcome."""

    def __init__(self, params: CompNetParams, kernel_size: int) -> None:
        super().__init__()
        self.gabor = GaborBank(params, kernel_size)
        self.conv = nn.Conv2d(params.orientations, params.hidden, CONV)
        self.pool = nn.MaxPool2d(POOL)
        self.mix = nn.Conv2d(params.hidden, params.channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        # The winner takes nearly all: argmax over orientations, as in the classical competitive code, made smooth.
        winners = self.gabor(x).softmax(dim=1)
        mixed: Tensor = self.mix(self.pool(self.conv(winners)))
        return mixed


class CompNet(nn.Module):
    """Competitive blocks side by side, projected to one vector.

    Images of several channels are averaged to grey first: the orientation of a line is a matter of brightness.
    """

    def __init__(self, params: CompNetParams, *, in_chans: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CompetitiveBlock(params, size) for size in params.kernel_sizes)
        largest = max(params.kernel_sizes)
        self.smallest_map = params.kernel_sizes.index(largest)
        # Without padding, a smaller kernel's first cell lies nearer to the image's edge. This many cells further in
        # lies the one that looks at the same spot as the largest kernel's first, to within half a cell.
        self.margins = [round((largest - size) / 2 / (params.stride * POOL)) for size in params.kernel_sizes]
        self.project: nn.Module | None = None
        if params.dim is not None:
            cells = sum(prod(block_grid(params, size, image_size)) for size in params.kernel_sizes)
            self.project = nn.Sequential(nn.Linear(params.channels * cells, params.dim), nn.Dropout(params.dropout))

    def forward(self, x: Tensor, pool: bool = True) -> Tensor:
        """Image (N, C, H, W) to vector (N, D), or to the blocks' maps, cropped and joined, if ``pool`` is false."""
        grey = x.mean(1, keepdim=True)
        maps = [block(grey) for block in self.blocks]
        if pool and self.project is not None:
            vector: Tensor = self.project(torch.cat([found.flatten(1) for found in maps], dim=1))
            return vector
        height, width = maps[self.smallest_map].shape[2:]
        cropped = [m[:, :, i : i + height, i : i + width] for m, i in zip(maps, self.margins, strict=True)]
        joined = torch.cat(cropped, dim=1)
        return joined.mean((2, 3)) if pool else joined
