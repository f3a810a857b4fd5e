"""Pictures of attention: maps stand where their cells are, show what was computed, and are scored as published."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from pytorch_grad_cam import GradCAM
from small import TINY, batch, randomise
from torch import Tensor, nn

import pvzoo
from pvzoo.data.protocols import open_protocol
from pvzoo.data.reading import synth_table
from pvzoo.errors import EvaluationError, ImageError, InputError, MissingModalityError, PvzooError
from pvzoo.model import Model
from pvzoo.plugins import host
from pvzoo.synth import RELEASES, Generator, SynthConfig
from pvzoo.visualization import draw_attention, look, save
from pvzoo.visualization.cells import Cells
from pvzoo.visualization.gradcam import grad_cam
from pvzoo.visualization.scoring import energy, pointing, score_attention, widened

EXAMPLES = Path(__file__).parents[1] / "examples/palms"
ANNA, ANNA_AGAIN = ([EXAMPLES / f"{m}/anna_{n}.png" for m in ("palm", "vein")] for n in (1, 2))
FINE = {"name": "convnext_atto", "params": {"stride": 16}}
FUSIONS = [entry.name for entry in host().builtins("fusion")]


def tiny(**overrides: Any) -> Model:
    """A small model whose maps have 4 x 4 cells."""
    model = pvzoo.create(TINY, **{"branches.local.backbone": FINE, "branches.global.backbone": FINE, **overrides})
    randomise(model)
    return model


# --- where cells are --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "grid", "shape"),
    [
        (Cells((15.5, 15.5), (32.0, 32.0), (224, 224)), (7, 7), (224, 224)),  # patches
        (Cells((15.5, 15.5), (32.0, 32.0), (112, 112)), (3, 3), (112, 112)),  # patches that leave a rest
        (Cells((0.0, 0.0), (64.0, 64.0), (224, 224)), (4, 4), (224, 224)),  # padded convolutions
        (Cells((15.5, 7.5), (32.0, 16.0), (128, 96)), (4, 6), (300, 200)),  # an image that was resized, and not evenly
        (Cells((15.5, 15.5), (32.0, 32.0), (64, 64)), (2, 2), (33, 57)),
        (Cells((15.5, 15.5), (32.0, 32.0), (32, 32)), (1, 1), (32, 32)),
    ],
)
def test_the_peak_of_a_map_stands_on_the_centre_of_its_cell(
    cells: Cells, grid: tuple[int, int], shape: tuple[int, int]
) -> None:
    for place in np.ndindex(grid):
        impulse = torch.zeros(grid)
        impulse[place] = 1.0
        spread = cells.spread(impulse, shape)
        assert tuple(spread.shape) == shape
        peak = np.argwhere((spread == spread.max()).numpy()).mean(0)
        for axis in (0, 1):
            centre = cells.first[axis] + place[axis] * cells.stride[axis]
            wanted = (centre + 0.5) * shape[axis] / cells.size[axis] - 0.5
            edge = place[axis] in (0, grid[axis] - 1)  # beyond an outer centre, the value goes on to the edge
            on = spread.select(1 - axis, round(float(peak[1 - axis])))
            assert abs(peak[axis] - wanted) <= 1.0 or edge
            assert float(on[min(round(max(wanted, 0)), shape[axis] - 1)]) > 0.9 * float(spread.max())


@settings(max_examples=30)
@given(
    grid=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    stride=st.integers(1, 64),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
def test_spreading_keeps_a_constant_and_makes_nothing_up(
    grid: tuple[int, int], stride: int, shape: tuple[int, int]
) -> None:
    cells = Cells(((stride - 1) / 2,) * 2, (float(stride),) * 2, (grid[0] * stride, grid[1] * stride))
    assert torch.allclose(cells.spread(torch.full(grid, 0.7), shape), torch.tensor(0.7))
    noise = torch.rand(grid)
    spread = cells.spread(noise, shape)
    assert noise.min() - 1e-5 <= spread.min() <= spread.max() <= noise.max() + 1e-5


@pytest.mark.parametrize(
    ("name", "params", "size", "away"),
    [
        ("efficientvit_m0", {"stride": 16}, 224, 7.5),
        ("efficientvit_m0", {"stride": 32}, 224, 15.5),
        ("convnext_atto", {"stride": 16}, 112, 0.0),
        ("convnext_atto", {"stride": 32}, 112, 8.0),
        ("timm", {"arch": "resnet18"}, 160, 15.5),
    ],
)
def test_a_cell_looks_at_where_its_backbone_says(name: str, params: dict[str, Any], size: int, away: float) -> None:
    """Measured by the gradient of a cell; ``away`` is how far that is from where stretching the map would put it."""
    torch.manual_seed(0)
    entry: Any = host().find("backbone", name)
    net = entry.create(entry.params(**params), in_chans=1, image_size=(size, size)).eval()
    shape = entry.shape_of(entry.params(**params), 1, (size, size))
    cell = shape.map.grid[0] // 2
    power = torch.zeros(size, size)
    for _ in range(4):
        image = torch.randn(1, 1, size, size, requires_grad=True)
        values = net(image, pool=False)[0, :, cell, cell]
        (gradient,) = torch.autograd.grad((values * torch.randn(len(values))).sum(), image)
        power += gradient[0, 0] ** 2
    place = torch.arange(size, dtype=torch.float32)
    measured = [float((power.sum(axis) * place).sum() / power.sum()) for axis in (1, 0)]
    declared = ((shape.stride - 1) / 2 if shape.first is None else shape.first) + cell * shape.stride
    assert measured == pytest.approx([declared] * 2, abs=3)
    stretched = (cell + 0.5) * size / shape.map.grid[0] - 0.5
    assert abs(stretched - declared) == pytest.approx(away, abs=0.5)


def test_a_map_that_was_resampled_still_covers_the_same_part_of_the_image() -> None:
    model = pvzoo.create(TINY, **{"preprocessing.size": 224, "branches.local.alignment.params.grid": [14, 14]})
    fine, coarse = (Cells.of(model.spec, "local", "palm", (n, n)) for n in (14, 7))
    assert (coarse.first, coarse.stride) == ((15.5, 15.5), (32.0, 32.0))
    assert (fine.first, fine.stride) == ((7.5, 7.5), (16.0, 16.0))


# --- fusion weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_is_explained(fusion: str) -> None:
    model = tiny(**{"fusion.global": "sum", "fusion.local": fusion})
    with torch.no_grad():
        details = model(*(model.preprocess(path) for path in ANNA)).details["local"]
    seen = look(model, [ANNA, ANNA_AGAIN])
    assert [palm.method for palm in seen] == ["weights" if details else "grad_cam"] * 2
    for palm in seen:
        assert palm.images["palm"] is not None and palm.images["palm"].shape == (224, 224)
        if palm.channels:
            assert palm.maps == {}
            assert sum(palm.channels["local"].values()) == pytest.approx(1)
            continue
        heat = palm.maps["local"]
        assert {name: x.shape for name, x in heat.items()} == {"palm": (224, 224), "vein": (224, 224)}
        assert all(x.min() >= 0 for x in heat.values())
        if palm.method == "weights":
            assert heat["palm"] + heat["vein"] == pytest.approx(1, abs=1e-5)
        else:
            assert max(x.max() for x in heat.values()) > 0


def test_a_map_shows_the_weights_at_the_centres_of_their_cells() -> None:
    model = tiny()
    with torch.no_grad():
        weight = model(*(model.preprocess(path) for path in ANNA)).details["local"]["w_vein"]
    (palm,) = look(model, [ANNA])
    assert weight.shape == (1, 1, 4, 4) and weight.std() > 0
    scale = 224 / 64
    for row, column in np.ndindex(4, 4):
        y, x = (round((7.5 + 16 * at + 0.5) * scale - 0.5) for at in (row, column))
        assert palm.maps["local"]["vein"][y, x] == pytest.approx(float(weight[0, 0, row, column]), abs=0.02)


@pytest.mark.parametrize("missing", [0, 1])
def test_without_a_modality_the_whole_weight_goes_to_the_other(missing: int) -> None:
    images: list[Any] = list(ANNA)
    images[missing] = None
    (palm,) = look(tiny(), [images])
    gone, there = (("palm", "vein"), ("vein", "palm"))[missing]
    assert palm.images[gone] is None
    assert set(palm.maps["local"]) == {there}
    assert palm.maps["local"][there] == pytest.approx(1)
    assert (palm.channels["global"][gone] == 0).all() and palm.channels["global"][there] == pytest.approx(1)
    figure = draw_attention([palm])
    assert [text.get_text() for axes in figure.axes for text in axes.texts].count(f"no {gone}") == 2


def test_images_keep_their_own_shape_and_colour() -> None:
    colour = np.random.default_rng(0).integers(0, 255, (90, 140, 3), np.uint8)
    (palm,) = look(tiny(), [[colour, torch.rand(1, 50, 40)]], names=["mixed"])
    assert palm.name == "mixed"
    assert {m: x.shape for m, x in palm.images.items() if x is not None} == {"palm": (90, 140, 3), "vein": (50, 40)}
    assert {m: x.shape for m, x in palm.maps["local"].items()} == {"palm": (90, 140), "vein": (50, 40)}


# --- Grad-CAM ---------------------------------------------------------------------------------------------------------


class _OneTensor(nn.Module):
    """A model as pytorch-grad-cam takes it: palm and vein as channels of one tensor; gives the joined embedding."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.embed(*(part.contiguous() for part in x.chunk(2, dim=1)))


