"""Installed plugins, good and broken. Each is a real distribution: a module, and metadata beside it."""

from __future__ import annotations

import sys
import threading
import warnings
from typing import Any

import pytest

import pvzoo
from pvzoo import hookimpl
from pvzoo.errors import BuildError, PluginError, SpecError, UnknownNameError
from pvzoo.plugins import RESERVED_VENDORS, Host, Plugin, discover, host, using
from pvzoo.specs import json_schema

GOOD = """
@hookimpl
def register_fusions(register):
    register("palmlab/gated", build="pvzoo_palmlab_torch:Gated", accepts={"vector", "map"}, summary="Gated sum")
"""
BOUND = "its metadata does not bound pvzoo; write for example 'pvzoo>=0.1,<1'"


def only(plugins: list[Plugin]) -> Plugin:
    (plugin,) = plugins
    return plugin


def refuse(host: Host, reference: str = "palmlab/gated", kind: str = "fusion") -> PluginError:
    """The error of a host that is asked for a name of a plugin that cannot be used."""
    with pytest.raises(PluginError) as caught:
        host.find(kind, reference)
    return caught.value


# --- finding without importing ----------------------------------------------------------------------------------------


def test_a_plugin_is_found_without_import_and_loaded_when_it_is_named(site: Any) -> None:
    module = site.install(GOOD, version="0.3")
    host = site.host()
    plugin = only(host.plugins)
    assert (plugin.state, plugin.label, plugin.module) == ("found", "palmlab (pvzoo-palmlab 0.3)", module)
    assert (plugin.location, plugin.entries, plugin.remarks) == (str(site.path), [], [])
    assert module not in sys.modules

    entry = host.find("fusion", "palmlab/gated")
    assert (entry.name, str(entry.origin)) == ("palmlab/gated", "pvzoo-palmlab 0.3")
    assert (plugin.state, plugin.entries) == ("loaded", [entry])
    assert plugin.seconds > 0
    assert "pvzoo_palmlab_torch" not in sys.modules, "the builder's module is imported when a model is built"


def test_only_the_vendor_that_is_named_is_imported(site: Any) -> None:
    for vendor in ("alpha", "beta", "gamma"):
        site.install(GOOD.replace("palmlab", vendor), vendor=vendor)
    host = site.host()
    host.find("fusion", "concat")
    assert {plugin.state for plugin in host.plugins} == {"found"}, "a built-in imports no plugin"
    host.find("fusion", "beta/gated")
    assert {plugin.vendor: plugin.state for plugin in host.plugins} == {
        "alpha": "found",
        "beta": "loaded",
        "gamma": "found",
    }
    assert "pvzoo_beta" in sys.modules
    assert {"pvzoo_alpha", "pvzoo_gamma"}.isdisjoint(sys.modules)


def test_an_entry_point_may_name_an_object(site: Any) -> None:
    site.install(
        """
        class Hooks:
            @hookimpl
            def register_heads(self, register):
                register("palmlab/soft", build="a:b")
        hooks = Hooks()
        """,
        entry_points="palmlab = pvzoo_palmlab:hooks",
    )
    assert site.host().find("head", "palmlab/soft").name == "palmlab/soft"


def test_plugins_are_sorted_by_vendor(site: Any) -> None:
    for vendor in ("mid", "zeta", "alpha"):
        site.install(vendor=vendor)
    assert [plugin.vendor for plugin in site.discover()] == ["alpha", "mid", "zeta"]


@pytest.mark.parametrize(
    ("requires", "remarks"),
    [
        (["pvzoo>=0.1,<1"], []),
        (["torch", "pvzoo~=0.1"], []),
        (["PVZOO>=0.1"], []),
        (["pvzoo"], [BOUND]),
        ([], [BOUND]),
        (["pvzoo>=99; extra == 'new'"], [BOUND]),
        (["pvzoo>=99; python_version < '3'", "pvzoo>=0.1"], []),
        (
            ["pvzoo is fine", "pvzoo>=0.1"],
            ["its metadata holds a requirement that cannot be read, 'pvzoo is fine'"],
        ),
    ],
)
def test_requirements_are_read_from_metadata(site: Any, requires: list[str], remarks: list[str]) -> None:
    site.install(GOOD, requires=requires)
    plugin = only(site.discover())
    assert (plugin.state, plugin.remarks) == ("found", remarks)


# --- refused before import --------------------------------------------------------------------------------------------


