"""Making models: everything that ``create`` accepts, what it changes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field
from small import OWN

import pvzoo
from pvzoo.errors import BuildError, PvzooError, SpecError, UnknownNameError, WeightsError
from pvzoo.model import Model
from pvzoo.plugins import Host, using

SMALL: dict[str, Any] = {
    "preprocessing": {"size": 64},
    "branches": {
        "local": {
            "backbone": "convnext_atto",
            "features": "map",
            "alignment": {"name": "conv1x1", "params": {"dim": 16}},
        },
    },
    "fusion": {"local": "spatial_attention"},
    "head": "arcface",
    "num_classes": 5,
}
FIELDS = (
    "pvzoo, name, summary, preprocessing, modalities, branches, share_branches, fusion, embedding, head, num_classes, "
    "requires"
)


def images(model: Model) -> list[torch.Tensor]:
    shape = (2, model.spec.preprocessing.channels, *model.spec.preprocessing.size)
    return [torch.rand(shape, generator=torch.Generator().manual_seed(1)) for _ in model.spec.modalities]


def refused(error: type[PvzooError], *arguments: Any, **options: Any) -> str:
    """The message of the error that ``create`` raises; of that very class, and with no model made."""
    with pytest.raises(error) as caught:
        pvzoo.create(*arguments, **options)
    assert type(caught.value) is error
    return str(caught.value)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that ``~`` stands for, and the working directory."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    return pvzoo.create(SMALL).save(tmp_path_factory.mktemp("models") / "small")


# Sources

SOURCES = {
    "mapping": lambda folder: SMALL,
    "spec": lambda folder: pvzoo.ModelSpec.model_validate(SMALL),
    "spec of another model": lambda folder: pvzoo.create(SMALL, device="meta").spec,
    "YAML, as text": lambda folder: str(folder / "small.yaml"),
    "YAML, as path": lambda folder: folder / "small.yaml",
    "yml": lambda folder: str(folder / "small.yml"),
    "JSON": lambda folder: folder / "small.json",
    "relative": lambda folder: "small.yaml",
    "home": lambda folder: "~/small.yaml",
    "home, as path": lambda folder: Path("~/small.json"),
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_spec_may_come_as(home: Path, source: Any) -> None:
    for suffix in ("yaml", "yml"):
        (home / f"small.{suffix}").write_text(yaml.safe_dump(SMALL, sort_keys=False))
    (home / "small.json").write_text(json.dumps(SMALL))
    model = pvzoo.create(source(home), device="meta")
    assert isinstance(model, pvzoo.Model)
    assert model.spec.to_dict() == pvzoo.create(SMALL, device="meta").spec.to_dict()


@pytest.mark.parametrize("name", ["stage2_shared_nano.nonsense", "stage2_shared_nano."])
def test_a_tag_that_does_not_exist_is_refused_even_without_weights(name: str) -> None:
    with pytest.raises(pvzoo.UnknownNameError, match=r"stage2_shared_nano has no weights tagged '.*'; it has none yet"):
        pvzoo.create(name, device="meta")


@pytest.mark.parametrize("name", ["stage2_spatial_nano", "pvzoo/stage2_spatial_nano"])
def test_a_model_of_the_zoo_goes_by_its_name(name: str) -> None:
    model = pvzoo.create(name, device="meta")
    assert model.spec == pvzoo.spec("stage2_spatial_nano")
    assert model.spec.name == "stage2_spatial_nano"
    assert model.load_report is None
    assert not model.training


@pytest.mark.parametrize("name", pvzoo.list_models("*_nano"))
def test_every_small_model_that_is_listed_can_be_made(name: str) -> None:
    model = pvzoo.create(name)
    assert model.spec.name == name
    assert model.untrained
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


@pytest.mark.parametrize("prefix", ["", "./", "~/", "{home}/"])
def test_a_saved_folder(home: Path, prefix: str) -> None:
    folder = f"{prefix.format(home=home)}runs/17"
    model = pvzoo.create(SMALL)
    assert model.save(folder).resolve() == home / "runs/17"
    loaded = pvzoo.create(f"local-dir:{folder}")
    assert torch.equal(loaded.embed(*images(model)), model.embed(*images(model)))
    assert not loaded.training
    assert set(loaded.load_report.loaded) == set(model.state_dict())
    assert torch.equal(pvzoo.load(f"{folder}/model.safetensors").head.weight, model.head.weight)
    other = pvzoo.create(SMALL)
    other.load_weights(folder)
    other.load_branches(f"{folder}/model.safetensors")
    assert torch.equal(other.head.weight, model.head.weight)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("stage2_spatail", UnknownNameError, "no model named 'stage2_spatail'; did you mean 'stage2_spatial'?"),
        ("stage2_spatail.v1", UnknownNameError, "no model named 'stage2_spatail'; did you mean 'stage2_spatial'?"),
        ("resnet50", UnknownNameError, "no model named 'resnet50'; 'pvzoo list' shows all"),
        ("convnext_tiny", UnknownNameError, "'convnext_tiny' is a backbone, not a model"),
        ("", UnknownNameError, "'' is not a name; names look like 'concat', 'acme/gated' or 'acme/gated@2'"),
        ("runs", PvzooError, "'runs' is a folder; write 'local-dir:runs' to load a saved model"),
        ("runs/17", PvzooError, "'runs/17' is a folder; write 'local-dir:runs/17' to load a saved model"),
        ("~/runs", PvzooError, "'~/runs' is a folder; write 'local-dir:~/runs' to load a saved model"),
        (Path("runs/17"), PvzooError, "'runs/17' is a folder; write 'local-dir:runs/17' to load a saved model"),
        (
            "local-dir:runs/18",
            WeightsError,
            "runs/18: no such folder; it should hold config.json and model.safetensors",
        ),
        ("local-dir:runs", WeightsError, "runs: there is no config.json in it"),
        ("a.safetensors", PvzooError, "'a.safetensors' is a file of weights; use pvzoo.load('a.safetensors')"),
        ("absent.yaml", SpecError, "absent.yaml: no such file"),
        (Path("absent"), SpecError, "absent: no such file"),
        ([SMALL], PvzooError, f"a model is created from a name, a path, a mapping or a ModelSpec, not from {[SMALL]}"),
        (None, PvzooError, "a model is created from a name, a path, a mapping or a ModelSpec, not from None"),
    ],
    ids=lambda value: str(value)[:24] if not isinstance(value, type) else None,
)
def test_sources_that_are_none(home: Path, source: Any, error: type[PvzooError], message: str) -> None:
    (home / "runs" / "17").mkdir(parents=True)
    assert refused(error, source) == message


def test_a_folder_does_not_hide_a_model_of_the_zoo(home: Path) -> None:
    (home / "stage2_spatial_nano").mkdir()
    assert pvzoo.create("stage2_spatial_nano", device="meta").spec.name == "stage2_spatial_nano"


def test_a_fault_in_a_file_has_its_line(home: Path) -> None:
    (home / "spec.yaml").write_text(
        "branches:\n  local: {backbone: convnext_atta, features: map}\nmodalities: [palm]\n"
    )
    assert refused(SpecError, "spec.yaml") == (
        "spec.yaml:2:21: branches.local.backbone: no backbone named 'convnext_atta'; did you mean 'convnext_atto'?"
    )


def test_a_mapping_is_left_as_it_was() -> None:
    before = json.dumps(SMALL)
    pvzoo.create(SMALL, num_classes=7, device="meta", **{"branches.local.alignment.params.dim": 8})
    assert json.dumps(SMALL) == before


# Arguments


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ({"num_classes": 9}, lambda spec: spec.num_classes, 9),
        ({"num_classes": 0}, lambda spec: (spec.head.name, spec.num_classes), ("none", None)),
        ({"in_chans": 3}, lambda spec: spec.preprocessing.channels, 3),
        ({"image_size": 96}, lambda spec: spec.preprocessing.size, (96, 96)),
        ({"image_size": (64, 96)}, lambda spec: spec.preprocessing.size, (64, 96)),
        ({"fusion.local": "sum"}, lambda spec: spec.fusion["local"].name, "sum"),
        ({"fusion.local.params.reduction": 2}, lambda spec: spec.fusion["local"].params.reduction, 2),
        ({"head.params.margin": 0.3}, lambda spec: spec.head.params.margin, 0.3),
        ({"head": {"name": "cosface", "params": {"scale": 32}}}, lambda spec: spec.head.params.scale, 32),
        ({"embedding.normalize": False}, lambda spec: spec.embedding.normalize, False),
        ({"share_branches": True}, lambda spec: spec.share_branches, True),
        ({"modalities": ["vein"]}, lambda spec: spec.modalities, ("vein",)),
        ({"modalities": ("palm", "vein", "dorsal")}, lambda spec: len(spec.modalities), 3),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_arguments_change_the_spec(arguments: dict[str, Any], field: Any, value: Any) -> None:
    model = pvzoo.create(SMALL, **arguments)
    assert field(model.spec) == value
    logits, embedding, _ = model(*images(model))
    assert embedding.shape == (2, model.spec.geometry.embedding)
    assert (None if logits is None else logits.shape[1]) == model.spec.num_classes


def sized(value: Any) -> str:
    return (
        f"override 'preprocessing.size': preprocessing.size: should be 1 to 65536 pixels, or [height, width], {value}"
    )


REFUSED = {
    "negative classes": (
        {"num_classes": -1},
        "override 'num_classes': num_classes: input should be greater than or equal to 1, got -1",
    ),
    "text for a number": (
        {"num_classes": "3"},
        "override 'num_classes': num_classes: input should be a valid integer, got '3'",
    ),
    "a bool for a number": (
        {"num_classes": True},
        "override 'num_classes': num_classes: input should be a valid integer, got True",
    ),
    "no classes for a head": (
        {"num_classes": 0, "head": "cosface"},
        "override 'num_classes': num_classes: head 'cosface' needs the number of classes",
    ),
    "no channels": (
        {"in_chans": 0},
        "override 'preprocessing.channels': preprocessing.channels: input should be greater than or equal to 1, got 0",
    ),
    "no size": ({"image_size": 0}, sized("got 0")),
    "negative size": ({"image_size": (64, -4)}, sized("got [64, -4]")),
    "one side": ({"image_size": (64,)}, sized("got [64]")),
    "huge size": ({"image_size": 10**6}, sized("got 1000000")),
    "too small for the network": (
        {"image_size": 20},
        "spec: branches.local.backbone: convnext_atto: an image of 20x20 is too small; "
        "convnext_atto takes 32 pixels a side or more",
    ),
    "misspelt argument": (
        {"num_clases": 3},
        "override 'num_clases': num_clases: unknown field; did you mean 'num_classes'?",
    ),
    "argument of no kind": ({"dropout": 0.1}, f"override 'dropout': dropout: unknown field; the fields are {FIELDS}"),
    "misspelt branch": (
        {"fusion.locl": "sum"},
        "override 'fusion.locl': fusion.locl: there is no branch 'locl'; did you mean 'local'?",
    ),
    "misspelt component": (
        {"fusion.local": "spatial_atention"},
        "override 'fusion.local': fusion.local: no fusion named 'spatial_atention'; did you mean 'spatial_attention'?",
    ),
    "misspelt parameter": (
        {"head.params.margn": 0.3},
        "override 'head.params.margn': head.params.margn: unknown field; did you mean 'margin'?",
    ),
    "no path": (
        {"fusion..local": "sum"},
        "override 'fusion..local': fusion..local: is not a dotted path of a field",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_arguments_that_do_not_fit(arguments: dict[str, Any], message: str) -> None:
    assert refused(SpecError, SMALL, **arguments) == message


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({"num_classes": 10**10}, "spec: head: needs at least 596"),
        ({"image_size": 60_000}, "override 'preprocessing.size': preprocessing.size: needs at least 26.8"),
        ({"in_chans": 3, "image_size": 65_536}, "override 'preprocessing.size': preprocessing.size: needs at least 96"),
    ],
    ids=str,
)
def test_what_no_machine_could_hold_is_refused_before_it_is_allocated(
    monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], place: str
) -> None:
    monkeypatch.delenv("PVZOO_MEMORY_LIMIT", raising=False)
    message = refused(SpecError, SMALL, **arguments)
    assert message.startswith(place)
    assert message.endswith("the limit is 16.0 GiB (environment variable PVZOO_MEMORY_LIMIT, for example 64GiB)")


def test_all_faults_come_at_once() -> None:
    message = refused(SpecError, SMALL, num_clases=3, in_chans=0, **{"fusion.local": "spatial_atention"})
    assert sorted(line.split("'")[1] for line in message.splitlines()) == [
        "fusion.local",
        "num_clases",
        "preprocessing.channels",
    ]


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), "meta", torch.device("meta")], ids=repr)
def test_device(device: Any) -> None:
    model = pvzoo.create(SMALL, device=device)
    tensors = [*model.parameters(), *model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {torch.device(device).type}
    assert model.device == torch.device(device)


def test_a_device_that_torch_does_not_know_is_its_error(saved: Path) -> None:
    for source in (SMALL, f"local-dir:{saved}"):
        with pytest.raises(RuntimeError, match="device string: palmtop"):
            pvzoo.create(source, device="palmtop")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_dtype(saved: Path, dtype: torch.dtype, device: str) -> None:
    for source in (SMALL, f"local-dir:{saved}"):
        model = pvzoo.create(source, dtype=dtype, device=device)
        assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {dtype}
        assert model.dtype is dtype


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64, "float16"], ids=str)
def test_a_dtype_must_be_floating_point(saved: Path, dtype: Any) -> None:
    for source in (SMALL, f"local-dir:{saved}"):
        message = refused(PvzooError, source, dtype=dtype)
        assert message == f"dtype must be a floating-point type such as torch.bfloat16, not {dtype!r}"


# Randomness


def test_a_seed_gives_the_same_model() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.nn.utils.parameters_to_vector(pvzoo.create(SMALL).parameters())

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("overrides", [{}, {"num_classes": 0}], ids=str)
def test_loading_draws_no_random_numbers(saved: Path, overrides: dict[str, Any]) -> None:
    state = torch.get_rng_state()
    pvzoo.create(f"local-dir:{saved}", **overrides)
    pvzoo.load(saved / "model.safetensors")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_new_class_matrix_is_random_and_follows_the_seed(saved: Path) -> None:
    def head(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return pvzoo.create(f"local-dir:{saved}", num_classes=7).head.weight

    assert head(1).shape == (7, 16)
    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


# Pretrained weights


def test_there_are_no_weights_without_a_source() -> None:
    hint = "pvzoo.list_models(pretrained=True) lists those that installed sources provide"
    with using(Host(plugins=[])):
        assert pvzoo.list_models(pretrained=True) == OWN
        for name, pretrained in (("stage2_shared", True), ("stage2_shared", "v1"), ("stage2_shared.v1", True)):
            wanted = name if pretrained is True else "stage2_shared.v1"
            message = refused(WeightsError, name, pretrained=pretrained)
            assert message == f"there are no pretrained weights for {wanted}; {hint}"


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (SMALL, PvzooError, "pretrained weights belong to names of the zoo; a spec of your own has none"),
        ("spec.yaml", PvzooError, "pretrained weights belong to names of the zoo; a spec of your own has none"),
        (Path("spec.yaml"), PvzooError, "pretrained weights belong to names of the zoo; a spec of your own has none"),
        ("local-dir:runs/17", PvzooError, "'local-dir:runs/17' has weights of its own; leave out pretrained"),
        ("stage2_locl", UnknownNameError, "no model named 'stage2_locl'; did you mean 'stage2_local'?"),
        (
            "stage2_local.v2",
            PvzooError,
            "'stage2_local.v2' names weights, and pretrained='v1' names others",
        ),
    ],
    ids=["mapping", "file", "path", "saved", "misspelt", "two tags"],
)
def test_pretrained_goes_with_names_of_the_zoo(source: Any, error: type[PvzooError], message: str) -> None:
    assert refused(error, source, pretrained="v1") == message


def test_a_folder_is_no_tag(home: Path) -> None:
    (home / "mine").mkdir()
    message = refused(PvzooError, "stage2_spatial", pretrained="mine")
    assert message == "stage2_spatial has no weights tagged 'mine'; the folder is './mine'"


class ShelfParams(pvzoo.Params):
    root: str = Field("", description="folder of saved models, one for each tag")


class Shelf:
    """A weight source: folders that ``model.save`` wrote, by model and tag."""

    folders: dict[tuple[str, str | None], Path]

    def __init__(self, params: ShelfParams) -> None:
        pass

    def find(self, name: str, tag: str | None) -> Path | None:
        return self.folders.get((name, tag))


class Plugin:
    """Registers a model, and a source of weights for it and for one of pvzoo's own."""

    def __init__(self, build: Any) -> None:
        self.build = build

    @pvzoo.hookimpl
    def register_models(self, register: Any) -> None:
        register("acme/small", spec=SMALL, summary="One branch")

    @pvzoo.hookimpl
    def register_weight_sources(self, register: Any) -> None:
        provides = ["acme/small.v2", "acme/small.v1", "stage1_convnext_palm_nano.acme"]
        register("acme/shelf", build=self.build, params=ShelfParams, provides=provides)


