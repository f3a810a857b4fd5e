"""What there is, by name: the zoo, the components, and what plugins add to both."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from small import OWN

import pvzoo
from pvzoo import catalog
from pvzoo.errors import PvzooError, SpecError, UnknownNameError
from pvzoo.plugins import Host, using

STAGE1 = ["stage1_convnext_palm", "stage1_convnext_vein", "stage1_efficientvit_palm", "stage1_efficientvit_vein"]
STAGE2 = ["stage2_channel", "stage2_concat", "stage2_global", "stage2_local", "stage2_shared", "stage2_spatial"]
NANO = ["stage1_convnext_palm_nano", "stage1_convnext_vein_nano", *(f"{name}_nano" for name in STAGE2)]

PLUGIN = """
from pathlib import Path

SPEC = {"branches": {"local": {"backbone": "convnext_atto"}}, "summary": "One palm", "modalities": ["palm"]}

@hookimpl
def register_models(register):
    for name in ("m1", "m10", "m2"):
        register(f"palmlab/{name}", spec=SPEC)
    register("palmlab/file", spec=Path(__file__).parent / "palmlab_model.yaml", summary="From a file")

@hookimpl
def register_weight_sources(register):
    register("palmlab/vault", build="a:b", provides=["palmlab/m2.v1", "stage2_spatial.palmlab", "gone.v1"])
