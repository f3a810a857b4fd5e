"""The program's commands about names, specs and plugins, run as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import INSTALLED

import pvzoo

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SPEC = "branches: {local: {backbone: convnext_atto}}\nfusion: {local: concat}\n"


# --- good input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["plugins", "--help"]])
def test_version_and_help(run_pvzoo: Run, arguments: list[str]) -> None:
    done = run_pvzoo(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    if "--version" in arguments:
        assert done.stdout == f"pvzoo {pvzoo.__version__}\n"
    elif arguments == ["--help"]:
        for command in ("compare", "embed", "eval", "list", "show", "validate", "resolve", "schema", "plugins"):
            assert f" {command} " in done.stdout
    else:
        for option in ("--json", "--no-import", "--check", "--probe", "show"):
            assert option in done.stdout


def test_the_console_script_is_the_module(run_pvzoo: Run) -> None:
    script = Path(sys.executable).with_name("pvzoo")
    if not script.exists():
        pytest.skip("the console script is not installed beside this Python")
    done = subprocess.run([script, "list", "*_shared"], capture_output=True, text=True, check=True)
    assert done.stdout == run_pvzoo("list", "*_shared").stdout


def test_list_into_a_pipe_is_lines_with_tabs(run_pvzoo: Run) -> None:
    done = run_pvzoo("list", "stage2_*", "--exclude", "*_nano")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [name for name, _ in rows] == pvzoo.list_models("stage2_*", exclude="*_nano")
    assert rows[-1][1] == "EfficientViT-M0 and ConvNeXt-Tiny on palmprint and vein, fused by spatial attention"


def test_list_as_json(run_pvzoo: Run) -> None:
    rows = json.loads(run_pvzoo("list", "--components", "heads", "--exclude", "*arcface", "--json").stdout)
    assert [row["name"] for row in rows] == ["adaface", "cosface", "linear", "none"]
    assert all(set(row) == {"name", "summary"} and row["summary"] for row in rows)


def test_list_without_a_match_says_so(run_pvzoo: Run) -> None:
    done = run_pvzoo("list", "nothing*")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing matches\n")


def test_show_a_model(run_pvzoo: Run) -> None:
    lines = run_pvzoo("show", "stage2_spatial", COLUMNS="40").stdout.splitlines()
    assert "stage2_spatial.v1 (weights)" in lines[16:]
    assert lines[:16] == [
        "stage2_spatial",
        "EfficientViT-M0 and ConvNeXt-Tiny on palmprint and vein, fused by spatial attention",
        "",
        "images\tpalm and vein\t1x224x224",
        "global palm\tefficientvit_m0\tvector 192",
        "\tlinear\t256",
        "global vein\tefficientvit_m0\tvector 192",
        "\tlinear\t256",
        "global fusion\tchannel_attention\t256",
        "local palm\tconvnext_tiny\tmap 768x7x7",
        "\tconv1x1\t256x7x7",
        "local vein\tconvnext_tiny\tmap 768x7x7",
        "\tconv1x1\t256x7x7",
        "local fusion\tspatial_attention\t256x7x7",
        "embedding\tunit length\t512",
        "head\tarcface\t100 classes",
    ]


def test_show_what_is_known_of_weights(run_pvzoo: Run) -> None:
    text = run_pvzoo("show", "stage2_spatial").stdout
    assert "\n\n\n" not in text
    rows = [line.split("\t") for line in text.partition("(weights)\n\n")[2].splitlines()]
    assert rows[1] == ["head", "none: it served the people of the training alone; embeddings are compared without one"]
    thresholds = [(name, float(value.partition(",")[0])) for name, value in rows if name.startswith("threshold")]
    assert [name for name, _ in thresholds] == [
        "threshold of the EER",
        "threshold for FMR 0.01",
        "threshold for FMR 0.001",
        "threshold for FMR 0.0001",
    ]
    values = [value for _, value in thresholds[1:]]
    assert values == sorted(values)
    figures = [value for name, value in rows if not name]
    assert figures[0].startswith("eer 0.00") and figures[3].startswith("eer, palm only 0.0")
    assert figures[9].startswith("CompCode, palm, not trained: eer 0.1")


@pytest.mark.parametrize(
    ("build", "place"),
    [
        ("pvzoo_acme:source", "in pvzoo-palmlab"),
        (
            "pvzoo.hub.sources:HubSource",
            "in no installed package; 'pvzoo weights' lists what was fetched, 'pvzoo pull' fetches",
        ),
    ],
)
def test_show_says_whether_weights_are_here(run_pvzoo: Run, site: Any, build: str, place: str) -> None:
    site.install(
        f"""
        @hookimpl
        def register_weight_sources(register):
            import json
            from importlib.resources import files
            known = json.loads((files("pvzoo.zoo") / "weights.json").read_text())["weights"]
            manifest = {{"weights": {{"stage2_shared.ours": known["stage2_spatial.v1"]}}}}
            register("palmlab/weights", build={build!r}, manifest=manifest)
        """
    )
    assert f"\non this machine\t{place}\n" in run_pvzoo("show", "stage2_shared", path=site).stdout


def test_show_types_as_people_write_them(run_pvzoo: Run) -> None:
    types = {
        line.split("\t")[0]: line.split("\t")[1]
        for name in ("arcface", "conv1x1", "casia_ms", "txt_list")
        for line in run_pvzoo("show", name).stdout.splitlines()
        if line.count("\t") == 3
    }
    assert [types[name] for name in ("sample_rate", "easy_margin", "grid", "mode", "palm", "lists")] == [
        "float (> 0, <= 1)",
        "bool",
        "tuple[int (>= 1, <= 1024), int (>= 1, <= 1024)] | None",
        "bilinear | nearest | area",
        "460 | 630 | 700 | 850 | 940 | WHT | None",
        "tuple[str, ...] (length >= 1)",
    ]


def test_show_a_name_of_two_kinds_shows_both(run_pvzoo: Run) -> None:
    lines = run_pvzoo("show", "linear").stdout.splitlines()
    version = pvzoo.__version__
    assert f"linear (alignment, revision 1, from pvzoo {version})" in lines
    assert f"linear (head, revision 1, from pvzoo {version})" in lines
    assert lines[3].split("\t") == ["dim", "int (>= 1)", "256", "width of the common space"]


def test_validate_and_resolve_a_file(run_pvzoo: Run, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(SPEC)
    done = run_pvzoo("validate", "my.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "my.yaml: ok, an embedding of 640 from palm and vein\n"

    resolved = yaml.safe_load(run_pvzoo("resolve", "my.yaml", "--set", "fusion.local.params.dim=64").stdout)
    assert resolved["fusion"] == {"local": {"name": "concat@1", "params": {"dim": 64}}}
    assert resolved["preprocessing"]["interpolation"] == "bicubic"


def test_values_on_the_command_line_are_read_as_in_a_file(run_pvzoo: Run) -> None:
    sets = ["--set", "summary=2026-01-02", "--set", "head=none", "--set", "num_classes="]
    sets += ["--set", "branches.local.backbone.params.drop_path_rate=1e-1"]
    resolved = json.loads(run_pvzoo("resolve", "stage2_local_nano", "--json", *sets).stdout)
    assert (resolved["summary"], resolved["num_classes"]) == ("2026-01-02", None)
    assert resolved["branches"]["local"]["backbone"]["params"]["drop_path_rate"] == 0.1


def test_resolve_a_name_as_json(run_pvzoo: Run) -> None:
    done = run_pvzoo("resolve", "stage2_shared_nano", "--json", "--set", "num_classes=7", "--set", "head=cosface")
    plain = json.loads(done.stdout)
    assert (plain["num_classes"], plain["head"]["name"], plain["share_branches"]) == (7, "cosface@1", True)


def test_schema_is_json(run_pvzoo: Run) -> None:
    schema = json.loads(run_pvzoo("schema").stdout)
    assert schema["title"] == "pvzoo model spec"
    assert schema["$comment"].startswith(f"made from pvzoo {pvzoo.__version__} with plugins: ")


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--kind", "both"], "kind must be 'unimodal' or 'multimodal', not 'both'"),
        (["list", "--components", "hed"], "there is no kind 'hed'; did you mean 'head'?; kinds are backbone, ..."),
        (["show", "arcfac"], "no model or component named 'arcfac'; did you mean 'arcface'?"),
        (["show", "qqq"], "no model or component named 'qqq'; 'pvzoo list' shows all models"),
        (["show", "arcface@7"], f"head 'arcface' has no revision 7, only 1 (from pvzoo {pvzoo.__version__})"),
        (["show", "a/b/c"], "'a/b/c' is not a name; names look like 'concat', 'acme/gated' or 'acme/gated@2'"),
        (["resolve", "arcface"], "'arcface' is a head, not a model"),
        (["resolve", "stage2_spatal"], "no model named 'stage2_spatal'; did you mean 'stage2_spatial'?"),
        (["resolve", "gone.yaml"], "gone.yaml: no such file"),
        (["resolve", "stage2_local", "--set", "head"], "--set head: write PATH=VALUE, such as fusion.local=concat"),
        (["resolve", "stage2_shared.v9"], "stage2_shared has no weights tagged 'v9'; it has none yet"),
        (["show", "stage2_shared.v9"], "stage2_shared has no weights tagged 'v9'; it has none yet"),
        (["resolve", "stage2_local", "--set", "head=[1"], "--set head:2:1: while parsing a flow sequence, did not..."),
        (
            ["resolve", "stage2_local", "--set", "head=!!python/name:os.system"],
            "--set head:1:1: tag 'tag:yaml.org,2002:python/name:os.system' is not allowed; a spec is plain data",
        ),
        (
            ["resolve", "stage2_local", "--set", "fusion.local=cancat"],
            "override 'fusion.local': fusion.local: no fusion named 'cancat'; did you mean 'concat'?",
        ),
        (["nolab/hello"], "command 'nolab/hello': no installed plugin has vendor name 'nolab'..."),
        (["plugins", "show", "nolab"], "no plugin named 'nolab' is installed; this Python is ..."),
    ],
)
def test_errors_are_one_message_and_exit_code_2(run_pvzoo: Run, arguments: list[str], message: str) -> None:
    done = run_pvzoo(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    whole, elided = f"error: {message}".removesuffix("..."), message.endswith("...")
    assert done.stderr.startswith(whole) if elided else done.stderr == whole + "\n"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [[], ["lst"], ["list", "--nope"], ["validate"], ["list", "a", "b"]])
def test_wrong_usage_is_exit_code_2(run_pvzoo: Run, arguments: list[str]) -> None:
    done = run_pvzoo(*arguments)
    assert done.returncode == 2
    assert "Usage: " in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_validate_prints_every_fault_and_exits_with_1(run_pvzoo: Run, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(SPEC)
    (tmp_path / "bad.yaml").write_text("branches:\n  local: {backbone: convnext_ato}\nfusion: {local: concaat}\n")
    done = run_pvzoo("validate", "good.yaml", "bad.yaml", "gone.yaml")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "good.yaml: ok, an embedding of 640 from palm and vein",
        "bad.yaml:2:21: branches.local.backbone: no backbone named 'convnext_ato'; did you mean 'convnext_atto'?",
        "bad.yaml:3:17: fusion.local: no fusion named 'concaat'; did you mean 'concat'?",
        "gone.yaml: no such file",
    ]


@pytest.mark.parametrize("arguments", [["list"], ["schema"], ["show", "arcface"], ["plugins", "--json"]])
def test_a_reader_that_is_gone_ends_the_program_quietly(tmp_path: Path, arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pvzoo", *arguments]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


# --- plugins ----------------------------------------------------------------------------------------------------------

PALMLAB = """
import typer