def acme(build: Any) -> Host:
    host = Host(plugins=[])
    host.add("acme", Plugin(build), distribution="pvzoo-acme", version="0.3")
    return host


@pytest.fixture
def shelf(tmp_path: Path) -> dict[str, Model]:
    """The models behind the tags of a host that is in use; ``v2`` is the default of ``acme/small``."""
    with using(acme(Shelf)):
        models = {tag: pvzoo.create("acme/small") for tag in ("v1", "v2")}
        models["acme"] = pvzoo.create("stage1_convnext_palm_nano")
        Shelf.folders = {
            ("acme/small" if tag != "acme" else "stage1_convnext_palm_nano", tag): model.save(tmp_path / tag)
            for tag, model in models.items()
        }
        yield models


@pytest.mark.parametrize(
    ("name", "pretrained", "tag"),
    [
        ("acme/small", True, "v2"),
        ("acme/small", "v1", "v1"),
        ("acme/small.v1", True, "v1"),
        ("acme/small.v1", "v1", "v1"),
        ("stage1_convnext_palm_nano.acme", True, "acme"),
    ],
)
def test_weights_come_by_tag_or_are_the_first_of_their_model(
    shelf: dict[str, Model], name: str, pretrained: bool | str, tag: str
) -> None:
    model = pvzoo.create(name, pretrained=pretrained)
    assert torch.equal(model.head.weight, shelf[tag].head.weight)
    assert model.load_report.source.endswith(f"{tag}/model.safetensors")
    assert not model.training


