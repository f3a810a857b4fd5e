"""A model's or component's facts as rows of a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import chain
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from .. import catalog
from ..errors import file_size
from ..manifest import CONFIG, Weights
from ..registry import BUILTIN, Component
from ..specs import ModelSpec


def component_rows(entry: Component) -> Iterator[tuple[str, str, str, str]]:
    """Parameter, type with its bounds, default, meaning."""
    for name, field in entry.params.model_fields.items():
        default = "required" if field.default is PydanticUndefined else str(field.default)
        yield name, _kind(field.annotation, field.metadata), default, field.description or ""
    traits = {trait: getattr(entry, trait) for trait in ("accepts", "missing") if hasattr(entry, trait)}
    if "accepts" in traits:
        yield "", "", "", f"takes {' or '.join(sorted(traits['accepts']))}"
    if "missing" in traits:
        yield "", "", "", f"a missing modality: {_MISSING[traits['missing']]}"


def _kind(annotation: Any, metadata: Iterable[object] = ()) -> str:
    """A type with its bounds, as people write them: ``"float (> 0, <= 1)"``."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        found = (each.metadata if isinstance(each, FieldInfo) else [each] for each in inner[1:])
        return _kind(inner[0], chain.from_iterable(found))
    if origin is Literal:
        kind = " | ".join(map(str, inner))
    elif origin in (Union, UnionType):
        kind = " | ".join(map(_kind, inner))
    elif annotation is NoneType or annotation is Ellipsis:
        kind = "None" if annotation is NoneType else "..."
    else:
        kind = getattr(origin or annotation, "__name__", str(annotation))
        kind += f"[{', '.join(map(_kind, inner))}]" if inner else ""
    bounds = (f"{sign} {getattr(each, name):.6g}" for each in metadata for name, sign in _BOUNDS if hasattr(each, name))
    bounded = ", ".join(bounds)
    return f"{kind} ({bounded})" if bounded else kind


_BOUNDS = (
    ("gt", ">"),
    ("ge", ">="),
    ("lt", "<"),
    ("le", "<="),
    ("min_length", "length >="),
    ("max_length", "length <="),
)
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


def weights_rows(name: str, weights: Weights) -> Iterator[tuple[str, str]]:
    """What the manifest says of weights, and where they are."""
    yield "on this machine", _place(name)
    if _headless(name, weights):
        yield "head", "none: it served the people of the training alone; embeddings are compared without one"
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
            # A matcher is named with the modality that it compares.
            title = metric.model_copy(update={"modalities": ()}).title if matcher else metric.title
            of = f"{matcher}, not trained: " if matcher else ""
            spread = f" [{metric.spread}]" if metric.spread else ""
            yield "", f"{of}{title} {metric.value:.4g}{spread}"
    for threshold in sorted(weights.thresholds, key=lambda each: -(each.target or 1)):
        yield (
            f"threshold {'of the EER' if threshold.target is None else f'for FMR {threshold.target:g}'}",
            str(threshold),
        )
    yield "intended use", weights.intended_use
    if weights.limits:
        yield "limits", weights.limits
    yield "repository", f"{weights.repo} at {weights.revision}"
    yield "needs", f"pvzoo {weights.pvzoo}"


def _place(name: str) -> str:
    """Of installed packages alone: to look into the cache of the Hub takes what this command does without."""
    for source in catalog.weight_sources():
        # A plugin may list weights that are on the Hub.
        if name in source.provides and source.origin.vendor != BUILTIN and source.build != _HUB:
            return f"in {source.origin.distribution or source.name}"
    return "in no installed package; 'pvzoo weights' lists what was fetched, 'pvzoo pull' fetches"


_HUB = "pvzoo.hub.sources:HubSource"


def _headless(name: str, weights: Weights) -> bool:
    """Whether the config that the manifest pins is the zoo's spec without its head; no file is needed to know."""
    spec = catalog.spec(name, head="none", num_classes=None).to_dict()
    text = json.dumps(spec, indent=2, ensure_ascii=False) + "\n"
    return sha256(text.encode()).hexdigest() == weights.files[CONFIG].sha256
