"""The zoo: a table of all models, and a page for each, from the specs and the weights manifest."""

from __future__ import annotations

import yaml

import pvzoo
from pvzoo import card, catalog
from pvzoo.cli.describe import model_rows
from pvzoo.diagram import diagram
from pvzoo.errors import file_size
from pvzoo.hub import verify
from pvzoo.manifest import Metric, Weights
from pvzoo.model import Model
from pvzoo.specs import ModelSpec

from .components import figure
from .markdown import Pages, code, table

KIND_OF_PAGE = {"backbone": "backbones", "alignment": "alignments", "fusion": "fusions", "head": "heads"}


def published() -> dict[str, Weights]:
    """What pvzoo's own manifest says, by ``model.tag``."""
    return catalog.pinned(own=True)


def tagged(name: str) -> dict[str, Weights]:
    """The published weights of a model, the default first."""
    return {tag: weights for tag, weights in published().items() if catalog.split_tag(tag)[0] == name}


def cost(name: str, weights: Weights | None) -> tuple[int, int, str]:
    """Trained values, multiply-adds for one sample, and size: of weights, or of the model without a head."""
    if weights is not None:
        return weights.parameters, weights.macs, f"{file_size(weights.size)} in {weights.dtype}"
    model = pvzoo.create(name, num_classes=0, device="meta")
    parameters = sum(value.numel() for value in model.parameters())
    return parameters, verify.macs(model.spec, Model), f"{file_size(4 * parameters)} in float32"


def pages() -> Pages:
    names = [name for name in pvzoo.list_models() if "/" not in name]
    yield "zoo/index.md", index(names)
    for name in names:
        yield f"zoo/{name}.md", page(name)
    yield "make/parts/stage2_spatial.html", figure(diagram(catalog.spec("stage2_spatial"))) + "\n"


def index(names: list[str]) -> str:
    """The table of models."""
    columns = ["model", "parameters", "GMACs", "size", "EER", "licence", "trained on"]
    rows: list[list[str]] = []
    for name in names:
        found: dict[str, Weights | None] = {**tagged(name)} or {name: None}
        for tag, weights in found.items():
            parameters, macs, size = cost(name, weights)
            row = [f"[{tag}]({name}.md)", f"{parameters / 1e6:.2f} M", f"{macs / 1e9:.2f}", size]
            row = [cell.replace(" ", "&nbsp;") for cell in row]
            if weights is None:
                rows.append([*row, "", "", ""])
            else:
                rows.append([*row, _eer(weights), weights.licence, ", ".join(each.name for each in weights.data)])
    return f"""# The zoo

Every model is composed from a [spec](../concepts/spec.md) of [components](../components/index.md). Its
[weights](../weights.md) bear its name with a tag, such as `v1`, and cost and size are theirs, as the manifest has them;
a model without weights is counted without a head. Multiply-adds are for one sample, an image of each modality.

{table(columns, rows)}
`..._nano` are small siblings, with ConvNeXt-Atto in place of ConvNeXt-Tiny. `stage1_...` is one branch of one modality,
for the first stage of training; `stage2_...` are whole models. Error rates stand here with their data, protocol and
interval only; [Published results](../results.md) says how they compare.

```python
import pvzoo

pvzoo.list_models("stage2_*")
model = pvzoo.create("stage2_spatial", pretrained=True)
```
"""


def page(name: str) -> str:
    """The page of a model."""
    spec = catalog.spec(name)
    weights = next(iter(tagged(name).values()), None)
    parameters, macs, size = cost(name, weights)
    pretrained = ", pretrained=True" if weights else ""
    source = yaml.safe_dump(
        catalog.source(name).data, sort_keys=False, default_flow_style=None, width=90, allow_unicode=True
    )
    images = "\n".join(f'{modality} = model.preprocess("a_{modality}.png")' for modality in spec.modalities)
    facts = [
        ("parameters", f"{parameters:,}"),
        ("multiply-adds", f"{macs / 1e9:.3f} G for one sample"),
        ("size", size),
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

{table(["", "with its weights" if weights else "without a head"], facts)}
## Use it

```python
import pvzoo

model = pvzoo.create("{name}"{pretrained})
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
    if not tagged(name):
        return "None are published yet. [Train it on your own data](../tutorials/train.md).\n"
    return "\n".join(f"### {tag}\n\n{_card(tag, weights)}" for tag, weights in tagged(name).items())


def _card(tag: str, weights: Weights) -> str:
    recipe = weights.recipe
    rows = [
        ("licence", weights.licence),
        ("trained on", "; ".join(f"{each.name} ({each.origin})" for each in weights.data)),
        ("recipe", f"{recipe.name}; {code(f'pvzoo reproduce {tag}')} trains them again" if recipe else ""),
        ("intended use", weights.intended_use),
        ("limits", weights.limits),
        ("cost", f"{weights.parameters:,} parameters, {weights.macs / 1e9:.3f} GMACs"),
        ("files", f"{file_size(weights.size)} in {weights.dtype}, of {code(weights.repo)} at {code(weights.revision)}"),
        ("needs", f"pvzoo {weights.pvzoo} or newer"),
    ]
    return f"""{table(["", ""], [row for row in rows if row[1]])}
`pvzoo.create("{tag}", pretrained=True)` loads them; [Weights](../weights.md) says where the files are.

{card.results(weights)}
{card.cuts(weights.thresholds)}"""


def _eer(weights: Weights) -> str:
    """That of all its modalities; of one alone, the model's page has it."""
    found = [metric for metric in weights.metrics if metric.name == "eer" and not metric.modalities]
    return "; ".join(f"{_interval(metric)} ({metric.dataset}, {metric.protocol})" for metric in found)


def _interval(metric: Metric) -> str:
    return f"{metric.value:.4g}" + (f" [{metric.spread}]" if metric.spread else "")
