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

The maps are Captum's (``LayerGradCam``), which keeps their scale: palm and vein can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import EvaluationError, InputError
from ..extras import missing
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
    given = {modality: images.get(modality) for modality in model.spec.modalities}
    with torch.no_grad():
        features = model.features(**given)
    wanted = F.normalize(references)

    def score(modality: str, image: Tensor) -> Tensor:
        """The target (N,) as a function of one image; the features of the others stay as they are."""
        own = {each: model.run_branch(each, modality, image) for each in features}
        joined = model.join({each: {**of_branch, modality: own[each]} for each, of_branch in features.items()})
        target: Tensor = (joined * wanted).sum(1) / joined.norm(dim=1).detach()
        return target

    found = {}
    for modality, image in given.items():
        if image is None:
            continue
        layer = _map_layer(model, name, modality, image)
        with torch.enable_grad(), _frozen(model):
            cam = _captum().LayerGradCam(partial(score, modality), layer)
            # A gradient is wanted with respect to maps, also where all parameters are frozen.
            found[modality] = cam.attribute(image.detach().clone().requires_grad_(), relu_attributions=True)[
                :, 0
            ].detach()
    return found


def _captum() -> Any:
    try:
        from captum import attr
    except ImportError as error:
        raise missing("Captum", "viz", error) from error
    return attr


@contextmanager
def _frozen(model: Model) -> Iterator[None]:
    """Keeps gradients away from the parameters."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def finest_branch(model: Model) -> str:
    """The branch whose map has the most cells; of equals the last."""

    def cells(name: str) -> int:
        shape = model.spec.geometry.backbones[name][model.spec.modalities[0]].map
        return 0 if shape is None or shape.grid is None else shape.grid[0] * shape.grid[1]

    return max(reversed(model.spec.branches), key=cells)


@torch.no_grad()
def _map_layer(model: Model, branch: str, modality: str, image: Tensor) -> nn.Module:
    """The module that gives the map which a branch's features are, or that is pooled to them."""
    shape = model.spec.geometry.backbones[branch][modality].map
    grid = None if shape is None else shape.grid
    where = f"branch {branch!r} has no map of {modality}"
    if grid is None or grid == (1, 1):
        size = "x".join(map(str, model.spec.preprocessing.size))
        raise EvaluationError(f"{where} of more than one cell at {size} pixels")
    backbone = model.branch(branch, modality)
    if model.spec.branches[branch].features == "map":
        return backbone
    found: list[nn.Module] = []
    map_ = backbone(image, pool=False)

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.shape == map_.shape and torch.allclose(output, map_, 1e-3, 1e-5):
            found.append(module)

    handles = [module.register_forward_hook(look) for module in backbone.modules()]
    try:
        model.run_branch(branch, modality, image)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise EvaluationError(f"{where} on the way to its vector; a model with features: map for this branch has one")
    return found[-1]
