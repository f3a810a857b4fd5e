"""The zoo: a YAML spec a model, named by its file, and ``weights.json``, the manifest of their weights on the Hub."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from pydantic import Field

from ..hookspecs import Register, hookimpl
from ..registry import Params


class Access(Params):
    """How weights that are not on this machine may be had.

    A weight source whose own ``Params`` have fields of these names is given the values that ``pvzoo.create`` got.
    """

    offline: bool = Field(False, description="use what is on this machine, and no network")
    cache_dir: Path | None = Field(None, description="cache of the Hugging Face Hub; its own default if left out")
    token: str | bool | None = Field(None, description="for private and gated repositories", repr=False)


@hookimpl
def register_models(register: Register) -> None:
    for file in sorted(files(__name__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            register(file.name.removesuffix(".yaml"), spec=file)


@hookimpl
def register_weight_sources(register: Register) -> None:
    register(
        "hub",
        build="pvzoo.hub.sources:HubSource",
        params=Access,
        manifest=files(__name__) / "weights.json",
        summary="The zoo's weights on the Hugging Face Hub, kept in its cache",
    )
