"""Shared fixtures: folders of real installed plugins, and the ``pvzoo`` program as a process."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest
from browser import chromium as chromium
from browser import open_page as open_page

import pvzoo
from pvzoo.cli import main
from pvzoo.data.table import Table
from pvzoo.plugins import Host, Plugin, discover, using

# Torch is not imported yet. Several workers with several threads each would only wait for each other.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# What this Python has installed already, for PVZOO_DISABLE_PLUGINS: a test's process sees what the test installs.
INSTALLED = ",".join(plugin.vendor for plugin in discover())

HEADER = "import pvzoo\nfrom pvzoo import hookimpl\n\n"


class Site:
    """A folder of installed distributions, as ``site-packages`` is one: modules, and metadata beside them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def install(
        self,
        source: str = "",
        *,
        vendor: str = "palmlab",
        distribution: str = "",
        version: str = "1.0",
        requires: Sequence[str] = ("pvzoo>=0.1,<1",),
        entry_points: str = "",
        **files: str,
    ) -> str:
        """Writes a plugin and its metadata; returns the name of its hook module.

        ``source`` follows ``import pvzoo`` and ``from pvzoo import hookimpl``; ``files`` are more modules by name;
        ``entry_points`` are the lines of group ``pvzoo``, one that fits if left out.
        """
        distribution = distribution or f"pvzoo-{vendor}"
        module = distribution.lower().replace("-", "_").replace(".", "_")
        for name, text in {module: HEADER + dedent(source), **files}.items():
            (self.path / f"{name}.py").write_text(dedent(text))
        self.metadata(distribution, version, requires, entry_points or f"{vendor} = {module}")
        importlib.invalidate_caches()
        return module

    def metadata(self, distribution: str, version: str, requires: Sequence[str], entry_points: str) -> None:
        """Writes the ``*.dist-info`` folder that an installer writes."""
        info = self.path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{needs}")
        if entry_points:
            (info / "entry_points.txt").write_text(f"[pvzoo]\n{entry_points}\n")
        (info / "INSTALLER").write_text("pip\n")
        (info / "RECORD").write_text("".join(f"{info.name}/{file.name},,\n" for file in sorted(info.iterdir())))

    def discover(self, disable: str = "") -> list[Plugin]:
        """The plugins of this folder, without those that the Python running the tests has anyway."""
        return [plugin for plugin in discover(disable) if Path(plugin.location).is_relative_to(self.path.parent)]

    def host(self, disable: str = "", *, strict: bool = False) -> Host:
        return Host(self.discover(disable), strict=strict)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty folder of plugins, first on ``sys.path``; what a test imports from it is forgotten afterwards."""
    before = set(sys.modules)
    made = Site(tmp_path / "site")
    monkeypatch.syspath_prepend(str(made.path))
    yield made
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def no_plugins() -> Iterator[None]:
    """Without the plugins that this Python may have installed."""
    with using(Host([])):
        yield


@pytest.fixture
def run_pvzoo(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``python -m pvzoo ARGUMENTS`` in an empty folder; ``path`` is a :class:`Site` that it sees."""

    def run(*arguments: str, path: Site | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return run_python("-m", "pvzoo", *arguments, path=path, cwd=tmp_path, **env)

    return run


def run_python(
    *arguments: str, path: Site | None = None, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PVZOO_", "PYTHON", "COLUMNS"))}
    # The child imports the pvzoo that these tests import, wherever that is.
    paths = [path.path] if path else []
    inherited["PYTHONPATH"] = os.pathsep.join(map(str, [*paths, Path(pvzoo.__file__).parents[1]]))
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=120,
        env={**inherited, "COLUMNS": "100", **env},
    )


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs ``python ARGUMENTS`` in an empty folder, as ``run_pvzoo`` does."""

    def run(*arguments: str, path: Site | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return run_python(*arguments, path=path, cwd=tmp_path, **env)

    return run


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs the program in this process, which has torch already."""

    def run(*arguments: str | Path) -> Any:
        monkeypatch.setattr(sys, "argv", ["pvzoo", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "100")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code or 0, out=captured.out, err=captured.err)

    return run


@pytest.fixture(scope="session")
def palms(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """Files of SynthPalm: 6 subjects with 2 hands, 2 sessions, 2 samples, 64 x 64."""
    from pvzoo.synth import SynthConfig, generate

    folder = tmp_path_factory.mktemp("palms")
    generate(SynthConfig(seed=3, subjects=6, sessions=2, samples=2, size=64), folder)
    return Table.read(folder / "table.csv")
