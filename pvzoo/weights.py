"""Weights on disk: written whole, loaded exactly or not at all.

A saved folder holds ``config.json`` (the resolved spec), ``model.safetensors`` (tensors, and the spec again inside
its metadata) and ``README.md``. Only safetensors is read; there is no pickle path.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import __version__
from .card import render
from .errors import WeightsError
from .manifest import CARD, CONFIG, INDEX, WEIGHTS
from .specs import ModelSpec, Source, load_spec
from .tensorfile import METADATA_KEY, Header, read_header, read_index, read_tensors, replacing
from .threshold import Threshold

if TYPE_CHECKING:
    from .model import Model

Files = Mapping[str, Path]
"""Where the files of a saved model are, by their names in its folder."""


@dataclass(frozen=True)
class LoadReport:
    """What a load did, by tensor name. Every tensor of the model is in ``loaded`` or ``initialised``.

    Attributes:
        source: The file or files.
        loaded: Taken from the file.
        adapted: Those of ``loaded`` whose floating-point type was converted.
        initialised: Not taken from the file, but random: the class matrix when the head or ``num_classes`` changed.
        skipped: In the file and not used.
        untrained: Whether the file says that its weights were never trained.
        thresholds: Those that the file carries.
    """

    source: str
    loaded: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    initialised: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    untrained: bool = False
    thresholds: tuple[Threshold, ...] = ()

    def __str__(self) -> str:
        counts = ", ".join(
            f"{len(getattr(self, name))} {name}" for name in ("loaded", "adapted", "initialised", "skipped")
        )
        return f"{self.source}: {counts}"


@dataclass
class _Plan:
    """Which tensors of a file go where."""

    take: list[str] = field(default_factory=list)
    initialised: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


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
    tensors = _own_tensors(model)
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
    floats = {str(t.dtype).removeprefix("torch.") for t in _own_tensors(model).values() if t.is_floating_point()}
    about = {
        "spec": spec,
        "dtype": floats.pop() if len(floats) == 1 else None,
        "derived": _derived(model),
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
    if not directory.is_dir():
        raise WeightsError(f"{directory}: no such folder; it should hold {CONFIG} and {WEIGHTS}")
    try:
        return {path.name: path for path in sorted(directory.iterdir()) if path.is_file()}
    except OSError as error:
        raise WeightsError(f"{directory}: cannot be read: {error.strerror or error}") from error


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
    except (OSError, ValueError) as error:
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
    if not path.is_dir() or (path / WEIGHTS).exists() or not (path / INDEX).exists():
        return read_header(path / WEIGHTS if path.is_dir() else path)
    return read_index(path / INDEX, files_in(path))


def spec_of(header: Header) -> dict[str, Any]:
    """The spec inside a weights file.

    Raises:
        WeightsError: If there is none.
    """
    if header.about.spec is None:
        raise WeightsError(f"{header.path}: holds no pvzoo spec; build a model and use model.load_weights")
    return header.about.spec


@contextmanager
def no_collection() -> Iterator[None]:
    """Inside, Python does not look for garbage: building and loading make none.

    In a process with torch, a full collection takes as long as loading a model, and would come once or twice in it.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@no_collection()
def load_model(spec: ModelSpec, header: Header, build: Callable[..., Model], dtype: torch.dtype | None = None) -> Model:
    """Builds a model straight from a file: nothing is initialised that is loaded afterwards.

    Args:
        spec: What to build; the class matrix is new if it names another head or number of classes than the file.
        header: The file.
        build: ``Model``.
        dtype: Floating-point type; that of the model that was saved by default.

    Raises:
        WeightsError: If the file's tensors are not those of the model.
    """
    fresh = ["head"] if header.about.spec is not None and _head_changed(spec, header.about.spec) else []
    model = build(spec, init=fresh)
    plan = _match(_own_tensors(model), header, initialise=fresh)
    target = dtype or (getattr(torch, header.about.dtype) if header.about.dtype else None)
    report = _report(header, plan, target)
    _assign(model, read_tensors(header, plan.take, target))
    if target not in (None, torch.get_default_dtype()):
        model.to(target)  # the buffers that no file holds
    if header.about.spec == spec.to_dict() and (dtype is None or str(dtype) == f"torch.{header.about.dtype}"):
        _check_derived(model, header)
    model.set_load_report(report)
    return model


