"""EfficientViT, ConvNeXt and any other architecture through timm.

* EfficientViT: Liu et al., "EfficientViT: Memory Efficient Vision Transformer with Cascaded Group Attention",
  CVPR 2023, https://arxiv.org/abs/2305.07027 (the MSRA family, not MIT's ``efficientvit_b*``).
* ConvNeXt: Liu et al., "A ConvNet for the 2020s", CVPR 2022, https://arxiv.org/abs/2201.03545.
* Networks: timm, Apache-2.0. No weights are downloaded; pvzoo's own come from its weight sources.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import timm
import torch
from timm.models import efficientformer, efficientformer_v2, efficientvit_msra, levit, tiny_vit
from torch import Tensor, nn

from ..errors import nearest
from ..shapes import BackboneShape, Level, Shape
from . import CONVNEXT_STRIDES, EFFICIENTVIT_STRIDES, ConvNeXtParams, EfficientViTParams, TimmParams, level_of


class TimmBackbone(nn.Module):
    """A timm network behind pvzoo's contract for backbones.

    A network keeps all its tensors whether vectors or maps are wanted, so that a branch trained on vectors fits a
    model that fuses maps. ConvNeXt's last norm acts on vectors alone: with maps it gets no gradient.

    Args:
        net: The network, without classifier.
        level: Index of the level to stop at; ``None`` keeps the whole network.
    """

    def __init__(self, net: nn.Module, level: int | None = None) -> None:
        super().__init__()
        for module in net.modules():
            module.__class__ = _UNCACHED.get(type(module), type(module))
        self.net = net
        self.level = level
        if level is not None:
            net.prune_intermediate_layers([level], prune_norm=True, prune_head=True)  # type: ignore[operator]
            net.head = nn.Identity()

    def forward(self, x: Tensor, pool: bool = True) -> Tensor:
        """Image (N, C, H, W) to vector (N, D), or to map (N, D, h, w) if ``pool`` is false."""
        if pool and self.level is None:
            vector: Tensor = self.net(x)
            return vector
        features: list[Tensor] = self.net.forward_intermediates(  # type: ignore[operator]
            x, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        return features[-1].mean((2, 3)) if pool else features[-1]


def _fresh_biases(module: Any, device: torch.device) -> Tensor:
    biases: Tensor = module.attention_biases[:, module.attention_bias_idxs]
    return biases


# timm keeps the gathered attention biases of an eval model, and goes on using them after the biases changed. That is
# silently wrong after weights are loaded into the model, and breaks training in eval mode. The gather costs
# microseconds, so these classes do it each time.
_UNCACHED: dict[type[nn.Module], type[nn.Module]] = {
    parent: type(
        f"{parent.__name__}{number}", (parent,), {"get_attention_biases": _fresh_biases, "__module__": __name__}
    )
    for number, parent in enumerate(
        (
            efficientvit_msra.CascadedGroupAttention,
            levit.Attention,
            levit.AttentionDownsample,
            tiny_vit.Attention,
            efficientformer.Attention,
            efficientformer_v2.Attention2d,
            efficientformer_v2.Attention2dDownsample,
        )
    )
}
globals().update({uncached.__name__: uncached for uncached in _UNCACHED.values()})  # so that they can be pickled


def _level(strides: tuple[int, ...], stride: int | None) -> int | None:
    level = level_of(strides, stride)
    return None if level == len(strides) - 1 else level


def _efficientvit(name: str, params: EfficientViTParams, *, in_chans: int, image_size: tuple[int, int]) -> nn.Module:
    net = timm.create_model(name, in_chans=in_chans, num_classes=0, img_size=image_size)
    return TimmBackbone(net, _level(EFFICIENTVIT_STRIDES, params.stride))


def _convnext(name: str, params: ConvNeXtParams, *, in_chans: int, image_size: tuple[int, int]) -> nn.Module:
    net = timm.create_model(name, in_chans=in_chans, num_classes=0, drop_path_rate=params.drop_path_rate)
    return TimmBackbone(net, _level(CONVNEXT_STRIDES, params.stride))


efficientvit_m0 = partial(_efficientvit, "efficientvit_m0")
efficientvit_m1 = partial(_efficientvit, "efficientvit_m1")
efficientvit_m2 = partial(_efficientvit, "efficientvit_m2")
efficientvit_m3 = partial(_efficientvit, "efficientvit_m3")
efficientvit_m4 = partial(_efficientvit, "efficientvit_m4")
efficientvit_m5 = partial(_efficientvit, "efficientvit_m5")
convnext_atto = partial(_convnext, "convnext_atto")
convnext_nano = partial(_convnext, "convnext_nano")
convnext_tiny = partial(_convnext, "convnext_tiny")


def any_architecture(params: TimmParams, *, in_chans: int, image_size: tuple[int, int]) -> nn.Module:
    """Builds an architecture that timm knows by name."""
    config = timm.get_pretrained_cfg(params.arch)
    options: dict[str, Any] = {"img_size": image_size} if config is not None and config.fixed_input_size else {}
    if params.drop_path_rate:
        options["drop_path_rate"] = params.drop_path_rate
    return TimmBackbone(timm.create_model(params.arch, in_chans=in_chans, num_classes=0, **options))


@lru_cache(maxsize=16)
def _on_meta(params: TimmParams, in_chans: int, image_size: tuple[int, int]) -> nn.Module:
    with torch.device("meta"):
        return any_architecture(params, in_chans=in_chans, image_size=image_size).eval()


def any_size(params: TimmParams, in_chans: int, image_size: tuple[int, int]) -> int:
    """Number of trained values of an architecture that :func:`any_shape` knows."""
    return sum(parameter.numel() for parameter in _on_meta(params, in_chans, image_size).parameters())


@lru_cache(maxsize=256)
def any_shape(params: TimmParams, in_chans: int, image_size: tuple[int, int]) -> BackboneShape:
    """Asks the architecture itself: built and run once on the meta device, which allocates nothing.

    The declared ``num_features`` is not always the pooled width (mobilenetv3, ghostnet, hgnetv2).

    Raises:
        ValueError: If timm does not know the name, or the network cannot take the image.
    """
    if not timm.is_model(params.arch):
        near = nearest(params.arch, timm.list_models())
        hint = f"; did you mean {near!r}?" if near else ""
        raise ValueError(f"timm {timm.__version__} has no architecture {params.arch!r}{hint}")
    name, _, tag = params.arch.partition(".")
    if tag:
        raise ValueError(f"{params.arch!r} names weights of timm, which are not loaded; the architecture is {name!r}")
    try:
        net = _on_meta(params, in_chans, image_size)
        with torch.device("meta"), torch.inference_mode():
            image = torch.empty(1, in_chans, *image_size)
            vector = net(image)
            with _centres(net, image_size) as centres:
                grid = net(image, pool=False) if hasattr(net.net, "forward_intermediates") else None
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        size = f"{in_chans}x{image_size[0]}x{image_size[1]}"
        raise ValueError(f"{params.arch} cannot take an image of {size}: {str(error).splitlines()[0]}") from error
    if vector.ndim != 2:
        raise ValueError(f"{params.arch} pools to {tuple(vector.shape)}, not to a vector")
    if grid is None or grid.ndim != 4:
        return BackboneShape(vector.shape[1])
    map_shape = Shape(grid.shape[1], (grid.shape[2], grid.shape[3]))
    # Image over grid is not the stride where the network pads: 224 pixels at stride 64 are 4 cells.
    info = getattr(net.net, "feature_info", None)
    stride = info[-1]["reduction"] if isinstance(info, list) and info else round(image_size[0] / grid.shape[2])
    first, jump = centres.get(tuple(grid.shape[2:]), (None, stride))
    levels = (Level(stride, grid.shape[1]),)
    return BackboneShape(vector.shape[1], map_shape, stride, levels, first if jump == stride else None)


@contextmanager
def _centres(net: nn.Module, image_size: tuple[int, int]) -> Iterator[dict[tuple[int, int], tuple[float, int]]]:
    """Follows maps of an image while the block runs: by their size, centre of the first cell and stride, in pixels.

    A convolution or pooling of kernel k, stride s and padding p moves the first centre by (k - 1) / 2 - p cells of its
    input. Layers that pad otherwise, or shrink maps by other means, are not followed.
    """
    found: dict[tuple[int, int], tuple[float, int]] = {image_size: (0.0, 1)}

    def follow(module: Any, inputs: Any, output: Any) -> None:
        before, after = (tuple(x.shape[2:]) for x in (inputs[0], output))
        if before not in found or after in found:
            return
        sizes = (module.kernel_size, module.stride, module.padding, getattr(module, "dilation", 1))
        kernel, stride, padding, dilation = (x[0] if isinstance(x, tuple) else x for x in sizes)
        if (
            isinstance(padding, int)
            and after[0] == (before[0] + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        ):
            first, jump = found[before]
            found[after] = (first + jump * (dilation * (kernel - 1) / 2 - padding), jump * stride)

    layers = [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d))]
    handles = [layer.register_forward_hook(follow) for layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
