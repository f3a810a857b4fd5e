"""``pvzoo plugins new``: what it writes is clean, installs, and passes its own tests and pvzoo's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pvzoo
from pvzoo.plugins import Host, using
from pvzoo.scaffold import FIELDS, new_plugin
from pvzoo.testing import candidate

ROOT = Path(__file__).parents[1]
ALL = {"fusion": ["gated", "second-gate"], "backbone": ["tiny"], "alignment": ["norm"], "head": ["cosine"]}
LONG = {kind: ["a_name_that_is_much_longer_than_names_should_be"] for kind in FIELDS}


def run(*command: str | Path, cwd: Path | None = None, **env: str) -> str:
    """Runs a command that must succeed; returns what it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PVZOO_", "PYTHON"))}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, cwd=cwd, env={**inherited, **env}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_command_writes_a_package_and_says_what_is_next(run_pvzoo: Callable[..., Any], tmp_path: Path) -> None:
    done = run_pvzoo("plugins", "new", "acme-lab", "--fusion", "gated", "--backbone", "acme-lab/tiny")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "pvzoo-acme-lab is written; next:",
        "  pip install -e 'pvzoo-acme-lab[test]'",
        "  pytest pvzoo-acme-lab",
        "  pvzoo check acme-lab",
    ]
    folder = tmp_path / "pvzoo-acme-lab"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        ".github/workflows/tests.yml",
        "README.md",
        "pvzoo_acme_lab/__init__.py",
        "pvzoo_acme_lab/gated_fusion.py",
        "pvzoo_acme_lab/py.typed",
        "pvzoo_acme_lab/tiny_backbone.py",
        "pyproject.toml",
        "tests/test_components.py",
    }


@pytest.mark.parametrize("components", [ALL, LONG, *({kind: ["it"]} for kind in FIELDS)], ids=str)
def test_what_is_written_is_clean(tmp_path: Path, components: dict[str, list[str]]) -> None:
    folder = new_plugin("acme", components, tmp_path)
    run(sys.executable, "-m", "ruff", "check", "--no-cache", ".", cwd=folder)
    run(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", ".", cwd=folder)
    for path in folder.rglob("*"):
        assert not path.is_file() or "$" not in path.read_text(encoding="utf-8"), f"{path}: a name was not filled in"


def test_what_is_written_passes_all_checks(site: Any, tmp_path: Path) -> None:
    folder = new_plugin("acme", ALL, tmp_path)
    shutil.copytree(folder / "pvzoo_acme", site.path / "pvzoo_acme")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    points = "\n".join(f"{name} = {value}" for name, value in project["entry-points"]["pvzoo"].items())
    site.metadata(project["name"], project["version"], project["dependencies"], points)
    with using(site.host()) as host:
        candidates = [candidate("plugin", "acme")]
        candidates += [candidate(entry.kind, entry.name) for entry in host.load_all()[0].entries]
        assert [found.name for found in candidates] == ["acme", *(f"acme/{n}" for names in IN_ORDER for n in names)]
        bad = [f"{found}: {result}" for found in candidates for result in found.results() if result.outcome != "passed"]
        assert not bad, "\n".join(bad)


IN_ORDER = [ALL[kind] for kind in ("backbone", "alignment", "fusion", "head")]  # as hooks are called


@pytest.mark.parametrize(
    ("vendor", "components", "message"),
    [
        ("Acme", {"fusion": ["gated"]}, "vendor name 'Acme' is not 2 to 32 of a-z, 0-9 and '-'"),
        ("timm", {"fusion": ["gated"]}, "vendor name 'timm' is reserved"),
        ("taken", {"fusion": ["gated"]}, "vendor name 'taken' is taken by taken (their-palms 1.0), installed in "),
        ("acme", {}, "name at least one component: --fusion NAME, --backbone NAME, --alignment NAME, --head NAME"),
        ("acme", {"head": ["My Head"]}, "head name 'My Head': names are lower-case letters, digits, '_' and '-'"),
        ("acme", {"fusion": ["a-b", "a_b"]}, "fusion 'a_b' needs module a_b_fusion, as 'a-b' does; rename one"),
        ("acme", {"fusion": ["gated", "gated"]}, "fusion 'gated' needs module gated_fusion, as 'gated' does"),
    ],
)
def test_names_that_cannot_be(
    site: Any, tmp_path: Path, vendor: str, components: dict[str, list[str]], message: str
) -> None:
    site.install(vendor="taken", distribution="their-palms")
    (tmp_path / "out").mkdir()
    with using(site.host()), pytest.raises(pvzoo.PvzooError) as caught:
        new_plugin(vendor, components, tmp_path / "out")
    assert str(caught.value).startswith(message)
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    with using(Host(plugins=[])):
        folder = new_plugin("acme", {"fusion": ["gated"]}, tmp_path)
        with pytest.raises(pvzoo.PvzooError, match="is there already, and nothing is overwritten"):
            new_plugin("acme", {"head": ["cosine"]}, tmp_path)
        assert not (folder / "pvzoo_acme" / "cosine_head.py").exists()
        with pytest.raises(pvzoo.PvzooError, match="there is no such folder to write pvzoo-acme into"):
            new_plugin("acme", {"fusion": ["gated"]}, tmp_path / "nowhere")
        with pytest.raises(pvzoo.PvzooError, match="/proc"):  # where nobody can write
            new_plugin("acme", {"fusion": ["gated"]}, Path("/proc"))


# --- installed for good -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment, which sees the packages of this one and this pvzoo, so that torch is there."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # addsitedir reads .pth files too: of an editable installation, and of environments inside environments.
    seen = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})"
    (site / "host.pth").write_text(f"{ROOT}\n{seen}\n")
    return python


