"""Heads over cosines with a margin on the true class: CosFace, ArcFace, Sub-center ArcFace, AdaFace.

All compute in float32 even inside autocast or on half-precision embeddings: near 1 a float16 cosine moves in steps of
1.8 degrees, a bfloat16 one in steps of 5. Angles are never computed: cos(theta + m) comes from cos and sin, so a
cosine that rounding has pushed beyond 1 gives no NaN.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from math import cos, pi, sin
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import InputError
from . import AdaFaceParams, ArcFaceParams, CosFaceParams, SubcenterArcFaceParams

# sin(theta) = sqrt(1 - cos^2); the bound keeps its slope finite where cos is 1, or above it by rounding.
MIN_SQUARED_SINE = 1e-9


class MarginHead(nn.Module, ABC):
    """Scaled cosines between embedding and class centres, with a margin on the true class when labels are given.

    Args:
        dim: Width D of the embedding.
        num_classes: Number of identities.
        scale: s, the inverse temperature.
        margin: m.
        sample_rate: Share of the classes that a step of :mod:`pvzoo.training` looks at; it changes nothing here.
        centers: K, centres a class; a class scores with its nearest.
    """

    def __init__(
        self, *, dim: int, num_classes: int, scale: float, margin: float, sample_rate: float, centers: int = 1
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.sample_rate = sample_rate
        self.centers = centers
        self.scale = scale
        self.full_margin = margin
        self.margin = margin
        self.weight = nn.Parameter(torch.empty(num_classes * centers, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.01)

    def set_margin_factor(self, factor: float) -> None:
        """Uses ``factor`` times the full margin from now on: the hook for a margin warm-up over the first epochs.

        Raises:
            InputError: If ``factor`` is not in [0, 1].
        """
        if not 0 <= factor <= 1:
            raise InputError(f"the margin factor must lie in [0, 1], got {factor}")
        self.margin = factor * self.full_margin

    def forward(self, embedding: Tensor, labels: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """(N, D) to logits (N, num_classes), float32 or better; ``labels`` (N,) of integers turn the margin on.

        With ``weight``, the centres (C K, D) of some classes, the logits (N, C) are over those alone; labels count
        them, and are -1 for a sample whose class is not there.
        """
        device = embedding.device.type
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            embedding = embedding.to(torch.promote_types(embedding.dtype, torch.float32))
            cosine = self.cosine(embedding, weight)
            if labels is None:
                return self.scale * cosine
            index = labels[:, None].long()
            if weight is None:
                target: Tensor = self.with_margin(cosine.gather(1, index), embedding)
            else:
                here, index = index >= 0, index.clamp_min(0)
                own = cosine.gather(1, index)
                target = torch.where(here, self.with_margin(own, embedding), own)
            return self.scale * cosine.scatter(1, index, target)

    def cosine(self, embedding: Tensor, weight: Tensor | None = None) -> Tensor:
        """Cosine to each class's nearest centre, (N, num_classes)."""
        unit = F.normalize(embedding)
        if weight is None:
            cosine = F.linear(unit, F.normalize(self.weight.to(embedding.dtype)))
        else:
            cosine = _Cosine.apply(unit, weight.to(embedding.dtype))
        if self.centers == 1:
            return cosine
        return cosine.view(len(cosine), cosine.shape[1] // self.centers, self.centers).amax(2)

    @abstractmethod
    def with_margin(self, cosine: Tensor, embedding: Tensor) -> Tensor:
        """The true class's cosine (N, 1), made smaller by the margin; must grow with the cosine everywhere."""


class _Cosine(torch.autograd.Function):
    """Cosines (N, C) of unit vectors (N, D) and centres (C, D).

    The same as with normalised centres, to rounding; but neither these nor their gradient are ever in memory, which
    takes half the time of a step.
    """

    @staticmethod
    def forward(ctx: Any, unit: Tensor, weight: Tensor) -> Tensor:
        norm = weight.norm(dim=1).clamp_min(1e-12)  # the bound of F.normalize
        cosine = F.linear(unit, weight).div_(norm)
        ctx.save_for_backward(unit, weight, norm, cosine)
        return cosine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        unit, weight, norm, cosine = ctx.saved_tensors
        along = (gradient * cosine).sum(0) / norm.square()
        gradient = gradient / norm
        of_weight = (gradient.T @ unit).addcmul_(weight, along[:, None], value=-1)
        return gradient @ weight, of_weight


class CosFace(MarginHead):
    """cos(theta) - m. Wang et al., "CosFace", CVPR 2018, https://arxiv.org/abs/1801.09414, eq. 4."""

    def __init__(self, params: CosFaceParams, *, dim: int, num_classes: int) -> None:
        super().__init__(
            dim=dim,
            num_classes=num_classes,
            scale=params.scale,
            margin=params.margin,
            sample_rate=params.sample_rate,
        )

    def with_margin(self, cosine: Tensor, embedding: Tensor) -> Tensor:
        return cosine - self.margin


class ArcFace(MarginHead):
    """cos(theta + m). Deng et al., "ArcFace", CVPR 2019, https://arxiv.org/abs/1801.07698, eq. 3.

    Where theta + m exceeds 180 degrees the formula would turn round and push a sample away from its class; there
    cos(theta) - m sin(m) takes its place, which falls with theta everywhere.
    """

    def __init__(self, params: ArcFaceParams, *, dim: int, num_classes: int, centers: int = 1) -> None:
        super().__init__(
            dim=dim,
            num_classes=num_classes,
            scale=params.scale,
            margin=params.margin,
            sample_rate=params.sample_rate,
            centers=centers,
        )
        self.easy_margin = params.easy_margin

    def with_margin(self, cosine: Tensor, embedding: Tensor) -> Tensor:
        sine = (1 - cosine.square()).clamp_min(MIN_SQUARED_SINE).sqrt()
        moved = cosine * cos(self.margin) - sine * sin(self.margin)
        if self.easy_margin:
            return torch.where(cosine > 0, moved, cosine)
        return torch.where(cosine > cos(pi - self.margin), moved, cosine - self.margin * sin(self.margin))


class SubcenterArcFace(ArcFace):
    """ArcFace over K centres a class, the nearest of which counts: cos(theta) = max over k of cos(theta_k).

    Deng et al., "Sub-center ArcFace", ECCV 2020, https://doi.org/10.1007/978-3-030-58621-8_43.
    """

    def __init__(self, params: SubcenterArcFaceParams, *, dim: int, num_classes: int) -> None:
        super().__init__(params, dim=dim, num_classes=num_classes, centers=params.centers)


class AdaFace(MarginHead):
    """cos(theta + g_angle) - g_add, with margins that depend on the feature norm as a sign of image quality.

    Kim et al., "AdaFace: Quality Adaptive Margin for Face Recognition", CVPR 2022,
    https://arxiv.org/abs/2204.00964, eq. 13-16: g_angle = -m q, g_add = m q + m, where q in [-1, 1] is the feature
    norm, standardised with a running mean and deviation and scaled by h. Where theta + g_angle leaves [0, pi], the
    paper clips the angle, which stops the gradient; here the logit goes on as cos(theta) plus a constant.
    """

    norm_mean: Tensor
    norm_std: Tensor

    def __init__(self, params: AdaFaceParams, *, dim: int, num_classes: int) -> None:
        super().__init__(
            dim=dim,
            num_classes=num_classes,
            scale=params.scale,
            margin=params.margin,
            sample_rate=params.sample_rate,
        )
        self.concentration = params.concentration
        self.momentum = params.momentum
        # The paper's starting values.
        self.register_buffer("norm_mean", torch.tensor(20.0))
        self.register_buffer("norm_std", torch.tensor(100.0))

    def with_margin(self, cosine: Tensor, embedding: Tensor) -> Tensor:
        quality = self._quality(embedding.detach())
        angle = -self.margin * quality
        sine = (1 - cosine.square()).clamp_min(MIN_SQUARED_SINE).sqrt()
        moved = cosine * angle.cos() - sine * angle.sin()
        beyond_pi = cosine <= (pi - angle).cos()
        moved = torch.where((angle > 0) & beyond_pi, cosine - (1 - angle.cos()), moved)
        moved = torch.where((angle < 0) & (cosine >= angle.cos()), cosine + (1 - angle.cos()), moved)
        return moved - (self.margin * quality + self.margin)

    @torch.no_grad()
    def _quality(self, embedding: Tensor) -> Tensor:
        """Standardised feature norm (N, 1) in [-1, 1]; updates the running statistics while training."""
        norm = embedding.norm(dim=1, keepdim=True).clamp(0.001, 100)
        if self.training and len(norm) > 1:
            std, mean = torch.std_mean(norm)
            self.norm_mean.lerp_(mean.to(self.norm_mean.dtype), self.momentum)
            self.norm_std.lerp_(std.to(self.norm_std.dtype), self.momentum)
        quality: Tensor = (norm - self.norm_mean) / (self.norm_std + 1e-3) * self.concentration
        return quality.clamp(-1, 1)
