"""The conformance kit, put to the test: what is good passes, and each fault is found by the check that is for it.

A *mutant* is a good component with one deliberate fault. Exactly one check must fail, and there must be a mutant for
every check.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import ConfigDict, Field, field_serializer
from torch import Tensor, nn

import pvzoo
from pvzoo import hookimpl
from pvzoo.data.adapters.base import Expected, PatternAdapter
from pvzoo.data.table import Record, Table
from pvzoo.plugins import Host, using
from pvzoo.testing import (
    KINDS,
    Candidate,
    ConformanceError,
    ConformanceWarning,
    candidate,
    check_alignment,
    check_backbone,
    check_dataset,
    check_fusion,
    check_head,
    check_plugin,
    check_weight_source,
    checks,
    kit,
    parametrize_checks,
)
from pvzoo.testing.datasets import LACKS_TREE

DOCS = Path(__file__).parents[1] / "docs" / "testing.md"
ALL = {kind: checks(kind) for kind in KINDS}  # all are registered before a test puts others in their place
Kind = Literal["fusion", "backbone", "alignment", "head", "weight_source", "dataset"]


# --- good components --------------------------------------------------------------------------------------------------


class Core(nn.Module):
    """What the good modules below are made of: a linear layer over channels, (N, D, ...) to (N, D', ...)."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim_out, dim_in) / dim_in**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nd...,od->no...", x, self.weight)


class Mean(nn.Module):
    """A fusion: the mean of the modalities that are present."""

    def __init__(self, params: pvzoo.Params, *, modalities: Any, shape: pvzoo.Shape, core: type[Core] = Core) -> None:
        super().__init__()
        self.core = core(shape.dim, shape.dim)

    def forward(self, features: Any) -> pvzoo.Fused:
        found = {name: x for name, x in features.items() if x is not None}
        mean = self.mean(list(found.values()))
        shares = {name: mean.new_full(mean.shape, (name in found) / len(found)) for name in features}
        return pvzoo.Fused(self.core(mean), shares)

    def mean(self, found: list[Tensor]) -> Tensor:
        return torch.stack(found).mean(0)


class Patches(nn.Module):
    """A backbone: means of 8x8 pixels, projected."""

    def __init__(self, params: pvzoo.Params, *, in_chans: int, image_size: Any, core: type[Core] = Core) -> None:
        super().__init__()
        self.core = core(in_chans, 6)

    def forward(self, x: Tensor, pool: bool = True) -> Tensor:
        grid: Tensor = self.core(F.avg_pool2d(x, 8))
        return grid.mean((2, 3)) if pool else grid


class Projection(nn.Module):
    """An alignment."""

    def __init__(self, params: pvzoo.Params, *, shape: pvzoo.Shape, core: type[Core] = Core) -> None:
        super().__init__()
        self.core = core(shape.dim, 6)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.core(x)
        return projected


class Margin(nn.Module):
    """A head: a linear classifier that takes 0.5 from the true class."""

    margin = 0.5

    def __init__(self, params: pvzoo.Params, *, dim: int, num_classes: int, core: type[Core] = Core) -> None:
        super().__init__()
        self.core = core(dim, num_classes)

    def forward(self, embedding: Tensor, labels: Tensor | None = None) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return self.classify(embedding, labels)

    def classify(self, embedding: Tensor, labels: Tensor | None) -> Tensor:
        logits: Tensor = self.core(embedding)
        if labels is None:
            return logits
        return logits - self.margin * F.one_hot(labels, logits.shape[1]).to(logits)


def patches_shape(params: Any, in_chans: int, size: tuple[int, int], dim: int = 6) -> pvzoo.BackboneShape:
    return pvzoo.BackboneShape(dim, pvzoo.Shape(6, (size[0] // 8, size[1] // 8)), stride=8)


class Files(PatternAdapter[pvzoo.Params]):
    """A data set: ``palm/anna_1.png``."""

    name = "acme/it"
    example = "palm/anna_1.png"
    expected = Expected(identities=2)
    pattern = r"(palm|vein)/([a-z]+)_(\d)\.png"

    def record(self, path: str, match: re.Match[str]) -> Record:
        return Record(path, match[1], match[2], session=1, sample=int(match[3]), pairing="same_sample")


def tree(root: Path) -> None:
    """Two images of each modality of two people."""
    for modality in ("palm", "vein"):
        (root / modality).mkdir()
        for number, name in enumerate(("anna_1", "anna_2", "ben_1", "ben_2")):
            Image.new("L", (4, 4), 50 * number).save(root / modality / f"{name}.png")


class Folder:
    """A weight source: one folder."""

    model = "stage1_convnext_palm_nano"
    folder: Path

    def __init__(self, params: pvzoo.Params) -> None:
        pass

    def find(self, name: str, tag: str | None) -> Path | None:
        return self.folder if name == self.model and tag in (None, "v1") else None


@pytest.fixture(scope="module", autouse=True)
def saved(tmp_path_factory: pytest.TempPathFactory) -> None:
    Folder.folder = pvzoo.create(Folder.model, num_classes=2).save(tmp_path_factory.mktemp("saved"))


# The builder of each kind, and what is registered with it.
GOOD: dict[str, tuple[Any, dict[str, Any]]] = {
    "fusion": (Mean, {"accepts": {"vector", "map"}, "missing": "reweight", "parameters": lambda p, n, dim: dim * dim}),
    "backbone": (Patches, {"shape": patches_shape, "parameters": lambda p, channels, size: 6 * channels}),
    "alignment": (
        Projection,
        {
            "accepts": {"vector", "map"},
            "out": lambda p, shape: pvzoo.Shape(6, shape.grid),
            "parameters": lambda p, shape: 6 * shape.dim,
        },
    ),
    "head": (Margin, {"parameters": lambda p, dim, classes: dim * classes}),
    "weight_source": (Folder, {"provides": [f"{Folder.model}.v1"]}),
    "dataset": (Files, {}),
}
MODULES = ("fusion", "backbone", "alignment", "head")


@contextmanager
def registered(kind: str, build: Any = None, **traits: Any) -> Iterator[Candidate]:
    """A good component with another builder, or other traits, as a candidate."""
    builder, good = GOOD[kind]

    class Hooks:
        pass

    def register_it(register: Any) -> None:
        register("acme/it", **{"build": build or builder, "summary": "A component", **good, **traits})

    hooks = Hooks()
    setattr(hooks, f"register_{kind}s", hookimpl(register_it))
    host = Host(plugins=[])
    host.add("acme", hooks)
    with using(host):
        yield candidate(kind, "acme/it", **({"tree": tree} if kind == "dataset" else {}))


def failed(found: Candidate) -> list[str]:
    return [result.check for result in found.results() if result.outcome == "failed"]


@pytest.mark.parametrize("kind", GOOD)
def test_the_good_ones_pass(kind: str) -> None:
    with registered(kind) as found:
        outcomes = {result.check: result.outcome for result in found.results()}
    assert outcomes.pop("import_light") == "not run"  # there is no module that was installed
    assert set(outcomes.values()) == {"passed"}


# --- mutants: faults of any torch module ------------------------------------------------------------------------------


class Raises(Core):
    def __init__(self, dim_in: int, dim_out: int) -> None:
        raise RuntimeError("no such filter")


class Divides(Core):
    """0 / 0 for an input of zeros."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / x.abs().sum(1, keepdim=True).sign()


class Single(Core):
    """Float32, whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()


class Fixed(Core):
    """Keeps a tensor that does not move with the module."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__(dim_in, dim_out)
        self.offset = torch.ones(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out + self.offset.to(x.dtype).view(-1, *[1] * (x.ndim - 2))


class Looks(Core):
    """Looks at its values while it is built."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__(dim_in, dim_out)
        self.norm = float(self.weight.detach().norm())


class Centres(Core):
    """Subtracts the mean over the batch."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out - 0.5 * out.mean(0)


class Detaches(Core):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class Forgets(Core):
    """Keeps a random tensor that is not saved."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        super().__init__(dim_in, dim_out)
        self.register_buffer("noise", torch.rand(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + self.get_buffer("noise"))


class Seeds(Core):
    def __init__(self, dim_in: int, dim_out: int) -> None:
        torch.manual_seed(0)
        super().__init__(dim_in, dim_out)


class Prints(Core):
    def forward(self, x: Tensor) -> Tensor:
        print(x.shape)
        return super().forward(x)


class Calls(Core):
    """Asks a server, and does without."""

    def __init__(self, dim_in: int, dim_out: int) -> None:
        with suppress(OSError):
            socket.create_connection(("weights.example.org", 443), timeout=1)
        super().__init__(dim_in, dim_out)


class Needs(Core):
    """Does not do without a server."""

    server = socket.create_server(("127.0.0.1", 0))

    def __init__(self, dim_in: int, dim_out: int) -> None:
        socket.create_connection(self.server.getsockname()).close()
        super().__init__(dim_in, dim_out)


class Crops(Core):
    """Makes any width fit."""

    def forward(self, x: Tensor) -> Tensor:
        width = self.weight.shape[1]
        repeated = x.repeat(1, width, *[1] * (x.ndim - 2)) if x.shape[1] < width else x
        return super().forward(repeated[:, :width])


class Broadcasts(Mean):
    """Takes a modality of one channel for one of any width."""

    def mean(self, found: list[Tensor]) -> Tensor:
        return sum(found, torch.zeros(())) / len(found)


class Unsqueezes(Patches):
    """Takes an image without its channels."""

    def forward(self, x: Tensor, pool: bool = True) -> Tensor:
        return super().forward(x if x.ndim == 4 else x[:, None], pool)


class OneTooMany(Margin):
    def __init__(self, params: pvzoo.Params, *, dim: int, num_classes: int) -> None:
        super().__init__(params, dim=dim, num_classes=num_classes + 1)


CORES: dict[str, type[Core]] = {
    "builds": Raises,
    "finite": Divides,
    "dtype_follows_input": Single,
    "device_follows_input": Fixed,
    "builds_on_meta": Looks,
    "batch_independence": Centres,
    "every_input_matters": Detaches,
    "safetensors_round_trip": Forgets,
    "random_state": Seeds,
    "silent": Prints,
    "offline": Calls,
}
# By kind and check: another builder, and other traits.
MUTANTS: list[tuple[str, str, Any, dict[str, Any]]] = [
    *((kind, check, partial(GOOD[kind][0], core=core), {}) for kind in MODULES for check, core in CORES.items()),
    ("fusion", "output_shape", None, {"out_dim": lambda params, dims: sum(dims)}),
    ("backbone", "output_shape", None, {"shape": partial(patches_shape, dim=7)}),
    ("alignment", "output_shape", None, {"out": lambda params, shape: shape}),
    ("head", "output_shape", OneTooMany, {"parameters": lambda params, dim, classes: 0}),
    *((kind, "offline", partial(GOOD[kind][0], core=Needs), {}) for kind in MODULES),
    *((kind, "parameters", None, {"parameters": lambda *about: 1}) for kind in MODULES),
    ("fusion", "bad_shape", Broadcasts, {}),
    ("backbone", "bad_shape", Unsqueezes, {}),
    ("alignment", "bad_shape", partial(Projection, core=Crops), {}),
    ("head", "bad_shape", partial(Margin, core=Crops), {}),
]


# --- mutants: faults of one kind --------------------------------------------------------------------------------------


class Doubles(Mean):
    """Weights that sum to 2, unless a modality is missing."""

    def forward(self, features: Any) -> pvzoo.Fused:
        fused = super().forward(features)
        if None in features.values():
            return fused
        return pvzoo.Fused(fused.features, {name: 2 * weight for name, weight in fused.weights.items()})


class Zeros(Mean):
    """Takes a missing modality for zeros, at full weight."""

    def forward(self, features: Any) -> pvzoo.Fused:
        example = next(x for x in features.values() if x is not None)
        return super().forward({n: torch.zeros_like(example) if x is None else x for n, x in features.items()})


class Rewards(Margin):
    margin = -0.5


class Always(Margin):
    """Without labels, the margin is taken from the first class."""

    def classify(self, embedding: Tensor, labels: Tensor | None) -> Tensor:
        none = torch.zeros(len(embedding), dtype=torch.long, device=embedding.device)
        return super().classify(embedding, none if labels is None else labels)


class Coarse(Margin):
    def forward(self, embedding: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.classify(embedding, labels)


MUTANTS += [
    ("fusion", "weights_sum_to_one", Doubles, {}),
    ("fusion", "missing_modality", Zeros, {}),
    ("fusion", "missing_modality", None, {"missing": "refuse"}),
    ("head", "margin_only_with_labels", Rewards, {}),
    ("head", "margin_only_with_labels", Always, {}),
    ("head", "float32_under_autocast", Coarse, {}),
]


class Listed(Files):
    def scan(self, root: Path) -> Any:
        return list(super().scan(root))


class Uncounted(Files):
    expected = 5  # type: ignore[assignment]


class Misplaced(Files):
    def record(self, path: str, match: re.Match[str]) -> Record:
        return super().record(f"images/{path}", match)


class Unknown(Files):
    """Calls a modality what no table knows."""

    def record(self, path: str, match: re.Match[str]) -> Record:
        return Record(path, f"left {match[1]}", match[2], session=1, sample=int(match[3]))


class Unnumbered(Files):
    def record(self, path: str, match: re.Match[str]) -> Record:
        return Record(path, match[1], match[2], session=1, sample=1)


class Opens(Files):
    """Passes over images that cannot be read."""

    def scan(self, root: Path) -> Table:
        table = super().scan(root)
        return Table([record for record in table if table.file(record).stat().st_size], root)


class Anonymous(Files):
    def scan(self, root: Path) -> Table:
        try:
            return super().scan(root)
        except pvzoo.DataError as error:
            raise pvzoo.DataError("nothing found") from error


class Chatty(Files):
    def scan(self, root: Path) -> Table:
        print("scanning")
        return super().scan(root)


class Registered(Files):
    def scan(self, root: Path) -> Table:
        with suppress(OSError):
            socket.getaddrinfo("palms.example.org", 443)
        return super().scan(root)


class NoFind:
    def __init__(self, params: pvzoo.Params) -> None:
        pass


class Strict(Folder):
    def find(self, name: str, tag: str | None) -> Path | None:
        found = super().find(name, tag)
        if found is None:
            raise KeyError(name)
        return found


class Greets(Folder):
    def __init__(self, params: pvzoo.Params) -> None:
        print("hello")


class Connects(Folder):
    def __init__(self, params: pvzoo.Params) -> None:
        with suppress(OSError):
            socket.create_connection(("192.0.2.1", 80), timeout=1)


MUTANTS += [
    ("dataset", "builds", Uncounted, {}),
    ("dataset", "scan_gives_table", Listed, {}),
    ("dataset", "files_exist", Misplaced, {}),
    ("dataset", "table_round_trip", Unknown, {}),
    ("dataset", "pairs_are_clear", Unnumbered, {}),
    ("dataset", "opens_no_image", Opens, {}),
    ("dataset", "wrong_root", Anonymous, {}),
    ("dataset", "silent", Chatty, {}),
    ("dataset", "offline", Registered, {}),
    ("weight_source", "builds", NoFind, {}),
    ("weight_source", "provides_load", None, {"provides": [f"{Folder.model}.v2"]}),
    ("weight_source", "unknown_is_none", Strict, {}),
    ("weight_source", "silent", Greets, {}),
    ("weight_source", "offline", Connects, {}),
]


# --- mutants: faults of parameters and registration -------------------------------------------------------------------


class Thawed(pvzoo.Params):
    model_config = ConfigDict(frozen=False)


class Open(pvzoo.Params):
    model_config = ConfigDict(extra="ignore")


class WrongDefault(pvzoo.Params):
    model_config = ConfigDict(validate_default=False)
    heads: int = Field(0, gt=0)


class NoSchema(pvzoo.Params):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    dtype: torch.dtype | None = None


class OneWay(pvzoo.Params):
    """Written with a unit that it does not read."""

    size: int = 128

    @field_serializer("size")
    def _unit(self, size: int) -> str:
        return f"{size} px"


MUTANTS += [
    (kind, check, None, traits)
    for kind in GOOD
    for check, traits in (
        ("summary", {"summary": ""}),
        ("summary", {"summary": "One line\nand another"}),
        ("params_frozen", {"params": Thawed}),
        ("params_frozen", {"params": Open}),
        ("params_defaults", {"params": WrongDefault}),
        ("params_schema", {"params": NoSchema}),
        ("spec_round_trip", {"params": OneWay}),
    )
]


def ids(mutants: list[tuple[Any, ...]]) -> list[str]:
    """``fusion-finite``; a second mutant of a check says what is wrong with it."""
    return [f"{kind}-{check}" for kind, check, *_ in mutants]


@pytest.mark.parametrize(("kind", "check", "build", "traits"), MUTANTS, ids=ids(MUTANTS))
def test_each_fault_is_found_by_its_check_alone(kind: str, check: str, build: Any, traits: dict[str, Any]) -> None:
    with registered(kind, build, **traits) as found:
        assert failed(found) == [check]


# As GOOD, in the words of a hook module.
TRAITS = {
    "fusion": "build='test_testing:Mean', accepts={'map'}, missing='reweight'",
    "backbone": "build='test_testing:Patches', shape='test_testing:patches_shape'",
    "alignment": "build='test_testing:Projection', accepts={'map'}, out=lambda p, shape: pvzoo.Shape(6, shape.grid)",
    "head": "build='test_testing:Margin'",
    "weight_source": "build='test_testing:Folder'",
    "dataset": "build='test_testing:Files'",
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_hook_module_that_imports_heavy_packages_is_found(site: Any, kind: str) -> None:
    """``import_light`` needs a module that is installed; numpy is heavy enough, and quicker to import than torch."""
    register = f"register('palmlab/it', summary='A component', {TRAITS[kind]})"
    site.install(f"import numpy\n@hookimpl\ndef register_{kind}s(register): {register}")
    with using(site.host()):
        found = candidate(kind, "palmlab/it", **({"tree": tree} if kind == "dataset" else {}))
        assert failed(found) == ["import_light"]
    assert found.result("import_light").found == "importing pvzoo_palmlab imports numpy"


# --- mutants: faults of plugins ---------------------------------------------------------------------------------------

HOOK = """
@hookimpl
def register_heads(register):
    register("palmlab/soft", build="palmlab_torch:Soft")
"""
PLUGINS: list[tuple[str, str, dict[str, Any]]] = [
    ("loads", HOOK.replace("palmlab/soft", "otherlab/soft"), {}),
    ("loads", "1 / 0", {}),
    ("bounds", HOOK, {"requires": ["pvzoo>=0.1"]}),
    ("bounds", HOOK, {"requires": ["pvzoo<1"]}),
    ("bounds", HOOK, {"requires": []}),
    ("registers", "", {}),
    ("import_light", "import numpy" + HOOK, {}),
    ("silent", "print('palmlab')" + HOOK, {}),
    (
        "offline",
        "import socket\ntry: socket.create_connection(('192.0.2.1', 80), timeout=1)\nexcept OSError: pass" + HOOK,
        {},
    ),
    (
        "models_are_valid",
        "@hookimpl\ndef register_models(register): register('palmlab/net', spec={'branches': {}})",
        {},
    ),
    (
        "commands_exist",
        "@hookimpl\ndef register_commands(register): register('palmlab/draw', build='pvzoo.errors:draw')",
        {},
    ),
]


@pytest.mark.parametrize(("check", "source", "options"), PLUGINS, ids=[check for check, *_ in PLUGINS])
def test_each_fault_of_a_plugin_is_found_by_its_check_alone(
    site: Any, check: str, source: str, options: dict[str, Any]
) -> None:
    site.install(source, **options)
    with using(site.host()):
        assert failed(candidate("plugin", "palmlab")) == [check]


def test_a_good_plugin_passes(site: Any) -> None:
    site.install(HOOK)
    with using(site.host()):
        check_plugin("palmlab")


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_a_mutant_for_every_check(kind: str) -> None:
    mutants = {check for of, check, *_ in MUTANTS if of == kind} | {"import_light"}
    assert set(checks(kind)) == ({check for check, *_ in PLUGINS} if kind == "plugin" else mutants)


# --- built-ins --------------------------------------------------------------------------------------------------------


def builtins(kind: str) -> list[str]:
    return [entry.name for entry in Host(plugins=[]).builtins(kind)]


@pytest.mark.parametrize("name", builtins("fusion"))
def test_built_in_fusions(name: str) -> None:
    check_fusion(name)


@pytest.mark.parametrize("name", builtins("alignment"))
def test_built_in_alignments(name: str) -> None:
    check_alignment(name)


@pytest.mark.parametrize("name", builtins("head"))
def test_built_in_heads(name: str) -> None:
    check_head(name)


# The others differ from these in width and depth alone.
SMALL = ("convnext_atto", "efficientvit_m0", "timm")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SMALL else pytest.mark.slow) for name in builtins("backbone")]
)
def test_built_in_backbones(name: str) -> None:
    check_backbone(name, params={"arch": "resnet18"} if name == "timm" else None)


# By layout: parameters, and files of a small copy. A file that is no image holds the text.
COPIES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "tongji": ({}, {"ROI/session1/00001.bmp": "", "Palmvein/session1/00001.tiff": ""}),
    "tongji600_flat": ({}, {"PalmPrint/PalmPrint_3_4.png": "", "PalmVein/PalmVein_3_4.png": ""}),
    "casia_ms": ({}, {"images/007_l_460_04.jpg": "", "images/007_l_850_04.jpg": ""}),
    "polyu_ms": ({}, {"Blue/0002/2_03_s.jpg": "", "NIR/0002/2_03_s.jpg": ""}),
    "polyu2": ({}, {"P_S_12_3.bmp": ""}),
    "cuhksz": ({}, {"imgs/1_00005_8.bmp": "", "imgs2/1_00005_8.bmp": ""}),
    "iitd": ({}, {"Segmented/Left/012_3.bmp": ""}),
    "xjtu_up": ({}, {"LG/Flash/R_9/1.jpg": ""}),
    "mpdv2": ({}, {"001_2_h_r_04.JPG": ""}),
    "vera": ({}, {"roi/003-F/003_R_2_5.png": ""}),
    "put": ({}, {"hand/o_003/left/Series_2/P_o003.bmp": ""}),
    "scut_pv": ({}, {"ROI/scale1.0/17_2.jpg": ""}),
    "txt_list": ({}, {"a/1.png": "", "a/2.png": "", "train.txt": "a/1.png 4\n", "test.txt": "a/2.png 4\n"}),
    "pair_csv": ({}, {"a.png": "", "b.png": "", "pairs.csv": "subject,palm,vein\nx,a.png,b.png\n"}),
    "folder_pair": ({}, {"palm/anna_1.png": "", "vein/anna_1.png": ""}),
    "virtual_pair": (
        {"palm_layout": "polyu2", "vein_layout": "vera"},
        {"palm/P_F_1_1.bmp": "", "vein/roi/001-M/001_L_1_1.png": ""},
    ),
}


@pytest.mark.parametrize("name", builtins("dataset"))
def test_built_in_datasets(name: str) -> None:
    params, files = COPIES[name]

    def write(root: Path) -> None:
        for path, text in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text) if text else Image.new("L", (4, 4)).save(root / path)

    check_dataset(name, params=params, tree=write)


@pytest.mark.parametrize("name", builtins("weight_source"))
def test_built_in_weight_sources(name: str) -> None:
    """But for what they provide, which is on the Hub; ``tests/test_hub.py`` loads it from one of its own."""
    found = candidate("weight_source", name, params={"offline": True})
    outcomes = {check: found.result(check).outcome for check in found.checks if check != "provides_load"}
    assert outcomes == dict.fromkeys(outcomes, "passed")


def test_a_weight_source_passes_by_its_function() -> None:
    with registered("weight_source"):
        check_weight_source("acme/it")


# --- results ----------------------------------------------------------------------------------------------------------


def test_one_error_lists_every_failure_with_what_to_do() -> None:
    with registered("fusion", partial(Mean, core=Prints), summary=""), pytest.raises(ConformanceError) as caught:
        check_fusion("acme/it")
    assert str(caught.value) == (
        "fusion 'acme/it' fails 2 of 22 checks\n"
        "  summary: Has a summary of one line, which is all that a list shows of it.\n"
        "    found: there is none\n"
        "    to do: register it with summary='...'\n"
        "  silent: Prints nothing: the output of a command belongs to the command.\n"
        r"    found: it printed 'torch.Size([2, 96])\ntorch.Size([2, 96, 3, 4])\n'"
        "\n"
        "    to do: return values, or use logging; take out prints"
    )
    assert isinstance(caught.value, pvzoo.PvzooError)
    assert isinstance(caught.value, AssertionError)


def test_an_error_of_the_component_is_its_cause_and_names_the_trial() -> None:
    class Pair(Mean):
        def forward(self, features: Any) -> pvzoo.Fused:
            if len(features) > 2:
                raise IndexError("list index out of range")
            return super().forward(features)

    with registered("fusion", Pair) as found:
        result = found.result("output_shape")
    assert result.found == "vector, 3 modalities: IndexError: list index out of range"
    assert isinstance(result.error, IndexError)


def test_what_needs_a_check_that_fails_is_not_run() -> None:
    with registered("head", partial(Margin, core=Raises)) as found:
        assert found.result("finite").outcome == "not run"
        assert found.result("finite").found == "needs builds, which does not pass"


def test_an_expected_failure_is_none_until_it_passes() -> None:
    reason = "its statistics are over the batch, as in the paper"
    with registered("alignment", partial(Projection, core=Centres)):
        check_alignment("acme/it", expected_failed={"batch_independence": reason})
    with registered("alignment"), pytest.raises(ConformanceError) as caught:
        check_alignment("acme/it", expected_failed={"batch_independence": reason})
    assert f"found: it passes, and expected_failed says that it does not ({reason})\n" in str(caught.value)
    assert "to do: take it out of expected_failed" in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_fusion("gated", expected_failed={"finit": "x"}), "no check 'finit' of a fusion.*mean 'finite'"),
        (lambda: check_fusion("gatd"), "no fusion named 'gatd'; did you mean 'gated'"),
        (lambda: check_backbone("timm"), r"backbone 'timm': it needs parameters; .* give params=\{'arch': \.\.\.\}"),
        (lambda: check_backbone("timm", params={"arc": "x"}), "params: arch: is required; arc: unknown field"),
        (lambda: check_plugin("acme"), "no plugin with vendor name 'acme' is installed"),
        (lambda: parametrize_checks("linear"), "'linear' is an alignment and a head; say which, such as kind="),
        (lambda: parametrize_checks("gatd"), "no plugin or component that can be checked is named 'gatd'"),
        (lambda: parametrize_checks("acme/gated"), "no installed plugin has vendor name 'acme'"),
        (lambda: parametrize_checks("gated", kind="fusions"), "there are no checks of a 'fusions'; kinds are fusion,"),
        (lambda: parametrize_checks("iitd"), "dataset 'iitd': it needs a small data set; in a test, give tree="),
    ],
)
def test_wrong_calls_say_what_is_wrong(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(pvzoo.PvzooError, match=message):
        call()


@pytest.mark.parametrize(
    ("requires", "running", "outcome"),
    [
        ("pvzoo>=0.1,<1", "0.3.0", "warned"),  # new in the release that runs
        ("pvzoo>=0.1,<1", "0.3.7", "warned"),
        ("pvzoo>=0.1,<1", "0.4.0", "failed"),  # a minor release later
        ("pvzoo>=0.3,<1", "0.3.0", "failed"),  # the plugin was written for it
        ("pvzoo~=0.2", "0.3.0", "warned"),
        ("pvzoo", "0.3.0", "failed"),
    ],
)
def test_a_new_check_warns_for_one_minor_release(
    site: Any, monkeypatch: pytest.MonkeyPatch, requires: str, running: str, outcome: str
) -> None:
    monkeypatch.setitem(kit.CHECKS, "plugin", {})

    @kit.check("plugin", since="0.3", do="write it")
    def has_readme(candidate: Candidate) -> None:
        """Has a README."""
        kit.expect(False, "there is none")

    site.install(HOOK, requires=[requires])
    monkeypatch.setattr(kit, "__version__", running)
    with using(site.host()):
        found = candidate("plugin", "palmlab")
    assert found.result("has_readme").outcome == outcome
    with warnings.catch_warnings(record=True) as caught, suppress(ConformanceError):
        warnings.simplefilter("always")
        kit.conclude(found, found.results())
    assert [warning.category for warning in caught] == [ConformanceWarning] * (outcome == "warned")
    if caught:
        assert str(caught[0].message) == (
            f"plugin 'palmlab' fails a check that is new in pvzoo {running}, an error from the next minor release on\n"
            "  has_readme: Has a README.\n    found: there is none\n    to do: write it"
        )


def test_no_check_is_newer_than_pvzoo() -> None:
    for kind in KINDS:
        for check in checks(kind).values():
            assert check.since <= kit.lower_bound(f"=={pvzoo.__version__}"), check.name  # type: ignore[operator]


# --- in pytest, on the command line, in the documentation -------------------------------------------------------------


def test_one_pytest_case_a_check(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from pvzoo.testing import parametrize_checks\n"
        "@parametrize_checks('sum', expected_failed={'finite': 'why not'})\n"
        "def test_sum(check):\n    check()\n"
    )
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--tb=short", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    outcomes = dict(re.findall(r"test_it\.py::test_sum\[(\w+)\] (\w+)", done.stdout))
    assert outcomes == dict.fromkeys(checks("fusion"), "PASSED") | {"finite": "FAILED"}
    assert "ConformanceError: fusion 'sum' fails a check\n" in done.stdout
    assert "kit.py:" not in done.stdout, "the kit's own frames say nothing to an author"


def test_importing_the_kit_loads_neither_torch_nor_pytest(python: Callable[..., Any]) -> None:
    code = "import sys, pvzoo.testing\nassert not {'torch', 'numpy', 'pytest'} & set(sys.modules)"
    code += "\nlist(map(pvzoo.testing.checks, ['plugin', 'dataset']))\nassert 'torch' not in sys.modules"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_check_on_the_command_line(run_pvzoo: Callable[..., Any], site: Any) -> None:
    site.install(
        """
        @hookimpl
        def register_alignments(register):
            register("palmlab/norm", build="palmlab_torch:Norm", accepts={"map"}, summary="Norm")

        @hookimpl
        def register_datasets(register):
            register("palmlab/hands", build="pvzoo.data.adapters.palmprint:Iitd")
        """,
        palmlab_torch="""
        import torch
        class Norm(torch.nn.LayerNorm):
            def __init__(self, params, *, shape):
                super().__init__([shape.dim, *shape.grid], device="cpu")
        """,
    )
    done = run_pvzoo("check", "palmlab", path=site)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "plugin 'palmlab': 8 passed",
        "alignment 'palmlab/norm': 19 passed, 1 failed",
        f"  failed builds_on_meta: {checks('alignment')['builds_on_meta'].expects}",
        "    found: map 96x3x4: weight was made on cpu",
        "    to do: name no device and look at no values in __init__",
        "dataset 'palmlab/hands': 7 passed, 1 failed, 7 not run",
        "  failed summary: Has a summary of one line, which is all that a list shows of it.",
        "    found: there is none",
        "    to do: register it with summary='...'",
        f"  not run silent, offline, scan_gives_table: {LACKS_TREE}",
        "  not run files_exist, table_round_trip, pairs_are_clear: needs scan_gives_table, which does not pass",
        "  not run opens_no_image: needs files_exist, which does not pass",
    ]


