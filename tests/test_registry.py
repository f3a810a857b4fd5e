"""Names, entries, and what ``register(...)`` refuses; every message is what a user reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from pvzoo import hookimpl
from pvzoo.errors import BuildError, PluginError, PvzooError, RegistrationError, UnknownNameError
from pvzoo.plugins import Host
from pvzoo.registry import ENTRY_TYPES, Backbone, Params, Registry, ZooModel, load_object, parse_name
from pvzoo.shapes import BackboneShape


def plugin(kind: str, *calls: tuple[str, dict[str, Any]]) -> object:
    """An object with one hook, ``register_{kind}s``, that makes these calls."""

    def hook(self: object, register: Callable[..., None]) -> None:
        for name, traits in calls:
            register(name, **traits)

    return type("Plugin", (), {f"register_{kind}s": hookimpl(hook)})()


FUSION: dict[str, Any] = {"build": "palmlab.fusion:Gated", "accepts": {"vector"}}


@pytest.fixture
def host() -> Host:
    """The built-ins, and two fusions of vendor ``palmlab``, one of them in two revisions."""
    host = Host(plugins=[])
    old, new = {**FUSION, "summary": "old"}, {**FUSION, "summary": "new", "revision": 3}
    host.add("palmlab", plugin("fusion", ("palmlab/gated", old), ("palmlab/gated", new), ("palmlab/mean", FUSION)))
    return host


# --- references -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "vendor", "full", "revision"),
    [
        ("concat", "pvzoo", "concat", None),
        ("pvzoo/concat", "pvzoo", "concat", None),
        ("concat@2", "pvzoo", "concat", 2),
        ("palmlab/gated", "palmlab", "palmlab/gated", None),
        ("palmlab/gated@12", "palmlab", "palmlab/gated", 12),
    ],
)
def test_a_reference_is_vendor_name_and_revision(reference: str, vendor: str, full: str, revision: int | None) -> None:
    name = parse_name(reference)
    assert (name.vendor, name.full, name.revision) == (vendor, full, revision)
    assert str(name) == reference.removeprefix("pvzoo/")


@pytest.mark.parametrize("text", ["", "/", "a/b/c", "/gated", "palmlab/", "gated@", "gated@new", "@2", "a@1@2", "a@-1"])
def test_text_that_cannot_be_a_name(text: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        parse_name(text)
    assert str(caught.value) == f"{text!r} is not a name; names look like 'concat', 'acme/gated' or 'acme/gated@2'"
    assert caught.value.kind == "name"


# --- looking up -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "reference", "message"),
    [
        # A misspelt name of every kind gets the nearest name of that kind.
        ("backbone", "convnext_tny", "no backbone named 'convnext_tny'; did you mean 'convnext_tiny'?"),
        ("alignment", "liner", "no alignment named 'liner'; did you mean 'linear'?"),
        ("fusion", "spatial_atention", "no fusion named 'spatial_atention'; did you mean 'spatial_attention'?"),
        ("head", "arcfase", "no head named 'arcfase'; did you mean 'arcface'?"),
        ("model", "stage2_spacial", "no model named 'stage2_spacial'; did you mean 'stage2_spatial'?"),
        ("fusion", "palmlab/gatd", "no fusion named 'palmlab/gatd'; did you mean 'palmlab/gated'?"),
        # Nothing is near.
        ("weight_source", "vault", "no weight source named 'vault'; 'pvzoo list --components weight_source' shows all"),
        ("dataset", "zzz", "no dataset named 'zzz'; 'pvzoo list --components dataset' shows all"),
        ("command", "hello", "no command named 'hello'; 'pvzoo list --components command' shows all"),
        ("head", "zzz", "no head named 'zzz'; 'pvzoo list --components head' shows all"),
        # The name is there, as another kind.
        ("fusion", "arcface", "'arcface' is a head, not a fusion"),
        ("head", "conv1x1", "'conv1x1' is an alignment, not a head"),
        ("alignment", "concat", "'concat' is a fusion, not an alignment"),
        ("model", "convnext_tiny", "'convnext_tiny' is a backbone, not a model"),
        ("weight_source", "palmlab/gated", "'palmlab/gated' is a fusion, not a weight source"),
        # The revision is not.
        ("head", "arcface@7", "head 'arcface' has no revision 7, only 1 (from pvzoo 0.1.0)"),
        ("fusion", "palmlab/gated@2", "fusion 'palmlab/gated' has no revision 2, only 1, 3 (from palmlab)"),
        ("fusion", "palmlab/mean@0", "fusion 'palmlab/mean' has no revision 0, only 1 (from palmlab)"),
    ],
)
def test_unknown_names(host: Host, kind: str, reference: str, message: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        host.find(kind, reference)
    assert str(caught.value) == message
    assert isinstance(caught.value, PvzooError)
    suggestion = message.partition("did you mean ")[2].strip("'?")
    assert caught.value.suggestions == ((suggestion,) if suggestion else ())


def test_an_unknown_vendor_names_the_nearest_vendor_and_this_python(host: Host) -> None:
    with pytest.raises(UnknownNameError) as caught:
        host.find("fusion", "palmlob/gated")
    message = str(caught.value)
    assert message.startswith(
        "fusion 'palmlob/gated': no installed plugin has vendor name 'palmlob' (did you mean 'palmlab/...'?); "
        "'pvzoo plugins' lists them, and this Python is /"
    )
    assert caught.value.suggestions == ("palmlab",)


@pytest.mark.parametrize(
    ("reference", "summary"),
    [("palmlab/gated", "new"), ("palmlab/gated@3", "new"), ("palmlab/gated@1", "old")],
)
def test_the_newest_revision_is_meant_unless_one_is_pinned(host: Host, reference: str, summary: str) -> None:
    assert host.find("fusion", reference).summary == summary


def test_a_built_in_may_be_written_with_its_vendor(host: Host) -> None:
    assert host.find("fusion", "pvzoo/concat") is host.find("fusion", "concat")


def test_lists_hold_the_newest_revision_only_sorted(host: Host) -> None:
    ours = [entry for entry in host.entries("fusion") if entry.name.startswith("palmlab/")]
    assert [(entry.name, entry.revision) for entry in ours] == [("palmlab/gated", 3), ("palmlab/mean", 1)]


# --- registering ------------------------------------------------------------------------------------------------------

BACKBONE: dict[str, Any] = {"build": "palmlab.net:Net", "shape": lambda params, channels, size: BackboneShape(8)}
NAMES = "names are lower-case letters, digits, '_' and '-', from a letter on"
PREFIX = "must start with 'palmlab/' and hold no other '/'"


@pytest.mark.parametrize(
    ("kind", "name", "traits", "message"),
    [
        ("fusion", "gated", FUSION, f"fusion name 'gated' {PREFIX}"),
        ("fusion", "other/gated", FUSION, f"fusion name 'other/gated' {PREFIX}"),
        ("fusion", "palmlab/a/b", FUSION, f"fusion name 'palmlab/a/b' {PREFIX}"),
        ("fusion", None, FUSION, f"fusion name None {PREFIX}"),
        ("fusion", "palmlab/Gated", FUSION, f"fusion 'palmlab/Gated': {NAMES}"),
        ("fusion", "palmlab/2gated", FUSION, f"fusion 'palmlab/2gated': {NAMES}"),
        ("fusion", "palmlab/gated@2", FUSION, f"fusion 'palmlab/gated@2': {NAMES}"),
        ("model", "palmlab/net.v1", {"spec": {}}, f"model 'palmlab/net.v1': {NAMES}"),
        ("fusion", "palmlab/", FUSION, f"fusion 'palmlab/': {NAMES}"),
        # Traits that are not there, or missing.
        (
            "fusion",
            "palmlab/x",
            {**FUSION, "acepts": {"map"}},
            "fusion 'palmlab/x': register() takes no 'acepts'; did you mean 'accepts'?",
        ),
        ("fusion", "palmlab/x", {**FUSION, "licence": "MIT"}, "fusion 'palmlab/x': register() takes no 'licence'"),
        (
            "backbone",
            "palmlab/x",
            {"build": "a:b"},
            "backbone 'palmlab/x': missing 1 required keyword-only argument: 'shape'",
        ),
        (
            "fusion",
            "palmlab/x",
            {},
            "fusion 'palmlab/x': missing 2 required keyword-only arguments: 'build' and 'accepts'",
        ),
        # Traits of the wrong kind.
        (
            "head",
            "palmlab/x",
            {"build": "palmlab.head.Head"},
            "head 'palmlab/x': build must be 'package.module:attribute', not 'palmlab.head.Head'",
        ),
        (
            "head",
            "palmlab/x",
            {"build": "a:b", "params": dict},
            "head 'palmlab/x': params must be a subclass of pvzoo.Params, not <class 'dict'>",
        ),
        (
            "fusion",
            "palmlab/x",
            {**FUSION, "accepts": {"tokens"}},
            "fusion 'palmlab/x': accepts must name 'vector', 'map' or both, not {'tokens'}",
        ),
        (
            "fusion",
            "palmlab/x",
            {**FUSION, "accepts": set()},
            "fusion 'palmlab/x': accepts must name 'vector', 'map' or both, not set()",
        ),
        (
            "fusion",
            "palmlab/x",
            {**FUSION, "missing": "skip"},
            "fusion 'palmlab/x': missing must be 'reweight', 'ignore' or 'refuse', not 'skip'",
        ),
        ("fusion", "palmlab/x", {**FUSION, "out_dim": 256}, "fusion 'palmlab/x': out_dim must be a function, not 256"),
        (
            "backbone",
            "palmlab/x",
            {**BACKBONE, "shape": "net"},
            "backbone 'palmlab/x': shape must be 'package.module:attribute', not 'net'",
        ),
        (
            "head",
            "palmlab/x",
            {"build": "a:b", "revision": 0},
            "head 'palmlab/x': revision must be a whole number from 1, not 0",
        ),
        (
            "head",
            "palmlab/x",
            {"build": "a:b", "revision": "2"},
            "head 'palmlab/x': revision must be a whole number from 1, not '2'",
        ),
        ("head", "palmlab/x", {"build": "a:b", "summary": None}, "head 'palmlab/x': summary must be text, not None"),
        (
            "model",
            "palmlab/x",
            {"spec": "model.yaml"},
            "model 'palmlab/x': spec must be a mapping or a path object, not 'model.yaml'",
        ),
        (
            "weight_source",
            "palmlab/x",
            {"build": "a:b", "provides": "stage2_spatial.v1"},
            "weight_source 'palmlab/x': provides must be a list of 'model.tag', not 'stage2_spatial.v1'",
        ),
        (
            "weight_source",
            "palmlab/x",
            {"build": "a:b", "provides": ["stage2_spatial"]},
            "weight_source 'palmlab/x': provides must hold names 'model.tag', not 'stage2_spatial'",
        ),
    ],
)
def test_register_refuses(kind: str, name: Any, traits: dict[str, Any], message: str) -> None:
    host = Host(plugins=[])
    with pytest.raises(PluginError) as caught:
        host.add("palmlab", plugin(kind, (name, traits)))
    assert str(caught.value) == f"plugin palmlab failed at register: RegistrationError: {message}"
    assert isinstance(caught.value.__cause__, RegistrationError)
    assert (caught.value.vendor, caught.value.state, caught.value.stage) == ("palmlab", "failed", "register")
    assert host.plugins == []


def test_one_name_and_revision_is_registered_once() -> None:
    with pytest.raises(PluginError, match="fusion 'palmlab/gated' revision 1 is registered twice"):
        Host(plugins=[]).add("palmlab", plugin("fusion", ("palmlab/gated", FUSION), ("palmlab/gated", FUSION)))


def test_entries_are_never_overwritten() -> None:
    registry: Registry[ZooModel] = Registry("model")
    registry.add(ZooModel(name="mine", spec={"first": True}))
    with pytest.raises(RegistrationError, match="model 'mine' revision 1 is registered twice"):
        registry.add(ZooModel(name="mine", spec={"first": False}))
    assert registry.get(parse_name("mine")).spec == {"first": True}


def test_every_kind_can_be_registered_by_a_plugin() -> None:
    class Everything:
        pass

    minimal: dict[str, dict[str, Any]] = {
        "backbone": BACKBONE,
        "alignment": {"build": "a:b", "accepts": {"vector"}},
        "fusion": FUSION,
        "model": {"spec": {}},
    }
    for kind in ENTRY_TYPES:
        hook = getattr(type(plugin(kind, ("palmlab/x", minimal.get(kind, {"build": "a:b"})))), f"register_{kind}s")
        setattr(Everything, f"register_{kind}s", hook)
    host = Host(plugins=[])
    added = host.add("palmlab", Everything(), distribution="pvzoo-palmlab", version="2.0")
    assert [entry.kind for entry in added.entries] == list(ENTRY_TYPES)
    for kind in ENTRY_TYPES:
        entry = host.find(kind, "palmlab/x")
        assert str(entry) == f"{kind} 'palmlab/x'"
        assert (entry.origin.vendor, entry.origin.distribution, entry.origin.version) == (
            "palmlab",
            "pvzoo-palmlab",
            "2.0",
        )


# --- parameters and builders ------------------------------------------------------------------------------------------


class GatedParams(Params):
    heads: int = 4
    temperature: float = 1.0


def test_parameters_are_frozen_known_and_finite() -> None:
    params = GatedParams(heads=8)
    with pytest.raises(ValidationError, match="frozen"):
        params.heads = 2
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        GatedParams(head=8)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="finite number"):
        GatedParams(temperature=float("nan"))


def test_a_builder_is_text_that_is_imported_on_demand_or_a_callable() -> None:
    assert load_object("collections:OrderedDict").__name__ == "OrderedDict"
    assert load_object(len) is len
    entry = Backbone(name="late", build="not_installed.net:Net", shape="not_installed.net:shape")
    message = "^backbone 'late' failed while it was built: ModuleNotFoundError: No module named 'not_installed'$"
    with pytest.raises(BuildError, match=message):
        entry.builder()


@pytest.mark.parametrize("kind", ["backbone", "alignment", "fusion", "head"])
def test_built_ins_have_a_summary_and_come_from_pvzoo(kind: str) -> None:
    entries = Host(plugins=[]).entries(kind)
    assert entries
    for entry in entries:
        assert entry.summary, entry
        assert "/" not in entry.name
        assert entry.origin.distribution == "pvzoo"
