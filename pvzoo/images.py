"""From image files, PIL images, arrays and tensors to the batch that a model takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

from .errors import ImageError, a
from .imagefile import check_floats, check_range, decoding, is_negative, low_bytes, open_image
from .specs import Preprocessing

ImageLike = str | PathLike[str] | Image.Image | np.ndarray | Tensor
Images = ImageLike | Sequence[ImageLike]

# ITU-R BT.601, which Pillow uses as well.
_LUMA = (0.299, 0.587, 0.114)


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
    with naming(fspath(path)), decoding():
        return _read(Path(path))


def scale(image: ImageLike, how: Preprocessing) -> Tensor:
    """An image as float32 (C, H, W) in [0, 1], with the model's channels and size: all but :func:`normalize`.

    Raises:
        ImageError: Saying what is wrong, and not with which image.
    """
    pixels = _channels(unit_range(image), how.channels)
    if tuple(pixels.shape[1:]) != how.size:
        smooth = {"nearest": {}}.get(how.interpolation, {"align_corners": False, "antialias": True})
        pixels = F.interpolate(pixels[None], how.size, mode=how.interpolation, **smooth)[0].clamp(0, 1)
    return pixels


def grey(image: ImageLike) -> np.ndarray:
    """An image as grey (H, W), uint8, at its own size.

    Raises:
        ImageError: Saying what is wrong, and not with which image.
    """
    return (_channels(unit_range(image), 1)[0] * 255).round().to(torch.uint8).numpy()


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


def unit_range(image: ImageLike) -> Tensor:
    """Any image to a float tensor (C, H, W) in [0, 1], at its own size.

    Raises:
        ImageError: Saying what is wrong, and not with which image.
    """
    if isinstance(image, str | PathLike):
        with decoding():
            return unit_range(_read(Path(image)))
    if isinstance(image, Image.Image):
        with decoding():
            return unit_range(_pixels(image))
    if isinstance(image, np.ndarray):
        if image.ndim == 2 or (image.ndim == 3 and image.shape[2] <= 4):
            planes = image if image.ndim == 3 else image[:, :, None]
            return unit_range(_tensor(planes).permute(2, 0, 1))
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
    check_floats(*(float(bound) for bound in pixels.aminmax()))
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


def _read(path: Path) -> np.ndarray:
    """Pixels of an image file."""
    if path.is_dir():
        raise ImageError("is a folder, not an image")
    if path.stat().st_size == 0:
        raise ImageError("the file is empty")
    # Given a path, Pillow maps raw TIFF into memory, and scrambles what is stored on its side.
    with path.open("rb") as file:
        image = open_image(file)
        low = low_bytes(image)
        pixels = _pixels(image)
        if low:
            image = open_image(file)
            image.tile = low
            pixels = pixels.astype(np.uint16) << 8 | _pixels(image)
    return pixels


def _pixels(image: Image.Image) -> np.ndarray:
    """Pixels of a PIL image: (H, W) or (H, W, 3), of uint8, uint16 or float32."""
    check_range(image)
    negative = is_negative(image)
    if isinstance(image, ImageFile.ImageFile):
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.uint16)
        return 65535 - pixels if negative else pixels
    if image.mode == "F":
        return np.asarray(image)
    if image.mode == "P":
        image = image.convert("RGBA")  # straight to RGB, Pillow warns about a transparent palette
    return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB"))
