"""Names to components: one :class:`Registry` class, one instance a kind.

An entry is light: it knows a component's name, its parameters, and what goes in and comes out, but the code that
builds it stands in another module as ``"package.module:attribute"`` and is imported when a model is built. So all of
pvzoo can be listed, described and checked without torch.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from .errors import BuildError, RegistrationError, UnknownNameError, WeightsError, nearest
from .manifest import Weights, read_manifest
from .shapes import BackboneShape, FeatureKind, Shape

BUILTIN = "pvzoo"
NAME_RULE = "names are lower-case letters, digits, '_' and '-', from a letter on"
_NAME = re.compile(r"[a-z][a-z0-9_]*(-[a-z0-9_]+)*")
_OBJECT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_REFERENCE = re.compile(r"(?:(?P<vendor>[^/@]+)/)?(?P<name>[^/@]+)(?:@(?P<revision>\d+))?")


class Params(BaseModel):
    """Base of every component's parameters: frozen, no unknown fields, finite numbers only.

    Example:
        >>> class GatedParams(Params):
        ...     heads: int = Field(4, gt=0, description="number of gates")
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class NoParams(Params):
    """For components that take no parameters."""


@dataclass(frozen=True)
class Origin:
    """The plugin that registered an entry: its vendor prefix, and the distribution it was installed from."""

    vendor: str = BUILTIN
    distribution: str = ""
    version: str = ""

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}" if self.distribution else self.vendor


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of one registered name.

    Attributes:
        name: Full name, ``"acme/gated"``; built-ins have no vendor prefix.
        revision: Raised when parameters or numerics change; a saved spec pins it.
        summary: One line for lists.
        origin: Who registered it.
    """

    kind: ClassVar[str]
    name: str
    summary: str = ""
    revision: int = 1
    origin: Origin = field(default_factory=Origin)

    def __post_init__(self) -> None:
        if type(self.revision) is not int or self.revision < 1:
            raise RegistrationError(f"{self}: revision must be a whole number from 1, not {self.revision!r}")
        if not isinstance(self.summary, str):
            raise RegistrationError(f"{self}: summary must be text, not {self.summary!r}")
        for trait in ("out", "out_dim", "parameters"):
            if hasattr(self, trait) and not callable(getattr(self, trait)):
                raise RegistrationError(f"{self}: {trait} must be a function, not {getattr(self, trait)!r}")

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"

    @property
    def label(self) -> str:
        """``fusion 'acme/gated' of pvzoo-acme 0.3``."""
        return f"{self} of {self.origin}" if self.origin.distribution else str(self)


@dataclass(frozen=True, kw_only=True)
class Component(Entry):
    """An entry that builds something.

    Attributes:
        build: ``"package.module:attribute"``, imported when a model is built; a callable serves notebooks and tests.
        params: Pydantic model of the parameters.
    """

    build: str | Callable[..., Any]
    params: type[Params] = NoParams

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_object("build", self.build)
        if not (isinstance(self.params, type) and issubclass(self.params, Params)):
            raise RegistrationError(f"{self}: params must be a subclass of pvzoo.Params, not {self.params!r}")

    def _check_object(self, trait: str, target: object) -> None:
        if not callable(target) and not (isinstance(target, str) and _OBJECT.fullmatch(target)):
            raise RegistrationError(f"{self}: {trait} must be 'package.module:attribute', not {target!r}")

    def builder(self) -> Callable[..., Any]:
        """Imports and returns the builder.

        Raises:
            BuildError: If it cannot be imported; names the component and the distribution that it came from.
        """
        with self._building():
            return load_object(self.build)

    def create(self, params: Params, **context: Any) -> Any:
        """Builds the component from checked parameters.

        Raises:
            BuildError: If its code raises; names the component and the distribution that it came from.
        """
        build = self.builder()
        with self._building():
            return build(params, **context)

    @contextmanager
    def _building(self) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit) as error:
            raise BuildError(f"{self.label} failed while it was built: {type(error).__name__}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Backbone(Component):
    """Builds ``forward(x, pool=True)``: image (N, C, H, W) to vector (N, D), or to map (N, D, h, w) without pooling.

    Attributes:
        shape: ``shape(params, in_chans, image_size) -> BackboneShape``, light; ``"module:attribute"`` where the
            answer needs heavy imports. Raises ``ValueError`` for an image that the backbone cannot take. Vector and
            map may differ in width.
        parameters: ``parameters(params, in_chans, image_size) -> int``, the number of trained values, so that an
            absurd size is refused before it is allocated. Optional.
    """

    kind = "backbone"
    shape: str | Callable[[Any, int, tuple[int, int]], BackboneShape]
    parameters: Callable[[Any, int, tuple[int, int]], int] = lambda params, in_chans, image_size: 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_object("shape", self.shape)

    def shape_of(self, params: Params, in_chans: int, image_size: tuple[int, int]) -> BackboneShape:
        shape: BackboneShape = load_object(self.shape)(params, in_chans, image_size)
        return shape


@dataclass(frozen=True, kw_only=True)
class _FeatureComponent(Component):
    """A component that takes vectors, maps, or both."""

    accepts: set[FeatureKind] | frozenset[FeatureKind]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.accepts or not set(self.accepts) <= {"vector", "map"}:
            raise RegistrationError(f"{self}: accepts must name 'vector', 'map' or both, not {self.accepts!r}")


@dataclass(frozen=True, kw_only=True)
class Alignment(_FeatureComponent):
    """Builds ``forward(x)``: vector to vector or map to map, so that modalities meet in one space.

    Attributes:
        accepts: ``{"vector"}``, ``{"map"}`` or both.
        out: ``out(params, shape) -> Shape``; the same shape by default.
        parameters: ``parameters(params, shape) -> int``, the number of trained values, so that an absurd size is
            refused before it is allocated. Optional.
    """

    kind = "alignment"
    out: Callable[[Any, Shape], Shape] = lambda params, shape: shape
    parameters: Callable[[Any, Shape], int] = lambda params, shape: 0


@dataclass(frozen=True, kw_only=True)
class Fusion(_FeatureComponent):
    """Builds ``forward(features)``: one vector or map a modality, all of one shape, to ``Fused(features, weights)``.

    Attributes:
        accepts: ``{"vector"}``, ``{"map"}`` or both.
        out_dim: ``out_dim(params, dims) -> int`` from the width of each modality; the first one's by default.
        missing: What it does when a modality is ``None``: ``"reweight"`` (the others get its weight), ``"ignore"``
            (combines what is there) or ``"refuse"`` (:class:`~pvzoo.errors.MissingModalityError`).
        parameters: ``parameters(params, modalities, dim) -> int``. Optional, as for alignments.
    """

    kind = "fusion"
    out_dim: Callable[[Any, Sequence[int]], int] = lambda params, dims: dims[0]
    missing: Literal["reweight", "ignore", "refuse"] = "refuse"
    parameters: Callable[[Any, int, int], int] = lambda params, modalities, dim: 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.missing not in ("reweight", "ignore", "refuse"):
            raise RegistrationError(f"{self}: missing must be 'reweight', 'ignore' or 'refuse', not {self.missing!r}")


@dataclass(frozen=True, kw_only=True)
class Head(Component):
    """Builds ``forward(embedding, labels=None)``: (N, D) to logits (N, num_classes); a margin acts only with labels.

    Attributes:
        classes: Whether it needs ``num_classes``.
        parameters: ``parameters(params, dim, num_classes) -> int``. Optional, as for alignments.
    """

    kind = "head"
    classes: bool = True
    parameters: Callable[[Any, int, int], int] = lambda params, dim, num_classes: 0


@dataclass(frozen=True, kw_only=True)
class WeightSource(Component):
    """Builds an object with ``find(name, tag)``: a local folder as ``Model.save`` writes it, the paths of its files by
    their names there, or ``None``.

    Attributes:
        provides: The ``"model.tag"`` names that it can find, for lists; the first of a model is its default.
        manifest: A file or mapping as :mod:`pvzoo.manifest` describes it, in place of ``provides``: what is known of
            each, and the digests of its files, which are then checked before a tensor is used.
        pinned: The manifest's entries by ``"model.tag"``.
    """

    kind = "weight_source"
    provides: Sequence[str] = ()
    manifest: Traversable | Mapping[str, Any] | None = None
    pinned: Mapping[str, Weights] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.manifest is not None:
            self._read_manifest(self.manifest)
        if isinstance(self.provides, str) or not isinstance(self.provides, Sequence):
            raise RegistrationError(f"{self}: provides must be a list of 'model.tag', not {self.provides!r}")
        for name in self.provides:
            if not isinstance(name, str) or not all(name.partition(".")):
                raise RegistrationError(f"{self}: provides must hold names 'model.tag', not {name!r}")

    def _read_manifest(self, manifest: object) -> None:
        if not isinstance(manifest, Mapping | Traversable):
            raise RegistrationError(f"{self}: manifest must be a mapping or a path object, not {manifest!r}")
        if self.provides:
            raise RegistrationError(f"{self}: give provides or manifest, not both; the manifest lists the names")
        try:
            pinned = read_manifest(manifest).weights
        except WeightsError as error:
            raise RegistrationError(f"{self}: {error}") from error
        object.__setattr__(self, "pinned", pinned)
        object.__setattr__(self, "provides", tuple(pinned))


@dataclass(frozen=True, kw_only=True)
class Dataset(Component):
    """Builds the layout of a data set, a :class:`pvzoo.data.adapters.Adapter`: ``scan(root)`` gives a table."""

    kind = "dataset"


@dataclass(frozen=True, kw_only=True)
class Command(Component):
    """Builds a command of the ``pvzoo`` program: a Typer app, a click command, or a plain typed function."""

    kind = "command"


@dataclass(frozen=True, kw_only=True)
class ZooModel(Entry):
    """A model spec with a name.

    Attributes:
        spec: A YAML or JSON file (``importlib.resources.files(...) / "model.yaml"`` or a path), or a mapping.
    """

    kind = "model"
    spec: Traversable | Mapping[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.spec, Mapping) and not hasattr(self.spec, "read_text"):
            raise RegistrationError(f"{self}: spec must be a mapping or a path object, not {self.spec!r}")


E = TypeVar("E", bound=Entry)

ENTRY_TYPES: dict[str, type[Entry]] = {
    entry_type.kind: entry_type
    for entry_type in (Backbone, Alignment, Fusion, Head, WeightSource, Dataset, ZooModel, Command)
}


@dataclass(frozen=True)
class Name:
    """A parsed reference ``vendor/name@revision``; ``str`` gives it back."""

    vendor: str
    full: str
    revision: int | None = None

    def __str__(self) -> str:
        return self.full if self.revision is None else f"{self.full}@{self.revision}"


def is_name(text: str) -> bool:
    """Whether an entry can have this name, behind its vendor's prefix."""
    return _NAME.fullmatch(text) is not None


