"""What a model is: :class:`ModelSpec`, checked as a whole before anything is built."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from keyword import iskeyword
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from ..errors import SpecError, did_you_mean
from ..plugins import host
from ..registry import Component, Origin
from .fields import (
    AlignmentRef,
    BackboneRef,
    Faults,
    FusionRef,
    HeadRef,
    PerModality,
    Ref,
    Section,
    explain,
    failure,
    validate_strictly,
)
from .geometry import Geometry, check_memory, measure
from .source import Source

MAX_PIXELS_A_SIDE = 65_536
# Modalities and branches become keys of torch containers, which refuse the names of their own attributes.
TORCH_NAMES = frozenset(
    """
    add_module apply bfloat16 buffers call_super_init children clear compile copy cpu cuda double dump_patches eval
    extra_repr float forward fromkeys get get_buffer get_extra_state get_parameter get_submodule half ipu items keys
    load_state_dict modules mtia named_buffers named_children named_modules named_parameters parameters pop popitem
    register_backward_hook register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook
    register_module register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_
    set_extra_state set_submodule setdefault share_memory state_dict to to_empty train training type update values
    xpu zero_grad
    """.split()
)


def _no_torch_name(name: str) -> str:
    if name in TORCH_NAMES:
        raise ValueError(f"{name!r} is a name of torch's own; choose another")
    return name


def _callable_with(name: str) -> str:
    """A modality is also an argument: ``model(palm=..., vein=...)``."""
    if iskeyword(name) or name in ("self", "labels"):
        raise ValueError(f"{name!r} cannot be the name of an argument of model(...); choose another")
    return name


Identifier = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=32), AfterValidator(_no_torch_name)
]
Modality = Annotated[Identifier, AfterValidator(_callable_with)]


def _height_and_width(value: Any) -> tuple[int, int]:
    sides = [value, value] if isinstance(value, int) else value
    if (
        not isinstance(sides, list | tuple)
        or len(sides) != 2
        or not all(type(side) is int and 1 <= side <= MAX_PIXELS_A_SIDE for side in sides)
    ):
        raise ValueError(f"should be 1 to {MAX_PIXELS_A_SIDE} pixels, or [height, width], got {value!r}")
    return sides[0], sides[1]


Side = Annotated[int, Field(ge=1, le=MAX_PIXELS_A_SIDE)]
ImageSize = Annotated[
    tuple[int, int], BeforeValidator(_height_and_width, json_schema_input_type=Side | tuple[Side, Side])
]


class Preprocessing(Section):
    """How an image file becomes the tensor that the model takes; it travels with the weights.

    Pixels are scaled to [0, 1], resized, and normalised as ``(x - mean) / std``.
    """

    size: ImageSize = Field((224, 224), description="height and width in pixels, or one number for both")
    channels: int = Field(1, ge=1, le=1024, description="channels of the tensor; 1 is grey")
    mean: tuple[float, ...] = Field((0.5,), description="one value, or one a channel")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field((0.5,), description="one value, or one a channel")
    interpolation: Literal["bilinear", "bicubic", "nearest"] = Field("bicubic", description="antialiased resampling")

    @model_validator(mode="after")
    def _one_value_a_channel(self) -> Preprocessing:
        faults: Faults = [
            ((name,), f"has {len(values)} values for {self.channels} channels; give 1 or {self.channels}")
            for name, values in (("mean", self.mean), ("std", self.std))
            if len(values) not in (1, self.channels)
        ]
        if faults:
            raise failure("Preprocessing", faults)
        return self


class Branch(Section):
    """One path from image to aligned features, built once a modality."""

    backbone: PerModality[BackboneRef]
    features: Literal["vector", "map"] = Field(
        "vector", description="pooled vector, or the map that keeps position until the modalities are fused"
    )
    alignment: PerModality[AlignmentRef] = Field(
        default_factory=lambda: PerModality({"*": AlignmentRef.model_validate("identity")}), validate_default=True
    )


class Embedding(Section):
    """What becomes of the joined branches."""

    bnneck: bool = Field(False, description="BatchNorm without bias between embedding and head (BNNeck)")
    normalize: bool = Field(True, description="L2-normalise the embedding, so that a dot product is the cosine")


class Requirement(Section):
    """The distribution that a component came from when the spec was saved."""

    distribution: str
    version: str = ""


class ModelSpec(Section):
    """A composed model: backbones, alignment, fusion and head by name, with their parameters.

    Attributes:
        pvzoo: Version of the spec's format.
        name: Name in the zoo, if it has one.
        summary: One line for lists.
        preprocessing: From image file to tensor.
        modalities: In the order in which ``model(...)`` takes them.
        branches: By name; ``global`` and ``local`` in the zoo.
        share_branches: Whether all modalities go through one set of branch weights.
        fusion: By branch; needed for every branch if there are two or more modalities.
        embedding: Normalisation of the joined branches.
        head: Classification head.
        num_classes: Number of identities that the head tells apart.
        requires: Plugins that the components came from, by vendor; filled in when a spec is resolved.
    """

    model_config = ConfigDict(title="pvzoo model spec")

    pvzoo: Literal[1] = 1
    name: str = ""
    summary: str = ""
    preprocessing: Preprocessing = Preprocessing()
    modalities: Annotated[tuple[Modality, ...], Field(min_length=1)] = ("palm", "vein")
    branches: Annotated[dict[Identifier, Branch], Field(min_length=1)]
    share_branches: bool = False
    fusion: dict[Identifier, FusionRef] = Field(default_factory=dict)
    embedding: Embedding = Embedding()
    head: HeadRef = Field(default_factory=lambda: HeadRef.model_validate("none"), validate_default=True)
    num_classes: Annotated[int, Field(ge=1)] | None = None
    requires: dict[str, Requirement] = Field(default_factory=dict)

    @property
    def kind(self) -> Literal["unimodal", "multimodal"]:
        return "unimodal" if len(self.modalities) == 1 else "multimodal"

    @cached_property
    def geometry(self) -> Geometry:
        """Shapes of everything between image and embedding."""
        geometry, faults = measure(self)
        if geometry is None:
            raise failure("ModelSpec", faults)
        return geometry

    @model_validator(mode="after")
    def _hangs_together(self) -> ModelSpec:
        named = {
            name: {"backbone": branch.backbone.modalities, "alignment": branch.alignment.modalities}
            for name, branch in self.branches.items()
        }
        faults = [*_check_names(self.modalities, named, self.fusion), *_check_sharing(self), *_check_classes(self)]
        if not faults:
            _, faults = measure(self)
        if not faults:
            faults = check_memory(self)
        if faults:
            raise failure("ModelSpec", faults)
        return self

    def refs(self) -> list[Ref]:
        """Every component reference of the spec."""
        found: list[Ref] = []
        for branch in self.branches.values():
            for modality in self.modalities:
                found += [branch.backbone[modality], branch.alignment[modality]]
        return [*found, *self.fusion.values(), self.head]

    def entry(self, ref: Ref) -> Component:
        """The registry's entry behind a reference of this spec."""
        entry = host().find(ref.kind, f"{ref.name}@{ref.revision}")
        assert isinstance(entry, Component)
        return entry

    def written_out(self) -> dict[str, Any]:
        """Each branch with backbone and alignment by modality: equal for specs that only write them differently."""
        return {
            name: {
                **{field: getattr(branch, field) for field in type(branch).model_fields},
                "backbone": {modality: branch.backbone[modality] for modality in self.modalities},
                "alignment": {modality: branch.alignment[modality] for modality in self.modalities},
            }
            for name, branch in self.branches.items()
        }

    def override(self, **values: Any) -> ModelSpec:
        """A checked copy with some fields changed: ``spec.override(**{"fusion.local": "concat"})``."""
        return load_spec(self, values)

    def to_dict(self) -> dict[str, Any]:
        """Everything filled in, names pinned to revisions, and the plugins that they came from."""
        origins = [self.entry(ref).origin for ref in self.refs()]
        plain = self.model_dump(mode="json")
        plain["requires"] = _requirements(origins)
        return plain


