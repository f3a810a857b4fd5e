"""Checkpoints without pickle: one safetensors file, with all that is no tensor as JSON in its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import WeightsError
from ..tensorfile import replacing
from .lightning import CheckpointIO, ModelCheckpoint

KEY = "checkpoint"


class SafeCheckpointIO(CheckpointIO):
    """Writes what Lightning wants to keep, whole or not at all; reading runs no code from the file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        tensors: dict[str, Tensor] = {}
        plain = _encode(checkpoint, "", tensors)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with replacing(path) as file:
                save_file(tensors, file, metadata={KEY: json.dumps(plain)})
        except (OSError, SafetensorError) as error:
            message = f"{path}: the checkpoint cannot be written: {error}; the last one is untouched"
            raise WeightsError(message) from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        try:
            with safe_open(path, framework="pt") as file:
                plain = json.loads((file.metadata() or {})[KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise WeightsError(f"{path}: not a checkpoint of pvzoo train ({error})") from error
        decoded: dict[str, Any] = _decode(plain, tensors)
        return decoded

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class Kept(ModelCheckpoint):
    """A checkpoint of a run, always under one name."""

    FILE_EXTENSION = ".safetensors"
    __qualname__ = ModelCheckpoint.__qualname__  # by which Lightning finds its state, in checkpoints from before it too

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Run folders are moved. In one of another name, Lightning would forget which epoch was the best.
        folder = str(self.dirpath)

        def here(path: str) -> str:
            return str(Path(folder, Path(path).name)) if path else path

        paths = {name: here(path) for name, path in state_dict.items() if name.endswith("_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "dirpath": folder, "best_k_models": best})


def _encode(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """To JSON: tensors are set aside by number; what JSON lacks gets an object of one key that begins with $."""
    if isinstance(value, Tensor):
        name = str(len(tensors))  # paths are not unique: a key may hold a slash, or be a number
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"$tensor": name}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: _encode(item, f"{path}/{key}", tensors) for key, item in value.items()}
        pairs = [[_encode(k, f"{path}/{k}", tensors), _encode(v, f"{path}/{k}", tensors)] for k, v in value.items()]
        return {"$dict": pairs}
    if isinstance(value, tuple):
        return {"$tuple": [_encode(item, f"{path}/{n}", tensors) for n, item in enumerate(value)]}
    if isinstance(value, list):
        return [_encode(item, f"{path}/{n}", tensors) for n, item in enumerate(value)]
    if isinstance(value, torch.dtype):
        return {"$dtype": str(value).removeprefix("torch.")}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise WeightsError(f"the checkpoint holds {type(value).__name__} at {path}, which is neither tensor nor plain data")


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, item),) = value.items()
        if key == "$tensor":
            return tensors[item]
        if key == "$tuple":
            return tuple(_decode(part, tensors) for part in item)
        if key == "$dict":
            return {_decode(k, tensors): _decode(v, tensors) for k, v in item}
        if key == "$dtype":
            return getattr(torch, item)
    return {key: _decode(item, tensors) for key, item in value.items()}
