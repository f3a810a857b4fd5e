"""Drawings of specs: what stands in them, for the zoo's models and for specs of other shapes."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import pvzoo
from pvzoo.diagram import diagram
from pvzoo.specs import load_spec

SVG = "{http://www.w3.org/2000/svg}"
BRANCH = {"backbone": "convnext_atto", "features": "map", "alignment": "conv1x1"}
THREE = {
    "modalities": ["palm", "vein", "dorsal"],
    "branches": {"a": BRANCH, "b": {"backbone": "efficientvit_m0"}},
    "fusion": {"a": "spatial_attention", "b": "concat"},
    "embedding": {"bnneck": True, "normalize": False},
}


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_a_drawing_says_what_the_model_is() -> None:
    found = texts(diagram(pvzoo.spec("stage2_spatial")))
    for text, times in {
        "palm": 1,
        "1x224x224": 2,
        "global branch: vectors": 1,
        "local branch: maps": 1,
        "efficientvit_m0": 2,
        "convnext_tiny": 2,
        "192 → 256": 2,
        "768x7x7": 2,
        "spatial_attention": 1,
        "channel_attention": 1,
        "pool": 1,
        "join": 1,
        "512": 1,
        "512 values": 1,
        "L2 norm": 1,
        "scale 64, margin 0.5": 1,
        "100 logits": 1,
    }.items():
        assert found.count(text) == times, text


@pytest.mark.parametrize("name", pvzoo.list_models())
def test_every_model_of_the_zoo_can_be_drawn_and_nothing_leaves_the_paper(name: str) -> None:
    root = ET.fromstring(diagram(pvzoo.spec(name)))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = list(root.iter(f"{SVG}rect"))
    for box in boxes:
        x, y, w, h = (float(box.attrib.get(key, 0)) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
    assert len({ET.tostring(box) for box in boxes}) == len(boxes)


def test_specs_of_other_shapes() -> None:
    found = texts(diagram(load_spec(THREE)))
    assert [found.count(text) for text in ("dorsal", "convnext_atto", "BNNeck", "L2 norm", "join")] == [1, 3, 1, 0, 1]
    assert not any(text.endswith("logits") for text in found)
    shared = {"modalities": ["palm", "vein"], "branches": {"a": BRANCH}, "fusion": {"a": "sum"}, "share_branches": True}
    assert texts(diagram(load_spec(shared))).count("keeps position, shared weights") == 2
    alone = {
        "modalities": ["palm"],
        "branches": {"a": {"backbone": {"name": "convnext_atto", "params": {"stride": 16}}}},
    }
    found = texts(diagram(load_spec(alone)))
    assert "pooled, stride 16" in found
    assert not {"FUSION", "ALIGNMENT", "identity", "join", "pool"} & set(found)


def test_a_modality_has_its_colour_in_every_drawing() -> None:
    alone = diagram(pvzoo.spec("stage1_convnext_vein"))
    assert "var(--fill-1)" in alone
    assert "var(--fill-0)" not in alone.partition("</style>")[2]
    assert {f"var(--fill-{hue})" for hue in (0, 1, 2)} <= set(
        re.findall(r"var\(--fill-\d\)", diagram(load_spec(THREE)))
    )


def test_a_drawing_is_text_that_fetches_and_runs_nothing() -> None:
    svg = diagram(load_spec({**THREE, "name": "x", "summary": "<script>&\n\n\x07"}))
    assert "<title>Architecture of x: &lt;script&gt;&amp;   </title>" in svg
    ET.fromstring(svg)
    assert not re.search(r"<script|href|url\(|@import|@font-face|\bid=", svg)
    assert "prefers-color-scheme: dark" in svg


def test_show_draws_models_and_spec_files(run_pvzoo: Callable[..., Any], tmp_path: Path) -> None:
    assert run_pvzoo("show", "stage2_spatial", "--diagram").stdout == diagram(pvzoo.spec("stage2_spatial"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(THREE))
    done = run_pvzoo("show", "mine.yaml", "--diagram", "-o", "mine.svg")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "mine.svg").read_text(encoding="utf-8") == diagram(load_spec(THREE))
    lines = run_pvzoo("show", "mine.yaml").stdout.splitlines()
    assert lines[0] == "mine.yaml"
    assert "images\tpalm and vein and dorsal\t1x224x224" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["arcface", "--diagram"], "arcface is a head; a drawing is made of a model or a spec file"),
        (["stage2_spatial", "-o", "x.svg"], "--out x.svg is a file for the drawing; add --diagram"),
        (["stage2_spatial", "--diagram", "-o", "no/x.svg"], "cannot write no/x.svg: No such file or directory"),
        (["gone.yaml", "--diagram"], "gone.yaml: no such file"),
    ],
)
def test_what_cannot_be_drawn(run_pvzoo: Callable[..., Any], arguments: list[str], message: str) -> None:
    done = run_pvzoo("show", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_the_picture_of_the_readme_is_that_of_the_recommended_model() -> None:
    file = Path(__file__).parents[1] / "docs/architecture.svg"
    again = "pvzoo show stage2_spatial --diagram -o docs/architecture.svg"
    assert file.read_text(encoding="utf-8") == diagram(pvzoo.spec("stage2_spatial")), again