@pytest.mark.parametrize("fusion", ["concat", "sum", "spatial_attention", "low_rank_bilinear"])
def test_grad_cam_is_that_of_pytorch_grad_cam(fusion: str) -> None:
    # Without normalisation, the embedding is what the target is computed from.
    model = tiny(**{"fusion.local": fusion, "embedding.normalize": False})
    palm, vein = batch(model, 2)
    with torch.no_grad():
        references = model.embed(palm.flip(0), vein.flip(0))  # alike enough for maps that ReLU leaves something of
    mine = grad_cam(model, {"palm": palm, "vein": vein}, references, "local")

    def target(reference: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda out: out @ F.normalize(reference, dim=0) / out.norm().detach()

    layers = [model.branches[m]["local"] for m in ("palm", "vein")]  # type: ignore[index]
    with GradCAM(_OneTensor(model), layers) as cam:
        cam(torch.cat([palm, vein], 1), [target(reference) for reference in references])
        found = cam.activations_and_grads
        for name, layer, values, gradients in zip(mine, layers, found.activations, found.gradients, strict=True):
            theirs = cam.get_cam_image(None, layer, None, values.numpy(), gradients.numpy()).clip(min=0)
            assert mine[name].numpy() == pytest.approx(theirs, rel=1e-3, abs=1e-7)
            assert theirs.max() > 0


def test_grad_cam_leaves_the_model_as_it_was() -> None:
    model = tiny(**{"fusion.local": "concat"})
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    images = dict(zip(("palm", "vein"), batch(model, 2), strict=True))
    with torch.no_grad():
        reference = model.embed(**images)
        found = grad_cam(model, images, reference)
    assert all(x.max() > 0 for x in found.values())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(image.grad is None and not image.requires_grad for image in images.values())


def test_a_palm_that_agrees_perfectly_is_explained_too() -> None:
    """The gradient of the cosine itself is zero there."""
    model = tiny(**{"fusion.local": "sum"})
    images = dict(zip(("palm", "vein"), batch(model, 1), strict=True))
    with torch.no_grad():
        itself = model.embed(**images)
    assert max(float(x.max()) for x in grad_cam(model, images, itself).values()) > 1e-3


def test_grad_cam_takes_the_map_that_was_pooled_and_shared_branches() -> None:
    pooled = tiny(
        **{"branches.local.features": "vector", "branches.local.alignment": "linear", "fusion.local": "concat"}
    )
    shared = tiny(**{"share_branches": True, "fusion.local": "concat"})
    for model in (pooled, shared):
        images = dict(zip(("palm", "vein"), batch(model, 2), strict=True))
        found = grad_cam(model, images, torch.randn(2, model.spec.geometry.embedding))
        assert {name: x.shape for name, x in found.items()} == {"palm": (2, 4, 4), "vein": (2, 4, 4)}
        assert not torch.equal(found["palm"], found["vein"])


def test_where_a_vector_is_no_pooled_map_grad_cam_says_so() -> None:
    model = pvzoo.create(
        TINY,
        **{
            "branches": {"tokens": {"backbone": {"name": "timm", "params": {"arch": "vit_tiny_patch16_224"}}}},
            "fusion": {"tokens": "concat"},
        },
    )
    images = dict(zip(("palm", "vein"), batch(model, 1), strict=True))
    message = "branch 'tokens' has no map of palm on the way to its vector; a model with features: map"
    with pytest.raises(EvaluationError, match=re.escape(message)):
        grad_cam(model, images, torch.randn(1, model.spec.geometry.embedding))


# --- what cannot be drawn ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fusion", "palms", "method", "error", "message"),
    [
        ("concat", [ANNA], None, EvaluationError, "fusion concat gives no weights, so its map is a Grad-CAM"),
        ("spatial_attention", [], None, InputError, "there are no palms to look at"),
        ("spatial_attention", [ANNA[:1]], None, InputError, "palm 1 has 1 images; a palm is 2 images (palm and vein)"),
        ("spatial_attention", [ANNA, [None, None]], None, InputError, "palm 2 has none of them; a palm is 2 images"),
        ("spatial_attention", [["nowhere.png", None]], None, ImageError, "nowhere.png: "),
        ("spatial_attention", [[np.zeros((2, 2), int), None]], None, ImageError, "palm 1, palm: pixels of torch.int64"),
        ("concat", [[ANNA[0], None]] * 2, None, MissingModalityError, "needs every modality, and vein is missing"),
        ("spatial_attention", [ANNA], "grad_cam", EvaluationError, "so give a second palm as well"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(
    fusion: str, palms: Any, method: Any, error: type[Exception], message: str
) -> None:
    whole = "channel_attention" if fusion == "spatial_attention" else fusion
    with pytest.raises(error, match=re.escape(message)):
        look(tiny(**{"fusion.global": whole, "fusion.local": fusion}), palms, method=method)


def test_a_training_model_is_refused() -> None:
    model = tiny(**{"fusion.local": "concat"}).train()
    with pytest.raises(InputError, match=r"the model is in training mode, .*: model.eval\(\) first"):
        grad_cam(model, dict(zip(("palm", "vein"), batch(model, 1), strict=True)), torch.randn(1, 48))


def test_without_matplotlib_the_error_says_what_to_install(python: Callable[..., Any]) -> None:
    done = python("-c", "import sys; sys.modules['matplotlib'] = None; import pvzoo.visualization")
    assert done.returncode == 1
    assert "MissingExtraError: this needs matplotlib, which cannot be imported" in done.stderr
    assert "pip install 'pvzoo[viz]'" in done.stderr


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_the_scale_of_weights_is_centred_on_the_equal_share() -> None:
    figure = draw_attention(look(tiny(), [ANNA, ANNA_AGAIN]))
    norms = {(x.norm.vmin, x.norm.vmax) for axes in figure.axes for x in axes.images if x.cmap.name == "viridis"}
    ((low, high),) = norms
    assert low + high == pytest.approx(1) and 0 <= low < 0.5
    assert isinstance(figure, Figure)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    wanted = ["palm", "palm, local weight", "vein", "vein, local weight", "global: channel weights"]
    assert titles == wanted
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] == [
        "palm 1",
        "palm 2",
        "weight of the modality",
    ]


@pytest.mark.parametrize(("suffix", "begins"), [(".PNG", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_a_picture_is_what_its_suffix_says_and_always_the_same(tmp_path: Path, suffix: str, begins: bytes) -> None:
    seen = look(tiny(), [ANNA])
    files = [tmp_path / f"{name}{suffix}" for name in ("one", "two")]
    for file in files:
        save(draw_attention(seen), file, dpi=50)
    assert files[0].read_bytes().startswith(begins)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("map.jpg", "map.jpg: a picture is a .png, .svg or .pdf file"),
        ("map", "map: a picture is a .png, .svg or .pdf file"),
        ("no/map.png", "no/map.png: there is no folder "),
        ("folder.png", "folder.png: is a folder"),
    ],
)
def test_a_picture_that_cannot_be_written_is_an_error(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(PvzooError, match=re.escape(message)):
        save(Figure(), tmp_path / name)
    with pytest.raises(PvzooError, match="there is nothing to draw"):
        draw_attention([])


# --- the score on SynthPalm -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heat", "mask", "hit", "inside"),
    [
        ([[0, 1], [0, 0]], [[0, 1], [0, 0]], 1, 1),
        ([[0, 1], [0, 0]], [[1, 0], [0, 0]], 0, 0),
        ([[3, 3], [1, 1]], [[1, 0], [1, 0]], 0.5, 0.5),
        ([[0, 4], [2, 2]], [[0, 0], [1, 1]], 0, 0.5),
        ([[5, 9], [5, 7]], [[0, 1], [0, 0]], 1, 4 / 6),
    ],
)
def test_the_pointing_game_and_the_energy(heat: Any, mask: Any, hit: float, inside: float) -> None:
    values, known = np.array(heat, np.float32), np.array(mask, bool)
    assert pointing(values, known) == hit
    assert energy(values, known) == pytest.approx(inside)
    assert np.isnan(energy(np.full((2, 2), 0.3), known))


@pytest.mark.parametrize("reach", [0, 1, 1.5, 3, 7])
def test_a_mask_is_widened_by_a_disc(reach: float) -> None:
    mask = np.zeros((31, 31), bool)
    mask[15, 12:18] = True
    y, x = np.mgrid[:31, :31]
    away = np.hypot(y - 15, np.maximum(0, np.maximum(12 - x, x - 17)))
    assert (widened(mask, reach) == (away <= reach)).all()
    assert not widened(np.zeros((5, 5), bool), reach).any()


@pytest.mark.parametrize("method", ["weights", "grad_cam"])
def test_maps_are_scored_on_synthpalm_beside_chance(method: Any) -> None:
    config = SynthConfig(seed=4, subjects=3, sessions=2, samples=1, size=64)
    pairs = synth_table(config).pairs()
    model = tiny()
    done: list[int] = []
    found = score_attention(model, config, pairs, method=method, folds=50, batch_size=5, advance=done.append)
    assert sum(done) == len(pairs) * (2 if method == "grad_cam" else 1)
    assert (found.method, found.tolerance, found.size) == (method, pytest.approx(64 * 0.03), 64)
    names = [(each.branch, each.modality, each.game) for each in found.located]
    assert names == [("local", m, game) for m in ("palm", "vein") for game in ("pointing", "energy")]
    generator = Generator(config)
    vein = [generator.sample(int(p.subject), p.hand, p.session, p.sample).vein_mask > 0 for p in pairs]
    chances = [
        np.mean([widened(mask, found.tolerance).mean() for mask in vein]),
        np.mean([mask.mean() for mask in vein]),
    ]
    assert [each.chance for each in found.located[2:]] == pytest.approx(chances)
    for each in found.located:
        assert (each.samples, each.subjects) == (12, 3)
        assert each.interval.low <= each.value <= each.interval.high
        assert each.gain == pytest.approx(each.value - each.chance)
        assert each.gain_interval.low <= each.gain <= each.gain_interval.high
    again = score_attention(model, config, pairs, method=method, folds=50, batch_size=12)
    assert [each.value for each in again.located] == pytest.approx([each.value for each in found.located], abs=1e-4)
    assert found.warnings == ["intervals from 3 subjects are too narrow; take 20 or more"]
    figure = draw_attention(found.pictured)
    assert len(found.pictured) == 4 and sum(len(axes.collections) for axes in figure.axes) >= 8  # outlines and bars


def test_what_cannot_be_scored_is_an_error() -> None:
    config = SynthConfig(seed=4, subjects=1, sessions=1, samples=1, size=64)
    pairs = synth_table(config).pairs()
    with pytest.raises(EvaluationError, match="identity 1/left has one sample: a second is needed"):
        score_attention(tiny(), config, pairs, method="grad_cam")
    pooled = tiny(
        **{"branches.local.features": "vector", "branches.local.alignment": "linear", "fusion.local": "gated"}
    )
    with pytest.raises(EvaluationError, match="weighs channels alone, which have no place; Grad-CAM gives maps"):
        score_attention(pooled, config, pairs)
    other = tiny(modalities=["palm", "dorsal"])
    with pytest.raises(EvaluationError, match="SynthPalm has no mask of dorsal; it has those of palm and vein"):
        score_attention(other, config, pairs)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_draws_a_saved_model_without_pyplot(python: Callable[..., Any], tmp_path: Path) -> None:
    tiny().save(tmp_path / "model")
    images = [str(ANNA[0]), str(ANNA[1]), str(ANNA_AGAIN[0]), "-"]
    code = f"""
import sys
sys.argv = ["pvzoo", "attention", "model", *{images!r}, "-o", "map.svg"]
try:
    import pvzoo.cli
    pvzoo.cli.main()
finally:
    assert "matplotlib.pyplot" not in sys.modules
"""
    done = python("-c", code)
    assert (done.returncode, done.stdout) == (0, "map.svg\n"), done.stderr
    text = (tmp_path / "map.svg").read_text()
    assert ">anna_1<" in text and ">anna_2<" in text and text.count(">no vein<") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the images of one palm or more, or --data and a SynthPalm release"),
        (
            ["a.png", "--data", "synthpalm-mini"],
            "give the images of one palm or more, or --data and a SynthPalm release",
        ),
        (["a.png"], "1 image given; a palm has 2 (palm and vein), '-' for a missing one"),
        (
            ["a.png", "--modalities", "plam"],
            "--modalities plam: the model has no modality 'plam'; did you mean 'palm'?",
        ),
        (["a.png", "b.png", "-o", "x.gif"], "x.gif: a picture is a .png, .svg or .pdf file"),
        (["--data", "synthpalm-min"], "which SynthPalm alone has; did you mean 'synthpalm-mini'?"),
        (["--data", "synthpalm-mini", "-o", "taken"], "taken: is a file; with --data a folder is needed"),
        (["--data", "synthpalm-mini", "-o", "no/where"], "no/where: there is no folder "),
    ],
)
def test_a_wrong_command_says_why(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()
    done = call("attention", "stage1_convnext_palm_nano" if "--data" in arguments else "stage2_shared_nano", *arguments)
    assert done.code == 2
    assert message in done.err


def test_the_command_scores_a_model(call: Any, tmp_path: Path) -> None:
    branch = {**TINY["branches"]["local"], "backbone": FINE}
    spec = {**TINY, "branches": {"local": branch}, "fusion": {"local": "spatial_attention"}}
    (tmp_path / "spec.yaml").write_text(json.dumps(spec))
    done = call(
        "attention", tmp_path / "spec.yaml", "--data", "synthpalm-mini", "-o", tmp_path / "out", "--folds", "20"
    )
    assert done.code == 0, done.err
    assert "warning: intervals from 2 subjects are too narrow" in done.err and "untrained" in done.err
    facts = json.loads((tmp_path / "out/attention.json").read_text())
    assert facts["untrained"] is True and facts["protocol"].startswith("open_subject(")
    split = open_protocol("open_subject").split(synth_table(RELEASES["synthpalm-mini"]))
    assert {each["samples"] for each in facts["located"]} == {len(split.test.samples)}
    text = (tmp_path / "out/attention.md").read_text()
    assert "within 3.36 pixels of one, in images of 112 x 112" in text
    assert (tmp_path / "out/attention.png").stat().st_size > 10_000
