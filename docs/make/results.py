"""Tables of published results, and where pvzoo stands beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .markdown import Pages, table
from .zoo import published

SOURCE = Path(__file__).with_name("published.yaml")
COLUMNS = {
    "data": "data",
    "protocol": "protocol",
    "identities": "identities",
    "method": "method",
    "rank1": "rank-1 %",
    "eer": "EER %",
    "tar": "TAR %",
}


def pages() -> Pages:
    found = yaml.safe_load(SOURCE.read_text(encoding="utf-8"))
    for task, rows in found["results"].items():
        yield f"make/parts/{task}.md", _results(rows, found["sources"])
    yield "make/parts/standing.md", _standing()


def _results(rows: list[dict[str, Any]], sources: dict[str, dict[str, str]]) -> str:
    used = [key for key in COLUMNS if any(key in row for row in rows)]
    lines = [[*(str(row.get(key, "")) for key in used), _cite(sources[row["source"]])] for row in rows]
    return table([*(COLUMNS[key] for key in used), "source"], lines)


def _cite(source: dict[str, str]) -> str:
    text = f"[{source['name']}]({source['url']})" if "url" in source else source["name"]
    return f"{text}, {source['where']}" if "where" in source else text


def _standing() -> str:
    rows = [(tag, str(metric), weights.licence) for tag, weights in published().items() for metric in weights.metrics]
    if not rows:
        return "pvzoo has published no trained weights yet, and so it claims no figure here.\n"
    return table(["weights", "measured", "licence"], rows)
