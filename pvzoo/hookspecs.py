"""The hooks that a plugin may implement. Each receives ``register``, bound to the plugin and the kind.

A hook module must not import torch: it names its builders as ``"package.module:attribute"``.
"""

from __future__ import annotations

from typing import Any, Protocol

from pluggy import HookimplMarker, HookspecMarker

hookspec = HookspecMarker("pvzoo")
hookimpl = HookimplMarker("pvzoo")


class Register(Protocol):
    """What a hook receives: registers one entry of the hook's kind; the traits are the fields of that kind's class
    in :mod:`pvzoo.registry`.
    """

    def __call__(self, name: str, /, **traits: Any) -> None: ...


@hookspec
def register_backbones(register: Register) -> None:
    """Register feature extractors: ``register(name, *, build, shape, params=NoParams, summary="", revision=1)``."""


@hookspec
def register_alignments(register: Register) -> None:
    """Register projections into a common space: ``register(name, *, build, accepts, out, parameters, ...)``."""


@hookspec
def register_fusions(register: Register) -> None:
    """Register modules that join modalities: ``register(name, *, build, accepts, out_dim, missing, ...)``."""


@hookspec
def register_heads(register: Register) -> None:
    """Register classification heads: ``register(name, *, build, classes=True, parameters, ...)``."""


@hookspec
def register_weight_sources(register: Register) -> None:
    """Register places that hold pretrained weights: ``register(name, *, build, manifest or provides, ...)``."""


@hookspec
def register_datasets(register: Register) -> None:
    """Register data set adapters: ``register(name, *, build, params=NoParams, summary="")``."""


@hookspec
def register_models(register: Register) -> None:
    """Register model specs by name: ``register(name, *, spec, summary="")``."""


@hookspec
def register_commands(register: Register) -> None:
    """Register commands of the ``pvzoo`` program: ``register(name, *, build, summary="")``."""