def _requirements(origins: list[Origin]) -> dict[str, dict[str, str]]:
    return {
        origin.vendor: {"distribution": origin.distribution, "version": origin.version}
        for origin in sorted(origins, key=lambda origin: origin.vendor)
        if origin.vendor != "pvzoo"
    }


_LABELS = ("name", "summary")
_NAMED_AFTER = ("modalities", "branches", "share_branches", "fusion")
# The modalities that a branch names, by branch and field; None where it names none.
Named = Mapping[str, Mapping[str, frozenset[str] | None]]


def _check_names(modalities: Sequence[str], branches: Named, fusions: Collection[str]) -> Faults:
    """Modalities and branches named in one place exist in the other, and what is to be joined has a fusion."""
    faults: Faults = []
    if len(set(modalities)) < len(modalities):
        faults.append((("modalities",), f"a modality stands twice in {', '.join(modalities)}"))
    for name, fields in branches.items():
        for field, named in fields.items():
            if named is not None and named != set(modalities):
                message = f"names {', '.join(sorted(named))}, but the modalities are {', '.join(modalities)}"
                faults.append((("branches", name, field), message))
    for name in fusions:
        if name not in branches:
            faults.append((("fusion", name), f"there is no branch {name!r}{did_you_mean(name, branches)}"))
    if len(modalities) > 1:
        join = " and ".join(modalities)
        faults += [
            (("fusion",), f"branch {name!r} needs a fusion to join {join}") for name in branches if name not in fusions
        ]
    return faults


