"""Fusions: what each promises in the registry, held against the real modules, and each formula written out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pvzoo import Shape
from pvzoo.errors import MissingModalityError
from pvzoo.plugins import host
from pvzoo.registry import Fusion

DIM = 8
GRID = (3, 4)
NAMES = ("palm", "vein", "dorsal")

# Every registered fusion, with the parameters that change what it gives.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "channel_attention": [{}, {"reduction": 1}],
    "spatial_attention": [{}, {"reduction": 1, "kernel_size": 5}, {"kernel_size": 1}],
    "gated": [{}],
    "cross_attention": [{}, {"heads": 1}, {"heads": 8}],
    "aff": [{}, {"reduction": 1}],
    "iaff": [{}],
    "channel_selection": [{}],
    "concat": [{}, {"dim": 5}],
    "sum": [{}],
    "max": [{}],
    "low_rank_bilinear": [{}, {"rank": 6, "dim": 5}],
}
# Shape of one modality's weights; fusions that are not named here give none.
WEIGHTS: dict[tuple[str, str], tuple[int, ...]] = {
    ("channel_attention", "vector"): (DIM,),
    ("channel_attention", "map"): (DIM,),
    ("spatial_attention", "map"): (1, *GRID),
    ("gated", "vector"): (DIM,),
    ("gated", "map"): (DIM, *GRID),
    ("cross_attention", "vector"): (DIM,),
    ("cross_attention", "map"): (1, *GRID),
    ("aff", "vector"): (DIM,),
    ("aff", "map"): (DIM, *GRID),
    ("iaff", "vector"): (DIM,),
    ("iaff", "map"): (DIM, *GRID),
}


def entry_of(name: str) -> Fusion:
    entry = host().find("fusion", name)
    assert isinstance(entry, Fusion)
    return entry


def shape_of(kind: str, width: int = DIM) -> Shape:
    return Shape(width) if kind == "vector" else Shape(width, GRID)


def build(name: str, kind: str, count: int = 2, *, width: int = DIM, **params: Any) -> nn.Module:
    """A fusion in eval mode whose BatchNorms and embeddings are no longer those of a fresh model."""
    torch.manual_seed(0)
    entry = entry_of(name)
    module: nn.Module = entry.builder()(entry.params(**params), modalities=NAMES[:count], shape=shape_of(kind, width))
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 1.5)
    return module.eval()


def inputs(kind: str, count: int = 2, batch: int = 4, *, width: int = DIM) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn(batch, width, *(shape_of(kind).grid or ())) for name in NAMES[:count]}


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


CASES = [
    pytest.param(name, kind, params, id=f"{name}-{kind}" + "".join(f"-{k}={v}" for k, v in params.items()))
    for name, options in OPTIONS.items()
    for kind in sorted(entry_of(name).accepts)
    for params in options
]
PLAIN = [pytest.param(name, kind, id=f"{name}-{kind}") for name in OPTIONS for kind in sorted(entry_of(name).accepts)]


def having(missing: str) -> list[Any]:
    return [case for case in PLAIN if entry_of(str(case.values[0])).missing == missing]


def test_every_built_in_fusion_is_in_this_table() -> None:
    assert {entry.name for entry in host().builtins("fusion") if "/" not in entry.name} == set(OPTIONS)


class TestTraits:
    """What the registry says before anything is built is what the module then does."""

    @pytest.mark.parametrize("count", [1, 2, 3])
    @pytest.mark.parametrize(("name", "kind", "params"), CASES)
    def test_width_size_and_weights(self, name: str, kind: str, params: dict[str, Any], count: int) -> None:
        entry = entry_of(name)
        module = build(name, kind, count, **params)
        features, weights = module(inputs(kind, count))

        declared = entry.out_dim(entry.params(**params), [DIM] * count)
        assert features.shape == (4, declared, *(shape_of(kind).grid or ()))
        assert features.isfinite().all()

        size = sum(p.numel() for p in module.parameters())
        bound = entry.parameters(entry.params(**params), count, DIM)
        if name == "cross_attention":
            assert size - bound == DIM * (12 if kind == "map" else 1)  # the embedding of each position
        else:
            assert size == bound

        if (name, kind) not in WEIGHTS:
            assert weights == {}
            return
        assert list(weights) == list(NAMES[:count])
        for weight in weights.values():
            assert weight.shape == (4, *WEIGHTS[name, kind])
            assert (weight >= 0).all()
        close(torch.stack(list(weights.values())).sum(0), torch.ones(4, *WEIGHTS[name, kind]))

    @pytest.mark.parametrize(("name", "kind"), PLAIN)
    def test_one_sample_does_not_see_another(self, name: str, kind: str) -> None:
        module, features = build(name, kind, 3), inputs(kind, 3)
        whole = module(features)
        for i in range(4):
            alone = module({modality: x[i : i + 1] for modality, x in features.items()})
            close(alone.features, whole.features[i : i + 1])
            for modality, weight in whole.weights.items():
                close(alone.weights[modality], weight[i : i + 1])

    @pytest.mark.parametrize(("name", "kind"), PLAIN)
    def test_an_empty_batch_stays_empty(self, name: str, kind: str) -> None:
        module = build(name, kind)
        full, empty = module(inputs(kind)), module(inputs(kind, batch=0))
        assert empty.features.shape == (0, *full.features.shape[1:])
        assert {m: w.shape for m, w in empty.weights.items()} == {m: (0, *w.shape[1:]) for m, w in full.weights.items()}

    @pytest.mark.parametrize(("name", "kind"), PLAIN)
    def test_gradient_reaches_every_modality_and_every_parameter(self, name: str, kind: str) -> None:
        module = build(name, kind, 3)
        features = {modality: x.requires_grad_() for modality, x in inputs(kind, 3).items()}
        fused = module(features).features
        (fused * torch.randn_like(fused)).sum().backward()
        for modality, x in features.items():
            assert x.grad is not None and x.grad.isfinite().all() and x.grad.abs().sum() > 0, modality
        for parameter_name, parameter in module.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name

    @pytest.mark.parametrize("name", ["gated", "channel_attention", "aff", "iaff", "cross_attention"])
    def test_gradient_is_exact(self, name: str) -> None:
        module = build(name, "vector", width=4).double()
        palm, vein = (x.double().requires_grad_() for x in inputs("vector", batch=2, width=4).values())
        assert torch.autograd.gradcheck(lambda p, v: module({"palm": p, "vein": v}).features, (palm, vein))

    @pytest.mark.parametrize("name", ["spatial_attention", "low_rank_bilinear"])
    def test_gradient_is_exact_on_maps(self, name: str) -> None:
        params = {"rank": 3} if name == "low_rank_bilinear" else {}
        module = build(name, "map", width=2, **params).double()
        palm, vein = (x.double().requires_grad_() for x in inputs("map", batch=1, width=2).values())
        assert torch.autograd.gradcheck(lambda p, v: module({"palm": p, "vein": v}).features, (palm, vein))

    @pytest.mark.parametrize(("name", "kind"), PLAIN)
    def test_trains(self, name: str, kind: str) -> None:
        fused = build(name, kind).train()(inputs(kind))
        assert fused.features.isfinite().all()

    @pytest.mark.parametrize(("name", "kind"), PLAIN)
    def test_bfloat16_is_near_float32(self, name: str, kind: str) -> None:
        features = {modality: x.bfloat16() for modality, x in inputs(kind).items()}
        fused = build(name, kind).bfloat16()(features)
        assert fused.features.dtype == torch.bfloat16
        assert all(weight.dtype == torch.bfloat16 for weight in fused.weights.values())
        # The same rounded inputs and parameters, computed in float32.
        exact = build(name, kind).bfloat16().float()({modality: x.float() for modality, x in features.items()})
        error = (fused.features.float() - exact.features).abs().mean() / exact.features.abs().mean()
        assert error < 0.05

    @pytest.mark.parametrize(("name", "kind"), PLAIN)
    def test_meta_device_gives_shapes_without_memory(self, name: str, kind: str) -> None:
        entry = entry_of(name)
        with torch.device("meta"):
            module = entry.builder()(entry.params(), modalities=NAMES[:2], shape=shape_of(kind))
            fused = module(inputs(kind))
        assert all(p.is_meta for p in module.parameters()) and fused.features.is_meta
        assert fused.features.shape == build(name, kind)(inputs(kind)).features.shape

    @pytest.mark.parametrize(("name", "kind"), PLAIN)
    def test_the_order_of_the_mapping_does_not_matter(self, name: str, kind: str) -> None:
        module, features = build(name, kind, 3), inputs(kind, 3)
        backwards = dict(reversed(features.items()))
        assert torch.equal(module(features).features, module(backwards).features)


class TestMissing:
    @pytest.mark.parametrize("absent", ["palm", "vein"])
    @pytest.mark.parametrize(("name", "kind"), having("reweight"))
    def test_reweight_gives_the_other_the_whole_weight(self, name: str, kind: str, absent: str) -> None:
        module, features = build(name, kind), inputs(kind)
        there = "vein" if absent == "palm" else "palm"
        x = features[there].requires_grad_()
        fused = module({there: x, absent: None})
        # Cross-attention adds up the shares of the cells, so its 1 is rounded.
        rounding = 1e-6 if (name, kind) == ("cross_attention", "map") else 0
        assert (fused.weights[there] - 1).abs().max() <= rounding
        assert torch.equal(fused.weights[absent], torch.zeros_like(fused.weights[absent]))
        assert list(fused.weights) == ["palm", "vein"]
        assert fused.features.isfinite().all()

        (fused.features * torch.randn_like(fused.features)).sum().backward()
        assert x.grad is not None and x.grad.isfinite().all() and x.grad.abs().sum() > 0
        own = {n: p for n, p in module.named_parameters() if n.startswith((f"value.{there}", "query_key", "project"))}
        for parameter_name, parameter in own.items():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name
        assert bool(own) == (name in ("gated", "cross_attention"))

    @pytest.mark.parametrize(("name", "kind"), having("reweight"))
    def test_reweight_lets_two_compete_without_the_third(self, name: str, kind: str) -> None:
        features = inputs(kind, 3)
        weights = build(name, kind, 3)({**features, "dorsal": None}).weights
        assert torch.equal(weights["dorsal"], torch.zeros_like(weights["palm"]))
        close(weights["palm"] + weights["vein"], torch.ones_like(weights["palm"]))
        assert (weights["palm"] > 0).all() and (weights["vein"] > 0).all()

    @pytest.mark.parametrize("name", ["channel_attention", "spatial_attention", "aff", "iaff"])
    def test_a_weighted_sum_of_one_is_that_one(self, name: str) -> None:
        features = inputs("map")
        close(build(name, "map")({"palm": features["palm"], "vein": None}).features, features["palm"])

    @pytest.mark.parametrize("absent", NAMES)
    @pytest.mark.parametrize(("name", "kind"), having("ignore"))
    def test_ignore_is_the_fusion_of_the_others(self, name: str, kind: str, absent: str) -> None:
        features = inputs(kind, 3)
        rest = [x for modality, x in features.items() if modality != absent]
        entry = entry_of(name)
        of_two = entry.builder()(entry.params(), modalities=("a", "b"), shape=shape_of(kind))
        expected = of_two({"a": rest[0], "b": rest[1]}).features
        assert torch.equal(build(name, kind, 3)({**features, absent: None}).features, expected)

    @pytest.mark.parametrize(("name", "kind"), having("ignore"))
    def test_ignore_with_one_left_passes_it_on(self, name: str, kind: str) -> None:
        features = inputs(kind)
        assert torch.equal(build(name, kind)({"palm": None, "vein": features["vein"]}).features, features["vein"])

    @pytest.mark.parametrize(("name", "kind"), having("refuse"))
    def test_refuse_says_which_and_what_else(self, name: str, kind: str) -> None:
        features = inputs(kind, 3)
        with pytest.raises(MissingModalityError) as caught:
            build(name, kind, 3)({"palm": features["palm"], "vein": None, "dorsal": None})
        assert str(caught.value) == (
            f"fusion {name!r} needs every modality, and vein, dorsal is missing; "
            "channel_attention, gated, sum and others do without"
        )

    @pytest.mark.parametrize("name", ["channel_attention", "gated", "sum"])
    def test_the_fusions_that_this_message_advises_do_without(self, name: str) -> None:
        assert entry_of(name).missing != "refuse"

    @pytest.mark.parametrize("features", [{}, {"palm": None, "vein": None}], ids=["left out", "None"])
    @pytest.mark.parametrize(("name", "kind"), PLAIN)
    def test_all_missing(self, name: str, kind: str, features: dict[str, None]) -> None:
        with pytest.raises(MissingModalityError) as caught:
            build(name, kind)(features)
        assert str(caught.value) == "every modality is missing; give at least one of palm, vein"

    @given(
        name=st.sampled_from([case.values[0] for case in PLAIN if case.values[1] == "vector"]),
        there=st.lists(st.booleans(), min_size=3, max_size=3),
        scale=st.sampled_from([0.0, 1e-20, 1.0, 1e4, 1e18]),
    )
    @settings(max_examples=60, deadline=None)
    def test_any_subset_at_any_scale(self, name: str, there: list[bool], scale: float) -> None:
        features = {
            modality: scale * x if present else None
            for (modality, x), present in zip(inputs("vector", 3).items(), there, strict=True)
        }
        module = build(name, "vector", 3)
        if not any(there) or (entry_of(name).missing == "refuse" and not all(there)):
            with pytest.raises(MissingModalityError):
                module(features)
            return
        fused = module(features)
        assert fused.features.isfinite().all()
        for (modality, weight), present in zip(fused.weights.items(), there, strict=False):
            assert weight.isfinite().all() and (present or not weight.any()), modality


class TestSimple:
    @pytest.mark.parametrize("kind", ["vector", "map"])
    def test_sum_and_max(self, kind: str) -> None:
        features = inputs(kind, 3)
        palm, vein, dorsal = features.values()
        close(build("sum", kind, 3)(features).features, palm + vein + dorsal)
        assert torch.equal(build("max", kind, 3)(features).features, palm.maximum(vein).maximum(dorsal))

    @pytest.mark.parametrize("name", ["sum", "max"])
    def test_neither_knows_palm_from_vein(self, name: str) -> None:
        features = inputs("map")
        swapped = {"palm": features["vein"], "vein": features["palm"]}
        module = build(name, "map")
        assert torch.equal(module(features).features, module(swapped).features)

    def test_concat_keeps_the_order_of_the_model(self) -> None:
        features = inputs("vector")
        fused = build("concat", "vector")({"vein": features["vein"], "palm": features["palm"]})
        assert torch.equal(fused.features[:, :DIM], features["palm"])
        assert torch.equal(fused.features[:, DIM:], features["vein"])

    @pytest.mark.parametrize("kind", ["vector", "map"])
    def test_concat_projected(self, kind: str) -> None:
        module, features = build("concat", kind, dim=5), inputs(kind)
        weight = module.project.weight.reshape(5, 2, DIM)
        expected = torch.einsum("nc...,oc->no...", features["palm"], weight[:, 0])
        expected = expected + torch.einsum("nc...,oc->no...", features["vein"], weight[:, 1])
        bias = module.project.bias.view(1, 5, *([1] * (expected.ndim - 2)))
        close(module(features).features, expected + bias)

    def test_low_rank_bilinear(self) -> None:
        """Kim et al. 2017: P(tanh(U1 x1) * tanh(U2 x2)), position by position."""
        module, features = build("low_rank_bilinear", "map", rank=6), inputs("map")
        u1, u2, p = module.factor["palm"], module.factor["vein"], module.project
        fused = module(features).features
        for y, x in itertools.product(range(GRID[0]), range(GRID[1])):
            a = torch.tanh(features["palm"][:, :, y, x] @ u1.weight[:, :, 0, 0].T + u1.bias)
            b = torch.tanh(features["vein"][:, :, y, x] @ u2.weight[:, :, 0, 0].T + u2.bias)
            close(fused[:, :, y, x], (a * b) @ p.weight[:, :, 0, 0].T + p.bias)


class TestGated:
    def test_two_modalities_are_the_unit_of_the_paper(self) -> None:
        """Arevalo et al. 2017, eq. 1-4: h = z tanh(W1 x1) + (1 - z) tanh(W2 x2), z = sigmoid(Wz [x1, x2])."""
        module, features = build("gated", "vector"), inputs("vector")
        palm, vein = features.values()
        gate = module.gate(torch.cat([palm, vein], dim=1))
        z = torch.sigmoid(gate[:, :DIM] - gate[:, DIM:])  # the softmax of two logits
        expected = z * torch.tanh(module.value["palm"](palm)) + (1 - z) * torch.tanh(module.value["vein"](vein))
        fused = module(features)
        close(fused.features, expected)
        close(fused.weights["palm"], z)

    def test_a_map_is_gated_position_by_position(self) -> None:
        module, features = build("gated", "map"), inputs("map")
        shuffle = torch.randperm(12)
        moved = {m: x.flatten(2)[:, :, shuffle].view_as(x) for m, x in features.items()}
        expected = module(features).features.flatten(2)[:, :, shuffle]
        close(module(moved).features.flatten(2), expected)


class TestAttention:
    @pytest.mark.parametrize("kind", ["vector", "map"])
    def test_channel_attention(self, kind: str) -> None:
        """Squeeze, bottleneck, and a softmax over the modalities for each channel."""
        module, features = build("channel_attention", kind), inputs(kind)
        first, _, second = module.score
        pooled = torch.cat([x.flatten(2).mean(2) if x.ndim == 4 else x for x in features.values()], dim=1)
        scores = (pooled @ first.weight.T + first.bias).relu() @ second.weight.T + second.bias
        exponential = scores.exp()
        palm = exponential[:, :DIM] / (exponential[:, :DIM] + exponential[:, DIM:])
        fused = module(features)
        close(fused.weights["palm"], palm)
        close(fused.weights["vein"], 1 - palm)
        share = palm if kind == "vector" else palm[:, :, None, None]
        close(fused.features, share * features["palm"] + (1 - share) * features["vein"])

    def test_channel_attention_of_a_map_forgets_position(self) -> None:
        module, features = build("channel_attention", "map"), inputs("map")
        flipped = module({modality: x.flip(3) for modality, x in features.items()})
        close(flipped.weights["palm"], module(features).weights["palm"])
        close(flipped.features.flip(3), module(features).features)

    @pytest.mark.parametrize("size", [1, 3])
    def test_spatial_attention(self, size: int) -> None:
        """1x1 convolution, BatchNorm, ReLU, and a size x size convolution with one score a modality."""
        module, features = build("spatial_attention", "map", kernel_size=size), inputs("map")
        reduce, norm, _, score = module.score
        joined = torch.cat(list(features.values()), dim=1)
        inner = torch.einsum("nchw,oc->nohw", joined, reduce.weight[:, :, 0, 0])
        column = (1, -1, 1, 1)
        inner = (inner - norm.running_mean.view(column)) / (norm.running_var.view(column) + norm.eps).sqrt()
        inner = (inner * norm.weight.view(column) + norm.bias.view(column)).relu()
        half = size // 2
        padded = F.pad(inner, (half, half, half, half))
        scores = torch.zeros(4, 2, *GRID)
        for y, x in itertools.product(range(GRID[0]), range(GRID[1])):
            window = padded[:, :, y : y + size, x : x + size]
            scores[:, :, y, x] = torch.einsum("nchw,ochw->no", window, score.weight) + score.bias
        palm = torch.sigmoid(scores[:, :1] - scores[:, 1:])
        fused = module(features)
        close(fused.weights["palm"], palm)
        close(fused.features, palm * features["palm"] + (1 - palm) * features["vein"])

    @pytest.mark.parametrize("name", ["channel_attention", "gated", "aff", "iaff", "cross_attention"])
    def test_weights_choose_between_the_modalities(self, name: str) -> None:
        """They differ from sample to sample: a constant half would pass every other test of weights."""
        weight = build(name, "vector")(inputs("vector")).weights["palm"]
        assert weight.std(0).min() > 0


def ms_cam(module: nn.Module, x: Tensor) -> Tensor:
    """MS-CAM of the paper, eq. 1-2, on a map: local + global context."""
    local, whole = module.local_context, module.global_context
    return local(x) + whole(F.adaptive_avg_pool2d(x, 1))


class TestAff:
    def test_two_modalities_are_the_formula_of_the_paper(self) -> None:
        """Dai et al. 2021, eq. 3: Z = M(X + Y) X + (1 - M(X + Y)) Y with M = sigmoid."""
        module, features = build("aff", "map"), inputs("map")
        palm, vein = features.values()
        m = torch.sigmoid(ms_cam(module.attention, palm + vein))
        fused = module(features)
        close(fused.features, m * palm + (1 - m) * vein)
        close(fused.weights["palm"], m)

    def test_iterative(self) -> None:
        """Eq. 4 and 5: the sum that M sees is itself an attended sum, by another M."""
        module, features = build("iaff", "map"), inputs("map")
        palm, vein = features.values()
        first = torch.sigmoid(ms_cam(module.first_attention, palm + vein))
        mixed = first * palm + (1 - first) * vein
        m = torch.sigmoid(ms_cam(module.attention, mixed))
        close(module(features).features, m * palm + (1 - m) * vein)

    def test_a_vector_is_a_map_of_one_cell(self) -> None:
        module, features = build("aff", "vector"), inputs("vector")
        palm, vein = features.values()
        m = torch.sigmoid(ms_cam(module.attention, (palm + vein)[:, :, None, None]))[:, :, 0, 0]
        close(module(features).features, m * palm + (1 - m) * vein)

    def test_equal_features_come_out_as_they_are(self) -> None:
        palm = inputs("map")["palm"]
        close(build("aff", "map")({"palm": palm, "vein": palm}).features, palm)


class TestCrossAttention:
    @pytest.mark.parametrize("count", [2, 3])
    @pytest.mark.parametrize("kind", ["vector", "map"])
    def test_is_torchs_multi_head_attention(self, kind: str, count: int) -> None:
        module, features = build("cross_attention", kind, count), inputs(kind, count)
        reference = nn.MultiheadAttention(DIM, 4, batch_first=True).eval()
        reference.in_proj_weight.data = module.query_key_value.weight.data
        reference.in_proj_bias.data = module.query_key_value.bias.data
        reference.out_proj = module.project

        cells = 12 if kind == "map" else 1
        tokens = torch.cat(
            [x.reshape(4, DIM, cells).mT + module.position + module.modality[m] for m, x in features.items()], dim=1
        )
        normed = module.norm(tokens)
        attended, attention = reference(normed, normed, normed, average_attn_weights=False)
        by_modality = (tokens + attended).unflatten(1, (count, cells))
        fused = module(features)
        expected = by_modality.mean(1).mT
        close(fused.features, expected.reshape(4, DIM, *(shape_of(kind).grid or ())))

        # How much each modality received: summed over its cells, averaged over the modalities that asked.
        shares = attention.view(4, 4, count, cells, count, cells).sum(5).mean(2)  # (N, heads, cells, modalities)
        for place, weight in enumerate(fused.weights.values()):
            if kind == "map":
                close(weight[:, 0].flatten(1), shares[..., place].mean(1))
            else:
                close(weight.view(4, 4, 2), shares[:, :, 0, place, None].expand(4, 4, 2))

    def test_a_missing_modality_sends_no_tokens(self) -> None:
        module, features = build("cross_attention", "map", 3), inputs("map", 3)
        before = module({**features, "dorsal": None}).features
        nn.init.normal_(module.modality["dorsal"], std=100)
        assert torch.equal(module({**features, "dorsal": None}).features, before)

    def test_it_knows_where_a_cell_is(self) -> None:
        module, features = build("cross_attention", "map"), inputs("map")
        nn.init.normal_(module.position)
        flipped = module({modality: x.flip(2) for modality, x in features.items()}).features.flip(2)
        assert (flipped - module(features).features).abs().max() > 0.1

    @pytest.mark.parametrize(("heads", "dim"), [(3, 8), (16, 8)])
    def test_heads_must_divide_the_channels(self, heads: int, dim: int) -> None:
        entry = entry_of("cross_attention")
        with pytest.raises(ValueError) as caught:
            entry.out_dim(entry.params(heads=heads), [dim, dim])
        assert str(caught.value) == f"{heads} heads do not divide {dim} channels"


def select_by_loops(x: Tensor, other: Tensor) -> Tensor:
    """For each channel of ``x``, the channel of ``other`` with the largest cosine."""
    chosen = torch.empty_like(x)
    for sample, channel in itertools.product(range(len(x)), range(x.shape[1])):
        cosines = [float(F.cosine_similarity(x[sample, channel].flatten(), c.flatten(), dim=0)) for c in other[sample]]
        chosen[sample, channel] = other[sample, max(range(len(cosines)), key=cosines.__getitem__)]
    return chosen


class TestChannelSelection:
    def test_two_modalities_by_loops(self) -> None:
        palm, vein = inputs("map").values()
        expected = (palm + select_by_loops(palm, vein) + vein + select_by_loops(vein, palm)) / 2
        close(build("channel_selection", "map")({"palm": palm, "vein": vein}).features, expected)

    def test_three_modalities_by_loops(self) -> None:
        features = inputs("map", 3, batch=2)
        parts = list(features.values())
        total = sum(parts) + sum(select_by_loops(a, b) for a, b in itertools.permutations(parts, 2))
        close(build("channel_selection", "map", 3)(features).features, total / 3)

    def test_channels_meet_whatever_their_index(self) -> None:
        palm = inputs("map")["palm"]
        shuffled = palm[:, torch.randperm(DIM, generator=torch.Generator().manual_seed(3))]
        fused = build("channel_selection", "map")({"palm": palm, "vein": shuffled}).features
        close(fused, palm + shuffled)  # each channel found its double in the other modality

    def test_one_tensor_for_both_is_two_equal_modalities(self) -> None:
        palm = inputs("map")["palm"]
        close(build("channel_selection", "map")({"palm": palm, "vein": palm}).features, 2 * palm)

    def test_brightness_and_contrast_of_a_channel_do_not_matter(self) -> None:
        """Only the direction counts: scaling the other modality scales what is added, not the choice."""
        palm, vein = inputs("map").values()
        module = build("channel_selection", "map")
        tripled = module({"palm": palm, "vein": 3 * vein}).features
        expected = (palm + 3 * select_by_loops(palm, vein) + 3 * vein + select_by_loops(vein, palm)) / 2
        close(tripled, expected)

    def test_the_chosen_channels_get_the_gradient(self) -> None:
        palm, vein = (x.requires_grad_() for x in inputs("map").values())
        build("channel_selection", "map")({"palm": palm, "vein": vein}).features.sum().backward()
        # Of a channel: 1/2 for itself, and 1/2 for every channel of the other modality that chose it.
        assert vein.grad is not None and palm.grad is not None
        for gradient in (palm.grad, vein.grad):
            picks = (2 * gradient - 1).mean((2, 3))
            close(picks, picks.round())
            close(picks.sum(1), torch.full((4,), float(DIM)))


class TestParams:
    @pytest.mark.parametrize(
        ("name", "params", "message"),
        [
            ("spatial_attention", {"kernel_size": 4}, "must be odd, so that the map keeps its size, got 4"),
            ("spatial_attention", {"kernel_size": 33}, "Input should be less than or equal to 31"),
            ("channel_attention", {"reduction": 0}, "Input should be greater than or equal to 1"),
            ("concat", {"dim": 0}, "Input should be greater than or equal to 1"),
            ("cross_attention", {"heads": 0}, "Input should be greater than or equal to 1"),
            ("low_rank_bilinear", {"rank": -1}, "Input should be greater than or equal to 1"),
            ("aff", {"ratio": 4}, "Extra inputs are not permitted"),
            ("gated", {"dim": 4}, "Extra inputs are not permitted"),
        ],
    )
    def test_refused(self, name: str, params: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            entry_of(name).params(**params)

    @given(dim=st.integers(1, 40), reduction=st.integers(1, 100), kind=st.sampled_from(["vector", "map"]))
    @settings(max_examples=25, deadline=None)
    def test_a_bottleneck_never_vanishes(self, dim: int, reduction: int, kind: str) -> None:
        for name in ("channel_attention", "aff"):
            module = build(name, kind, width=dim, reduction=reduction)
            assert module(inputs(kind, batch=1, width=dim)).features.shape[1] == dim
            entry = entry_of(name)
            size = sum(p.numel() for p in module.parameters())
            assert size == entry.parameters(entry.params(reduction=reduction), 2, dim)
