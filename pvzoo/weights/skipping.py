"""What building a model for loading need not do: initialise what is loaded afterwards, and look for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode


class skip_init(TorchFunctionMode):  # noqa: N801  # used like a function: with skip_init():
    """Inside, initialisation of parameters does nothing, for parameters that are loaded afterwards.

    It is nearly all of the time that building ConvNeXt takes, and what is not written costs no memory yet. Buffers,
    also those that no file holds, are still computed as always.
    """

    # The steps of initialisers, of timm's too: a truncated normal is drawn, scaled, moved and clamped in place.
    _STEPS = frozenset(
        ("uniform_", "normal_", "erfinv_", "exponential_", "log_normal_", "cauchy_", "mul_", "add_", "clamp_")
    )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or getattr(func, "__name__", "") in self._STEPS:
            target = args[0] if args else kwargs.get("tensor")
            if isinstance(target, nn.Parameter):
                return target
        return func(*args, **kwargs)


@contextmanager
def no_collection() -> Iterator[None]:
    """Inside, Python does not look for garbage: building and loading make none.

    In a process with torch, a full collection takes as long as loading a model, and would come once or twice in it.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
