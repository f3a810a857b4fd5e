"""Weights as a package: trained, packed, installed, loaded offline, verified, started from, and trained again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import INSTALLED, Site
from safetensors.torch import load_file
from small import OWN

import pvzoo
from pvzoo.card import SYNTHETIC
from pvzoo.catalog import split_tag
from pvzoo.data.params import Data
from pvzoo.data.protocols import open_protocol, read_protocol
from pvzoo.data.sources import open_images
from pvzoo.errors import DataError, PvzooError, SpecError, UnknownNameError, WeightsError
from pvzoo.evaluation.models import evaluate_model
from pvzoo.hub import packages
from pvzoo.manifest import CONFIG, INDEX, Metric, read_manifest, recipe_digest
from pvzoo.plugins import Host, using
from pvzoo.progress import silent
from pvzoo.release import pack
from pvzoo.release.pack import Item, Packed, Plan, read_plan, texts
from pvzoo.release.reproduce import Again, recorded
from pvzoo.synth import generate
from pvzoo.training.machine import Machine
from pvzoo.training.recipe import merged
from pvzoo.training.run import train
from pvzoo.training.starts import find_start

BACKBONE = {"name": "timm", "params": {"arch": "test_convnext"}}
IMAGES = {"preprocessing": {"size": 32}, "head": "arcface", "num_classes": 3}
PALM = {**IMAGES, "modalities": ["palm"], "branches": {"local": {"backbone": BACKBONE}}}
VEIN = {**PALM, "modalities": ["vein"]}
MAPS = {
    "local": {"backbone": BACKBONE, "features": "map", "alignment": {"name": "conv1x1", "params": {"dim": 16}}},
}
BOTH = {**IMAGES, "branches": MAPS, "fusion": {"local": "spatial_attention"}}
JOINED = {**IMAGES, "branches": MAPS, "fusion": {"local": "concat"}}
SPECS = {"palm": PALM, "vein": VEIN, "both": BOTH, "joined": JOINED}
HOOKS = f"""
SPECS = {SPECS!r}

@hookimpl
def register_models(register):
    for name, spec in SPECS.items():
        register("acme/" + name, spec=spec, summary="A small model: " + name)
"""
SMALL = {"data.source": "synthpalm-mini", "epochs": 1, "batch.size": 16, "precision": "fp32"}
CPU = Machine(accelerator="cpu", progress=False)
FACTS = {
    "licence": "Apache-2.0",
    "data": [{"name": "synthpalm-mini", "origin": "synthetic"}],
    "intended_use": "Tests of packages.",
}


class Acme:
    """The plugin of those models, in this process."""

    @pvzoo.hookimpl
    def register_models(self, register: Any) -> None:
        for name, spec in SPECS.items():
            register(f"acme/{name}", spec=spec, summary=f"A small model: {name}")


def acme(manifest: dict[str, Any] | None = None, root: Path | None = None) -> Host:
    """A host with these models, and perhaps with weights."""
    host = Host(plugins=[])
    host.add("acme", Acme())
    if manifest is not None and root is not None:

        class Weights:
            @pvzoo.hookimpl
            def register_weight_sources(self, register: Any) -> None:
                register("packed/weights", build=lambda params: packages.Packaged(root), manifest=manifest)

        host.add("packed", Weights())
    return host


@dataclass(frozen=True)
class Made:
    """Runs, a plan of them, and the package that came out."""

    runs: Path
    plan: Path
    out: Path
    packed: list[Packed]

    @property
    def package(self) -> Path:
        return self.out / "pvzoo_acme_weights"

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.package / "weights.json").read_text())
        return found

    def entry(self, name: str) -> Any:
        return self.manifest["weights"][name]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("release")
    with using(acme()):
        branches = train("stage1", root / "runs/one", overrides={**SMALL, "model": "acme/both"}, machine=CPU)
        init = [str(branches / name / "model") for name in ("palm_local", "vein_local")]
        generate("synthpalm-mini", root / "drawn")
        for name, source in {"both": "synthpalm-mini", "joined": str(root / "drawn")}.items():
            changes = {**SMALL, "model": f"acme/{name}", "init": init, "cache_features": 1, "epochs": 3}
            changes["data.source"] = source
            train("stage2_plan_a", root / "runs" / name, overrides=changes, machine=CPU)
        plan = {
            "distribution": "pvzoo-acme-weights",
            "namespace": "acme",
            "facts": FACTS,
            "data": {"source": "synthpalm-mini"},
            "folds": 50,
            "weights": {
                "acme/palm.v1": {"folder": "runs/one/palm_local/model"},
                "acme/vein.v1": {"folder": "runs/one/vein_local/model", "head": False},
                "acme/both.v1": {"folder": "runs/both/model", "recipe": "stage2_plan_a"},
                "acme/joined.v1": {"folder": "runs/joined/model"},
            },
        }
        (root / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
        out = root / "pvzoo-acme-weights"
        return Made(root / "runs", root / "plan.yaml", out, pack.pack(read_plan(root / "plan.yaml"), out))


@pytest.fixture
def packed(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Made]:
    """With its models and weights in this process, and no network."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PVZOO_CACHE", str(tmp_path / "notes"))
    with using(acme(made.manifest, made.package)):
        yield made


