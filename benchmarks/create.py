"""Time to build and to load ``stage2_spatial``, against doing it by hand with timm and ``torch.load``.

By hand means the four networks from ``timm.create_model``, the layers behind them written out, and for loading
``torch.load`` and a strict ``load_state_dict`` of the same tensors.

Example:
    python benchmarks/create.py --rounds 7
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import timm
import torch
from by_hand import Stage2Spatial
from timing import compare, seconds

import pvzoo

NAME = "stage2_spatial"


def four_networks() -> list[torch.nn.Module]:
    return [timm.create_model(name, in_chans=1, num_classes=0) for name in ("efficientvit_m0", "convnext_tiny") * 2]


def build_and_load(path: Path) -> torch.nn.Module:
    model = Stage2Spatial().eval()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7, help="pairs of runs that count")
    rounds = parser.parse_args().rounds
    compare(
        f'create("{NAME}") / four timm models by hand',
        partial(seconds, lambda: pvzoo.create(NAME)),
        partial(seconds, four_networks),
        goal=1.1,
        rounds=rounds,
    )
    with tempfile.TemporaryDirectory() as folder:
        saved = pvzoo.create(NAME).save(folder)
        checkpoint = Path(folder) / "by_hand.pt"
        torch.save(Stage2Spatial().state_dict(), checkpoint)
        compare(
            'create("local-dir:...") / build by hand, torch.load and load_state_dict',
            partial(seconds, lambda: pvzoo.create(f"local-dir:{saved}")),
            partial(seconds, lambda: build_and_load(checkpoint)),
            goal=0.35,
            rounds=rounds,
        )


if __name__ == "__main__":
    main()
