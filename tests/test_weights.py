"""Saving and loading: exact, or not at all."""

from __future__ import annotations

import copy
import json
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import PALM, TINY, batch, randomise
from torch import nn
from unprivileged import unprivileged

import pvzoo
from pvzoo.cli.loading import open_model
from pvzoo.errors import PvzooError, SpecError, WeightsError
from pvzoo.model import Model
from pvzoo.plugins import Host, using
from pvzoo.tensorfile import METADATA_KEY, read_header
from pvzoo.threshold import Threshold
from pvzoo.training.starts import find_start
from pvzoo.weights import header_at, load_branches, skip_init


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Model, Path]:
    """A small model with values that matter, and the folder that it was saved in."""
    model = pvzoo.create(TINY)
    randomise(model)
    return model, model.save(tmp_path / "saved")


FRESH = """
import sys, torch, pvzoo
from pathlib import Path
from safetensors.torch import load_file, save_file
for folder in map(Path, sys.argv[1:]):
    data = load_file(folder / "in.safetensors")
    model = pvzoo.create(f"local-dir:{folder / 'model'}")
    with torch.inference_mode():
        out = model(*(data[m] for m in model.spec.modalities), labels=data["labels"])
    save_file({"logits": out.logits, "embedding": out.embedding}, folder / "out.safetensors")
"""
MODELS: dict[str, dict[str, Any]] = {
    "1 channel": {},
    "3 channels": {"preprocessing.channels": 3},
    "2 channels, not square": {"preprocessing.channels": 2, "preprocessing.size": [96, 64]},
    "shared": {"share_branches": True},
    "unimodal": {"modalities": ["palm"], "preprocessing.size": 100},
    "trimodal": {"modalities": ["palm", "vein", "dorsal"], "fusion.local": "cross_attention"},
    "adaface": {"embedding.bnneck": True, "head": "adaface"},
    "timm": {"branches.local.backbone": {"name": "timm", "params": {"arch": "resnet10t"}}, "fusion.local": "iaff"},
}