def load_into(model: Model, path: Path) -> LoadReport:
    """Copies a file's tensors into a model that exists; see ``Model.load_weights``."""
    header = header_at(path)
    own = _own_tensors(model)
    _refuse_meta(model)
    _compare_specs(model.spec, header, ("preprocessing", *_COMPUTED))
    plan = _match(own, header)
    _copy(own, read_tensors(header, plan.take))
    _refresh(model)
    return _report(header, plan, model.dtype)


def load_branches(model: Model, sources: Sequence[tuple[str, Header]], *, any_size: bool = False) -> LoadReport:
    """Fills all branches of a model from models that were saved apart, such as four stage-1 models.

    Only tensors under ``branches.`` are taken; alignment, fusion and head stay as they are. A model of one modality
    also takes the branches of one other modality: the lines of a palmprint are a better start for veins than noise.

    Args:
        model: The model to fill; untouched if anything is wrong.
        sources: Headers of their weights, each with what messages call it.
        any_size: Whether they may be of another image size, as what a training starts from may.

    Raises:
        WeightsError: If a branch is missing, comes twice, is not in the model, or has other tensors.
    """
    _refuse_meta(model)
    own = {name: tensor for name, tensor in _own_tensors(model).items() if name.startswith("branches.")}
    owners: dict[str, str] = {}
    taken: list[tuple[Header, list[str]]] = []
    skipped: list[str] = []
    for source, found in sources:
        header = _in_modality(found, model.spec.modalities)
        names = [name for name in header.tensors if name.startswith("branches.")]
        branches = sorted({_branch(name) for name in names})
        if not branches:
            raise WeightsError(f"{source}: holds no branches; its tensors do not begin with 'branches.'")
        for branch in branches:
            if branch in owners:
                raise WeightsError(f"branch {branch} comes twice, from {owners[branch]} and {source}")
            if branch not in {_branch(name) for name in own}:
                has = ", ".join(sorted({_branch(name) for name in own}))
                raise WeightsError(f"{source}: branch {branch} is not in the model, which has {has}")
            owners[branch] = source
        _compare_specs(model.spec, header, ("preprocessing",), any_size=any_size)
        part = {name: tensor for name, tensor in own.items() if _branch(name) in branches}
        _match(part, replace(header, tensors={name: header.tensors[name] for name in names}))
        taken.append((header, names))
        skipped += [name for name in header.tensors if name not in names]
    absent = sorted({_branch(name) for name in own} - set(owners))
    if absent:
        raise WeightsError(f"no source holds branch {', '.join(absent)}; give one for every branch of the model")
    # Alignment, fusion and head stay as they are: random, unless the model was trained before.
    untrained = model.untrained
    for tensors in [read_tensors(header, part) for header, part in taken]:
        _copy(own, tensors)
    _refresh(model)
    untaken = tuple(name for name in _own_tensors(model) if name not in own)
    loaded = tuple(name for _, part in taken for name in part)
    label = ", ".join(source for source, _ in sources)
    return LoadReport(label, loaded, initialised=untaken, skipped=tuple(skipped), untrained=untrained)


def _in_modality(header: Header, modalities: Sequence[str]) -> Header:
    """The header with its branches under the model's modality, where both have one, and not the same."""
    theirs = {name.split(".")[1] for name in header.tensors if name.startswith("branches.")}
    if len(theirs) != 1 or len(modalities) != 1:
        return header
    old, new = f"branches.{theirs.pop()}.", f"branches.{modalities[0]}."
    names = {name: new + name.removeprefix(old) if name.startswith(old) else name for name in header.tensors}
    tensors = {names[name]: tensor for name, tensor in header.tensors.items()}
    return replace(header, tensors=tensors, places={names[name]: place for name, place in header.places.items()})


