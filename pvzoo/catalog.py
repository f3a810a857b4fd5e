"""What there is, by name: models, components, specs (no torch)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from .errors import PvzooError, SpecError, UnknownNameError, did_you_mean
from .manifest import Weights
from .plugins import host
from .registry import BUILTIN, ENTRY_TYPES, WeightSource, ZooModel
from .specs import ModelSpec, Source, load_spec

Patterns = str | Iterable[str] | None
ModelKind = Literal["unimodal", "multimodal"]


def list_models(
    pattern: Patterns = None,
    *,
    exclude: Patterns = None,
    pretrained: bool = False,
    kind: ModelKind | None = None,
) -> list[str]:
    """Lists model names, those of installed plugins included.

    Args:
        pattern: Wildcards such as ``"stage2_*"``, one or several; all if left out.
        exclude: Wildcards to leave out.
        pretrained: List ``name.tag`` for models that have pretrained weights, instead of names.
        kind: ``"unimodal"`` or ``"multimodal"``.

    Returns:
        Names in natural order: ``m2`` before ``m10``.
    """
    if kind not in (None, "unimodal", "multimodal"):
        raise PvzooError(f"kind must be 'unimodal' or 'multimodal', not {kind!r}")
    names = [entry.name for entry in host().entries("model")]
    if kind is not None:
        names = [name for name in names if _kind(name) == kind]
    if pretrained:
        names = [tag for tag in _provided() if split_tag(tag)[0] in names]
    wanted, unwanted = _patterns(pattern), _patterns(exclude)
    return sorted(
        (name for name in names if (not wanted or _matches(name, wanted)) and not _matches(name, unwanted)),
        key=natural,
    )


def list_components(kind: str) -> list[str]:
    """Lists the registered names of one kind: ``"backbone"``, ``"alignment"``, ``"fusion"``, ``"head"``, ...

    Raises:
        UnknownNameError: If there is no such kind.
    """
    singular = kind.removesuffix("s")
    if singular not in ENTRY_TYPES:
        message = f"there is no kind {kind!r}{did_you_mean(singular, ENTRY_TYPES)}; kinds are {', '.join(ENTRY_TYPES)}"
        raise UnknownNameError(message, kind="kind", name=kind)
    return sorted((entry.name for entry in host().entries(singular)), key=natural)


def spec(name: str, /, **overrides: Any) -> ModelSpec:
    """Returns the checked spec of a zoo model.

    Args:
        name: Name in the zoo; a weights tag after a dot is allowed.
        **overrides: Fields by dotted path, ``**{"fusion.local": "concat"}``.

    Raises:
        UnknownNameError: If there is no such model or tag; with a suggestion.
        SpecError: If the overrides do not fit.
    """
    return load_spec(source(name), overrides)


def source(name: str) -> Source:
    """The unchecked source of a zoo model's spec, with its line numbers."""
    entry = find_model(name)
    _check_tag(name)
    if isinstance(entry.spec, Mapping):
        found = Source(entry.name, dict(entry.spec))
    else:
        label = str(entry.spec) if isinstance(entry.spec, Path) else f"{entry.name}.yaml"
        found = Source.from_file(entry.spec, label)
    if isinstance(found.data, dict):
        found.data = {**found.data, "name": entry.name}
    return found


def summary(name: str) -> str:
    """One line about a zoo model; of a spec that cannot be read, why."""
    entry = find_model(name)
    if entry.summary:
        return entry.summary
    try:
        data = source(name).data
    except SpecError as error:
        return str(error)
    return str(data.get("summary", "")) if isinstance(data, dict) else ""


def find_model(name: str) -> ZooModel:
    """The registry's entry of a model.

    Raises:
        UnknownNameError: With a suggestion.
    """
    entry = host().find("model", split_tag(name)[0])
    assert isinstance(entry, ZooModel)
    return entry


def split_tag(name: str) -> tuple[str, str | None]:
    """``"stage2_spatial.v1"`` -> ``("stage2_spatial", "v1")``."""
    model, _, tag = name.partition(".")
    return model, tag or None


def weight_sources(*, own_first: bool = False) -> list[WeightSource]:
    """Sources of weights in the order in which they are asked: installed packages, then pvzoo's own, the Hub."""
    sources = [entry for entry in host().entries("weight_source") if isinstance(entry, WeightSource)]
    return sorted(sources, key=lambda source: (source.origin.vendor == BUILTIN) != own_first)


def pinned(*, own: bool = False) -> dict[str, Weights]:
    """What the manifests say, by ``"model.tag"``; pvzoo's own counts before those of packages.

    Args:
        own: Of pvzoo's own alone.
    """
    found: dict[str, Weights] = {}
    for source in weight_sources(own_first=True):
        if not own or source.origin.vendor == BUILTIN:
            found = {**source.pinned, **found}
    return found


def weights(name: str) -> Weights | None:
    """What the manifests say of ``"model.tag"``; ``None`` if none does."""
    return pinned().get(name)


def tags(model: str) -> list[str]:
    """The weights tags of a model; the first is its default, which a package cannot change once pvzoo has one."""
    return [tag for name, tag in map(split_tag, _provided()) if name == model and tag]


def _provided() -> list[str]:
    sources = weight_sources(own_first=True)
    return list(dict.fromkeys(name for source in sources for name in source.provides))


def _check_tag(name: str) -> None:
    """A tag that does not exist is an error even where no weights are asked for."""
    model, dot, tag = name.partition(".")
    if not dot:
        return
    known = tags(model)
    if tag not in known:
        hint = did_you_mean(tag, known) or f"; it has {', '.join(known) or 'none yet'}"
        raise UnknownNameError(f"{model} has no weights tagged {tag!r}{hint}", kind="tag", name=name)


def natural(name: str) -> list[tuple[int, str | int]]:
    """Sort key that puts ``m2`` before ``m10``."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part]


def _kind(name: str) -> str | None:
    """``None`` for a spec that cannot be read."""
    try:
        data = source(name).data
    except SpecError:
        return None
    modalities = data.get("modalities", ["palm", "vein"]) if isinstance(data, dict) else None
    if not isinstance(modalities, list | tuple):
        return None
    return "unimodal" if len(modalities) == 1 else "multimodal"


def _patterns(patterns: Patterns) -> list[str]:
    if patterns is None:
        return []
    return [patterns] if isinstance(patterns, str) else list(patterns)


def _matches(name: str, patterns: list[str]) -> bool:
    # A pattern without a tag also matches tagged names.
    return any(fnmatchcase(name, pattern) or fnmatchcase(split_tag(name)[0], pattern) for pattern in patterns)