def test_a_plugin_for_another_pvzoo_is_incompatible(site: Any) -> None:
    module = site.install(GOOD, requires=["pvzoo>=99"])
    error = refuse(site.host())
    assert str(error) == (
        "fusion 'palmlab/gated': plugin palmlab (pvzoo-palmlab 1.0) is incompatible: "
        f"it requires pvzoo>=99, and pvzoo is {pvzoo.__version__}"
    )
    assert (error.vendor, error.state, error.stage) == ("palmlab", "incompatible", None)
    assert module not in sys.modules


@pytest.mark.parametrize("vendor", [*sorted(RESERVED_VENDORS), "x", "Palmlab", "palm_lab", "2palms", "p" * 33])
def test_vendor_names_that_cannot_be(site: Any, vendor: str) -> None:
    site.install(GOOD, vendor=vendor, distribution="their-palms")
    plugin = only(site.discover())
    reason = "is reserved" if vendor in RESERVED_VENDORS else "is not 2 to 32 of a-z, 0-9 and '-', a letter first"
    assert plugin.problem() == (
        f"plugin {vendor} (their-palms 1.0) failed at metadata: its entry-point name {vendor!r} {reason}"
    )
    with pytest.raises(PluginError):
        Host(plugins=[]).add(vendor, object())


@pytest.mark.parametrize("second", ["palmlab", "otherlab"])
def test_a_distribution_declares_one_entry_point(site: Any, second: str) -> None:
    site.install(GOOD, entry_points=f"palmlab = pvzoo_palmlab\n{second} = pvzoo_palmlab")
    for plugin in site.discover():
        assert (plugin.state, plugin.stage) == ("failed", "metadata")
        assert plugin.reason == "pvzoo-palmlab declares several entry points in group 'pvzoo'; declare one"


@pytest.fixture
def rivals(site: Any) -> Any:
    """Two distributions that claim vendor ``palmlab``."""
    site.install(GOOD, distribution="Palm.Lab", version="1.2")
    site.install(GOOD, distribution="zz-palmlab", version="3.4")
    return site


def test_two_distributions_with_one_vendor_are_both_refused_by_name(rivals: Any) -> None:
    host = rivals.host()
    reason = (
        "vendor name 'palmlab' is claimed by Palm.Lab 1.2 and zz-palmlab 3.4; "
        "uninstall one, or set PVZOO_DISABLE_PLUGINS=zz-palmlab"
    )
    assert [(plugin.state, plugin.reason) for plugin in host.plugins] == [("conflict", reason)] * 2
    assert str(refuse(host)) == f"fusion 'palmlab/gated': plugin palmlab (Palm.Lab 1.2) is in conflict: {reason}"
    assert {"palm_lab", "zz_palmlab"}.isdisjoint(sys.modules)


@pytest.mark.parametrize(("disable", "left"), [("zz-palmlab", "Palm.Lab"), ("palm-lab", "zz-palmlab")])
def test_disabling_one_rival_by_distribution_cures_the_conflict(rivals: Any, disable: str, left: str) -> None:
    host = rivals.host(disable)
    assert {plugin.distribution: plugin.state for plugin in host.plugins if plugin.state != "disabled"} == {
        left: "found"
    }


def test_a_cured_conflict_does_not_hide_what_else_is_wrong(site: Any) -> None:
    site.install(GOOD, distribution="aa-palmlab", requires=["pvzoo>=99"])
    site.install(GOOD, distribution="zz-palmlab")
    assert {plugin.state for plugin in site.discover()} == {"conflict"}
    assert [plugin.state for plugin in site.discover("zz-palmlab")] == ["incompatible", "disabled"]


@pytest.mark.parametrize("version", ["0.9", "1.0"])
def test_the_first_copy_of_a_distribution_counts(site: Any, monkeypatch: Any, version: str) -> None:
    site.install(GOOD)
    stale = type(site)(site.path.parent / "stale")
    stale.metadata("Pvzoo_Palmlab", version, ["pvzoo>=0.1"], "palmlab = pvzoo_palmlab")
    monkeypatch.setattr(sys, "path", [*sys.path, str(stale.path)])
    plugin = only(site.discover())
    assert (plugin.version, plugin.state) == ("1.0", "found")
    # An editable installation has its metadata twice, and both say the same; that is no fault.
    different = [f"shadows another copy of its metadata in {stale.path}"]
    assert plugin.remarks == (different if version == "0.9" else [])