@pytest.fixture(scope="module")
def here_and_there(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """What each model gives in this process, and what it gives after a fresh one has loaded it."""
    folders = {name: tmp_path_factory.mktemp("fresh") for name in MODELS}
    here = {}
    for name, folder in folders.items():
        model = pvzoo.create(TINY, **MODELS[name])
        randomise(model)
        model.save(folder / "model")
        images = dict(zip(model.spec.modalities, batch(model), strict=True))
        labels = torch.tensor([0, 1, 4])
        with torch.inference_mode():
            logits, embedding, _ = model(**images, labels=labels)
        here[name] = {"logits": logits, "embedding": embedding}
        save_file({**images, "labels": labels}, folder / "in.safetensors")
    subprocess.run([sys.executable, "-c", FRESH, *folders.values()], check=True)
    return {name: (here[name], load_file(folder / "out.safetensors")) for name, folder in folders.items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_fresh_process_gives_the_same_bits(name: str, here_and_there: dict[str, Any]) -> None:
    here, there = here_and_there[name]
    assert set(here) == set(there) == {"logits", "embedding"}
    for output, values in here.items():
        assert torch.equal(there[output], values), output


def test_a_folder_holds_the_spec_twice_the_weights_and_a_card(trained) -> None:
    model, folder = trained
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config == model.spec.to_dict() == read_header(folder / "model.safetensors").about.spec
    card = (folder / "README.md").read_text()
    assert 'pvzoo.create("local-dir:.")' in card
    assert "efficientvit_m0 (vector), linear, channel_attention, 16" in card


def test_saving_twice_gives_the_same_bytes(trained, tmp_path: Path) -> None:
    model, folder = trained
    again = pvzoo.create(f"local-dir:{folder}").save(tmp_path / "again")
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    model.save(folder)  # over an earlier save
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_one_file_is_enough(trained) -> None:
    model, folder = trained
    loaded = pvzoo.load(folder / "model.safetensors")
    images = batch(model)
    assert torch.equal(loaded.embed(*images), model.embed(*images))


def test_the_report_accounts_for_every_tensor(trained) -> None:
    model, folder = trained
    report = pvzoo.create(f"local-dir:{folder}").load_report
    assert set(report.loaded) == set(model.state_dict())
    assert (report.adapted, report.initialised, report.skipped) == ((), (), ())
    assert (
        str(report) == f"{folder}/model.safetensors: {len(report.loaded)} loaded, 0 adapted, 0 initialised, 0 skipped"
    )


def test_a_new_number_of_classes_gives_a_new_class_matrix_and_nothing_else(trained) -> None:
    model, folder = trained
    torch.manual_seed(0)
    loaded = pvzoo.create(f"local-dir:{folder}", num_classes=9)
    assert loaded.load_report.initialised == loaded.load_report.skipped == ("head.weight",)
    assert loaded.head.weight.shape == (9, 32)
    assert 0.005 < loaded.head.weight.std() < 0.02  # initialised as ArcFace does, not left as memory was
    images = batch(model)
    assert torch.equal(loaded.embed(*images), model.embed(*images))


@pytest.mark.parametrize(
    ("overrides", "initialised"),
    [({"num_classes": 0}, ()), ({"head": "linear"}, ("head.weight", "head.bias"))],
    ids=["no head", "another head"],
)
def test_the_head_may_change(trained, overrides: dict[str, Any], initialised: tuple[str, ...]) -> None:
    _, folder = trained
    report = pvzoo.create(f"local-dir:{folder}", **overrides).load_report
    assert set(report.initialised) == set(initialised)
    assert report.skipped == ("head.weight",)


def test_a_new_margin_keeps_the_class_matrix(trained) -> None:
    model, folder = trained
    loaded = pvzoo.create(f"local-dir:{folder}", **{"head.params.margin": 0.3})
    assert loaded.head.margin == 0.3
    assert loaded.load_report.initialised == ()
    assert torch.equal(loaded.head.weight, model.head.weight)


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ({"in_chans": 3}, "branches.palm.global_.net.patch_embed.conv1.conv.weight is (8, 1, 3, 3) in the file and"),
        ({"image_size": 224}, "attention_biases is (4, 16) in the file and (4, 49) in the model"),
        ({"fusion.local": "sum"}, "unexpected fusions.local.score.0.weight (8, 32, 1, 1)"),
        ({"modalities": ["palm"]}, "unexpected alignments.vein"),
        ({"branches.local.backbone": "convnext_nano"}, "stages.0.blocks.0.norm.weight is (40,) in the file and (80,)"),
        ({"embedding.bnneck": True}, "missing neck.weight (32,)"),
    ],
)
def test_any_other_difference_is_an_error(trained, overrides: dict[str, Any], fault: str) -> None:
    _, folder = trained
    with pytest.raises(WeightsError, match="not the weights of this model") as caught:
        pvzoo.create(f"local-dir:{folder}", **overrides)
    assert fault in str(caught.value)


