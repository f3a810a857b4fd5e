"""The house: examples run, versions agree, workflows and templates are well formed, tasks are documented."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import ROOT

import pvzoo

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
EXAMPLES = {
    "diagram.py": r"model\.svg: [\d,]+ bytes\n",
    "identify.py": r"the model is untrained.*\n(?:\w+_2: most like \w+_1, score -?[\d.]+\n){2}",
    "own_fusion.py": r"palm and vein: \(2, 512\)\npalm alone:    \(2, 512\)\n",
}


def test_every_example_is_run_by_a_test() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {*EXAMPLES, "make_palms.py"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "diagram.py" else [pytest.mark.slow]) for name in EXAMPLES]
)
def test_examples_run(name: str, python: Callable[..., Any]) -> None:
    done = python(str(ROOT / "examples" / name))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(EXAMPLES[name], done.stdout), done.stdout


def test_the_version_is_one_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == pvzoo.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert f"\n## {pvzoo.__version__}, " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_ask_for_little_and_pin_what_they_use(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        assert set(job.get("permissions", {})) <= {"id-token", "pages"}
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert "@" in step.get("uses", "@")
            assert not re.search(r"secrets\.|password", str(step)), "trusted publishing needs no secret"


def test_a_release_is_published_by_trust_and_only_from_a_tag() -> None:
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads "on" as true
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert release["jobs"]["publish"]["needs"] == "build"


def test_issue_templates_have_what_github_asks_for() -> None:
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        template = yaml.safe_load(path.read_text(encoding="utf-8"))
        if path.name == "config.yml":
            continue
        assert {"name", "description", "body"} <= set(template)
        fields = [field for field in template["body"] if field["type"] != "markdown"]
        assert all(field["id"] and field["attributes"]["label"] for field in fields)
        assert len({field["id"] for field in fields}) == len(fields)


def test_every_task_is_explained() -> None:
    tasks = re.findall(r"^([a-z]+)(?: \*args)?:$", (ROOT / "justfile").read_text(encoding="utf-8"), re.MULTILINE)
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert sorted(tasks) == sorted(["default", *re.findall(r"^\| `just (\w+)`", contributing, re.MULTILINE)])


def test_the_generator_of_the_site_is_no_part_of_the_package() -> None:
    for path in (ROOT / "pvzoo").rglob("*.py"):
        assert not re.search(
            r"^\s*(from|import) (docs|zensical|mkdocs)", path.read_text(encoding="utf-8"), re.MULTILINE
        )
