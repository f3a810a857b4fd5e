"""Reading and writing safetensors files: headers first, tensors into memory of their own, files whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import __version__
from .errors import WeightsError
from .manifest import FileName
from .threshold import Threshold

# One key: safetensors does not keep the order of several, and equal models should give equal files.
METADATA_KEY = "pvzoo"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class About(BaseModel):
    """What pvzoo writes about a model into the metadata of its weights file.

    Attributes:
        spec: The resolved spec; ``None`` in a file that pvzoo did not write.
        dtype: The model's floating-point type, whatever the file stores; ``None`` if it has several.
        derived: Digests of the buffers that are not stored, by name.
        untrained: Whether the weights are those of a random initialisation.
        thresholds: Chosen with these weights.
        pvzoo: The version that wrote the file.
    """

    model_config = ConfigDict(frozen=True)

    spec: dict[str, Any] | None = None
    dtype: Literal["float16", "bfloat16", "float32", "float64"] | None = None
    derived: dict[str, str] = Field(default_factory=dict)
    untrained: bool = False
    thresholds: tuple[Threshold, ...] = ()
    pvzoo: str = ""


@dataclass(frozen=True)
class Header:
    """What a weights file says of itself before any data is read.

    Attributes:
        path: The file, or the index of several.
        tensors: Type and shape by name.
        places: The file that holds a tensor, and where in it.
        states: What each file was when its header was read.
        about: What pvzoo wrote about the model.
    """

    path: Path
    tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
    places: Mapping[str, tuple[Path, int]]
    states: Mapping[Path, tuple[int, int, int]]
    about: About


def read_header(path: Path) -> Header:
    """Reads and checks the header of a safetensors file; its data stays on disk.

    Raises:
        WeightsError: If the file is missing, a folder, empty, truncated, or not safetensors.
    """
    try:
        if path.is_dir():
            raise WeightsError(f"{path}: is a folder; its model is created by pvzoo.create('local-dir:{path}')")
        if path.stat().st_size == 0:
            raise WeightsError(f"{path}: the file is empty")
        with safe_open(path, framework="pt"):
            pass  # the library checks the header: sizes, gaps, overlaps
        with path.open("rb") as file:
            table = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            start, state = file.tell(), _state(file.fileno())
        about = _about(path, table.pop("__metadata__", {}).get(METADATA_KEY, "{}"))
        tensors = {name: (_dtype(path, entry["dtype"]), tuple(entry["shape"])) for name, entry in table.items()}
        places = {name: (path, start + entry["data_offsets"][0]) for name, entry in table.items()}
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file") from error
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error}); fetch or save it again") from error
    return Header(path, tensors, places, {path: state}, about)


def read_index(index: Path, files: Mapping[str, Path]) -> Header:
    """Reads and checks the headers of weights in several files, as ``model.safetensors.index.json`` lists them.

    Args:
        index: The list: ``weight_map`` from tensor to file, and ``metadata``.
        files: Paths by the names in the list. Only these are opened, so a name cannot lead elsewhere.

    Raises:
        WeightsError: If the list or a file is damaged, or they do not agree.
    """
    listed = _read_list(index)
    names = sorted(set(listed.weight_map.values()))
    for name in names:
        if name not in files:
            raise WeightsError(f"{index}: there is no {name!r} beside it")
    headers = {name: read_header(files[name]) for name in names}
    held = {tensor: name for name, header in headers.items() for tensor in header.tensors}
    if sum(len(header.tensors) for header in headers.values()) != len(held) or held != dict(listed.weight_map):
        wrong = sorted({*held, *listed.weight_map} - {t for t, n in listed.weight_map.items() if held.get(t) == n})
        which = f"differ in {wrong[0]}" if wrong else "hold a tensor twice"
        raise WeightsError(f"{index}: its files are not those that it lists; they {which}")
    return Header(
        index,
        {tensor: headers[name].tensors[tensor] for tensor, name in listed.weight_map.items()},
        {tensor: headers[name].places[tensor] for tensor, name in listed.weight_map.items()},
        {path: state for header in headers.values() for path, state in header.states.items()},
        _about(index, listed.metadata.get(METADATA_KEY, "{}")),
    )


def shards(index: Path) -> list[str]:
    """The names of the files that an index lists.

    Raises:
        WeightsError: If it is damaged, or a name is not that of a file beside it.
    """
    return sorted(set(_read_list(index).weight_map.values()))


def _read_list(index: Path) -> _Index:
    try:
        return _Index.model_validate_json(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else error
        raise WeightsError(f"{index}: not an index of weights files: {reason}") from error


class _Index(BaseModel):
    """As transformers and huggingface_hub write it; what pvzoo adds stands in the metadata."""

    metadata: dict[str, Any] = Field(default_factory=dict)
    weight_map: dict[str, FileName]


def _about(path: Path, text: Any) -> About:
    try:
        return About.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "all of it"
        message = f"its metadata under {METADATA_KEY!r} is wrong: {where}: {fault['msg']}"
        raise WeightsError(f"{path}: {by_a_later(_writer(text)) or message}") from error


def _writer(text: Any) -> str:
    """The version that wrote metadata of which no more can be read."""
    try:
        return str(json.loads(text).get("pvzoo"))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return ""


def by_a_later(version: str) -> str:
    """Why a file of another version of pvzoo may be wrong, and what to do; nothing if that version is not later."""
    try:
        if Version(version) <= Version(__version__):
            return ""
    except InvalidVersion:
        return ""
    return f"was saved by pvzoo {version}, and this is {__version__}: pip install -U 'pvzoo>={version}'"


def _state(descriptor: int) -> tuple[int, int, int]:
    """Changes when a file is replaced or written to."""
    status = os.fstat(descriptor)
    return status.st_ino, status.st_size, status.st_mtime_ns


def _dtype(path: Path, name: str) -> torch.dtype:
    if name not in _DTYPES:
        raise WeightsError(f"{path}: tensors of type {name} are not supported")
    return _DTYPES[name]


def read_tensors(header: Header, names: Iterable[str], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Reads tensors into memory of their own; those of floating point as ``dtype``, one after the other.

    Mapping the file instead would be faster, but then a file that is overwritten later, by ``cp`` or a sync program,
    changes the weights of a running model, or kills the process.
    """
    tensors: dict[str, Tensor] = {}
    wanted: defaultdict[Path, list[str]] = defaultdict(list)
    for name in names:
        wanted[header.places[name][0]].append(name)
    for path, part in wanted.items():
        try:
            with path.open("rb", buffering=0) as file:
                if _state(file.fileno()) != header.states[path]:
                    raise WeightsError(f"{path}: the file was changed while it was being read; load it again")
                for name in sorted(part, key=lambda name: header.places[name][1]):
                    stored, shape = header.tensors[name]
                    tensors[name] = torch.empty(shape, dtype=stored, device="cpu")
                    rest = memoryview(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
                    file.seek(header.places[name][1])
                    while rest:
                        count = file.readinto(rest)
                        if not count:
                            raise WeightsError(f"{path}: the file ends inside {name}")
                        rest = rest[count:]
                    if dtype is not None and tensors[name].is_floating_point():
                        tensors[name] = tensors[name].to(dtype)
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    return tensors


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a file beside ``path`` to write, which takes its name at the end: the old content or the whole new one."""
    new = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    new.touch(exist_ok=False)
    rights = new.stat().st_mode  # those of any new file; safetensors makes its own for their owner alone
    try:
        yield new
        new.chmod(rights)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
