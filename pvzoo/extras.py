"""Optional dependencies: imported when first needed, with an error that names the extra to install."""

from __future__ import annotations

from typing import Any

from .errors import PvzooError


class MissingExtraError(PvzooError, ImportError):
    """A package is needed that an extra of pvzoo brings."""


def missing(what: str, extra: str, error: ImportError) -> MissingExtraError:
    """The error that says which extra brings a package that could not be imported."""
    message = f"this needs {what}, which cannot be imported ({error}): pip install 'pvzoo[{extra}]'"
    return MissingExtraError(message, name=error.name)


def opencv() -> Any:
    """Returns OpenCV (``cv2``), which draws, blurs and warps.

    Raises:
        MissingExtraError: If it cannot be imported.
    """
    try:
        import cv2
    except ImportError as error:
        raise missing("OpenCV", "data", error) from error
    return cv2
