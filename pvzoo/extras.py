"""Optional dependencies: imported when first needed, with an error that names the extra to install."""

from __future__ import annotations

from typing import Any

from .errors import PvzooError


class MissingExtraError(PvzooError, ImportError):
    """A package is needed that an extra of pvzoo brings."""


def opencv() -> Any:
    """Returns OpenCV (``cv2``), which draws, blurs and warps.

    Raises:
        MissingExtraError: If it cannot be imported.
    """
    try:
        import cv2
    except ImportError as error:
        message = f"this needs OpenCV, which cannot be imported ({error}): pip install 'pvzoo[data]'"
        raise MissingExtraError(message, name="cv2") from error
    return cv2