def test_a_source_lists_its_tags_and_the_model_takes_changes(shelf: dict[str, Model]) -> None:
    assert pvzoo.list_models("acme/*", pretrained=True) == ["acme/small.v1", "acme/small.v2"]
    model = pvzoo.create("acme/small", pretrained=True, num_classes=8, dtype=torch.bfloat16)
    assert model.head.weight.shape == (8, 16)
    stem = "branches.palm.local.net.stem.0.weight"
    assert torch.equal(model.get_parameter(stem), shelf["v2"].get_parameter(stem).bfloat16())


def test_a_tag_that_no_source_has(shelf: dict[str, Model]) -> None:
    hints = {"v3": "it has v2, v1", "v1.0": "did you mean 'v1'?"}
    for tag, hint in hints.items():
        message = refused(WeightsError, "acme/small", pretrained=tag)
        assert message == f"there are no pretrained weights for acme/small.{tag}; {hint}"


def test_pretrained_weights_stay_out_unless_they_are_asked_for(shelf: dict[str, Model]) -> None:
    for name in ("acme/small", "acme/small.v1"):
        model = pvzoo.create(name)
        assert model.load_report is None
        assert not torch.equal(model.head.weight, shelf["v1"].head.weight)


def no_network(params: ShelfParams) -> Shelf:
    raise OSError("the shelf is not mounted")


