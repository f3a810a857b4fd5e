"""Runs studies: branches once, their features once, and every arm with every seed; what has ended is not run again."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import factory
from ..data.module import PairDataModule
from ..data.protocols import open_protocol
from ..data.sources import Images, open_images
from ..data.split import Split
from ..errors import PvzooError
from ..evaluation import metrics
from ..evaluation.bootstrap import FOLDS, subject_bootstrap
from ..evaluation.models import embed_part
from ..evaluation.protocols import compared
from ..evaluation.scores import Comparisons, Counts, count_scores
from ..model import Model
from ..progress import track
from ..specs import ModelSpec, Source, load_spec
from ..training.batches import pixels
from ..training.features import cache_features, embed_features
from ..training.folder import claimed, write
from ..training.machine import Machine, device_of
from ..training.recipe import Recipe, load_recipe
from ..training.run import branch_specs, fit, train
from ..weights import attribute, header_at
from .study import Arm, Arms, Study, arms

STUDY, FIGURES, FOLDED, ERROR = "study.yaml", "figures.json", "folds.npy", "error.txt"
FMR = 1e-3
NAMES = ("eer", "tar")  # the rows of folds.npy


@dataclass(frozen=True, eq=False)
class Trial:
    """One arm with one seed.

    Attributes:
        figures: ``eer``, ``tar`` (at :data:`FMR`), ``dev_eer``, ``parameters``, ``trained``, ``seconds``.
        folds: (2, F) EER and TAR of each fold.
    """

    seed: int
    figures: Mapping[str, float]
    folds: metrics.Array


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of an arm.

    Attributes:
        trials: One a seed; empty if it failed.
        error: Why it failed.
    """

    arm: Arm
    trials: tuple[Trial, ...] = ()
    error: str = ""


@dataclass(frozen=True, eq=False)
class Results:
    """A study that was run.

    Attributes:
        about: Data set, protocol, parts of the split.
        counts: What every figure rests on.
        outcomes: The reference first.
    """

    study: Study
    arms: Arms
    about: Mapping[str, Any]
    counts: Counts
    outcomes: tuple[Outcome, ...]
    folds: int


def run_study(
    study: Study,
    out: Path,
    *,
    groups: Sequence[str] = (),
    init: Sequence[str | Path] = (),
    folds: int = FOLDS,
    resume: bool = False,
    machine: Machine | None = None,
    tell: Callable[[str], object] = lambda line: None,
) -> Results:
    """Trains and tests every arm of a study.

    Args:
        study: As :func:`~pvzoo.ablation.study.load_study` gave it.
        out: Folder: ``branches`` (stage 1), ``features``, and ``arms/GROUP/ARM/seedN``.
        groups: Those to run; all by default.
        init: Saved models whose branches are used; those that an arm lacks are trained by ``study.branches``.
        folds: Of the subject bootstrap.
        resume: Go on with the study that is in the folder.
        machine: Where to run.
        tell: Called with a line about each arm that has ended.

    Raises:
        SpecError: If an arm is wrong; nothing is run then.
        DataError: The data cannot be used as the recipe says.
        RunError: The folder holds another study, or one that is being run.
    """
    found = arms(study, tuple(groups))
    about = {"study": study.model_dump(mode="json"), "groups": list(groups), "init": [str(path) for path in init]}
    with claimed(out, STUDY, about | {"folds": folds}, resume):
        bench = _Bench(study, found.reference.recipe, out, init, folds, machine or Machine())
        outcomes = []
        for arm in found:
            outcome = bench.outcome(arm)
            outcomes.append(outcome)
            tell(_line(outcome))
        return Results(study, found, bench.about(), bench.counts(), tuple(outcomes), folds)


def _line(outcome: Outcome) -> str:
    name = " / ".join(filter(None, (outcome.arm.group, outcome.arm.name)))
    if outcome.error:
        return f"{name}: failed: {outcome.error}"
    rates = ", ".join(f"{100 * trial.figures['eer']:.2f}" for trial in outcome.trials)
    return f"{name}: EER {rates} %"


