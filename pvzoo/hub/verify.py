"""The manifest against its files: everything that can be computed is computed anew and compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from .. import __version__
from ..errors import PvzooError, WeightsError
from ..manifest import CONFIG, Facts, File, Weights
from ..specs import ModelSpec, Source, load_spec
from ..weights import Files, load_model, read_files
from . import digests

Build = Callable[..., Any]


def describe(files: Files, facts: Facts, *, repo: str, revision: str, build: Build) -> Weights:
    """An entry of the manifest, computed from files and what their author says of them.

    Args:
        files: The config and the weights, and nothing else.
        facts: The author's.
        repo: Where they are or will be, ``"namespace/name"``.
        revision: The tag or commit.
        build: ``Model``.

    Raises:
        WeightsError: If the files are not a whole model.
        SpecError: If its spec is wrong.
    """
    saved, header = read_files(files, str(files.get(CONFIG, "the files")))
    spec = load_spec(Source(str(files[CONFIG]), saved))
    model = load_model(spec, header, build)
    floats = {str(dtype).removeprefix("torch.") for dtype, _ in header.tensors.values() if dtype.is_floating_point}
    if len(floats) != 1:
        raise WeightsError(f"{header.path}: its tensors are of {', '.join(sorted(floats)) or 'no floating-point type'}")
    measured = {
        "repo": repo,
        "revision": revision,
        "files": {n: File(size=path.stat().st_size, sha256=digests.sha256(path)) for n, path in sorted(files.items())},
        "dtype": floats.pop(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": macs(spec, build),
        "thresholds": header.about.thresholds,
        "pvzoo": header.about.pvzoo or __version__,
    }
    return Weights(**measured, **{name: getattr(facts, name) for name in Facts.model_fields})


def macs(spec: ModelSpec, build: Build) -> int:
    """Multiplications with addition of one sample, on the meta device: nothing is allocated or computed."""
    image = spec.preprocessing
    with torch.device("meta"):
        model = build(spec).eval()
        images = [torch.empty(1, image.channels, *image.size) for _ in spec.modalities]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(*images)
    return int(counter.get_total_flops()) // 2  # torch counts both as one operation each


def faults(name: str, pinned: Weights, files: Files, build: Build) -> list[str]:
    """What an entry of the manifest says and its files do not; one line a fault, none if all is right.

    Digests are computed anew, whatever was noted before.
    """
    try:
        found = describe(files, pinned.facts(), repo=pinned.repo, revision=pinned.revision, build=build)
        saved = read_files(files, name)[0]
    except (PvzooError, OSError) as error:
        return [f"{name}: {error}"]
    listed = []
    if saved.get("name") != name.partition(".")[0]:
        listed.append(f"{name}: {CONFIG} is of {saved.get('name') or 'a model without a name'}")
    for field in ("dtype", "parameters", "macs", "thresholds"):
        ours, theirs = getattr(pinned, field), getattr(found, field)
        if ours != theirs:
            listed.append(f"{name}: {field} is {_said(theirs)} in the files and {_said(ours)} in the manifest")
    for file in sorted({*pinned.files, *found.files}):
        ours, theirs = pinned.files.get(file), found.files.get(file)
        if ours != theirs:
            listed.append(f"{name}: {file} is {_said(theirs)} and {_said(ours)} in the manifest")
    return listed


def _said(value: object) -> str:
    if value is None:
        return "not there"
    if isinstance(value, File):
        return f"{value.size:,} bytes, {value.sha256[:16]}..."
    if isinstance(value, tuple):
        return "; ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
