"""From the ``--model`` option to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .. import catalog, factory
from ..errors import PvzooError, UnknownNameError
from ..model import Model
from ..specs import names_file
from ..training.starts import find_start
from ..weights import is_folder


def open_model(name: str, device: str, seed: int, *, size: int | None = None) -> Model:
    """A saved folder or file, or a name of the zoo with its pretrained weights where there are any.

    Without weights the model is random, and the same at each run. ``size`` is that of the images, in place of the
    model's own.
    """
    where = find_device(device)
    if not name:
        raise PvzooError("--model is empty; 'pvzoo list' shows all models")
    path = Path(name).expanduser()
    resized: dict[str, Any] = {} if size is None else {"preprocessing.size": size}
    if is_folder(path):
        return factory.create(f"local-dir:{path}", device=where, **resized)
    if path.suffix == ".safetensors":
        return factory.load(path, device=where, **resized)
    torch.manual_seed(seed)
    pretrained = not names_file(name) and bool(catalog.list_models(name, pretrained=True))
    try:
        return factory.create(name, pretrained=pretrained, device=where, **resized)
    except UnknownNameError as error:
        if "/" not in name:
            raise
        raise PvzooError(f"{error}; and there is no folder {name}") from error


def weights_of(name: str, model: Model) -> dict[str, str]:
    """Which weights a model has that :func:`open_model` opened by this name, so that its figures can be traced."""
    if model.load_report is None:
        return {"weights": "random"}
    facts = find_start(name.removeprefix("local-dir:")).facts()
    files = ", ".join(f"{file} {digest}" for file, digest in facts["sha256"].items())
    return {"weights": facts["name"], "weights_sha256": files}


def find_device(name: str) -> torch.device:
    """The ``--device`` option as a device that works; ``auto`` is the accelerator, or the CPU where there is none."""
    if name == "auto":
        name = str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    try:
        where = torch.device(name)
        torch.zeros(1, device=where).item()
    except (RuntimeError, AssertionError) as error:
        raise PvzooError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return where
