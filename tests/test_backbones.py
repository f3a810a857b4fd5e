"""Backbones: declared shapes against real networks, outputs against timm's own, and the traps on the way."""

from __future__ import annotations

import copy
import pickle
import sys
from functools import cache
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pvzoo import Level, Shape
from pvzoo.plugins import host
from pvzoo.registry import Backbone

EFFICIENTVIT = [f"efficientvit_m{i}" for i in range(6)]
CONVNEXT = ["convnext_atto", "convnext_nano", "convnext_tiny"]
STRIDES = dict.fromkeys(EFFICIENTVIT, (16, 32, 64)) | dict.fromkeys(CONVNEXT, (4, 8, 16, 32))
# Small ones, where one of a family is enough.
SMALL = ["efficientvit_m0", "convnext_atto"]
# Networks of timm that keep gathered attention biases in eval mode, with an image size that they take.
CACHING = {
    "efficientvit_m0": (64, 64),
    "levit_128s": (64, 64),
    "tiny_vit_5m_224": (64, 64),
    "efficientformer_l1": (224, 224),
    "efficientformerv2_s0": (64, 64),
}


def entry_of(name: str) -> Backbone:
    entry = host().find("backbone", name)
    assert isinstance(entry, Backbone)
    return entry


def build(name: str, channels: int = 1, size: tuple[int, int] = (64, 64), **params: Any) -> Any:
    torch.manual_seed(0)
    entry = entry_of(name)
    return entry.builder()(entry.params(**params), in_chans=channels, image_size=size).eval()


def shape_of(name: str, channels: int = 1, size: tuple[int, int] = (64, 64), **params: Any) -> Any:
    entry = entry_of(name)
    return entry.shape_of(entry.params(**params), channels, size)


def size_of(name: str, channels: int = 1, size: tuple[int, int] = (64, 64), **params: Any) -> int:
    entry = entry_of(name)
    return entry.parameters(entry.params(**params), channels, size)


def count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def image(channels: int = 1, size: tuple[int, int] = (64, 64), batch: int = 2) -> Tensor:
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def randomise(net: nn.Module) -> Any:
    """Makes every layer count: 34 of 112 norms of a fresh EfficientViT have weight 0, and all attention biases are 0.

    On a fresh network, tests of attention pass whatever attention does.
    """
    generator = torch.Generator().manual_seed(2)
    for name, tensor in net.state_dict().items():
        if name.endswith(("running_var", "norm.weight", "bn.weight")) or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("running_mean", "bias", "attention_biases", "gamma", "ls1", "ls2")):
            tensor.normal_(0, 0.5, generator=generator)
    return net


@cache
def full(name: str, channels: int = 1, size: tuple[int, int] = (64, 64)) -> Any:
    """A randomised whole network, shared by the tests that do not change it."""
    return randomise(build(name, channels, size))


@torch.inference_mode()
def run(net: nn.Module, x: Tensor, *, pool: bool = True) -> Tensor:
    out: Tensor = net(x, pool=pool)
    return out


def assert_as_declared(net: nn.Module, declared: Any, channels: int, size: tuple[int, int]) -> None:
    x = image(channels, size)
    vector, grid = run(net, x), run(net, x, pool=False)
    assert vector.shape == (2, declared.vector)
    assert grid.shape == (2, declared.map.dim, *declared.map.grid)
    assert vector.isfinite().all() and grid.isfinite().all()


class TestReference:
    """The numbers that the models of the zoo rest on."""

    @pytest.mark.parametrize(
        ("name", "vector", "grid", "parameters"),
        [
            ("efficientvit_m0", 192, Shape(192, (4, 4)), 2_155_908),
            ("convnext_tiny", 768, Shape(768, (7, 7)), 27_817_056),
            ("convnext_atto", 320, Shape(320, (7, 7)), 3_373_240),
        ],
    )
    def test_one_channel_at_224(self, name: str, vector: int, grid: Shape, parameters: int) -> None:
        declared = shape_of(name, 1, (224, 224))
        assert (declared.vector, declared.map) == (vector, grid)
        net = build(name, 1, (224, 224))
        assert_as_declared(net, declared, 1, (224, 224))
        assert sum(p.numel() for p in net.parameters()) == parameters

    def test_table_names_every_backbone(self) -> None:
        assert {entry.name for entry in host().builtins("backbone") if "/" not in entry.name} == {*STRIDES, "timm"}


