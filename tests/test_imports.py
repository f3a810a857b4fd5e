"""What is imported when: names without torch, and modules that import downwards only."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import pvzoo

PACKAGE = Path(pvzoo.__file__).parent

# From the bottom to the top. A module imports from layers below its own and from its own package, never from its
# neighbours or from above.
LAYERS = [
    ["errors", "shapes"],
    ["extras", "imagefile", "progress", "threshold"],
    ["manifest"],
    ["registry"],
    ["hookspecs"],
    ["plugins"],
    ["specs"],
    ["zoo"],
    ["backbones", "alignment", "fusion", "heads"],
    ["card", "catalog", "diagram", "images", "pairs", "synth", "tensorfile"],
    ["data", "weights"],
    ["hub"],
    ["model"],
    ["embedding", "factory"],
    ["evaluation"],
    ["visualization"],
    ["demo", "training"],
    ["ablation", "release"],
    ["testing", "scaffold"],
    ["cli"],
    ["__main__"],
]
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"

HEAVY = ["torch", "torchvision", "timm", "numpy", "cv2", "safetensors", "PIL", "huggingface_hub"]
# No module of these parts, apart from those listed, imports any of HEAVY.
LIGHT = [
    "errors",
    "shapes",
    "threshold",
    "manifest",
    "registry",
    "hookspecs",
    "plugins",
    "specs",
    "zoo",
    "card",
    "catalog",
    "diagram",
    "pairs",
    "cli",
]
LIGHT_MODULES = [
    f"pvzoo.{part}"
    for part in [*LIGHT, "data", "backbones", "alignment", "fusion", "heads", "testing", "scaffold", "cli.app"]
]


def test_the_layers_are_explained_from_the_top_to_the_bottom() -> None:
    table = CONTRIBUTING.read_text(encoding="utf-8").partition("## Layers\n")[2].partition("\n## ")[0]
    rows = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines() if line.startswith("| `")]
    assert sorted(part for row in rows for part in row) == sorted(set(RANK) - {"__main__"})
    for above, below in pairwise(rows):
        assert min(RANK[part] for part in above) > max(RANK[part] for part in below)


def modules() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        yield name, ast.parse(file.read_text(encoding="utf-8"))


def imports_of_pvzoo(name: str, tree: ast.Module) -> Iterator[str]:
    """The parts of pvzoo that a module imports anywhere, functions included, but not for type checkers alone."""
    # The package that a leading dot means: that of the module, or the module itself if it is an __init__.
    package = ["pvzoo", *name.split(".")[:-1]]
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            found = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for path in found:
            if path[0] == "pvzoo" and path[1:2] != ["__version__"]:
                yield path[1] if len(path) > 1 else "pvzoo"


def test_imports_run_downwards_only() -> None:
    faults = []
    for name, tree in modules():
        own = name.split(".")[0]
        if own == "__init__":
            continue
        assert own in RANK, f"pvzoo/{own} has no place in LAYERS yet; put it where its imports point downwards"
        for target in imports_of_pvzoo(name, tree):
            if target != own and RANK.get(target, len(LAYERS)) >= RANK[own]:
                faults.append(f"pvzoo.{name} imports pvzoo.{target}")
    assert faults == []


def loaded(python: Callable[..., Any], code: str, **options: Any) -> set[str]:
    """Which of HEAVY and pydantic a process has loaded after it ran ``code``."""
    report = f"import json, sys; print(json.dumps([m for m in {[*HEAVY, 'pydantic']} if m in sys.modules]))"
    done = python("-c", f"{code}\n{report}", **options)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_pvzoo_loads_next_to_nothing(python: Callable[..., Any]) -> None:
    assert loaded(python, "import pvzoo; dir(pvzoo); pvzoo.__version__; pvzoo.hookimpl") == set()


def test_names_specs_and_hook_modules_load_no_torch(python: Callable[..., Any]) -> None:
    code = f"import importlib\nfor name in {LIGHT_MODULES}: importlib.import_module(name)\n"
    code += "import pvzoo\nfor name in pvzoo.list_models(): pvzoo.spec(name).geometry\n"
    code += "pvzoo.list_components('fusion'), pvzoo.list_models(pretrained=True)"
    assert loaded(python, code) == {"pydantic"}


def test_commands_about_names_load_no_torch(python: Callable[..., Any], tmp_path: Path, site: Any) -> None:
    site.install("@hookimpl\ndef register_heads(register): register('palmlab/soft', build='palmlab_torch:Soft')")
    (tmp_path / "palms/palm").mkdir(parents=True)
    (tmp_path / "palms/palm/anna_1.png").touch()
    (tmp_path / "spec.yaml").write_text("branches: {local: {backbone: convnext_atto}}\nfusion: {local: concat}\n")
    commands = [
        ["--help"],
        ["--version"],
        ["list"],
        ["list", "--pretrained"],
        ["list", "--kind", "unimodal", "--json"],
        ["list", "--components", "backbone"],
        ["show", "stage2_spatial"],
        ["show", "spec.yaml", "--diagram"],
        ["show", "arcface"],
        ["show", "palmlab/soft"],
        ["validate", "spec.yaml", "missing.yaml"],
        ["resolve", "spec.yaml", "--set", "fusion.local=sum"],
        ["resolve", "stage2_spatial", "--json"],
        ["schema"],
        ["plugins"],
        ["plugins", "--json", "--check"],
        ["plugins", "show", "palmlab"],
        ["data", "--help"],
        ["data", "layouts"],
        ["data", "scan", "palms", "--layout", "folder_pair", "-o", "table.csv"],
        ["compare", "--help"],
        ["embed", "--help"],
        ["eval", "--help"],
        ["attention", "--help"],
        ["degrade", "--help"],
        ["train", "--help"],
        ["recipes"],
        ["check", "--help"],
        ["pull", "--help"],
        ["push", "--help"],
        ["publish", "--help"],
        ["verify", "--help"],
        ["demo", "--help"],
        ["pack", "--help"],
        ["reproduce", "--help"],
        ["weights", "--help"],
    ]
    code = f"""
