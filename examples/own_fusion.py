"""A fusion of your own without a package, for a notebook: ``python examples/own_fusion.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

import pvzoo
from pvzoo.plugins import Host, using


class MeanFusion(nn.Module):
    """The mean of the modalities that are there."""

    def __init__(self, params: pvzoo.Params, *, modalities: Sequence[str], shape: pvzoo.Shape) -> None:
        super().__init__()

    def forward(self, features: Mapping[str, Tensor | None]) -> pvzoo.Fused:
        return pvzoo.Fused(torch.stack([x for x in features.values() if x is not None]).mean(0))


class Notebook:
    @pvzoo.hookimpl
    def register_fusions(self, register: pvzoo.Register) -> None:
        register(
            "notebook/mean", build=MeanFusion, accepts={"vector", "map"}, missing="ignore", summary="Mean of modalities"
        )


def main() -> None:
    host = Host(plugins=[])
    host.add("notebook", Notebook())
    with using(host):
        mean = {f"fusion.{branch}": "notebook/mean" for branch in ("global", "local")}
        model = pvzoo.create("stage2_spatial_nano", image_size=64, **mean)
        images = torch.randn(2, 1, 64, 64)
        print("palm and vein:", tuple(model.embed(images, images).shape))
        print("palm alone:   ", tuple(model.embed(images, None).shape))


if __name__ == "__main__":
    main()
