"""What a check is, how a candidate is put to its checks, and what becomes of the results (no torch).

A check is a plain function with a name. It takes a *candidate*, which is a component with its parameters or a
plugin, and fails by raising; :func:`expect` does so in a sentence. Its docstring says what is expected.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from .. import __version__
from ..errors import ConformanceError, PvzooError, did_you_mean

F = TypeVar("F", bound=Callable[[Any], None])
Minor = tuple[int, int]
Outcome = Literal["passed", "failed", "warned", "expected", "not run"]


class ConformanceWarning(UserWarning):
    """A check that is newer than the plugin fails; from the next minor release of pvzoo on it is an error."""


class CheckFailed(Exception):  # noqa: N818  # it never leaves the kit
    """What a check found, in a sentence."""


class NotRun(Exception):  # noqa: N818
    """Why a check cannot be run: another one failed, or something that it needs was not given."""


def expect(holds: object, found: str) -> None:
    """Fails the check that is running unless ``holds``; ``found`` says what is there instead."""
    if not holds:
        raise CheckFailed(found)


@dataclass(frozen=True)
class Check:
    """A named check.

    Attributes:
        name: That of its function.
        run: The function.
        expects: What must hold, and why, in a line.
        do: What to do when it does not.
        since: The minor release of pvzoo that brought it.
        needs: The check that must pass before this one means anything, where the kind has it.
    """

    name: str
    run: Callable[[Any], None]
    expects: str
    do: str
    since: Minor
    needs: str


#: By kind of candidate, and by name in the order in which they are run.
CHECKS: dict[str, dict[str, Check]] = {}


def check(*kinds: str, since: str, do: str, needs: str = "") -> Callable[[F], F]:
    """Makes a function a check of some kinds of candidates; the first line of its docstring is what it expects."""

    def register(function: F) -> F:
        expects = (function.__doc__ or "").partition("\n")[0]
        made = Check(function.__name__, function, expects, do, _minor(since), needs)
        for kind in kinds:
            CHECKS.setdefault(kind, {})[made.name] = made
        return function

    return register


@dataclass(frozen=True)
class Result:
    """What became of a check; fields as in :class:`Check`, and ``found``: what was there instead."""

    check: str
    outcome: Outcome
    expects: str
    found: str = ""
    do: str = ""
    error: Exception | None = None

    def __str__(self) -> str:
        return f"{self.check}: {self.expects}\n    found: {self.found}\n    to do: {self.do}"


class Candidate:
    """What is checked.

    Args:
        kind: ``"fusion"``, ``"plugin"``, ...
        name: Its name in the registry.
        requires: What its plugin's metadata asks of pvzoo; empty for pvzoo's own.
        expected_failed: By name of a check, why it is known to fail.
    """

    def __init__(
        self, kind: str, name: str, *, requires: str = "", expected_failed: Mapping[str, str] | None = None
    ) -> None:
        self.kind = kind
        self.name = name
        self.checks = CHECKS[kind]
        self.written_for = lower_bound(requires)
        self.expected_failed = expected_failed or {}
        self._raw: dict[str, Result] = {}
        for known in self.expected_failed:
            if known not in self.checks:
                hint = did_you_mean(known, self.checks) or f"; they are {', '.join(self.checks)}"
                raise PvzooError(f"expected_failed: there is no check {known!r} of a {self}{hint}")

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} {self.name!r}"

    @property
    def lacks(self) -> str:
        """What must be given before all checks can be run, or an empty string."""
        return ""

    def results(self) -> list[Result]:
        """Runs all checks."""
        return [self.result(name) for name in self.checks]

    def result(self, name: str) -> Result:
        """Runs a check, and those that it needs, once; says what it means for this candidate."""
        check, raw = self.checks[name], self._run(name)
        reason = self.expected_failed.get(name)
        if reason is not None and raw.outcome == "failed":
            return Result(name, "expected", check.expects, reason)
        if reason is not None and raw.outcome == "passed":
            found = f"it passes, and expected_failed says that it does not ({reason})"
            return Result(name, "failed", check.expects, found, "take it out of expected_failed")
        if raw.outcome == "failed" and is_new(check.since, self.written_for):
            return Result(name, "warned", check.expects, raw.found, check.do, raw.error)
        return raw

    def _run(self, name: str) -> Result:
        if name not in self._raw:
            self._raw[name] = self._run_once(self.checks[name])
        return self._raw[name]

    def _run_once(self, check: Check) -> Result:
        if check.needs in self.checks and self._run(check.needs).outcome != "passed":
            return Result(check.name, "not run", check.expects, f"needs {check.needs}, which does not pass")
        try:
            check.run(self)
        except NotRun as reason:
            return Result(check.name, "not run", check.expects, str(reason))
        except CheckFailed as failure:
            cause = failure.__cause__
            error = cause if isinstance(cause, Exception) else None
            return Result(check.name, "failed", check.expects, str(failure), check.do, error)
        except Exception as error:
            return Result(check.name, "failed", check.expects, said(error), check.do, error)
        return Result(check.name, "passed", check.expects)


def conclude(candidate: Candidate, results: Sequence[Result]) -> None:
    """Warns of what fails for the first time.

    Raises:
        ConformanceError: If a check failed; lists every one, with what was expected, what was found, and what to do.
    """
    __tracebackhide__ = True
    failed = [result for result in results if result.outcome == "failed"]
    for result in results:
        if result.outcome == "warned":
            message = f"{candidate} fails a check that is new in pvzoo {__version__}, an error from the next minor "
            warnings.warn(f"{message}release on\n  {result}", ConformanceWarning, stacklevel=3)
    if failed:
        count = f"{len(failed)} of {len(candidate.checks)} checks" if len(failed) > 1 else "a check"
        text = "\n".join(f"  {result}" for result in failed)
        raise ConformanceError(f"{candidate} fails {count}\n{text}") from failed[0].error


def said(error: BaseException) -> str:
    """An exception in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def is_new(since: Minor, written_for: Minor | None) -> bool:
    """Whether a check came after the pvzoo that a plugin was written for, in this very minor release."""
    return written_for is not None and written_for < since and _minor(__version__) <= since


def lower_bound(requires: str) -> Minor | None:
    """The minor release that a requirement such as ``">=0.1,<1"`` starts from."""
    from packaging.specifiers import SpecifierSet

    floors = [x.version for x in SpecifierSet(requires) if x.operator in (">=", ">", "~=", "==")]
    return max(map(_minor, floors), default=None)


def _minor(version: str) -> Minor:
    from packaging.version import Version

    release = Version(version.removesuffix(".*")).release
    return release[0], release[1] if len(release) > 1 else 0
