"""One page a kind of component, from the registry: parameters with type, range, default and meaning; what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from pvzoo import catalog
from pvzoo.diagram import diagram
from pvzoo.plugins import host
from pvzoo.registry import Component, Fusion, Params
from pvzoo.specs import load_spec

from .markdown import Pages, code, prose, table

KINDS = {
    "backbone": ("Backbones", "From the image of one modality to a vector, or to a map that keeps position."),
    "alignment": ("Alignments", "From the features of one modality into the space where modalities meet."),
    "fusion": ("Fusions", "They join the vectors or maps of all modalities into one."),
    "head": ("Heads", "From the embedding to logits over the identities of the training; palms are compared without."),
    "dataset": ("Layouts", "Which image of a data set belongs to whom. [Data](../data.md) has the sets themselves."),
    "weight_source": ("Weight sources", "Places where pretrained weights are found."),
}
MISSING = {
    "reweight": "the others get its weight",
    "ignore": "the others are combined",
    "refuse": "an error: it needs all modalities",
}
NEEDED = {"timm": {"arch": "resnet18"}}  # what a picture gives a component that has no defaults
KEYS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def pages() -> Pages:
    rows = []
    for kind, (title, text) in KINDS.items():
        entries = [entry for entry in host().builtins(kind) if isinstance(entry, Component)]
        entries.sort(key=lambda entry: catalog.natural(entry.name))
        if not entries:
            continue
        rows.append((f"[{title}]({kind}s.md)", ", ".join(code(entry.name) for entry in entries)))
        sources = dict.fromkeys(prose(_module(entry).__doc__) for entry in entries)
        parts = [f"# {title}", text, *map(_entry, entries), "## Sources", *sources]
        yield f"components/{kind}s.md", "\n\n".join(parts) + "\n"
    intro = "What there is, by kind. Components of [plugins](../plugins.md) are named `vendor/name`, and used alike."
    yield (
        "components/index.md",
        f"# Components\n\n{intro} `pvzoo show NAME` says the same as these pages.\n\n{table(['kind', 'names'], rows)}",
    )


def _entry(entry: Component) -> str:
    parts = [f"## {entry.name}", f"{entry.summary}."]
    parts.append(prose(_docstring(entry)))
    traits = []
    if accepts := getattr(entry, "accepts", None):
        traits.append(f"takes {' or '.join(f'{kind}s' for kind in sorted(accepts, reverse=True))}")
    if isinstance(entry, Fusion):
        traits.append(f"without a modality: {MISSING[entry.missing]}")
    if traits:
        parts.append("; ".join(traits)[0].upper() + "; ".join(traits)[1:] + ".")
    parts.append(parameters(entry.params))
    parts.append(_picture(entry))
    return "\n\n".join(part for part in parts if part) + "\n"


def _module(entry: Component) -> ModuleType:
    assert isinstance(entry.build, str)
    return import_module(entry.build.partition(":")[0])


def _docstring(entry: Component) -> str:
    """What stands at the code that builds it; the same text as the summary says nothing new."""
    builder = entry.builder()
    text = getattr(builder, "__doc__", None) or ""
    if text.startswith("partial(") or not text:
        return ""
    return "" if text.strip().rstrip(".") == entry.summary.rstrip(".") else text


def parameters(params: type[Params]) -> str:
    """A table of the fields of a component's Params."""
    schema = params.model_json_schema()
    rows = []
    for name, field in schema.get("properties", {}).items():
        kind, limits = describe(field, schema)
        default = "required" if name in schema.get("required", ()) else code(_yaml(field.get("default")))
        rows.append((code(name), kind, limits, default, field.get("description", "")))
    return table(["parameter", "type", "range", "default", "meaning"], rows) if rows else "It has no parameters."


def _yaml(value: Any) -> str:
    if isinstance(value, bool | None):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def describe(field: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[str, str]:
    """Type and range of a field, from its JSON Schema."""
    if "$ref" in field:
        return describe(schema["$defs"][field["$ref"].rsplit("/", 1)[-1]], schema)
    if "allOf" in field:
        return describe(field["allOf"][0], schema)
    if "anyOf" in field:
        options = [describe(option, schema) for option in field["anyOf"]]
        kinds, ranges = (dict.fromkeys(filter(None, column)) for column in zip(*options, strict=True))
        return " or ".join(kinds), ", ".join(ranges)
    if "enum" in field or "const" in field:
        return "text", ", ".join(code(value) for value in field.get("enum", [field.get("const")]))
    limits = " and ".join(f"{sign} {field[key]:.4g}" for key, sign in KEYS.items() if key in field)
    if "pattern" in field:
        limits = code(field["pattern"])
    kind = field.get("type", "any")
    if kind == "array":
        items = field.get("prefixItems") or [field.get("items", {})]
        inner, each = describe(items[0], schema)
        count = f"{len(items)} " if "prefixItems" in field else ""
        return f"list of {count}{inner}", f"each {each}" if each else ""
    return {"integer": "integer", "null": "null", "string": "text", "object": "mapping"}.get(kind, kind), limits


def _picture(entry: Component) -> str:
    """A small model around a component; none around one that is no part of a network."""
    accepts = getattr(entry, "accepts", {"vector"})
    features = "map" if "map" in accepts or entry.kind == "backbone" else "vector"
    branch: dict[str, Any] = {"backbone": "convnext_atto", "features": features}
    spec: dict[str, Any] = {"name": f"a model with {entry.name}", "branches": {"local": branch}}
    if entry.kind in ("alignment", "fusion"):
        branch["alignment"] = entry.name if entry.kind == "alignment" else {"map": "conv1x1"}.get(features, "linear")
        spec["fusion"] = {"local": entry.name if entry.kind == "fusion" else "sum"}
    elif entry.kind == "backbone":
        spec["modalities"] = ["palm"]
        branch["backbone"] = {"name": entry.name, "params": NEEDED.get(entry.name, {})}
    elif entry.kind == "head":
        spec |= {
            "modalities": ["palm"],
            "head": entry.name,
            "num_classes": 100 if getattr(entry, "classes", 0) else None,
        }
    else:
        return ""
    return figure(diagram(load_spec(spec)))


def figure(svg: str) -> str:
    """A drawing in a page; an HTML block ends at the first empty line, and drawings have none."""
    return f'<div class="diagram" tabindex="0">\n{svg}</div>'