"""


@pytest.fixture(autouse=True)
def only_built_ins() -> Any:
    with using(Host(plugins=[])) as host:
        yield host


@pytest.fixture
def palmlab(site: Any) -> Any:
    """A plugin with models and a weight source."""
    site.install(PLUGIN)
    spec = "branches: {local: {backbone: convnext_atto}}\nfusion: {local: {name: concat, params: {dims: 3}}}\n"
    (site.path / "palmlab_model.yaml").write_text(spec)
    with using(site.host()) as host:
        yield host


# --- models -----------------------------------------------------------------------------------------------------------


def test_the_zoo() -> None:
    assert pvzoo.list_models() == sorted([*STAGE1, *STAGE2, *NANO])


@pytest.mark.parametrize("name", [*STAGE1, *STAGE2, *NANO])
def test_every_model_has_a_checked_spec_and_a_summary(name: str) -> None:
    spec = pvzoo.spec(name)
    assert spec.name == name
    assert spec.summary == catalog.summary(name) != ""
    assert spec.kind == ("unimodal" if name.startswith("stage1") else "multimodal")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"pattern": "stage2_*", "exclude": "*_nano"}, STAGE2),
        ({"pattern": "stage2_spatial"}, ["stage2_spatial"]),
        ({"pattern": ["*_palm", "*_vein"]}, STAGE1),
        ({"pattern": ("stage2_c*", "stage2_s*"), "exclude": ["*_nano", "*_shared"]}, [STAGE2[0], STAGE2[1], STAGE2[5]]),
        ({"pattern": "stage?_efficientvit_[pv]*"}, STAGE1[2:]),
        ({"kind": "unimodal", "exclude": "*_nano"}, STAGE1),
        ({"kind": "multimodal", "exclude": "*_nano"}, STAGE2),
        ({"pattern": "STAGE2_*"}, []),
        ({"pattern": "nothing*"}, []),
        ({"pattern": []}, sorted([*STAGE1, *STAGE2, *NANO])),
        ({"pretrained": True}, OWN),
    ],
)
def test_models_are_chosen_by_wildcards_and_kind(arguments: dict[str, Any], names: list[str]) -> None:
    assert pvzoo.list_models(**arguments) == names


def test_an_unknown_kind_of_model() -> None:
    with pytest.raises(PvzooError, match="kind must be 'unimodal' or 'multimodal', not 'bimodal'"):
        pvzoo.list_models(kind="bimodal")  # type: ignore[arg-type]


def test_names_are_in_natural_order() -> None:
    ordered = ["m", "m1", "m2", "m2_nano", "m2a", "m10", "m10b2", "m10b11", "n1"]
    shuffled = random.Random(0).sample(ordered, len(ordered))
    assert sorted(shuffled, key=catalog.natural) == ordered


@pytest.mark.parametrize(
    ("name", "model", "tag"),
    [("stage2_spatial", "stage2_spatial", None), ("stage2_spatial.v1", "stage2_spatial", "v1"), ("a/m.t", "a/m", "t")],
)
def test_a_tag_follows_a_dot(name: str, model: str, tag: str | None) -> None:
    assert catalog.split_tag(name) == (model, tag)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stage2_spatail", "no model named 'stage2_spatail'; did you mean 'stage2_spatial'?"),
        ("stage2_spatail.v1", "no model named 'stage2_spatail'; did you mean 'stage2_spatial'?"),
        ("stage2_shared.v9", "stage2_shared has no weights tagged 'v9'; it has none yet"),
        ("arcface", "'arcface' is a head, not a model"),
        ("stage2_spatial@4", "model 'stage2_spatial' has no revision 4, only 1 (from pvzoo 0.1.0)"),
        ("a/b/c", "'a/b/c' is not a name; names look like 'concat', 'acme/gated' or 'acme/gated@2'"),
        ("xyz", "no model named 'xyz'; 'pvzoo list' shows all"),
    ],
)
def test_unknown_models(name: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        pvzoo.spec(name)
    assert str(caught.value) == message


def test_a_spec_takes_overrides() -> None:
    assert pvzoo.spec("stage2_spatial", **{"fusion.local": "concat"}).fusion["local"].name == "concat"


# --- components -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["head", "heads"])
def test_components_of_one_kind(kind: str) -> None:
    heads = pvzoo.list_components(kind)
    assert heads == sorted(heads)
    assert {"arcface", "cosface", "linear", "none"} <= set(heads)


@pytest.mark.parametrize(
    ("kind", "some"),
    [
        ("backbone", ["convnext_tiny", "efficientvit_m0"]),
        ("alignment", ["conv1x1", "linear"]),
        ("fusion", ["channel_attention", "concat", "spatial_attention"]),
        ("model", STAGE2),
        ("command", []),
    ],
)
def test_components_that_ship_with_pvzoo(kind: str, some: list[str]) -> None:
    assert set(some) <= set(pvzoo.list_components(kind))


@pytest.mark.parametrize(
    ("kind", "hint"), [("fuson", "; did you mean 'fusion'?"), ("heds", "; did you mean 'head'?"), ("xyz", "")]
)
def test_an_unknown_kind_of_component(kind: str, hint: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        pvzoo.list_components(kind)
    kinds = "backbone, alignment, fusion, head, weight_source, dataset, model, command"
    assert str(caught.value) == f"there is no kind {kind!r}{hint}; kinds are {kinds}"


# --- what plugins add -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("palmlab")
def test_models_of_plugins_are_listed_and_found() -> None:
    assert pvzoo.list_models("palmlab/*") == ["palmlab/file", "palmlab/m1", "palmlab/m2", "palmlab/m10"]
    assert pvzoo.list_models("palmlab/*", kind="unimodal") == ["palmlab/m1", "palmlab/m2", "palmlab/m10"]
    assert pvzoo.spec("palmlab/m2").name == "palmlab/m2"
    assert catalog.summary("palmlab/m2") == "One palm"
    assert catalog.summary("palmlab/file") == "From a file"


def test_faults_in_a_plugin_s_spec_file_have_their_line(palmlab: Host) -> None:
    with pytest.raises(SpecError) as caught:
        pvzoo.spec("palmlab/file")
    faults = {problem.path: problem for problem in caught.value.problems}
    fault = faults["fusion.local.params.dims"]
    assert Path(fault.source).name == "palmlab_model.yaml"
    assert (fault.line, fault.message) == (2, "unknown field; did you mean 'dim'?")
    assert palmlab.plugins[0].state == "loaded"


@pytest.mark.usefixtures("palmlab")
def test_pretrained_names_are_those_that_weight_sources_provide_for_known_models() -> None:
    assert pvzoo.list_models(pretrained=True) == sorted(["palmlab/m2.v1", "stage2_spatial.palmlab", *OWN])
    assert pvzoo.list_models("*.palmlab", pretrained=True) == ["stage2_spatial.palmlab"]
    assert pvzoo.list_models("*.v1", pretrained=True) == ["palmlab/m2.v1", *OWN]
    assert pvzoo.list_models(pretrained=True, exclude="palmlab/m2") == sorted(["stage2_spatial.palmlab", *OWN])
    assert pvzoo.list_models("palmlab/*", pretrained=True, kind="unimodal") == ["palmlab/m2.v1"]


def test_an_unreadable_spec_of_a_plugin_disturbs_no_list(site: Any) -> None:
    site.install(
        """
        from pathlib import Path
        @hookimpl
        def register_models(register):
            register("palmlab/gone", spec=Path("/gone/model.yaml"))
            register("palmlab/odd", spec={"modalities": None})
        """
    )
    with using(site.host()):
        assert pvzoo.list_models("palmlab/*") == ["palmlab/gone", "palmlab/odd"]
        assert "palmlab/gone" not in pvzoo.list_models(kind="unimodal") + pvzoo.list_models(kind="multimodal")
        assert catalog.summary("palmlab/gone") == "/gone/model.yaml: no such file"
        with pytest.raises(SpecError, match=r"/gone/model.yaml: no such file"):
            pvzoo.spec("palmlab/gone")