def parse_name(reference: str) -> Name:
    """Splits ``"acme/gated@2"``; ``"pvzoo/concat"`` is another way to write the built-in ``"concat"``.

    Raises:
        UnknownNameError: If the text cannot be a name at all.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        message = f"{reference!r} is not a name; names look like 'concat', 'acme/gated' or 'acme/gated@2'"
        raise UnknownNameError(message, kind="name", name=reference)
    vendor = match["vendor"] or BUILTIN
    full = match["name"] if vendor == BUILTIN else f"{vendor}/{match['name']}"
    return Name(vendor, full, int(match["revision"]) if match["revision"] else None)


def load_object(target: str | Callable[..., Any]) -> Callable[..., Any]:
    """Imports ``"package.module:attribute"``; a callable is returned as it is."""
    if not isinstance(target, str):
        return target
    module, _, attribute = target.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return loaded


class Registry(Generic[E]):
    """The entries of one kind, by name and revision. Names are never overwritten."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, dict[int, E]] = {}

    def check(self, entry: E) -> None:
        """Raises RegistrationError if the entry's name is malformed or taken."""
        if not is_name(entry.name.rpartition("/")[2]):
            raise RegistrationError(f"{entry}: {NAME_RULE}")
        if entry.revision in self._entries.get(entry.name, {}):
            raise RegistrationError(f"{entry} revision {entry.revision} is registered twice")

    def add(self, entry: E) -> None:
        """Adds an entry, after :meth:`check`."""
        self.check(entry)
        self._entries.setdefault(entry.name, {})[entry.revision] = entry

    def get(self, name: Name) -> E:
        """Returns the entry; without a revision in ``name``, its newest one.

        Raises:
            UnknownNameError: With a suggestion, or the revisions that exist.
        """
        revisions = self._entries.get(name.full)
        kind = self.kind.replace("_", " ")
        if not revisions:
            near = nearest(name.full, self._entries)
            shows = "pvzoo list" if self.kind == "model" else f"pvzoo list --components {self.kind}"
            message = f"no {kind} named {name.full!r}; "
            message += f"did you mean {near!r}?" if near else f"{shows!r} shows all"
            raise UnknownNameError(message, kind=self.kind, name=name.full, suggestions=[near] if near else [])
        if name.revision is not None and name.revision not in revisions:
            known = ", ".join(str(revision) for revision in sorted(revisions))
            origin = next(iter(revisions.values())).origin
            message = f"{kind} {name.full!r} has no revision {name.revision}, only {known}"
            message += f" (from {origin})"
            raise UnknownNameError(message, kind=self.kind, name=str(name))
        return revisions[max(revisions) if name.revision is None else name.revision]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[E]:
        """The newest revision of every entry, sorted by name."""
        for _, revisions in sorted(self._entries.items()):
            yield revisions[max(revisions)]
