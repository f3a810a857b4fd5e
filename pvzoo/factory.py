"""Making models: by name, from a spec, from a saved folder or file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from . import catalog, weights
from .errors import PvzooError, SpecError, UnknownNameError, WeightsError
from .model import Model
from .plugins import host
from .registry import WeightSource
from .specs import ModelSpec, Source, load_spec
from .tensorfile import read_header

SpecLike = str | PathLike[str] | Mapping[str, Any] | ModelSpec
SPEC_SUFFIXES = (".yaml", ".yml", ".json")


def create(
    name_or_spec: SpecLike,
    *,
    pretrained: bool | str = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    **overrides: Any,
) -> Model:
    """Creates a model, in eval mode.

    Args:
        name_or_spec: A name of :func:`~pvzoo.list_models`, with a weights tag after a dot if wanted; a path of a YAML
            or JSON spec; a mapping; a :class:`~pvzoo.ModelSpec`; or ``"local-dir:PATH"``, a folder that
            ``model.save`` wrote, whose weights are loaded.
        pretrained: Load the zoo's weights: ``True`` for the tag in the name or the default one, or a tag.
        num_classes: Identities of the head; 0 for no head. A saved model gets a new class matrix.
        in_chans: Channels of the images.
        image_size: Height and width in pixels.
        device: Where the model goes; the CPU by default.
        dtype: Floating-point type; float32, or that of the saved model, by default.
        **overrides: Fields of the spec by dotted path: ``**{"fusion.local": "concat"}``.

    Raises:
        UnknownNameError: No model or component has the name; with a suggestion.
        SpecError: The spec or an override is wrong; lists every fault.
        WeightsError: There are no such weights, or they are not those of the model.
        PluginError: The model's plugin is installed and cannot be used.
    """
    changes = _changes(num_classes, in_chans, image_size, overrides)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise PvzooError(f"dtype must be a floating-point type such as torch.bfloat16, not {dtype!r}")
    if isinstance(name_or_spec, str) and name_or_spec.startswith("hf-hub:"):
        raise PvzooError(f"{name_or_spec!r}: loading from the Hugging Face Hub is not part of this version of pvzoo")
    if isinstance(name_or_spec, str) and name_or_spec.startswith("local-dir:"):
        if pretrained:
            raise PvzooError(f"{name_or_spec!r} has weights of its own; leave out pretrained")
        return _from_folder(Path(name_or_spec.removeprefix("local-dir:")).expanduser(), changes, device, dtype)
    if pretrained:
        if not isinstance(name_or_spec, str) or _is_path(name_or_spec):
            raise PvzooError("pretrained weights belong to names of the zoo; a spec of your own has none")
        name, tag = catalog.split_tag(name_or_spec)
        catalog.find_model(name)
        if isinstance(pretrained, str):
            if tag not in (None, pretrained):
                raise PvzooError(f"{name_or_spec!r} names weights, and pretrained={pretrained!r} names others")
            tag = pretrained
        return _from_folder(_pretrained(name, tag), changes, device, dtype, name=name)
    spec = load_spec(_source(name_or_spec), changes)
    place = torch.device("meta") if device is not None and torch.device(device).type == "meta" else nullcontext()
    with place, weights.no_collection():
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
    spec = load_spec(Source(str(path), weights.spec_of(header)), _changes(num_classes, None, None, overrides))
    return _placed(weights.load_model(spec, header, Model, dtype), device)


def _from_folder(
    folder: Path,
    changes: Mapping[str, Any],
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    name: str | None = None,
) -> Model:
    saved, header = weights.read_folder(folder)
    if name is not None and saved.get("name") != name:
        raise WeightsError(f"{folder}: holds {saved.get('name') or 'a model without a name'}, not {name}")
    spec = load_spec(Source(str(folder / weights.CONFIG), saved), changes)
    return _placed(weights.load_model(spec, header, Model, dtype), device)


def _placed(model: Model, device: str | torch.device | None) -> Model:
    # Even a move to where it is costs a walk over two thousand tensors.
    return (model if device is None else model.to(device)).eval()


def _pretrained(name: str, tag: str | None) -> Path:
    """Asks the weight sources in turn for a model's folder."""
    for entry in host().entries("weight_source"):
        assert isinstance(entry, WeightSource)
        first = next((tag for model, tag in map(catalog.split_tag, entry.provides) if model == name), None)
        source = entry.create(entry.params())
        try:
            found = source.find(name, tag or first)
        except PvzooError:
            raise
        except (Exception, SystemExit) as error:
            message = f"{entry.label} failed to find {name}: {type(error).__name__}: {error}"
            raise WeightsError(message) from error
        if found is not None:
            return Path(found)
    message = (
        f"there are no pretrained weights for {name}.{tag}" if tag else f"there are no pretrained weights for {name}"
    )
    raise WeightsError(f"{message}; pvzoo.list_models(pretrained=True) lists those that installed sources provide")


def _source(name_or_spec: SpecLike) -> Source | Mapping[str, Any] | ModelSpec:
    if isinstance(name_or_spec, ModelSpec | Mapping):
        return name_or_spec
    if not isinstance(name_or_spec, str | PathLike):
        kinds = "a name, a path, a mapping or a ModelSpec"
        raise PvzooError(f"a model is created from {kinds}, not from {name_or_spec!r}")
    path = Path(name_or_spec).expanduser()
    try:
        if isinstance(name_or_spec, PathLike) or _is_path(name_or_spec):
            return Source.from_file(path)
        return catalog.source(name_or_spec)
    except (SpecError, UnknownNameError) as error:
        if name_or_spec and path.is_dir():
            hint = f"write 'local-dir:{name_or_spec}' to load a saved model"
            raise PvzooError(f"{str(name_or_spec)!r} is a folder; {hint}") from error
        if path.suffix == ".safetensors":
            raise PvzooError(f"{str(name_or_spec)!r} is a file of weights; use pvzoo.load({str(path)!r})") from error
        raise


def _is_path(name: str) -> bool:
    return name.endswith(SPEC_SUFFIXES)


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