def damage(kind: str, path: Path) -> None:
    """Makes one kind of bad file of a good one."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}  # load_file maps the file
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "short":
        path.write_bytes(data[:5])
    elif kind == "cut header":
        path.write_bytes(data[: length // 2])
    elif kind == "cut data":
        path.write_bytes(data[:-1000])
    elif kind == "longer":
        path.write_bytes(data + b"\0" * 100)
    elif kind == "huge header":
        path.write_bytes(struct.pack("<Q", 2**60) + data[8:])
    elif kind == "not JSON":
        path.write_bytes(data[:8] + b"x" * length + data[8 + length :])
    elif kind == "pickle":
        torch.save(tensors, path)
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        if kind == "one missing":
            del tensors["head.weight"]
        elif kind == "one too many":
            tensors["stowaway"] = torch.zeros(3)
        elif kind == "transposed":
            tensors["head.weight"] = tensors["head.weight"].T.contiguous()
        elif kind == "integers":
            tensors["head.weight"] = tensors["head.weight"].long()
        elif kind == "short integers":
            counter = next(name for name in tensors if name.endswith("num_batches_tracked"))
            tensors[counter] = tensors[counter].to(torch.int32)
        elif kind == "float8":
            tensors["head.weight"] = tensors["head.weight"].to(torch.float8_e4m3fn)
        elif kind == "renamed":
            tensors = {name.replace("branches", "branch"): tensor for name, tensor in tensors.items()}
        wrong = kind in ("wrong metadata", "later metadata")
        about = {"spec": read_spec(path), "dtype": "save" if wrong else "float32"}
        metadata = json.dumps({**about, "pvzoo": "9.1"} if kind == "later metadata" else about)
        save_file(tensors, path, metadata={METADATA_KEY: "{" if kind == "metadata not JSON" else metadata})


def read_spec(path: Path) -> Any:
    return json.loads((path.parent / "config.json").read_text())


DAMAGE = {
    "missing": "no such file",
    "empty": "the file is empty",
    "short": "not a whole safetensors file",
    "cut header": "not a whole safetensors file",
    "cut data": "not a whole safetensors file",
    "longer": "not a whole safetensors file",
    "huge header": "not a whole safetensors file",
    "not JSON": "not a whole safetensors file",
    "pickle": "not a whole safetensors file",
    "folder": "there is no model.safetensors in it|cannot be read|no such file",
    "one missing": "missing head.weight (5, 32)",
    "one too many": "unexpected stowaway (3,)",
    "transposed": "head.weight is (32, 5) in the file and (5, 32) in the model",
    "integers": "head.weight is torch.int64 in the file and torch.float32 in the model",
    "short integers": "num_batches_tracked is torch.int32 in the file and torch.int64 in the model",
    "float8": "tensors of type F8_E4M3 are not supported",
    "renamed": "missing branches.palm",
    "wrong metadata": "its metadata under 'pvzoo' is wrong: dtype: Input should be 'float16', 'bfloat16', 'float32'",
    "later metadata": f"was saved by pvzoo 9.1, and this is {pvzoo.__version__}: pip install -U 'pvzoo>=9.1'",
    "metadata not JSON": "its metadata under 'pvzoo' is wrong: all of it: Invalid JSON",
}


@pytest.mark.parametrize(("kind", "fault"), DAMAGE.items(), ids=DAMAGE)
def test_a_wrong_file_is_an_error_and_leaves_the_model_untouched(trained, kind: str, fault: str) -> None:
    model, folder = trained
    file = folder / "model.safetensors"
    damage(kind, file)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        model.load_weights(file)
    assert any(part in str(caught.value) for part in fault.split("|")), caught.value
    assert str(file) in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.load_report is None
    with pytest.raises(WeightsError):
        pvzoo.create(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("change", "error", "fault"),
    [
        (lambda folder: shutil.rmtree(folder), WeightsError, "no such folder"),
        (lambda folder: (folder / "config.json").unlink(), WeightsError, "there is no config.json in it"),
        (lambda folder: (folder / "config.json").write_text("{"), WeightsError, "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), WeightsError, "should be a mapping"),
        (lambda folder: (folder / "config.json").write_text("[" * 10_000), WeightsError, "cannot be read"),
        (
            lambda folder: (folder / "config.json").write_text(
                (folder / "config.json").read_text().replace('"num_classes": 5', '"num_classes": 6')
            ),
            WeightsError,
            "config.json and model.safetensors come from different saves; they differ in num_classes",
        ),
    ],
)
def test_a_damaged_folder_is_named(trained, change, error: type[PvzooError], fault: str) -> None:
    _, folder = trained
    change(folder)
    with pytest.raises(error, match=fault):
        pvzoo.create(f"local-dir:{folder}")


@pytest.mark.skipif(sys.platform == "win32", reason="modes of folders mean nothing there")
def test_a_folder_behind_a_barred_one_is_an_error(trained, tmp_path: Path) -> None:
    model, folder = trained
    calls = (
        lambda: pvzoo.create(f"local-dir:{folder}"),
        lambda: pvzoo.create(folder),
        lambda: pvzoo.create("stage2_spatial", pretrained=folder),
        lambda: model.load_weights(folder),
        lambda: open_model(str(folder), "cpu", 0),
        lambda: find_start(str(folder)),
    )
    tmp_path.chmod(0o700)
    with unprivileged(tmp_path.parent):
        for call in calls:
            with pytest.raises(WeightsError, match=f"^{folder}: cannot be read: Permission denied$"):
                call()


def test_a_default_device_is_that_of_loaded_weights_too(trained) -> None:
    _, folder = trained
    with torch.device("meta"):
        assert pvzoo.create(f"local-dir:{folder}").device.type == "meta"
        assert pvzoo.create(f"local-dir:{folder}", device="cpu").device.type == "cpu"


def test_what_other_images_do_to_shapes_is_said(trained) -> None:
    _, folder = trained
    said = "which were trained on images of 1 x 64 x 64, and the model takes 1 x 128 x 96:\n  branches"
    with pytest.raises(WeightsError, match=said):
        pvzoo.create(f"local-dir:{folder}", image_size=(128, 96))


def test_saved_files_have_the_rights_of_any_new_file(trained, tmp_path: Path) -> None:
    _, folder = trained
    (tmp_path / "new").touch()
    assert {file.stat().st_mode for file in folder.iterdir()} == {(tmp_path / "new").stat().st_mode}


def test_a_folder_is_no_weights_file(trained) -> None:
    _, folder = trained
    message = f"{folder}: is a folder; its model is created by pvzoo.create('local-dir:{folder}')"
    with pytest.raises(WeightsError, match=f"^{re.escape(message)}$"):
        pvzoo.load(folder)


def test_a_saved_config_is_a_spec_file_whatever_its_letters(tmp_path: Path) -> None:
    folder = pvzoo.create(TINY, summary="\u638c \N{RAISED HAND WITH FINGERS SPLAYED}").save(tmp_path / "model")
    assert pvzoo.create(folder / "config.json", device="meta").spec == pvzoo.create(f"local-dir:{folder}").spec


def test_a_file_without_a_spec_can_only_fill_a_model(trained, tmp_path: Path) -> None:
    model, folder = trained
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(folder / "model.safetensors"), bare)
    with pytest.raises(WeightsError, match=r"holds no pvzoo spec; build a model and use model\.load_weights"):
        pvzoo.load(bare)
    other = pvzoo.create(TINY)
    assert other.load_weights(bare).loaded == tuple(model.state_dict())
    images = batch(model)
    assert torch.equal(other.embed(*images), model.embed(*images))


def test_weights_loaded_after_a_forward_pass_are_the_ones_used(trained) -> None:
    model, folder = trained
    other = pvzoo.create(TINY)
    randomise(other, seed=5)
    images = batch(model)
    other.embed(*images)  # timm's EfficientViT keeps its attention biases from here
    other.load_weights(folder)
    assert torch.equal(other.embed(*images), model.embed(*images))


def test_loading_keeps_modes_and_frozen_parameters(trained) -> None:
    _, folder = trained
    model = pvzoo.create(TINY).train()
    model.branches["palm"].eval().requires_grad_(False)
    parameters = list(model.parameters())
    model.load_weights(folder)
    assert model.training
    assert not model.branches["palm"]["local"].training
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))  # an optimiser still holds them
    assert not any(p.requires_grad for p in model.branches["palm"].parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_not_saved(tmp_path: Path, value: float) -> None:
    model = pvzoo.create(TINY)
    with torch.no_grad():
        model.head.weight[0, 0] = value
    with pytest.raises(WeightsError, match=r"head\.weight holds NaN or infinite values; nothing was saved"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_half_precision_on_disk_is_float32_again_when_loaded(trained, tmp_path: Path) -> None:
    model, _ = trained
    folder = model.save(tmp_path / "half", dtype=torch.float16)
    assert (folder / "model.safetensors").stat().st_size < 0.6 * (trained[1] / "model.safetensors").stat().st_size
    loaded = pvzoo.create(f"local-dir:{folder}")
    assert loaded.dtype is torch.float32
    assert "head.weight" in loaded.load_report.adapted
    assert torch.equal(loaded.head.weight, model.head.weight.half().float())
    with torch.no_grad():
        model.head.weight[0, 0] = 1e6
    with pytest.raises(WeightsError, match=r"infinite values as torch\.float16"):
        model.save(tmp_path / "half", dtype=torch.float16)
    assert pvzoo.create(f"local-dir:{folder}").load_report  # the earlier save is still whole


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_keeps_its_own_type(tmp_path: Path, dtype: torch.dtype) -> None:
    model = pvzoo.create(TINY, dtype=dtype)
    folder = model.save(tmp_path / "model")
    loaded = pvzoo.create(f"local-dir:{folder}")
    assert loaded.dtype is dtype
    images = [image.to(dtype) for image in batch(model, 1)]
    assert torch.equal(loaded.embed(*images), model.embed(*images))
    assert pvzoo.create(f"local-dir:{folder}", dtype=torch.float32).dtype is torch.float32


def test_no_buffer_is_left_on_the_meta_device(trained) -> None:
    _, folder = trained
    loaded = pvzoo.create(f"local-dir:{folder}")
    assert not any(tensor.is_meta for tensor in [*loaded.parameters(), *loaded.buffers()])
    on_meta = pvzoo.create(TINY, device="meta")
    assert all(tensor.is_meta for tensor in [*on_meta.parameters(), *on_meta.buffers()])
    with pytest.raises(WeightsError, match="is on the meta device, and non-persistent buffers would stay there"):
        on_meta.load_weights(folder)
    with pytest.raises(WeightsError, match="is on the meta device and has no values to save"):
        on_meta.save(folder)


def test_loading_does_not_initialise_first() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with skip_init():
        built = pvzoo.Model(pvzoo.spec("stage2_spatial_nano"))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(built.state_dict()) > 1000
    with skip_init():
        tensor = torch.zeros(4).normal_()  # not a parameter
    assert tensor.abs().sum() > 0


class Unsteady(nn.Module):
    """A fusion whose hidden buffer is random at each build."""

    def __init__(self, params: Any, *, modalities: Any, shape: Any) -> None:
        super().__init__()
        self.register_buffer("mask", torch.rand(shape.dim), persistent=False)

    def forward(self, features: Any) -> pvzoo.Fused:
        return pvzoo.Fused(sum(x for x in features.values() if x is not None) * self.mask)


class Tied(nn.Module):
    """A fusion with one tensor under two names, and a slice of a larger tensor."""

    def __init__(self, params: Any, *, modalities: Any, shape: Any) -> None:
        super().__init__()
        self.first = nn.Linear(shape.dim, shape.dim)
        self.second = nn.Linear(shape.dim, shape.dim)
        self.second.weight = self.first.weight
        self.register_buffer("part", torch.arange(100.0)[: shape.dim])

    def forward(self, features: Any) -> pvzoo.Fused:
        palm, vein = features.values()
        return pvzoo.Fused(self.first(palm) + self.second(vein) * self.part)


class Plugin:
    @pvzoo.hookimpl
    def register_fusions(self, register: Any) -> None:
        register("acme/unsteady", build=Unsteady, accepts={"vector", "map"})
        register("acme/tied", build=Tied, accepts={"vector"})


@pytest.fixture
def acme():
    host = Host(plugins=[])
    host.add("acme", Plugin(), distribution="pvzoo-acme", version="0.3")
    with using(host):
        yield


def test_a_buffer_that_no_file_holds_and_that_comes_out_different_is_refused(acme, tmp_path: Path) -> None:
    model = pvzoo.create(TINY, **{"fusion.global": "acme/unsteady"})
    folder = model.save(tmp_path / "model")
    with pytest.raises(WeightsError) as caught:
        pvzoo.create(f"local-dir:{folder}")
    assert "fusions.global_.mask is not saved, and computing it anew gave other values" in str(caught.value)


def test_tied_tensors_are_saved_once_and_stay_tied(acme, tmp_path: Path) -> None:
    model = pvzoo.create(TINY, **{"fusion.global": "acme/tied"})
    randomise(model)
    folder = model.save(tmp_path / "model")
    names = read_header(folder / "model.safetensors").tensors
    assert "fusions.global_.first.weight" in names
    assert "fusions.global_.second.weight" not in names
    loaded = pvzoo.create(f"local-dir:{folder}")
    assert loaded.fusions["global"].first.weight is loaded.fusions["global"].second.weight
    images = batch(model)
    assert torch.equal(loaded.embed(*images), model.embed(*images))


def test_a_saved_model_names_the_plugin_that_it_needs(acme, tmp_path: Path) -> None:
    folder = pvzoo.create(TINY, **{"fusion.global": "acme/tied"}).save(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    assert config["requires"] == {"acme": {"distribution": "pvzoo-acme", "version": "0.3"}}
    assert config["fusion"]["global"]["name"] == "acme/tied@1"
    assert "pip install pvzoo-acme" in (folder / "README.md").read_text()
    with (
        using(Host(plugins=[])),
        pytest.raises(SpecError, match=r"saved with pvzoo-acme 0\.3\); pip install pvzoo-acme"),
    ):
        pvzoo.create(f"local-dir:{folder}")


def test_untrained_weights_are_known_as_such(tmp_path: Path) -> None:
    model = pvzoo.create(TINY)
    assert model.untrained
    assert copy.deepcopy(model).bfloat16().untrained
    folder = model.save(tmp_path / "fresh")
    assert "never trained" in (folder / "README.md").read_text()
    loaded = pvzoo.create(f"local-dir:{folder}")
    assert loaded.untrained
    with torch.no_grad():
        loaded.head.weight.mul_(1.5)  # as a training step would
    assert not loaded.untrained
    folder = loaded.save(tmp_path / "trained")
    assert "never trained" not in (folder / "README.md").read_text()
    assert not pvzoo.create(f"local-dir:{folder}").untrained


STAGE1 = (
    "stage1_efficientvit_palm",
    "stage1_efficientvit_vein",
    "stage1_convnext_palm_nano",
    "stage1_convnext_vein_nano",
)


@pytest.fixture(scope="module")
def four_branches(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The four stage-1 models of ``stage2_spatial_nano``, saved."""
    folder = tmp_path_factory.mktemp("stage1")
    paths = []
    for seed, name in enumerate(STAGE1):
        model = pvzoo.create(name)
        randomise(model, seed)
        paths.append(model.save(folder / name))
    return paths


