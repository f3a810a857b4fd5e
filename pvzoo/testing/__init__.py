"""Checks that a component or plugin of your own keeps pvzoo's contracts.

In a test, one case a check::

    from pvzoo.testing import parametrize_checks

    @parametrize_checks("acme/gated")
    def test_gated(check):
        check()

or all at once, in a test or a script: ``check_fusion("acme/gated")``. On the command line: ``pvzoo check acme``.
``docs/testing.md`` lists the checks. Importing this module loads neither torch nor pytest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import ConformanceError, PvzooError, UnknownNameError, a
from .kit import CHECKS, Candidate, Check, ConformanceWarning, Result, conclude

if TYPE_CHECKING:
    import pytest

    from .datasets import Tree

Options = Mapping[str, Any] | None
Known = Mapping[str, str] | None

_CANDIDATES = {
    "fusion": "modules:ModuleCandidate",
    "backbone": "modules:ModuleCandidate",
    "alignment": "modules:ModuleCandidate",
    "head": "modules:ModuleCandidate",
    "weight_source": "sources:SourceCandidate",
    "dataset": "datasets:DatasetCandidate",
    "plugin": "plugins:PluginCandidate",
}
KINDS = tuple(_CANDIDATES)


def check_fusion(name: str, *, params: Options = None, expected_failed: Known = None) -> None:
    """Puts a fusion to all checks of its kind; the other ``check_...`` functions do so for theirs.

    Args:
        name: Its name in the registry, ``"acme/gated"``.
        params: Its parameters, where the defaults will not do.
        expected_failed: By name of a check, why it is known to fail; one that passes all the same is an error.

    Raises:
        ConformanceError: With every check that failed: what was expected, what was found, and what to do.
        UnknownNameError: No such component.
        PvzooError: If parameters are missing or do not fit.
    """
    _check("fusion", name, params=params, expected_failed=expected_failed)


def check_backbone(
    name: str,
    *,
    params: Options = None,
    image_sizes: Sequence[tuple[int, int]] | None = None,
    expected_failed: Known = None,
) -> None:
    """As :func:`check_fusion`; ``image_sizes`` are heights and widths to try, where it refuses the common ones."""
    sizes = {} if image_sizes is None else {"image_sizes": image_sizes}
    _check("backbone", name, params=params, expected_failed=expected_failed, **sizes)


def check_alignment(name: str, *, params: Options = None, expected_failed: Known = None) -> None:
    """As :func:`check_fusion`."""
    _check("alignment", name, params=params, expected_failed=expected_failed)


def check_head(name: str, *, params: Options = None, expected_failed: Known = None) -> None:
    """As :func:`check_fusion`."""
    _check("head", name, params=params, expected_failed=expected_failed)


def check_weight_source(name: str, *, params: Options = None, expected_failed: Known = None) -> None:
    """As :func:`check_fusion`; everything that the source provides is fetched and loaded."""
    _check("weight_source", name, params=params, expected_failed=expected_failed)


def check_dataset(name: str, *, tree: Tree, params: Options = None, expected_failed: Known = None) -> None:
    """As :func:`check_fusion`; ``tree`` writes a few images in the layout into the empty folder that it is given."""
    _check("dataset", name, tree=tree, params=params, expected_failed=expected_failed)


def check_plugin(vendor: str, *, expected_failed: Known = None) -> None:
    """Puts an installed plugin to the checks of plugins; its components have checks of their own."""
    _check("plugin", vendor, expected_failed=expected_failed)


def parametrize_checks(name: str, *, kind: str | None = None, **options: Any) -> pytest.MarkDecorator:
    """Makes a test of one argument ``check`` into one pytest case a check.

    Args:
        name: A component, ``"acme/gated"``, or the vendor name of a plugin.
        kind: Its kind, for a name that is of several.
        **options: As for the ``check_...`` function of its kind.

    Raises:
        UnknownNameError: No such component or plugin.
        PvzooError: If the options do not fit.
    """
    import pytest

    kinds = [kind] if kind else kinds_of(name)
    if len(kinds) > 1:
        raise PvzooError(f"{name!r} is {' and '.join(map(a, kinds))}; say which, such as kind={kinds[0]!r}")
    found = _complete(kinds[0], name, options)

    def run(name: str) -> None:
        __tracebackhide__ = True
        result = found.result(name)
        if result.outcome == "not run":
            pytest.skip(result.found)
        if result.outcome == "expected":
            pytest.xfail(result.found)
        conclude(found, [result])

    return pytest.mark.parametrize("check", [pytest.param(partial(run, name), id=name) for name in found.checks])


def candidate(kind: str, name: str, **options: Any) -> Candidate:
    """What is to be checked; see the ``check_...`` functions for options and errors."""
    made: Candidate = getattr(_home(kind), _CANDIDATES[kind].partition(":")[2])(kind, name, **options)
    return made


def checks(kind: str) -> dict[str, Check]:
    """All checks of a kind by name, in the order in which they are run."""
    _home(kind)
    return CHECKS[kind]


def kinds_of(name: str) -> list[str]:
    """The kinds of component or plugin that have this name.

    Raises:
        UnknownNameError: If there is none that can be checked.
        PluginError: If the component's plugin cannot be used.
    """
    from ..plugins import host
    from ..registry import BUILTIN, parse_name

    vendors = [plugin.vendor for plugin in host().plugins]
    if name in vendors:
        return ["plugin"]
    found, unknown = [], []
    for kind in KINDS[:-1]:
        try:
            host().find(kind, name)
            found.append(kind)
        except UnknownNameError as error:
            unknown.append(error)
    if not found:
        if parse_name(name).vendor not in (BUILTIN, *vendors):
            raise unknown[0]
        near = [suggestion for error in unknown for suggestion in error.suggestions]
        hint = f"did you mean {near[0]!r}?" if near else "'pvzoo plugins' and 'pvzoo list --components KIND' list them"
        message = f"no plugin or component that can be checked is named {name!r}; {hint}"
        raise UnknownNameError(message, kind="component", name=name, suggestions=near)
    return found


def _home(kind: str) -> Any:
    if kind not in _CANDIDATES:
        raise PvzooError(f"there are no checks of a {kind!r}; kinds are {', '.join(KINDS)}")
    return import_module(f".{_CANDIDATES[kind].partition(':')[0]}", __name__)


def _complete(kind: str, name: str, options: Mapping[str, Any]) -> Candidate:
    """A candidate that has all that its checks need."""
    found = candidate(kind, name, **options)
    if found.lacks:
        raise PvzooError(f"{found}: {found.lacks}")
    return found


def _check(kind: str, name: str, **options: Any) -> None:
    __tracebackhide__ = True
    found = _complete(kind, name, options)
    conclude(found, found.results())


__all__ = [
    "Candidate",
    "ConformanceError",
    "ConformanceWarning",
    "Result",
    "candidate",
    "check_alignment",
    "check_backbone",
    "check_dataset",
    "check_fusion",
    "check_head",
    "check_plugin",
    "check_weight_source",
    "checks",
    "kinds_of",
    "parametrize_checks",
]