class TestShapes:
    @pytest.mark.parametrize("size", [(32, 32), (33, 65), (96, 50)], ids=str)
    @pytest.mark.parametrize("name", STRIDES)
    def test_declared_is_real(self, name: str, size: tuple[int, int]) -> None:
        assert_as_declared(build(name, 1, size), shape_of(name, 1, size), 1, size)

    @pytest.mark.parametrize("channels", [2, 3, 5])
    @pytest.mark.parametrize("name", SMALL)
    def test_any_number_of_channels(self, name: str, channels: int) -> None:
        assert_as_declared(build(name, channels), shape_of(name, channels), channels, (64, 64))
        assert shape_of(name, channels) == shape_of(name, 1)

    @given(height=st.integers(16, 150), width=st.integers(16, 150), stride=st.sampled_from([16, 32, 64]))
    @settings(max_examples=15, deadline=None)
    def test_efficientvit_at_any_size(self, height: int, width: int, stride: int) -> None:
        size = (height, width)
        assert_as_declared(
            build("efficientvit_m0", 1, size, stride=stride),
            shape_of("efficientvit_m0", 1, size, stride=stride),
            1,
            size,
        )

    @given(height=st.integers(32, 150), width=st.integers(32, 150))
    @settings(max_examples=15, deadline=None)
    def test_convnext_at_any_size(self, height: int, width: int) -> None:
        size = (height, width)
        assert_as_declared(full("convnext_atto"), shape_of("convnext_atto", 1, size), 1, size)

    @pytest.mark.parametrize(("name", "smallest"), [("efficientvit_m0", 16), ("convnext_atto", 32)])
    def test_smallest_image(self, name: str, smallest: int) -> None:
        assert_as_declared(
            build(name, 1, (smallest, smallest)), shape_of(name, 1, (smallest, smallest)), 1, (smallest,) * 2
        )
        below = (smallest + 40, smallest - 1)
        with pytest.raises(ValueError) as caught:
            shape_of(name, 1, below)
        assert str(caught.value) == (
            f"an image of {below[0]}x{below[1]} is too small; {name} takes {smallest} pixels a side or more"
        )
        with pytest.raises((RuntimeError, AssertionError, ZeroDivisionError)):  # and timm could not have done it
            timm.create_model(name, in_chans=1, num_classes=0, **img_size(name, below))(image(1, below))


def img_size(name: str, size: tuple[int, int]) -> dict[str, Any]:
    return {"img_size": size} if name in EFFICIENTVIT else {}


LEVELS = [pytest.param(name, stride, id=f"{name}-{stride}") for name in SMALL for stride in STRIDES[name]]


