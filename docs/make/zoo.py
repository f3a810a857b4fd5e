"""The zoo: a table of all models, and a page for each, from the specs and the weights manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

import pvzoo
from pvzoo import catalog
from pvzoo.cli.describe import model_rows
from pvzoo.diagram import diagram
from pvzoo.manifest import Metric
from pvzoo.specs import ModelSpec

from .components import figure
from .markdown import Pages, code, table

KIND_OF_PAGE = {"backbone": "backbones", "alignment": "alignments", "fusion": "fusions", "head": "heads"}


def published() -> dict[str, dict[str, Any]]:
    """The weights manifest as data, by ``model.tag``; empty while no weights are published."""
    manifest = files("pvzoo.zoo") / "weights.json"
    if not manifest.is_file():
        return {}
    weights: dict[str, dict[str, Any]] = json.loads(manifest.read_text(encoding="utf-8"))["weights"]
    return weights


@cache
def cost(name: str) -> tuple[int, int]:
    """Trained values, and multiply-adds for one sample in eval mode, counted by torch without computing anything."""
    model = pvzoo.create(name, device="meta")
    image = model.spec.preprocessing
    images = [torch.empty(1, image.channels, *image.size, device="meta") for _ in model.spec.modalities]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(*images)
    return sum(value.numel() for value in model.parameters()), counter.get_total_flops() // 2


def pages() -> Pages:
    names = [name for name in pvzoo.list_models() if "/" not in name]
    yield "zoo/index.md", index(names)
    for name in names:
        yield f"zoo/{name}.md", page(name)
    yield "make/parts/stage2_spatial.html", figure(diagram(catalog.spec("stage2_spatial"))) + "\n"


def index(names: list[str]) -> str:
    """The table of models."""
    weights = published()
    columns = ["model", "parameters", "GMACs", "size", *(["EER", "licence", "trained on"] if weights else [])]
    rows: list[list[str]] = []
    for name in names:
        parameters, macs = cost(name)
        row = [f"[{name}]({name}.md)", f"{parameters / 1e6:.2f}&nbsp;M", f"{macs / 1e9:.2f}", _size(4 * parameters)]
        tagged = {tag: facts for tag, facts in weights.items() if catalog.split_tag(tag)[0] == name}
        if not tagged:
            rows.append([*row, "", "", ""][: len(columns)])
        for tag, facts in tagged.items():
            size = _size(sum(file["size"] for file in facts["files"].values()))
            data = ", ".join(each["name"] for each in facts["data"])
            rows.append([f"[{tag}]({name}.md)", *row[1:3], size, _eer(facts), facts["licence"], data])
    note = "" if weights else "No trained weights are published yet, so there are no error rates to show.\n"
    return f"""# The zoo

Every model is composed from a [spec](../concepts/spec.md) of [components](../components/index.md). Parameters and
multiply-adds are counted by torch for one sample, an image of each modality, with the head; size is that of the weights
in float32. {note}
{table(columns, rows)}
`..._nano` are small siblings, with ConvNeXt-Atto in place of ConvNeXt-Tiny. `stage1_...` is one branch of one modality,
for the first stage of training; `stage2_...` are whole models. Error rates stand here with their data, protocol and
interval only; [Published results](../results.md) says how they compare.

```python
import pvzoo

pvzoo.list_models("stage2_*")
model = pvzoo.create("stage2_spatial_nano", num_classes=600)
```
"""


def page(name: str) -> str:
    """The page of a model."""
    spec = catalog.spec(name)
    parameters, macs = cost(name)
    source = yaml.safe_dump(
        catalog.source(name).data, sort_keys=False, default_flow_style=None, width=90, allow_unicode=True
    )
    images = "\n".join(f'{modality} = model.preprocess("a_{modality}.png")' for modality in spec.modalities)
    facts = [
        ("parameters", f"{parameters:,}"),
        ("multiply-adds", f"{macs / 1e9:.3f} G"),
        ("size", f"{_size(4 * parameters)} in float32"),
        ("image", f"{spec.preprocessing.channels} x {' x '.join(map(str, spec.preprocessing.size))}"),
        ("embedding", f"{spec.geometry.embedding} values" + (", unit length" if spec.embedding.normalize else "")),
        ("components", ", ".join(_links(spec))),
    ]
    return f"""---
hide: [navigation]
---

# {name}

{spec.summary}.

{figure(diagram(spec))}

{table(["", "for one sample"], facts)}
## Use it

```python
import pvzoo

model = pvzoo.create("{name}")
{images}
embedding = model.embed({", ".join(spec.modalities)})   # (1, {spec.geometry.embedding})
```

## Shapes

{table(["part", "what", "gives"], model_rows(spec))}
## Weights

{_weights(name)}
## Spec

```yaml
{source}```

[All models](index.md)
"""


def _links(spec: ModelSpec) -> list[str]:
    links = {ref.name: f"[`{ref.name}`](../components/{KIND_OF_PAGE[ref.kind]}.md#{ref.name})" for ref in spec.refs()}
    return list(links.values())


def _weights(name: str) -> str:
    tagged = {tag: facts for tag, facts in published().items() if catalog.split_tag(tag)[0] == name}
    if not tagged:
        return "None are published yet. [Train it on your own data](../tutorials/train.md).\n"
    return "\n".join(f"### {tag}\n\n{_card(tag, facts)}" for tag, facts in tagged.items())


def _card(tag: str, facts: Mapping[str, Any]) -> str:
    rows = [
        ("licence", facts["licence"]),
        ("trained on", "; ".join(f"{each['name']} ({each['origin']})" for each in facts["data"])),
        ("intended use", facts["intended_use"]),
        ("limits", facts.get("limits", "")),
        ("repository", f"{facts['repo']} at {code(facts['revision'])}"),
        *(("measured", metric(each)) for each in facts.get("metrics", ())),
    ]
    return (
        table(["", ""], [row for row in rows if row[1]]) + f'\n`pvzoo.create("{tag}", pretrained=True)` loads them.\n'
    )


def metric(figure: Mapping[str, Any]) -> str:
    """A figure with everything that it means nothing without."""
    return str(Metric.model_validate(figure))


def _eer(facts: Mapping[str, Any]) -> str:
    """That of all its modalities; of one alone, the model's page has it."""
    found = [each for each in facts.get("metrics", ()) if each["name"] == "eer" and not each.get("modalities")]
    return "; ".join(f"{_interval(each)} ({each['dataset']}, {each['protocol']})" for each in found)


def _interval(figure: Mapping[str, Any]) -> str:
    spread = "" if figure.get("low") is None else f" [{figure['low']:.4g} to {figure['high']:.4g}]"
    return f"{figure['value']:.4g}{spread}"


def _size(size: float) -> str:
    return f"{size / 2**20:.1f}&nbsp;MiB"
