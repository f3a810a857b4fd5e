"""Which parameters a recipe trains, in which groups, from which epoch on; the rest is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import PvzooError, did_you_mean
from ..model import Model
from ..weights import attribute
from .recipe import Group


class PlanError(PvzooError, ValueError):
    """A recipe's plan does not fit the model."""


@dataclass(frozen=True)
class Plan:
    """The groups of a recipe, applied to one model.

    Attributes:
        groups: As the recipe has them.
        members: The parameters of each group, by name.
        frozen: Names of the parameters of no group, and of those that nothing depends on.
    """

    groups: tuple[Group, ...]
    members: tuple[dict[str, nn.Parameter], ...]
    frozen: tuple[str, ...]

    def replace(self, name: str, parameter: nn.Parameter) -> None:
        """Trains another parameter in place of one that the plan trains; if it does not, neither is trained."""
        holding = [members for members in self.members if name in members]
        parameter.requires_grad_(bool(holding))
        for members in holding:
            members[name] = parameter

    def apply(self, model: Model, epoch: int) -> None:
        """Freezes and unfreezes for an epoch: gradients, and the modes of BatchNorm and dropout.

        A frozen BatchNorm does not move its statistics either; frozen branches give the same features every time.
        """
        active = [group.from_epoch <= epoch for group in self.groups]
        for members, on in zip(self.members, active, strict=True):
            for parameter in members.values():
                parameter.requires_grad_(on)
        for name in self.frozen:
            model.get_parameter(name).requires_grad_(False)
        for name, module in model.named_modules():
            owner = _owner(name, self.groups)
            module.training = owner is not None and active[owner]


def make_plan(model: Model, groups: Sequence[Group]) -> Plan:
    """Assigns every parameter to the group with the longest part that its name begins with.

    Raises:
        PlanError: If a part names nothing in the model, or nothing is trained.
    """
    names = [name for name, _ in model.named_parameters()]
    places = {".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)}
    for group in groups:
        for part in map(_path, group.parts):
            # A model need not have a neck, say; but what stands within a part has a name that can be misspelt.
            if "." in part and part not in places:
                hint = did_you_mean(part, places)
                raise PlanError(f"plan: nothing of model {model.spec.name or 'of this spec'} is named {part!r}{hint}")
    members: list[dict[str, nn.Parameter]] = [{} for _ in groups]
    frozen = []
    idle = _idle(model)
    for name, parameter in model.named_parameters():
        owner = _owner(name, groups)
        if owner is None or name == _BNNECK_BIAS or name in idle:
            frozen.append(name)
        else:
            members[owner][name] = parameter
    if not any(members):
        raise PlanError("plan: no parameter of the model is trained")
    return Plan(tuple(groups), tuple(members), tuple(frozen))


_BNNECK_BIAS = "neck.bias"  # held at zero


def _idle(model: Model) -> set[str]:
    """Names of the parameters that the embedding does not depend on.

    Components may hold some: ConvNeXt's last norm acts on vectors alone, and a model that fuses maps keeps it. They
    never get a gradient, for which several processes would wait. So they are found by asking for gradients.
    """
    named = {n: p for n, p in model.named_parameters() if p.requires_grad and not n.startswith("head.")}
    modes = [(module, module.training) for module in model.modules()]
    image = model.spec.preprocessing
    try:
        blank = torch.zeros(1, image.channels, *image.size, device=model.device, dtype=model.dtype)
        joined = model.eval().join(model.features(**dict.fromkeys(model.spec.modalities, blank)))
        if not joined.requires_grad:
            return set(named)
        gradients = torch.autograd.grad(joined.sum(), list(named.values()), allow_unused=True)
    finally:
        for module, mode in modes:
            module.training = mode
    return {name for name, gradient in zip(named, gradients, strict=True) if gradient is None}


def _owner(name: str, groups: Sequence[Group]) -> int | None:
    """The group with the longest part that a name begins with."""
    lengths = {
        len(part): number
        for number, group in enumerate(groups)
        for part in map(_path, group.parts)
        if f"{name}.".startswith(f"{part}.")
    }
    return lengths[max(lengths)] if lengths else None


def _path(part: str) -> str:
    """``branches.palm.global`` as it is in names of tensors."""
    return ".".join(map(attribute, part.split(".")))
