"""Weights in an installed package: a manifest, and every file once, by its digest.

A package of weights is data with a hook module::

    pvzoo_acme_weights/
        __init__.py        registers the source
        weights.json       the manifest
        files/SHA256       config.json, index and shards of all its models

    @pvzoo.hookimpl
    def register_weight_sources(register):
        register("acme/weights", build="pvzoo_acme_weights:source", manifest=files(__name__) / "weights.json")

    def source(params):
        from pvzoo.hub.packages import Packaged
        return Packaged(files(__name__))

Models are stored in shards, one for each branch of each modality and one for the rest, in the standard form with
``model.safetensors.index.json``. A branch that several models have, such as a frozen one, is the same shard, and so is
in the package once.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ..catalog import split_tag
from ..errors import WeightsError
from ..manifest import CONFIG, INDEX, Facts, Manifest, Weights, read_manifest
from ..tensorfile import METADATA_KEY, read_tensors, replacing
from ..weights import Files, files_in, read_files
from . import verify
from .verify import Build

MANIFEST, FILES = "weights.json", "files"


class Packaged:
    """The weight source of such a package.

    Args:
        root: The folder of the package: ``importlib.resources.files(__name__)``.
    """

    def __init__(self, root: Any) -> None:
        self.root = Path(str(root))

    def find(self, name: str, tag: str | None) -> Files | None:
        """The files of a model; those that are missing are named by whoever checks the digests."""
        found = read_manifest(self.root / MANIFEST).weights.get(f"{name}.{tag}")
        if found is None:
            return None
        return {file: self.root / FILES / about.sha256 for file, about in found.files.items()}


def add(root: Path, folder: Path, name: str, facts: Facts, *, repo: str, revision: str, build: Build) -> Weights:
    """Adds a saved model to a package.

    Args:
        root: Folder of the package; made if it does not exist.
        folder: As ``model.save`` wrote it.
        name: ``"model.tag"``; one that is there already is replaced.
        facts: What its author says of it.
        repo: Repository on the Hub that will have the same files.
        revision: Their tag there.
        build: ``Model``.

    Returns:
        The entry, as it stands in the package's manifest now.

    Raises:
        WeightsError: If the folder holds no whole model, or one of another name.
    """
    saved, _ = read_files(files_in(folder), str(folder))
    if saved.get("name") != split_tag(name)[0]:
        raise WeightsError(f"{folder}: holds {saved.get('name') or 'a model without a name'}, not {split_tag(name)[0]}")
    with tempfile.TemporaryDirectory() as temporary:
        files = shard(folder, Path(temporary))
        entry = verify.describe(files, facts, repo=repo, revision=revision, build=build)
        (root / FILES).mkdir(parents=True, exist_ok=True)
        for file, about in entry.files.items():
            place = root / FILES / about.sha256
            if not place.exists():
                with replacing(place) as new:
                    shutil.copyfile(files[file], new)
    manifest = root / MANIFEST
    known: Mapping[str, Weights] = read_manifest(manifest).weights if manifest.exists() else {}
    weights = {**known, name: entry}
    with replacing(manifest) as new:
        new.write_text(Manifest(weights=weights).to_json(), encoding="utf-8")
    used = {file.sha256 for each in weights.values() for file in each.files.values()}
    for place in (root / FILES).iterdir():
        if place.name not in used:
            place.unlink()  # of an entry that was replaced
    return entry


def shard(folder: Path, into: Path) -> Files:
    """Writes a saved model again with its weights in several files; returns these.

    Args:
        folder: As ``model.save`` wrote it.
        into: Another folder, which exists.
    """
    _, header = read_files(files_in(folder), str(folder))
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for tensor in header.tensors:
        parts = tensor.split(".")
        groups["-".join(parts[1:3]) if parts[0] == "branches" else "rest"].append(tensor)
    names = {
        group: f"model-{number:05}-of-{len(groups):05}.safetensors" for number, group in enumerate(sorted(groups), 1)
    }
    size = 0
    for group, members in groups.items():
        tensors = read_tensors(header, members)
        size += sum(tensor.nbytes for tensor in tensors.values())
        save_file(tensors, into / names[group], metadata={"format": "pt"})
    index = {
        "metadata": {"total_size": size, METADATA_KEY: header.about.model_dump_json()},
        "weight_map": {tensor: names[group] for group in sorted(groups) for tensor in sorted(groups[group])},
    }
    (into / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    shutil.copyfile(folder / CONFIG, into / CONFIG)
    return files_in(into)