# --- the package ------------------------------------------------------------------------------------------------------


def test_branches_are_stored_once_in_float16(made: Made) -> None:
    kept = {path.name: path for path in (made.package / "files").iterdir()}
    used = [file["sha256"] for entry in made.manifest["weights"].values() for file in entry["files"].values()]
    assert set(kept) == set(used)
    shards = [path for path in kept.values() if path.read_bytes()[8:9] == b"{"]
    tensors = [load_file(path) for path in shards]
    # Two branches for all four models, and for each what else it has; BNNeck alone where there is no head.
    assert sorted({name.split(".")[1] for part in tensors for name in part if name.startswith("branches.")}) == [
        "palm",
        "vein",
    ]
    assert len(tensors) == 2 + 4
    floats = {tensor.dtype for part in tensors for tensor in part.values() if tensor.is_floating_point()}
    assert floats == {torch.float16}
    assert [each.name for each in made.packed] == list(made.manifest["weights"])
    assert all(0.999 <= each.cosine <= 1.0001 for each in made.packed)


@pytest.fixture
def installed(made: Made, site: Any, tmp_path: Path) -> Site:
    """The wheel's files on sys.path, as pip puts them there, and the plugin of the models."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist"]
    subprocess.run(command, cwd=made.out, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    assert wheel.name == "pvzoo_acme_weights-1.0.0-py3-none-any.whl"
    zipfile.ZipFile(wheel).extractall(site.path)
    site.install(HOOKS, vendor="acme")
    return site  # type: ignore[no-any-return]


OFFLINE = {"HF_ENDPOINT": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1", "PVZOO_DISABLE_PLUGINS": INSTALLED}


def test_an_installed_package_is_loaded_and_verified_without_a_network(
    made: Made, installed: Site, python: Callable[..., Any], tmp_path: Path
) -> None:
    """In a process that knows nothing else."""
    code = """
