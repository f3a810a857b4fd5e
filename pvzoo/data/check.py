"""Whether a copy of a data set is whole: what is missing, what is too much, what cannot be read.

:func:`survey` looks at the table alone; :func:`check` also opens every file once.
"""

from __future__ import annotations

import hashlib
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any, Literal

from ..errors import ImageError, count
from ..pairs import SUFFIXES
from ..progress import Advance, no_progress
from .adapters.base import Adapter
from .table import Record, Table

Kind = Literal["missing", "unexpected", "duplicate", "unreadable", "samples", "counts", "ambiguous", "modality"]
# By modality and what the images are: how many there are, and the first of them.
Formats = dict[tuple[str, str], list[Any]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a copy.

    Attributes:
        kind: ``missing`` (a file that is listed, or that a link names, is not there), ``unexpected`` (an image that
            the layout does not know), ``duplicate`` (same bytes), ``unreadable``, ``samples`` (wrong number for an
            identity), ``counts`` (wrong number in all), ``ambiguous`` (two files for one image), ``modality`` (a
            sample without palm or vein, or a data set without).
        where: File or identity; empty for the whole data set.
        message: What is wrong.
    """

    kind: Kind
    where: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.kind, self.where, self.message) if part)


@dataclass(frozen=True)
class Report:
    """What was found out about a data set.

    Attributes:
        findings: All that is wrong; those about the whole data set first.
        notes: What may be as it should: names that may say more than was read, other files, and which sizes and kinds
            of pixels the images have.
    """

    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def check(table: Table, adapter: Adapter[Any], advance: Advance = no_progress) -> Report:
    """Compares a scanned table with what was published, and decodes every image once.

    Memory: the table's, about 100 bytes a file for its digest, and one image.

    Args:
        table: Of ``adapter.scan``.
        adapter: The layout that scanned it.
        advance: Called with the number of images done.
    """
    formats: Formats = {}
    findings = [*survey(table, adapter), *_files(table, formats, advance)]
    findings.sort(key=lambda finding: bool(finding.where))
    return Report(tuple(findings), (*table.doubts, *_other_files(table), *_describe(formats)))


def survey(table: Table, adapter: Adapter[Any]) -> Iterator[Finding]:
    """What is wrong with a table as far as names tell; opens no file."""
    for path in filter(_is_image, table.unexpected):
        yield Finding("unexpected", path, "an image that is not of the layout")
    absent = [modality for modality in adapter.modalities if modality not in table.modalities]
    for modality in absent:
        yield Finding("modality", "", f"there are no {modality} images at all")
    yield from _partners(table)
    for modality in table.modalities:
        yield from _counts(table, modality, adapter)


def _partners(table: Table) -> Iterator[Finding]:
    for _, sample in groupby(table, key=lambda record: record.key):
        images: dict[str, Record] = {}
        for record in sample:
            first = images.setdefault(record.modality, record)
            if first is not record and first.path != record.path:
                yield Finding("ambiguous", record.path, f"takes the place of {first.path}: two files for one image")
        for modality in table.modalities:
            if modality not in images:
                yield Finding("modality", next(iter(images.values())).path, f"has no {modality} image")


def _counts(table: Table, modality: str, adapter: Adapter[Any]) -> Iterator[Finding]:
    expected = adapter.expected
    each: Counter[str] = Counter()
    places: Counter[tuple[int, int]] = Counter()
    hands: set[str] = set()
    for record in table:
        if record.modality == modality:
            each[record.identity] += 1
            places[record.session, record.sample] += 1
            hands.add(record.hand)
    total = expected.samples * expected.sessions if expected.samples and expected.sessions else None
    usual, how_many = Counter(each.values()).most_common(1)[0]
    merged = bool(total and usual == 2 * total and expected.identities and len(each) <= expected.identities / 2)
    absent = [] if merged else _absent(each, hands, expected.identities)
    for found, published, what, lacks in (
        (len(each), expected.identities, ("identity", "identities"), absent),
        (len({session for session, _ in places}), expected.sessions, ("session",), []),
        (each.total(), expected.images, ("image",), []),
    ):
        if published is not None and found != published:
            note = f"{modality}: {count(found, *what)}, and {published} are published"
            yield Finding("counts", "", note + (f"; missing {_first(lacks)}" if lacks else ""))
    if total is None:
        return
    if usual != total and how_many > 1 and how_many > len(each) / 2:
        note = f"{how_many} identities have {count(usual, f'{modality} image')}, and {total} are published"
        if merged:
            note += f": this copy merges two palms into one identity ({len(each)} x {usual}); do not train on it"
        yield Finding("samples", "", note)
    else:
        usual = total
    odd = [identity for identity, number in each.items() if number not in (usual, total)]
    # What others have: copies count samples from 0 or from 1.
    common = [place for place, number in sorted(places.items()) if 2 * number >= len(each)]
    own: dict[str, set[tuple[int, int]]] = {identity: set() for identity in odd}
    for record in table if odd else ():
        if record.modality == modality and record.identity in own:
            own[record.identity].add((record.session, record.sample))
    for identity in odd:
        lacks = [_place(*place) for place in common if place not in own[identity]]
        note = f"{count(each[identity], f'{modality} image')}, and {total} are published"
        yield Finding("samples", f"identity {identity}", note + (f"; missing {_first(lacks)}" if lacks else ""))


def _absent(found: Collection[str], hands: Collection[str], published: int | None) -> list[str]:
    """The identities that are not there, if few are missing and subjects are numbered from 1; else nothing."""
    subjects = range(1, (published or 0) // len(hands) + 1)
    every = [f"{subject}/{hand}" if hand else str(subject) for subject in subjects for hand in sorted(hands)]
    absent = [identity for identity in every if identity not in found]
    return absent if len(absent) + len(found) == published and len(absent) <= published / 10 else []


def _first(texts: Sequence[str], limit: int = 5) -> str:
    return ", ".join(texts[:limit]) + (f" and {len(texts) - limit} more" if len(texts) > limit else "")


def _place(session: int, sample: int) -> str:
    return f"session {session} sample {sample}" if session else f"sample {sample}"


def _is_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in SUFFIXES


def _other_files(table: Table) -> Iterator[str]:
    others = [path for path in table.unexpected if not _is_image(path)]
    if others:
        yield f"{count(len(others), 'file is no image', 'files are no images')}, such as {others[0]}"


def _files(table: Table, formats: Formats, advance: Advance) -> Iterator[Finding]:
    from ..imagefile import measure  # loads Pillow, which a survey does without

    seen: dict[bytes, int] = {}
    for number, record in enumerate(table):
        path = table.file(record)
        try:
            info = path.stat()
            if not stat.S_ISREG(info.st_mode):
                yield Finding("unreadable", record.path, "is not a file")
            elif not info.st_size:
                yield Finding("unreadable", record.path, "the file is empty")
            else:
                with path.open("rb") as file:
                    first = seen.setdefault(hashlib.file_digest(file, "sha256").digest(), number)
                    if first != number:
                        yield Finding("duplicate", record.path, _same_as(record, table.records[first]))
                    width, height, kind = measure(file)
                known = formats.setdefault((record.modality, f"{width}x{height}, {kind}"), [0, record.path])
                known[0] += 1
        except FileNotFoundError:
            yield Finding("missing", record.path, "there is no such file")
        except OSError as error:
            yield Finding("unreadable", record.path, error.strerror or str(error))
        except ImageError as error:
            yield Finding("unreadable", record.path, str(error))
        advance(1)


def _same_as(record: Record, other: Record) -> str:
    note = "listed twice" if record.path == other.path else f"same bytes as {other.path}"
    if record.identity != other.identity:
        note += f", of another identity ({record.identity} and {other.identity})"
    elif record.modality != other.modality:
        note += f", of the other modality ({record.modality} and {other.modality})"
    elif record.session != other.session:
        note += f", of another session ({record.session} and {other.session})"
    return note


def _describe(formats: Formats) -> Iterator[str]:
    """A line a modality: what its images are, the most frequent first."""
    for modality in sorted({modality for modality, _ in formats}):
        found = sorted((-number, what, path) for (m, what), (number, path) in formats.items() if m == modality)
        if len(found) == 1:
            yield f"{modality} images are {found[0][1]}"
            continue
        parts = [
            f"{-number} are {what}" + (f" (such as {path})" if at else "")
            for at, (number, what, path) in enumerate(found[:5])
        ]
        more = [f"{len(found) - 5} more kinds"] if len(found) > 5 else []
        yield f"{modality} images differ: {'; '.join([*parts, *more])}"
