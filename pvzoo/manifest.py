"""The weights manifest: what is known of every ``model.tag``, typed, as data, and readable without torch.

pvzoo's own is ``pvzoo/zoo/weights.json``; a package of weights brings one of the same form.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from .errors import WeightsError, file_size
from .threshold import Threshold

CONFIG, WEIGHTS, INDEX, CARD = "config.json", "model.safetensors", "model.safetensors.index.json", "README.md"

# Names of files are plain: one with a folder in it could lead out of the place where weights are kept.
_FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$"
_NAME = re.compile(r"(?P<model>[^.]+)\.(?P<tag>[A-Za-z0-9][A-Za-z0-9._-]*)")

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=_FILE_NAME)]
Repo = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")]


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class File(_Fact):
    """A file as it was published."""

    size: int = Field(ge=0)
    sha256: Sha256


class DataSet(_Fact):
    """What weights were trained on.

    Attributes:
        name: As it is published.
        origin: ``"synthetic"``, or ``"persons"``.
        consent: How the persons agreed that models are made of their palms, and that these are given away. Needed if
            there are persons.
        licence: Of the data set.
        url: Where it is described.
    """

    name: Text
    origin: Literal["synthetic", "persons"]
    consent: str = ""
    licence: str = ""
    url: str = ""

    @model_validator(mode="after")
    def _persons_agreed(self) -> DataSet:
        if self.origin == "persons" and not self.consent.strip():
            raise ValueError("data of persons needs consent: how they agreed that models of their palms are given away")
        return self


class Metric(_Fact):
    """One measured figure with its protocol.

    Attributes:
        name: As in ``metrics.json`` of ``pvzoo eval``: ``eer``, ``tar_at_fmr``, ...
        value: The figure.
        at: The FMR or FPIR that it was read at, where there is one.
        low: Lower end of its 95 % interval by subject; ``None`` if there is no interval.
        high: Upper end.
        dataset: What it was measured on.
        protocol: How: split, gallery rule; as a split names it, ``"open_subject(fold=0, ...)"``, it can be repeated.
        modalities: Those that were used, the others missing; all that the model takes if left out.
        genuine: Genuine comparisons.
        impostor: Impostor comparisons.
        subjects: Persons; ``None`` if unknown.
    """

    name: Text
    value: float
    at: float | None = Field(None, gt=0, lt=1)
    low: float | None = None
    high: float | None = None
    dataset: Text
    protocol: Text
    modalities: tuple[Text, ...] = ()
    genuine: int = Field(gt=0)
    impostor: int = Field(gt=0)
    subjects: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _interval(self) -> Metric:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has low and high, or neither")
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise ValueError(f"low is {self.low}, above high, {self.high}")
        return self

    @property
    def title(self) -> str:
        only = f", {' and '.join(self.modalities)} only" if self.modalities else ""
        return (self.name if self.at is None else f"{self.name} {self.at:g}") + only

    @property
    def counts(self) -> str:
        people = "" if self.subjects is None else f", {self.subjects:,} subjects"
        return f"{self.genuine:,} genuine, {self.impostor:,} impostor{people}"

    @property
    def spread(self) -> str:
        return "" if self.low is None else f"{self.low:.4g} to {self.high:.4g}"

    @property
    def where(self) -> str:
        return f"{self.dataset}, {self.protocol} ({self.counts})"

    def __str__(self) -> str:
        return f"{self.title} {self.value:.4g}{f' [{self.spread}]' if self.spread else ''} on {self.where}"


class Recipe(_Fact):
    """How weights were trained.

    Attributes:
        name: What people call the recipe.
        sha256: Digest of ``content``, see :func:`recipe_digest`; where there is none, of the file of the recipe.
        content: The recipe as plain data, from which ``pvzoo reproduce`` trains again; folders to start from are
            written as the names of the weights that they became.
        model: Where in the run's folder the model is.
    """

    name: Text
    sha256: Sha256
    content: dict[str, Any] = Field(default_factory=dict)
    model: Text = "model"

    @model_validator(mode="after")
    def _digest(self) -> Recipe:
        if self.content and self.sha256 != (found := recipe_digest(self.content)):
            raise ValueError(f"sha256 is {self.sha256[:16]}..., and that of content {found[:16]}...")
        return self


def recipe_digest(content: Mapping[str, Any]) -> str:
    """The SHA-256 of a recipe as JSON in one form: keys sorted, no spaces."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Facts(_Fact):
    """What only its author can say of a model; the files do not show it.

    Attributes:
        licence: SPDX identifier, ``"Apache-2.0"``; there is no default.
        data: What it was trained on.
        intended_use: What it is for, in a sentence or more.
        limits: Where it is known to fail, or was never tried.
        metrics: Figures on identities that it was not trained on.
        floor: By matcher that needs no training, its figures on the same comparisons.
        recipe: How it was trained.
    """

    licence: Text
    data: Annotated[tuple[DataSet, ...], Field(min_length=1)]
    intended_use: Text
    limits: str = ""
    metrics: tuple[Metric, ...] = ()
    floor: dict[Text, tuple[Metric, ...]] = {}
    recipe: Recipe | None = None

    def results(self) -> dict[str, list[tuple[str, Metric]]]:
        """By where they were measured, all figures: each with its matcher in the floor, or with none for the model."""
        found: dict[str, list[tuple[str, Metric]]] = {}
        for matcher, metrics in {"": self.metrics, **self.floor}.items():
            for metric in metrics:
                found.setdefault(metric.where, []).append((matcher, metric))
        return found