def test_check_as_json_of_a_name_of_two_kinds(run_pvzoo: Callable[..., Any]) -> None:
    done = run_pvzoo("check", "linear", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    records = json.loads(done.stdout)
    wanted = [(kind, "linear", check, "passed") for kind in ("alignment", "head") for check in checks(kind)]
    assert [(r["kind"], r["name"], r["check"], r["outcome"]) for r in records] == wanted
    assert list(records[0]) == ["kind", "name", "check", "outcome", "expects", "found", "do"]


def test_check_of_an_unknown_name(run_pvzoo: Callable[..., Any]) -> None:
    done = run_pvzoo("check", "liner")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith("is named 'liner'; did you mean 'linear'?\n")


SECTIONS = {
    "Everything": KINDS,
    "Components": tuple(GOOD),
    "Fusions, backbones, alignments and heads": MODULES,
    "Fusions": ("fusion",),
    "Heads": ("head",),
    "Weight sources": ("weight_source",),
    "Data sets": ("dataset",),
    "Plugins": ("plugin",),
}


def test_every_check_is_documented() -> None:
    """In the section of the kinds that have it, in its own words; and nothing else is."""
    documented: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    for section in DOCS.read_text(encoding="utf-8").split("\n### ")[1:]:
        for kind in SECTIONS[section.partition("\n")[0]]:
            documented[kind] |= dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE))
    assert documented == {kind: {check.name: check.expects for check in checks(kind).values()} for kind in KINDS}


@pytest.mark.parametrize("kind", ["plugin", "dataset"])
def test_a_kind_has_all_its_checks_in_a_new_process(
    kind: str, python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Whatever else was imported: what a plugin must pass does not depend on what was checked before it."""
    done = python("-c", f"from pvzoo.testing import checks; print(*checks({kind!r}))")
    assert done.stdout.split() == list(checks(kind)), done.stderr
