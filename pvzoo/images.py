"""From image files, PIL images, arrays and tensors to the batch that a model takes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import ImageError, a
from .specs import Preprocessing

ImageLike = str | PathLike[str] | Image.Image | np.ndarray | Tensor
Images = ImageLike | Sequence[ImageLike]

# Pillow's own bound, below which it stays silent; a palm image of this size does not exist.
MAX_PIXELS = 89_478_485
# No other decoder of Pillow's ever sees a file: some are old, and one starts Ghostscript.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
# ITU-R BT.601, which Pillow uses as well.
_LUMA = (0.299, 0.587, 0.114)
# TIFF tags, and values of theirs.
_BITS, _PHOTOMETRIC, _PLANES = 258, 262, 284
_WHITE_IS_ZERO, _SEPARATE = 0, 2
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
# Filters of warnings belong to the process, and files are decoded in several threads.
_warnings_lock = Lock()


def preprocess(images: Images, how: Preprocessing) -> Tensor:
    """Decodes, scales to [0, 1], converts channels, resizes, and normalises.

    All kinds of input take the same path, so an array gives the same tensor as the file that it was read from. Files
    and PIL images fresh from a file are turned upright as their EXIF orientation says; alpha is ignored; of several
    pages the first is read.

    Files of 16 bits keep all 16, grey and RGB, with two exceptions: grey with alpha, and CMYK, keep 8. A PIL image
    has what Pillow kept: 16 bits of grey, 8 of each colour.

    Args:
        images: One image or a sequence of them. Files: grey or RGB of 8 or 16 bits in PNG, JPEG, BMP or TIFF, and
            TIFF of grey floats in [0, 1].
            Arrays: (H, W) or (H, W, C) of uint8, uint16, or floats in [0, 1]. Tensors: (H, W) or (C, H, W).
            With an axis more in front, (N, H, W, C) or (N, C, H, W), a batch.
        how: The model's preprocessing.

    Returns:
        float32 tensor (N, C, H, W) on the CPU.

    Raises:
        ImageError: Naming the image (its path or position), what is wrong, and what is needed.
    """
    batch: Iterable[Any] = [images]
    if isinstance(images, np.ndarray | Tensor):
        batch = images if images.ndim == 4 else [images]
    elif isinstance(images, Iterable) and not isinstance(images, str | PathLike | Image.Image):
        batch = images
    prepared = [_prepare(image, how, position) for position, image in enumerate(batch)]
    if not prepared:
        raise ImageError("no images were given")
    return torch.stack(prepared)


def decode(path: str | PathLike[str]) -> np.ndarray:
    """Pixels of an image file: (H, W) or (H, W, 3), of uint8, uint16 or float32.

    Raises:
        ImageError: Naming the file, and what is wrong with it.
    """
    with naming(fspath(path)), _decoding():
        return _read(Path(path))


def scale(image: ImageLike, how: Preprocessing) -> Tensor:
    """An image as float32 (C, H, W) in [0, 1], with the model's channels and size: all but :func:`normalize`.

    Raises:
        ImageError: Saying what is wrong, and not with which image.
    """
    pixels = _channels(_unit_range(image), how.channels)
    if tuple(pixels.shape[1:]) != how.size:
        smooth = {"nearest": {}}.get(how.interpolation, {"align_corners": False, "antialias": True})
        pixels = F.interpolate(pixels[None], how.size, mode=how.interpolation, **smooth)[0].clamp(0, 1)
    return pixels


def normalize(pixels: Tensor, how: Preprocessing) -> Tensor:
    """What :func:`scale` gave, around the model's mean and in its standard deviations."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (how.mean, how.std))
    return (pixels - mean) / std


