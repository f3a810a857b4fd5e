"""What a spec may say, and what pvzoo answers to one that is wrong."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import pvzoo
from pvzoo import catalog
from pvzoo.errors import SpecError
from pvzoo.shapes import Shape
from pvzoo.specs import ModelSpec, Source, json_schema, load_spec
from pvzoo.specs.model import TORCH_NAMES

GOOD = """\
modalities: [palm, vein]
branches:
  global:
    backbone: efficientvit_m0
    alignment: {name: linear, params: {dim: 64}}
  local:
    backbone: {name: convnext_atto, params: {drop_path_rate: 0.1}}
    features: map
    alignment: {name: conv1x1, params: {dim: 64}}
fusion:
  global: channel_attention
  local: spatial_attention
head: arcface
num_classes: 10
"""


@pytest.fixture
def check(tmp_path: Path):
    """Writes a spec file and gives the messages of its faults, without the folder."""

    def run(text: str, name: str = "spec.yaml") -> list[str]:
        file = tmp_path / name
        file.write_text(text)
        with pytest.raises(SpecError) as caught:
            load_spec(file)
        return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return run


def changed(**fields: Any) -> str:
    """``GOOD`` with top-level fields replaced."""
    return yaml.safe_dump(yaml.safe_load(GOOD) | fields, sort_keys=False)


def test_a_spec_file_says_what_a_model_is(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(GOOD)
    spec = load_spec(tmp_path / "spec.yaml")
    assert spec.kind == "multimodal"
    assert spec.branches["local"].backbone["vein"].params.drop_path_rate == 0.1
    assert spec.head.params.margin == 0.5  # a default of ArcFace
    assert spec.geometry.aligned["local"]["palm"] == Shape(64, (7, 7))
    assert spec.geometry.embedding == 128


def test_every_fault_is_reported_with_its_place(check) -> None:
    faults = check(
        """\
modalities: [palm, vein]
branches:
  global:
    backbone: efficientvt_m0
    alignment: {name: linear, params: {dim: -3, biass: true}}
    featuers: vector
  local: {backbone: convnext_atto, features: mpa}
fusion: {global: channel_atention, lokal: sum}
head: {name: arcface, margin: 0.3}
num_clases: 10
"""
    )
    assert faults == [
        "spec.yaml:4:15: branches.global.backbone: no backbone named 'efficientvt_m0'; did you mean 'efficientvit_m0'?",
        "spec.yaml:5:45: branches.global.alignment.params.dim: input should be greater than or equal to 1, got -3",
        "spec.yaml:5:56: branches.global.alignment.params.biass: unknown field; did you mean 'bias'?",
        "spec.yaml:6:15: branches.global.featuers: unknown field; did you mean 'features'?",
        "spec.yaml:7:46: branches.local.features: input should be 'vector' or 'map', got 'mpa'",
        "spec.yaml:8:1: fusion: branch 'local' needs a fusion to join palm and vein",
        "spec.yaml:8:18: fusion.global: no fusion named 'channel_atention'; did you mean 'channel_attention'?",
        "spec.yaml:8:43: fusion.lokal: there is no branch 'lokal'; did you mean 'local'?",
        "spec.yaml:9:31: head.margin: arguments of a component go under 'params'",
        "spec.yaml:10:13: num_clases: unknown field; did you mean 'num_classes'?",
    ]


def test_parts_of_a_reference_and_names_are_compared_although_other_parts_are_wrong(check) -> None:
    faults = check(
        """\
modalities: [palm, vein, palm]
branches:
  global: {backbone: {palm: convnext_atto, vien: convnext_atto}, alignment: {name: linear, dim: 8, params: {dmi: 8}}}
  forward: {backbone: convnext_atto}