import sys, pvzoo, pvzoo.cli
model = pvzoo.create("acme/both", pretrained=True, offline=True)
print(model.load_report.source, model.dtype, len(model.thresholds) > 0, model.untrained)
sys.argv = ["pvzoo", "verify", "--all"]
pvzoo.cli.main()
"""
    done = python("-c", code, path=installed, PVZOO_CACHE=str(tmp_path / "notes"), **OFFLINE)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [f"{n} is not on this machine; 'pvzoo pull {n}' fetches it" for n in OWN]
    index = made.entry("acme/both.v1")["files"][INDEX]["sha256"]
    first, *lines = done.stdout.splitlines()
    assert first == f"{installed.path}/pvzoo_acme_weights/files/{index} torch.float32 True False"
    assert [line.partition(",")[0] for line in lines] == [
        "acme/both.v1: ok",
        "acme/joined.v1: ok",
        "acme/palm.v1: ok",
        "acme/vein.v1: ok",
    ]


@pytest.mark.parametrize("name", ["pvzoo-weights", "pvzoo-weights-nano"])
def test_the_cards_and_readmes_of_this_repository_are_made_from_the_manifests(name: str) -> None:
    root = Path(__file__).parents[1] / "plugins" / name
    plan = read_plan(root / "plan.yaml")
    listed = read_manifest(root / plan.package / "weights.json").weights
    package = packages.Packaged(root / plan.package)
    models = {each: package.find(*split_tag(each)) for each in listed}
    made = texts(plan, [Packed(each, entry, 1.0) for each, entry in listed.items()], models)
    assert len([file for file in made if file.startswith("cards/")]) == len(list((root / "cards").iterdir())) == 9
    assert {file: (root / file).read_text(encoding="utf-8") for file in made} == made


@pytest.mark.slow
def test_the_tests_of_the_package_pass(made: Made, installed: Site, python: Callable[..., Any], tmp_path: Path) -> None:
    command = ("-m", "pytest", "-p", "no:cacheprovider", str(made.out / "tests"))
    done = python(*command, path=installed, PVZOO_CACHE=str(tmp_path / "notes"), **OFFLINE)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("..... ")


def test_the_manifest_says_what_was_measured_with_the_packed_weights(packed: Made) -> None:
    entry = read_manifest(packed.manifest).weights["acme/both.v1"]
    assert (entry.repo, entry.revision, entry.dtype, entry.licence) == ("acme/both", "v1", "float16", "Apache-2.0")
    assert entry.parameters == sum(p.numel() for p in pvzoo.create("acme/both", num_classes=14).parameters())
    images = open_images(Data(source="synthpalm-mini"))
    split = open_protocol("open_subject").split(images.table)
    model = pvzoo.create("acme/both", pretrained="v1")
    for modalities in ((), ("palm",), ("vein",)):
        done = evaluate_model(model, images, split, modalities=modalities, folds=50)
        figures = {m.name: m for m in entry.metrics if m.modalities == modalities and m.at in (None, 1e-2)}
        recorded, eer = figures["eer"], done.result.figure("eer")
        measured = (eer.value, eer.interval.low, eer.interval.high)
        assert (recorded.value, recorded.low, recorded.high) == tuple(float(f"{figure:.6g}") for figure in measured)
        assert (recorded.dataset, recorded.protocol, recorded.subjects) == ("synthpalm-mini", split.protocol, 2)
        if not modalities:
            assert entry.thresholds == done.thresholds == model.thresholds
    assert list(entry.floor) == ["CompCode, palm", "maximum curvature, vein"]
    assert [m.modalities for m in entry.floor["CompCode, palm"]][:1] == [("palm",)]
    palm, joined = (read_manifest(packed.manifest).weights[f"acme/{name}.v1"] for name in ("palm", "joined"))
    assert list(palm.floor) == ["CompCode, palm"]
    # concat cannot do without a modality, and one modality is all there is: neither has figures of one alone.
    assert {m.modalities for m in (*palm.metrics, *joined.metrics)} == {()}


def test_how_it_was_trained_is_there_without_folders_of_this_machine(made: Made) -> None:
    recipe = made.entry("acme/both.v1")["recipe"]
    assert recipe["name"] == "stage2_plan_a"
    assert recipe["sha256"] == recipe_digest(recipe["content"])
    assert recipe["content"]["init"] == ["acme/palm.v1", "acme/vein.v1"]
    assert "model" not in recipe  # where a run has it anyway
    drawn = made.entry("acme/joined.v1")["recipe"]["content"]
    assert drawn["data"]["source"] == "synthpalm-mini"  # it was trained on the files of that release
    stage1 = made.entry("acme/palm.v1")["recipe"]
    assert (stage1["name"], stage1["model"]) == ("Stage 1: every branch of a model, alone", "palm_local/model")
    assert str(made.runs) not in (made.package / "weights.json").read_text()


def test_each_card_says_that_no_real_palm_was_seen(made: Made) -> None:
    for name, recipe, model in (
        ("both", "stage2_plan_b", "runs/mine/model"),
        ("palm", "stage1", "runs/mine/palm_local/model"),
    ):
        card = (made.out / f"cards/acme-{name}.v1.md").read_text()
        assert f"## No real palm\n\n{SYNTHETIC}\n" in card
        assert f"pvzoo train {recipe} --model acme/{name} --init acme/{name} --data palms/" in card
        assert f"pvzoo eval {model} --data palms/" in card
        assert f'model = pvzoo.create("acme/{name}.v1", pretrained=True)\n' in card
        assert "| eer, palm only (CompCode, palm) |" in card
    readme = (made.out / "README.md").read_text()
    assert "\npip install 'pvzoo[data]' pvzoo-acme-weights\npvzoo demo " in readme  # which draws, with OpenCV
    assert "| `acme/both.v1` | 0.4 M | " in readme
    assert "| CompCode, palm, no training |" in readme


def test_weights_without_a_class_matrix_take_a_new_one(packed: Made) -> None:
    model = pvzoo.create("acme/vein", pretrained=True)
    assert (model.spec.head.name, model.spec.num_classes) == ("none", None)
    with pytest.raises(SpecError, match=r'num_classes: head .none. has no classes; .* \(in Python head="arcface"\)'):
        pvzoo.create("acme/vein", pretrained=True, num_classes=5)
    new = pvzoo.create("acme/vein", pretrained=True, num_classes=5, head="arcface")
    assert new.load_report is not None and new.load_report.initialised == ("head.weight",)


def changed(made: Made, change: Callable[[dict[str, Any]], None], tmp_path: Path) -> Plan:
    """The plan, with its folders in full, and with a change."""
    data = yaml.safe_load(made.plan.read_text())
    for item in data["weights"].values():
        item["folder"] = str(made.plan.parent / item["folder"])
    change(data)
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return read_plan(tmp_path / "plan.yaml")


def test_packages_that_are_packed_at_once_are_listed_in_one_manifest(made: Made, tmp_path: Path) -> None:
    plan = changed(made, only("acme/palm.v1", "runs/one/palm_local/model"), tmp_path)
    manifest = tmp_path / "zoo/weights.json"

    def meanwhile(what: str, total: int) -> Any:
        other = {"acme/both.v1": made.entry("acme/both.v1")}
        manifest.write_text(json.dumps({"weights": other}))
        return silent(what, total)

    with using(acme()):
        pack.pack(plan.model_copy(update={"folds": 0}), tmp_path / "out", manifest=manifest, track=meanwhile)
    assert list(read_manifest(manifest).weights) == ["acme/both.v1", "acme/palm.v1"]


def another(made: Made, tmp_path: Path, **fields: Any) -> Callable[[dict[str, Any]], None]:
    """A plan of a copy of the run of the branches, whose recipe has other fields."""
    shutil.copytree(made.runs / "one", tmp_path / "run")
    file = tmp_path / "run/recipe.yaml"
    file.write_text(yaml.safe_dump(merged(yaml.safe_load(file.read_text()), fields)))
    return only("acme/palm.v1", str(tmp_path / "run/palm_local/model"))


@pytest.mark.parametrize("specs", ["both", "palm"])
def test_what_was_files_on_this_machine_is_recorded_by_name(made: Made, specs: str, tmp_path: Path) -> None:
    """The data set, that of the plan too, and the model."""
    drawn = str(made.plan.parent / "drawn")
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({**SPECS[specs], "name": "mine", "num_classes": 9}))
    alone = another(made, tmp_path, model=str(tmp_path / "my.yaml"), data={"source": drawn})

    def change(data: dict[str, Any]) -> None:
        alone(data)
        data["data"] = {"source": drawn}

    with using(acme()):
        (found,) = pack.pack(changed(made, change, tmp_path), tmp_path / "out")
    recorded = read_manifest(made.manifest).weights["acme/palm.v1"]
    assert recorded.recipe is not None and found.entry.recipe is not None
    content = {**recorded.recipe.content, "model": f"acme/{specs}"}
    assert found.entry.recipe.content == content
    assert found.entry == recorded.model_copy(update={"recipe": found.entry.recipe})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"preprocessing": {"size": 64}},
            "acme/palm.v1: was trained from MY, which is no model of the zoo; nobody else",
        ),
        ({"branches": {}}, "MY:"),
        (None, "MY: no such file"),
    ],
)
def test_a_model_that_nobody_else_has(made: Made, changes: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    my = tmp_path / "my.yaml"
    if changes is not None:
        my.write_text(yaml.safe_dump({**PALM, **changes}))
    assert refused(made, another(made, tmp_path, model=str(my)), tmp_path).startswith(message.replace("MY", str(my)))


def test_packing_again_gives_the_same_and_leaves_nothing(made: Made, call: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "again"
    two = ("acme/palm.v1", "acme/vein.v1")
    plan = yaml.safe_load(made.plan.read_text())
    items = {
        name: {**plan["weights"][name], "folder": str(made.plan.parent / plan["weights"][name]["folder"])}
        for name in two
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**plan, "weights": items}, sort_keys=False))
    (out / "pvzoo_acme_weights/files").mkdir(parents=True)
    (out / "pvzoo_acme_weights/files/old").touch()
    (out / "LICENSE").touch()
    (out / "cards").mkdir()
    (out / "cards/acme-old.v1.md").touch()
    zoo = tmp_path / "zoo.json"
    zoo.write_text(json.dumps({"weights": {"acme/both.v1": made.entry("acme/both.v1"), two[0]: made.entry(two[1])}}))
    with using(acme()):
        done = call("pack", tmp_path / "plan.yaml", "--out", out, "--manifest", zoo, "--device", "cpu")
    assert done.code == 0, done.err
    assert [line.split("\t")[0] for line in done.out.splitlines()[:2]] == list(two)
    assert done.out.splitlines()[2].startswith(f"{out}: 2 models, ")
    assert done.err == f"next: pip install {out} && pvzoo verify --all\n"
    found = json.loads((out / "pvzoo_acme_weights/weights.json").read_text())["weights"]
    assert found == {name: made.entry(name) for name in two}
    assert json.loads(zoo.read_text())["weights"] == {name: made.entry(name) for name in ("acme/both.v1", *two)}
    for file in (out / "pvzoo_acme_weights/files").iterdir():
        assert file.read_bytes() == (made.package / "files" / file.name).read_bytes()
    assert sorted(path.name for path in (out / "cards").iterdir()) == ["acme-palm.v1.md", "acme-vein.v1.md"]
    assert sorted(path.name for path in out.iterdir()) == [
        "LICENSE", "README.md", "cards", "pvzoo_acme_weights", "pyproject.toml", "tests"
    ]  # fmt: skip


# --- what is refused --------------------------------------------------------------------------------------------------


def refused(made: Made, change: Callable[[dict[str, Any]], None], tmp_path: Path) -> str:
    with using(acme()), pytest.raises(PvzooError) as caught:
        pack.pack(changed(made, change, tmp_path), tmp_path / "out")
    assert not (tmp_path / "out/pvzoo_acme_weights").exists()
    return str(caught.value).replace(f"{made.runs}/", "RUNS/")


def only(name: str, folder: str) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        root = Path(data["weights"]["acme/palm.v1"]["folder"]).parents[3]
        data["weights"] = {name: {"folder": str(root / folder)}}

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            only("acme/vein.v1", "runs/one/palm_local/model"),
            "RUNS/one/palm_local/model: is no acme/vein: it has other ",
        ),
        (
            only("acme/palm.v1", "plan.yaml/model"),
            "no recipe.yaml in the folders above it; weights are packed from a run",
        ),
        (only("acme/plam.v1", "runs/one/palm_local/model"), "no model named 'acme/plam'; did you mean 'acme/palm'?"),
        (
            only("acme/both.v1", "runs/both/model"),
            "acme/both.v1: was started from RUNS/one/palm_local/model, which the plan does not pack; nobody else has",
        ),
        (
            lambda data: data["facts"]["data"][0].update(name="synthpalm-v1"),
            "acme/palm.v1: was trained on synthpalm-mini, and facts.data does not name it",
        ),
        (lambda data: data["facts"].pop("licence"), "facts:\n  licence: Field required"),
        (lambda data: data.update(weights={}), "plan.yaml:"),
        (lambda data: data.update(fact={}), "plan.yaml:"),
        (lambda data: data["weights"].update(palm={"folder": "x"}), "plan.yaml:"),
        (lambda data: data["data"].update(protocol="open_subjects"), "no protocol named 'open_subjects'; did you mean"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_plan_that_cannot_be_packed(
    made: Made, change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    assert message in refused(made, change, tmp_path)


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("LARGEST", 1000, "acme/palm.v1: model-00001-of-00002.safetensors has "),
        ("ALL", 1000, "4 models have "),
        ("LEAST_COSINE", 1.1, "acme/palm.v1: float16 is too coarse for it: an embedding has a cosine of "),
    ],
)
def test_what_is_too_large_or_too_coarse(
    made: Made, limit: str, value: float, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, limit, value)
    assert refused(made, lambda data: None, tmp_path).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "FILE:2:1: while parsing a flow node, "),
        ("- 1", "FILE:1:1: should be a mapping of fields"),
        ("", "FILE: the file is empty"),
        ("epoch: 3", "FILE:1:8: epoch: unknown field; did you mean 'epochs'?"),
        ("data: {source: {}}", "FILE:1:8: data.source: input should be a valid string"),
    ],
)
def test_a_damaged_recipe_of_a_run_says_where(made: Made, content: str, message: str, tmp_path: Path) -> None:
    alone, file = another(made, tmp_path), tmp_path / "run/recipe.yaml"
    file.write_text(content)
    assert refused(made, alone, tmp_path).startswith(message.replace("FILE", str(file)))


@pytest.mark.parametrize(
    ("out", "manifest", "fault"),
    [
        ("file", "zoo.json", "file: cannot be written: File exists"),
        ("file/out", "zoo.json", "file/out: cannot be written: Not a directory"),
        ("out", "file/zoo.json", "file: cannot be written: File exists"),
        ("out", "folder", "the weights manifest folder cannot be read: "),
    ],
)
def test_a_place_that_cannot_be_written_says_so(
    made: Made, out: str, manifest: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(what: str, total: int) -> Any:
        pytest.fail("it should be found out before any work")

    plan = changed(made, only("acme/palm.v1", "runs/one/palm_local/model"), tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("folder").mkdir()
    with using(acme()), pytest.raises(WeightsError) as caught:
        pack.pack(plan, Path(out), manifest=Path(manifest), track=work)
    assert str(caught.value).startswith(fault)


def test_random_weights_are_refused(made: Made, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made.runs / "one", run)
    shutil.rmtree(run / "palm_local/model")
    with using(acme()):
        pvzoo.create("acme/palm").save(run / "palm_local/model")
    message = refused(made, only("acme/palm.v1", str(run / "palm_local/model")), tmp_path)
    assert message == f"{run}/palm_local/model: its weights are random; train it first"


# --- trainings that start from weights by name ------------------------------------------------------------------------


def test_a_training_starts_from_pretrained_weights(packed: Made, tmp_path: Path) -> None:
    changes = {**SMALL, "model": "acme/both", "init": ["acme/both"]}
    path = train("stage2_plan_b", tmp_path / "run", overrides=changes, machine=CPU)
    facts = json.loads((tmp_path / "run/run.json").read_text())
    files = packed.entry("acme/both.v1")["files"]
    assert facts["init"] == [{"name": "acme/both.v1", "sha256": {n: file["sha256"] for n, file in files.items()}}]
    assert facts["started_from"].endswith(", 0 initialised, 0 skipped")
    # Packed, it is recorded by the tag that it was started from, whatever is the default later.
    item = Item(folder=path)
    plan = Plan(facts=FACTS, data=Data(source="synthpalm-mini"), folds=0, weights={"acme/both.tuned": item})
    (tuned,) = pack.pack(plan, tmp_path / "out")
    assert tuned.entry.recipe is not None and tuned.entry.recipe.content["init"] == ["acme/both.v1"]
    assert tuned.entry.metrics[0].low is None
    # Branches move at 1e-5, so they are still close to where they began.
    before, after = (
        pvzoo.create("acme/both", pretrained=True).state_dict(),
        pvzoo.create(f"local-dir:{path}").state_dict(),
    )
    name = next(n for n, t in before.items() if n.startswith("branches.palm") and t.ndim == 4)
    assert not torch.equal(before[name], after[name])
    assert torch.allclose(before[name], after[name], atol=1e-3)


@pytest.mark.slow
def test_a_training_starts_from_branches_by_name_and_folder(packed: Made, tmp_path: Path) -> None:
    init = ["acme/palm.v1", str(packed.runs / "one/vein_local/model")]
    changes = {**SMALL, "model": "acme/joined", "init": init, "cache_features": 1}
    path = train("stage2_plan_a", tmp_path / "run", overrides=changes, machine=CPU)
    model = pvzoo.create(f"local-dir:{path}").state_dict()
    for name, source in (("palm", "acme/palm.v1"), ("vein", init[1])):
        begun = pvzoo.create(source, pretrained=True) if name == "palm" else pvzoo.create(f"local-dir:{source}")
        keys = [key for key in begun.state_dict() if key.startswith(f"branches.{name}.")]
        assert keys and all(torch.equal(begun.state_dict()[key], model[key]) for key in keys)
    facts = json.loads((tmp_path / "run/run.json").read_text())
    assert [start["name"] for start in facts["init"]] == init
    assert facts["init"][1]["sha256"].keys() == {CONFIG, "model.safetensors"}


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("acme/bot", PvzooError, "init acme/bot: there is no such folder, and no model named 'acme/bot'; did you mean"),
        ("runs/none/model", PvzooError, "init runs/none/model: there is no such folder, and "),
        ("acme/both.v2", WeightsError, "there are no pretrained weights for acme/both.v2; it has v1"),
        (
            "stage2_shared",
            WeightsError,
            "there are no pretrained weights for stage2_shared; pvzoo.list_models(pretrained=",
        ),
        ("none.safetensors", WeightsError, "none.safetensors: no such file"),
    ],
)
def test_a_start_that_is_not_there(
    packed: Made, name: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    for start in (
        lambda: find_start(name),
        lambda: train("stage2_plan_b", tmp_path / "run", overrides={"init": [name]}),
    ):
        with pytest.raises(error) as caught:
            start()
        assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()  # found out before anything was begun


# --- trained again ----------------------------------------------------------------------------------------------------


def test_reproduce(packed: Made, call: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "again"
    done = call("reproduce", "acme/both", "--out", out, "--accelerator", "cpu")
    assert done.code == 0, done.out + done.err
    *rows, file = done.out.splitlines()
    metrics = packed.entry("acme/both.v1")["metrics"]
    titles = [Metric.model_validate(metric).title for metric in metrics]
    assert [row.split("\t")[0] for row in rows] == titles and {"eer", "eer, palm only"} <= set(titles)
    assert {row.split("\t")[-1] for row in rows} == {"inside"}
    assert rows[0].split("\t")[1] == f"{metrics[0]['value']:.4g}"
    found = json.loads(Path(file).read_text())
    assert (found["name"], len(found["figures"])) == ("acme/both.v1", len(metrics))
    assert json.loads((out / "run.json").read_text())["init"][0]["name"] == "acme/palm.v1"
    assert call("reproduce", "acme/both", "--out", out, "--accelerator", "cpu").err.endswith(
        f"{out}: holds a run; --resume goes on with it, or choose another folder\n"
    )
    # Figures that nobody can get: the run that has ended is compared with them.
    wrong = packed.manifest
    wrong["weights"]["acme/both.v1"]["metrics"][0] |= {"value": 0.9, "low": 0.89, "high": 0.91}
    with using(acme(wrong, packed.package)):
        done = call("reproduce", "acme/both.v1", "--out", out, "--resume", "--accelerator", "cpu")
    assert done.code == 1
    assert [row.split("\t")[-1] for row in done.out.splitlines()[:-1]] == ["OUTSIDE", *["inside"] * (len(metrics) - 1)]
    assert done.err.endswith(f"1 of {len(metrics)} figures lie outside the recorded interval\n")
    assert json.loads((out / "reproduced.json").read_text())["figures"][0]["inside"] is False


@pytest.mark.slow
def test_a_branch_of_a_run_is_reproduced_from_its_place(packed: Made, call: Callable[..., Any], tmp_path: Path) -> None:
    done = call("reproduce", "acme/palm.v1", "--out", tmp_path / "again", "--accelerator", "cpu")
    assert done.code == 0, done.out + done.err
    assert (tmp_path / "again/palm_local/model/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda e: e.pop("recipe"),
            "the manifest records no recipe of acme/both.v1 that can be run; its author did not",
        ),
        (lambda e: e.pop("metrics"), "the manifest records no figures of acme/both.v1 to compare with"),
        (
            lambda e: e["metrics"][0].update(protocol="open_subject, test"),
            "'open_subject, test' is no protocol; it is wri",
        ),
        (
            lambda e: e["metrics"][0].update(dataset="Tongji"),
            "Tongji: neither a SynthPalm release nor a table or folder",
        ),
        (
            lambda e: e["recipe"].update(content={"epoch": 3}, sha256=recipe_digest({"epoch": 3})),
            "recipe: epoch: unknown field; did you mean 'epochs'?",
        ),
    ],
)
def test_what_cannot_be_reproduced(
    packed: Made, change: Callable[[Any], None], message: str, call: Callable[..., Any], tmp_path: Path
) -> None:
    wrong = packed.manifest
    change(wrong["weights"]["acme/both.v1"])
    with using(acme(wrong, packed.package)):
        done = call("reproduce", "acme/both", "--out", tmp_path / "again")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith(f"error: {message}")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("acme/bot", UnknownNameError, "no model named 'acme/bot'; did you mean"),
        (
            "acme/both.v2",
            WeightsError,
            "no manifest lists weights for acme/both.v2, so there is nothing to reproduce; it has v1",
        ),
        (
            "stage2_shared",
            WeightsError,
            "no manifest lists weights for stage2_shared, so there is nothing to reproduce",
        ),
    ],
)
def test_what_is_not_recorded(packed: Made, name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        recorded(name)
    assert str(caught.value).startswith(message)


SIXTH = 0.166667  # as 1/6 is recorded, which is less


@pytest.mark.parametrize(
    ("recorded", "inside", "outside"),
    [
        ((0.5, 0.4, 0.6), (0.4, 0.45, 0.6), (0.39, 0.61, float("nan"))),
        ((0.5, None, None), (0.5,), (0.51, float("nan"))),
        ((SIXTH, None, None), (1 / 6, SIXTH), (0.166668, 0.166666)),
        ((SIXTH, SIXTH, SIXTH), (1 / 6, SIXTH), (0.166668, 0.166666)),
        ((0.2, SIXTH, 0.333333), (1 / 6, 1 / 3), (0.166666, 0.333334)),
        ((1 / 6, None, None), (1 / 6, SIXTH), (0.166668,)),  # by hand, in full
        ((0.0, None, None), (0.0,), (1e-6,)),
    ],
)
def test_inside_is_the_interval_or_the_same_value(
    recorded: tuple[float, float | None, float | None], inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    value, low, high = recorded
    where = {"dataset": "synthpalm-mini", "protocol": "open_subject", "genuine": 10, "impostor": 20}
    metric = Metric(name="eer", value=value, low=low, high=high, **where)
    assert all(Again(metric, found).inside for found in inside)
    assert not any(Again(metric, found).inside for found in outside)


@pytest.mark.parametrize("name", ["open_subject", "closed_mixed", "few_shot_k"])
def test_a_protocol_is_read_as_it_is_written(name: str) -> None:
    table = open_images(Data(source="synthpalm-mini")).table
    split = open_protocol(name, {"seed": 3, "gallery": "first"}).split(table)
    again = read_protocol(split.protocol).split(table)
    assert (again.protocol, again.test.samples, again.train) == (split.protocol, split.test.samples, split.train)
    with pytest.raises(DataError, match=r"^'open_subject\(1\)' is no protocol; it is written as name\(parameter=value"):
        read_protocol("open_subject(1)")