@contextmanager
def naming(image: str) -> Iterator[None]:
    """Puts an image's name before what an :class:`ImageError` says."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{image}: {error}") from error.__cause__


def _prepare(image: ImageLike, how: Preprocessing, position: int) -> Tensor:
    with naming(fspath(image) if isinstance(image, str | PathLike) else f"image {position}"):
        return normalize(scale(image, how), how)


def _unit_range(image: ImageLike) -> Tensor:
    """Any image to a float tensor (C, H, W) in [0, 1]."""
    if isinstance(image, str | PathLike):
        with _decoding():
            return _unit_range(_read(Path(image)))
    if isinstance(image, Image.Image):
        with _decoding():
            return _unit_range(_pixels(image))
    if isinstance(image, np.ndarray):
        if image.ndim == 2 or (image.ndim == 3 and image.shape[2] <= 4):
            planes = image if image.ndim == 3 else image[:, :, None]
            return _unit_range(_tensor(planes).permute(2, 0, 1))
        raise ImageError(f"an array of shape {image.shape} is no image; (H, W) or (H, W, C) is needed")
    if not isinstance(image, Tensor):
        raise ImageError(f"{a(type(image).__name__)} is no image; a path, PIL image, array or tensor is needed")
    pixels = image.detach().cpu()
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3:
        raise ImageError(f"a tensor of shape {tuple(image.shape)} is no image; (C, H, W) is needed")
    if 0 in pixels.shape:
        raise ImageError(f"an image of {'x'.join(map(str, pixels.shape))} has no pixels")
    if pixels.dtype is torch.uint8:
        return pixels.float() / 255
    if pixels.dtype is torch.uint16:
        return pixels.float() / 65535
    if not pixels.is_floating_point():
        raise ImageError(f"pixels of {image.dtype} have no known range; uint8, uint16 or floats are needed")
    pixels = pixels.float()
    low, high = (float(bound) for bound in pixels.aminmax())
    if not (low >= 0 and high <= 1):  # also true for NaN
        raise ImageError(f"float pixels must lie in [0, 1], and these run from {low:g} to {high:g}")
    return pixels


def _tensor(array: np.ndarray) -> Tensor:
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    except TypeError as error:
        message = f"pixels of {array.dtype} have no known range; uint8, uint16 or floats are needed"
        raise ImageError(message) from error


def _channels(pixels: Tensor, wanted: int) -> Tensor:
    """Grey to RGB and RGB to grey; anything else must fit already."""
    has = len(pixels)
    if has == wanted:
        return pixels
    if wanted == 1 and has in (3, 4):
        return torch.einsum("chw,c->hw", pixels[:3], torch.tensor(_LUMA))[None]
    if has == 1 and wanted == 3:
        return pixels.expand(3, -1, -1)
    if has == 4 and wanted == 3:
        return pixels[:3]
    raise ImageError(f"has {has} channel{'s' if has > 1 else ''}, and the model takes {wanted}")


@contextmanager
def _decoding() -> Iterator[None]:
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


def _read(path: Path) -> np.ndarray:
    """Pixels of an image file."""
    if path.is_dir():
        raise ImageError("is a folder, not an image")
    if path.stat().st_size == 0:
        raise ImageError("the file is empty")
    # Given a path, Pillow maps raw TIFF into memory, and scrambles what is stored on its side.
    with path.open("rb") as file:
        image = _open(file)
        low = _low_bytes(image)
        pixels = _pixels(image)
        if low:
            image = _open(file)
            image.tile = low
            pixels = pixels.astype(np.uint16) << 8 | _pixels(image)
    return pixels


def _open(file: BinaryIO) -> ImageFile.ImageFile:
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(file, formats=_FORMATS)  # from the start of the file, wherever it stands
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{image.width} x {image.height} pixels are too many to decode safely")
    return image


def _low_bytes(image: ImageFile.ImageFile) -> list[Any]:
    """What to decode for the low bytes of 16-bit colours; nothing for other images.

    Pillow keeps the high byte of each colour. With the order of bytes reversed, that is the low one.
    """
    tags = _tags(image)
    if 16 in tags.get(_BITS, ()) and tags.get(_PLANES) == _SEPARATE and image.mode != "I;16":
        raise ImageError("16-bit colours in planes of their own cannot be read; save it with interleaved colours")
    tiles: list[Any] = []
    for tile in image.tile:
        raw, *rest = (tile.args,) if isinstance(tile.args, str) else tile.args or ("",)
        kind, bits, order = str(raw).partition(";16")
        if kind in ("RGB", "RGBA", "RGBX") and bits:
            other = f"{kind}{bits}{_OTHER_ORDER[order]}"
            tiles.append(tile._replace(args=(other, *rest) if rest else other))
    return tiles


def _pixels(image: Image.Image) -> np.ndarray:
    """Pixels of a PIL image: (H, W) or (H, W, 3), of uint8, uint16 or float32."""
    tags = _tags(image)
    if isinstance(image, ImageFile.ImageFile):
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        if 12 in tags.get(_BITS, ()):
            raise ImageError("12-bit pixels cannot be read; save it with 8 or 16 bits")
        pixels = np.asarray(image).astype(np.uint16)
        return 65535 - pixels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else pixels
    if image.mode == "F":
        return np.asarray(image)
    if image.mode == "I":
        raise ImageError("signed or 32-bit integer pixels have no known range; save it with 8 or 16 bits")
    if image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB, Pillow warns about a transparent palette
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB"))


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {})