class _Bench:
    """The data, branches and features that all arms share."""

    def __init__(
        self,
        study: Study,
        reference: Recipe,
        out: Path,
        init: Sequence[str | Path],
        folds: int,
        machine: Machine,
    ) -> None:
        self.study, self.reference, self.out, self.folds = study, reference, out, folds
        self.machine = replace(machine, features=str(out / "features"))
        self.images: Images = open_images(reference.data)
        self.split: Split = _split(reference, self.images)
        self.given = [_Given(Path(path).expanduser()) for path in init]
        self.stage1 = load_recipe(study.branches).model_copy(update={"data": reference.data})

    def about(self) -> dict[str, Any]:
        return {
            "data": self.reference.data.source,
            "data_sha256": self.images.digest,
            "protocol": self.split.protocol,
            "parts": self.split.counts(),
            "notes": list(self.split.notes),
        }

    def counts(self) -> Counts:
        return compared(torch.eye(len(self.split.test.samples)) + 1, self.split.test).counts

    def outcome(self, arm: Arm) -> Outcome:
        """Runs an arm; one that fails does not take the others down."""
        folder = self.out / "arms" / (arm.group or "reference") / arm.name
        try:
            if arm.recipe.data != self.reference.data:
                raise PvzooError("an arm is compared by subject, so it has the data of the reference")
            init = self._branches(arm.recipe.spec(len(self.split.classes)))
            trials = [self._trial(arm, folder / f"seed{seed}", init, seed) for seed in range(self.study.seeds)]
        except Exception as error:
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / ERROR, traceback.format_exc())
            return Outcome(arm, error=f"{str(error).partition(chr(10))[0]} ({folder / ERROR})")
        (folder / ERROR).unlink(missing_ok=True)
        return Outcome(arm, tuple(trials))

    def _branches(self, spec: ModelSpec) -> list[Path]:
        """A saved model for each branch of an arm: a given one, or one that stage 1 makes now."""
        plain = load_spec(Source("stage 1", spec.model_dump(mode="json")), self.stage1.overrides)
        found = {}
        for label, alone in branch_specs(plain).items():
            given = [each.path for each in self.given if each.has(alone)]
            if given:
                found[label] = given[0]
                continue
            key = hashlib.sha256(json.dumps(alone.to_dict(), sort_keys=True).encode()).hexdigest()[:8]
            folder = self.out / "branches" / f"{label}-{key}"
            found[label] = fit(self.stage1, alone, self.split, self.images, folder, (), self.machine)
        return list(dict.fromkeys(found.values()))

    def _trial(self, arm: Arm, folder: Path, init: Sequence[Path], seed: int) -> Trial:
        if not (folder / FIGURES).is_file():
            start = time.perf_counter()
            recipe = arm.recipe.model_copy(update={"init": tuple(map(str, init)), "seed": seed})
            resume = (folder / "recipe.yaml").is_file()
            path = train(recipe, folder, resume=resume, machine=self.machine)
            model = factory.create(f"local-dir:{path}").to(device_of(self.machine)).eval()
            figures, folded = self._measure(model, recipe)
            facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            figures["parameters"] = sum(p.numel() for p in model.parameters())
            figures["trained"] = sum(group["parameters"] for group in facts["trained"])
            figures["seconds"] = time.perf_counter() - start
            np.save(folder / FOLDED, folded)
            write(folder / FIGURES, json.dumps(figures, indent=2))
        figures = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
        return Trial(seed, figures, np.load(folder / FOLDED))

    def _measure(self, model: Model, recipe: Recipe) -> tuple[dict[str, float], metrics.Array]:
        figures: dict[str, float] = {}
        _, dev = self._scores(model, recipe, "dev")
        figures["dev_eer"] = metrics.eer(dev).value
        scores, tally = self._scores(model, recipe, "test")
        read = {
            "eer": lambda counts: metrics.eer(counts).value,
            "tar": lambda counts: metrics.tar_at_fmr(counts, FMR),
        }
        figures |= {name: read[name](tally) for name in NAMES}
        counted = count_scores(scores, targets=(FMR,))
        folded = subject_bootstrap(scores, counted, folds=self.folds)
        return figures, np.array([folded.values(read[name]) for name in NAMES])

    def _scores(self, model: Model, recipe: Recipe, part: str) -> tuple[Comparisons, metrics.Tally]:
        comparisons = self.split.dev if part == "dev" else self.split.test
        if recipe.cache_features:
            data = PairDataModule(self.split, model.spec, purpose="evaluation", reader=self.images.reader)
            dataset = data.dev_set if part == "dev" else data.test_set
            assert dataset is not None and self.machine.features is not None
            about = pixels(recipe, self.images)
            cached = cache_features(model, dataset, Path(self.machine.features), views=1, pixels=about, track=track)
            embeddings = embed_features(model, cached)
        else:
            embeddings = embed_part(model, comparisons.samples, self.images.reader).embeddings
        # Without normalisation, length is part of what the model says.
        scores = compared(embeddings, comparisons, cosine=model.spec.embedding.normalize)
        return scores, count_scores(scores, targets=(FMR,)).tally


class _Given:
    """A saved model, and which branches it can give."""

    def __init__(self, path: Path) -> None:
        self.path = path
        header = header_at(path)
        self._tensors = list(header.tensors)
        self._shared = bool((header.about.spec or {}).get("share_branches"))

    def has(self, alone: ModelSpec) -> bool:
        """Whether it holds the branch of a stage-1 spec."""
        (branch,), first = alone.branches, alone.modalities[0]
        prefix = f"branches.{attribute(first)}.{attribute(branch)}."
        return self._shared == alone.share_branches and any(name.startswith(prefix) for name in self._tensors)


def _split(recipe: Recipe, images: Images) -> Split:
    return open_protocol(recipe.data.protocol, recipe.data.protocol_params).split(images.table)