def test_stage_2_starts_from_four_stage_1_models(four_branches: list[Path]) -> None:
    fused = pvzoo.create("stage2_spatial_nano")
    head = fused.head.weight.clone()
    report = fused.load_branches(*four_branches)
    assert {name.split(".")[0] for name in report.loaded} == {"branches"}
    assert {name.split(".")[0] for name in report.initialised} == {"alignments", "fusions", "head"}
    assert set(report.skipped) == {"head.weight"}
    assert torch.equal(fused.head.weight, head)
    alone = pvzoo.create(f"local-dir:{four_branches[2]}")
    image = torch.rand(1, 1, 224, 224)
    kept = alone.features(image)["local"]["palm"]
    assert torch.equal(fused.branches["palm"]["local"](image, pool=True), kept)


@pytest.mark.parametrize(
    ("chosen", "fault"),
    [
        ([0, 1, 2], "no source holds branch vein.local; give one for every branch of the model"),
        ([0, 1, 2, 3, 3], "branch vein.local comes twice"),
        ([], "no source holds branch palm.global_, palm.local, vein.global_, vein.local"),
    ],
)
def test_branches_must_be_complete_and_once(four_branches: list[Path], chosen: list[int], fault: str) -> None:
    fused = pvzoo.create("stage2_spatial_nano")
    before = {name: tensor.clone() for name, tensor in fused.state_dict().items()}
    with pytest.raises(WeightsError, match=fault):
        fused.load_branches(*(four_branches[index] for index in chosen))
    assert all(torch.equal(before[name], tensor) for name, tensor in fused.state_dict().items())