def _check_plain_names(data: Mapping[str, Any]) -> Faults:
    """The same of data that is not valid, where it has that form."""
    modalities, branches, fusions = data.get("modalities", ["palm", "vein"]), data.get("branches"), data.get("fusion")
    if not (isinstance(modalities, list | tuple) and isinstance(branches, Mapping)):
        return []
    if not isinstance(fusions, Mapping | None):
        return []
    named = {
        str(name): {
            field: PerModality.named(branch.get(field)) if isinstance(branch, Mapping) else None
            for field in ("backbone", "alignment")
        }
        for name, branch in branches.items()
    }
    return _check_names([str(modality) for modality in modalities], named, [str(name) for name in fusions or ()])


def _check_sharing(spec: ModelSpec) -> Faults:
    return [
        (("branches", name, "backbone"), "share_branches needs one backbone for all modalities")
        for name, branch in spec.branches.items()
        if spec.share_branches and not branch.backbone.same
    ]


def _check_classes(spec: ModelSpec) -> Faults:
    needed = getattr(spec.entry(spec.head), "classes", True)
    if needed and spec.num_classes is None:
        return [(("num_classes",), f"head {spec.head.name!r} needs the number of classes")]
    if not needed and spec.num_classes is not None:
        some = 'for some take a head that has, such as arcface (in Python head="arcface")'
        message = f"head {spec.head.name!r} has no classes; {some}; for none write null (in Python num_classes=0)"
        return [(("num_classes",), message)]
    return []


def load_spec(
    source: ModelSpec | Mapping[str, Any] | str | Path | Source,
    overrides: Mapping[str, Any] | None = None,
    *,
    without: Sequence[str] = (),
) -> ModelSpec:
    """Reads and checks a spec.

    Args:
        source: A path of a YAML or JSON file, a mapping, a spec, or a source that was read already.
        overrides: Values by dotted path, set before the check.
        without: Dotted paths of what is left out, before that.

    Raises:
        SpecError: With every fault: file, line, column, path, what is wrong, and what may have been meant.
    """
    if isinstance(source, str | Path):
        source = Source.from_file(Path(source))
    elif isinstance(source, ModelSpec):
        source = Source(source.name or "spec", source.model_dump(mode="json"))
    elif isinstance(source, Mapping):
        source = Source("spec", dict(source))
    overrides = overrides or {}
    source.remove(without)
    source.override(overrides)
    changed = {path.partition(".")[0] for path in (*overrides, *without)}
    if isinstance(source.data, Mapping) and not changed.isdisjoint(_NAMED_AFTER):
        # It is no longer what its name and summary say, unless the overrides say so too.
        source.data = {key: value for key, value in source.data.items() if key in overrides or key not in _LABELS}
    if not isinstance(source.data, Mapping):
        raise SpecError([source.problem((), "should be a mapping of fields")])
    _require_plugins(source)
    try:
        return validate_strictly(ModelSpec, source.data)
    except ValidationError as error:
        # pydantic stops before the parts are compared if one of them is wrong; this comparison needs names alone.
        faults = explain(error, ModelSpec) + _check_plain_names(source.data)
        problems = [source.problem(path, message) for path, message in dict.fromkeys(faults)]
        raise SpecError(sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0))) from error


def _require_plugins(source: Source) -> None:
    """Says which distribution is missing, and the version that the spec was saved with, before names fail."""
    requires = source.data.get("requires")
    if not isinstance(requires, Mapping) or not requires:
        return
    # An override may have replaced what came from the plugin.
    used = {name.partition("/")[0] for name in _texts(source.data) if "/" in name}
    installed = {plugin.vendor for plugin in host().plugins} | (set(requires) - used)
    problems = []
    for vendor, needed in requires.items():
        if vendor not in installed and isinstance(needed, Mapping):
            distribution, version = needed.get("distribution") or vendor, needed.get("version", "")
            message = f"needs plugin {vendor!r} from {distribution}, which is not installed"
            message += f" (the spec was saved with {distribution} {version}); pip install {distribution}"
            problems.append(source.problem(("requires", vendor), message))
    if problems:
        raise SpecError(problems)


def _texts(data: Any) -> Iterator[str]:
    """All texts in nested data."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, Mapping):
        for value in data.values():
            yield from _texts(value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _texts(value)


__all__ = ["Branch", "Embedding", "ModelSpec", "Preprocessing", "Requirement", "load_spec"]
