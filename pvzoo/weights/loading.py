"""Weights into models: a new one straight from a file, one that exists, or its branches from several files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import WeightsError
from ..specs import ModelSpec
from ..tensorfile import Header, read_tensors
from .folder import header_at
from .matching import (
    COMPUTED,
    SCORING,
    LoadReport,
    compare_backbones,
    compare_specs,
    differing,
    match,
    report_of,
)
from .skipping import no_collection
from .tensors import assign, copy, derived, own_tensors, refresh, refuse_meta

if TYPE_CHECKING:
    from ..model import Model


@no_collection()
def load_model(spec: ModelSpec, header: Header, build: Callable[..., Model], dtype: torch.dtype | None = None) -> Model:
    """Builds a model straight from a file: nothing is initialised that is loaded afterwards.

    Args:
        spec: What to build; the class matrix is new if it names another head or number of classes than the file.
        header: The file.
        build: ``Model``.
        dtype: Floating-point type; that of the model that was saved by default.

    Raises:
        WeightsError: If the file's tensors are not those of the model.
    """
    fresh = ["head"] if header.about.spec is not None and _head_changed(spec, header.about.spec) else []
    model = build(spec, init=fresh)
    plan = match(own_tensors(model), header, spec, initialise=fresh)
    target = dtype or (getattr(torch, header.about.dtype) if header.about.dtype else None)
    report = report_of(header, plan, target)
    if report.thresholds and differing(spec, header, SCORING):
        report = replace(report, thresholds=())  # they are of scores that this model does not give
    assign(model, read_tensors(header, plan.take, target))
    if target not in (None, torch.get_default_dtype()):
        model.to(target)  # the buffers that no file holds
    if header.about.spec == spec.to_dict() and (dtype is None or str(dtype) == f"torch.{header.about.dtype}"):
        _check_derived(model, header)
    model.set_load_report(report)
    return model


def load_into(model: Model, path: Path) -> LoadReport:
    """Copies a file's tensors into a model that exists; see ``Model.load_weights``."""
    header = header_at(path)
    own = own_tensors(model)
    refuse_meta(model)
    compare_specs(model.spec, header, COMPUTED)
    plan = match(own, header, model.spec)
    copy(own, read_tensors(header, plan.take))
    refresh(model)
    return report_of(header, plan, model.dtype)


def load_branches(model: Model, sources: Sequence[tuple[str, Header]], *, any_size: bool = False) -> LoadReport:
    """Fills all branches of a model from models that were saved apart, such as four stage-1 models.

    Only tensors under ``branches.`` are taken; alignment, fusion and head stay as they are. A model of one modality
    also takes the branches of one other modality: the lines of a palmprint are a better start for veins than noise.

    Args:
        model: The model to fill; untouched if anything is wrong.
        sources: Headers of their weights, each with what messages call it.
        any_size: Whether they may be of another image size, as what a training starts from may.

    Raises:
        WeightsError: If a branch is missing, comes twice, is not in the model, or is of another network.
    """
    refuse_meta(model)
    own = {name: tensor for name, tensor in own_tensors(model).items() if name.startswith("branches.")}
    owners: dict[str, str] = {}
    taken: list[tuple[Header, list[str]]] = []
    skipped: list[str] = []
    for source, found in sources:
        header = _in_modality(found, model.spec.modalities)
        names = [name for name in header.tensors if name.startswith("branches.")]
        branches = sorted({_branch(name) for name in names})
        if not branches:
            raise WeightsError(f"{source}: holds no branches; its tensors do not begin with 'branches.'")
        for branch in branches:
            if branch in owners:
                raise WeightsError(f"branch {branch} comes twice, from {owners[branch]} and {source}")
            if branch not in {_branch(name) for name in own}:
                has = ", ".join(sorted({_branch(name) for name in own}))
                raise WeightsError(f"{source}: branch {branch} is not in the model, which has {has}")
            owners[branch] = source
        compare_specs(model.spec, header, ("preprocessing",), any_size=any_size)
        compare_backbones(model.spec, header, branches)
        part = {name: tensor for name, tensor in own.items() if _branch(name) in branches}
        match(part, replace(header, tensors={name: header.tensors[name] for name in names}), model.spec)
        taken.append((header, names))
        skipped += [name for name in header.tensors if name not in names]
    absent = sorted({_branch(name) for name in own} - set(owners))
    if absent:
        raise WeightsError(f"no source holds branch {', '.join(absent)}; give one for every branch of the model")
    # Alignment, fusion and head stay as they are: random, unless the model was trained before.
    untrained = model.untrained
    for tensors in [read_tensors(header, part) for header, part in taken]:
        copy(own, tensors)
    refresh(model)
    untaken = tuple(name for name in own_tensors(model) if name not in own)
    loaded = tuple(name for _, part in taken for name in part)
    label = ", ".join(source for source, _ in sources)
    return LoadReport(label, loaded, initialised=untaken, skipped=tuple(skipped), untrained=untrained)


def _head_changed(spec: ModelSpec, saved: Mapping[str, Any]) -> bool:
    """Whether the class matrix cannot be that of the file. A new margin or scale leaves it as it is."""
    head = saved.get("head", "none")
    name = head.get("name") if isinstance(head, Mapping) else head
    return str(name).partition("@")[0] != spec.head.name or saved.get("num_classes") != spec.num_classes


def _in_modality(header: Header, modalities: Sequence[str]) -> Header:
    """The header with its branches under the model's modality, where both have one, and not the same."""
    theirs = {name.split(".")[1] for name in header.tensors if name.startswith("branches.")}
    if len(theirs) != 1 or len(modalities) != 1:
        return header
    old, new = f"branches.{theirs.pop()}.", f"branches.{modalities[0]}."
    names = {name: new + name.removeprefix(old) if name.startswith(old) else name for name in header.tensors}
    tensors = {names[name]: tensor for name, tensor in header.tensors.items()}
    return replace(header, tensors=tensors, places={names[name]: place for name, place in header.places.items()})


def _branch(name: str) -> str:
    """``branches.palm.local.net.stem`` -> ``palm.local``."""
    return ".".join(name.split(".")[1:3])


def _check_derived(model: nn.Module, header: Header) -> None:
    """Refuses a model whose non-persistent buffers are not those of the model that was saved."""
    for name, digest in derived(model).items():
        if header.about.derived.get(name, digest) != digest:
            message = f"{name} is not saved, and computing it anew gave other values than the saved model had"
            raise WeightsError(f"{header.path}: {message}; its component must make it a persistent buffer")