def test_branches_of_another_architecture_are_refused(four_branches: list[Path], tmp_path: Path) -> None:
    fused = pvzoo.create("stage2_spatial_nano", **{"branches.local.backbone": "convnext_nano"})
    with pytest.raises(WeightsError, match=r"branch palm\.local is convnext_atto@1 in the file and convnext_nano@1 in"):
        fused.load_branches(*four_branches)
    only_global = pvzoo.create("stage2_global_nano")
    with pytest.raises(
        WeightsError, match=r"branch palm\.local is not in the model, which has palm\.global_, vein\.global_"
    ):
        only_global.load_branches(*four_branches)
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, other)
    with pytest.raises(WeightsError, match="holds no branches"):
        only_global.load_branches(other)


def test_branches_of_a_like_architecture_are_refused(tmp_path: Path) -> None:
    """Its tensors have the same names and shapes, and its convolutions pad otherwise."""

    def made(arch: str, **params: Any) -> Model:
        backbone = {"name": "timm", "params": {"arch": arch, **params}}
        return pvzoo.create({**PALM, "branches": {"local": {"backbone": backbone}}})

    folder = made("tf_efficientnet_b0").save(tmp_path / "tf")
    made("tf_efficientnet_b0", drop_path_rate=0.1).load_branches(folder)  # which matters in training alone
    with pytest.raises(WeightsError) as refused:
        made("efficientnet_b0").load_branches(folder)
    assert str(refused.value) == (
        f"{folder / 'model.safetensors'}: branch palm.local is timm@1 (arch=tf_efficientnet_b0) in the file and "
        "timm@1 (arch=efficientnet_b0) in the model; nothing was loaded"
    )


