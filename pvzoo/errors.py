"""One exception family: every error that pvzoo raises on purpose is a :class:`PvzooError`.

Each says what is wrong, where, and what to do next, and keeps the same facts as attributes for programs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class PvzooError(Exception):
    """Base of every error that pvzoo raises on purpose."""


class UnknownNameError(PvzooError, LookupError):
    """No model or component has this name."""

    def __init__(self, message: str, *, kind: str, name: str, suggestions: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.name = name
        self.suggestions = tuple(suggestions)


class PluginError(PvzooError):
    """A plugin that was asked for by name is disabled, incompatible, in conflict, or broken.

    Distinct from :class:`UnknownNameError`: the plugin is installed, so the cure is not another name.
    """

    def __init__(self, message: str, *, vendor: str, state: str, stage: str | None = None) -> None:
        super().__init__(message)
        self.vendor = vendor
        self.state = state
        self.stage = stage


class RegistrationError(PvzooError, ValueError):
    """A ``register(...)`` call of a plugin breaks the rules of the registry."""


@dataclass(frozen=True)
class Problem:
    """One fault of a spec: where it stands and what is wrong with it.

    Attributes:
        path: Dotted path of the field, ``"fusion.local.params.hidden"``; empty for the whole file.
        message: What is wrong, with a suggestion where there is one.
        line: Line in the source file, from 1; ``None`` if the value did not come from a file.
        column: Column in the source file, from 1.
        source: File name, ``"spec"`` for a dict, or the override that set the value.
    """

    path: str
    message: str
    source: str = "spec"
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        where = self.source if self.line is None else f"{self.source}:{self.line}:{self.column}"
        return ": ".join(part for part in (where, self.path, self.message) if part)


class SpecError(PvzooError, ValueError):
    """A model spec is wrong; :attr:`problems` holds every fault that was found, not only the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class BuildError(PvzooError):
    """The builder of a component raised while a valid spec was being built."""


class InputError(PvzooError, ValueError):
    """A tensor or label given to a model does not fit it (rank, channels, size, range, NaN)."""


class MissingModalityError(InputError):
    """A modality is missing and the fusion cannot do without it."""


class ImageError(PvzooError, ValueError):
    """An image could not be read or has a format that pvzoo refuses to guess about."""


class WeightsError(PvzooError):
    """A weights file is damaged, or its tensors are not those of the model."""


class IntegrityError(WeightsError):
    """A file is not the one that was published: its size or digest is another, again after it was fetched anew."""


class HubError(PvzooError):
    """The Hugging Face Hub cannot be reached, refuses, or does not have what was asked for."""


class PairsError(PvzooError, ValueError):
    """A folder or CSV of image pairs cannot be understood."""


class DataError(PvzooError, ValueError):
    """A data set is not as its layout says, or cannot be split as asked."""


class EvaluationError(PvzooError, ValueError):
    """Scores, labels, embeddings or thresholds cannot be used as they are."""


class ConformanceError(PvzooError, AssertionError):
    """A component or plugin fails checks of :mod:`pvzoo.testing`."""


def a(noun: str) -> str:
    """Returns the noun with its article: ``"a head"``, ``"an alignment"``."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Returns the candidate that ``name`` is most likely a misspelling of, if any is near."""
    near = get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return near[0] if near else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the nearest of ``candidates``, or an empty string."""
    near = nearest(name, candidates)
    return f"; did you mean {near!r}?" if near else ""


def file_size(size: float) -> str:
    """Returns ``"823 bytes"``, ``"1.5 MB"``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def count(number: int, noun: str, plural: str = "") -> str:
    """Returns ``"1 file"``, ``"3 files"``; ``plural`` is for nouns that do not only add an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
