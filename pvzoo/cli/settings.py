"""The ``--set`` option: values by name, written as in a spec file."""

from __future__ import annotations

from typing import Any

from ..errors import PvzooError


def read_settings(changes: list[str], example: str) -> dict[str, Any]:
    """``["a=1", "b=null"]`` to ``{"a": 1, "b": None}``.

    Raises:
        PvzooError: If there is no ``=``.
        SpecError: If the value is not YAML as specs may have it.
    """
    from ..specs import Source

    found: dict[str, Any] = {}
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise PvzooError(f"--set {change}: write {example}")
        found[path] = Source.from_text(value or "null", f"--set {path}").data
    return found
