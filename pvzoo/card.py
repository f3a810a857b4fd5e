"""The README.md that is saved beside a model's weights."""

from __future__ import annotations

from collections.abc import Sequence

from .specs import ModelSpec
from .threshold import Threshold


def render(spec: ModelSpec, *, untrained: bool, thresholds: Sequence[Threshold] = ()) -> str:
    """Returns the card as Markdown: what the model is, how to load it, what it takes and gives."""
    title = spec.name or "A pvzoo model"
    height, width = spec.preprocessing.size
    images = " and ".join(spec.modalities)
    warning = "\n> The weights are random: this model was never trained, and its scores mean nothing.\n"
    rows = [
        ("modalities", ", ".join(spec.modalities)),
        ("images", f"{spec.preprocessing.channels} x {height} x {width}, {spec.preprocessing.interpolation}"),
        *((f"branch {name}", _branch(spec, name)) for name in spec.branches),
        ("embedding", f"{spec.geometry.embedding} values" + (", unit length" if spec.embedding.normalize else "")),
        ("head", spec.head.name + (f", {spec.num_classes} classes" if spec.num_classes else "")),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    plugins = "".join(
        f"\nIt needs the plugin `{need['distribution']}` ({need['version']}): `pip install {need['distribution']}`\n"
        for need in spec.to_dict()["requires"].values()
    )
    arguments = ", ".join(spec.modalities)
    cuts = "".join(f"* {cut.rule if cut.target is None else f'FMR {cut.target:g}'}: {cut}\n" for cut in thresholds)
    cuts = f"\nThresholds of the score, for `model.verify`:\n\n{cuts}" if cuts else ""
    return f"""---
library_name: pvzoo
tags: [palmprint, palm-vein, biometrics]
---

# {title}

{spec.summary or f"A model that compares palms by {images} images."}
{warning if untrained else ""}{plugins}
```python
import pvzoo

model = pvzoo.create("local-dir:.")  # the folder that holds this file
{chr(10).join(f'{name} = model.preprocess("{name}.png")' for name in spec.modalities)}
embedding = model.embed({arguments})
```

| part | what |
| --- | --- |
{table}
{cuts}
The whole spec is in `config.json`.
"""


def _branch(spec: ModelSpec, name: str) -> str:
    branch = spec.branches[name]
    backbones = ", ".join(dict.fromkeys(branch.backbone[modality].name for modality in spec.modalities))
    alignments = ", ".join(dict.fromkeys(branch.alignment[modality].name for modality in spec.modalities))
    fusion = f", {spec.fusion[name].name}" if name in spec.fusion else ""
    return f"{backbones} ({branch.features}), {alignments}{fusion}, {spec.geometry.fused[name]}"
