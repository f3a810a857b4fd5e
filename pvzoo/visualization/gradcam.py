"""Grad-CAM of a comparison, for fusions that give no weights.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017,
https://arxiv.org/abs/1610.02391: ReLU of the sum over channels of a map A, each weighted by the mean gradient of a
target with respect to it.

The target. A classifier has a logit to explain. A verifier has the score of two palms, s = cos(z, r), of an embedding z
and a reference template r; for one palm alone there is nothing to explain, and the logit of a training class says
nothing of a new person. The gradient of the cosine itself is no target either: it lacks the part along z, is zero where
the palms agree perfectly, and shows what would *raise* the score. So the length of z is held fixed, y = <z, r> / |z|:
the template takes the place of a classifier's weights, y has the value of the score, and the maps show what it is made
of, as in Stylianou et al., "Visualizing Deep Similarity Networks", WACV 2019, https://arxiv.org/abs/1901.00536.

This is written here and not left to pytorch-grad-cam, which takes models of one image and stretches every map to [0, 1]
for itself: palm and vein could not be compared. The tests hold both against each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import EvaluationError, InputError
from ..model import Model


def grad_cam(
    model: Model, images: Mapping[str, Tensor | None], references: Tensor, branch: str | None = None
) -> dict[str, Tensor]:
    """What in each image the score with a reference is made of.

    Args:
        model: In eval mode. Its parameters' gradients are left alone.
        images: By modality, (N, C, H, W); ``None`` for a missing one.
        references: (N, D) embeddings that each sample is compared with, of any length.
        branch: Whose map is taken; that of :func:`finest_branch` if left out. Where a branch pools its map to a
            vector, it is the map before that.

    Returns:
        By modality that is there, (N, h, w) from 0 up, on one scale for all modalities of a sample.

    Raises:
        InputError: If the model is in training mode, images do not fit, or there is no such branch.
        EvaluationError: If the branch has no map of more than one cell.
    """
    if model.training:
        raise InputError("the model is in training mode, where a sample's map depends on its batch: model.eval() first")
    name = branch or finest_branch(model)
    if name not in model.spec.branches:
        raise InputError(f"the model has no branch {name!r}; it has {' and '.join(model.spec.branches)}")
    features: dict[str, dict[str, Tensor | None]] = {each: {} for each in model.spec.branches}
    maps: dict[str, Tensor] = {}
    with torch.enable_grad():
        for modality in model.spec.modalities:
            image = images.get(modality)
            found: Mapping[str, Mapping[str, Tensor | None]] = {}
            if image is not None:
                backbone = _backbone(model, modality, name)
                with _outputs(backbone.modules()) as seen:
                    # A gradient is wanted with respect to maps, also where all parameters are frozen.
                    found = model.features(**{modality: image.detach().clone().requires_grad_()})
                maps[modality] = _map(model, name, modality, found[name][modality], seen, image)
            for each, of_branch in features.items():
                of_branch[modality] = found[each][modality] if found else None
        joined = _joined(model, features)
        target = (joined * F.normalize(references)).sum(1) / joined.norm(dim=1).detach()
        gradients = torch.autograd.grad(target.sum(), list(maps.values()))
    return {
        modality: F.relu((gradient.mean((2, 3), keepdim=True) * x.detach()).sum(1))
        for (modality, x), gradient in zip(maps.items(), gradients, strict=True)
    }


def finest_branch(model: Model) -> str:
    """The branch whose map has the most cells; of equals the last."""

    def cells(name: str) -> int:
        shape = model.spec.geometry.backbones[name][model.spec.modalities[0]].map
        return 0 if shape is None or shape.grid is None else shape.grid[0] * shape.grid[1]

    return max(reversed(model.spec.branches), key=cells)


def _backbone(model: Model, modality: str, branch: str) -> nn.Module:
    owner = modality if modality in model.branches else model.spec.modalities[0]  # branches may be shared
    backbone: nn.Module = model.branches[owner][branch]  # type: ignore[index]
    return backbone


def _joined(model: Model, features: Mapping[str, Mapping[str, Tensor | None]]) -> Tensor:
    """The embedding before it is brought to unit length."""
    with _outputs([model.neck]) as seen:
        model.fuse(features)
    return seen[-1]


def _map(
    model: Model, branch: str, modality: str, features: Tensor | None, seen: Sequence[Tensor], image: Tensor
) -> Tensor:
    """The map that a branch's features are, or that was pooled to them: what a module gave that equals the map."""
    assert features is not None
    shape = model.spec.geometry.backbones[branch][modality].map
    grid = None if shape is None else shape.grid
    where = f"branch {branch!r} has no map of {modality}"
    if grid is None or grid == (1, 1):
        size = "x".join(map(str, model.spec.preprocessing.size))
        raise EvaluationError(f"{where} of more than one cell at {size} pixels")
    if features.ndim == 4:
        return features
    with torch.no_grad():
        wanted = _backbone(model, modality, branch)(image, pool=False)
    for x in reversed(seen):
        if x.shape == wanted.shape and torch.allclose(x, wanted, rtol=1e-3, atol=1e-5):
            return x
    raise EvaluationError(f"{where} on the way to its vector; a model with features: map for this branch has one")


@contextmanager
def _outputs(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """What modules give while the block runs."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            seen.append(output)

    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
