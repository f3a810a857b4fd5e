"""Checks of what a component says about itself, before anything is built (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from ..errors import PvzooError
from ..plugins import BUILTIN_MODULES, Plugin, host
from ..registry import BUILTIN, Component, Params
from ..specs.fields import explain, validate_strictly
from .kit import Candidate, CheckFailed, NotRun, check, expect
from .watch import Seen, probe

MODULES = ("fusion", "backbone", "alignment", "head")
COMPONENTS = (*MODULES, "weight_source", "dataset")


class ComponentCandidate(Candidate):
    """A registered component with its parameters.

    Args:
        kind: Its kind.
        name: Its name in the registry.
        params: Parameters, where the defaults will not do.
        expected_failed: As for any candidate.

    Raises:
        UnknownNameError: No such component.
        PluginError: Its plugin cannot be used.
        PvzooError: If the parameters do not fit.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        *,
        params: Mapping[str, Any] | None = None,
        expected_failed: Mapping[str, str] | None = None,
    ) -> None:
        entry = host().find(kind, name)
        assert isinstance(entry, Component)
        self.plugin = _plugin_of(entry)
        super().__init__(kind, entry.name, requires=self.plugin.requires, expected_failed=expected_failed)
        self.entry: Any = entry
        self.given = dict(params or {})
        if self.given:
            try:
                validate_strictly(entry.params, self.given)
            except ValidationError as error:
                raise PvzooError(f"{self}: params: {explained(error, entry.params)}") from error

    @property
    def lacks(self) -> str:
        return self.lacks_params

    @property
    def lacks_params(self) -> str:
        """Which parameters have no default and were not given, or an empty string."""
        required = [name for name, field in self.entry.params.model_fields.items() if field.is_required()]
        lacking = [name for name in required if name not in self.given]
        example = ", ".join(f"{name!r}: ..." for name in lacking)
        return f"it needs parameters; in a test, give params={{{example}}}" if lacking else ""

    @cached_property
    def params(self) -> Params:
        checked: Params = validate_strictly(self.entry.params, self.given)
        return checked

    @cached_property
    def built(self) -> Any:
        """What the builder of a data set or weight source gives."""
        return self.entry.create(self.params)

    @property
    def hooks(self) -> str:
        """The module that registers it; empty for a plugin that was added in code."""
        return self.plugin.module

    @property
    def watched(self) -> Seen:
        """What it does beside its work when it is built and used."""
        raise NotImplementedError


def explained(error: ValidationError, params: type[Params]) -> str:
    """What is wrong with parameters, in a line."""
    return "; ".join(f"{'.'.join(map(str, path))}: {text}" for path, text in explain(error, params))


def _plugin_of(entry: Component) -> Plugin:
    if entry.origin.vendor == BUILTIN:
        # The Hub's weight source stands in a layer above, and is registered beside the manifest.
        module = next((m for m in BUILTIN_MODULES if str(entry.build).startswith(f"{m}.")), "pvzoo.zoo")
        return Plugin(BUILTIN, module=module)
    return next(plugin for plugin in host().plugins if plugin.vendor == entry.origin.vendor)


@check(*COMPONENTS, since="0.1", do="register it with summary='...'")
def summary(candidate: ComponentCandidate) -> None:
    """Has a summary of one line, which is all that a list shows of it."""
    text = candidate.entry.summary
    expect(text.strip(), "there is none")
    expect("\n" not in text and len(text) <= 120, f"it has {len(text)} characters in {len(text.splitlines())} lines")


@check(*COMPONENTS, since="0.1", do="leave model_config as pvzoo.Params sets it")
def params_frozen(candidate: ComponentCandidate) -> None:
    """Its Params are frozen and refuse unknown fields, so that a misspelt one is an error."""
    config = candidate.entry.params.model_config
    expect(config.get("frozen"), "they can be changed")
    expect(config.get("extra") == "forbid", f"extra is {config.get('extra')!r}")


@check(*COMPONENTS, since="0.1", do="give defaults that the field's own constraints and validators accept")
def params_defaults(candidate: ComponentCandidate) -> None:
    """Its Params are valid as they come, so that its bare name can stand in a spec."""
    if candidate.lacks_params:
        raise NotRun(candidate.lacks_params)
    try:
        candidate.entry.params.model_validate(dict(candidate.params))
    except ValidationError as error:
        raise CheckFailed(explained(error, candidate.entry.params)) from error


@check(*COMPONENTS, since="0.1", do="use types that JSON knows: numbers, text, bool, None, Literal, tuples, dicts")
def params_schema(candidate: ComponentCandidate) -> None:
    """Its Params have a JSON Schema, by which editors complete and check specs."""
    candidate.entry.params.model_json_schema()


@check(*COMPONENTS, since="0.1", do="write a field as what its validators read", needs="params_defaults")
def spec_round_trip(candidate: ComponentCandidate) -> None:
    """Its Params written into a spec and read back are the same, so that a saved model is the one that was built."""
    import yaml

    text = yaml.safe_dump(candidate.params.model_dump(mode="json"))
    again = validate_strictly(candidate.entry.params, yaml.safe_load(text))
    expect(again == candidate.params, f"{candidate.params!r} came back as {again!r}")


@check(
    *COMPONENTS,
    "plugin",
    since="0.1",
    do="import heavy packages in the module that holds the builder, which build names as 'package.module:attribute'",
    needs="loads",
)
def import_light(candidate: Any) -> None:
    """Its hook module imports no torch or the like, so that lists and checks of specs stay fast."""
    if not candidate.hooks:
        raise NotRun("it was added in code, not installed")
    found = probe(candidate.hooks)
    expect(not found.fault, f"{candidate.hooks}: {found.fault}")
    expect(not found.heavy, f"importing {candidate.hooks} imports {', '.join(found.heavy)}")


@check(*COMPONENTS, "plugin", since="0.1", do="return values, or use logging; take out prints", needs="builds")
def silent(candidate: Any) -> None:
    """Prints nothing: the output of a command belongs to the command."""
    text = candidate.watched.printed
    expect(not text, f"it printed {text[:200]!r}")


@check(
    *COMPONENTS,
    "plugin",
    since="0.1",
    do="get files in a weight source, when find is called",
    needs="builds",
)
def offline(candidate: Any) -> None:
    """Needs no network, so that it works on a machine without one, and nobody learns who uses it."""
    called = candidate.watched.called
    expect(not called, f"it asked for {', '.join(dict.fromkeys(called))}")