_COMPUTED = ("modalities", "branches", "share_branches", "fusion", "embedding", "head", "num_classes")


def _compare_specs(spec: ModelSpec, header: Header, fields: Sequence[str], *, any_size: bool = False) -> None:
    """Refuses weights that were made for another computation, although the tensors may fit.

    Raises:
        WeightsError: Naming the fields of the file's spec that differ.
    """
    if header.about.spec is None:
        return
    saved = load_spec(Source(str(header.path), header.about.spec)).model_dump(mode="json", include=set(fields))
    own = spec.model_dump(mode="json", include=set(fields))
    if any_size:
        saved["preprocessing"]["size"] = own["preprocessing"]["size"]
    differing = [field for field in fields if saved[field] != own[field]]
    if differing:
        message = f"{header.path}: was saved from a model with other {', '.join(differing)}"
        raise WeightsError(f"{message}; nothing was loaded ('pvzoo resolve' shows a model's spec)")


def _branch(name: str) -> str:
    """``branches.palm.local.net.stem`` -> ``palm.local``."""
    return ".".join(name.split(".")[1:3])


def _head_changed(spec: ModelSpec, saved: Mapping[str, Any]) -> bool:
    """Whether the class matrix cannot be that of the file. A new margin or scale leaves it as it is."""
    head = saved.get("head", "none")
    name = head.get("name") if isinstance(head, Mapping) else head
    return str(name).partition("@")[0] != spec.head.name or saved.get("num_classes") != spec.num_classes


def _own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model by name, tied ones once, under their first name."""
    own: dict[str, Tensor] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            raise WeightsError(f"{name} is extra state of a component, not a tensor; safetensors cannot hold it")
        if seen.setdefault(_identity(tensor), name) == name:
            own[name] = tensor
    return own


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for tensors that are the same memory read in the same way."""
    if tensor.is_meta or not tensor.numel():
        return (id(tensor),)
    return (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)


def _match(own: Mapping[str, Tensor], header: Header, initialise: Collection[str] = ()) -> _Plan:
    """Compares names, shapes and types of model and file; nothing is read, nothing is changed.

    Raises:
        WeightsError: Listing what is missing, unexpected, and of another shape or type.
    """
    plan = _Plan()
    allowed = tuple(f"{part}." for part in initialise)
    faults: list[str] = []
    for name, tensor in own.items():
        if allowed and name.startswith(allowed):
            plan.initialised.append(name)
        elif name not in header.tensors:
            faults.append(f"missing {name} {tuple(tensor.shape)}")
        else:
            dtype, shape = header.tensors[name]
            if shape != tuple(tensor.shape):
                faults.append(f"{name} is {shape} in the file and {tuple(tensor.shape)} in the model")
            elif dtype != tensor.dtype and not (dtype.is_floating_point and tensor.is_floating_point()):
                faults.append(f"{name} is {dtype} in the file and {tensor.dtype} in the model")
            plan.take.append(name)
    for name, (_, shape) in header.tensors.items():
        if name not in own or name in plan.initialised:
            if allowed and name.startswith(allowed):
                plan.skipped.append(name)
            else:
                faults.append(f"unexpected {name} {shape}")
    if faults:
        shown = "".join(f"\n  {fault}" for fault in faults[:8])
        more = f"\n  and {len(faults) - 8} more" if len(faults) > 8 else ""
        total = f"{len(header.tensors)} tensors in the file, {len(own)} in the model"
        raise WeightsError(f"{header.path}: not the weights of this model ({total}):{shown}{more}")
    return plan