def test_a_stale_copy_that_hides_the_entry_point_is_named(site: Any, monkeypatch: Any) -> None:
    site.install(GOOD)
    stale = type(site)(site.path.parent / "stale")
    stale.metadata("pvzoo-palmlab", "0.1", [], entry_points="")
    monkeypatch.syspath_prepend(str(stale.path))
    assert (
        refuse(site.host())
        .args[0]
        .endswith(f"another copy of its metadata, in {stale.path}, hides its entry point; remove that copy")
    )


def test_metadata_that_cannot_be_read_is_passed_over(site: Any) -> None:
    for name, files in {
        "empty": {},
        "nameless": {"METADATA": b"", "entry_points.txt": b"[pvzoo]\nx = y\n"},
        "binary": {"METADATA": b"Name: binary\nVersion: 1\n", "entry_points.txt": b"[pvzoo]\n\xff = \xff\n"},
        "garbage": {"METADATA": b"Name: garbage\nVersion: 1\n", "entry_points.txt": b"[[[\n=\n[pvzoo\nxx"},
    }.items():
        info = site.path / f"{name}-1.dist-info"
        info.mkdir()
        for file, content in files.items():
            (info / file).write_bytes(content)
    site.install(GOOD)
    assert [plugin.vendor for plugin in site.discover()] == ["palmlab"]


# --- PVZOO_DISABLE_PLUGINS --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("disable", "disabled"),
    [
        ("", []),
        (" , ,", []),
        ("palmlab", ["palmlab"]),
        ("pvzoo-palmlab", ["palmlab"]),
        ("PVZOO_Palmlab", ["palmlab"]),
        ("pvzoo.palmlab , otherlab", ["otherlab", "palmlab"]),
        ("all", ["otherlab", "palmlab"]),
    ],
)
def test_disabled_plugins_are_never_imported(site: Any, monkeypatch: Any, disable: str, disabled: list[str]) -> None:
    for vendor in ("palmlab", "otherlab"):
        site.install(GOOD.replace("palmlab", vendor), vendor=vendor)
    monkeypatch.setenv("PVZOO_DISABLE_PLUGINS", disable)
    fresh = Host()  # reads the variable
    fresh.load_all()
    assert sorted(p.vendor for p in fresh.plugins if p.state == "disabled" and p.location == str(site.path)) == disabled
    for vendor in ("palmlab", "otherlab"):
        assert (f"pvzoo_{vendor}" in sys.modules) is (vendor not in disabled)


def test_a_disabled_plugin_that_is_named_is_an_error(site: Any) -> None:
    site.install(GOOD)
    error = refuse(site.host("palmlab"))
    assert str(error) == (
        "fusion 'palmlab/gated': plugin palmlab (pvzoo-palmlab 1.0) is disabled: PVZOO_DISABLE_PLUGINS names it"
    )
    assert error.state == "disabled"


@pytest.mark.parametrize(
    ("word", "hint"), [("palmlap", "; did you mean 'palmlab'?"), ("pvzoo-palmlib", "; did you mean 'pvzoo-palmlab'?")]
)
def test_a_word_that_names_no_plugin_is_a_warning(site: Any, word: str, hint: str) -> None:
    site.install(GOOD)
    with pytest.warns(UserWarning) as caught:
        discover(word)
    assert str(caught[0].message) == f"PVZOO_DISABLE_PLUGINS names {word!r}, which is no installed plugin{hint}"


def test_all_is_no_warning_even_without_plugins() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        discover("all")


# --- failing --------------------------------------------------------------------------------------------------------