class TestLevels:
    @pytest.mark.parametrize("name", STRIDES)
    def test_all_levels_are_declared_and_reachable(self, name: str) -> None:
        levels = shape_of(name).levels
        assert tuple(level.stride for level in levels) == STRIDES[name]
        assert levels[-1] == Level(STRIDES[name][-1], shape_of(name).vector)
        for level in levels:
            declared = shape_of(name, stride=level.stride)
            assert (declared.vector, declared.stride, declared.map.dim) == (level.dim, level.stride, level.dim)
            assert declared.levels == levels  # a spec's repair can be proposed from any of them

    @pytest.mark.parametrize(("name", "stride"), LEVELS)
    @pytest.mark.parametrize("size", [(64, 64), (70, 97)], ids=str)
    def test_declared_is_real(self, name: str, stride: int, size: tuple[int, int]) -> None:
        declared = shape_of(name, 3, size, stride=stride)
        assert_as_declared(build(name, 3, size, stride=stride), declared, 3, size)

    @pytest.mark.parametrize(("name", "stride"), LEVELS)
    def test_is_the_level_of_the_whole_network(self, name: str, stride: int) -> None:
        whole, cut = full(name), build(name, stride=stride)
        state = whole.state_dict()
        cut.load_state_dict({key: state[key] for key in cut.state_dict()})
        x = image()
        with torch.inference_mode():
            expected = whole.net.forward_intermediates(x, intermediates_only=True)[STRIDES[name].index(stride)]
        torch.testing.assert_close(run(cut, x, pool=False), expected)
        if stride == STRIDES[name][-1]:
            torch.testing.assert_close(run(cut, x), run(whole, x))
        else:
            torch.testing.assert_close(run(cut, x), expected.mean((2, 3)))

    @pytest.mark.parametrize("name", SMALL)
    def test_what_lies_behind_the_level_is_gone(self, name: str) -> None:
        sizes = [count(build(name, stride=stride)) for stride in STRIDES[name]]
        assert sizes == sorted(set(sizes))
        assert sizes[-1] == count(build(name))
        assert sizes[-2] < sizes[-1] / 2

    @pytest.mark.parametrize("name", STRIDES)
    def test_the_declared_size_is_that_of_the_smallest_image_and_nearly_that_of_any(self, name: str) -> None:
        smallest = (16, 16) if name in EFFICIENTVIT else (32, 32)
        for stride in STRIDES[name]:
            assert size_of(name, stride=stride) == count(build(name, 1, smallest, stride=stride))
        real = count(build(name, 3, (224, 224)))
        assert 0.99 * real < size_of(name, 3, (224, 224)) == size_of(name, stride=STRIDES[name][-1]) <= real

    @pytest.mark.parametrize("name", SMALL)
    def test_every_parameter_of_a_cut_network_is_used(self, name: str) -> None:
        net = randomise(build(name, stride=16)).train()
        net(image()).square().sum().backward()
        assert [key for key, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []

    @pytest.mark.parametrize(
        ("name", "stride", "message"),
        [
            ("efficientvit_m0", 8, "has no level of stride 8; it has 16, 32, 64"),
            ("efficientvit_m5", 128, "has no level of stride 128; it has 16, 32, 64"),
            ("convnext_tiny", 64, "has no level of stride 64; it has 4, 8, 16, 32"),
            ("convnext_atto", 0, "has no level of stride 0; it has 4, 8, 16, 32"),
        ],
    )
    def test_no_such_level(self, name: str, stride: int, message: str) -> None:
        with pytest.raises(ValueError) as caught:
            shape_of(name, stride=stride)
        assert str(caught.value) == message


class TestAgainstTimm:
    @pytest.mark.parametrize("name", STRIDES)
    def test_vector_is_timms_own(self, name: str) -> None:
        size = (64, 96)
        ours = full(name, 2, size)
        theirs = timm.create_model(name, in_chans=2, num_classes=0, **img_size(name, size)).eval()
        theirs.load_state_dict(ours.net.state_dict())
        x = image(2, size)
        with torch.inference_mode():
            expected = theirs(x)
            expected_map = theirs.forward_features(x)
        assert expected.std() > 0.01
        torch.testing.assert_close(run(ours, x), expected)
        torch.testing.assert_close(run(ours, x, pool=False), expected_map)

    @pytest.mark.parametrize("name", EFFICIENTVIT)
    def test_vector_of_efficientvit_is_the_mean_of_its_map(self, name: str) -> None:
        net, x = full(name, 2, (64, 96)), image(2, (64, 96))
        torch.testing.assert_close(run(net, x), run(net, x, pool=False).mean((2, 3)))

    @pytest.mark.parametrize("name", CONVNEXT)
    def test_vector_of_convnext_is_the_normed_mean_of_its_map(self, name: str) -> None:
        net, x = full(name, 2, (64, 96)), image(2, (64, 96))
        torch.testing.assert_close(
            run(net, x), net.net.head.norm(run(net, x, pool=False).mean((2, 3), keepdim=True))[:, :, 0, 0]
        )

    @pytest.mark.parametrize("name", SMALL)
    def test_one_sample_does_not_see_another(self, name: str) -> None:
        net, x = full(name), image(batch=3)
        for pool in (True, False):
            alone = torch.cat([run(net, x[i : i + 1], pool=pool) for i in range(3)])
            torch.testing.assert_close(alone, run(net, x, pool=pool), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("name", SMALL)
    def test_every_parameter_gets_a_gradient(self, name: str) -> None:
        net = randomise(build(name)).train()
        (net(image(batch=4)) * torch.randn(4, shape_of(name).vector)).sum().backward()
        assert [key for key, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []

    def test_the_map_keeps_position(self) -> None:
        """A bright spot lights up its own cell of ConvNeXt's map."""
        net = build("convnext_atto", size=(128, 128))
        black = torch.zeros(1, 1, 128, 128)
        for y, x in [(0, 3), (2, 1)]:
            spot = black.clone()
            spot[:, :, 32 * y + 8 : 32 * y + 24, 32 * x + 8 : 32 * x + 24] = 3
            change = (run(net, spot, pool=False) - run(net, black, pool=False)).norm(dim=1)[0]
            assert divmod(int(change.argmax()), 4) == (y, x)

    @pytest.mark.parametrize(("name", "params"), [("convnext_atto", {}), ("timm", {"arch": "resnet18"})])
    def test_stochastic_depth_acts_in_training_alone(self, name: str, params: dict[str, Any]) -> None:
        plain, dropping = randomise(build(name, **params)), build(name, **params, drop_path_rate=0.5)
        dropping.load_state_dict(plain.state_dict())
        x = image(batch=8)
        assert torch.equal(run(plain, x), run(dropping, x))
        assert torch.equal(run(plain.train(), x), run(plain, x))
        assert not torch.equal(run(dropping.train(), x), run(dropping, x))


def biases_of(net: nn.Module) -> list[nn.Parameter]:
    return [p for name, p in net.named_parameters() if name.endswith("attention_biases")]


def caching(arch: str) -> Any:
    return randomise(build("timm", 1, CACHING[arch], arch=arch))


class TestAttentionBiases:
    """timm's eval mode goes on using attention biases that were gathered before they changed; ours must not."""

    def test_a_fresh_network_would_show_nothing(self) -> None:
        net = build("efficientvit_m0", size=(128, 128))
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        assert (sum(not m.weight.any() for m in norms), len(norms)) == (34, 112)
        before = run(net, image(size=(128, 128)))
        for biases in biases_of(net):
            nn.init.normal_(biases, std=5)
        assert torch.equal(run(build("efficientvit_m0", size=(128, 128)), image(size=(128, 128))), before)
        assert torch.equal(run(net, image(size=(128, 128))), before)

    @pytest.mark.parametrize("stride", [None, 32])
    def test_a_change_in_place_counts_at_once(self, stride: int | None) -> None:
        net, x = randomise(build("efficientvit_m0", stride=stride)), image()
        self.change_and_compare(net, x)

    @pytest.mark.parametrize("arch", CACHING)
    def test_in_every_network_of_timm_that_keeps_them(self, arch: str) -> None:
        self.change_and_compare(caching(arch), image(size=CACHING[arch]))

    @staticmethod
    def change_and_compare(net: Any, x: Tensor) -> None:
        fresh = copy.deepcopy(net)
        before = run(net, x)
        state = {name: -2 * t if name.endswith("attention_biases") else t for name, t in net.state_dict().items()}
        assert biases_of(net)
        for model in (net, fresh):
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(state[name])  # as load_state_dict does, on a network that is in use
        after = run(net, x)
        assert (after - before).abs().max() > 1e-4
        assert torch.equal(after, run(fresh, x))

    @pytest.mark.parametrize("arch", CACHING)
    def test_training_in_eval_mode(self, arch: str) -> None:
        """Frozen statistics: a graph that an earlier step used up must not come back."""
        net, x = caching(arch), image(size=CACHING[arch])
        for _ in range(2):
            net.zero_grad()
            net(x).square().mean().backward()
            for biases in biases_of(net):
                assert biases.grad is not None and biases.grad.isfinite().all()
        assert any(biases.grad.abs().sum() > 0 for biases in biases_of(net))

    def test_no_class_of_timm_is_left_out(self) -> None:
        ours = {
            type(module)
            for arch, size in CACHING.items()
            for module in build("timm", 1, size, arch=arch).modules()
            if hasattr(module, "attention_bias_cache")
        }
        timms = {
            value
            for name, module in list(sys.modules.items())
            if name.startswith("timm.models.")
            for value in vars(module).values()
            if isinstance(value, type) and hasattr(value, "get_attention_biases")
        }
        assert {base for kind in ours for base in kind.__bases__} == timms
        assert not ours & timms

    def test_copies_and_pickles(self) -> None:
        net, x = full("efficientvit_m0"), image()
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(run(other, x), run(net, x))


class TestAnyArchitecture:
    @pytest.mark.parametrize(
        ("arch", "size", "vector", "grid", "stride"),
        [
            ("resnet18", (64, 64), 512, Shape(512, (2, 2)), 32),
            ("resnet18", (70, 45), 512, Shape(512, (3, 2)), 32),
            # The pooled vector is not as wide as the map.
            ("mobilenetv3_small_100", (64, 64), 1024, Shape(576, (2, 2)), 32),
            ("ghostnet_100", (64, 64), 1280, Shape(160, (2, 2)), 32),
            ("hgnetv2_b0", (64, 64), 2048, Shape(1024, (2, 2)), 32),
            # Transformers of a fixed size are built for the size that is asked for.
            ("vit_tiny_patch16_224", (96, 96), 192, Shape(192, (6, 6)), 16),
            ("vit_tiny_patch16_224", (96, 64), 192, Shape(192, (6, 4)), 16),
            ("vit_tiny_patch16_224", (100, 100), 192, Shape(192, (6, 6)), 16),
            # Channels last inside.
            ("swin_tiny_patch4_window7_224", (64, 96), 768, Shape(768, (2, 3)), 32),
            # Cells are fewer than pixels over stride.
            ("levit_128s", (224, 224), 384, Shape(384, (4, 4)), 64),
            ("efficientvit_m0", (224, 224), 192, Shape(192, (4, 4)), 64),
        ],
    )
    def test_declared_is_real(self, arch: str, size: tuple[int, int], vector: int, grid: Shape, stride: int) -> None:
        declared = shape_of("timm", 1, size, arch=arch)
        assert (declared.vector, declared.map, declared.stride) == (vector, grid, stride)
        assert declared.levels == (Level(stride, grid.dim),)
        net = build("timm", 1, size, arch=arch)
        assert_as_declared(net, declared, 1, size)
        x = image(1, size)
        with torch.inference_mode():
            assert torch.equal(run(net, x), net.net(x))

    @pytest.mark.parametrize("arch", ["resnet18", "swin_tiny_patch4_window7_224"])
    def test_map_pools_to_the_vector(self, arch: str) -> None:
        net = build("timm", 3, (64, 96), arch=arch)
        x = image(3, (64, 96))
        torch.testing.assert_close(run(net, x, pool=False).mean((2, 3)), run(net, x))

    def test_shapes_come_from_the_network_but_nothing_is_allocated(self) -> None:
        assert shape_of("timm", 3, (64, 64), arch="vit_giant_patch14_224").vector == 1408  # 4 GB, if it were built
        assert 4e9 < 4 * size_of("timm", 3, (64, 64), arch="vit_giant_patch14_224") < 4.1e9

    def test_the_declared_size_is_real(self) -> None:
        assert size_of("timm", 2, arch="resnet18") == count(build("timm", 2, arch="resnet18"))

    @pytest.mark.parametrize(
        ("arch", "message"),
        [
            ("resnet81", f"timm {timm.__version__} has no architecture 'resnet81'; did you mean 'resnet18'?"),
            (
                "efficentvit_m0",
                f"timm {timm.__version__} has no architecture 'efficentvit_m0'; did you mean 'efficientvit_m0'?",
            ),
            ("zzzzzzzz", f"timm {timm.__version__} has no architecture 'zzzzzzzz'"),
            ("", f"timm {timm.__version__} has no architecture ''"),
            ("hf-hub:timm/resnet18", f"timm {timm.__version__} has no architecture 'hf-hub:timm/resnet18'"),
            (
                "resnet18.a1_in1k",
                "'resnet18.a1_in1k' names weights of timm, which are not loaded; the architecture is 'resnet18'",
            ),
        ],
    )
    def test_no_such_architecture(self, arch: str, message: str) -> None:
        with pytest.raises(ValueError) as caught:
            shape_of("timm", arch=arch)
        assert str(caught.value) == message

    @pytest.mark.parametrize(
        ("arch", "channels", "size", "beginning"),
        [
            ("inception_v3", 1, (64, 64), "inception_v3 cannot take an image of 1x64x64: Calculated padded input size"),
            (
                "convnext_atto",
                3,
                (20, 30),
                "convnext_atto cannot take an image of 3x20x30: Calculated padded input size",
            ),
            ("crossvit_9_240", 1, (64, 64), "crossvit_9_240 cannot take an image of 1x64x64: "),
        ],
    )
    def test_impossible_size(self, arch: str, channels: int, size: tuple[int, int], beginning: str) -> None:
        with pytest.raises(ValueError) as caught:
            shape_of("timm", channels, size, arch=arch)
        assert str(caught.value).startswith(beginning) and "\n" not in str(caught.value)
        with pytest.raises(Exception):  # noqa: B017 - whatever timm makes of it
            build("timm", channels, size, arch=arch)(image(channels, size))
