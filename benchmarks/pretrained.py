"""``create(NAME, pretrained=True)`` against timm and ``torch.load``, and its peak of memory.

By hand means the networks from ``timm.create_model``, a file of the same tensors in float32 read by ``torch.load``, and
strict ``load_state_dict``. pvzoo reads float16 and checks digests: by hashing the first time, and by its notes of size,
time and inode from then on. Needs the model's weights on this machine; the peak of memory also needs Linux.

Example:
    pip install plugins/pvzoo-weights && python benchmarks/pretrained.py --rounds 7
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import timm
import torch
from timing import compare, resident, seconds

import pvzoo

GOAL, MEMORY_GOAL = 0.35, 1.3


def networks(spec: pvzoo.ModelSpec) -> dict[str, torch.nn.Module]:
    """The branches of a model, which bear timm's names, in the order of its state."""
    return {
        f"branches.{modality}.{name}": timm.create_model(branch.backbone[modality].name, in_chans=1, num_classes=0)
        for modality in spec.modalities
        for name, branch in spec.branches.items()
    }


def by_hand(spec: pvzoo.ModelSpec, file: Path) -> None:
    states = torch.load(file, weights_only=True)
    for name, network in networks(spec).items():
        network.load_state_dict(states[name])
        network.eval()


def peak(name: str) -> None:
    """Prints the peak of memory above what was held before, and the size of the weights in float32, as JSON."""
    pvzoo.create(name)  # what the libraries need once
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    model = pvzoo.create(name, pretrained=True, offline=True)
    size = sum(tensor.nbytes for tensor in model.state_dict().values()) / 2**20
    print(json.dumps([resident("VmHWM") - before, size]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="stage2_spatial", help="a name with pretrained weights")
    parser.add_argument("--rounds", type=int, default=7, help="pairs of runs that count")
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        peak(args.model)
        return
    model = pvzoo.create(args.model, pretrained=True, offline=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "by_hand.pt"
        torch.save({name: network.state_dict() for name, network in networks(model.spec).items()}, file)
        compare(
            f'create("{args.model}", pretrained=True) / timm, torch.load and load_state_dict',
            partial(seconds, lambda: pvzoo.create(args.model, pretrained=True, offline=True)),
            partial(seconds, partial(by_hand, model.spec, file)),
            goal=GOAL,
            rounds=args.rounds,
        )
    command = [sys.executable, __file__, "--peak", "--model", args.model]
    above, size = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    met = "met" if above / size <= MEMORY_GOAL else "MISSED"
    ratio = f"{above / size:.2f} (goal {MEMORY_GOAL}, {met})   {above:.0f} / {size:.0f} MB"
    print(f"peak of memory / weights in float32: {ratio}")


if __name__ == "__main__":
    main()
