"""A saved folder: ``config.json``, the resolved spec; ``model.safetensors``, the tensors and the spec again inside its
metadata; ``README.md``. Only safetensors is read; there is no pickle path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from .. import __version__
from ..card import render
from ..errors import WeightsError
from ..manifest import CARD, CONFIG, INDEX, WEIGHTS
from ..tensorfile import METADATA_KEY, Header, read_header, read_index, replacing
from .tensors import derived, own_tensors

if TYPE_CHECKING:
    from ..model import Model

Files = Mapping[str, Path]
"""Where the files of a saved model are, by their names in its folder."""


def save(model: Model, directory: Path, dtype: torch.dtype | None = None) -> Path:
    """Writes a model: each file beside its place first, then moved into it, the weights before the config.

    Args:
        model: The model.
        directory: Made if it does not exist; files of an earlier save are replaced.
        dtype: Type in which floating-point tensors are stored; loading gives back the model's own. As they are by
            default.

    Returns:
        The directory.

    Raises:
        WeightsError: If a value is not finite, a tensor is on the meta device, or the folder cannot be written.
    """
    spec = model.spec.to_dict()
    tensors = own_tensors(model)
    for name, tensor in tensors.items():
        if tensor.is_meta:
            raise WeightsError(f"{name} is on the meta device and has no values to save")
        stored = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        if stored.is_floating_point() and not bool(torch.isfinite(stored).all()):
            reason = f" as {dtype}" if stored is not tensor and bool(torch.isfinite(tensor).all()) else ""
            raise WeightsError(f"{name} holds NaN or infinite values{reason}; nothing was saved")
        stored = stored.detach().cpu().contiguous()
        whole = stored.untyped_storage().nbytes() == stored.numel() * stored.element_size()
        tensors[name] = stored if whole else stored.clone()
    floats = {str(t.dtype).removeprefix("torch.") for t in own_tensors(model).values() if t.is_floating_point()}
    about = {
        "spec": spec,
        "dtype": floats.pop() if len(floats) == 1 else None,
        "derived": derived(model),
        "untrained": model.untrained,
        "thresholds": [threshold.model_dump() for threshold in model.thresholds],
        "pvzoo": __version__,
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # All three are whole on disk before the first, the innermost, takes its name.
        with (
            replacing(directory / CARD) as card,
            replacing(directory / CONFIG) as config,
            replacing(directory / WEIGHTS) as file,
        ):
            save_file(tensors, file, metadata={METADATA_KEY: json.dumps(about, sort_keys=True)})
            # Not as \u escapes: a reader of YAML does not know the pairs that stand for one character.
            config.write_text(json.dumps(spec, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            card.write_text(
                render(model.spec, untrained=model.untrained, thresholds=model.thresholds), encoding="utf-8"
            )
    except (OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(f"{directory}: cannot be written: {error}") from error
    return directory


def files_in(directory: Path) -> Files:
    """The files of a saved folder.

    Raises:
        WeightsError: If there is no such folder, or it cannot be read.
    """
    try:
        return {path.name: path for path in sorted(directory.iterdir()) if path.is_file()}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise WeightsError(f"{directory}: no such folder; it should hold {CONFIG} and {WEIGHTS}") from error
    except OSError as error:
        raise WeightsError(f"{directory}: cannot be read: {error.strerror or error}") from error


def is_folder(path: Path) -> bool:
    """Whether there is such a folder.

    Raises:
        WeightsError: If the way there is barred.
    """
    try:
        return path.is_dir()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_files(files: Files, where: str) -> tuple[dict[str, Any], Header]:
    """The spec and the weights' header of a saved model.

    Args:
        files: ``config.json`` and ``model.safetensors``, or in its place the index of several files, and these.
        where: What the files are of, for errors.

    Raises:
        WeightsError: If a file is missing, or they come from different saves.
    """
    for name in (CONFIG, WEIGHTS):
        if name not in files and not (name == WEIGHTS and INDEX in files):
            raise WeightsError(f"{where}: there is no {name} in it")
    header = read_header(files[WEIGHTS]) if WEIGHTS in files else read_index(files[INDEX], files)
    config = files[CONFIG]
    try:
        spec = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{config}: cannot be read: {error}") from error
    if not isinstance(spec, dict):
        raise WeightsError(f"{config}: should be a mapping of fields")
    if header.about.spec is not None and header.about.spec != spec:
        fields = sorted(key for key in {*spec, *header.about.spec} if spec.get(key) != header.about.spec.get(key))
        message = f"{where}: {CONFIG} and {header.path.name} come from different saves; they differ in "
        message += ", ".join(fields)
        raise WeightsError(f"{message} (to change a saved model, pass overrides to pvzoo.create)")
    return spec, header


def header_at(path: Path) -> Header:
    """The header of a weights file, or of the weights in a saved folder.

    Raises:
        WeightsError: If there are none, or they are damaged.
    """
    if not is_folder(path):
        return read_header(path)
    files = files_in(path)
    if INDEX in files and WEIGHTS not in files:
        return read_index(files[INDEX], files)
    return read_header(path / WEIGHTS)


def spec_of(header: Header) -> dict[str, Any]:
    """The spec inside a weights file.

    Raises:
        WeightsError: If there is none.
    """
    if header.about.spec is None:
        raise WeightsError(f"{header.path}: holds no pvzoo spec; build a model and use model.load_weights")
    return header.about.spec
