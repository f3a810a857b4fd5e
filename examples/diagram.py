"""Draws a model of your own design, without torch: ``python examples/diagram.py model.svg``."""

from __future__ import annotations

import sys
from pathlib import Path

from pvzoo.diagram import diagram
from pvzoo.specs import load_spec

SPEC = {
    "name": "three",
    "modalities": ["palm", "vein", "dorsal"],
    "branches": {"local": {"backbone": "convnext_atto", "features": "map", "alignment": "conv1x1"}},
    "fusion": {"local": "spatial_attention"},
    "embedding": {"bnneck": True},
    "head": "cosface",
    "num_classes": 600,
}


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "model.svg")
    out.write_text(diagram(load_spec(SPEC)), encoding="utf-8")
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
