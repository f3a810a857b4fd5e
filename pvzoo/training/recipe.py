"""Recipes: what is trained on what, and how; checked as a whole before anything runs (no torch).

A recipe is a YAML file beside the model specs. ``extends: NAME`` starts from another one; ``steps`` runs several in
turn, each starting from what the one before it trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from .. import catalog
from ..data.params import AugmentParams, Data
from ..errors import SpecError, UnknownNameError, nearest
from ..specs import ModelSpec, Source, load_spec, names_file
from ..specs.fields import Section, explain, failure, validate_strictly

Part = Annotated[str, Field(pattern=r"^(branches|alignments|fusions|neck|head)(\.[a-z0-9_]+)*$")]


class Group(Section):
    """Parameters that are trained together; what no group names is frozen, BatchNorm statistics included."""

    parts: tuple[Part, ...] = Field(
        min_length=1, description="dotted beginnings of tensor names, such as branches.palm"
    )
    lr: float | None = Field(None, gt=0, description="learning rate; that of the optimiser if left out")
    from_epoch: int = Field(0, ge=0, description="epoch from which on it is trained: gradual unfreezing")


class Optimiser(Section):
    """How parameters move."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(0.05, ge=0, description="not applied to biases and norms")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    clip_norm: float | None = Field(5.0, gt=0, description="largest gradient norm; null: none")


class Growth(Section):
    """Something that is off at first and grows evenly to its full extent."""

    begin: float = Field(0.0, ge=0, le=1, description="share of the epochs before it begins to grow")
    end: float = Field(0.0, ge=0, le=1, description="share of the epochs after which it has its full extent")

    @model_validator(mode="after")
    def _in_order(self) -> Growth:
        if self.end < self.begin:
            raise failure("Growth", [(("end",), f"{self.end:g} lies before begin, {self.begin:g}")])
        return self

    def at(self, epoch: int, epochs: int) -> float:
        """Its share of the full extent in an epoch, counted from 0."""
        done, over = epoch - self.begin * epochs, (self.end - self.begin) * epochs
        return float(done >= 0) if over <= 0 else min(1.0, max(0.0, done / over))


class Schedule(Section):
    """Learning rate: linear warm-up, then a cosine down to a share of the peak. And what is not there at first."""

    warmup: float = Field(0.1, ge=0, lt=1, description="share of all steps")
    final: float = Field(0.01, ge=0, le=1, description="learning rate at the end, as a share of the peak")
    margin: Growth = Field(Growth(end=0.3), description="of the head's margin")
    augmentation: Growth = Field(Growth(), description="of how far images are moved and changed")


class Batch(Section):
    """What a step sees."""

    size: int = Field(32, ge=2, description="samples a step and process")
    accumulate: int = Field(1, ge=1, description="steps whose gradients are summed into one")
    samples: int | None = Field(
        None, ge=2, description="K of identity-balanced batches of size/K identities with K samples; plain if left out"
    )
    workers: int = Field(0, ge=0, description="processes that load images")


