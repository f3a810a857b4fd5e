"""Making models: by name, from a spec, from a saved folder or file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from . import catalog, weights
from .errors import Problem, PvzooError, SpecError, UnknownNameError, WeightsError
from .hub import sources
from .manifest import CONFIG, explain
from .model import Model
from .specs import ModelSpec, Source, load_spec, names_file
from .tensorfile import Header, by_a_later, read_header
from .zoo import Access

SpecLike = str | PathLike[str] | Mapping[str, Any] | ModelSpec


def create(
    name_or_spec: SpecLike,
    *,
    pretrained: bool | str | PathLike[str] = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    offline: bool = False,
    cache_dir: str | PathLike[str] | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    **overrides: Any,
) -> Model:
    """Creates a model, in eval mode.

    Args:
        name_or_spec: A name of :func:`~pvzoo.list_models`, with a weights tag after a dot if wanted; a path of a YAML
            or JSON spec; a mapping; a :class:`~pvzoo.ModelSpec`; or a model with its weights: ``"local-dir:PATH"``, a
            folder that ``model.save`` wrote, or ``"hf-hub:NAMESPACE/NAME"``, a repository that ``model.push_to_hub``
            wrote, with ``@REVISION`` behind it if wanted.
        pretrained: Load the zoo's weights: ``True`` for the tag in the name or the default one, or a tag; or a path,
            with a ``/`` in it, of a saved folder or ``.safetensors`` file of this model.
        num_classes: Identities of the head; 0 for no head. A saved model gets a new class matrix.
        in_chans: Channels of the images.
        image_size: Height and width in pixels.
        device: Where the model goes; the CPU by default.
        dtype: Floating-point type; float32, or that of the saved model, by default.
        offline: Load weights that are on this machine, and use no network.
        cache_dir: Cache of the Hugging Face Hub, if not its usual one.
        revision: Branch, tag or commit of an ``hf-hub:`` repository.
        token: For private and gated repositories; the one that you logged in with by default.
        **overrides: Fields of the spec by dotted path: ``**{"fusion.local": "concat"}``.

    Raises:
        UnknownNameError: No model or component has the name; with a suggestion.
        SpecError: The spec or an override is wrong; lists every fault.
        WeightsError: There are no such weights, or they are not those of the model.
        IntegrityError: A file of weights is not the one that was published.
        HubError: The weights are on the Hugging Face Hub alone, and cannot be had from there.
        PluginError: The model's plugin is installed and cannot be used.
    """
    changes = _changes(num_classes, in_chans, image_size, overrides)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise PvzooError(f"dtype must be a floating-point type such as torch.bfloat16, not {dtype!r}")
    access = _access(offline, cache_dir, token)
    scheme = name_or_spec.partition(":")[0] if isinstance(name_or_spec, str) else ""
    if revision is not None and scheme != "hf-hub":
        raise PvzooError("revision belongs to 'hf-hub:' names; the zoo's weights are pinned by their tags")
    if isinstance(name_or_spec, str) and scheme in ("hf-hub", "local-dir"):
        if pretrained:
            raise PvzooError(f"{name_or_spec!r} has weights of its own; leave out pretrained")
        if scheme == "hf-hub":
            found = sources.repository(name_or_spec, revision, access)
            return _from_files(found, name_or_spec, changes, device, dtype)
        folder = Path(name_or_spec.removeprefix("local-dir:")).expanduser()
        return _from_files(weights.files_in(folder), str(folder), changes, device, dtype)
    if pretrained:
        if not isinstance(name_or_spec, str) or names_file(name_or_spec):
            raise PvzooError("pretrained weights belong to names of the zoo; a spec of your own has none")
        name, tag = catalog.split_tag(name_or_spec)
        name = catalog.find_model(name).name
        if isinstance(pretrained, PathLike) or (isinstance(pretrained, str) and _leads_to_a_file(pretrained)):
            path = Path(pretrained).expanduser()
            if not weights.is_folder(path) and path.exists():
                header = read_header(path)
                return _placed(_loaded(path, weights.spec_of(header), header, changes, dtype, name), device)
            return _from_files(weights.files_in(path), str(path), changes, device, dtype, name)
        if isinstance(pretrained, str):
            if tag not in (None, pretrained):
                raise PvzooError(f"{name_or_spec!r} names weights, and pretrained={pretrained!r} names others")
            if pretrained not in catalog.tags(name) and weights.is_folder(Path(pretrained)):
                raise PvzooError(f"{name} has no weights tagged {pretrained!r}; the folder is './{pretrained}'")
            tag = pretrained
        found = sources.find(name, tag, access)
        return _from_files(found, f"{name}.{tag}" if tag else name, changes, device, dtype, name)
    spec = load_spec(_source(name_or_spec), changes)
    on = torch.device("meta") if device is not None and torch.device(device).type == "meta" else nullcontext()
    with on, weights.no_collection():
        model = Model(spec)
    return model.to(device=device, dtype=dtype).eval()


def load(
    path: str | PathLike[str],
    *,
    num_classes: int | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    **overrides: Any,
) -> Model:
    """Loads a ``model.safetensors`` file that holds its own spec, in eval mode; arguments as for :func:`create`.

    Raises:
        WeightsError: If the file is damaged, holds no spec, or does not match it.
    """
    header = read_header(Path(path).expanduser())
    changes = _changes(num_classes, None, None, overrides)
    return _placed(_loaded(header.path, weights.spec_of(header), header, changes, dtype), device)


def _from_files(
    files: weights.Files,
    where: str,
    changes: Mapping[str, Any],
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    name: str | None = None,
) -> Model:
    saved, header = weights.read_files(files, where)
    return _placed(_loaded(files[CONFIG], saved, header, changes, dtype, name), device)


def _loaded(
    source: Path,
    saved: Mapping[str, Any],
    header: Header,
    changes: Mapping[str, Any],
    dtype: torch.dtype | None,
    name: str | None = None,
) -> Model:
    if name is not None and saved.get("name") != name:
        found = f"holds {saved.get('name') or 'a model without a name'}, not {name}"
        way = f"load({str(source)!r})" if source.suffix == ".safetensors" else f"create('local-dir:{source.parent}')"
        raise WeightsError(f"{source.parent}: {found}; pvzoo.{way} takes it as it is")
    try:
        spec = load_spec(Source(str(source), dict(saved)), changes)
    except SpecError as error:
        if later := by_a_later(header.about.pvzoo):
            raise SpecError([Problem("", later, str(header.path)), *error.problems]) from error
        raise
    with nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu"):
        return weights.load_model(spec, header, Model, dtype)


def _placed(model: Model, device: str | torch.device | None) -> Model:
    where = torch.device(torch.get_default_device() if device is None else device)
    # Weights are read on the CPU. Even a move to where it is costs a walk over two thousand tensors.
    return (model if where.type == "cpu" else model.to(where)).eval()


def _access(offline: bool, cache_dir: str | PathLike[str] | None, token: str | bool | None) -> Access:
    folder = Path(cache_dir).expanduser() if isinstance(cache_dir, str | PathLike) else cache_dir
    try:
        return Access.model_validate({"offline": offline, "cache_dir": folder, "token": token})
    except ValidationError as error:
        raise PvzooError("; ".join(explain(error))) from error


def _source(name_or_spec: SpecLike) -> Source | Mapping[str, Any] | ModelSpec:
    if isinstance(name_or_spec, ModelSpec | Mapping):
        return name_or_spec
    if not isinstance(name_or_spec, str | PathLike):
        kinds = "a name, a path, a mapping or a ModelSpec"
        raise PvzooError(f"a model is created from {kinds}, not from {name_or_spec!r}")
    path = Path(name_or_spec).expanduser()
    try:
        if isinstance(name_or_spec, PathLike) or names_file(name_or_spec):
            return Source.from_file(path)
        return catalog.source(name_or_spec)
    except (SpecError, UnknownNameError) as error:
        if name_or_spec and weights.is_folder(path):
            hint = f"write 'local-dir:{name_or_spec}' to load a saved model"
            raise PvzooError(f"{str(name_or_spec)!r} is a folder; {hint}") from error
        if path.suffix == ".safetensors":
            raise PvzooError(f"{str(name_or_spec)!r} is a file of weights; use pvzoo.load({str(path)!r})") from error
        raise


def _leads_to_a_file(text: str) -> bool:
    """A tag has no separator in it; ``./runs`` is a folder."""
    return any(separator in text for separator in {"/", os.sep}) or text.endswith(".safetensors") or text == "~"


def _changes(
    num_classes: int | None,
    in_chans: int | None,
    image_size: int | tuple[int, int] | None,
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    """The named arguments as overrides of the spec."""
    changes = dict(overrides)
    if in_chans is not None:
        changes["preprocessing.channels"] = in_chans
    if image_size is not None:
        changes["preprocessing.size"] = list(image_size) if isinstance(image_size, tuple) else image_size
    if num_classes == 0:
        changes = {"head": "none", "num_classes": None, **changes}
    elif num_classes is not None:
        changes["num_classes"] = num_classes
    return changes