def install(python: Path, package: Path) -> None:
    options = ("--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet")
    run(python, "-m", "pip", "install", *options, package)


@pytest.mark.slow
def test_a_new_plugin_installs_and_passes_its_tests(fresh: Path, tmp_path: Path) -> None:
    pvzoo_ = (fresh, "-m", "pvzoo")
    began = time.monotonic()
    run(*pvzoo_, "plugins", "new", "acme", "--fusion", "gated", "--backbone", "tiny", "--alignment", "norm",
        "--head", "cosine", "--out", tmp_path)  # fmt: skip
    package = tmp_path / "pvzoo-acme"
    install(fresh, package)
    run(fresh, "-m", "pytest", "-p", "no:cacheprovider", cwd=package)
    assert time.monotonic() - began < 60
    run(fresh, "-m", "mypy", "--cache-dir", tmp_path / "mypy", cwd=package)
    assert "acme\tpvzoo-acme 0.1.0\tloaded" in run(*pvzoo_, "plugins", "--check", cwd=tmp_path)
    code = """
import pvzoo, torch
model = pvzoo.create("stage2_spatial_nano", **{"fusion.local": "acme/gated", "head": "acme/cosine"})
logits, embedding, details = model(*torch.randn(2, 2, 1, 224, 224))
assert set(details["local"]) == {"w_palm", "w_vein"}
"""
    run(fresh, "-c", code, cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "plugins").glob("pvzoo-*")))
def test_the_plugins_of_this_repository_pass_their_tests(fresh: Path, tmp_path: Path, name: str) -> None:
    package = Path(shutil.copytree(ROOT / "plugins" / name, tmp_path / name))
    install(fresh, package)
    run(fresh, "-m", "pytest", "-p", "no:cacheprovider", cwd=package)


@pytest.mark.slow
def test_the_templates_are_in_the_wheel(tmp_path: Path) -> None:
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=ROOT)
    (wheel,) = tmp_path.glob("pvzoo-*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".template")}
    assert packed == {path.relative_to(ROOT).as_posix() for path in (ROOT / "pvzoo").rglob("*.template")}
    assert packed