class Unreachable(Shelf):
    def find(self, name: str, tag: str | None) -> Path | None:
        raise TimeoutError("no answer")


class Elsewhere(Shelf):
    def find(self, name: str, tag: str | None) -> Path | None:
        return Path("/nowhere")


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            no_network,
            BuildError,
            "weight_source 'acme/shelf' of pvzoo-acme 0.3 failed while it was built: OSError: the shelf is not mounted",
        ),
        (
            Unreachable,
            WeightsError,
            "weight_source 'acme/shelf' of pvzoo-acme 0.3 failed to find acme/small: TimeoutError: no answer",
        ),
        (Elsewhere, WeightsError, "/nowhere: no such folder; it should hold config.json and model.safetensors"),
    ],
    ids=["builder", "find", "folder"],
)
def test_a_source_that_fails_is_named(build: Any, error: type[PvzooError], message: str) -> None:
    with using(acme(build)):
        assert refused(error, "acme/small", pretrained=True) == message
        assert pvzoo.create("acme/small", device="meta").spec.name == "acme/small"


# Any composition


class Quarters(torch.nn.Module):
    """A backbone without a parameter, so that many models are made quickly: averages of the image's quarters."""

    def __init__(self, params: Any, *, in_chans: int, image_size: tuple[int, int]) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor, pool: bool = True) -> torch.Tensor:
        return x.mean((2, 3)) if pool else torch.nn.functional.adaptive_avg_pool2d(x, 2)


