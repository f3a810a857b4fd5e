"""The ``--set`` option: values by name, written as YAML."""

from __future__ import annotations

from typing import Any

from ..errors import PvzooError


def read_settings(changes: list[str], example: str) -> dict[str, Any]:
    """``["a=1", "b=null"]`` to ``{"a": 1, "b": None}``.

    Raises:
        PvzooError: If there is no ``=``, or the value is not YAML.
    """
    import yaml

    found: dict[str, Any] = {}
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise PvzooError(f"--set {change}: write {example}")
        try:
            found[path] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise PvzooError(f"--set {change}: the value is not YAML: {' '.join(str(error).split())}") from error
    return found