SPEC = {"modalities": ["vein"], "branches": {"local": {"backbone": "convnext_atto"}}, "summary": "Vein [small]"}

def hello(name: str = "palm", loud: bool = False):
    print(f"hello {name}{'!' if loud else ''}")

tools = typer.Typer()

@tools.command()
def count(upto: int):
    print(*range(upto))

@tools.command()
def fail():
    raise pvzoo.PvzooError("palmlab says no")

@hookimpl
def register_commands(register):
    register("palmlab/hello", build="pvzoo_palmlab:hello", summary="Say hello")
    register("palmlab/tools", build="pvzoo_palmlab:tools")
    register("palmlab/lost", build="pvzoo_palmlab_lost:main")

@hookimpl
def register_models(register):
    register("palmlab/vein", spec=SPEC)

@hookimpl
def register_weight_sources(register):
    register("palmlab/vault", build="a:b", provides=["palmlab/vein.v2", "palmlab/vein.v10"])

@hookimpl
def register_heads(register):
    register("palmlab/soft", build="pvzoo_palmlab_torch:Soft", summary="Soft [/] margin [palm, vein]", revision=2)
"""


@pytest.fixture
def palmlab(site: Any) -> Any:
    site.install(PALMLAB, version="0.3")
    return site


@pytest.mark.parametrize(
    ("arguments", "code", "stdout", "stderr"),
    [
        (["palmlab/hello"], 0, "hello palm\n", ""),
        (["palmlab/hello", "--name", "vein", "--loud"], 0, "hello vein!\n", ""),
        (["palmlab/tools", "count", "3"], 0, "0 1 2\n", ""),
        (["palmlab/tools", "fail"], 2, "", "error: palmlab says no\n"),
        (["palmlab/helo"], 2, "", "error: no command named 'palmlab/helo'; did you mean 'palmlab/hello'?\n"),
        (["palmlab/soft"], 2, "", "error: 'palmlab/soft' is a head, not a command\n"),
        (
            ["palmlab/lost"],
            2,
            "",
            "error: command 'palmlab/lost' of pvzoo-palmlab 0.3 failed while it was built: "
            "ModuleNotFoundError: No module named 'pvzoo_palmlab_lost'\n",
        ),
        (["list", "palmlab/*"], 0, "palmlab/vein\tVein [small]\n", ""),
        (
            ["list", "palmlab/*", "--pretrained"],
            0,
            "palmlab/vein.v2\tVein [small]\npalmlab/vein.v10\tVein [small]\n",
            "",
        ),
        (
            ["show", "palmlab/soft"],
            0,
            "palmlab/soft (head, revision 2, from pvzoo-palmlab 0.3)\nSoft [/] margin [palm, vein]\n\n",
            "",
        ),
        (
            ["show", "palmlab/sopt"],
            2,
            "",
            "error: no model or component named 'palmlab/sopt'; did you mean 'palmlab/soft'?\n",
        ),
        (
            ["plugins", "show", "palmlob"],
            2,
            "",
            "error: no plugin named 'palmlob' is installed; did you mean 'palmlab'?; "
            f"this Python is {sys.executable}\n",
        ),
    ],
)
def test_commands_and_names_of_a_plugin(
    run_pvzoo: Run, palmlab: Any, arguments: list[str], code: int, stdout: str, stderr: str
) -> None:
    done = run_pvzoo(*arguments, path=palmlab)
    assert (done.returncode, done.stdout, done.stderr) == (code, stdout, stderr)


def test_help_of_a_plugin_s_command_and_a_model_of_a_plugin(run_pvzoo: Run, palmlab: Any) -> None:
    done = run_pvzoo("palmlab/hello", "--help", path=palmlab)
    assert "palmlab/hello [OPTIONS]" in done.stdout
    assert "Say hello" in done.stdout
    shown = run_pvzoo("show", "palmlab/vein.v2", path=palmlab).stdout.splitlines()
    assert shown[:3] == ["palmlab/vein.v2", "Vein [small]", ""]
    assert shown[-2] == "embedding\tunit length\t320"


@pytest.mark.parametrize(
    ("arguments", "code", "some"),
    [
        (["--times", "2", "palm"], 0, "hello palm palm"),
        (["palm", "--times=1"], 0, "hello palm"),
        (["--help"], 0, "Greet someone."),
        (["palm", "--tims", "2"], 2, "No such option"),
    ],
)
def test_a_plugin_s_click_command(run_pvzoo: Run, site: Any, arguments: list[str], code: int, some: str) -> None:
    pytest.importorskip("click")
    site.install(
        """
        @hookimpl
        def register_commands(register):
            register("palmlab/greet", build="palmlab_greet:greet")
        """,
        palmlab_greet="""
        import click

        @click.command(help="Greet someone.")
        @click.argument("name")
        @click.option("--times", default=1)
        def greet(name, times):
            click.echo(" ".join(["hello", *[name] * times]))
        """,
    )
    done = run_pvzoo("palmlab/greet", *arguments, path=site)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert some in done.stdout + done.stderr


KEYS = [
    "vendor",
    "distribution",
    "version",
    "module",
    "location",
    "state",
    "stage",
    "reason",
    "seconds",
    "remarks",
    "entries",
    "probe",
]


def records(done: subprocess.CompletedProcess[str], site: Any) -> dict[str, dict[str, Any]]:
    """What ``pvzoo plugins --json`` printed about the plugins of a site, by vendor."""
    return {record["vendor"]: record for record in json.loads(done.stdout) if record["location"] == str(site.path)}


def test_plugins_as_json(run_pvzoo: Run, palmlab: Any) -> None:
    done = run_pvzoo("plugins", "--json", path=palmlab)
    record = records(done, palmlab)["palmlab"]
    assert list(record) == KEYS
    assert (record["distribution"], record["version"], record["state"]) == ("pvzoo-palmlab", "0.3", "loaded")
    assert {"kind": "head", "name": "palmlab/soft", "revision": 2} in record["entries"]
    assert (record["stage"], record["reason"], record["remarks"], record["probe"]) == (None, "", [], None)
    assert record["seconds"] > 0


def test_plugins_as_lines(run_pvzoo: Run, palmlab: Any) -> None:
    palmlab.install("raise OSError('no disk')", vendor="otherlab", requires=[])
    done = run_pvzoo("plugins", path=palmlab)
    rows = {line.split("\t")[0]: line.split("\t")[1:-1] for line in done.stdout.splitlines()}
    assert rows["palmlab"] == ["pvzoo-palmlab 0.3", "loaded", "3 commands, 1 head, 1 model, 1 weight_source"]
    assert rows["otherlab"] == ["pvzoo-otherlab 1.0", "failed (import)", ""]
    assert "plugin otherlab (pvzoo-otherlab 1.0) failed at import: OSError: no disk\n" in done.stderr
    assert "plugin otherlab (pvzoo-otherlab 1.0): its metadata does not bound pvzoo; write for" in done.stderr


def test_no_import_imports_nothing(run_pvzoo: Run, site: Any) -> None:
    site.install("raise SystemExit('imported')")
    site.install("raise SystemExit('imported')", vendor="otherlab", requires=["pvzoo>=99"])
    done = run_pvzoo("plugins", "--no-import", "--json", path=site)
    assert (done.returncode, done.stderr) == (0, "")
    assert {vendor: record["state"] for vendor, record in records(done, site).items()} == {
        "palmlab": "found",
        "otherlab": "incompatible",
    }


@pytest.mark.parametrize(
    ("source", "requires", "options", "code"),
    [
        ("", ["pvzoo>=0.1,<1"], [], 0),
        ("", [], [], 1),
        ("", ["pvzoo>=99"], ["--no-import"], 1),
        ("1 / 0", ["pvzoo>=0.1,<1"], [], 1),
        ("1 / 0", ["pvzoo>=0.1,<1"], ["--no-import"], 0),
        ("1 / 0", ["pvzoo>=0.1,<1"], ["--probe"], 1),
        ("@hookimpl\ndef register_head(register): pass", ["pvzoo>=0.1,<1"], ["--probe"], 1),
    ],
)
def test_check_tells_by_its_exit_code(
    run_pvzoo: Run, site: Any, source: str, requires: list[str], options: list[str], code: int
) -> None:
    site.install(source, requires=requires)
    assert run_pvzoo("plugins", "--check", *options, path=site, PVZOO_DISABLE_PLUGINS=INSTALLED).returncode == code


def test_probe_survives_what_import_does_not(run_pvzoo: Run, site: Any) -> None:
    for vendor, source in {
        "aborts": "import os\nos.abort()",
        "clean": "print('noise')",
        "exits": "import sys\nsys.exit('out of palms')",
        "leaves": "import os\nos._exit(3)",
        "misspelt": "@hookimpl\ndef register_head(register): pass",
        "heavy": "import numpy",
    }.items():
        site.install(source, vendor=vendor)
    done = run_pvzoo("plugins", "--probe", "--json", path=site)
    assert done.returncode == 0
    assert {vendor: record["probe"]["outcome"] for vendor, record in records(done, site).items()} == {
        "aborts": "killed by signal 6",
        "clean": "ok",
        "exits": "plugin exits (pvzoo-exits 1.0) failed at import: SystemExit: out of palms",
        "leaves": "exit code 3: no message",
        "misspelt": "plugin misspelt (pvzoo-misspelt 1.0) failed at hooks: RegistrationError: "
        "unknown hook 'register_head'; did you mean 'register_heads'?",
        "heavy": "imports numpy",
    }
    assert {record["state"] for record in records(done, site).values()} == {"found"}


@pytest.mark.parametrize("name", ["palmlab", "pvzoo-palmlab", "PVZOO_Palmlab"])
def test_show_a_plugin_by_vendor_or_distribution(run_pvzoo: Run, palmlab: Any, name: str) -> None:
    lines = run_pvzoo("plugins", "show", name, path=palmlab).stdout.splitlines()
    assert {
        "vendor\tpalmlab",
        "distribution\tpvzoo-palmlab 0.3",
        f"installed in\t{palmlab.path}",
        "module\tpvzoo_palmlab",
        "state\tloaded",
        "head\tpalmlab/soft\tpvzoo_palmlab_torch:Soft\tSoft [/] margin [palm, vein]",
    } <= set(lines)


@pytest.fixture
def all_broken(site: Any) -> Any:
    """One plugin in every state that is not usable, and no other."""
    site.install("raise OSError('no disk')")
    site.install("import sys\nsys.exit(9)", vendor="exits")
    site.install("", vendor="future", requires=["pvzoo>=99"])
    site.install("", vendor="timm", distribution="reserved")
    for distribution in ("aa-twin", "bb-twin"):
        site.install("", vendor="twin", distribution=distribution)
    return site


@pytest.mark.parametrize(
    ("arguments", "some"),
    [
        (["list"], "stage2_spatial\t"),
        (["list", "--components", "fusion", "--json"], '"spatial_attention"'),
        (["show", "stage2_spatial"], "local fusion\tspatial_attention\t256x7x7"),
        (["resolve", "stage2_spatial"], "spatial_attention@1"),
        (["schema"], '"$comment"'),
        (["plugins"], "palmlab\tpvzoo-palmlab 1.0\tfailed (import)\t"),
        (["plugins", "--json"], '"state": "conflict"'),
        (["plugins", "--no-import"], "twin\taa-twin 1.0\tconflict\t"),
        (["plugins", "show", "twin"], "distribution\tbb-twin 1.0"),
        (["plugins", "show", "palmlab"], "failed at import: OSError: no disk"),
    ],
)
def test_the_program_works_when_every_plugin_is_broken(
    run_pvzoo: Run, all_broken: Any, arguments: list[str], some: str
) -> None:
    done = run_pvzoo(*arguments, path=all_broken)
    assert done.returncode == 0, done.stderr
    assert some in done.stdout
    if arguments == ["list"]:
        assert done.stderr.splitlines() == [
            "plugin exits (pvzoo-exits 1.0) failed at import: SystemExit: 9 ('pvzoo plugins show exits' has more)",
            f"plugin future (pvzoo-future 1.0) is incompatible: it requires pvzoo>=99, and pvzoo is "
            f"{pvzoo.__version__} ('pvzoo plugins show future' has more)",
            "plugin palmlab (pvzoo-palmlab 1.0) failed at import: OSError: no disk "
            "('pvzoo plugins show palmlab' has more)",
            "plugin timm (reserved 1.0) failed at metadata: its entry-point name 'timm' is reserved "
            "('pvzoo plugins show timm' has more)",
            *(
                f"plugin twin ({name} 1.0) is in conflict: vendor name 'twin' is claimed by aa-twin 1.0 and bb-twin "
                "1.0; uninstall one, or set PVZOO_DISABLE_PLUGINS=bb-twin ('pvzoo plugins show twin' has more)"
                for name in ("aa-twin", "bb-twin")
            ),
        ]
    elif arguments[1:] == ["show", "palmlab"]:
        assert "Traceback (most recent call last)" in done.stderr
        assert done.stderr.rstrip().endswith("OSError: no disk")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "palmlab/x"], "plugin palmlab (pvzoo-palmlab 1.0) failed at import: OSError: no disk"),
        (["palmlab/hello"], "command 'palmlab/hello': plugin palmlab (pvzoo-palmlab 1.0) failed at import: "),
        (["resolve", "future/model"], "model 'future/model': plugin future (pvzoo-future 1.0) is incompatible: "),
        (
            ["resolve", "stage2_spatial", "--set", "fusion.local=twin/x"],
            "fusion.local: fusion 'twin/x': plugin twin (aa-twin 1.0) is in conflict: ",
        ),
    ],
)
def test_a_broken_plugin_that_is_named_is_an_error(
    run_pvzoo: Run, all_broken: Any, arguments: list[str], message: str
) -> None:
    done = run_pvzoo(*arguments, path=all_broken)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_strict_stops_at_the_first_broken_plugin(run_pvzoo: Run, all_broken: Any) -> None:
    done = run_pvzoo("list", path=all_broken, PVZOO_STRICT_PLUGINS="1")
    assert done.returncode == 2
    assert done.stderr == "error: plugin exits (pvzoo-exits 1.0) failed at import: SystemExit: 9\n"
    assert run_pvzoo("list", path=all_broken, PVZOO_STRICT_PLUGINS="0").returncode == 0


def test_disabled_plugins_in_the_program(run_pvzoo: Run, all_broken: Any) -> None:
    done = run_pvzoo("list", "*_shared", path=all_broken, PVZOO_DISABLE_PLUGINS="all")
    assert (done.returncode, done.stderr) == (0, "")
    done = run_pvzoo("plugins", "--json", path=all_broken, PVZOO_DISABLE_PLUGINS="Pvzoo.Palmlab,palmlap")
    assert records(done, all_broken)["palmlab"]["state"] == "disabled"
    hint = "PVZOO_DISABLE_PLUGINS names 'palmlap', which is no installed plugin; did you mean 'palmlab'?"
    assert hint in done.stderr