HOOK = "@hookimpl\ndef register_fusions(register):\n    "
BROKEN = {
    "raises at import": ("1 / 0", "import", "ZeroDivisionError: division by zero"),
    "exits at import": ("import sys\nsys.exit(3)", "import", "SystemExit: 3"),
    "panics at import": ("class Panic(BaseException): pass\nraise Panic('lost')", "import", "Panic: lost"),
    "syntax error": ("def broken(:", "import", "SyntaxError: invalid syntax (pvzoo_palmlab.py, line 4)"),
    "missing module": ("import not_there", "import", "ModuleNotFoundError: No module named 'not_there'"),
    "misspelt hook": (
        "@hookimpl\ndef register_fusion(register): pass",
        "hooks",
        "RegistrationError: unknown hook 'register_fusion'; did you mean 'register_fusions'?",
    ),
    "unmarked hook": (
        "def register_fusions(register): pass",
        "hooks",
        "RegistrationError: 'register_fusions' is not marked with @pvzoo.hookimpl, so it would never run",
    ),
    "wrong argument": (
        "@hookimpl\ndef register_fusions(registry): pass",
        "hooks",
        "PluginValidationError: Plugin 'palmlab' for hook 'register_fusions'",
    ),
    "raises in a hook": (HOOK + "raise KeyError('gate')", "register", "KeyError: 'gate'"),
    "exits in a hook": (HOOK + "raise SystemExit", "register", "SystemExit: "),
    "outside its prefix": (
        HOOK + "register('otherlab/gated', build='a:b', accepts={'map'})",
        "register",
        "RegistrationError: fusion name 'otherlab/gated' must start with 'palmlab/' and hold no other '/'",
    ),
    "bare name": (
        HOOK + "register('concat', build='a:b', accepts={'map'})",
        "register",
        "RegistrationError: fusion name 'concat' must start with 'palmlab/' and hold no other '/'",
    ),
    "same name twice": (
        HOOK + "[register('palmlab/gated', build='a:b', accepts={'map'}) for _ in range(2)]",
        "register",
        "RegistrationError: fusion 'palmlab/gated' revision 1 is registered twice",
    ),
    "params no Params": (
        HOOK + "register('palmlab/gated', build='a:b', accepts={'map'}, params=int)",
        "register",
        "RegistrationError: fusion 'palmlab/gated': params must be a subclass of pvzoo.Params, not <class 'int'>",
    ),
    "build no reference": (
        HOOK + "register('palmlab/gated', build='gated', accepts={'map'})",
        "register",
        "RegistrationError: fusion 'palmlab/gated': build must be 'package.module:attribute', not 'gated'",
    ),
    "unknown trait": (
        HOOK + "register('palmlab/gated', build='a:b', accept={'map'})",
        "register",
        "RegistrationError: fusion 'palmlab/gated': register() takes no 'accept'; did you mean 'accepts'?",
    ),
    "missing trait": (
        "@hookimpl\ndef register_backbones(register): register('palmlab/net', build='a:b')",
        "register",
        "RegistrationError: backbone 'palmlab/net': missing 1 required keyword-only argument: 'shape'",
    ),
}


@pytest.mark.parametrize(("source", "stage", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_plugin_is_a_state_and_an_error_only_if_named(site: Any, source: str, stage: str, reason: str) -> None:
    site.install(source)
    site.install(GOOD.replace("palmlab", "otherlab"), vendor="otherlab")
    host = site.host()

    # Who did not ask for it is not disturbed: neither built-ins nor other plugins.
    assert "otherlab/gated" in [entry.name for entry in host.entries("fusion")]
    assert host.find("fusion", "concat").name == "concat"
    plugin = next(plugin for plugin in host.plugins if plugin.vendor == "palmlab")
    assert (plugin.state, plugin.stage, plugin.entries) == ("failed", stage, [])
    assert plugin.reason.startswith(reason)
    assert "Traceback" in plugin.traceback() or "SyntaxError" in plugin.traceback()

    # Who asked is told which distribution, which stage, and why.
    error = refuse(host)
    assert str(error).startswith(
        f"fusion 'palmlab/gated': plugin palmlab (pvzoo-palmlab 1.0) failed at {stage}: {reason}"
    )
    assert (error.vendor, error.state, error.stage) == ("palmlab", "failed", stage)
    assert error.__cause__ is plugin.error


def test_registration_is_all_or_nothing(site: Any) -> None:
    site.install(
        GOOD
        + """
@hookimpl
def register_heads(register):
    register("palmlab/soft", build="a:b")
    raise RuntimeError("half way")
"""
    )
    host = site.host()
    assert [entry.name for entry in host.entries("fusion") if "/" in entry.name] == []
    assert [entry.name for entry in host.entries("head") if "/" in entry.name] == []
    assert str(refuse(host)).endswith("failed at register: RuntimeError: half way")


def test_a_failed_plugin_is_not_tried_again(site: Any) -> None:
    site.install("import sys\nsys.palmlab_imports = getattr(sys, 'palmlab_imports', 0) + 1\nraise OSError('no disk')")
    host = site.host()
    for _ in range(3):
        refuse(host)
        host.load_all()
    assert sys.palmlab_imports == 1  # type: ignore[attr-defined]
    del sys.palmlab_imports  # type: ignore[attr-defined]


def test_a_hook_module_may_ask_for_lists_while_it_is_imported(site: Any) -> None:
    site.install(GOOD + "\nassert 'palmlab/gated' not in pvzoo.list_components('fusion')\n")
    with using(site.host()) as host:
        assert "palmlab/gated" in pvzoo.list_components("fusion")
    assert only(host.plugins).state == "loaded"


def test_threads_share_one_import(site: Any) -> None:
    site.install("import time\ntime.sleep(0.05)\n" + GOOD)
    host = site.host()
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(host.find("fusion", "palmlab/gated").name)) for _ in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["palmlab/gated"] * 4


def test_what_a_plugin_prints_goes_to_stderr(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    site.install("print('hello from palmlab')\n" + GOOD)
    site.host().load_all()
    assert capsys.readouterr() == ("", "hello from palmlab\n")


@pytest.mark.parametrize("kind", ["import", "register"])
def test_strict_raises_the_first_failure_with_its_cause(site: Any, kind: str) -> None:
    site.install("1 / 0" if kind == "import" else HOOK + "1 / 0")
    with pytest.raises(PluginError, match=f"failed at {kind}: ZeroDivisionError") as caught:
        site.host(strict=True).load_all()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


SPEC = {
    "branches": {"global": {"backbone": {"name": "efficientvit_m0"}, "alignment": "identity"}},
    "fusion": {"global": "palmlab/gated"},
    "preprocessing": {"size": 64},
}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('raise RuntimeError(f"no gates for {shape}")', "failed while it was built: RuntimeError: no gates for 192"),
        ("raise SystemExit(4)", "failed while it was built: SystemExit: 4"),
        ("return 5", "was built as an int; a torch.nn.Module is needed"),
    ],
)
def test_a_builder_that_builds_nothing_is_named_with_its_distribution(site: Any, body: str, fault: str) -> None:
    site.install(GOOD, version="0.3", pvzoo_palmlab_torch=f"def Gated(params, *, modalities, shape): {body}")
    with using(site.host()), pytest.raises(BuildError) as caught:
        pvzoo.create(SPEC)
    assert str(caught.value) == f"fusion 'palmlab/gated' of pvzoo-palmlab 0.3 {fault}"


