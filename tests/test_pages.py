"""Pages of the documentation: blocks of code run or say why not, hooks are documented, both editions agree."""

from __future__ import annotations

import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from hubclient import environment
from hubserver import OWNER, HubServer
from pages import DOCS, ROOT, RUN, SHOWN, Block, blocks, furnished, run_blocks, written_pages

from pvzoo import hookspecs
from pvzoo.registry import ENTRY_TYPES

PAGES = written_pages()
# Pages that train, export or evaluate, and those that build models of full size.
SLOW = {
    "README.md",
    "docs/evaluation.md",
    "docs/index.md",
    "docs/loading.md",
    "docs/original.md",
    "docs/plugins.md",
    "docs/start.md",
    "docs/synthpalm.md",
    "docs/testing.md",
    "docs/concepts/exact-loading.md",
    "docs/tutorials/compare.md",
    "docs/tutorials/deploy.md",
    "docs/tutorials/finetune.md",
    "docs/tutorials/plugin.md",
    "docs/tutorials/publish.md",
    "docs/tutorials/train.md",
}
CHINESE = [page for page in PAGES if page.is_relative_to(DOCS / "zh")]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def runs(page: Path) -> bool:
    return any(block.language in RUN and not block.reason for block in blocks(page))


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=name(page), marks=[pytest.mark.slow] if name(page) in SLOW else [])
        for page in PAGES
        if page not in CHINESE and runs(page)
    ],
)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with furnished(tmp_path, monkeypatch), HubServer() as hub:  # a page may publish
        for variable, value in {**environment(hub.url, tmp_path / "home"), "HF_TOKEN": OWNER}.items():
            monkeypatch.setenv(variable, value)
        assert run_blocks(page, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_of_a_known_kind_and_well_formed(page: Path) -> None:
    for block in blocks(page):
        assert block.language in (*RUN, *SHOWN), f"{block}: a fence needs a language, one of {(*RUN, *SHOWN)}"
        if block.reason:
            assert block.language in RUN, f"{block}: only what could run is marked as not run"
        if block.language == "python":
            compile(block.code, str(block), "exec")
        elif block.language == "yaml":
            yaml.safe_load(block.code)
        elif block.language == "toml":
            tomllib.loads(block.code)
        elif block.language == "json":
            json.loads(block.code)


def test_a_slow_page_is_a_page() -> None:
    assert set(map(name, PAGES)) >= SLOW


def test_blocks_are_found_with_their_marks_and_titles(tmp_path: Path) -> None:
    page = ROOT / "docs" / "x.md"
    text = (
        "<!-- not run: needs a camera -->\n```python\n1 /\n```\n\n"
        '=== "Tab"\n\n    ```yaml title="a.yaml"\n    a: 1\n      # deep\n    ```\n'
        "<!-- command: test -->\n```bash\nls\n```\nText.\n```bash\nls\n```\n"
    )
    (tmp_path / "x.md").write_text(text)
    found = list(blocks(tmp_path / "x.md"))
    assert [(block.language, block.line, block.title) for block in found] == [
        ("python", 2, None),
        ("yaml", 8, "a.yaml"),
        ("bash", 13, None),
        ("bash", 17, None),
    ]
    assert found[0].reason == "needs a camera"
    assert found[1].code == "a: 1\n  # deep\n"
    assert found[2].reason == "CI runs the command 'test' in a clean environment"
    assert found[3].reason is None
    assert str(Block(page, 3, "bash", "", None, None)) == "docs/x.md:3"


@pytest.mark.parametrize(
    ("language", "code", "problem"),
    [("python", "1 / 0", ZeroDivisionError), ("bash", "echo hm; pvzoo show nothing_like_it", AssertionError)],
)
def test_a_block_that_fails_fails_the_test(language: str, code: str, problem: type[Exception], tmp_path: Path) -> None:
    page = tmp_path / "x.md"
    page.write_text(f"```{language}\n{code}\n```\n")
    with pytest.raises(problem) as raised:
        run_blocks(page, tmp_path)
    if language == "bash":
        assert "no model or component named 'nothing_like_it'" in str(raised.value)


# --- hooks ------------------------------------------------------------------------------------------------------------


def hooks() -> list[str]:
    return [hook for hook in vars(hookspecs) if hook.startswith("register_")]


def test_there_is_a_hook_for_each_kind_of_entry() -> None:
    assert hooks() == [f"register_{kind}s" for kind in ENTRY_TYPES]


@pytest.mark.parametrize("hook", hooks())
def test_every_hook_is_documented_and_tested(hook: str) -> None:
    assert f"`{hook}`" in (DOCS / "plugins.md").read_text(encoding="utf-8")
    documented = inspect.getdoc(getattr(hookspecs, hook)) or ""
    assert re.search(r"``register\(name, \*, .+\)``", documented), "its docstring shows how register is called"
    # A test implements it, and so sees that what it registers arrives.
    implements = re.compile(rf"def {hook}\(.*register")
    tests = [*(ROOT / "tests").glob("test_*.py"), *(ROOT / "plugins").glob("*/*/__init__.py")]
    assert any(implements.search(path.read_text(encoding="utf-8")) for path in tests), f"no test implements {hook}"


@pytest.mark.parametrize("hook", hooks())
def test_the_table_of_hooks_names_every_keyword_that_is_needed(hook: str) -> None:
    entry = ENTRY_TYPES[hook.removeprefix("register_").removesuffix("s")]
    rows = (DOCS / "plugins.md").read_text(encoding="utf-8").splitlines()
    (row,) = [line for line in rows if line.startswith(f"| `{hook}` |")]
    common = {"name", "build", "params", "summary", "revision", "origin"}
    needed = {
        field
        for field, parameter in inspect.signature(entry).parameters.items()
        if field not in common and parameter.default is inspect.Parameter.empty
    }
    assert all(field in row for field in needed), row


# --- the Chinese edition ----------------------------------------------------------------------------------------------


def test_home_get_started_and_the_tutorials_are_there_in_chinese() -> None:
    english = [DOCS / "index.md", DOCS / "start.md", *sorted((DOCS / "tutorials").glob("*.md"))]
    assert sorted(page.relative_to(DOCS / "zh") for page in CHINESE) == sorted(
        page.relative_to(DOCS) for page in english
    )


@pytest.mark.parametrize("page", CHINESE, ids=name)
def test_both_editions_have_the_same_code(page: Path) -> None:
    """So that what runs in English runs in Chinese; comments, and texts after ``#``, are each in their language."""
    english = DOCS / page.relative_to(DOCS / "zh")
    assert [plain(block) for block in blocks(page)] == [plain(block) for block in blocks(english)]
    assert page.read_text(encoding="utf-8").startswith("---\nlang: zh\n")


def plain(block: Block) -> tuple[str, str | None, bool, list[str]]:
    lines = [re.sub(r"\s+#.*|^#.*", "", line).rstrip() for line in block.code.splitlines()]
    return block.language, block.title, block.reason is None, [line for line in lines if line]
