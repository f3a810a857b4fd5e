"""The README.md that is saved beside a model's weights, and published with them."""

from __future__ import annotations

from collections.abc import Sequence

from .manifest import DataSet, Facts
from .specs import ModelSpec
from .threshold import Threshold

LIBRARY = "pvzoo"
TAGS = ["palmprint", "palm-vein", "biometrics"]

MISUSE = """This model compares palms. It does not tell a living hand from a picture of one: printed palms, screens and
casts are images like any other, and without a detector of presentation attacks (ISO/IEC 30107) anybody may pass with a
picture of somebody's hand. Do not use it as the only factor where something depends on it.

A palm cannot be changed once its template is known, and a template is data of a person: keep templates encrypted, and
delete them when they are no longer needed. Do not use it on people who have not agreed, to find people in images that
were taken for something else, or to guess what an identity does not contain, such as age, sex, origin or health."""

SYNTHETIC = """These weights have seen no real palm: every image that they were trained on was drawn by a program. Skin,
cameras and light vary in more ways than it draws, so the figures above compare models with each other, and say nothing
about error rates on people. Thresholds do not carry over either. Take the model as a start: train it on images of your
own, choose thresholds on people who did not train, and only then read its answers."""


def render(spec: ModelSpec, *, untrained: bool, thresholds: Sequence[Threshold] = ()) -> str:
    """The card of a folder that was saved: what the model is, how to load it, what it takes and gives."""
    header = f"---\nlibrary_name: {LIBRARY}\ntags: [{', '.join(TAGS)}]\n---\n\n"
    return header + body(spec, untrained=untrained, thresholds=thresholds)


def body(
    spec: ModelSpec,
    *,
    untrained: bool,
    thresholds: Sequence[Threshold] = (),
    source: str = "local-dir:.",
    facts: Facts | None = None,
) -> str:
    """The card without its header.

    Args:
        spec: The model.
        untrained: Whether its weights are random.
        thresholds: That its file carries.
        source: What ``pvzoo.create`` takes to load it; a name is one of the zoo, with its tag.
        facts: What its author says of it; needed to publish it.
    """
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
    pretrained = "" if ":" in source else ", pretrained=True"
    hint = "  # the folder that holds this file" if source == "local-dir:." else ""
    return f"""# {title}

{spec.summary or f"A model that compares palms by {images} images."}
{warning if untrained else ""}{plugins}
```python
import pvzoo

model = pvzoo.create("{source}"{pretrained}){hint}
{chr(10).join(f'{name} = model.preprocess("{name}.png")' for name in spec.modalities)}
embedding = model.embed({arguments})
```

| part | what |
| --- | --- |
{table}
{cuts(thresholds)}{_sections(spec, facts, source) if facts else ""}
The whole spec is in `config.json`.
"""


def cuts(thresholds: Sequence[Threshold]) -> str:
    """A list of thresholds; nothing if there are none."""
    lines = "".join(f"* {cut.rule if cut.target is None else f'FMR {cut.target:g}'}: {cut}\n" for cut in thresholds)
    return f"\nThresholds of the score, for `model.verify`:\n\n{lines}" if lines else ""


def _sections(spec: ModelSpec, facts: Facts, source: str) -> str:
    drawn = all(each.origin == "synthetic" for each in facts.data)
    sections = {
        "Intended use": facts.intended_use,
        "Data": "\n".join(_data(each) for each in facts.data),
        "Results": results(facts),
        **({"No real palm": f"{SYNTHETIC}\n{_tuning(spec, source)}"} if drawn else {}),
        "Limits": facts.limits or "None were looked for. Expect it to fail on images unlike those of its data.",
        "Spoofing and misuse": MISUSE,
        "Licence": facts.licence,
    }
    return "".join(f"\n## {title}\n\n{text}\n" for title, text in sections.items())


def _tuning(spec: ModelSpec, source: str) -> str:
    """The commands that train these weights further; none for a model that has no name to call it by."""
    name, alone = spec.name, len(spec.modalities) == 1
    if not name:
        return ""
    made = f"runs/mine/{spec.modalities[0]}_{next(iter(spec.branches))}/model" if alone else "runs/mine/model"
    recipe = "stage1" if alone else "stage2_plan_b"
    start = source if source.startswith("hf-hub:") else name  # by name they are the zoo's
    return f"""
```bash
pvzoo train {recipe} --model {name} --init {start} --data palms/ --layout folder_pair -o runs/mine
pvzoo eval {made} --data palms/ --layout folder_pair --out report --export-thresholds
```"""


def _data(data: DataSet) -> str:
    origin = "synthetic: no data of persons" if data.origin == "synthetic" else f"of persons. Consent: {data.consent}"
    link = f" ({data.url})" if data.url else ""
    return f"* {data.name}{link}, {origin}" + (f". Licence of the data: {data.licence}" if data.licence else "")


def results(facts: Facts) -> str:
    """A table of figures, those of the floor among them, for each place where they were measured."""
    if not facts.metrics:
        return "Not measured."
    parts = []
    for where, figures in facts.results().items():
        lines = [f"On {where}:\n", "| figure | value | 95 % interval by subject |", "| --- | --- | --- |"]
        for matcher, metric in figures:
            of = f" ({matcher})" if matcher else ""
            lines.append(f"| {metric.title}{of} | {metric.value:.4g} | {metric.spread or 'none'} |")
        parts.append("\n".join(lines))
    if facts.floor:
        parts.append(
            "Where a matcher is named, it needs no training and scored the same comparisons: a model should do better."
        )
    return "\n\n".join(parts)


def _branch(spec: ModelSpec, name: str) -> str:
    branch = spec.branches[name]
    backbones = ", ".join(dict.fromkeys(branch.backbone[modality].name for modality in spec.modalities))
    alignments = ", ".join(dict.fromkeys(branch.alignment[modality].name for modality in spec.modalities))
    fusion = f", {spec.fusion[name].name}" if name in spec.fusion else ""
    return f"{backbones} ({branch.features}), {alignments}{fusion}, {spec.geometry.fused[name]}"