def _report(header: Header, plan: _Plan, target: torch.dtype | None) -> LoadReport:
    adapted = tuple(
        name
        for name in plan.take
        if target is not None and header.tensors[name][0].is_floating_point and header.tensors[name][0] != target
    )
    return LoadReport(
        str(header.path),
        tuple(plan.take),
        adapted,
        tuple(plan.initialised),
        tuple(plan.skipped),
        header.about.untrained,
        header.about.thresholds,
    )


def _assign(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts tensors in the places of a model's own without a copy; tied parameters stay tied."""
    places: dict[str, list[tuple[nn.Module, str]]] = {}
    canonical: dict[tuple[Any, ...], str] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for store in (module._parameters, module._buffers):
            for key, tensor in store.items():
                name = f"{prefix}.{key}" if prefix else key
                if tensor is not None and key not in module._non_persistent_buffers_set:
                    places.setdefault(canonical.setdefault(_identity(tensor), name), []).append((module, key))
    for name, tensor in tensors.items():
        value: Tensor | None = None
        for module, key in places[name]:
            old = module._parameters.get(key)
            if old is None:
                module._buffers[key] = tensor
            else:
                value = nn.Parameter(tensor, requires_grad=old.requires_grad) if value is None else value
                module._parameters[key] = value  # type: ignore[assignment]


@torch.no_grad()
def _copy(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


def _refuse_meta(model: nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta:
            message = f"{name} is on the meta device, and non-persistent buffers would stay there with wrong values"
            raise WeightsError(f"{message}; create the model on a real device to load weights")


def _refresh(model: nn.Module) -> None:
    """Lets modules drop what they derived from old weights: those that keep such things do so in ``train``."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(model.training)
    for module, mode in modes:
        module.training = mode


def _derived(model: nn.Module) -> dict[str, str]:
    """Digests of the buffers that no file holds: components compute them anew, and should get the same."""
    digests: dict[str, str] = {}
    for prefix, module in model.named_modules():
        for key in sorted(module._non_persistent_buffers_set):
            buffer = module._buffers.get(key)
            if buffer is not None:
                data = buffer.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
                digests[f"{prefix}.{key}"] = hashlib.sha256(data.tobytes()).hexdigest()[:16]
    return digests


def _check_derived(model: nn.Module, header: Header) -> None:
    """Refuses a model whose non-persistent buffers are not those of the model that was saved."""
    for name, digest in _derived(model).items():
        if header.about.derived.get(name, digest) != digest:
            message = f"{name} is not saved, and computing it anew gave other values than the saved model had"
            raise WeightsError(f"{header.path}: {message}; its component must make it a persistent buffer")


def first_values(model: nn.Module) -> list[Tensor]:
    """One value of every parameter: enough to tell whether a model still has its first weights."""
    return [p.detach().flatten()[:1].cpu().clone() for p in model.parameters() if p.numel() and not p.is_meta]


def unchanged(model: nn.Module, values: Sequence[Tensor]) -> bool:
    """Whether a model has those values still, perhaps in another floating-point type."""
    now = first_values(model)
    return len(now) == len(values) and all(
        torch.equal(old.to(new.dtype), new) for old, new in zip(values, now, strict=True)
    )


class skip_init(TorchFunctionMode):  # noqa: N801  # used like a function: with skip_init():
    """Inside, initialisation of parameters does nothing, for parameters that are loaded afterwards.

    It is nearly all of the time that building ConvNeXt takes, and what is not written costs no memory yet. Buffers,
    also those that no file holds, are still computed as always.
    """

    # The steps of initialisers, of timm's too: a truncated normal is drawn, scaled, moved and clamped in place.
    _STEPS = frozenset(
        ("uniform_", "normal_", "erfinv_", "exponential_", "log_normal_", "cauchy_", "mul_", "add_", "clamp_")
    )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or getattr(func, "__name__", "") in self._STEPS:
            target = args[0] if args else kwargs.get("tensor")
            if isinstance(target, nn.Parameter):
                return target
        return func(*args, **kwargs)
