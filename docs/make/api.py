"""API reference: a page for each part of the package, whose docstrings mkdocstrings reads."""

from __future__ import annotations

import ast
import pkgutil
from pathlib import Path

import pvzoo

from .markdown import Pages, table

# No API: the program, and templates.
LEFT_OUT = {"cli", "scaffold", "__main__"}
# The index of the search is fetched with every page. It has what `import pvzoo` gives, and no module's insides.
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"


def pages() -> Pages:
    modules: dict[str, list[str]] = {}
    for found in pkgutil.walk_packages(pvzoo.__path__, "pvzoo."):
        part = found.name.split(".")[1]
        if part not in LEFT_OUT and not any(name.startswith("_") for name in found.name.split(".")):
            modules.setdefault(part, []).append(found.name)
    yield "api/pvzoo.md", _front()
    rows = [("[pvzoo](pvzoo.md)", "What `import pvzoo` gives.")]
    for part, names in sorted(modules.items()):
        rows.append((f"[pvzoo.{part}]({part}.md)", _summary(names[0])))
        # A package's own docstring first, then its modules.
        blocks = [f"## {name}\n\n::: {name}\n    options:\n      show_root_toc_entry: false\n" for name in names]
        yield f"api/{part}.md", f"{UNSEARCHED}# pvzoo.{part}\n\n" + "\n".join(blocks)
    yield (
        "api/index.md",
        "# API reference\n\nMade from the docstrings: shapes, units, ranges, errors, sources. What a name that starts "
        f"with `_` does may change at any time.\n\n{table(['module', ''], rows)}",
    )


def _front() -> str:
    """What is imported from ``pvzoo`` itself, by the module that it comes from."""
    blocks = [f"::: pvzoo.{pvzoo._HOME[name]}.{name}" for name in pvzoo.__all__ if name in pvzoo._HOME]
    intro = "Everything here is imported from `pvzoo`, on first use: `import pvzoo` loads neither torch nor numpy.\n"
    return f"# pvzoo\n\n{intro}\n" + "\n\n".join(blocks) + "\n"


def _summary(module: str) -> str:
    path = Path(pvzoo.__path__[0]).joinpath(*module.split(".")[1:])
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("``", "`")