class Losses(Section):
    """Weights of the losses; the classification loss has weight 1."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    supcon: float = Field(0.0, ge=0, description="supervised contrastive loss (Khosla et al. 2020) on the embedding")
    triplet: float = Field(0.0, ge=0, description="triplet margin loss on the embedding, all triplets of the batch")
    consistency: float = Field(0.0, ge=0, description="1 - cosine of the palm-only and the vein-only embedding")


class Recipe(Section):
    """One training, or several in turn.

    Attributes:
        steps: By name, what runs in turn; then the fields below are not used.
    """

    summary: str = ""
    steps: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Recipe] = Field({})
    stage: Literal[1, 2] = Field(2, description="1: each branch of the model alone; 2: the whole model")
    model: str = Field("stage2_spatial", description="a name of the zoo, or a spec file")
    overrides: dict[str, Any] = Field({}, description="fields of the model's spec by dotted path")
    without: tuple[str, ...] = Field((), description="parts of the model's spec to leave out, by dotted path")
    image_size: int | None = Field(None, ge=8, description="side of the images; the spec's if left out")
    init: tuple[str, ...] = Field(
        (), description="models to start from, one whole or its branches: saved folders, or names of pretrained weights"
    )
    data: Data = Data()
    plan: tuple[Group, ...] = Field((Group(parts=("branches", "alignments", "fusions", "neck", "head")),), min_length=1)
    optimiser: Optimiser = Optimiser()
    schedule: Schedule = Schedule()
    augmentation: AugmentParams = AugmentParams()
    losses: Losses = Losses()
    batch: Batch = Batch()
    epochs: int = Field(20, ge=1, le=100_000)
    epoch_share: float = Field(1.0, gt=0, le=1, description="share of the training batches that make an epoch")
    patience: int | None = Field(None, ge=1, description="epochs without a better dev EER after which to stop")
    seed: int = Field(0, ge=0)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="auto: bf16 where it is fast")
    modality_dropout: float = Field(0.0, ge=0, lt=1, description="share of samples that lose one modality")
    cache_features: int = Field(
        0, ge=0, description="augmented views whose branch features are computed once; 0: none. Needs frozen branches"
    )
    ema: float | None = Field(None, gt=0, lt=1, description="decay of an average of the weights, which is then used")
    shard_head: bool = Field(False, description="each process holds a part of the head's class centres")
    sync_batchnorm: bool = Field(False, description="BatchNorm statistics over the batches of all processes; on GPUs")
    channels_last: bool = False
    compile: bool = Field(False, description="torch.compile of the backbones: a minute first, faster steps then")

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        faults: list[tuple[tuple[str | int, ...], str]] = []
        trained = {part.partition(".")[0] for group in self.plan for part in group.parts}
        if self.cache_features and "branches" in trained:
            faults.append(
                (("cache_features",), "features of branches that are trained change; leave branches out of plan")
            )
        if self.cache_features and self.schedule.augmentation.end:
            message = "cached features are augmented once and for all; leave schedule.augmentation out"
            faults.append((("cache_features",), message))
        if self.batch.samples and self.batch.size % self.batch.samples:
            message = f"{self.batch.samples} samples of each identity do not divide a batch of {self.batch.size}"
            faults.append((("batch", "samples"), message))
        if self.stage == 1 and self.modality_dropout:
            faults.append((("modality_dropout",), "a branch alone has no other modality to go on with"))
        if self.shard_head and self.ema is not None:
            faults.append((("ema",), "no average is kept of a head that is sharded; leave out one of the two"))
        if self.shard_head and self.precision == "fp16":
            message = "a step that overflows is skipped by each process for itself, which shard_head cannot bear"
            faults.append((("precision",), f"{message}; bf16 and fp32 need no such steps"))
        if faults:
            raise failure("Recipe", faults)
        return self

    def spec(self, num_classes: int) -> ModelSpec:
        """What is trained, for so many identities.

        Raises:
            SpecError: If the model's spec is wrong, or does not go with ``overrides`` and ``without``.
        """
        overrides = {**self.overrides, "num_classes": num_classes}
        if self.image_size is not None:
            overrides["preprocessing.size"] = self.image_size
        named = Path(self.model) if names_file(self.model) else catalog.source(self.model)
        return load_spec(named, overrides, without=self.without)

    def to_dict(self) -> dict[str, Any]:
        """Plain data with everything filled in, for YAML and JSON."""
        return self.model_dump(mode="json", exclude={"steps"} if not self.steps else None)


def list_recipes() -> list[str]:
    """Names of the recipes that ship."""
    folder = files("pvzoo.zoo") / "recipes"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_recipe(
    name: str | Path | Mapping[str, Any],
    overrides: Mapping[str, Any] | None = None,
) -> Recipe:
    """Reads and checks a recipe.

    Args:
        name: A name of :func:`list_recipes`, a path of a YAML or JSON file, or a mapping.
        overrides: Values by dotted path, ``{"optimiser.lr": 1e-4}``, set in every step of a recipe that has steps, but
            ``init`` in the first, as each other starts from the one before; ``{"steps.stage1.epochs": 5}`` in one.

    Raises:
        UnknownNameError: No such recipe; with a suggestion.
        SpecError: With every fault: file, line, column, path, what is wrong.
    """
    source = _source(name)
    steps = source.data.get("steps") if isinstance(source.data, Mapping) else None
    inside = [f"steps.{step}." for step in steps] if isinstance(steps, Mapping) and steps else [""]
    own = {path: value for path, value in (overrides or {}).items() if path.partition(".")[0] == "steps"}
    shared = {path: value for path, value in (overrides or {}).items() if path not in own}
    for path, value in shared.items():
        # A later step with an init of its own would throw away what the one before it trained.
        places = inside[:1] if path == "init" else inside
        source.override({f"{step}{path}": value for step in places})
    source.override(own)
    if not isinstance(source.data, Mapping):
        raise SpecError([source.problem((), "should be a mapping of fields")])
    try:
        return validate_strictly(Recipe, _extended(source.data, (source.name,)))
    except ValidationError as error:
        problems = [source.problem(path, message) for path, message in dict.fromkeys(explain(error, Recipe))]
        raise SpecError(problems) from error


def _source(name: str | Path | Mapping[str, Any]) -> Source:
    if isinstance(name, Mapping):
        return Source("recipe", dict(name))
    if isinstance(name, Path) or names_file(name):
        return Source.from_file(Path(name).expanduser())
    known = list_recipes()
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
        message = f"no recipe named {name!r}; {hint}"
        raise UnknownNameError(message, kind="recipe", name=name, suggestions=[near] if near else [])
    return Source.from_file(files("pvzoo.zoo") / "recipes" / f"{name}.yaml", f"{name}.yaml")


def _extended(data: Mapping[str, Any], seen: tuple[str, ...]) -> dict[str, Any]:
    """The data with what ``extends`` names below it, in each step too."""
    own = {key: value for key, value in data.items() if key != "extends"}
    if isinstance(own.get("steps"), Mapping):
        own["steps"] = {
            name: _extended(step, (*seen, str(name))) if isinstance(step, Mapping) else step
            for name, step in own["steps"].items()
        }
    if "extends" not in data:
        return own
    base = _source(data["extends"])
    if base.name in seen:
        raise SpecError([base.problem(("extends",), f"comes back to itself: {' -> '.join((*seen, base.name))}")])
    return merged(_extended(base.data, (*seen, base.name)), own)


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The base with what is said anew; mappings are merged field by field."""
    found = dict(base)
    for key, value in own.items():
        below = found.get(key)
        found[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return found
