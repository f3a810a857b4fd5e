"""From saved models to a package of weights: float16, branches stored once, every figure measured with what is packed.

A plan says which saved folder becomes which ``model.tag``, and what only its author can say::

    distribution: pvzoo-acme-weights
    namespace: acme                       # on the Hub: acme/stage2-spatial
    facts: {licence: Apache-2.0, data: [...], intended_use: ..., limits: ...}
    data: {source: synthpalm-v1, protocol: open_subject}
    weights:
      stage1_convnext_palm.v1: {folder: runs/stage1/palm_local/model}
      stage2_spatial.v1: {folder: runs/stage2/model}
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from filelock import FileLock
from pydantic import Field, ValidationError

from .. import __version__, catalog, weights
from ..data.params import Data
from ..data.protocols import open_protocol
from ..data.sources import Images, open_images
from ..data.split import Split
from ..errors import SpecError, UnknownNameError, WeightsError, file_size
from ..evaluation.bootstrap import FOLDS
from ..evaluation.models import embed_part
from ..factory import create
from ..hub import cards, digests, packages
from ..manifest import CONFIG, Facts, Manifest, Metric, Recipe, read_manifest, recipe_digest
from ..manifest import Weights as Entry
from ..model import Model
from ..progress import Track, silent
from ..specs import Source, load_spec, names_file
from ..specs.fields import Section, explain, validate_strictly
from ..synth.writer import release_in
from ..tensorfile import replacing
from ..training.recipe import load_recipe
from ..training.run import RECIPE
from .measure import measure, measure_floor

LARGEST, ALL = 60_000_000, 130_000_000  # bytes of a file, and of all
LEAST_COSINE = 0.999  # of an embedding with that of the model in float32
COMPARED = 64  # samples of dev
CARDS = "cards"
Name = Annotated[str, Field(pattern=r"^[^.]+\.[A-Za-z0-9][A-Za-z0-9._-]*$")]
_PARTS = ("modalities", "share_branches", "fusion")


class Item(Section):
    """One saved model."""

    folder: Path = Field(description="as a training wrote it, its recipe.yaml above it; from the plan's folder")
    recipe: str = Field("", description="what people call the recipe; its summary if left out")
    head: bool = Field(True, description="keep the class matrix, which serves the identities of the training alone")


class Plan(Section):
    """What a package of weights is made of."""

    distribution: str = Field("pvzoo-weights", pattern=r"^pvzoo-[a-z][a-z0-9-]*[a-z0-9]$")
    version: str = "1.0.0"
    namespace: str = Field("pvzoo", pattern=r"^[A-Za-z0-9][\w.-]*$", description="of the repositories on the Hub")
    facts: dict[str, Any] = Field(description="licence, data, intended_use and limits, of all models")
    data: Data = Field(Data(), description="what is measured on")
    folds: int = Field(FOLDS, ge=0, description="of the subject bootstrap")
    weights: dict[Name, Item] = Field(min_length=1, description="by model.tag; a model's first tag is its default")

    @property
    def vendor(self) -> str:
        return self.distribution.removeprefix("pvzoo-")

    @property
    def package(self) -> str:
        return self.distribution.replace("-", "_")


@dataclass(frozen=True)
class Packed:
    """A model in the package.

    Attributes:
        name: ``model.tag``.
        entry: Of the manifest.
        cosine: The least, of embeddings in float16 with those in float32.
    """

    name: str
    entry: Entry
    cosine: float


def read_plan(path: Path) -> Plan:
    """Reads and checks a plan; folders in it start from its own.

    Raises:
        SpecError: With every fault: file, line, column, path, what is wrong.
    """
    source = Source.from_file(path)
    if not isinstance(source.data, Mapping):
        raise SpecError([source.problem((), "should be a mapping of fields")])
    try:
        plan = validate_strictly(Plan, source.data)
    except ValidationError as error:
        problems = [source.problem(where, message) for where, message in dict.fromkeys(explain(error, Plan))]
        raise SpecError(problems) from error
    items = {name: item.model_copy(update={"folder": path.parent / item.folder}) for name, item in plan.weights.items()}
    return plan.model_copy(update={"weights": items})


def pack(
    plan: Plan,
    out: Path,
    *,
    manifest: Path | None = None,
    device: torch.device | None = None,
    workers: int = 0,
    track: Track = silent,
) -> list[Packed]:
    """Writes a package of weights: a folder that pip installs.

    Everything is converted, measured and checked before a file of the package changes.

    Args:
        plan: What it is made of.
        out: Folder of the package. What was packed there before is replaced.
        manifest: One that lists these weights too, such as that of a zoo with several packages; others in it stay.
        device: Where models are measured; the CPU if left out.
        workers: Processes that read images.
        track: Shows progress.

    Raises:
        WeightsError: A folder is not what the plan says, a file or all of them are too large, float16 is too coarse; or
            the package cannot be written.
        SpecError: The recipe of a run is damaged.
        PvzooError: The data cannot be used.
    """
    facts = cards.check_facts(plan.facts, "facts")
    if manifest:
        _listed(manifest)  # one that is wrong is found out before all the work
    recipes = {name: _recipe(name, plan, facts) for name in plan.weights}
    images = open_images(plan.data.model_copy(update={"source": _source(plan.data.source)}))
    split = open_protocol(plan.data.protocol, plan.data.protocol_params).split(images.table)
    with _place(out, *([manifest.parent] if manifest else [])) as work:
        folders = {name: _convert(name, item, work / str(n)) for n, (name, item) in enumerate(plan.weights.items())}
        _check_sizes(folders, work / "shards")
        cosines = {name: _check_values(name, folder, images, split, device) for name, folder in folders.items()}
        floor = measure_floor(images, split, folds=plan.folds, track=track)
        made = []
        for name, folder in folders.items():
            model = create(f"local-dir:{folder}", device=device)
            found = measure(
                model, images, split, features=work / "features", folds=plan.folds, workers=workers, track=track
            )
            model.set_thresholds(found.thresholds)
            model.save(folder, dtype=torch.float16)
            below = {n: m for n, m in floor.items() if set(m[0].modalities) <= set(model.spec.modalities)}
            more = {"metrics": found.metrics, "floor": below, "recipe": recipes[name]}
            where = {"repo": _repo(plan, name), "revision": str(catalog.split_tag(name)[1])}
            entry = packages.add(work / "made", folder, name, facts.model_copy(update=more), **where, build=Model)
            made.append(Packed(name, entry, cosines[name]))
        _write(plan, out, work / "made", made, {name: weights.files_in(folder) for name, folder in folders.items()})
        if manifest:
            _add(manifest, made)
    return made


@contextmanager
def _place(out: Path, *others: Path) -> Iterator[Path]:
    """A folder to work in, inside of ``out``, which is made with the others; what cannot be written says where."""
    try:
        for folder in (out, *others):
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".packing.") as work:
            yield Path(work)
    except OSError as error:
        place, reason = error.filename or out, error.strerror or error
        raise WeightsError(f"{place}: cannot be written: {reason}; choose another place") from error


def _listed(manifest: Path) -> Mapping[str, Entry]:
    return read_manifest(manifest).weights if manifest.exists() else {}


def _add(manifest: Path, made: list[Packed]) -> None:
    """Lists the weights in a manifest, to which another package may have been added while these were measured."""
    with FileLock(manifest.with_name(f".{manifest.name}.lock")):
        listed = {**_listed(manifest), **{each.name: each.entry for each in made}}
        with replacing(manifest) as new:
            new.write_text(Manifest(weights=listed).to_json(), encoding="utf-8")


def _repo(plan: Plan, name: str) -> str:
    return f"{plan.namespace}/{catalog.split_tag(name)[0].rpartition('/')[2].replace('_', '-')}"


def _recipe(name: str, plan: Plan, facts: Facts) -> Recipe:
    """How a model was trained, from the run that its folder is in."""
    item = plan.weights[name]
    folder = item.folder.resolve()
    run = next((above for above in list(folder.parents)[:3] if (above / RECIPE).is_file()), None)
    if run is None:
        message = f"{item.folder}: no {RECIPE} in the folders above it; weights are packed from a run of pvzoo train"
        raise WeightsError(message)
    content = load_recipe(run / RECIPE).to_dict()
    known = {item.folder.resolve(): each for each, item in plan.weights.items()}
    for step in (content, *content.get("steps", {}).values()):
        step["init"] = [_start(name, init, known) for init in step.get("init", [])]
    trains = content.get("steps") or {"": content}
    for step in trains.values():
        step["data"]["source"] = _source(step["data"]["source"])
        step["model"] = _model(name, step)
    for source in {step["data"]["source"] for step in trains.values()}:
        if source not in [each.name for each in facts.data]:
            raise WeightsError(f"{name}: was trained on {source}, and facts.data does not name it")
    called = item.recipe or content.get("summary") or RECIPE
    where = folder.relative_to(run).as_posix()
    return Recipe(name=called, sha256=recipe_digest(content), content=content, model=where)


def _source(source: str) -> str:
    """A data set: a release that was drawn to files first, as it is read many times, is the release."""
    return release_in(Path(source).expanduser()) or source


def _model(name: str, step: Mapping[str, Any]) -> str:
    """What a training trained, under a name that means the same on another machine."""
    if not names_file(step["model"]):
        return str(step["model"])
    trained = _trained(step)
    for model in catalog.list_models():
        with suppress(SpecError):  # what the training changes need not be in it
            if _trained({**step, "model": model}) == trained:
                return model
    raise WeightsError(
        f"{name}: was trained from {step['model']}, which is no model of the zoo; nobody else has that file"
    )


def _trained(step: Mapping[str, Any]) -> dict[str, Any]:
    """The spec that a training makes, whatever it is called; heads are made for as many classes as the data has."""
    return load_recipe(step).spec(num_classes=2).model_dump(exclude={"name", "summary", "requires"})


def _start(name: str, init: str, known: Mapping[Path, str]) -> str:
    """What a training started from, under a name that means the same on another machine."""
    path = Path(init).expanduser()
    if path.resolve() in known:
        return known[path.resolve()]
    if init.startswith("hf-hub:"):
        return init
    try:
        model = "" if path.exists() else catalog.find_model(init).name
    except UnknownNameError:
        model = ""
    if not model:
        message = f"{name}: was started from {init}, which the plan does not pack"
        raise WeightsError(f"{message}; nobody else has that folder")
    tag = catalog.split_tag(init)[1] or next(iter(catalog.tags(model)), None)
    return f"{model}.{tag}" if tag else model


def _convert(name: str, item: Item, place: Path) -> Path:
    """The model under its name in the zoo, in float32 as ``place/whole`` and in float16 as ``place/half``."""
    header = weights.header_at(item.folder)
    zoo = catalog.spec(catalog.split_tag(name)[0])
    saved = {**weights.spec_of(header), "name": zoo.name, "summary": zoo.summary}
    spec = load_spec(
        Source(str(item.folder / CONFIG), saved), {} if item.head else {"head": "none", "num_classes": None}
    )
    other = [part for part in _PARTS if getattr(spec, part) != getattr(zoo, part)]
    other += ["branches"] if spec.written_out() != zoo.written_out() else []
    if other:
        raise WeightsError(f"{item.folder}: is no {zoo.name}: it has other {', '.join(other)}")
    model = weights.load_model(spec, header, Model)
    if header.about.untrained:
        raise WeightsError(f"{item.folder}: its weights are random; train it first")
    model.eval().save(place / "whole")
    return model.save(place / "half", dtype=torch.float16)


def _check_sizes(folders: Mapping[str, Path], work: Path) -> None:
    """Whether the files fit, each and all: those that several models share count once."""
    sizes: dict[str, int] = {}
    for name, folder in folders.items():
        work.mkdir()
        for file, path in packages.shard(folder, work).items():
            size = path.stat().st_size
            if size > LARGEST:
                message = f"{name}: {file} has {file_size(size)}; a file of a package has {file_size(LARGEST)}"
                raise WeightsError(f"{message} at most")
            sizes[digests.sha256(path)] = size
        shutil.rmtree(work)
    total = sum(sizes.values())
    if total > ALL:
        message = f"{len(folders)} models have {file_size(total)} in {len(sizes)} files; a package has {file_size(ALL)}"
        raise WeightsError(f"{message} at most: leave models out, or their class matrices (head: false)")


def _check_values(name: str, half: Path, images: Images, split: Split, device: torch.device | None) -> float:
    """The least cosine of an embedding in float16 with that in float32."""
    samples = split.dev.samples[:COMPARED]
    both = [create(f"local-dir:{folder}", device=device) for folder in (half, half.parent / "whole")]
    a, b = (embed_part(model, samples, images.reader).embeddings for model in both)
    least = float(F.cosine_similarity(a, b).min())
    if not least >= LEAST_COSINE:
        message = f"{name}: float16 is too coarse for it: an embedding has a cosine of {least:.5f} with that in float32"
        raise WeightsError(f"{message}, and {LEAST_COSINE} is the least allowed")
    return least


def _write(plan: Plan, out: Path, made: Path, packed: list[Packed], models: Mapping[str, weights.Files]) -> None:
    """Puts the package in its place, the manifest after the files that it lists."""
    package = out / plan.package
    (package / packages.FILES).mkdir(parents=True, exist_ok=True)
    for file in (made / packages.FILES).iterdir():
        file.replace(package / packages.FILES / file.name)
    (made / packages.MANIFEST).replace(package / packages.MANIFEST)
    used = {file.sha256 for each in packed for file in each.entry.files.values()}
    for file in (package / packages.FILES).iterdir():
        if file.name not in used:
            file.unlink()
    written = texts(plan, packed, models)
    for card in (out / CARDS).glob("*.md"):
        if f"{CARDS}/{card.name}" not in written:
            card.unlink()  # of weights that were packed before
    for name, text in written.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        with replacing(out / name) as new:
            new.write_text(text, encoding="utf-8")


def texts(plan: Plan, packed: list[Packed], models: Mapping[str, weights.Files]) -> dict[str, str]:
    """The text files of the package by name: what an index wants, the hook module, a card for each model."""
    major, minor = map(int, __version__.split(".")[:2])
    facts = packed[0].entry
    total = {file.sha256: file.size for each in packed for file in each.entry.files.values()}
    values = {
        "distribution": plan.distribution,
        "version": plan.version,
        "package": plan.package,
        "vendor": plan.vendor,
        "licence": facts.licence,
        "requires": f"pvzoo>={major}.{minor},<{major + 1}",
        "size": file_size(sum(total.values())),
        "count": str(len(total)),
        "first": catalog.split_tag(packed[0].name)[0],
        "intended_use": facts.intended_use,
        "rows": "\n".join(_row(each) for each in packed),
        "floor": "\n".join(_floor_rows(packed)),
    }
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{plan.package}/__init__.py": "hooks.py",
        "tests/test_weights.py": "test.py",
    }
    found = {name: _fill(template, values) for name, template in templates.items()}
    found[f"{plan.package}/py.typed"] = ""
    for each in packed:
        spec, header = weights.read_files(models[each.name], each.name)
        card = cards.render(load_spec(Source(CONFIG, spec)), header.about, each.entry.facts(), each.name)
        found[f"{CARDS}/{each.name.replace('/', '-')}.md"] = card
    return found


def _fill(template: str, values: Mapping[str, str]) -> str:
    text = files(__package__).joinpath("templates", f"{template}.template").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def _row(each: Packed) -> str:
    """A model in the table of the package's README."""
    entry = each.entry
    cost = f"{entry.parameters / 1e6:.1f} M | {entry.macs / 1e9:.3g} | {file_size(entry.size)}"
    return f"| `{each.name}` | {cost} | {_brief(entry.metrics)} |"


def _floor_rows(packed: list[Packed]) -> Iterator[str]:
    floor = {name: metrics for each in packed for name, metrics in each.entry.floor.items()}
    for name, metrics in floor.items():
        yield f"| {name}, no training | | | | {_brief(metrics)} |"


def _brief(metrics: tuple[Metric, ...]) -> str:
    """Cells: the EER of each set of modalities, whole first, then TAR at FMR 1e-3."""
    cells = []
    for name in ("eer", "tar_at_fmr"):
        found = [m for m in metrics if m.name == name and m.at in (None, 1e-3)]
        texts = []
        for metric in found:
            only = f"{metric.modalities[0]}: " if metric.modalities else ""
            spread = "" if metric.low is None else f" ({100 * metric.low:.2f} to {100 * (metric.high or 0):.2f})"
            texts.append(f"{only}{100 * metric.value:.2f}{spread}")
        cells.append("; ".join(texts))
    return " | ".join(cells)
