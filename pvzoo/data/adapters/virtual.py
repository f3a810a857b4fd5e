"""Virtual people: the palms of one data set with the veins of another. Every record is stamped ``virtual``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ...errors import DataError
from .. import VirtualPairParams
from ..table import Record, Table
from .base import Adapter, open_layout


class VirtualPair(Adapter[VirtualPairParams]):
    """Joins by rank: the n-th subject with the n-th, and within them hands, sessions and samples by rank again.

    By subject and not by palm, so that a split by subject keeps both hands of either person on one side.
    What has no partner is left out and counted as unused.
    """

    name = "virtual_pair"
    example = "palm/..."
    pairing = "virtual"

    def scan(self, root: Path) -> Table:
        unexpected: list[str] = []
        ranked: list[dict[tuple[int, ...], Record]] = []
        for modality in ("palm", "vein"):
            layout, folder, params = (
                getattr(self.params, f"{modality}_{part}") for part in ("layout", "root", "params")
            )
            table = open_layout(layout, params).scan(root / folder)
            chosen = [record for record in table if record.modality == modality]
            if not chosen:
                raise DataError(f"{table.root}: layout {layout!r} has no {modality} images to join")
            moved = [replace(record, path=_path(table.root / record.path, root)) for record in chosen]
            unexpected += [_path(table.root / path, root) for path in table.unexpected]
            ranked.append(_by_rank(moved))
        palms, veins = ranked
        shared = palms.keys() & veins.keys()
        records = [
            replace(
                side[key],
                subject=str(key[0]),
                hand="ab"[key[1] - 1] if key[1] <= 2 else str(key[1]),
                session=key[2],
                sample=key[3],
                pairing="virtual",
            )
            for key in shared
            for side in ranked
        ]
        return Table(records, root, unexpected=unexpected, unused=len(palms) + len(veins) - len(records))


def _path(file: Path, root: Path) -> str:
    full, home = (Path(os.path.normpath(path.absolute())) for path in (file, root))
    return (full.relative_to(home) if full.is_relative_to(home) else full).as_posix()


def _by_rank(records: Iterable[Record]) -> dict[tuple[int, ...], Record]:
    """Records, in the order of a table, by rank of subject, hand, session and sample, from 1."""
    ranks: dict[tuple[object, ...], dict[object, int]] = {}
    found: dict[tuple[int, ...], Record] = {}
    for record in records:
        key: tuple[int, ...] = ()
        parents: tuple[object, ...] = ()
        for value in (record.subject, record.hand, record.session, (record.sample, record.path)):
            known = ranks.setdefault(parents, {})
            key += (known.setdefault(value, len(known) + 1),)
            parents += (value,)
        found[key] = record
    return found
