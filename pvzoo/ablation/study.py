"""Studies: which arms there are, and what each of them changes (no torch)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from .. import catalog
from ..errors import PvzooError, SpecError, UnknownNameError, nearest
from ..specs import Source, names_file
from ..specs.fields import Section, explain, validate_strictly
from ..training.recipe import Recipe, load_recipe, merged

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_. -]*$", max_length=60)]


class Group(Section):
    """Arms that answer one question."""

    summary: str = ""
    arms: dict[Name, dict[str, Any]] = Field({}, description="by name, the fields of the recipe that differ")
    every: str | None = Field(
        None, description="path in the model's spec at which every installed component is tried that fits there"
    )


class Study(Section):
    """A reference, and arms that differ from it.

    Attributes:
        branches: Recipe of stage 1, for branches that are not given.
        recipe: Recipe of stage 2: the reference arm, from which the others differ.
    """

    summary: str = ""
    reference: Name = Field("reference", description="name of the arm in which nothing is changed")
    seeds: int = Field(3, ge=1, le=100, description="trainings of each arm, with the seeds 0, 1, ...")
    branches: dict[str, Any] = Field({"extends": "stage1"})
    recipe: dict[str, Any] = Field({"extends": "stage2_plan_a"})
    groups: dict[Name, Group] = Field(min_length=1)


@dataclass(frozen=True)
class Arm:
    """One training that is compared, before its seeds.

    Attributes:
        group: Its group; empty for the reference.
        name: In the group.
        recipe: Of stage 2.
        changes: Fields in which it differs from the reference.
    """

    group: str
    name: str
    recipe: Recipe
    changes: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """What it changes, in a line."""
        overrides = self.changes.get("overrides", {})
        parts = [f"{path}: {json.dumps(value)}" for path, value in overrides.items()]
        parts += [f"without {path}" for path in self.changes.get("without", ())]
        others = (item for item in self.changes.items() if item[0] not in ("overrides", "without"))
        return ", ".join([*parts, *(f"{field}: {json.dumps(value)}" for field, value in others)])


@dataclass(frozen=True)
class LeftOut:
    """A component that an arm could not be made of, and why."""

    group: str
    name: str
    reason: str


@dataclass(frozen=True)
class Arms:
    """A study, resolved.

    Attributes:
        reference: What the others are compared with.
        others: In the order of the study.
        left_out: Installed components that do not fit.
    """

    reference: Arm
    others: tuple[Arm, ...]
    left_out: tuple[LeftOut, ...] = ()

    def __iter__(self) -> Iterator[Arm]:
        yield self.reference
        yield from self.others


def list_studies() -> list[str]:
    """Names of the studies that ship."""
    folder = files("pvzoo.zoo") / "studies"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_study(name: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Study:
    """Reads and checks a study.

    Args:
        name: A name of :func:`list_studies`, a path of a YAML or JSON file, or a mapping.
        overrides: Values by dotted path, ``{"seeds": 5, "recipe.epochs": 10, "branches.epochs": 5}``.

    Raises:
        UnknownNameError: No such study; with a suggestion.
        SpecError: With every fault: file, line, column, path, what is wrong.
    """
    source = _source(name)
    source.override(overrides or {})
    if not isinstance(source.data, Mapping):
        raise SpecError([source.problem((), "should be a mapping of fields")])
    try:
        return validate_strictly(Study, source.data)
    except ValidationError as error:
        problems = [source.problem(path, message) for path, message in dict.fromkeys(explain(error, Study))]
        raise SpecError(problems) from error


def _source(name: str | Path | Mapping[str, Any]) -> Source:
    if isinstance(name, Mapping):
        return Source("study", dict(name))
    if isinstance(name, Path) or names_file(name):
        return Source.from_file(Path(name).expanduser())
    known = list_studies()
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
        message = f"no study named {name!r}; {hint}"
        raise UnknownNameError(message, kind="study", name=name, suggestions=[near] if near else [])
    return Source.from_file(files("pvzoo.zoo") / "studies" / f"{name}.yaml", f"{name}.yaml")


def arms(study: Study, groups: tuple[str, ...] = ()) -> Arms:
    """Resolves every arm, and checks its recipe and its model's spec.

    Args:
        study: As :func:`load_study` gave it.
        groups: Those to run; all by default.

    Raises:
        UnknownNameError: No such group; with a suggestion.
        SpecError: If an arm's recipe or spec is wrong.
    """
    for wanted in groups:
        if wanted not in study.groups:
            near = nearest(wanted, study.groups)
            hint = f"did you mean {near!r}?" if near else f"there are {', '.join(study.groups)}"
            message = f"the study has no group {wanted!r}; {hint}"
            raise UnknownNameError(message, kind="group", name=wanted, suggestions=[near] if near else [])
    reference = _arm(study, "", study.reference, {})
    others: list[Arm] = []
    left_out: list[LeftOut] = []
    for name, group in study.groups.items():
        if groups and name not in groups:
            continue
        others += [_arm(study, name, arm, changes) for arm, changes in group.arms.items()]
        if group.every is not None:
            for found in _installed(study, name, group.every, reference, others):
                if isinstance(found, Arm):
                    others.append(found)
                else:
                    left_out.append(found)
    return Arms(reference, tuple(others), tuple(left_out))


def _arm(study: Study, group: str, name: str, changes: Mapping[str, Any]) -> Arm:
    try:
        recipe = load_recipe(merged(study.recipe, changes))
        recipe.spec(2)
    except SpecError as error:
        where = f"arm {name!r} of {group}" if group else f"arm {name!r}"
        raise SpecError(replace(each, source=f"{where}: {each.source}") for each in error.problems) from error
    return Arm(group, name, recipe, changes)


def _installed(study: Study, group: str, path: str, reference: Arm, others: list[Arm]) -> Iterator[Arm | LeftOut]:
    """An arm for every installed component that is not in an arm of the group, or in the reference, already."""
    kind = path.partition(".")[0]
    taken = {_at(arm.recipe, path) for arm in (reference, *others) if arm.group in ("", group)}
    for component in catalog.list_components(kind):
        if component in taken:
            continue
        try:
            yield _arm(study, group, component.replace("/", "."), {"overrides": {path: component}})
        except PvzooError as error:
            yield LeftOut(group, component, str(error).partition("\n")[0])


def _at(recipe: Recipe, path: str) -> str | None:
    """The name of the component at a path of the recipe's spec."""
    found: Any = recipe.spec(2).to_dict()
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    name = found.get("name") if isinstance(found, Mapping) else found
    return name.partition("@")[0] if isinstance(name, str) else None
