"""The site: built strictly by Zensical, then opened in a browser, page by page."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from browser import DESKTOP, PHONE, Open
from pages import DOCS, ROOT, blocks, furnished, run_blocks

import pvzoo
from pvzoo import catalog, hookspecs
from pvzoo.manifest import Weights
from pvzoo.plugins import host

pytest.importorskip("zensical", reason="needs Zensical: pip install 'pvzoo[docs]'")
pytestmark = pytest.mark.slow
KINDS = ("backbone", "alignment", "fusion", "head", "dataset", "weight_source")


@dataclass(frozen=True)
class Site:
    """A site that was built.

    Attributes:
        docs: The pages that it was made from, those that code makes included.
        folder: Its files.
        address: Where it is served, with a slash at the end.
        seconds: What building it took.
        output: What was printed meanwhile.
    """

    docs: Path
    folder: Path
    address: str
    seconds: float
    output: str

    def pages(self) -> list[str]:
        """Addresses of all pages below that of the site."""
        found = sorted(file.relative_to(self.folder) for file in self.folder.rglob("index.html"))
        return [f"{page.parent.as_posix()}/" if page.parent != Path() else "" for page in found]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    work = tmp_path_factory.mktemp("site")
    ignored = shutil.ignore_patterns("zoo", "components", "api", "parts", "cli.md", "hooks.md", "__pycache__")
    shutil.copytree(DOCS, work / "docs", ignore=ignored)
    shutil.copy(ROOT / "mkdocs.yml", work)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "docs.make"],
        cwd=work,
        env={**os.environ, "PYTHONPATH": str(Path(pvzoo.__file__).parents[1]), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(work / "site"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Site(
            work / "docs", work / "site", f"http://127.0.0.1:{server.server_port}/", seconds, done.stdout + done.stderr
        )
        server.shutdown()


def test_it_builds_strictly_and_in_a_minute(site: Site) -> None:
    assert "No issues found" in site.output
    assert site.seconds < 60


def test_there_is_a_page_for_every_model_kind_and_module(site: Site) -> None:
    pages = set(site.pages())
    assert {f"zoo/{name}/" for name in pvzoo.list_models() if "/" not in name} <= pages
    assert {f"components/{kind}s/" for kind in KINDS} <= pages
    assert {"", "start/", "original/", "results/", "cli/", "hooks/", "api/pvzoo/", "zh/", "zh/start/"} <= pages


def test_every_page_that_is_written_is_in_the_menu() -> None:
    listed = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2])
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    made = {name for name in written if name.split("/")[0] in ("zoo", "components", "api", "make")}
    assert written - made - {"cli.md", "hooks.md"} <= set(listed)
    assert {"cli.md", "hooks.md", "components/index.md", *(f"components/{kind}s.md" for kind in KINDS)} <= set(listed)


def test_mkdocs_understands_the_configuration_too() -> None:
    config = pytest.importorskip("mkdocs.config.base", reason="comes with mkdocstrings")
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.utils.yaml import yaml_load

    with (ROOT / "mkdocs.yml").open(encoding="utf-8") as file:
        data = yaml_load(file)
    data["theme"] = {"name": "mkdocs"}  # Material's own theme need not be here.
    made = MkDocsConfig(config_file_path=str(ROOT / "mkdocs.yml"))
    made.load_dict(data)
    faults, warnings = made.validate()
    assert (faults, warnings) == ([], [])
    assert isinstance(made, config.Config)


def test_links_and_files_inside_the_site_are_there(site: Site) -> None:
    """Zensical checks links between pages; this one sees images, raw HTML and pages that code has made as well."""
    broken = []
    ids = {page: set(re.findall(r'\bid="?([^"\s>]+)', read(site, page))) for page in site.pages()}
    for page in site.pages():
        for target in re.findall(r'(?:href|src)="?([^"\s>]+)', read(site, page)):
            if re.match(r"[a-z]+:|//", target):
                continue
            path, _, anchor = target.partition("#")
            file = Path(os.path.normpath(site.folder / page / path)) if path else site.folder / page
            where = file.relative_to(site.folder).as_posix() + "/" if file != site.folder else ""
            if not file.exists() or (anchor and file.is_dir() and anchor not in ids.get(where.removeprefix("./"), ())):
                broken.append(f"{page}: {target}")
    assert broken == []


def read(site: Site, page: str) -> str:
    return (site.folder / page / "index.html").read_text(encoding="utf-8")


def test_the_model_pages_say_what_the_specs_say(site: Site) -> None:
    text = (site.docs / "zoo/stage2_spatial.md").read_text(encoding="utf-8")
    assert 'model = pvzoo.create("stage2_spatial", pretrained=True)\n' in text
    weights = catalog.pinned(own=True)["stage2_spatial.v1"]
    assert f"| parameters | {weights.parameters:,} |" in text
    untrained = (site.docs / "zoo/stage2_shared.md").read_text(encoding="utf-8")
    model = pvzoo.create("stage2_shared", num_classes=0, device="meta")
    assert f"| parameters | {sum(value.numel() for value in model.parameters()):,} |" in untrained
    assert 'model = pvzoo.create("stage2_shared")\n' in untrained
    source = text.partition("```yaml\n")[2].partition("```")[0]
    assert pvzoo.specs.load_spec(yaml.safe_load(source)).to_dict() == pvzoo.spec("stage2_spatial").to_dict()
    assert '<svg xmlns="http://www.w3.org/2000/svg" class="pvzoo-diagram"' in text


def test_the_blocks_of_pages_that_code_makes_run(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with furnished(tmp_path, monkeypatch):
        for page in sorted((site.docs / "zoo").glob("*.md")):
            assert run_blocks(page, tmp_path), page
    others = [site.docs / "cli.md", site.docs / "hooks.md", *(site.docs / "components").glob("*.md")]
    assert {block.language for page in others for block in blocks(page)} == {"text"}


def test_figures_of_weights_come_from_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from docs.make import results, zoo

    metric = {"name": "eer", "value": 0.0123, "low": 0.01, "high": 0.02, "dataset": "SynthPalm 1", "protocol": "open"}
    metric |= {"genuine": 1000, "impostor": 20000, "subjects": 40}
    cut = {"value": 0.42, "rule": "fmr", "target": 1e-3, "fmr": 9e-4, "fnmr": 0.1, "genuine": 900, "impostor": 9000}
    weights = Weights.model_validate(
        {
            "files": {name: {"size": 10**6, "sha256": "0" * 64} for name in ("config.json", "model.safetensors")},
            "data": [{"name": "SynthPalm 1", "origin": "synthetic"}],
            "licence": "Apache-2.0",
            "intended_use": "Research.",
            "repo": "acme/palm",
            "revision": "v1",
            "dtype": "float16",
            "parameters": 1_234_567,
            "macs": 8_900_000_000,
            "pvzoo": "0.1",
            "metrics": [metric, {**metric, "value": 0.0456, "high": 0.06, "modalities": ["palm"]}],
            "floor": {"CompCode, palm": [{**metric, "value": 0.11, "high": 0.12, "modalities": ["palm"]}]},
            "thresholds": [cut],
            "recipe": {"name": "Plan A", "sha256": "0" * 64},
        }
    )
    for module in (zoo, results):
        monkeypatch.setattr(module, "published", lambda: {"stage2_local_nano.v1": weights})
    table, page = zoo.index(["stage2_local_nano"]), zoo.page("stage2_local_nano")
    (row,) = [line for line in table.splitlines() if "stage2_local_nano.v1" in line]
    cost = "1.23&nbsp;M | 8.90 | 2.0&nbsp;MB&nbsp;in&nbsp;float16"
    assert f"{cost} | 0.0123 [0.01 to 0.02] (SynthPalm 1, open) | Apache-2.0 | SynthPalm 1 |" in row
    for said in (
        "| parameters | 1,234,567 |\n| multiply-adds | 8.900 G for one sample |\n| size | 2.0 MB in float16 |",
        "| cost | 1,234,567 parameters, 8.900 GMACs |",
        "| recipe | Plan A; `pvzoo reproduce stage2_local_nano.v1` trains them again |",
        "| needs | pvzoo 0.1 or newer |",
        "On SynthPalm 1, open (1,000 genuine, 20,000 impostor, 40 subjects):\n",
        "| eer | 0.0123 | 0.01 to 0.02 |\n| eer, palm only | 0.0456 | 0.01 to 0.06 |\n",
        "| eer, palm only (CompCode, palm) | 0.11 | 0.01 to 0.12 |\n",
        "* FMR 0.001: 0.42, with FMR 0.0009 in 9,000 impostor comparisons\n",
    ):
        assert said in page
    standing = dict(results.pages())["make/parts/standing.md"]
    assert "eer 0.0123 [0.01 to 0.02] on SynthPalm 1, open (1,000 genuine, 20,000 impostor, 40 subjects)" in standing


def test_every_component_has_every_parameter_on_its_page(site: Site) -> None:
    for kind in KINDS:
        text = (site.docs / f"components/{kind}s.md").read_text(encoding="utf-8")
        for entry in host().builtins(kind):
            section = text.partition(f"## {entry.name}\n")[2].partition("\n## ")[0]
            assert entry.summary in section
            for field, about in entry.params.model_fields.items():  # type: ignore[attr-defined]
                assert about.description, f"{kind} {entry.name}: what does {field} mean?"
                row = rf"^\| `{field}` \| [a-z0-9 ]+ \| .* \| .+ \| {re.escape(about.description)} \|$"
                assert re.search(row, section, re.MULTILINE), (entry.name, field)


def test_what_a_network_is_made_of_has_formula_and_picture_on_its_page(site: Site) -> None:
    for kind in ("backbone", "alignment", "fusion", "head"):
        text = (site.docs / f"components/{kind}s.md").read_text(encoding="utf-8")
        for entry in host().builtins(kind):
            section = text.partition(f"## {entry.name}\n")[2].partition("\n## ")[0]
            assert '<svg xmlns="http://www.w3.org/2000/svg" class="pvzoo-diagram"' in section, entry.name
            formula = re.search(r"\w = |cos\(", section.partition('<div class="diagram"')[0])
            assert formula or kind == "backbone" or entry.name == "none", f"{entry.name}: its docstring has no formula"


def test_every_hook_has_its_exact_signature_on_the_page_of_hooks(site: Site) -> None:
    text = (site.docs / "hooks.md").read_text(encoding="utf-8")
    for name, hook in vars(hookspecs).items():
        if name.startswith("register_"):
            signature = f"{name}{inspect.signature(hook)}".replace("'", "")
            assert f"## {name}\n\n```text\n{signature}\n```\n" in text


def test_home_is_light(site: Site, open_page: Open) -> None:
    seen = open_page(site.address)
    sizes = seen.js("performance.getEntriesByType('resource').map(x => x.encodedBodySize)")
    assert sum(sizes) + len((site.folder / "index.html").read_bytes()) < 1_000_000


def test_every_page_opens_without_errors_fits_a_phone_and_fetches_nothing_from_elsewhere(
    site: Site, chromium: Any
) -> None:
    context = chromium.new_context(viewport={"width": DESKTOP, "height": 900})
    page, faults = context.new_page(), []
    page.on("console", lambda said: said.type in ("error", "warning") and faults.append((page.url, said.text)))
    page.on("pageerror", lambda error: faults.append((page.url, str(error))))
    page.on("response", lambda reply: reply.status >= 400 and faults.append((page.url, reply.url)))
    page.on(
        "request",
        lambda request: (
            request.url.startswith((site.address, "data:", "blob:")) or faults.append((page.url, request.url))
        ),
    )
    for address in site.pages():
        page.goto(site.address + address, wait_until="load")
        assert page.title(), address
        page.set_viewport_size({"width": PHONE, "height": 900})
        if (width := page.evaluate("document.documentElement.scrollWidth")) > PHONE:
            faults.append((page.url, f"{width} wide on a phone of {PHONE}"))
        page.set_viewport_size({"width": DESKTOP, "height": 900})
    context.close()
    assert faults == []


@pytest.mark.parametrize("page", ["", "zoo/stage2_spatial/"])
def test_a_page_that_is_opened_on_a_phone_has_no_errors(site: Site, open_page: Open, page: str) -> None:
    seen = open_page(site.address + page, width=PHONE)
    assert seen.js("document.documentElement.scrollWidth") <= PHONE
    assert seen.errors == []


def test_search_finds_a_model_by_name(site: Site, open_page: Open) -> None:
    page = open_page(site.address).page
    page.keyboard.press("Control+k")
    page.keyboard.type("stage2_spatial_nano", delay=20)
    page.wait_for_selector('a[href*="zoo/stage2_spatial_nano/"]', timeout=15_000)


def test_the_theme_follows_the_system_and_the_switch(site: Site, open_page: Open) -> None:
    scheme = "document.body.getAttribute('data-md-color-scheme')"
    paper = "getComputedStyle(document.querySelector('.pvzoo-diagram .paper')).fill"
    light, dark = (open_page(f"{site.address}zoo/stage2_spatial/", scheme=scheme) for scheme in ("light", "dark"))
    assert (light.js(scheme), dark.js(scheme)) == ("default", "slate")
    colours = light.js(paper), dark.js(paper)
    assert colours[0] != colours[1]
    light.page.locator("form[data-md-component=palette] label:visible").first.click()
    light.page.wait_for_function(f"{scheme} === 'slate'")
    assert light.js(paper) == colours[1]


def test_chinese_pages_are_in_chinese_around_the_text_too(site: Site, open_page: Open) -> None:
    seen = open_page(f"{site.address}zh/start/")
    assert seen.js("document.documentElement.lang") == "zh"
    assert seen.js("document.querySelector('input[name=query], [data-md-component=search], .md-search') !== null")
    assert open_page(f"{site.address}start/").js("document.documentElement.lang") == "en"
    seen.page.goto(site.address, wait_until="load")
    links = seen.js("[...document.querySelectorAll('a[hreflang]')].map(x => x.getAttribute('hreflang'))")
    assert sorted(set(links)) == ["en", "zh"]