fusion: {global: sum, forward: sum}
num_classes: many
"""
    )
    assert faults == [
        "spec.yaml:1:1: modalities: a modality stands twice in palm, vein, palm",
        "spec.yaml:3:12: branches.global.backbone: names palm, vien, but the modalities are palm, vein, palm",
        "spec.yaml:3:97: branches.global.alignment.dim: arguments of a component go under 'params'",
        "spec.yaml:3:114: branches.global.alignment.params.dmi: unknown field; did you mean 'dim'?",
        "spec.yaml:4:3: branches.forward: 'forward' is a name of torch's own; choose another",
        "spec.yaml:5:32: fusion.forward: 'forward' is a name of torch's own; choose another",
        "spec.yaml:6:14: num_classes: input should be a valid integer, got 'many'",
    ]


def test_items_that_are_wrong_are_not_said_to_be_missing(check) -> None:
    assert check("modalities: [Palm]\nbranches: {local: {backbone: convnext_atto}}") == [
        "spec.yaml:1:14: modalities.0: string should match pattern '^[a-z][a-z0-9_]*$', got 'Palm'"
    ]


LOOP: dict[Any, Any] = {}
LOOP |= {"left": LOOP, "right": LOOP}


@pytest.mark.parametrize(
    ("summary", "fault"),
    [
        ({("a",): 1}, "summary: ('a',) cannot be a key, which is text"),
        (b"x", "summary: b'x' is of type bytes, and not plain data (str, int, float, bool, None, list, dict)"),
        ([{"x"}], "summary.0: {'x'} is of type set, and not plain data (str, int, float, bool, None, list, dict)"),
        (10**5000, "summary: the number is too large"),
        (LOOP, "summary: is nested more than 32 levels deep"),
    ],
    ids=["key", "bytes", "set", "number", "loop"],
)
def test_what_json_cannot_hold_is_refused_with_its_place(summary: Any, fault: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec({**yaml.safe_load(GOOD), "summary": summary})
    assert str(caught.value) == f"spec: {fault}"


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"num_classes": 0}, "num_classes: input should be greater than or equal to 1, got 0"),
        ({"num_classes": "8"}, "num_classes: input should be a valid integer, got '8'"),
        ({"num_classes": True}, "num_classes: input should be a valid integer, got True"),
        ({"num_classes": 2.5}, "num_classes: input should be a valid integer, got 2.5"),
        ({"modalities": "palm"}, "modalities: input should be a valid array, got 'palm'"),
        ({"modalities": ["palm", "palm"]}, "modalities: a modality stands twice in palm, palm"),
        ({"modalities": ["Palm", "vein"]}, "modalities.0: string should match pattern '^[a-z][a-z0-9_]*$', got 'Palm'"),
        ({"preprocessing": {"size": 0}}, "preprocessing.size: should be 1 to 65536 pixels, or [height, width], got 0"),
        ({"preprocessing": {"std": [0]}}, "preprocessing.std.0: input should be greater than 0, got 0"),
        (
            {"preprocessing": {"channels": 3, "mean": [0.1, 0.2]}},
            "preprocessing.mean: has 2 values for 3 channels; give 1 or 3",
        ),
        ({"head": 7}, "head: should be the name of a head, or {name: ..., params: ...}"),
        ({"head": {"params": {}}}, "head.name: the name of a head is required, as text"),
        (
            {"head": {"name": "arcface", "params": {"margin": 2.0}}},
            "head.params.margin: input should be less than 1.5707963267948966, got 2.0",
        ),
        (
            {"head": "none"},
            "num_classes: head 'none' has no classes; for some take a head that has, such as arcface "
            '(in Python head="arcface"); for none write null (in Python num_classes=0)',
        ),
        ({"num_classes": None}, "num_classes: head 'arcface' needs the number of classes"),
        ({"head": "spatial_attention"}, "head: 'spatial_attention' is a fusion, not a head"),
        ({"head": "acme/hydra"}, "head: head 'acme/hydra': no installed plugin has vendor name 'acme'"),
        (
            {"fusion": {"global": "sum", "lokal": "sum"}},
            "fusion.lokal: there is no branch 'lokal'; did you mean 'local'?",
        ),
        ({"fusion": {"global": "sum"}}, "fusion: branch 'local' needs a fusion to join palm and vein"),
        (
            {"fusion": {"global": "spatial_attention", "local": "sum"}},
            "fusion.global: spatial_attention does not take a vector; those that do: aff, channel_attention,",
        ),
        (
            {
                "fusion": {
                    "global": "sum",
                    "local": {"name": "spatial_attention", "params": {"kernel_size": 4}},
                }
            },
            "fusion.local.params.kernel_size: must be odd, so that the map keeps its size, got 4",
        ),
        (
            {"fusion": {"global": "sum", "local": {"name": "cross_attention", "params": {"heads": 7}}}},
            "fusion.local: cross_attention: 7 heads do not divide 64 channels",
        ),
    ],
)
def test_a_wrong_value_is_named(check, fields: dict[str, Any], fault: str) -> None:
    faults = check(changed(**fields))
    assert any(fault in line for line in faults), faults


@pytest.mark.parametrize(
    ("size", "backbone", "fault"),
    [
        (
            8,
            "efficientvit_m0",
            "efficientvit_m0: an image of 8x8 is too small; efficientvit_m0 takes 16 pixels a side or more",
        ),
        ([224, 31], "convnext_atto", "an image of 224x31 is too small; convnext_atto takes 32 pixels a side or more"),
        (224, {"name": "convnext_atto", "params": {"stride": 5}}, "has no level of stride 5; it has 4, 8, 16, 32"),
    ],
)
def test_an_impossible_image_or_level_is_refused(check, size: Any, backbone: Any, fault: str) -> None:
    branch = {"backbone": backbone, "features": "map"}
    spec = {"modalities": ["palm"], "branches": {"only": branch}, "preprocessing": {"size": size}}
    assert fault in check(yaml.safe_dump(spec))[0]


def test_maps_that_do_not_fit_get_a_proposal(check) -> None:
    spec = yaml.safe_load(GOOD)
    spec["branches"]["local"]["backbone"] = {"palm": "convnext_tiny", "vein": "efficientvit_m0"}
    (fault,) = check(yaml.safe_dump(spec, sort_keys=False))
    assert "joins palm 64x7x7 (convnext_tiny) with vein 64x4x4 (efficientvit_m0)" in fault
    assert "both have levels at stride 32 (palm 768 channels, vein 128 channels)" in fault
    assert "and stride 16 (palm 384 channels, vein 64 channels): set params.stride of the backbones" in fault
    assert "or resample with alignment params grid: [7, 7]" in fault


@pytest.mark.parametrize(
    "repair",
    [
        {"branches.local.backbone.vein": {"name": "efficientvit_m0", "params": {"stride": 32}}},
        {"branches.local.alignment": {"name": "conv1x1", "params": {"dim": 64, "grid": [7, 7]}}},
    ],
    ids=["levels of one stride", "resampling"],
)
def test_both_proposals_work(repair: dict[str, Any]) -> None:
    spec = yaml.safe_load(GOOD)
    spec["branches"]["local"]["backbone"] = {"palm": "convnext_atto", "vein": "efficientvit_m0"}
    assert load_spec(spec, repair).geometry.fused["local"] == Shape(64, (7, 7))


def test_a_backbone_a_modality_must_name_all_modalities(check) -> None:
    spec = yaml.safe_load(GOOD)
    spec["branches"]["local"]["backbone"] = {"palm": "convnext_atto", "veil": "convnext_atto"}
    assert (
        "branches.local.backbone: names palm, veil, but the modalities are palm, vein" in check(yaml.safe_dump(spec))[0]
    )


def test_shared_branches_need_one_backbone(check) -> None:
    spec = yaml.safe_load(GOOD) | {"share_branches": True}
    spec["branches"]["local"]["backbone"] = {"palm": "convnext_atto", "vein": "convnext_nano"}
    assert "share_branches needs one backbone for all modalities" in check(yaml.safe_dump(spec))[0]


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        ({"preprocessing.size": 60_000}, "preprocessing.size"),
        ({"num_classes": 10**9}, "head"),
        ({"fusion.global": "sum", "branches.global.alignment.params.dim": 10**9}, "branches.global.alignment"),
        ({"head": {"name": "subcenter_arcface", "params": {"centers": 64}}, "num_classes": 10**7}, "head"),
        ({"fusion.global": {"name": "concat", "params": {"dim": 10**10}}}, "fusion.global"),
    ],
)
def test_a_size_beyond_the_memory_limit_is_refused(monkeypatch, overrides: dict[str, Any], path: str) -> None:
    monkeypatch.setenv("PVZOO_MEMORY_LIMIT", "4GiB")
    with pytest.raises(SpecError) as caught:
        pvzoo.spec("stage2_spatial", **overrides)
    assert caught.value.problems[0].path == path
    assert "the limit is 4.0 GiB (environment variable PVZOO_MEMORY_LIMIT, for example 64GiB)" in str(caught.value)


def test_the_memory_limit_can_be_set(monkeypatch) -> None:
    monkeypatch.setenv("PVZOO_MEMORY_LIMIT", "1M")
    with pytest.raises(SpecError, match=r"the limit is 1\.0 MiB"):
        pvzoo.spec("stage2_spatial")
    monkeypatch.setenv("PVZOO_MEMORY_LIMIT", "a lot")
    with pytest.raises(pvzoo.PvzooError, match="PVZOO_MEMORY_LIMIT is 'a lot'; write a size such as '64GiB'"):
        pvzoo.spec("stage2_spatial")


@pytest.mark.parametrize(
    ("name", "overrides", "needed"),
    [
        ("stage2_spatial", {}, "212.2 MiB"),
        ("stage2_shared", {}, "106.1 MiB"),  # the same weights for both modalities
        (
            "stage1_convnext_palm",
            {"branches.local.backbone": {"name": "timm", "params": {"arch": "vit_base_patch16_224"}}},
            "325.8 MiB",
        ),
    ],
    ids=["each", "shared", "timm"],
)
def test_the_weights_of_backbones_count(monkeypatch, name: str, overrides: dict[str, Any], needed: str) -> None:
    monkeypatch.setenv("PVZOO_MEMORY_LIMIT", "100M")
    with pytest.raises(SpecError, match=rf"branches\.local\.backbone: needs at least {needed}, and the model"):
        pvzoo.spec(name, **overrides)


def test_the_readme_shows_a_spec_and_what_is_said_about_a_wrong_one(check) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    (spec,), (answer,) = (re.findall(rf"```{kind}\n(.*?)```", readme, re.DOTALL) for kind in ("yaml", "text"))
    assert load_spec(yaml.safe_load(spec)).geometry.embedding == 256
    cut = spec.replace("{name: efficientvit_m0, params: {stride: 32}}", "efficientvit_m0")
    assert check(cut) == [" ".join(answer.split())]


BOMB = "a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "spec.yaml: the file is empty"),
        ("branches: !!python/object/apply:os.getcwd []", "spec.yaml:1:11: tag 'tag:yaml.org,2002:python/object/"),
        ("branches: !acme {}", "spec.yaml:1:11: tag '!acme' is not allowed; a spec is plain data"),
        ("a: !!set {x, y}", "spec.yaml:1:4: tag 'tag:yaml.org,2002:set' is not allowed"),
        (BOMB, "the document expands to more than 20,000 values"),
        ("x: &x 1\ny: [" + "*x, " * 400_000 + "]", "the file is larger than 1,000,000 bytes"),
        ("a: &a [*a]", "an alias refers to the value that it stands in"),
        ("a: 1\nb: 2\na: 3", "spec.yaml:3:1: key 'a' stands twice"),
        ("a: [1, 2\n", "spec.yaml:2:1: while parsing a flow sequence, did not find expected ',' or ']'"),
        ("a: 1\n---\nb: 2", "expected a single document in the stream, but found another document"),
        ("[" * 5000, "spec.yaml"),
        ("? [1]\n: 2", "a key must be plain text"),
        ("- a\n- b", "spec.yaml:1:1: should be a mapping of fields"),
        ("just text", "spec.yaml:1:1: should be a mapping of fields"),
        ("a: \x00", "spec.yaml"),
        ("summary: " + "9" * 5000, "spec.yaml: a value cannot be read: Exceeds the limit (4300 digits)"),
        ("summary: " + "9" * 400, "spec.yaml:1:10: summary: the number is too large"),
        ("summary: " + "[" * 200 + "]" * 200, "spec.yaml:1:1: summary: is nested more than 32 levels deep"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else None,
)
def test_hostile_yaml_is_refused_before_anything_is_made_of_it(check, text: str, fault: str) -> None:
    (found,) = check(text)
    assert fault in found
    assert found.count("spec.yaml") == 1


@pytest.mark.parametrize(
    ("content", "fault"),
    [(None, "no such file"), (b"\xff\xfe\x00", "is not UTF-8 text"), ("folder", "cannot be read: Is a directory")],
)
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes | str | None, fault: str) -> None:
    file = tmp_path / "spec.yaml"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content:
        file.mkdir()
    with pytest.raises(SpecError, match=f"{file}: {fault}"):
        load_spec(file)


def test_json_is_read_too_with_tabs_and_places(tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(yaml.safe_load(GOOD), indent="\t"))
    assert load_spec(file) == load_spec(yaml.safe_load(GOOD))
    file.write_text(file.read_text().replace('"num_classes": 10', '"num_classes": -10'))
    with pytest.raises(SpecError, match=r"spec\.json:\d+:\d+: num_classes: input should be greater"):
        load_spec(file)


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", ".0001"])
def test_numbers_with_exponents_are_numbers(text: str) -> None:
    assert Source.from_text(f"x: {text}", "spec.yaml").data == {"x": 1e-4}


def test_anchors_and_merge_keys_work() -> None:
    text = "base: &b {dim: 4, bias: true}\nx: {<<: *b, dim: 8}\ny: *b"
    assert Source.from_text(text, "spec.yaml").data["x"] == {"dim": 8, "bias": True}


@pytest.mark.parametrize(
    ("overrides", "seen"),
    [
        ({"fusion.local": "concat"}, lambda spec: spec.fusion["local"].name == "concat"),
        ({"head.params.margin": 0.3}, lambda spec: spec.head.params.margin == 0.3),
        ({"fusion.global.params.reduction": 2}, lambda spec: spec.fusion["global"].params.reduction == 2),
        ({"preprocessing.mean": [0.25]}, lambda spec: spec.preprocessing.mean == (0.25,)),
        ({"modalities": ["palm"]}, lambda spec: spec.kind == "unimodal"),
        ({"share_branches": True}, lambda spec: spec.share_branches),
        ({"embedding.bnneck": True}, lambda spec: spec.embedding.bnneck),
        ({"modalities.1": "dorsal"}, lambda spec: spec.modalities == ("palm", "dorsal")),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_overrides_reach_into_the_spec(overrides: dict[str, Any], seen) -> None:
    assert seen(pvzoo.spec("stage2_spatial", **overrides))


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (
            {"fusion.local": "conact"},
            "override 'fusion.local': fusion.local: no fusion named 'conact'; did you mean 'concat'?",
        ),
        (
            {"head.params.margn": 0.3},
            "override 'head.params.margn': head.params.margn: unknown field; did you mean 'margin'?",
        ),
        ({"head.margin": 0.3}, "override 'head.margin': head.margin: arguments of a component go under 'params'"),
        ({"num_clases": 3}, "override 'num_clases': num_clases: unknown field; did you mean 'num_classes'?"),
        ({"modalities.5": "x"}, "override 'modalities.5': modalities.5: '5' is not an index of a list of 2"),
        ({"num_classes.x": 1}, "override 'num_classes.x': num_classes.x: 100 has no field 'x'"),
        (
            {"num_classes": Fraction(5)},
            "override 'num_classes': num_classes: Fraction(5, 1) is of type Fraction",
        ),
        ({"fusion..local": "sum"}, "is not a dotted path of a field"),
    ],
)
def test_overrides_are_checked_like_the_rest(overrides: dict[str, Any], fault: str) -> None:
    with pytest.raises(SpecError) as caught:
        pvzoo.spec("stage2_spatial", **overrides)
    assert fault in str(caught.value)


def test_a_resolved_spec_has_everything_filled_in_and_is_a_fixed_point() -> None:
    resolved = pvzoo.spec("stage2_spatial").to_dict()
    assert resolved["head"] == {
        "name": "arcface@1",
        "params": {"sample_rate": 1.0, "scale": 64.0, "margin": 0.5, "easy_margin": False},
    }
    assert resolved["branches"]["global"]["alignment"]["name"] == "linear@1"
    assert load_spec(resolved).to_dict() == resolved
    assert load_spec(json.loads(json.dumps(resolved))) == load_spec(resolved)


@pytest.mark.parametrize("name", pvzoo.list_models())
def test_zoo_specs_are_valid_and_round_trip(name: str) -> None:
    spec = pvzoo.spec(name)
    assert spec.name == name
    assert load_spec(yaml.safe_load(yaml.safe_dump(spec.to_dict()))).to_dict() == spec.to_dict()


def test_a_saved_spec_names_the_plugin_that_is_missing() -> None:
    resolved = pvzoo.spec("stage2_spatial").to_dict()
    resolved["requires"] = {"acme": {"distribution": "pvzoo-acme", "version": "0.3"}}
    resolved["fusion"]["local"] = {"name": "acme/gated@2", "params": {"heads": 4}}
    with pytest.raises(SpecError) as caught:
        load_spec(resolved)
    assert str(caught.value) == (
        "spec: requires.acme: needs plugin 'acme' from pvzoo-acme, which is not installed "
        "(the spec was saved with pvzoo-acme 0.3); pip install pvzoo-acme"
    )


def test_a_missing_plugin_does_not_matter_once_it_is_replaced() -> None:
    resolved = pvzoo.spec("stage2_spatial").to_dict()
    resolved["requires"] = {"acme": {"distribution": "pvzoo-acme", "version": "0.3"}}
    resolved["fusion"]["local"] = {"name": "acme/gated@2", "params": {"heads": 4}}
    spec = load_spec(resolved, {"fusion.local": "sum"})
    assert spec.to_dict()["requires"] == {}


@pytest.mark.parametrize("name", ["keys", "training", "to"])
def test_names_that_torch_refuses_are_faults(check, name: str) -> None:
    assert f"'{name}' is a name of torch's own; choose another" in check(changed(modalities=[name, "vein"]))[0]


def test_all_names_that_torch_refuses_are_known() -> None:
    from torch import nn

    for container in (nn.ModuleDict(), nn.ParameterDict()):
        lower_case = {name for name in dir(container) if re.fullmatch(r"[a-z][a-z0-9_]*", name)}
        assert lower_case <= TORCH_NAMES


def test_a_newer_format_is_refused(check) -> None:
    assert "pvzoo: input should be 1, got 2" in check(changed(pvzoo=2))[0]


def test_specs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        pvzoo.spec("stage2_spatial").num_classes = 3


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=12,
    ),
    st.sampled_from(sorted(ModelSpec.model_fields)),
)
def test_whatever_stands_in_a_field_gives_a_spec_or_a_spec_error(value: Any, field: str) -> None:
    spec = yaml.safe_load(GOOD) | {field: value}
    try:
        assert isinstance(load_spec(spec), ModelSpec)
    except SpecError as error:
        assert error.problems


def test_the_json_schema_knows_the_zoo() -> None:
    schema = json_schema()
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for name in pvzoo.list_models():
        validator.validate(catalog.source(name).data)
        validator.validate(pvzoo.spec(name).to_dict())
    wrong = yaml.safe_load(GOOD) | {"head": "arcfase"}
    assert not validator.is_valid(wrong)
    wrong = yaml.safe_load(GOOD) | {"head": {"name": "arcface", "params": {"margn": 1}}}
    assert not validator.is_valid(wrong)
