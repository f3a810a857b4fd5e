"""A model's or component's facts as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic_core import PydanticUndefined

from ..errors import file_size
from ..manifest import Weights
from ..registry import Component
from ..specs import ModelSpec


def component_rows(entry: Component) -> Iterator[tuple[str, str, str, str]]:
    """Parameter, type with its bounds, default, meaning."""
    for name, field in entry.params.model_fields.items():
        default = "required" if field.default is PydanticUndefined else str(field.default)
        kind = getattr(field.annotation, "__name__", str(field.annotation)) if field.annotation else ""
        if "[" in str(field.annotation) or "|" in str(field.annotation):
            kind = str(field.annotation).replace("typing.", "")
        bounds = ", ".join(str(bound) for bound in field.metadata if "(" in str(bound))
        yield name, f"{kind} {bounds}".strip(), default, field.description or ""
    traits = {trait: getattr(entry, trait) for trait in ("accepts", "missing") if hasattr(entry, trait)}
    if "accepts" in traits:
        yield "", "", "", f"takes {' or '.join(sorted(traits['accepts']))}"
    if "missing" in traits:
        yield "", "", "", f"a missing modality: {_MISSING[traits['missing']]}"


_MISSING = {
    "reweight": "the others get its weight",
    "ignore": "the others are combined",
    "refuse": "is an error",
}


def model_rows(spec: ModelSpec) -> Iterator[tuple[str, str, str]]:
    """Part, what it is, the shape that it gives for one sample."""
    image = spec.preprocessing
    height, width = image.size
    yield "images", " and ".join(spec.modalities), f"{image.channels}x{height}x{width}"
    for name, branch in spec.branches.items():
        for modality in spec.modalities:
            shape = spec.geometry.backbones[name][modality].features(branch.features)
            shared = " (shared weights)" if spec.share_branches and modality != spec.modalities[0] else ""
            yield f"{name} {modality}", branch.backbone[modality].name + shared, f"{branch.features} {shape}"
            yield "", branch.alignment[modality].name, str(spec.geometry.aligned[name][modality])
        if name in spec.fusion:
            yield f"{name} fusion", spec.fusion[name].name, str(spec.geometry.fused[name])
    yield "embedding", "unit length" if spec.embedding.normalize else "", str(spec.geometry.embedding)
    yield "head", spec.head.name, f"{spec.num_classes} classes" if spec.num_classes else ""


def weights_rows(weights: Weights) -> Iterator[tuple[str, str]]:
    """What the manifest says of weights."""
    yield "licence", weights.licence
    yield "size", f"{file_size(weights.size)}, {weights.dtype}, {len(weights.files)} files"
    yield "cost", f"{weights.parameters:,} parameters, {weights.macs / 1e9:.3g} GMACs"
    for data in weights.data:
        yield "trained on", f"{data.name} ({'synthetic' if data.origin == 'synthetic' else data.consent})"
    if weights.recipe:
        yield "recipe", weights.recipe.name
    for where, figures in weights.results().items():
        yield "measured on", where
        for matcher, metric in figures:
            about = f", by {matcher} without training" if matcher else ""
            spread = f" [{metric.spread}]" if metric.spread else ""
            yield "", f"{metric.title} {metric.value:.4g}{spread}{about}"
    for threshold in weights.thresholds:
        yield "threshold", str(threshold)
    yield "intended use", weights.intended_use
    if weights.limits:
        yield "limits", weights.limits
    yield "repository", f"{weights.repo} at {weights.revision}"
    yield "needs", f"pvzoo {weights.pvzoo}"