def test_a_branch_alone_starts_from_that_of_another_modality(four_branches: list[Path]) -> None:
    vein = pvzoo.create("stage1_convnext_vein_nano")
    report = vein.load_branches(four_branches[2])
    assert all(name.startswith("branches.vein.local.") for name in report.loaded)
    palm = pvzoo.create(f"local-dir:{four_branches[2]}")
    image = torch.rand(1, 1, 224, 224)
    assert torch.equal(vein.features(image)["local"]["vein"], palm.features(image)["local"]["palm"])
    with pytest.raises(WeightsError, match=r"branch vein\.global_ is not in the model, which has vein\.local"):
        vein.load_branches(four_branches[0])


def test_shared_branches_start_from_those_of_one_modality(four_branches: list[Path]) -> None:
    shared = pvzoo.create("stage2_shared_nano")
    shared.load_branches(four_branches[0], four_branches[2])
    assert not any(name.startswith("branches.vein") for name in shared.state_dict())
    image = torch.rand(1, 1, 224, 224)
    features = shared.features(image, image)
    assert torch.equal(features["local"]["palm"], features["local"]["vein"])


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with a threshold."""
    model = pvzoo.create({**TINY, "branches": {"local": TINY["branches"]["local"]}, "fusion": {"local": "sum"}})
    counts = {"fmr": 0.0, "fnmr": 0.0, "genuine": 10, "impostor": 90, "measured_on": "palms of 64 x 64"}
    model.set_thresholds([Threshold(value=0.5, rule="fmr", target=1e-2, **counts)])
    return model.save(tmp_path_factory.mktemp("judged"))


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"num_classes": 7}, True),
        ({"head": "cosface"}, True),
        ({"image_size": 96}, False),
        ({"preprocessing.mean": [0.1]}, False),
        ({"embedding.normalize": False}, False),
        ({"fusion.local": "max"}, False),
    ],
    ids=str,
)
def test_thresholds_are_of_the_scores_that_they_were_measured_on(
    judged: Path, changes: dict[str, Any], kept: bool
) -> None:
    model = pvzoo.create(f"local-dir:{judged}", **changes)
    assert bool(model.thresholds) is kept


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match=f"{tmp_path}/file/model: cannot be written"):
        pvzoo.create(TINY).save(tmp_path / "file" / "model")


KILLED = """
import sys, pvzoo
model = pvzoo.create("stage2_local_nano")
print("ready", flush=True)
while True:
    model.save(sys.argv[1])
