"""The tensors that a model is made of: named, put in place, copied, and told apart from its first ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from keyword import iskeyword
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import WeightsError


def attribute(name: str) -> str:
    """What a part of a model is called in the names of its tensors: ``global_``, since ``global`` is Python's."""
    return f"{name}_" if iskeyword(name) else name


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model by name, tied ones once, under their first name."""
    own: dict[str, Tensor] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            raise WeightsError(f"{name} is extra state of a component, not a tensor; safetensors cannot hold it")
        if seen.setdefault(identity(tensor), name) == name:
            own[name] = tensor
    return own


def identity(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for tensors that are the same memory read in the same way."""
    if tensor.is_meta or not tensor.numel():
        return (id(tensor),)
    return (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)


def refuse_meta(model: nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta:
            message = f"{name} is on the meta device, and non-persistent buffers would stay there with wrong values"
            raise WeightsError(f"{message}; create the model on a real device to load weights")


def assign(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts tensors in the places of a model's own without a copy; tied parameters stay tied."""
    places: dict[str, list[tuple[nn.Module, str]]] = {}
    canonical: dict[tuple[Any, ...], str] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for store in (module._parameters, module._buffers):
            for key, tensor in store.items():
                name = f"{prefix}.{key}" if prefix else key
                if tensor is not None and key not in module._non_persistent_buffers_set:
                    places.setdefault(canonical.setdefault(identity(tensor), name), []).append((module, key))
    for name, tensor in tensors.items():
        value: Tensor | None = None
        for module, key in places[name]:
            old = module._parameters.get(key)
            if old is None:
                module._buffers[key] = tensor
            else:
                value = nn.Parameter(tensor, requires_grad=old.requires_grad) if value is None else value
                module._parameters[key] = value  # type: ignore[assignment]


@torch.no_grad()
def copy(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


def refresh(model: nn.Module) -> None:
    """Lets modules drop what they derived from old weights: those that keep such things do so in ``train``."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(model.training)
    for module, mode in modes:
        module.training = mode


def derived(model: nn.Module) -> dict[str, str]:
    """Digests of the buffers that no file holds: components compute them anew, and should get the same."""
    digests: dict[str, str] = {}
    for prefix, module in model.named_modules():
        for key in sorted(module._non_persistent_buffers_set):
            buffer = module._buffers.get(key)
            if buffer is not None:
                data = buffer.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
                digests[f"{prefix}.{key}"] = hashlib.sha256(data.tobytes()).hexdigest()[:16]
    return digests


def first_values(model: nn.Module) -> list[Tensor]:
    """One value of every parameter: enough to tell whether a model still has its first weights."""
    return [p.detach().flatten()[:1].cpu().clone() for p in model.parameters() if p.numel() and not p.is_meta]


def unchanged(model: nn.Module, values: Sequence[Tensor]) -> bool:
    """Whether a model has those values still, perhaps in another floating-point type."""
    now = first_values(model)
    return len(now) == len(values) and all(
        torch.equal(old.to(new.dtype), new) for old, new in zip(values, now, strict=True)
    )
