"""The manifest, the checker that computes it anew, and packages of weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import ROOT
from small import OWN, PALM, acme
from torch import nn

import pvzoo
from pvzoo import catalog
from pvzoo.errors import IntegrityError, PluginError, PvzooError, WeightsError
from pvzoo.hub import packages, verify
from pvzoo.manifest import CONFIG, INDEX, WEIGHTS, Facts, Manifest, Metric, Weights, read_manifest
from pvzoo.model import Model
from pvzoo.plugins import Host, using
from pvzoo.testing import check_weight_source
from pvzoo.threshold import Threshold
from pvzoo.weights import files_in

NAME = "acme/palm"
FACTS = Facts.model_validate(
    {
        "licence": "MIT",
        "data": [{"name": "SynthPalm 1", "origin": "synthetic"}],
        "intended_use": "Tests of packages.",
        "metrics": [
            {
                "name": "eer",
                "value": 0.0625,
                "low": 0.05,
                "high": 0.08,
                "dataset": "SynthPalm 1",
                "protocol": "open_subject, test",
                "genuine": 400,
                "impostor": 9000,
                "subjects": 40,
            }
        ],
    }
)
WHERE = "SynthPalm 1, open_subject, test (400 genuine, 9,000 impostor, 40 subjects)"
METRIC = f"eer 0.0625 [0.05 to 0.08] on {WHERE}"
CUT = Threshold(value=0.4, rule="eer", fmr=0.06, fnmr=0.06, genuine=400, impostor=9000)


def made(**changes: Any) -> Model:
    return pvzoo.create({**PALM, "name": NAME}, **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = made()
    model.set_thresholds([CUT])
    return model.save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def files(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in (CONFIG, WEIGHTS)}


@pytest.fixture(scope="module")
def entry(files: dict[str, Path]) -> Weights:
    return verify.describe(files, FACTS, repo="acme/tiny", revision="v1", build=Model)


# --- the form ---------------------------------------------------------------------------------------------------------


def plain(entry: Weights) -> dict[str, Any]:
    return entry.model_dump(mode="json")


def test_a_manifest_is_a_file(entry: Weights, tmp_path: Path) -> None:
    manifest = Manifest(weights={f"{NAME}.v1": entry})
    (tmp_path / "weights.json").write_text(manifest.to_json())
    assert read_manifest(tmp_path / "weights.json") == manifest == read_manifest(json.loads(manifest.to_json()))


SHA = "0" * 64
WRONG: dict[str, tuple[str, Any, str]] = {
    "no licence": ("licence", None, "licence: Input should be a valid string"),
    "a field too many": ("license", "MIT", "license: Extra inputs are not permitted"),
    "no config": (
        "files",
        {WEIGHTS: {"size": 1, "sha256": SHA}},
        "Value error, files needs config.json, and model.safe",
    ),
    "no weights": (
        "files",
        {CONFIG: {"size": 1, "sha256": SHA}},
        "Value error, files needs config.json, and model.safe",
    ),
    "no digest": (
        "files",
        {CONFIG: {"size": 1, "sha256": "abc"}},
        f"files.{CONFIG}.sha256: String should match pattern",
    ),
    "a way out": ("files", {"../x": {"size": 1, "sha256": SHA}}, "files.../x.[key]: String should match pattern"),
    "hidden": ("files", {".x": {"size": 1, "sha256": SHA}}, "files..x.[key]: String should match pattern"),
    "no repository": ("repo", "palm", "repo: String should match pattern"),
    "a version that is none": ("pvzoo", "new", "pvzoo: Value error, Invalid version: 'new'"),
    "another type": ("dtype", "int8", "dtype: Input should be 'float16', 'bfloat16', 'float32' or 'float64'"),
    "another recipe": (
        "recipe",
        {"name": "mine", "sha256": SHA, "content": {"epochs": 3}},
        "recipe: Value error, sha256 is 0000000000000000..., and that of content cc6325ab488e0c75...",
    ),
    "fewer than none": ("macs", -1, "macs: Input should be greater than or equal to 0"),
}


@pytest.mark.parametrize(("field", "value", "message"), WRONG.values(), ids=WRONG)
def test_an_entry_that_is_wrong_is_named(entry: Weights, field: str, value: Any, message: str) -> None:
    with pytest.raises(WeightsError) as caught:
        read_manifest({"weights": {f"{NAME}.v1": {**plain(entry), field: value}}})
    first = str(caught.value).splitlines()[1]
    assert first.startswith(f"  weights.{NAME}.v1.{message}") or first.startswith(f"  weights.{NAME}.v1: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Invalid JSON"),
        ('{"format": 2, "weights": {}}', "format: Input should be 1"),
        ("[]", "Input should be an object"),
    ],
)
def test_a_file_that_is_no_manifest(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "weights.json"
    path.write_text(text)
    with pytest.raises(WeightsError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"the weights manifest {path} is wrong:\n  ")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["palm", "palm.", ".v1", "palm.-v1", "palm.v 1"])
def test_an_entry_has_a_model_and_a_tag(entry: Weights, name: str) -> None:
    with pytest.raises(WeightsError, match=r"Value error, '.*' is not 'model.tag'"):
        read_manifest({"weights": {name: plain(entry)}})


def test_a_package_registers_a_manifest_or_names(entry: Weights) -> None:
    manifest = {"weights": {f"{NAME}.v1": plain(entry)}}
    for source, message in (
        ({"manifest": manifest, "provides": [f"{NAME}.v1"]}, "give provides or manifest, not both"),
        ({"manifest": "weights.json"}, "manifest must be a mapping or a path object, not 'weights.json'"),
        ({"manifest": {"weights": {"x": {}}}}, "the weights manifest is wrong:"),
        ({"pinned": {}}, "register() takes no 'pinned'"),
    ):
        with pytest.raises(PluginError) as caught:
            acme(build="a:b", **source)
        assert message in str(caught.value)


PACKAGES = [ROOT / "plugins" / name / name.replace("-", "_") for name in ("pvzoo-weights", "pvzoo-weights-nano")]


def test_the_zoo_s_own_manifest_is_that_of_the_packages_in_this_repository() -> None:
    large, small = (read_manifest(root / "weights.json").weights for root in PACKAGES)
    with using(Host(plugins=[])):
        (own,) = catalog.weight_sources()
    assert own.pinned == {**large, **small} == {**small, **large}


@pytest.mark.parametrize(
    "root", [pytest.param(root, marks=[pytest.mark.slow] * (root is PACKAGES[0]), id=root.name) for root in PACKAGES]
)
def test_the_zoo_s_weights_are_as_the_manifest_says(root: Path) -> None:
    """Each entry is a model of the zoo; digests, parameters, GMACs and thresholds are those of its files."""
    with using(Host(plugins=[])):
        for name, entry in read_manifest(root / "weights.json").weights.items():
            assert catalog.find_model(name).name == name.partition(".")[0]
            found = packages.Packaged(root).find(*catalog.split_tag(name))
            assert found is not None
            assert verify.faults(name, entry, found, Model) == []


def test_the_figures_of_the_front_page_are_those_of_the_manifest() -> None:
    large = read_manifest(PACKAGES[0] / "weights.json").weights

    def eer(metrics: tuple[Metric, ...]) -> Metric:
        return next(metric for metric in metrics if metric.name == "eer" and not metric.modalities[1:])

    both = eer(large["stage2_spatial.v1"].metrics)
    branches = [eer(entry.metrics).value for name, entry in large.items() if name.startswith("stage1_")]
    (floor,) = (eer(of) for name, of in large["stage2_spatial.v1"].floor.items() if name.startswith("CompCode"))
    assert both.low is not None and both.high is not None
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for part in (
        f"On {both.subjects} drawn people of `{both.dataset}` whom no weights have seen, `stage2_spatial` has an EER",
        f"EER of {100 * both.value:.2f} % (95 % interval by subject {100 * both.low:.2f} to {100 * both.high:.2f}), ",
        f"its branches alone {100 * min(branches):.2f} %, and CompCode, without training, {100 * floor.value:.2f} %.",
    ):
        assert part in text


def test_every_model_of_the_zoo_has_weights_but_the_shared_ones() -> None:
    """Which would be another 60 MB for one ablation."""
    with using(Host(plugins=[])):
        missing = {name for name in pvzoo.list_models() if not catalog.tags(name)}
    assert missing == {"stage2_shared", "stage2_shared_nano"}


def test_the_zoo_s_own_default_stays(entry: Weights) -> None:
    """A package adds tags to a model of the zoo; the first of pvzoo's own stays its default."""
    host = acme(build="a:b", manifest={"weights": {f"{NAME}.theirs": plain(entry), f"{NAME}.v1": plain(entry)}})
    own = catalog.WeightSource(name="own", build="a:b", manifest={"weights": {f"{NAME}.v1": plain(entry)}})
    host._registries["weight_source"].add(own)
    with using(host):
        assert catalog.tags(NAME) == ["v1", "theirs"]
        assert [source.name for source in catalog.weight_sources()] == ["acme/weights", "hub", "own"]


