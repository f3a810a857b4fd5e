"""Checks of weight sources."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from .. import weights
from ..catalog import split_tag
from ..hub import sources
from ..model import Model
from ..specs import Source, load_spec
from .entries import ComponentCandidate
from .kit import CheckFailed, check, expect, said
from .watch import Seen, watched


class SourceCandidate(ComponentCandidate):
    """A weight source."""

    @cached_property
    def watched(self) -> Seen:
        with watched() as seen:
            self.entry.create(self.params)
        return seen


@check("weight_source", since="0.1", do="give the object find(name, tag)", needs="params_defaults")
def builds(candidate: SourceCandidate) -> None:
    """It can be built from its Params, and has find(name, tag)."""
    expect(callable(getattr(candidate.built, "find", None)), "it has no find")


@check("weight_source", since="0.1", do="provide what model.save wrote, under the name of its spec", needs="builds")
def provides_load(candidate: SourceCandidate) -> None:
    """Every model.tag that it provides is found, and is a saved model of that name that loads."""
    for provided in candidate.entry.provides:
        name, tag = split_tag(provided)
        found = candidate.built.find(name, tag)
        expect(found is not None, f"{provided} is not found")
        message = f"{provided} is {type(found).__name__}, not the path of a folder, nor paths by the names of files"
        expect(isinstance(found, str | Path | Mapping), message)
        try:
            files = found if isinstance(found, Mapping) else weights.files_in(Path(found))
            if provided in candidate.entry.pinned:
                files = sources.check(files, candidate.entry.pinned[provided], provided)
            spec, header = weights.read_files(files, provided)
            weights.load_model(load_spec(Source(provided, spec)), header, Model)
        except Exception as error:
            raise CheckFailed(f"{provided} in {_place(found)} does not load: {said(error)}") from error
        expect(spec.get("name") == name, f"{provided} in {_place(found)} is a model named {spec.get('name', '')!r}")


def _place(found: str | Path | Mapping[str, Path]) -> str:
    return str(sorted(found.values())[0].parent if isinstance(found, Mapping) else found)


@check("weight_source", since="0.1", do="return None for what it does not have", needs="builds")
def unknown_is_none(candidate: SourceCandidate) -> None:
    """A model or tag that it does not have is None, so that the next source is asked."""
    known = [split_tag(provided)[0] for provided in candidate.entry.provides]
    for name, tag in (("no_such_model", None), ("no_such_model", "v1"), *((name, "no_such_tag") for name in known)):
        try:
            found = candidate.built.find(name, tag)
        except Exception as error:
            raise CheckFailed(f"find({name!r}, {tag!r}) raised {said(error)}") from error
        expect(found is None, f"find({name!r}, {tag!r}) gave {found}")
