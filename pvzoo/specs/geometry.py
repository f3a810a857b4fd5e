"""Shapes and sizes of a model, worked out from its spec before anything is allocated."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import PvzooError
from ..plugins import host
from ..registry import Alignment, Backbone, Entry, Fusion, Head
from ..shapes import BackboneShape, Shape
from .fields import Faults, Path, Ref

if TYPE_CHECKING:
    from .model import ModelSpec

T = TypeVar("T")
DEFAULT_MEMORY_LIMIT = "16GiB"
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Geometry:
    """Shapes of one sample on its way through a model.

    Attributes:
        backbones: By branch and modality.
        aligned: After alignment, by branch and modality.
        fused: After fusion, by branch.
        embedding: Width of the embedding.
    """

    backbones: dict[str, dict[str, BackboneShape]]
    aligned: dict[str, dict[str, Shape]]
    fused: dict[str, Shape]
    embedding: int


def measure(spec: ModelSpec) -> tuple[Geometry | None, Faults]:
    """Follows the shapes from image to embedding; returns them, or every place where they do not fit."""
    faults: Faults = []
    backbones: dict[str, dict[str, BackboneShape]] = {}
    aligned: dict[str, dict[str, Shape]] = {}
    fused: dict[str, Shape] = {}
    for name in spec.branches:
        backbones[name], aligned[name] = {}, {}
        for modality in spec.modalities:
            shape = _backbone(spec, name, modality, faults)
            if shape is None:
                continue
            backbones[name][modality] = shape
            out = _align(spec, name, modality, shape, faults)
            if out is not None:
                aligned[name][modality] = out
        if len(aligned[name]) == len(spec.modalities):
            joined = _fuse(spec, name, aligned[name], backbones[name], faults)
            if joined is not None:
                fused[name] = joined
    if faults:
        return None, _unique(faults)
    return Geometry(backbones, aligned, fused, sum(shape.dim for shape in fused.values())), []


def _backbone(spec: ModelSpec, name: str, modality: str, faults: Faults) -> BackboneShape | None:
    ref = spec.branches[name].backbone[modality]
    entry = spec.entry(ref)
    assert isinstance(entry, Backbone)
    image = spec.preprocessing
    path = "branches", name, "backbone"
    shape = _ask(BackboneShape, entry, faults, path, entry.shape_of, ref.params, image.channels, image.size)
    if shape is None:
        return None
    if shape.features(spec.branches[name].features) is None:
        faults.append((("branches", name, "features"), f"{ref.name} has no map; use features: vector"))
        return None
    return shape


def _align(spec: ModelSpec, name: str, modality: str, backbone: BackboneShape, faults: Faults) -> Shape | None:
    branch = spec.branches[name]
    ref = branch.alignment[modality]
    entry = spec.entry(ref)
    assert isinstance(entry, Alignment)
    shape = backbone.features(branch.features)
    assert shape is not None
    if shape.kind not in entry.accepts:
        others = _accepting("alignment", shape.kind)
        message = f"{ref.name} does not take a {shape.kind} ({modality} is {shape}); {others}"
        faults.append((("branches", name, "alignment"), message))
        return None
    return _ask(Shape, entry, faults, ("branches", name, "alignment"), entry.out, ref.params, shape)


def _fuse(
    spec: ModelSpec, name: str, shapes: dict[str, Shape], backbones: dict[str, BackboneShape], faults: Faults
) -> Shape | None:
    first, *rest = shapes.values()
    ref = spec.fusion.get(name)
    if any(shape != first for shape in rest):
        what = " with ".join(
            f"{modality} {shape} ({spec.branches[name].backbone[modality].name})" for modality, shape in shapes.items()
        )
        faults.append((("fusion", name), f"joins {what}; {_repair(spec, name, shapes, backbones)}"))
        return None
    if ref is None:
        return first
    entry = spec.entry(ref)
    assert isinstance(entry, Fusion)
    if first.kind not in entry.accepts:
        message = f"{ref.name} does not take a {first.kind}; {_accepting('fusion', first.kind)}"
        faults.append((("fusion", name), message))
        return None
    dims = [shape.dim for shape in shapes.values()]
    return _ask(Shape, entry, faults, ("fusion", name), lambda: Shape(entry.out_dim(ref.params, dims), first.grid))


def _ask(
    answer: type[T], entry: Entry, faults: Faults, path: Path, question: Callable[..., T], *about: Any
) -> T | None:
    """Asks a component what it gives; ``ValueError`` is its way to refuse, anything else is its own fault."""
    try:
        given = question(*about)
        if not isinstance(given, answer):
            raise TypeError(f"{given!r} is no {answer.__name__}")
        return given
    except ValueError as error:
        faults.append((path, f"{entry.name}: {error}"))
    except (Exception, SystemExit) as error:
        faults.append((path, f"{entry.label} could not tell its shape: {type(error).__name__}: {error}"))
    return None


def _repair(spec: ModelSpec, name: str, shapes: dict[str, Shape], backbones: dict[str, BackboneShape]) -> str:
    """Proposes how to make shapes equal."""
    if len({shape.grid for shape in shapes.values()}) == 1:
        return f"align all to one dim, for example branches.{name}.alignment: {{name: linear, params: {{dim: 256}}}}"
    advice = []
    levels = [{level.stride: level.dim for level in shape.levels} for shape in backbones.values()]
    common = sorted(set.intersection(*(set(level) for level in levels)), reverse=True) if all(levels) else []
    for stride in common:
        dims = ", ".join(
            f"{modality} {level[stride]} channels" for modality, level in zip(backbones, levels, strict=True)
        )
        advice.append(f"stride {stride} ({dims})")
    grid = max((shape.grid for shape in shapes.values() if shape.grid), key=prod)
    resample = f"resample with alignment params grid: [{grid[0]}, {grid[1]}]"
    if not advice:
        return resample
    return f"both have levels at {' and '.join(advice)}: set params.stride of the backbones, or {resample}"


def _accepting(kind: str, features: str) -> str:
    names = [entry.name for entry in host().builtins(kind) if features in getattr(entry, "accepts", ())]
    return f"those that do: {', '.join(names)}"


def _unique(faults: Faults) -> Faults:
    return list(dict.fromkeys(faults))


def check_memory(spec: ModelSpec) -> Faults:
    """Refuses a model whose known parts alone need more than the limit; nothing was allocated yet."""
    faults: Faults = []
    sizes = _sizes(spec, faults)
    if faults:
        return faults
    limit = memory_limit()
    needed = 4 * sizes.total()
    if needed <= limit:
        return []
    ((path, largest),) = sizes.most_common(1)
    message = f"needs at least {_human(4 * largest)}, and the model {_human(needed)}; the limit is {_human(limit)}"
    return [(path, f"{message} (environment variable PVZOO_MEMORY_LIMIT, for example 64GiB)")]


def _sizes(spec: ModelSpec, faults: Faults) -> Counter[Path]:
    """Lower bounds, in numbers, of what a model holds for one sample: weights, images, and features that meet."""
    geometry, image, count = spec.geometry, spec.preprocessing, len(spec.modalities)
    sizes: Counter[Path] = Counter({("preprocessing", "size"): count * image.channels * prod(image.size)})

    def add(path: Path, ref: Ref, *about: Any) -> None:
        entry = spec.entry(ref)
        assert isinstance(entry, Backbone | Alignment | Fusion | Head)
        sizes[path] += _ask(int, entry, faults, path, entry.parameters, ref.params, *about) or 0

    for name, branch in spec.branches.items():
        for modality in spec.modalities[:1] if spec.share_branches else spec.modalities:
            add(("branches", name, "backbone"), branch.backbone[modality], image.channels, image.size)
        for modality in spec.modalities:
            shape = geometry.backbones[name][modality].features(branch.features)
            add(("branches", name, "alignment"), branch.alignment[modality], shape)
            sizes["branches", name, "alignment"] += _values(geometry.aligned[name][modality])
    for name, ref in spec.fusion.items():
        add(("fusion", name), ref, count, next(iter(geometry.aligned[name].values())).dim)
        sizes["fusion", name] += _values(geometry.fused[name])
    add(("head",), spec.head, geometry.embedding, spec.num_classes or 0)
    return sizes


def _values(shape: Shape) -> int:
    return shape.dim * prod(shape.grid or (1,))


def memory_limit() -> int:
    """The limit in bytes, from ``PVZOO_MEMORY_LIMIT`` (``"64GiB"``, ``"500M"``) or the default.

    Raises:
        PvzooError: If the variable cannot be read as a size.
    """
    text = os.environ.get("PVZOO_MEMORY_LIMIT") or DEFAULT_MEMORY_LIMIT
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise PvzooError(f"PVZOO_MEMORY_LIMIT is {text!r}; write a size such as '64GiB'")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _human(size: float) -> str:
    unit = "bytes"
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024 or unit == "PiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
