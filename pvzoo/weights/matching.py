"""Which tensors of a file go where in a model: everything is compared before anything is read or changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import WeightsError
from ..specs import ModelSpec, Source, load_spec
from ..tensorfile import Header
from ..threshold import Threshold
from .tensors import attribute


@dataclass(frozen=True)
class LoadReport:
    """What a load did, by tensor name. Every tensor of the model is in ``loaded`` or ``initialised``.

    Attributes:
        source: The file or files.
        loaded: Taken from the file.
        adapted: Those of ``loaded`` whose floating-point type was converted.
        initialised: Not taken from the file, but random: the class matrix when the head or ``num_classes`` changed.
        skipped: In the file and not used.
        untrained: Whether the file says that its weights were never trained.
        thresholds: Those that the file carries.
    """

    source: str
    loaded: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    initialised: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    untrained: bool = False
    thresholds: tuple[Threshold, ...] = ()

    def __str__(self) -> str:
        counts = ", ".join(
            f"{len(getattr(self, name))} {name}" for name in ("loaded", "adapted", "initialised", "skipped")
        )
        return f"{self.source}: {counts}"


@dataclass
class Plan:
    """Which tensors of a file go where."""

    take: list[str] = field(default_factory=list)
    initialised: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def match(own: Mapping[str, Tensor], header: Header, spec: ModelSpec, initialise: Collection[str] = ()) -> Plan:
    """Compares names, shapes and types of model and file; nothing is read, nothing is changed.

    Args:
        own: The model's tensors.
        header: The file.
        spec: Of the model.
        initialise: Parts whose tensors are not taken from the file.

    Raises:
        WeightsError: Listing what is missing, unexpected, and of another shape or type.
    """
    plan = Plan()
    allowed = tuple(f"{part}." for part in initialise)
    faults: list[str] = []
    for name, tensor in own.items():
        if allowed and name.startswith(allowed):
            plan.initialised.append(name)
        elif name not in header.tensors:
            faults.append(f"missing {name} {tuple(tensor.shape)}")
        else:
            dtype, shape = header.tensors[name]
            if shape != tuple(tensor.shape):
                faults.append(f"{name} is {shape} in the file and {tuple(tensor.shape)} in the model")
            elif dtype != tensor.dtype and not (dtype.is_floating_point and tensor.is_floating_point()):
                faults.append(f"{name} is {dtype} in the file and {tensor.dtype} in the model")
            plan.take.append(name)
    for name, (_, shape) in header.tensors.items():
        if name not in own or name in plan.initialised:
            if allowed and name.startswith(allowed):
                plan.skipped.append(name)
            else:
                faults.append(f"unexpected {name} {shape}")
    if faults:
        shown = "".join(f"\n  {fault}" for fault in faults[:8])
        more = f"\n  and {len(faults) - 8} more" if len(faults) > 8 else ""
        total = f"{len(header.tensors)} tensors in the file, {len(own)} in the model"
        why = _other_images(spec, header)
        raise WeightsError(f"{header.path}: not the weights of this model ({total}){why}:{shown}{more}")
    return plan


def _other_images(spec: ModelSpec, header: Header) -> str:
    """What often explains tensors of other shapes: position biases and first layers depend on the images."""
    if header.about.spec is None:
        return ""
    theirs, own = (
        " x ".join(map(str, (image.channels, *image.size)))
        for image in (saved_spec(header).preprocessing, spec.preprocessing)
    )
    return "" if theirs == own else f", which were trained on images of {theirs}, and the model takes {own}"


def report_of(header: Header, plan: Plan, target: torch.dtype | None) -> LoadReport:
    adapted = tuple(
        name
        for name in plan.take
        if target is not None and header.tensors[name][0].is_floating_point and header.tensors[name][0] != target
    )
    return LoadReport(
        str(header.path),
        tuple(plan.take),
        adapted,
        tuple(plan.initialised),
        tuple(plan.skipped),
        header.about.untrained,
        header.about.thresholds,
    )


SCORING = ("preprocessing", "modalities", "branches", "share_branches", "fusion", "embedding")
"""The fields of a spec on which embeddings depend."""

COMPUTED = (*SCORING, "head", "num_classes")
"""And those on which logits do."""


def differing(spec: ModelSpec, header: Header, fields: Sequence[str], *, any_size: bool = False) -> list[str]:
    """Those of the fields in which a model differs from the one that was saved."""
    if header.about.spec is None:
        return []
    saved = saved_spec(header).model_dump(mode="json", include=set(fields))
    own = spec.model_dump(mode="json", include=set(fields))
    if any_size:
        saved["preprocessing"]["size"] = own["preprocessing"]["size"]
    return [field for field in fields if saved[field] != own[field]]


def compare_specs(spec: ModelSpec, header: Header, fields: Sequence[str], *, any_size: bool = False) -> None:
    """Refuses weights that were made for another computation, although the tensors may fit.

    Raises:
        WeightsError: Naming the fields of the file's spec that differ.
    """
    if found := differing(spec, header, fields, any_size=any_size):
        message = f"{header.path}: was saved from a model with other {', '.join(found)}"
        raise WeightsError(f"{message}; nothing was loaded ('pvzoo resolve' shows a model's spec)")


def compare_backbones(spec: ModelSpec, header: Header, branches: Sequence[str]) -> None:
    """Refuses branches of another network, although the tensors may fit: two of timm may differ in padding alone.

    Args:
        spec: Of the model to fill.
        header: Of the file.
        branches: By the names in tensors, ``palm.local``, as the model has them.

    Raises:
        WeightsError: Naming a branch that differs, and how.
    """
    if header.about.spec is None:
        return
    saved = saved_spec(header)
    alone = len(spec.modalities) == len(saved.modalities) == 1  # the only modality stands for the other's
    own, theirs = _backbones(spec, spec.modalities), _backbones(saved, (spec if alone else saved).modalities)
    for branch in branches:
        if own[branch] != theirs[branch]:
            message = f"{header.path}: branch {branch} is {theirs[branch]} in the file and {own[branch]} in the model"
            raise WeightsError(f"{message}; nothing was loaded")


def _backbones(spec: ModelSpec, modalities: Sequence[str]) -> dict[str, str]:
    """The networks of branches, with the parameters that decide what they compute."""
    found = {}
    for name, branch in spec.branches.items():
        for modality, called in zip(spec.modalities, modalities, strict=True):
            ref = branch.backbone[modality]
            params = ref.params.model_dump(mode="json", exclude={"drop_path_rate"}, exclude_none=True)
            shown = ", ".join(f"{key}={value}" for key, value in sorted(params.items()))
            network = f"{ref.name}@{ref.revision}"
            found[f"{attribute(called)}.{attribute(name)}"] = f"{network} ({shown})" if shown else network
    return found


def saved_spec(header: Header) -> ModelSpec:
    """The spec in a file that has one."""
    assert header.about.spec is not None
    return load_spec(Source(str(header.path), header.about.spec))
