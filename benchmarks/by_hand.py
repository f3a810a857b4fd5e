"""``stage2_spatial`` written out without pvzoo: timm's networks and plain torch layers, for comparison."""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Stage2Spatial(nn.Module):
    """The same networks and the same layers behind them, called one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.vit_palm, self.vit_vein = (self._network("efficientvit_m0") for _ in range(2))
        self.cnn_palm, self.cnn_vein = (self._network("convnext_tiny") for _ in range(2))
        self.align_global = nn.ModuleList(nn.Linear(192, 256) for _ in range(2))
        self.align_local = nn.ModuleList(
            nn.Sequential(nn.Conv2d(768, 256, 1, bias=False), nn.BatchNorm2d(256)) for _ in range(2)
        )
        self.channel = nn.Sequential(nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 512))
        self.spatial = nn.Sequential(
            nn.Conv2d(512, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 2, 3, padding=1)
        )
        self.centers = nn.Parameter(torch.randn(100, 512) * 0.01)

    @staticmethod
    def _network(name: str) -> nn.Module:
        return timm.create_model(name, in_chans=1, num_classes=0)

    def forward(self, palm: Tensor, vein: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.align_global[0](self.vit_palm(palm)), self.align_global[1](self.vit_vein(vein))
        weights = self.channel(torch.cat([a, b], 1)).view(-1, 2, 256).softmax(1)
        fused_global = weights[:, 0] * a + weights[:, 1] * b

        c = self.align_local[0](self.cnn_palm.forward_features(palm))
        d = self.align_local[1](self.cnn_vein.forward_features(vein))
        weights = self.spatial(torch.cat([c, d], 1)).softmax(1)
        fused_local = (weights[:, :1] * c + weights[:, 1:] * d).mean((2, 3))

        joined = torch.cat([fused_global, fused_local], 1)
        return 64 * F.linear(F.normalize(joined), F.normalize(self.centers)), F.normalize(joined)
