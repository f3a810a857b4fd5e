"""The pages of the documentation as tests see them: their blocks of code, and the folder in which these run.

A block that does not run says why, in a comment on the line before it: ``<!-- not run: needs the data set -->``. The
blocks of a page share one Python namespace and one folder, and run in their order. One with a title is a file of that
name. What stands in an HTML comment runs like the rest: readers do not see it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from conftest import Site

import pvzoo
from pvzoo.plugins import Host, discover, using

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MARK = re.compile(r"<!-- (?:not run: (?P<reason>.+?)|command: (?P<command>\w+)) -->")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w+-]*)(?: title=\"(?P<title>[^\"]+)\")?$")
RUN = ("python", "bash")
# Read by people, or by other programs; yaml and toml are parsed.
SHOWN = ("text", "yaml", "toml", "json", "html")
PACKAGES = ".packages"  # where pip installs with --target, as pages say


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: The file.
        line: Where its fence stands, from 1.
        language: What the fence says.
        code: Its text.
        reason: Why it does not run, if it is marked so.
        title: Name of the file that it is.
    """

    page: Path
    line: int
    language: str
    code: str
    reason: str | None
    title: str | None

    def __str__(self) -> str:
        return f"{os.path.relpath(self.page, ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """All fenced blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = FENCE.match(lines[number])
        if fence is None:
            number += 1
            continue
        start, indent = number, fence["indent"]
        number += 1
        while number < len(lines) and lines[number].strip() != "```":
            number += 1
        code = "\n".join(line.removeprefix(indent) for line in lines[start + 1 : number]) + "\n"
        before = next((line for line in reversed(lines[:start]) if line.strip()), "")
        mark = MARK.fullmatch(before.strip())
        yield Block(page, start + 1, fence["language"], code, _reason(mark) if mark else None, fence["title"])
        number += 1


def _reason(mark: re.Match[str]) -> str:
    return mark["reason"] or f"CI runs the command {mark['command']!r} in a clean environment"


def written_pages() -> list[Path]:
    """Pages that people write, README.md first; what code makes is not in the repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "docs/*.md", "README.md", "CONTRIBUTING.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in sorted(listed.stdout.splitlines())]


@contextmanager
def furnished(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Furnishes a folder and goes there; the packages of weights in it, and no other plugins, are installed."""
    furnish(folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder / PACKAGES))
    for module in [name for name in sys.modules if name.startswith("pvzoo_weights")]:
        monkeypatch.delitem(sys.modules, module)  # of another folder
    with using(Host(discover(""))):
        yield


def furnish(folder: Path) -> None:
    """Puts into a folder what blocks may take for granted: palms, SynthPalm, the examples, the packages of weights."""
    packages = Site(folder / PACKAGES)
    for name in ("pvzoo-weights", "pvzoo-weights-nano"):
        project = tomllib.loads((ROOT / "plugins" / name / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        ((vendor, module),) = project["entry-points"]["pvzoo"].items()
        packages.metadata(name, project["version"], project["dependencies"], f"{vendor} = {module}")
        (packages.path / module).symlink_to(ROOT / "plugins" / name / module)
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(Path(_synthpalm().name) / "palms", folder / "palms")
    for ours, person in (("a", "anna_1"), ("b", "ben_1")):
        for modality in ("palm", "vein"):
            shutil.copy(ROOT / f"examples/palms/{modality}/{person}.png", folder / f"{ours}_{modality}.png")


@cache
def _synthpalm() -> tempfile.TemporaryDirectory[str]:
    """SynthPalm as files, drawn once for all pages."""
    from pvzoo.synth import generate, release

    folder = tempfile.TemporaryDirectory()
    generate(release("synthpalm-mini"), Path(folder.name) / "palms")
    return folder


def run_blocks(page: Path, folder: Path) -> list[Block]:
    """Runs what is to run on a page, in the current process and folder, and returns it.

    Raises:
        AssertionError: If a block of bash fails; says what it printed.
        Exception: What a block of Python raises; the traceback names the page and its line.
    """
    namespace: dict[str, object] = {"__name__": "__page__"}
    ran = []
    for block in blocks(page):
        if block.title and not block.reason:
            file = folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.code, encoding="utf-8")
        if block.title or block.language not in RUN or block.reason:
            continue
        if block.language == "python":
            exec(compile("\n" * block.line + block.code, str(block.page), "exec"), namespace)
        else:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.code],
                cwd=folder,
                env=_environment(folder),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{block}\n{block.code}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        ran.append(block)
    return ran


def _environment(folder: Path) -> dict[str, str]:
    """With a ``pvzoo`` and a ``python`` that are those of the tests."""
    tools = folder / ".tools"
    if not tools.exists():
        tools.mkdir()
        for name, command in {"pvzoo": "-m pvzoo", "python": "", "pip": "-m pip", "pytest": "-m pytest"}.items():
            script = tools / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
            script.chmod(0o755)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PVZOO_", "COLUMNS"))}
    paths = [str(Path(pvzoo.__file__).parents[1]), str(folder / PACKAGES)]
    return {
        **inherited,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths),
        "COLUMNS": "100",
    }
