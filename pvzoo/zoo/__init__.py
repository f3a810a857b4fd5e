"""The zoo: a YAML spec a model, named by its file."""

from __future__ import annotations

from importlib.resources import files

from ..hookspecs import Register, hookimpl


@hookimpl
def register_models(register: Register) -> None:
    for file in sorted(files(__name__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            register(file.name.removesuffix(".yaml"), spec=file)