@pytest.mark.parametrize(
    ("trait", "fault"),
    [
        ("out_dim=lambda params, dims: 1 / 0", "could not tell its shape: ZeroDivisionError: division by zero"),
        ("out_dim=lambda params, dims: exit(4)", "could not tell its shape: SystemExit: 4"),
        ("parameters=lambda params, count, dim: 1.5", "could not tell its shape: TypeError: 1.5 is no int"),
        ("out_dim=lambda params, dims: -4", "the sizes of a shape are whole numbers from 1, and these are -4"),
        ("out_dim=lambda params, dims: '8'", "the sizes of a shape are whole numbers from 1, and these are 8"),
    ],
)
def test_a_component_that_tells_no_shape_is_named(site: Any, trait: str, fault: str) -> None:
    site.install(GOOD.replace("summary", f"{trait}, summary"), version="0.3")
    with using(site.host()), pytest.raises(SpecError, match=r"^spec: fusion\.global: ") as caught:
        pvzoo.create(SPEC)
    assert str(caught.value).endswith(fault)
    assert "palmlab/gated" in str(caught.value)


# --- hosts ------------------------------------------------------------------------------------------------------------


class Mean:
    @hookimpl
    def register_fusions(self, register: Any) -> None:
        register("palmlab/mean", build=lambda params, **context: None, accepts={"vector"})


def test_a_host_without_plugins_knows_the_built_ins_alone(site: Any) -> None:
    site.install(GOOD)
    locked = Host(plugins=[])
    assert locked.load_all() == []
    assert locked.find("head", "arcface").name == "arcface"
    with pytest.raises(UnknownNameError, match="no installed plugin has vendor name 'palmlab'"):
        locked.find("fusion", "palmlab/gated")


def test_a_plugin_may_be_added_in_code() -> None:
    host = Host(plugins=[])
    added = host.add("palmlab", Mean())
    assert (added.state, added.label, host.plugins) == ("loaded", "palmlab", [added])
    assert host.find("fusion", "palmlab/mean") is added.entries[0]
    with pytest.raises(PluginError, match="vendor name 'palmlab' is taken"):
        host.add("palmlab", Mean())
    with pytest.raises(PluginError, match="'hf' cannot be a vendor name"):
        host.add("hf", Mean())


def test_a_host_in_use_ends_with_its_block() -> None:
    outer = host()
    mine = Host(plugins=[])
    mine.add("palmlab", Mean())
    with using(mine) as inner:
        assert host() is inner is mine
        assert "palmlab/mean" in pvzoo.list_components("fusion")
        assert "plugins: palmlab" in json_schema()["$comment"]
        with using(Host(plugins=[])):
            assert "palmlab/mean" not in pvzoo.list_components("fusion")
        assert host() is mine
    assert host() is outer