import runpy, sys
for command in {commands!r}:
    sys.argv = ["pvzoo", *command]
    try:
        runpy.run_module("pvzoo", run_name="__main__")
    except SystemExit as end:
        expected = 1 if command[0] == "validate" else 0
        assert end.code in (expected, None if expected == 0 else 1), (command, end.code)
"""
    assert loaded(python, code, path=site) == {"pydantic"}


def test_checking_a_data_set_loads_pillow_and_no_torch(python: Callable[..., Any], tmp_path: Path) -> None:
    examples = Path(__file__).parents[1] / "examples"
    code = f"""
import sys
sys.argv = ["pvzoo", "data", "check", {str(examples / "palms")!r}, "--layout", "folder_pair"]
try:
    import pvzoo.cli
    pvzoo.cli.main()
except SystemExit as end:
    assert not end.code, end.code
"""
    assert loaded(python, code) == {"pydantic", "PIL"}


# --- the public names -------------------------------------------------------------------------------------------------


def test_the_mirror_for_type_checkers_names_what_is_loaded_lazily() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (mirror,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    mirrored = {}
    for node in mirror.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name} is re-exported only when written 'as {alias.name}'"
            mirrored[alias.name] = node.module
    assert mirrored == pvzoo._HOME
    assert pvzoo.__all__ == ["__version__", *sorted(mirrored)]


@pytest.mark.parametrize("name", pvzoo.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(pvzoo, name) is getattr(pvzoo, name)
    assert name in dir(pvzoo)


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'pvzoo' has no attribute 'craete'$"):
        pvzoo.craete  # noqa: B018
    assert not hasattr(pvzoo, "craete")