class QuartersPlugin:
    @pvzoo.hookimpl
    def register_backbones(self, register: Any) -> None:
        def shape(params: Any, in_chans: int, size: tuple[int, int]) -> pvzoo.BackboneShape:
            return pvzoo.BackboneShape(in_chans, pvzoo.Shape(in_chans, (2, 2)), size[0] // 2)

        register("acme/quarters", build=Quarters, shape=shape)


QUARTERS = {
    "preprocessing": {"size": 8},
    "branches": {
        "global": {"backbone": "acme/quarters", "alignment": "linear"},
        "local": {"backbone": "acme/quarters", "features": "map", "alignment": "conv1x1"},
    },
    "num_classes": 5,
}
FUSIONS = ["aff", "channel_attention", "concat", "cross_attention", "gated", "iaff", "low_rank_bilinear", "max", "sum"]
WIDTHS = st.integers(1, 24).map(lambda width: 4 * width)  # cross_attention has four heads


@settings(max_examples=60, deadline=None)
@given(
    dims=st.tuples(WIDTHS, WIDTHS),
    fusions=st.tuples(st.sampled_from(FUSIONS), st.sampled_from([*FUSIONS, "spatial_attention", "channel_selection"])),
    projected=st.none() | st.integers(1, 40),
    modalities=st.integers(1, 3),
    channels=st.integers(1, 3),
    head=st.sampled_from(["arcface", "adaface", "linear", "subcenter_arcface"]),
)
def test_the_embedding_is_as_wide_as_the_spec_says(
    dims: tuple[int, int],
    fusions: tuple[str, str],
    projected: int | None,
    modalities: int,
    channels: int,
    head: str,
) -> None:
    overrides: dict[str, Any] = {"modalities": ["palm", "vein", "dorsal"][:modalities], "head": head}
    widths = []
    for branch, dim, fusion in zip(("global", "local"), dims, fusions, strict=True):
        overrides[f"branches.{branch}.alignment.params.dim"] = dim
        overrides[f"fusion.{branch}"] = fusion
        widths.append(dim * modalities if fusion == "concat" else dim)
        if projected and fusion in ("concat", "low_rank_bilinear"):
            overrides[f"fusion.{branch}.params.dim"] = widths[-1] = projected
    host = Host(plugins=[])
    host.add("acme", QuartersPlugin())
    with using(host):
        model = pvzoo.create(QUARTERS, in_chans=channels, **overrides)
    logits, embedding, _ = model(*images(model))
    assert embedding.shape == (2, model.spec.geometry.embedding) == (2, sum(widths))
    assert logits.shape == (2, 5)
    assert torch.isfinite(logits).all()
