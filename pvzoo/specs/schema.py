"""JSON Schema of a spec, the components of installed plugins included, for editors and other programs."""

from __future__ import annotations

from typing import Any

from .. import __version__
from ..plugins import host
from .model import ModelSpec


def json_schema() -> dict[str, Any]:
    """Returns the schema; ``$comment`` names the pvzoo and plugin versions that it was made from."""
    schema = ModelSpec.model_json_schema()
    plugins = [plugin.label for plugin in host().load_all() if plugin.state == "loaded"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": f"made from pvzoo {__version__} with plugins: {', '.join(plugins) or 'none'}",
        **schema,
    }
