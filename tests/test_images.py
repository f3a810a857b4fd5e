"""Image files, PIL images, arrays and tensors become the same tensor, and whatever is wrong is named."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps
from torch import Tensor

from pvzoo import ImageError
from pvzoo.imagefile import MAX_PIXELS, measure
from pvzoo.images import preprocess
from pvzoo.specs import Preprocessing

HEIGHT, WIDTH = 6, 8
DTYPES: dict[int, Any] = {8: np.uint8, 16: np.uint16}


def plain(channels: int = 1, size: tuple[int, int] = (HEIGHT, WIDTH), **more: Any) -> Preprocessing:
    """No resizing, no normalisation: what comes out are the pixels in [0, 1]."""
    values = {"mean": (0.0,), "std": (1.0,), "interpolation": "bilinear"} | more
    return Preprocessing(size=size, channels=channels, **values)  # type: ignore[arg-type]


def noise(*shape: int, bits: int = 8) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 1 << bits, shape, DTYPES[bits])


def unit(pixels: np.ndarray) -> np.ndarray:
    """The float32 values that integer pixels stand for."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def png(pixels: np.ndarray, interlace: bool = False) -> bytes:
    """A PNG of any depth and 1 to 4 channels; Pillow writes no 16-bit colours."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    data = pixels.astype(pixels.dtype.newbyteorder(">"))
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [data[y::dy, x::dx] for y, x, dy, dx in passes] if interlace else [data]
    lines = b"".join(b"\0" + line.tobytes() for part in parts if part.size for line in part)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8 * data.itemsize, kind, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(
    pixels: np.ndarray,
    order: str = "<",
    *,
    bits: int = 0,
    planes: bool = False,
    deflate: bool = False,
    photometric: int | None = None,
) -> bytes:
    """A TIFF of any number type, byte order and layout."""
    pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
    height, width, channels = pixels.shape
    data = pixels.astype(pixels.dtype.newbyteorder(order))
    strips = [data[:, :, c].tobytes() for c in range(channels)] if planes else [data.tobytes()]
    strips = [zlib.compress(strip) for strip in strips] if deflate else strips
    if photometric is None:
        photometric = 2 if channels > 2 else 1
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits or 8 * data.itemsize] * channels),
        259: ("H", [8 if deflate else 1]),
        262: ("H", [photometric]),
        273: ("I", [0] * len(strips)),
        277: ("H", [channels]),
        278: ("I", [height]),
        279: ("I", [len(strip) for strip in strips]),
        284: ("H", [2 if planes else 1]),
        338: ("H", [2] * (channels - 3)),
        339: ("H", [{"u": 1, "i": 2, "f": 3}[data.dtype.kind]] * channels),
    }
    tags = {tag: value for tag, value in tags.items() if value[1]}
    where = 8 + 2 + 12 * len(tags) + 4
    tags[273] = ("I", [where + sum(map(len, strips[:n])) for n in range(len(strips))])
    more = b"".join(strips)
    entries = b""
    for tag, (kind, values) in tags.items():
        content = struct.pack(f"{order}{len(values)}{kind}", *values)
        if len(content) > 4:
            more, content = more + content, struct.pack(f"{order}I", where + len(more))
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(values)) + content.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}IH", 8, len(tags)) + entries + bytes(4) + more


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(content: bytes, name: str = "palm.png") -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


GREY, GREY16, RGB, RGB16 = noise(6, 8), noise(6, 8, bits=16), noise(6, 8, 3), noise(6, 8, 3, bits=16)
RGBA16, LA16 = noise(6, 8, 4, bits=16), noise(6, 8, 2, bits=16)

LOSSLESS = {
    "grey PNG": (saved(Image.fromarray(GREY), "PNG"), GREY),
    "grey BMP": (saved(Image.fromarray(GREY), "BMP"), GREY),
    "grey TIFF": (saved(Image.fromarray(GREY), "TIFF"), GREY),
    "grey TIFF, LZW": (saved(Image.fromarray(GREY), "TIFF", compression="tiff_lzw"), GREY),
    "grey TIFF, white is zero": (tiff(GREY, photometric=0), 255 - GREY),
    "RGB PNG": (saved(Image.fromarray(RGB), "PNG"), RGB),
    "RGB BMP": (saved(Image.fromarray(RGB), "BMP"), RGB),
    "RGB TIFF": (saved(Image.fromarray(RGB), "TIFF"), RGB),
    "RGB TIFF, planes": (tiff(RGB, planes=True), RGB),
    "16-bit grey PNG": (png(GREY16), GREY16),
    "16-bit grey PNG, Pillow's": (saved(Image.fromarray(GREY16), "PNG"), GREY16),
    "16-bit grey PNG, interlaced": (png(GREY16, interlace=True), GREY16),
    "16-bit grey TIFF": (tiff(GREY16), GREY16),
    "16-bit grey TIFF, big-endian": (tiff(GREY16, ">"), GREY16),
    "16-bit grey TIFF, deflate": (tiff(GREY16, deflate=True), GREY16),
    "16-bit grey TIFF, big-endian, deflate": (tiff(GREY16, ">", deflate=True), GREY16),
    "16-bit grey TIFF, white is zero": (tiff(GREY16, photometric=0), 65535 - GREY16),
    "16-bit RGB PNG": (png(RGB16), RGB16),
    "16-bit RGB PNG, interlaced": (png(RGB16, interlace=True), RGB16),
    "16-bit RGBA PNG": (png(RGBA16), RGBA16[..., :3]),
    "16-bit grey PNG with alpha": (png(LA16), (LA16[..., :1] >> 8).astype(np.uint8).repeat(3, 2)),
    "16-bit RGB TIFF": (tiff(RGB16), RGB16),
    "16-bit RGB TIFF, big-endian": (tiff(RGB16, ">"), RGB16),
    "16-bit RGB TIFF, deflate": (tiff(RGB16, deflate=True), RGB16),
    "16-bit RGB TIFF, big-endian, deflate": (tiff(RGB16, ">", deflate=True), RGB16),
    "16-bit RGBA TIFF": (tiff(RGBA16), RGBA16[..., :3]),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_every_pixel_of_a_lossless_file_arrives_exactly(name: str, file: Callable[..., Path]) -> None:
    content, pixels = LOSSLESS[name]
    found = preprocess(file(content), plain(1 if pixels.ndim == 2 else 3))
    assert found.dtype is torch.float32
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    assert_array_equal(found[0].numpy(), unit(planes))


@pytest.mark.parametrize("name", LOSSLESS)
def test_what_a_check_says_of_a_lossless_file(name: str) -> None:
    content, pixels = LOSSLESS[name]
    kept = f"{8 * pixels.itemsize}-bit {'grey' if pixels.ndim == 2 else 'colour'}"
    assert measure(io.BytesIO(content)) == (pixels.shape[1], pixels.shape[0], kept)


def test_a_transparent_palette_is_read_without_a_warning(file: Callable[..., Path]) -> None:
    path = file(saved(Image.fromarray(RGB).convert("P"), "PNG", transparency=bytes(range(200))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = preprocess(path, plain(3))
    assert_array_equal(
        found[0].numpy(), unit(np.asarray(Image.fromarray(RGB).convert("P").convert("RGB"))).transpose(2, 0, 1)
    )


GRADIENT = Image.linear_gradient("L").resize((WIDTH, HEIGHT))
OTHERS = {
    "1-bit": (Image.fromarray(GREY).convert("1"), "PNG"),
    "palette": (Image.fromarray(RGB).convert("P"), "PNG"),
    "grey with alpha": (Image.fromarray(RGB).convert("LA"), "PNG"),
    "RGB with alpha": (Image.fromarray(RGB).convert("RGBA"), "PNG"),
    "RGB with alpha, TIFF": (Image.fromarray(RGB).convert("RGBA"), "TIFF"),
    "grey JPEG": (GRADIENT, "JPEG"),
    "RGB JPEG": (GRADIENT.convert("RGB"), "JPEG"),
    "CMYK JPEG": (GRADIENT.convert("RGB").convert("CMYK"), "JPEG"),
    "CMYK TIFF": (GRADIENT.convert("RGB").convert("CMYK"), "TIFF"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_modes_are_read_as_grey_or_rgb(name: str, file: Callable[..., Path]) -> None:
    image, kind = OTHERS[name]
    grey = image.mode in ("1", "L", "LA")
    path = file(saved(image, kind))
    expected = np.asarray(Image.open(path).convert("L" if grey else "RGB"))
    found = preprocess(path, plain(1 if grey else 3))[0].numpy()
    assert_array_equal(found, unit(expected[None] if grey else expected.transpose(2, 0, 1)))
    # the picture itself: JPEG within its loss, a palette within its own
    near = unit(np.asarray(image.convert("L" if grey else "RGB")))
    assert np.abs(found - (near[None] if grey else near.transpose(2, 0, 1))).max() < 0.05


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["grey PNG", "16-bit grey PNG", "16-bit grey TIFF, big-endian", "RGB BMP"])
@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (5, 3), (16, 16)])
def test_path_pil_array_and_tensor_are_equal_to_the_bit(
    name: str, channels: int, size: tuple[int, int], file: Callable[..., Path]
) -> None:
    content, pixels = LOSSLESS[name]
    path = file(content)
    how = Preprocessing(size=size, channels=channels, mean=(0.4,), std=(0.3,))
    planes = torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy())
    with Image.open(path) as lazy, Image.open(path) as loaded:
        loaded.load()
        inputs = [path, str(path), lazy, loaded, loaded.copy(), pixels, planes, pixels[None, ..., None], planes[None]]
        inputs += [pixels.astype(pixels.dtype.newbyteorder(">")), np.asfortranarray(pixels), unit(pixels)]
        inputs += [pixels[:, :, None], planes[0]] if pixels.ndim == 2 else []
        inputs = [each for each in inputs if getattr(each, "ndim", 0) < 4 or pixels.ndim == 2]
        first, *rest = [preprocess(each, how) for each in inputs]
    assert first.shape == (1, channels, *size)
    assert all(torch.equal(first, other) for other in rest)


def test_a_pil_image_of_16_bit_colours_has_lost_the_low_bytes_before(file: Callable[..., Path]) -> None:
    path = file(png(RGB16))
    with Image.open(path) as image:
        found = preprocess(image, plain(3))
    assert_array_equal(found[0].numpy(), unit((RGB16 >> 8).astype(np.uint8)).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [
        (np.array([[255]], np.uint8), 2.0),
        (np.array([[0]], np.uint8), -2.0),
        (np.array([[51]], np.uint8), -1.2),
        (np.array([[65535]], np.uint16), 2.0),
        (np.array([[13107]], np.uint16), -1.2),
        (np.array([[0.25]]), -1.0),
        (np.array([[0.25]], np.float16), -1.0),
        (np.array([[[255, 0, 0]]], np.uint8), (0.299 - 0.5) / 0.25),
        (np.array([[[0, 255, 0]]], np.uint8), (0.587 - 0.5) / 0.25),
        (np.array([[[0, 0, 1.0, 0.3]]]), (0.114 - 0.5) / 0.25),
    ],
)
def test_known_pixels_through_mean_and_std(pixel: np.ndarray, expected: float) -> None:
    found = preprocess(pixel, plain(size=(1, 1), mean=(0.5,), std=(0.25,)))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_grey_becomes_rgb_with_a_mean_a_channel() -> None:
    how = plain(3, (1, 1), mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    assert preprocess(np.array([[1.0]]), how).flatten().tolist() == [1.0, 1.0, 0.0]
    assert preprocess(np.array([[[0.0, 1.0, 0.5]]]), how).flatten().tolist() == [0.0, 1.0, -2.0]


def test_rgb_becomes_grey_as_pillow_does_it() -> None:
    image = Image.fromarray(RGB)
    found = preprocess(image, plain())[0, 0].numpy()
    assert np.abs(found - unit(np.asarray(image.convert("L")))).max() < 1 / 255


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", [(3, 3), (13, 5), (HEIGHT, WIDTH), (1, 1), (40, 50)])
def test_resizing(interpolation: str, size: tuple[int, int]) -> None:
    how = plain(size=size, interpolation=interpolation)
    assert preprocess(GREY, how).shape == (1, 1, *size)
    constant = preprocess(np.full((HEIGHT, WIDTH), 77, np.uint8), how)
    assert torch.allclose(constant, torch.tensor(77 / 255), atol=1e-6)
    if size == (HEIGHT, WIDTH):
        assert_array_equal(preprocess(GREY, how)[0, 0].numpy(), unit(GREY))


def test_shrinking_is_antialiased_and_nearest_is_not() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    for interpolation, spread in (("bilinear", 0.05), ("bicubic", 0.05)):
        small = preprocess(stripes, plain(size=(8, 8), interpolation=interpolation))
        assert (small - 0.5).abs().max() < spread
    assert set(preprocess(stripes, plain(size=(8, 8), interpolation="nearest")).flatten().tolist()) <= {0.0, 1.0}


def test_bicubic_does_not_leave_the_range() -> None:
    edge = np.zeros((8, 8), np.uint8)
    edge[:, 4:] = 255
    large = preprocess(edge, plain(size=(32, 32), interpolation="bicubic"))
    assert large.min() == 0
    assert large.max() == 1


def test_resizing_agrees_with_pillow() -> None:
    smooth = np.asarray(Image.linear_gradient("L"))
    for interpolation, pil in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        found = preprocess(smooth, plain(size=(50, 30), interpolation=interpolation))[0, 0].numpy()
        assert np.abs(found - unit(np.asarray(Image.fromarray(smooth).resize((30, 50), pil)))).max() < 1.5 / 255


def test_batches(file: Callable[..., Path]) -> None:
    path = file(LOSSLESS["grey PNG"][0])
    mixed = [path, Image.fromarray(RGB), GREY, torch.from_numpy(GREY16)]
    found = preprocess(mixed, plain())
    assert found.shape == (4, 1, HEIGHT, WIDTH)
    assert torch.equal(found, torch.cat([preprocess(each, plain()) for each in mixed]))
    assert torch.equal(preprocess(tuple(mixed), plain()), found)
    assert torch.equal(preprocess(iter(mixed), plain()), found)  # type: ignore[arg-type]
    batch = noise(5, HEIGHT, WIDTH, 3)
    assert torch.equal(preprocess(batch, plain(3)), preprocess(list(batch), plain(3)))
    assert preprocess(torch.rand(5, 3, 9, 9), plain(3)).shape == (5, 3, HEIGHT, WIDTH)


def test_a_tensor_of_a_graph_and_odd_strides_are_taken() -> None:
    tensor = torch.rand(3, HEIGHT, WIDTH, requires_grad=True)
    assert not preprocess(tensor, plain(3)).requires_grad
    assert_array_equal(preprocess(GREY[::-1, ::-1], plain())[0, 0].numpy(), unit(GREY[::-1, ::-1]))


def test_inputs_are_left_as_they_were() -> None:
    pixels = unit(GREY)
    preprocess(pixels, plain(size=(3, 3), mean=(0.5,), std=(0.5,)))[:] = 0
    preprocess(pixels, plain())[:] = 0
    tensor = torch.from_numpy(pixels)
    preprocess(tensor, plain())[:] = 0
    assert_array_equal(pixels, unit(GREY))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_files_are_turned_upright(kind: str, orientation: int, file: Callable[..., Path]) -> None:
    stored = GRADIENT.rotate(30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = file(saved(stored, kind, exif=exif))
    # from memory: Pillow scrambles raw TIFF that it opens by path and turns
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(path.read_bytes())))
    assert upright.size == ((HEIGHT, WIDTH) if orientation >= 5 else (WIDTH, HEIGHT))
    how = plain(size=(upright.height, upright.width))
    found = preprocess(path, how)
    assert_array_equal(found[0, 0].numpy(), unit(np.asarray(upright)))
    assert torch.equal(preprocess(Image.open(io.BytesIO(path.read_bytes())), how), found)
    assert torch.equal(preprocess(upright, how), found), "an upright image is not turned twice"


def test_16_bit_colours_are_turned_upright(file: Callable[..., Path]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = png(RGB16)
    content = content[:33] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + content[33:]
    found = preprocess(file(content), plain(3, (WIDTH, HEIGHT)))
    assert_array_equal(found[0].numpy(), unit(np.rot90(RGB16, -1)).transpose(2, 0, 1))


def test_float_tiff(file: Callable[..., Path]) -> None:
    pixels = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    for content in (tiff(pixels), tiff(pixels, ">"), saved(Image.fromarray(pixels), "TIFF")):
        assert_array_equal(preprocess(file(content, "a.tif"), plain())[0, 0].numpy(), pixels)
    assert_array_equal(preprocess(Image.fromarray(pixels), plain())[0, 0].numpy(), pixels)


RANGE = "float pixels must lie in [0, 1], and these run from"
NO_RANGE = "have no known range; uint8, uint16 or floats are needed"
PLANES = "16-bit colours in planes of their own cannot be read; save it with interleaved colours"
NO_IMAGE = "not an image that can be read (PNG, JPEG, BMP or TIFF)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"id,palm,vein\n", NO_IMAGE),
        (saved(Image.fromarray(RGB), "GIF"), NO_IMAGE),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NO_IMAGE),
        (saved(Image.fromarray(GREY), "PNG")[:60], "cannot be decoded: the file is truncated"),
        (saved(Image.fromarray(noise(64, 64)), "PNG")[:2000], "cannot be decoded: the file is truncated"),
        (saved(Image.fromarray(noise(64, 64)), "JPEG")[:1500], "cannot be decoded: the file is truncated"),
        (saved(Image.fromarray(noise(64, 64)), "BMP")[:2000], "cannot be decoded: the file is truncated"),
        (tiff(GREY)[:-20], None),
        (tiff(noise(64, 64), photometric=1)[:2000], "cannot be decoded: the file is truncated"),
        (tiff(np.array([[0.5, -1], [2, 0]], np.float32)), f"{RANGE} -1 to 2"),
        (tiff(GREY.astype(np.int32)), "signed or 32-bit integer pixels have no known range; save it with 8 or 16 bits"),
        (tiff(GREY.astype(np.int16)), "signed or 32-bit integer pixels have no known range; save it with 8 or 16 bits"),
        (tiff(GREY16, bits=12), "12-bit pixels cannot be read; save it with 8 or 16 bits"),
        (tiff(RGB16, planes=True), PLANES),
        (tiff(RGB16, ">", planes=True, deflate=True), PLANES),
        (tiff(RGB.astype(np.float32)), NO_IMAGE),
        (png(np.zeros((6, 0), np.uint8)), None),
    ],
)
def test_bad_files(content: bytes, message: str | None, file: Callable[..., Path]) -> None:
    path = file(content)
    with pytest.raises(ImageError) as caught:
        preprocess(path, plain())
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    if message is not None:
        assert str(caught.value) == f"{path}: {message}"


def bomb(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bomb(60_000, 60_000), "too many pixels to decode safely"),
        (bomb(10_000, 10_000), "10000 x 10000 pixels are too many to decode safely"),
        (bomb(1, MAX_PIXELS + 1), f"1 x {MAX_PIXELS + 1} pixels are too many to decode safely"),
    ],
)
def test_decompression_bombs(content: bytes, message: str, file: Callable[..., Path]) -> None:
    path = file(content)
    with warnings.catch_warnings(), pytest.raises(ImageError) as caught:
        warnings.simplefilter("error")
        preprocess(path, plain())
    assert str(caught.value) == f"{path}: {message}"


def test_the_bound_on_pixels_does_not_depend_on_pillow_s(
    file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="60000 x 60000 pixels are too many to decode safely"):
        preprocess(file(bomb(60_000, 60_000)), plain())


def test_filters_of_warnings_survive_many_threads(file: Callable[..., Path]) -> None:
    path = file(LOSSLESS["grey PNG"][0])
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: preprocess(path, plain()), range(200)))
    assert all(torch.equal(each, found[0]) for each in found)
    assert list(warnings.filters) == before


def test_missing_files_folders_and_impossible_paths(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "nobody.png", "no such file"),
        (tmp_path, "is a folder, not an image"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
        ("a\0b.png", "cannot be decoded: embedded null byte"),
    ):
        with pytest.raises(ImageError) as caught:
            preprocess(path, plain())
        assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ([], "no images were given"),
        (np.zeros((0, 4, 4, 1)), "no images were given"),
        (5, "image 0: an int is no image; a path, PIL image, array or tensor is needed"),
        (None, "image 0: a NoneType is no image; a path, PIL image, array or tensor is needed"),
        ([GREY, None], "image 1: a NoneType is no image; a path, PIL image, array or tensor is needed"),
        ([[GREY]], "image 0: a list is no image; a path, PIL image, array or tensor is needed"),
        (np.zeros(4), "image 0: an array of shape (4,) is no image; (H, W) or (H, W, C) is needed"),
        (GREY.reshape(1, 6, 8), "image 0: an array of shape (1, 6, 8) is no image; (H, W) or (H, W, C) is needed"),
        (torch.zeros(4), "image 0: a tensor of shape (4,) is no image; (C, H, W) is needed"),
        ([torch.zeros(1, 1, 4, 4)], "image 0: a tensor of shape (1, 1, 4, 4) is no image; (C, H, W) is needed"),
        (torch.zeros(6, 8, 3), "image 0: has 6 channels, and the model takes 1"),
        (np.zeros((4, 4, 2)), "image 0: has 2 channels, and the model takes 1"),
        (np.zeros((0, 4)), "image 0: an image of 1x0x4 has no pixels"),
        (torch.zeros(1, 4, 0), "image 0: an image of 1x4x0 has no pixels"),
        (GREY.astype(np.int64), f"image 0: pixels of torch.int64 {NO_RANGE}"),
        (GREY > 9, f"image 0: pixels of torch.bool {NO_RANGE}"),
        (GREY.astype(complex), f"image 0: pixels of torch.complex128 {NO_RANGE}"),
        (GREY.astype(object), f"image 0: pixels of object {NO_RANGE}"),
        (torch.zeros(4, 4, dtype=torch.int8), f"image 0: pixels of torch.int8 {NO_RANGE}"),
        (np.array([[0.0, np.nan]]), f"image 0: {RANGE} nan to nan"),
        (np.array([[0.0, np.inf]]), f"image 0: {RANGE} 0 to inf"),
        (np.array([[0.0, 255.0]]), f"image 0: {RANGE} 0 to 255"),
        (torch.tensor([[-0.5, 1.0]]), f"image 0: {RANGE} -0.5 to 1"),
    ],
)
def test_bad_inputs(image: Any, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        preprocess(image, plain())
    assert str(caught.value) == message


def test_channels_that_cannot_be_had(file: Callable[..., Path]) -> None:
    path = file(LOSSLESS["grey PNG"][0])
    with pytest.raises(ImageError, match=r"palm.png: has 1 channel, and the model takes 4$"):
        preprocess(path, plain(4))
    with pytest.raises(ImageError, match=r"image 1: has 3 channels, and the model takes 2$"):
        preprocess([np.zeros((4, 4, 2)), RGB], plain(2))


def test_pil_images_that_cannot_be_read() -> None:
    lazy = Image.open(io.BytesIO(saved(Image.fromarray(noise(64, 64)), "PNG")[:2000]))
    with pytest.raises(ImageError, match=r"^image 0: cannot be decoded: the file is truncated$"):
        preprocess(lazy, plain())
    with pytest.raises(ImageError, match=r"^image 0: signed or 32-bit"):
        preprocess(Image.new("I", (4, 4)), plain())
    with pytest.raises(ImageError, match=r"^image 0: an image of 1x0x0 has no pixels$"):
        preprocess(Image.new("L", (0, 0)), plain())


SEEDS = [
    saved(Image.fromarray(GREY), "PNG"),
    png(RGB16),
    saved(Image.fromarray(noise(16, 16)), "JPEG"),
    saved(Image.fromarray(RGB), "BMP"),
    tiff(GREY16),
    tiff(RGB16, ">", deflate=True),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An image file, cut and with some bytes changed."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 6))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(1, len(content)))])


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=400, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(min_size=1, max_size=200), damaged()))
def test_any_bytes_give_a_tensor_or_an_image_error(content: bytes, file: Callable[..., Path]) -> None:
    path = file(content)
    try:
        found: Tensor = preprocess(path, plain())
    except ImageError as error:
        assert str(error).startswith(f"{path}: ")
        assert "\n" not in str(error)
        # What a check of a data set calls readable, a model can load.
        with pytest.raises(ImageError):
            measure(io.BytesIO(content))
    else:
        measure(io.BytesIO(content))
        assert found.shape == (1, 1, HEIGHT, WIDTH)
        assert torch.isfinite(found).all()