class Weights(Facts):
    """One ``model.tag``: the author's facts, and those that :mod:`pvzoo.hub.verify` computes anew and compares.

    Attributes:
        repo: Repository on the Hugging Face Hub, ``"namespace/name"``.
        revision: Commit, or tag that is never moved.
        files: Those that loading needs, by name, as they are there.
        dtype: Type of the floating-point tensors in the files.
        parameters: Trained values of the model.
        macs: Multiplications with addition for one sample (an image of each modality).
        thresholds: Chosen with these weights; the files hold the same.
        pvzoo: The first version that loads them.
    """

    repo: Repo
    revision: Text
    files: dict[FileName, File]
    dtype: Literal["float16", "bfloat16", "float32", "float64"]
    parameters: int = Field(ge=0)
    macs: int = Field(ge=0)
    thresholds: tuple[Threshold, ...] = ()
    pvzoo: Text

    @model_validator(mode="after")
    def _whole(self) -> Weights:
        if CONFIG not in self.files or (WEIGHTS in self.files) == (INDEX in self.files):
            raise ValueError(f"files needs {CONFIG}, and {WEIGHTS} or {INDEX} with its shards")
        return self

    @field_validator("pvzoo")
    @classmethod
    def _a_version(cls, text: str) -> str:
        from packaging.version import Version  # raises a ValueError

        return str(Version(text))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    @property
    def summary(self) -> str:
        """One line for lists."""
        cost = f"{self.parameters / 1e6:.1f} M parameters, {self.macs / 1e9:.3g} GMACs, {file_size(self.size)}"
        data = ", ".join(each.name for each in self.data)
        return "; ".join([f"{self.licence}, {cost}, trained on {data}", *map(str, self.metrics[:1])])

    def facts(self) -> Facts:
        return Facts(**{name: getattr(self, name) for name in Facts.model_fields})


class Manifest(_Fact):
    """Everything by ``model.tag``; the first tag of a model is its default."""

    format: Literal[1] = 1
    weights: dict[str, Weights]

    @model_validator(mode="after")
    def _names(self) -> Manifest:
        for name in self.weights:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not 'model.tag'")
        return self

    def to_json(self) -> str:
        """As it stands in a file; what has its default value is left out."""
        plain = {"format": self.format, **self.model_dump(mode="json", exclude_defaults=True)}
        return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"


def read_manifest(source: Traversable | Mapping[str, Any]) -> Manifest:
    """Reads and checks a manifest.

    Raises:
        WeightsError: If it cannot be read, or an entry is wrong; names the entry and the field.
    """
    try:
        if isinstance(source, Mapping):
            return Manifest.model_validate(source)
        return Manifest.model_validate_json(source.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"the weights manifest {source} cannot be read: {error}") from error
    except ValidationError as error:
        faults = "".join(f"\n  {fault}" for fault in explain(error))
        where = "" if isinstance(source, Mapping) else f" {source}"
        raise WeightsError(f"the weights manifest{where} is wrong:{faults}") from error


def explain(error: ValidationError) -> list[str]:
    """``weights.stage2_spatial.v1.licence: Field required``, one line a fault."""
    return [
        ": ".join(part for part in (".".join(map(str, fault["loc"])), fault["msg"]) if part)
        for fault in error.errors(include_url=False)
    ]
