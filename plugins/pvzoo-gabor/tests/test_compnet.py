"""What the backbone and its model promise beyond pvzoo's contracts, which ``pvzoo.testing`` checks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pvzoo_gabor import CompNetParams, compnet_shape
from pvzoo_gabor.compnet import CompNet

import pvzoo
from pvzoo.testing import check_backbone, parametrize_checks

Make = Callable[..., pvzoo.Model]
README = Path(__file__).parents[1] / "README.md"


def backbone(model: pvzoo.Model) -> Any:
    return model.get_submodule("branches.palm.local")


def features(model: pvzoo.Model, size: int = 64) -> torch.Tensor:
    """What the backbone gives for two random images."""
    found = model.features(torch.randn(2, model.spec.preprocessing.channels, size, size))["local"]["palm"]
    assert found is not None
    return found


@parametrize_checks("gabor")
def test_plugin(check: Callable[[], None]) -> None:
    check()


@parametrize_checks("gabor/compnet")
def test_compnet(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize(
    "params",
    [
        {"kernel_sizes": [9]},
        {"kernel_sizes": [3, 21, 3], "channels": 5, "hidden": 7, "cycles": 1.0},
        {"stride": 1, "kernel_sizes": [33, 5]},
        {"stride": 4, "orientations": 2},
        {"dim": None},
        {"dim": 3},
    ],
    ids=str,
)
def test_compnet_with_other_params(params: dict[str, Any]) -> None:
    check_backbone("gabor/compnet", params=params, image_sizes=[(53, 53), (57, 75), (64, 60)])


def test_model_is_the_published_one() -> None:
    model = pvzoo.create("gabor/compnet_palm", num_classes=10)
    net = backbone(model)
    assert net.project[0].weight.shape == (512, 9708)
    head = model.spec.head.params
    assert (head.scale, head.margin, head.easy_margin, head.sample_rate) == (30.0, 0.5, False, 1.0)
    logits, embedding, _ = model(torch.randn(2, 1, 128, 128), labels=torch.tensor([0, 9]))
    assert logits is not None and logits.shape == (2, 10)
    assert embedding.shape == (2, 512)


@pytest.mark.parametrize(("stride", "smallest"), [(1, 22), (3, 32), (4, 37)])
def test_smallest_image(make: Make, stride: int, smallest: int) -> None:
    assert features(make(size=smallest, stride=stride, features="map"), smallest).shape[2:] == (1, 1)
    message = f"{smallest - 1}x64 is too small; a kernel of 17 at stride {stride} takes {smallest} pixels a side"
    with pytest.raises(pvzoo.PvzooError, match=f"branches.local.backbone: gabor/compnet: .*{message}"):
        make(size=[smallest - 1, 64], stride=stride)


def test_a_shift_by_the_declared_stride_shifts_the_map_by_one_cell(make: Make) -> None:
    model = make(features="map")
    stride = model.spec.geometry.backbones["local"]["palm"].stride
    assert stride == 6
    image = torch.randn(1, 1, 64, 64)
    found, shifted = (model.features(x)["local"]["palm"] for x in (image, image.roll(-stride, 3)))
    assert found is not None and shifted is not None
    assert torch.allclose(found[..., 1:], shifted[..., :-1], atol=1e-5)


def test_several_channels_are_averaged_to_grey(make: Make) -> None:
    grey, colour = make(in_chans=1), make(in_chans=3)
    image = torch.randn(2, 3, 64, 64)
    assert torch.equal(colour.embed(image), grey.embed(image.mean(1, keepdim=True)))


def test_maps_of_all_sizes_look_at_the_same_spot(make: Make) -> None:
    """The pixels that a cell depends on, block by block, have their middle within a cell (6 pixels) of each other."""
    net = backbone(make(kernel_sizes=[35, 17, 7], size=128, features="map"))
    cells = [(0, 0), (6, 9), (13, 13)]
    image = torch.rand(len(cells), 1, 128, 128, requires_grad=True)
    blocks = net(image, pool=False).split(12, dim=1)
    middles = []
    for block in blocks:
        answers = torch.stack([block[n, :, row, column].sum() for n, (row, column) in enumerate(cells)])
        (gradient,) = torch.autograd.grad(answers.sum(), image, retain_graph=True)
        seen = [one[0].nonzero().float() for one in gradient]
        middles.append(torch.stack([(pixels.amin(0) + pixels.amax(0)) / 2 for pixels in seen]))
    assert (torch.stack(middles).amax(0) - torch.stack(middles).amin(0)).max() < 6


@pytest.mark.parametrize("kind", ["vector", "map"])
def test_gradients_reach_every_filter(make: Make, kind: str) -> None:
    model = make(features=kind, dim=16 if kind == "vector" else None)
    torch.autograd.backward(features(model).square().sum())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


@pytest.mark.parametrize(
    ("params", "path", "message"),
    [
        ({"kernel_sizes": [35, 16]}, "kernel_sizes", "must be odd, so that a filter has a centre, got 16"),
        ({"kernel_sizes": [35, 1]}, "kernel_sizes.1", "greater than or equal to 3, got 1"),
        ({"kernel_sizes": []}, "kernel_sizes", "at least 1 item"),
        ({"orientations": 1}, "orientations", "greater than or equal to 2, got 1"),
        ({"stride": 0}, "stride", "greater than or equal to 1, got 0"),
        ({"dim": 0}, "dim", "greater than or equal to 1, got 0"),
        ({"dropout": 1.0}, "dropout", "less than 1, got 1.0"),
        ({"sigma": 0.0}, "sigma", "greater than 0, got 0.0"),
        ({"cycles": 3.5}, "cycles", "must be below 3.5, two pixels a wave in a kernel of 7, got 3.5"),
        ({"orientation": 9}, "orientation", "did you mean 'orientations'?"),
    ],
    ids=str,
)
def test_wrong_params_are_reported_where_they_stand(
    make: Make, params: dict[str, Any], path: str, message: str
) -> None:
    with pytest.raises(pvzoo.PvzooError) as caught:
        make(**params)
    assert f"branches.local.backbone.params.{path}: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("modality", ["palm", "vein", None])
def test_the_fused_spec_of_the_readme(tmp_path: Path, modality: str | None) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "fused.yaml").write_text(blocks[0], encoding="utf-8")
    small: dict[str, Any] = {"branches.local.backbone.vein": "convnext_atto"}
    model = pvzoo.create(tmp_path / "fused.yaml", **small)
    assert str(model.spec.geometry.aligned["local"]["palm"]) == "256x14x14"
    images = {name: torch.randn(2, 1, 128, 128) for name in ("palm", "vein") if name != modality}
    _, embedding, details = model(**images)
    weights = details["local"]
    assert embedding.shape == (2, 256)
    assert torch.allclose(weights["w_palm"] + weights["w_vein"], torch.ones(2, 1, 14, 14))
    if modality is not None:
        assert not weights[f"w_{modality}"].any()


def test_a_map_fits_images_of_another_size_and_a_projected_vector_does_not(make: Make, tmp_path: Path) -> None:
    saved = make(features="map", dim=None).save(tmp_path / "map")
    model = pvzoo.create(f"local-dir:{saved}", image_size=96)
    assert features(model, 96).shape == (2, 24, 11, 11)
    saved = make(features="vector").save(tmp_path / "vector")
    with pytest.raises(pvzoo.PvzooError, match=r"project\.0\.weight is \(16, \d+\) in the file"):
        pvzoo.create(f"local-dir:{saved}", image_size=96)


def test_an_image_whose_projection_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(pvzoo.SpecError, match=r"branches\.local\.backbone: needs at least 1[0-9]{2}\.\d GiB"):
        pvzoo.spec("gabor/compnet_palm", **{"preprocessing.size": 8192})


def test_a_cell_of_the_map_looks_at_where_its_shape_says() -> None:
    """Measured by the gradient of a cell in the middle."""
    size = 128
    shape = compnet_shape(CompNetParams(), 1, (size, size))
    torch.manual_seed(0)
    net = CompNet(CompNetParams(), in_chans=1, image_size=(size, size)).eval()
    assert shape.map is not None and shape.map.grid is not None and shape.first is not None and shape.stride
    cell = shape.map.grid[0] // 2
    power = torch.zeros(size, size)
    for _ in range(4):
        image = torch.rand(1, 1, size, size, requires_grad=True)
        values = net(image, pool=False)[0, :, cell, cell]
        (gradient,) = torch.autograd.grad((values * torch.randn(len(values))).sum(), image)
        power += gradient[0, 0] ** 2
    place = torch.arange(size, dtype=torch.float32)
    measured = [float((power.sum(axis) * place).sum() / power.sum()) for axis in (1, 0)]
    assert measured == pytest.approx([shape.first + cell * shape.stride] * 2, abs=2)
