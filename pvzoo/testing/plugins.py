"""Checks of an installed plugin as a whole (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from ..catalog import spec
from ..errors import PvzooError, UnknownNameError, did_you_mean
from ..plugins import host
from ..registry import Command
from . import entries as _entries  # noqa: F401  (some of its checks are for plugins too)
from .kit import Candidate, CheckFailed, check, expect, said
from .watch import Seen, probe


class PluginCandidate(Candidate):
    """A plugin by its vendor name.

    Raises:
        UnknownNameError: If it is not installed.
    """

    def __init__(self, kind: str, name: str, *, expected_failed: Mapping[str, str] | None = None) -> None:
        known = {plugin.vendor: plugin for plugin in host().plugins}
        if name not in known:
            hint = did_you_mean(name, known) or "; 'pvzoo plugins' lists them"
            raise UnknownNameError(f"no plugin with vendor name {name!r} is installed{hint}", kind=kind, name=name)
        self.plugin = known[name]
        super().__init__(kind, name, requires=self.plugin.requires, expected_failed=expected_failed)

    @property
    def hooks(self) -> str:
        return self.plugin.module

    @cached_property
    def watched(self) -> Seen:
        """What importing its hook module does."""
        found = probe(self.hooks) if self.hooks else None
        return Seen(found.printed, list(found.called)) if found else Seen()


@check("plugin", since="0.1", do="'pvzoo plugins show VENDOR' has the traceback")
def loads(candidate: PluginCandidate) -> None:
    """It is loaded: vendor name, metadata, hooks, and names that start with the vendor are as they should be."""
    host().load(candidate.plugin)
    expect(candidate.plugin.state == "loaded", candidate.plugin.problem())


@check("plugin", since="0.1", do="write for example 'pvzoo>=0.1,<1' in the dependencies")
def bounds(candidate: PluginCandidate) -> None:
    """It says from which pvzoo to which it works, so that another one is refused in words."""
    from packaging.specifiers import SpecifierSet

    requires = candidate.plugin.requires
    expect(candidate.written_for, f"pvzoo{requires} names no lowest version")
    ends = any(part.operator in ("<", "<=", "~=", "==") for part in SpecifierSet(requires))
    expect(ends, f"pvzoo{requires} names no highest version")


@check("plugin", since="0.1", do="mark its functions with @pvzoo.hookimpl, and call register", needs="loads")
def registers(candidate: PluginCandidate) -> None:
    """It registers something."""
    expect(candidate.plugin.entries, "it has no entry of any kind")


@check("plugin", since="0.1", do="'pvzoo validate' shows every fault of a spec with its line", needs="loads")
def models_are_valid(candidate: PluginCandidate) -> None:
    """The specs of its models are valid."""
    for entry in candidate.plugin.entries:
        if entry.kind == "model":
            try:
                spec(entry.name)
            except PvzooError as error:
                raise CheckFailed(f"{entry.name}: {error}") from error


@check("plugin", since="0.1", do="name an object that exists, as 'package.module:attribute'", needs="loads")
def commands_exist(candidate: PluginCandidate) -> None:
    """The commands that it registers can be imported."""
    for entry in candidate.plugin.entries:
        if isinstance(entry, Command):
            try:
                entry.builder()
            except Exception as error:
                raise CheckFailed(f"{entry.name}: {said(error)}") from error
