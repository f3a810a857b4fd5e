"""Checks of data set adapters, on a small tree of files that their author makes (no torch)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data.adapters.base import Expected
from ..data.table import Table
from ..errors import DataError
from .entries import ComponentCandidate
from .kit import CheckFailed, NotRun, check, expect, said
from .watch import Seen, watched

Tree = Callable[[Path], object]
LACKS_TREE = "it needs a small data set; in a test, give tree=, a function that writes one into a folder"


class DatasetCandidate(ComponentCandidate):
    """A data set adapter.

    Args:
        kind: ``"dataset"``.
        name: Its name in the registry.
        tree: Writes a small copy of the data set, a few images or lists, into the empty folder that it is given.
        **options: As for any component.
    """

    def __init__(self, kind: str, name: str, *, tree: Tree | None = None, **options: Any) -> None:
        super().__init__(kind, name, **options)
        self.tree = tree

    @property
    def lacks(self) -> str:
        return self.lacks_params or ("" if self.tree else LACKS_TREE)

    @contextmanager
    def root(self) -> Iterator[Path]:
        """A folder with a fresh copy of the tree."""
        if self.tree is None:
            raise NotRun(LACKS_TREE)
        with tempfile.TemporaryDirectory() as folder:
            self.tree(Path(folder))
            yield Path(folder)

    @cached_property
    def watched(self) -> Seen:
        with self.root() as root, watched() as seen:
            self.entry.create(self.params).scan(root)
        return seen


@check("dataset", since="0.1", do="give the adapter scan(root) and expected", needs="params_defaults")
def builds(candidate: DatasetCandidate) -> None:
    """It can be built from its Params, and has scan(root) and expected counts."""
    expect(callable(getattr(candidate.built, "scan", None)), "it has no scan")
    found = getattr(candidate.built, "expected", None)
    expect(isinstance(found, Expected), f"expected is {found!r}, not an Expected(identities=..., ...)")


@check("dataset", since="0.1", do="return Table(records, root, unexpected=...)", needs="builds")
def scan_gives_table(candidate: DatasetCandidate) -> None:
    """It finds images in a small copy, and gives them as a Table that starts from the root."""
    with candidate.root() as root:
        table = candidate.built.scan(root)
        expect(isinstance(table, Table), f"scan gave {type(table).__name__}, not a pvzoo.data.table.Table")
        expect(len(table), "the table is empty")
        expect(table.root == root, f"its root is {table.root}, not {root}")


@check("dataset", since="0.1", do="give paths relative to the root, with /", needs="scan_gives_table")
def files_exist(candidate: DatasetCandidate) -> None:
    """Every record names a file that is there."""
    with candidate.root() as root:
        table = candidate.built.scan(root)
        for record in table:
            expect(table.file(record).is_file(), f"there is no {record.path}")


@check(
    "dataset",
    since="0.1",
    do="fill in modality, subject, session and sample as Record says",
    needs="scan_gives_table",
)
def table_round_trip(candidate: DatasetCandidate) -> None:
    """The table can be written as CSV and read again, so that every record has what a table needs."""
    with candidate.root() as root:
        table = candidate.built.scan(root)
        table.write(root / "table.csv")
        again = Table.read(root / "table.csv").records
        expect(again == table.records, f"{table.records[0]} came back as {again[0]}, or another record changed")


@check("dataset", since="0.1", do="number the samples of an identity in a session apart", needs="scan_gives_table")
def pairs_are_clear(candidate: DatasetCandidate) -> None:
    """No two files claim to be one image: modality, subject, hand, session and sample tell them apart."""
    with candidate.root() as root:
        candidate.built.scan(root).pairs()


@check("dataset", since="0.1", do="tell everything by the path; leave contents to 'check'", needs="files_exist")
def opens_no_image(candidate: DatasetCandidate) -> None:
    """It opens no image to scan, so that a large data set is listed in seconds."""
    with candidate.root() as root:
        table = candidate.built.scan(root)
        for record in table:
            table.file(record).write_bytes(b"")
        try:
            again = candidate.built.scan(root)
        except Exception as error:
            raise CheckFailed(f"with empty image files it raised {said(error)}") from error
        expect(again.records == table.records, "with empty image files it gave other records")


@check(
    "dataset",
    since="0.1",
    do="raise pvzoo.DataError(f'{root}: ...') with the layout that was expected",
    needs="builds",
)
def wrong_root(candidate: DatasetCandidate) -> None:
    """A folder without the layout, or none at all, is a DataError that names it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "empty").mkdir()
        for name in ("empty", "missing"):
            root = Path(folder) / name
            try:
                table = candidate.built.scan(root)
            except DataError as error:
                expect(str(root) in str(error), f"the message for a folder that is {name} does not name it: {error}")
            except Exception as error:
                raise CheckFailed(f"for a folder that is {name} it raised {said(error)}") from error
            else:
                raise CheckFailed(f"for a folder that is {name} it gave {table!r}")
