"""What a training starts from: a saved model, or pretrained weights by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import catalog, weights
from ..errors import PvzooError, UnknownNameError
from ..hub import digests, sources
from ..manifest import CONFIG, INDEX
from ..tensorfile import Header
from ..zoo import Access
from .recipe import Recipe


@dataclass(frozen=True)
class Start:
    """A model to start from.

    Attributes:
        name: The path, or the name with the tag of its weights.
        header: Of the weights.
        files: Those of the model, by name.
    """

    name: str
    header: Header
    files: Mapping[str, Path]

    def facts(self) -> dict[str, Any]:
        """As ``run.json`` has it: which bytes they were."""
        files = {
            n: path for n, path in sorted(self.files.items()) if n in (CONFIG, INDEX) or path in self.header.states
        }
        return {"name": self.name, "sha256": {name: digests.sha256(path) for name, path in files.items()}}


def find_start(name: str) -> Start:
    """Finds a model to start from.

    Args:
        name: A saved folder or weights file; a model of :func:`pvzoo.list_models`, perhaps with a tag; or
            ``"hf-hub:NAMESPACE/NAME"``. A folder goes before a model of the same name.

    Raises:
        PvzooError: If there is neither; or as :func:`pvzoo.hub.sources.find`.
        WeightsError: If they are damaged.
    """
    path = Path(name).expanduser()
    if weights.is_folder(path):
        return Start(name, weights.header_at(path), weights.files_in(path))
    if path.exists() or path.suffix == ".safetensors":
        return Start(name, weights.header_at(path), {path.name: path})
    if name.startswith("hf-hub:"):
        files = sources.repository(name, None, Access())
        return Start(name, weights.read_files(files, name)[1], files)
    try:
        model = catalog.find_model(name).name
    except UnknownNameError as error:
        raise PvzooError(f"init {name}: there is no such folder, and {error}") from error
    tag = catalog.split_tag(name)[1] or next(iter(catalog.tags(model)), None)
    files = sources.find(model, tag, Access())
    return Start(f"{model}.{tag}", weights.read_files(files, name)[1], files)


def find_starts(recipe: Recipe) -> None:
    """Looks for everything that a recipe and its steps start from.

    Raises:
        PvzooError: As :func:`find_start`.
    """
    for each in (recipe, *recipe.steps.values()):
        for name in each.init:
            find_start(name)