# --- computed anew ----------------------------------------------------------------------------------------------------


def counted(model: Model) -> int:
    """Multiplications of every convolution and linear layer by their shapes, in another way than the checker's."""
    total = 0

    def add(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        each = module.weight[0].numel() if isinstance(module, nn.Conv2d) else module.in_features
        total += output.numel() * each

    hooks = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    model(torch.zeros(1, 1, 64, 64))
    for hook in hooks:
        hook.remove()
    return total + model.head.weight.numel()  # the class matrix is a parameter, and no layer


def test_what_files_show_is_described(entry: Weights, folder: Path) -> None:
    model = pvzoo.create(f"local-dir:{folder}")
    assert entry.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert entry.macs == counted(model)
    assert entry.thresholds == (CUT,)
    assert (entry.dtype, entry.pvzoo) == ("float32", pvzoo.__version__)
    assert entry.files[WEIGHTS].size == (folder / WEIGHTS).stat().st_size
    assert entry.facts() == FACTS


def test_an_entry_that_is_right_has_no_faults(entry: Weights, files: dict[str, Path]) -> None:
    assert verify.faults(f"{NAME}.v1", entry, files, Model) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameters": 7}, "parameters is 206,552 in the files and 7 in the manifest"),
        ({"macs": 7}, "macs is 4,789,952 in the files and 7 in the manifest"),
        ({"dtype": "bfloat16"}, "dtype is float32 in the files and bfloat16 in the manifest"),
        ({"thresholds": ()}, f"thresholds is {CUT} in the files and none in the manifest"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_fact_that_the_files_do_not_show(
    entry: Weights, files: dict[str, Path], change: dict[str, Any], message: str
) -> None:
    wrong = entry.model_copy(update=change)
    assert verify.faults(f"{NAME}.v1", wrong, files, Model) == [f"{NAME}.v1: {message}"]


def test_files_that_are_others(entry: Weights, folder: Path, tmp_path: Path) -> None:
    other = made(num_classes=4).save(tmp_path / "other")
    listed = verify.faults(f"{NAME}.v1", entry, {name: other / name for name in (CONFIG, WEIGHTS)}, Model)
    assert [fault.split(" ")[1] for fault in listed] == ["parameters", "macs", "thresholds", "config.json", WEIGHTS]
    assert verify.faults("stage2_local.v1", entry, {name: folder / name for name in (CONFIG, WEIGHTS)}, Model) == [
        f"stage2_local.v1: config.json is of {NAME}"
    ]
    (other / WEIGHTS).write_bytes(b"")
    assert verify.faults(f"{NAME}.v1", entry, files_in(other), Model) == [
        f"{NAME}.v1: {other / WEIGHTS}: the file is empty"
    ]


# --- several files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    packages.shard(folder, tmp_path / "shards")
    return tmp_path / "shards"


def test_weights_in_several_files_are_the_same(folder: Path, shards: Path) -> None:
    whole, parts = pvzoo.create(f"local-dir:{folder}"), pvzoo.create(f"local-dir:{shards}")
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True))
    assert parts.thresholds == (CUT,)
    assert parts.load_report.source.endswith(INDEX)
    other = made()
    other.load_weights(shards)
    assert torch.equal(other.head.weight, whole.head.weight)
    index = json.loads((shards / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in whole.state_dict().values())
    assert set(index["weight_map"].values()) == {f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}


def test_a_model_that_is_sharded_twice_has_the_same_bytes(folder: Path, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    again = packages.shard(folder, tmp_path / "again")
    assert {name: path.read_bytes() for name, path in again.items()} == {
        path.name: path.read_bytes() for path in shards.iterdir()
    }


def change_index(change: Callable[[dict[str, str]], None]) -> Callable[[Path], None]:
    def apply(shards: Path) -> None:
        index = json.loads((shards / INDEX).read_text())
        change(index["weight_map"])
        (shards / INDEX).write_text(json.dumps(index))

    return apply


FIRST = "model-00001-of-00002.safetensors"
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no shard": (lambda shards: (shards / FIRST).unlink(), f"{INDEX}: there is no '{FIRST}' beside it"),
    "no JSON": (
        lambda shards: (shards / INDEX).write_text("{"),
        f"{INDEX}: not an index of weights files: Invalid JSON",
    ),
    "a way out": (
        change_index(lambda listed: listed.update({"head.weight": "../model.safetensors"})),
        f"{INDEX}: not an index of weights files: String should match pattern",
    ),
    "a tensor that is not there": (
        change_index(lambda listed: listed.update({"head.bias": FIRST})),
        f"{INDEX}: its files are not those that it lists; they differ in head.bias",
    ),
    "a tensor too few": (
        change_index(lambda listed: listed.pop(sorted(listed)[0]) and None),
        f"{INDEX}: its files are not those that it lists; they differ in ",
    ),
    "a tensor elsewhere": (
        change_index(lambda listed: listed.update({"head.weight": FIRST})),
        f"{INDEX}: its files are not those that it lists; they differ in head.weight",
    ),
    "a shard cut short": (
        lambda shards: (shards / FIRST).write_bytes((shards / FIRST).read_bytes()[:-4]),
        f"{FIRST}: not a whole safetensors file",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_several_files_that_do_not_fit(shards: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(shards)
    with pytest.raises(WeightsError) as caught:
        pvzoo.create(f"local-dir:{shards}")
    assert str(caught.value).startswith(f"{shards}/{message}")


# --- a package of weights ---------------------------------------------------------------------------------------------

HOOKS = """
import pvzoo
from importlib.resources import files

SPEC = {spec!r}

@pvzoo.hookimpl
def register_models(register):
    register("palmlab/palm", spec=SPEC, summary="One small branch")

@pvzoo.hookimpl
def register_weight_sources(register):
    register("palmlab/weights", build="pvzoo_palmlab:source", manifest=files(__name__) / "weights.json",
             summary="Two small palms")

def source(params):
    from pvzoo.hub.packages import Packaged
    return Packaged(files(__name__))
"""


@pytest.fixture
def package(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with two models that have their branch in common; nothing of it is imported yet."""
    root = site.path / "pvzoo_palmlab"
    root.mkdir()
    (root / "__init__.py").write_text(HOOKS.format(spec=PALM))
    site.metadata("pvzoo-palmlab", "0.2", ["pvzoo>=0.1,<1"], "palmlab = pvzoo_palmlab")
    first = pvzoo.create({**PALM, "name": "palmlab/palm"})
    second = pvzoo.create({**PALM, "name": "palmlab/palm"}, num_classes=5)
    second.load_branches(first.save(tmp_path / "a"))
    second.save(tmp_path / "b")
    for tag in ("a", "b"):
        packages.add(
            root, tmp_path / tag, f"palmlab/palm.{tag}", FACTS, repo=f"palmlab/palm-{tag}", revision="v1", build=Model
        )
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("PVZOO_CACHE", str(tmp_path / "notes"))
    return root


@pytest.fixture
def palmlab(package: Path, site: Any) -> Iterator[Path]:
    with using(site.host()):
        yield package


def same(model: Model, folder: Path) -> bool:
    saved = pvzoo.create(f"local-dir:{folder}").state_dict()
    return all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


def test_a_package_holds_what_models_share_once(palmlab: Path, tmp_path: Path) -> None:
    assert same(pvzoo.create("palmlab/palm", pretrained=True), tmp_path / "a")
    assert same(pvzoo.create("palmlab/palm", pretrained="b", offline=True), tmp_path / "b")
    assert pvzoo.list_models(pretrained=True) == ["palmlab/palm.a", "palmlab/palm.b", *OWN]
    assert len(list((palmlab / "files").iterdir())) == 2 * 3 + 1, (
        "config, index and rest of each, and the branch of both"
    )


def test_a_package_works_in_a_fresh_process(package: Path, site: Any, python: Callable[..., Any]) -> None:
    code = "import pvzoo; m = pvzoo.create('palmlab/palm.b', pretrained=True); print(m.spec.num_classes, m.load_report)"
    done = python("-c", code, path=site)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"5 {package}/files/")


def test_a_package_keeps_the_contract_of_sources(palmlab: Path) -> None:
    check_weight_source("palmlab/weights")


def test_an_entry_that_is_replaced_leaves_nothing_behind(palmlab: Path, tmp_path: Path) -> None:
    third = pvzoo.create({**PALM, "name": "palmlab/palm"}).save(tmp_path / "c")
    for tag in ("a", "b"):
        packages.add(palmlab, third, f"palmlab/palm.{tag}", FACTS, repo="palmlab/c", revision="v2", build=Model)
    assert len(list((palmlab / "files").iterdir())) == 4
    with pytest.raises(WeightsError, match=r"c: holds palmlab/palm, not stage2_local$"):
        packages.add(palmlab, third, "stage2_local.a", FACTS, repo="palmlab/c", revision="v2", build=Model)


def largest(root: Path) -> Path:
    return max((root / "files").iterdir(), key=lambda path: path.stat().st_size)


def test_damage_in_a_package_is_named_and_left(palmlab: Path) -> None:
    pvzoo.create("palmlab/palm", pretrained=True)
    path = largest(palmlab)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(IntegrityError) as caught:
            pvzoo.create("palmlab/palm", pretrained=True)
        what = "palmlab/palm.a from weight_source 'palmlab/weights' of pvzoo-palmlab 0.2"
        assert str(caught.value).startswith(f"{what}: {path} has the digest ")
        assert str(caught.value).endswith("; install it again, in the version that belongs to this pvzoo")
    path.unlink()
    with pytest.raises(IntegrityError, match=r" is missing; install it again"):
        pvzoo.create("palmlab/palm", pretrained=True)


def test_a_package_s_source_may_give_less_than_its_manifest(palmlab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = packages.Packaged.find
    for given, error, message in (
        (lambda files: {CONFIG: files[CONFIG]}, IntegrityError, "model-00001-of-00002.safetensors is missing; install"),
        (lambda files: 7, WeightsError, "gave int for palmlab/palm, and not a folder or its files by name"),
    ):
        monkeypatch.setattr(packages.Packaged, "find", lambda self, *args, given=given: given(find(self, *args)))
        with pytest.raises(error) as caught:
            pvzoo.create("palmlab/palm", pretrained=True)
        assert message in str(caught.value)


def test_the_zoo_s_pin_counts_for_a_package_too(palmlab: Path, entry: Weights) -> None:
    """A package cannot give other bytes under a name that pvzoo itself pins."""
    from pvzoo.plugins import host

    own = catalog.WeightSource(name="own", build="a:b", manifest={"weights": {"palmlab/palm.a": plain(entry)}})
    host().entries("model")
    host()._registries["weight_source"].add(own)
    with pytest.raises(
        IntegrityError, match=r"palmlab/palm.a from weight_source 'palmlab/weights' of pvzoo-palmlab 0.2: "
    ):
        pvzoo.create("palmlab/palm", pretrained="a")


# --- on the command line ----------------------------------------------------------------------------------------------


def test_lists_show_what_weights_are(palmlab: Path, call: Callable[..., Any]) -> None:
    sizes = "0.2 M parameters, 0.00479 GMACs, 849.2 kB"
    summary = f"MIT, {sizes}, trained on SynthPalm 1; {METRIC}"
    first, second, *_ = call("list", "--pretrained").out.splitlines()
    assert first == f"palmlab/palm.a\t{summary}"
    assert second.startswith("palmlab/palm.b\tMIT, ")
    listed = json.loads(call("list", "--pretrained", "--json").out)
    assert listed[0]["weights"]["metrics"][0]["subjects"] == 40
    shown = call("show", "palmlab/palm.a").out
    assert f"measured on\t{WHERE}\n\teer 0.0625 [0.05 to 0.08]\n" in shown
    assert "licence\tMIT\n" in shown
    assert "repository\tpalmlab/palm-a at v1\n" in shown
    assert "palmlab/palm.b (weights)" not in shown
    assert "palmlab/palm.b (weights)" in call("show", "palmlab/palm").out


def test_verify(palmlab: Path, call: Callable[..., Any]) -> None:
    done = call("verify", "palmlab/palm.b")
    assert (done.code, done.out) == (0, "palmlab/palm.b: ok, 4 files, 849.7 kB\n")
    assert call("verify", "--all").out.splitlines()[1] == done.out.strip()
    path = largest(palmlab)
    path.write_bytes(path.read_bytes() + b" ")
    done = call("verify", "--all")
    assert done.code == 1
    assert len(done.out.splitlines()) == 2
    for arguments, message in (
        (["palmlab/palm.c"], "the manifest lists no weights 'palmlab/palm.c'; did you mean 'palmlab/palm.b'?"),
        ([], "name weights, or give --all"),
        (["palmlab/palm.a", "--all"], "give names or --all, not both"),
    ):
        done = call("verify", *arguments)
        assert (done.code, done.err) == (2, f"error: {message}\n")


def test_weights_on_this_machine(palmlab: Path, call: Callable[..., Any], tmp_path: Path) -> None:
    out = call("weights", "--cache-dir", tmp_path / "none").out
    assert out.splitlines()[0] == "palmlab/palm.a\tpvzoo-palmlab\t\t849.2 kB"
    listed = json.loads(call("weights", "--cache-dir", tmp_path / "none", "--json").out)
    assert [each["name"] for each in listed] == ["palmlab/palm.a", "palmlab/palm.b"]


def test_weights_of_a_package_are_removed_with_it(palmlab: Path, call: Callable[..., Any], tmp_path: Path) -> None:
    done = call("weights", "remove", "palmlab/palm.a", "--cache-dir", tmp_path)
    message = (
        f"palmlab/palm.a is not in the cache {tmp_path}; the installed package pvzoo-palmlab lists it: "
        "'pip uninstall pvzoo-palmlab' removes that package"
    )
    assert (done.code, done.err) == (2, f"error: {message}\n")


def test_pull_gives_a_folder_for_a_machine_without_a_network(
    palmlab: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    assert call("pull", "palmlab/palm.b", "--out", tmp_path / "copy").code == 0
    assert same(pvzoo.create(f"local-dir:{tmp_path / 'copy'}"), tmp_path / "b")
    for name, message in (
        ("palmlab/plam", "no model named 'palmlab/plam'; did you mean 'palmlab/palm'?"),
        ("palmlab/palm.z", "there are no pretrained weights for palmlab/palm.z; it has a, b"),
    ):
        done = call("pull", name)
        assert (done.code, done.err) == (2, f"error: {message}\n")


def test_what_is_wrong_is_of_one_family() -> None:
    assert issubclass(IntegrityError, WeightsError)
    assert issubclass(pvzoo.HubError, PvzooError)
