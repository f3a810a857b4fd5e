"""Image files, as Pillow decodes them: which are read, which are refused and why (no numpy, no torch)."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, BinaryIO

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from .errors import ImageError

# Pillow's own bound, below which it stays silent; a palm image of this size does not exist.
MAX_PIXELS = 89_478_485
# No other decoder of Pillow's ever sees a file: some are old, and one starts Ghostscript.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
# TIFF tags, and values of theirs.
_BITS, _PHOTOMETRIC, _PLANES = 258, 262, 284
_WHITE_IS_ZERO, _SEPARATE = 0, 2
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
# Filters of warnings belong to the process, and files are decoded in several threads.
_warnings_lock = Lock()


@contextmanager
def decoding() -> Iterator[None]:
    """Turns whatever Pillow raises into an :class:`ImageError`; damaged bytes make it raise almost anything."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("no such file") from error
    except Image.DecompressionBombError as error:
        raise ImageError("too many pixels to decode safely") from error
    except UnidentifiedImageError as error:
        raise ImageError("not an image that can be read (PNG, JPEG, BMP or TIFF)") from error
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(f"cannot be read: {error.strerror}") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        cut = isinstance(error, EOFError) or "truncated" in reason.lower()
        raise ImageError(f"cannot be decoded: {'the file is truncated' if cut else reason}") from error


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """Reads the header; pixels are decoded later."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file, formats=FORMATS)  # from the start of the file, wherever it stands
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{image.width} x {image.height} pixels are too many to decode safely")
    tags = _tags(image)
    if 16 in tags.get(_BITS, ()) and tags.get(_PLANES) == _SEPARATE and image.mode != "I;16":
        raise ImageError("16-bit colours in planes of their own cannot be read; save it with interleaved colours")
    return image


def low_bytes(image: ImageFile.ImageFile) -> list[Any]:
    """What to decode for the low bytes of 16-bit colours; nothing for other images.

    Pillow keeps the high byte of each colour. With the order of bytes reversed, that is the low one.
    """
    tiles: list[Any] = []
    for tile in image.tile:
        raw, *rest = (tile.args,) if isinstance(tile.args, str) else tile.args or ("",)
        kind, bits, order = str(raw).partition(";16")
        if kind in ("RGB", "RGBA", "RGBX") and bits:
            other = f"{kind}{bits}{_OTHER_ORDER[order]}"
            tiles.append(tile._replace(args=(other, *rest) if rest else other))
    return tiles


def check_range(image: Image.Image) -> None:
    """Raises :class:`ImageError` if it is not known which pixel value is black and which is white."""
    if image.mode.startswith("I;16") and 12 in _tags(image).get(_BITS, ()):
        raise ImageError("12-bit pixels cannot be read; save it with 8 or 16 bits")
    if image.mode == "I":
        raise ImageError("signed or 32-bit integer pixels have no known range; save it with 8 or 16 bits")


def check_floats(low: float, high: float) -> None:
    """Raises :class:`ImageError` if float pixels leave [0, 1]."""
    if not (low >= 0 and high <= 1):  # also true for NaN
        raise ImageError(f"float pixels must lie in [0, 1], and these run from {low:g} to {high:g}")


def is_negative(image: Image.Image) -> bool:
    """Whether 0 is white in an image of 16 bits; Pillow turns those of 8 bits around, and these not."""
    return image.mode.startswith("I;16") and bool(_tags(image).get(_PHOTOMETRIC) == _WHITE_IS_ZERO)


def measure(file: BinaryIO) -> tuple[int, int, str]:
    """Decodes all of an image.

    Returns:
        Width and height, upright, and what the pixels are: ``"8-bit grey"``, ``"16-bit colour"``, ``"palette"``, ...

    Raises:
        ImageError: If pvzoo could not load it.
    """
    with decoding():
        image = open_image(file)
        check_range(image)
        kind = _KINDS.get(image.mode.partition(";")[0], image.mode)
        if low_bytes(image):
            kind = kind.replace("8", "16")
        image.load()
        if image.mode == "F":
            check_floats(*image.getextrema())
        ImageOps.exif_transpose(image, in_place=True)
        return image.width, image.height, kind


_KINDS = {
    "1": "1-bit",
    "L": "8-bit grey",
    "LA": "8-bit grey",
    "I": "16-bit grey",  # I;16: check_range has refused I
    "F": "float grey",
    "P": "palette",
    "RGB": "8-bit colour",
    "RGBA": "8-bit colour",
}


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {})
