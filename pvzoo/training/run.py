"""Runs recipes: a folder a run, in which nothing is lost and from which an interrupted run goes on."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .. import __version__, weights
from ..data.protocols import open_protocol
from ..data.sources import Images, open_images
from ..data.split import Comparisons, Split
from ..data.table import Pair
from ..errors import DataError, WeightsError, count
from ..manifest import WEIGHTS
from ..model import Model
from ..specs import ModelSpec, Source, load_spec
from .batches import data_module
from .checkpoint import Kept, SafeCheckpointIO
from .folder import RunError, claimed, is_first, write
from .jobs import train_branches
from .journal import Journal, Watch
from .lightning import Callback, EarlyStopping, EMAWeightAveraging
from .machine import Machine, device_of, explained, strategy_of, trainer_of
from .module import TrainingError, TrainingModule
from .recipe import Recipe, load_recipe
from .starts import Start, find_start, find_starts

RECIPE, RUN, MODEL, CHECKPOINTS = "recipe.yaml", "run.json", "model", "checkpoints"


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    out: str | os.PathLike[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    machine: Machine | None = None,
) -> Path:
    """Trains as a recipe says.

    Args:
        recipe: A name of :func:`~pvzoo.training.recipe.list_recipes`, a file, a mapping, or a recipe.
        out: Folder of the run. It gets the resolved recipe, checkpoints, metrics, curves, and ``model``.
        overrides: Fields of the recipe by dotted path.
        resume: Go on with the run that is in the folder.
        machine: Where to run; this process by default.

    Returns:
        The folder of the model that was chosen by the dev identities, as ``model.save`` writes it; after stage 1 of
        several branches, the run's folder, which holds ``<modality>_<branch>/model``.

    Raises:
        SpecError: The recipe or the model's spec is wrong.
        DataError: The data cannot be used as the recipe says.
        RunError: The folder holds another run, or one that is being written.
        JobError: Branches that were trained side by side failed.
        TrainingError: This machine is not as asked, or the training cannot go on.
    """
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    folder = Path(out).expanduser()
    machine = machine or Machine()
    if machine.jobs > 1 and (machine.devices != 1 or machine.num_nodes > 1):
        raise RunError("jobs train on one device each; leave out either jobs, or devices and num_nodes")
    # What is not there should not be found out after hours.
    device_of(machine)
    find_starts(resolved)
    with claimed(folder, RECIPE, resolved.to_dict(), resume):
        return _run(resolved, folder, (), machine)


def _run(recipe: Recipe, out: Path, init: Sequence[str], machine: Machine) -> Path:
    """A recipe with all its steps; each starts from what the one before it trained."""
    if recipe.steps:
        before = init
        made: list[Path] = []
        for name, step in recipe.steps.items():
            made = _trained(step, out / name, before, machine)
            before = [str(path) for path in made]
        return _published(made[0], out / MODEL)
    made = _trained(recipe, out, init, machine)
    return made[0] if len(made) == 1 else out


def _trained(recipe: Recipe, out: Path, init: Sequence[str], machine: Machine) -> list[Path]:
    """One step: the model, or in stage 1 a model for each branch."""
    images = open_images(recipe.data)
    split = open_protocol(recipe.data.protocol, recipe.data.protocol_params).split(images.table)
    spec = recipe.spec(len(split.classes))
    init = recipe.init or init
    if recipe.stage == 2:
        return [fit(recipe, spec, split, images, out, init, machine)]
    specs = branch_specs(spec)
    for alone in specs.values():
        samples_for(alone, split)  # what a later branch lacks should not be found out after hours
    if machine.jobs > 1:
        left = [name for name in specs if not (out / name / MODEL / WEIGHTS).is_file()]
        train_branches(recipe, left, out, init, machine, machine.jobs)
    return [fit(recipe, alone, split, images, out / name, init, machine) for name, alone in specs.items()]


def train_branch(recipe: Recipe, name: str, out: Path, init: Sequence[str], machine: Machine) -> None:
    """Trains one branch of stage 1, in a run folder that is claimed."""
    images = open_images(recipe.data)
    split = open_protocol(recipe.data.protocol, recipe.data.protocol_params).split(images.table)
    spec = branch_specs(recipe.spec(len(split.classes)))[name]
    fit(recipe, spec, split, images, out / name, init, machine)


def branch_specs(spec: ModelSpec) -> dict[str, ModelSpec]:
    """What stage 1 trains: each branch of each modality alone, by ``modality_branch``.

    The tensors of such a model have the names that they have in the whole one. A branch that the modalities share is
    trained on all of them at once, as a sum.
    """
    plain = spec.model_dump(mode="json", include={"preprocessing", "embedding", "head", "num_classes"})
    found = {}
    owners = [spec.modalities] if spec.share_branches else [(modality,) for modality in spec.modalities]
    for modalities in owners:
        for name, branch in spec.branches.items():
            backbone = {modality: branch.backbone[modality].model_dump(mode="json") for modality in modalities}
            data: dict[str, Any] = {
                **plain,
                "modalities": list(modalities),
                "branches": {name: {"backbone": backbone, "features": "vector"}},
            }
            if len(modalities) > 1:
                data |= {"share_branches": True, "fusion": {name: "sum"}}
            found[f"{'_'.join(modalities)}_{name}"] = load_spec(Source("stage 1", data))
    return found


def samples_for(spec: ModelSpec, split: Split) -> Split:
    """The split without the training and dev samples that have no image for a model; a note says how many they are.

    Raises:
        DataError: If too few are left.
    """

    def fits(pair: Pair) -> bool:
        # A modality that no sample has is another fault, which the data module names.
        return any(pair.images.get(modality, True) for modality in spec.modalities)

    out = {pair for pair in (*split.train, *split.dev.samples) if not fits(pair)}
    if not out:
        return split
    gallery, probes = (tuple(filter(fits, pairs)) for pairs in (split.dev.gallery, split.dev.probes))
    listed = split.dev.listed
    if listed is not None:
        rows, columns = ({pair: place for place, pair in enumerate(pairs)} for pairs in (gallery, probes))
        named = ((split.dev.gallery[row], split.dev.probes[column]) for row, column in listed)
        listed = tuple((rows[a], columns[b]) for a, b in named if fits(a) and fits(b))
    train = tuple(filter(fits, split.train))
    note = f"left out: {count(len(out), 'sample')} with no {' or '.join(spec.modalities)} image"
    try:
        return replace(split, train=train, dev=Comparisons(gallery, probes, listed), notes=(*split.notes, note))
    except DataError as error:
        raise DataError(f"{note}; {error}") from error


def fit(
    recipe: Recipe, spec: ModelSpec, split: Split, images: Images, out: Path, init: Sequence[str], machine: Machine
) -> Path:
    """Trains one model; a run that has ended gives its result.

    Args:
        recipe: How.
        spec: What.
        split: Who trains, and who chooses; samples that have no image for the model are left out.
        images: Where the pixels of the split come from.
        out: Folder of the run, which the caller has claimed.
        init: What to start from, by name or path; see :func:`~pvzoo.training.starts.find_start`.
        machine: Where.

    Returns:
        The folder of the saved model.
    """
    if (out / MODEL / WEIGHTS).is_file():
        return out / MODEL
    split = samples_for(spec, split)
    torch.manual_seed(recipe.seed)
    starts = [find_start(name) for name in init]
    model = started(spec, starts, any_size=recipe.stage == 1)
    model.check_inputs = False  # the loader made them
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    module = TrainingModule(model, recipe, split.dev)
    refuse_random(module, starts)  # before features of such branches are computed
    data = data_module(recipe, model, split, images, machine, out)
    best = Kept(out / CHECKPOINTS, "best", "dev_eer", enable_version_counter=False)
    every = Kept(out / CHECKPOINTS, "last", enable_version_counter=False)
    callbacks: list[Callback] = [Journal(out), best, every]
    if machine.progress:
        callbacks.append(Watch(out.name))
    if recipe.ema is not None:
        callbacks.append(EMAWeightAveraging(decay=recipe.ema))
    if recipe.patience is not None:
        callbacks.append(EarlyStopping("dev_eer", patience=recipe.patience))
    if is_first():
        out.mkdir(parents=True, exist_ok=True)
        facts = facts_of(recipe, split, images, module) | {"init": [start.facts() for start in starts]}
        write(out / RUN, json.dumps(facts, indent=2))
    last = out / CHECKPOINTS / "last.safetensors"
    if recipe.compile:
        for backbone in {model.branch(branch, m) for branch in spec.branches for m in spec.modalities}:
            backbone.compile()
    with explained():
        trainer = trainer_of(recipe, machine, out, callbacks, strategy=strategy_of(recipe, split, spec, machine))
        try:
            trainer.fit(module, datamodule=data, ckpt_path=last if last.is_file() else None)
        except BaseException:
            if trainer.strategy.launcher is not None:
                # Processes that wait for this one, in C++, where Python's handler of SIGTERM never runs.
                trainer.strategy.launcher.kill(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
            raise
    if trainer.is_global_zero:
        chosen = SafeCheckpointIO().load_checkpoint(out / CHECKPOINTS / "best.safetensors")["state_dict"]
        model.load_state_dict({name.removeprefix("model."): value for name, value in chosen.items()})
        model.eval().save(out / MODEL)
    trainer.strategy.barrier()
    return out / MODEL


_PARTS = {"modalities", "share_branches", "fusion", "embedding"}


def started(spec: ModelSpec, starts: Sequence[Start], *, any_size: bool = False) -> Model:
    """A new model; or one that goes on from a saved one of the same parts, whatever its head; or with its branches.

    Raises:
        WeightsError: If they are of another model, or not those of all its branches.
    """
    if len(starts) == 1:
        header = starts[0].header
        saved = load_spec(Source(str(header.path), header.about.spec)) if header.about.spec else None
        if saved is not None and _parts(saved) == _parts(spec):
            # Whatever it was saved in: half-precision parameters hardly move, and fp16 and bf16 mean autocast here.
            return weights.load_model(spec, header, Model, torch.float32)
    model = Model(spec)
    if starts:
        named = [(start.name, start.header) for start in starts]
        try:
            model.set_load_report(weights.load_branches(model, named, any_size=any_size))
        except WeightsError as error:
            known = (starts[0].header.about.spec or {}).get("name") if len(starts) == 1 else None
            if not known or known == spec.name:
                raise
            raise WeightsError(f"init {starts[0].name}: {error}. It is {known}: --model {known} trains that") from error
    return model


def refuse_random(module: TrainingModule, starts: Sequence[Start]) -> None:
    """Refuses to train on top of branches that would stay random.

    Raises:
        TrainingError: Saying what to start from.
    """
    branches = {name for name, _ in module.model.named_parameters() if name.startswith("branches.")}
    if branches and not starts and branches <= set(module.plan.frozen):
        hint = "name a model of 'pvzoo list --pretrained' or folders of trained branches by --init"
        raise TrainingError(f"the recipe leaves all branches as they are, and these are random: {hint}")


def _parts(spec: ModelSpec) -> tuple[Any, ...]:
    return spec.model_dump(include=_PARTS), spec.written_out()


def facts_of(recipe: Recipe, split: Split, images: Images, module: TrainingModule) -> dict[str, Any]:
    """What a reader needs to know of a run, beside the recipe."""
    trained = [
        {
            "parts": list(group.parts),
            "lr": group.lr or recipe.optimiser.lr,
            "parameters": sum(p.numel() for p in m.values()),
        }
        for group, m in zip(module.plan.groups, module.plan.members, strict=True)
    ]
    return {
        "model": module.model.spec.to_dict(),
        "protocol": split.protocol,
        "notes": list(split.notes),
        "parts": split.counts(),
        "excluded": len(split.excluded),
        "data": {"source": recipe.data.source, "digest": images.digest},
        "trained": trained,
        "frozen_parameters": sum(module.model.get_parameter(name).numel() for name in module.plan.frozen),
        "started_from": str(module.model.load_report) if module.model.load_report else None,
        "seed": recipe.seed,
        "versions": {"pvzoo": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "git": _git_revision(),
    }


def _git_revision() -> str | None:
    """Of the working folder, where there is one."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _published(model: Path, place: Path) -> Path:
    """Copies the last step's model to where it is looked for."""
    if not (place / WEIGHTS).is_file() and is_first():
        partial = place.with_name(f".{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(model, partial)
        partial.replace(place)
    return place
