"""Whether a copy of a data set is whole: what is missing, what is too much, what cannot be read."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .adapters.base import Adapter, Expected
from .table import Table

Kind = Literal["missing", "unexpected", "duplicate", "unreadable", "samples", "counts", "ambiguous", "modality"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a copy.

    Attributes:
        kind: ``missing`` (a listed file is not there), ``unexpected`` (not of the layout), ``duplicate`` (same bytes),
            ``unreadable``, ``samples`` (wrong number for an identity), ``counts`` (wrong number in all),
            ``ambiguous`` (two files for one image), ``modality`` (a sample without palm or vein).
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
    """A scanned table and all that is wrong with it."""

    table: Table
    findings: tuple[Finding, ...]


def check(adapter: Adapter[Any], root: Path, advance: Callable[[int], None] = lambda count: None) -> Report:
    """Scans a folder, decodes every image once, and compares with the published counts.

    Args:
        adapter: The layout.
        root: The folder.
        advance: Called with the number of images done.

    Raises:
        DataError: If nothing in the root has the layout.
    """
    return inspect(adapter.scan(root), adapter.expected, advance)


def inspect(table: Table, expected: Expected, advance: Callable[[int], None] = lambda count: None) -> Report:
    """Checks a table that was scanned; see :func:`check`."""
    findings = [Finding("unexpected", path, "not a file of the layout") for path in table.unexpected]
    findings += _files(table, advance)
    findings += _partners(table)
    for modality in table.modalities:
        findings += _counts(table, modality, expected)
    return Report(table, tuple(findings))


def _files(table: Table, advance: Callable[[int], None]) -> list[Finding]:
    findings = []
    seen: dict[bytes, int] = {}
    for number, record in enumerate(table):
        try:
            content = table.file(record).read_bytes()
        except FileNotFoundError:
            findings.append(Finding("missing", record.path, "listed, and there is no such file"))
        except OSError as error:
            findings.append(Finding("unreadable", record.path, error.strerror or str(error)))
        else:
            first = seen.setdefault(hashlib.sha256(content).digest(), number)
            if first != number:
                other = table.records[first]
                note = f"same bytes as {other.path}"
                if other.identity != record.identity:
                    note += f", of another identity ({record.identity} and {other.identity})"
                findings.append(Finding("duplicate", record.path, note))
            reason = _unreadable(content)
            if reason:
                findings.append(Finding("unreadable", record.path, reason))
        advance(1)
    return findings


def _unreadable(content: bytes) -> str:
    """Why an image cannot be decoded, or an empty string."""
    from PIL import Image, UnidentifiedImageError

    if not content:
        return "the file is empty"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                image.load()
    except UnidentifiedImageError:
        return "not an image that can be read (PNG, JPEG, BMP or TIFF)"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return "too many pixels to decode safely"
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        return "the file is truncated" if "truncated" in str(error) else f"cannot be decoded: {error}"
    return ""


def _partners(table: Table) -> list[Finding]:
    seen: dict[tuple[object, ...], dict[str, str]] = {}
    findings = []
    for record in table:
        images = seen.setdefault(record.key, {})
        if record.modality in images:
            note = f"claims the place of {images[record.modality]}: two files for one image"
            findings.append(Finding("ambiguous", record.path, note))
        images.setdefault(record.modality, record.path)
    for images in seen.values():
        findings += [
            Finding("modality", next(iter(images.values())), f"has no {modality} image")
            for modality in table.modalities
            if modality not in images
        ]
    return findings


def _counts(table: Table, modality: str, expected: Expected) -> list[Finding]:
    findings = []
    records = [record for record in table if record.modality == modality]
    identities = {record.identity for record in records}
    for what, found, published in (
        ("identities", len(identities), expected.identities),
        ("images", len(records), expected.images),
    ):
        if published is not None and found != published:
            findings.append(Finding("counts", "", f"{found} {what} of {modality}, and {published} are published"))
    if expected.samples is None or expected.sessions is None:
        return findings
    each = Counter(record.identity for record in records)
    total = expected.samples * expected.sessions
    usual, how_many = Counter(each.values()).most_common(1)[0]
    if usual != total and how_many > 1 and how_many > len(each) / 2:
        note = f"{how_many} identities have {usual} {modality} images, and {total} are published"
        if usual == 2 * total and expected.identities and len(each) * 2 == expected.identities:
            note += f": this copy merges two palms into one identity ({len(each)} x {usual}); do not train on it"
        findings.append(Finding("samples", "", note))
        each = Counter({identity: count for identity, count in each.items() if count != usual})
    places: dict[str, set[tuple[int, int]]] = {}
    for record in records:
        places.setdefault(record.identity, set()).add((record.session, record.sample))
    sessions = sorted({record.session for record in records})
    for identity in [i for i in dict.fromkeys(record.identity for record in records) if each.get(i, total) != total]:
        count = f"{each[identity]} {modality} images, and {total} are published"
        lacks = [
            f"session {session} sample {sample}"
            for session in (sessions if len(sessions) == expected.sessions else [])
            for sample in range(1, expected.samples + 1)
            if (session, sample) not in places[identity]
        ]
        shown = ", ".join(lacks[:5]) + (f" and {len(lacks) - 5} more" if len(lacks) > 5 else "")
        findings.append(Finding("samples", f"identity {identity}", count + (f"; missing {shown}" if lacks else "")))
    return findings