"""


def test_a_killed_save_leaves_a_whole_model(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "m")], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    process.stdout.readline()
    while not (tmp_path / "m" / "README.md").exists():
        assert process.poll() is None
    process.kill()
    process.wait()
    process.stdout.close()
    assert pvzoo.create(f"local-dir:{tmp_path / 'm'}").load_report


@pytest.mark.parametrize(
    ("overrides", "fields"),
    [
        ({"fusion.global": "sum"}, "fusion"),
        ({"preprocessing.mean": [0.1]}, "preprocessing"),
        ({"head.params.margin": 0.3}, "head"),
    ],
)
def test_weights_of_another_computation_are_refused_although_the_tensors_fit(
    tmp_path: Path, overrides: dict[str, Any], fields: str
) -> None:
    parameterless = {"fusion.global": "max"}
    folder = pvzoo.create(TINY, **parameterless).save(tmp_path / "model")
    other = pvzoo.create(TINY, **(parameterless | overrides))
    with pytest.raises(WeightsError, match=f"was saved from a model with other {fields}; nothing was loaded"):
        other.load_weights(folder)


def test_branches_of_other_preprocessing_are_refused(four_branches: list[Path]) -> None:
    with pytest.raises(WeightsError, match="was saved from a model with other preprocessing"):
        pvzoo.create("stage2_spatial_nano", **{"preprocessing.mean": [0.1]}).load_branches(*four_branches)


def test_a_branch_of_another_image_size_is_where_a_training_starts_and_no_part_of_a_model(
    four_branches: list[Path],
) -> None:
    small = {"preprocessing.size": 96}
    vein = pvzoo.create("stage1_convnext_vein_nano", **small)
    with pytest.raises(WeightsError, match="was saved from a model with other preprocessing"):
        vein.load_branches(four_branches[2])
    load_branches(vein, [("palm", header_at(four_branches[2]))], any_size=True)
    palm = pvzoo.create(f"local-dir:{four_branches[2]}")
    stem = "branches.{}.local.net.stem.0.weight"
    assert torch.equal(vein.state_dict()[stem.format("vein")], palm.state_dict()[stem.format("palm")])
    fixed = pvzoo.create("stage1_efficientvit_palm", **small)  # whose position biases are of a size
    with pytest.raises(WeightsError, match="not the weights of this model"):
        load_branches(fixed, [("palm", header_at(four_branches[0]))], any_size=True)


def test_a_model_that_has_only_its_branches_is_untrained_still(four_branches: list[Path]) -> None:
    fused = pvzoo.create("stage2_spatial_nano")
    fused.load_branches(*four_branches)
    assert fused.untrained
    with torch.no_grad():
        fused.head.weight.mul_(1.5)
    assert not fused.untrained


def test_a_changed_model_does_not_bear_the_name_of_the_zoo() -> None:
    assert pvzoo.spec("stage2_spatial", num_classes=7).name == "stage2_spatial"
    changed = pvzoo.spec("stage2_spatial", **{"fusion.local": "sum"})
    assert (changed.name, changed.summary) == ("", "")
    assert pvzoo.spec("stage2_spatial", name="mine", **{"fusion.local": "sum"}).name == "mine"
