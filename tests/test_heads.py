"""Heads: the numerics of angular margins, where public implementations go wrong, and BNNeck in front of every head."""

from __future__ import annotations

from math import cos, pi, sin
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

import pvzoo
from pvzoo.plugins import host
from pvzoo.registry import Head

DIM, CLASSES = 16, 7
S = 64.0

MARGIN = ["arcface", "cosface", "adaface", "subcenter_arcface"]
# Every head with a margin, and the parameters that change its formula.
VARIANTS = [
    pytest.param(name, params, id=name + "".join(f"-{k}={v}" for k, v in params.items()))
    for name, params in [
        ("arcface", {}),
        ("arcface", {"margin": 0.0}),
        ("arcface", {"margin": 1.5}),
        ("arcface", {"easy_margin": True}),
        ("cosface", {}),
        ("cosface", {"margin": 1.9}),
        ("adaface", {}),
        ("adaface", {"margin": 0.78, "concentration": 5.0}),
        ("subcenter_arcface", {}),
        ("subcenter_arcface", {"centers": 1}),
    ]
]
MONOTONE = [case for case in VARIANTS if "easy_margin" not in case.values[1]]


def entry_of(name: str) -> Head:
    entry = host().find("head", name)
    assert isinstance(entry, Head)
    return entry


def build(name: str, dim: int = DIM, classes: int = CLASSES, **params: Any) -> Any:
    torch.manual_seed(0)
    entry = entry_of(name)
    return entry.builder()(entry.params(**params), dim=dim, num_classes=classes).eval()


def batch(count: int = 6, dim: int = DIM, classes: int = CLASSES) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return 20 * torch.randn(count, dim), torch.arange(count) % classes


def at_cosines(cosines: Tensor, norm: float | Tensor = 1.0) -> Tensor:
    """Embeddings in the plane with these cosines to the class centre (1, 0)."""
    return torch.stack([cosines, (1 - cosines.square()).clamp_min(0).sqrt()], dim=1) * norm


def planar(name: str, **params: Any) -> Any:
    """A head over the plane in float64: class 0 lies at 0 degrees, class 1 at 90; sub-centres lie together."""
    head = build(name, dim=2, classes=2, **params).double()
    centers = len(head.weight) // 2
    head.weight.data = torch.eye(2, dtype=torch.float64).repeat_interleave(centers, dim=0)
    if name == "adaface":
        head.norm_mean.fill_(20.0)
        head.norm_std.fill_(10.0)
    return head


def target_logits(head: Any, cosines: Tensor, norm: float | Tensor = 1.0) -> Tensor:
    labels = torch.zeros(len(cosines), dtype=torch.long)
    return head(at_cosines(cosines, norm), labels)[:, 0]


# Feature norms that AdaFace takes for bad, middling and good images in `planar`.
QUALITIES = [pytest.param(0.01, id="bad"), pytest.param(20.0, id="middling"), pytest.param(90.0, id="good")]


class TestTraits:
    @pytest.mark.parametrize(
        ("name", "params", "size"),
        [
            ("arcface", {}, CLASSES * DIM),
            ("cosface", {}, CLASSES * DIM),
            ("adaface", {}, CLASSES * DIM),
            ("subcenter_arcface", {}, 3 * CLASSES * DIM),
            ("subcenter_arcface", {"centers": 5}, 5 * CLASSES * DIM),
            ("linear", {}, CLASSES * (DIM + 1)),
            ("linear", {"bias": False}, CLASSES * DIM),
            ("none", {}, 0),
        ],
    )
    def test_size_is_as_declared(self, name: str, params: dict[str, Any], size: int) -> None:
        entry = entry_of(name)
        assert sum(p.numel() for p in build(name, **params).parameters()) == size
        assert entry.parameters(entry.params(**params), DIM, CLASSES) == size

    def test_only_none_does_without_classes(self) -> None:
        heads = {entry.name: entry.classes for entry in host().builtins("head") if "/" not in entry.name}
        assert heads == dict.fromkeys([*MARGIN, "linear"], True) | {"none": False}

    @pytest.mark.parametrize(
        ("name", "params", "message"),
        [
            ("arcface", {"scale": 0}, "Input should be greater than 0"),
            ("arcface", {"margin": -0.1}, "Input should be greater than or equal to 0"),
            ("arcface", {"margin": pi / 2}, f"Input should be less than {pi / 2}"),
            ("arcface", {"scale": float("inf")}, "Input should be a finite number"),
            ("arcface", {"margin": float("nan")}, "Input should be a finite number"),
            ("arcface", {"centers": 2}, "Extra inputs are not permitted"),
            ("arcface", {"sample_rate": 0}, "Input should be greater than 0"),
            ("adaface", {"sample_rate": 1.1}, "Input should be less than or equal to 1"),
            ("cosface", {"margin": 2}, "Input should be less than 2"),
            ("adaface", {"margin": pi / 4}, f"Input should be less than {pi / 4}"),
            ("adaface", {"concentration": 0}, "Input should be greater than 0"),
            ("adaface", {"momentum": 1.1}, "Input should be less than or equal to 1"),
            ("subcenter_arcface", {"centers": 0}, "Input should be greater than or equal to 1"),
            ("subcenter_arcface", {"centers": 65}, "Input should be less than or equal to 64"),
            ("linear", {"scale": 64}, "Extra inputs are not permitted"),
        ],
    )
    def test_params_refused(self, name: str, params: dict[str, Any], message: str) -> None:
        with pytest.raises(ValidationError) as caught:
            entry_of(name).params(**params)
        assert message in [error["msg"] for error in caught.value.errors()]

    @pytest.mark.parametrize("labelled", [False, True])
    @pytest.mark.parametrize("name", [*MARGIN, "linear"])
    def test_an_empty_batch_stays_empty(self, name: str, labelled: bool) -> None:
        embedding, labels = batch(0)
        for head in (build(name), build(name).train()):
            assert head(embedding, labels if labelled else None).shape == (0, CLASSES)

    @pytest.mark.parametrize("name", [*MARGIN, "linear"])
    def test_meta_device_gives_shapes_without_memory(self, name: str) -> None:
        with torch.device("meta"):
            head = build(name)
            logits = head(torch.empty(3, DIM), torch.empty(3, dtype=torch.long))
        assert logits.is_meta and logits.shape == (3, CLASSES)

    @pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
    @pytest.mark.parametrize("name", [*MARGIN, "linear"])
    def test_labels_of_any_integer_type(self, name: str, dtype: torch.dtype) -> None:
        embedding, labels = batch()
        assert torch.equal(build(name)(embedding, labels.to(dtype)), build(name)(embedding, labels))

    @pytest.mark.parametrize(("name", "params"), VARIANTS)
    def test_gradient_is_exact(self, name: str, params: dict[str, Any]) -> None:
        head = build(name, dim=4, classes=3, **params).double()
        embedding, labels = batch(5, dim=4, classes=3)
        if name == "adaface":
            # The norm is a sign of quality and gets no gradient, so only directions may move: compare on the sphere.
            def logits(x: Tensor) -> Tensor:
                return head(50 * F.normalize(x), labels)
        else:

            def logits(x: Tensor) -> Tensor:
                return head(x, labels)

        assert torch.autograd.gradcheck(logits, F.normalize(embedding.double()).requires_grad_())


class TestPrecision:
    """Near 1 a float16 cosine moves in steps of 1.8 degrees and a bfloat16 one in steps of 5, so all is float32."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize(("name", "params"), VARIANTS)
    def test_logits_are_those_of_float32(self, name: str, params: dict[str, Any], dtype: torch.dtype) -> None:
        head, (embedding, labels) = build(name, **params), batch()
        embedding = embedding.to(dtype)
        for chosen in (labels, None):
            logits = head(embedding, chosen)
            assert logits.dtype == torch.float32
            assert torch.equal(logits, head(embedding.float(), chosen))

    @pytest.mark.parametrize(("name", "params"), VARIANTS)
    def test_autocast_changes_nothing(self, name: str, params: dict[str, Any]) -> None:
        head, (embedding, labels) = build(name, **params), batch()
        backbone = nn.Linear(DIM, DIM)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = backbone(embedding)
            assert half.dtype == torch.bfloat16 and F.linear(half, head.weight).dtype == torch.bfloat16
            inside = head(half, labels)
        assert inside.dtype == torch.float32
        assert torch.equal(inside, head(half.float(), labels))
        F.cross_entropy(inside, labels).backward()
        assert backbone.weight.grad.isfinite().all() and backbone.weight.grad.any()
        assert head.weight.grad.isfinite().all() and head.weight.grad.any()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("name", MARGIN)
    def test_a_half_precision_model_has_float32_logits(self, name: str, dtype: torch.dtype) -> None:
        head, (embedding, labels) = build(name).to(dtype), batch()
        logits = head(embedding.to(dtype), labels)
        assert logits.dtype == torch.float32 and logits.isfinite().all()

    @pytest.mark.parametrize("name", MARGIN)
    def test_float64_stays_float64(self, name: str) -> None:
        head, (embedding, labels) = build(name).double(), batch()
        assert head(embedding.double(), labels).dtype == torch.float64

    @pytest.mark.parametrize(("name", "params"), VARIANTS)
    def test_a_cosine_beyond_one_gives_no_nan(self, name: str, params: dict[str, Any]) -> None:
        head = build(name, dim=64, classes=200, **params)
        embedding, labels = batch(200, dim=64, classes=200)
        centers = len(head.weight) // 200
        head.weight.data = embedding.repeat_interleave(centers, dim=0)
        embedding.requires_grad_()

        own = head.cosine(embedding).diagonal()
        assert (own > 1).any(), "no cosine was rounded to more than 1, so this test shows nothing"
        assert own.acos().isnan().any()  # what a head that computes angles would get

        logits = head(embedding, labels)
        F.cross_entropy(logits, labels).backward()
        for tensor in (logits, embedding.grad, head.weight.grad):
            assert tensor.isfinite().all()

    @pytest.mark.parametrize(("name", "params"), VARIANTS)
    def test_the_opposite_of_the_centre_gives_no_nan(self, name: str, params: dict[str, Any]) -> None:
        head = build(name, dim=64, classes=200, **params)
        embedding, labels = batch(200, dim=64, classes=200)
        head.weight.data = -embedding.repeat_interleave(len(head.weight) // 200, dim=0)
        embedding.requires_grad_()
        head(embedding, labels).diagonal().sum().backward()
        assert embedding.grad.isfinite().all() and head.weight.grad.isfinite().all()

    @pytest.mark.parametrize(
        ("size", "dtype"),
        [
            (0.0, torch.float32),
            (1e-20, torch.float32),
            (1e-6, torch.float32),
            (1e18, torch.float32),
            (1e4, torch.float16),  # the norm is 40,000 and its square far beyond float16
            (6e4, torch.float16),
            (1e18, torch.bfloat16),
        ],
    )
    @pytest.mark.parametrize("name", MARGIN)
    def test_embeddings_of_any_size(self, name: str, size: float, dtype: torch.dtype) -> None:
        head = build(name).train()
        embedding = (size * torch.sign(batch()[0])).to(dtype).requires_grad_()
        labels = batch()[1]
        logits = head(embedding, labels)
        F.cross_entropy(logits, labels).backward()
        assert logits.isfinite().all() and (logits.abs() <= S * 2.0).all()
        assert embedding.grad.isfinite().all() and head.weight.grad.isfinite().all()

    @pytest.mark.parametrize("name", MARGIN)
    def test_the_size_of_a_class_centre_does_not_matter(self, name: str) -> None:
        head, (embedding, labels) = build(name), batch()
        before = head(embedding, labels)
        head.weight.data *= torch.logspace(-6, 6, len(head.weight))[:, None]
        torch.testing.assert_close(head(embedding, labels), before, rtol=1e-4, atol=1e-3)


class TestTowardsTheClass:
    """The gradient of the true class's logit must never push a sample away from its class."""

    @staticmethod
    def naive(cosine: Tensor, margin: float) -> Tensor:
        return torch.cos(torch.acos(cosine) + margin)

    def test_naive_arcface_pushes_away_at_minus_0_95(self) -> None:
        cosine = torch.tensor([-0.95], dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(S * self.naive(cosine, 0.5), cosine)
        assert slope.item() == pytest.approx(-37, abs=0.5)

        head = planar("arcface", margin=0.5)
        (slope,) = torch.autograd.grad(S * head.with_margin(cosine, cosine), cosine)
        assert slope.item() == S

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("norm", QUALITIES)
    @pytest.mark.parametrize(("name", "params"), VARIANTS)
    def test_slope_is_positive_at_every_cosine(
        self, name: str, params: dict[str, Any], norm: float, dtype: torch.dtype
    ) -> None:
        head = planar(name, **params).to(dtype)
        borders = [-cos(head.margin), cos(head.margin), -1.0, 1.0, 0.0]  # where the formulas change
        near = torch.cat([b + torch.linspace(-1e-3, 1e-3, 401, dtype=torch.float64) for b in borders]).clamp(-1, 1)
        sweep = torch.cat([torch.linspace(-1, 1, 4001, dtype=torch.float64), near])
        cosine = sweep.to(dtype)[:, None].requires_grad_()
        (slope,) = torch.autograd.grad(head.with_margin(cosine, torch.full_like(cosine, norm)).sum(), cosine)
        assert slope.isfinite().all()
        assert slope.min() > 0, f"at cosine {cosine[slope.argmin()].item()}"

    @pytest.mark.parametrize("norm", QUALITIES)
    @pytest.mark.parametrize(("name", "params"), VARIANTS)
    def test_a_step_of_training_moves_nearer(self, name: str, params: dict[str, Any], norm: float) -> None:
        head = planar(name, **params)
        angles = torch.linspace(0.02, pi - 0.02, 300, dtype=torch.float64)
        embedding = at_cosines(angles.cos(), norm).requires_grad_()
        logits = head(embedding, torch.zeros(300, dtype=torch.long))
        (gradient,) = torch.autograd.grad(-logits[:, 0].sum(), embedding)
        moved = embedding - 1e-6 * norm * F.normalize(gradient)
        assert (F.normalize(moved)[:, 0] > F.normalize(embedding)[:, 0]).all()

    @pytest.mark.parametrize("norm", QUALITIES)
    @pytest.mark.parametrize(("name", "params"), MONOTONE)
    def test_the_logit_grows_with_the_cosine(self, name: str, params: dict[str, Any], norm: float) -> None:
        logits = target_logits(planar(name, **params), torch.linspace(-1, 1, 20_001, dtype=torch.float64), norm)
        assert (logits.diff() > 0).all()


class TestMargin:
    @pytest.mark.parametrize(("name", "params"), VARIANTS)
    def test_without_labels_logits_are_scaled_cosines(self, name: str, params: dict[str, Any]) -> None:
        head, (embedding, _) = build(name, **params, scale=30.0), batch()
        centers = F.normalize(head.weight).unflatten(0, (CLASSES, -1))
        expected = 30 * torch.einsum("nd,ckd->nck", F.normalize(embedding), centers).amax(2)
        for mode in (True, False):
            torch.testing.assert_close(head.train(mode)(embedding), expected)

    @given(
        case=st.sampled_from([case.values for case in VARIANTS]),
        labels=st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=6),
        norm=st.floats(1e-3, 1e3),
        seed=st.integers(0, 2**16),
    )
    @settings(max_examples=80, deadline=None)
    def test_acts_on_the_true_class_alone_and_downwards(
        self, case: tuple[str, dict[str, Any]], labels: list[int], norm: float, seed: int
    ) -> None:
        head = build(case[0], **case[1])
        embedding = norm * torch.randn(len(labels), DIM, generator=torch.Generator().manual_seed(seed))
        index = torch.tensor(labels)[:, None]
        plain, with_margin = head(embedding), head(embedding, index[:, 0])
        others = torch.ones_like(plain).scatter(1, index, 0).bool()
        assert torch.equal(with_margin[others], plain[others])
        assert (with_margin.gather(1, index) <= plain.gather(1, index) + 1e-4).all()

    @pytest.mark.parametrize("margin", [0.0, 0.3, 0.5, 1.0, 1.5])
    @pytest.mark.parametrize("name", ["arcface", "subcenter_arcface"])
    def test_arcface_is_cos_of_theta_plus_m(self, name: str, margin: float) -> None:
        """Deng et al. 2019, eq. 3, up to 180 degrees."""
        theta = torch.linspace(0.01, pi - margin - 0.01, 500, dtype=torch.float64)
        logits = target_logits(planar(name, margin=margin), theta.cos())
        torch.testing.assert_close(logits, S * torch.cos(theta + margin), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("margin", [0.3, 0.5, 1.0, 1.5])
    def test_arcface_beyond_180_degrees(self, margin: float) -> None:
        theta = torch.linspace(pi - margin + 0.01, pi, 500, dtype=torch.float64)
        logits = target_logits(planar("arcface", margin=margin), theta.cos())
        torch.testing.assert_close(logits, S * (theta.cos() - margin * sin(margin)), rtol=0, atol=1e-9)
        assert (logits < -S).all()  # below all that the formula gives before 180 degrees

    @pytest.mark.parametrize("cosine", [-0.99, -0.5, -1e-3, 1e-3, 0.5, 0.99])
    def test_easy_margin_acts_below_90_degrees(self, cosine: float) -> None:
        given_cosine = torch.tensor([cosine], dtype=torch.float64)
        theta = given_cosine.acos()
        expected = S * (torch.cos(theta + 0.5) if cosine > 0 else given_cosine)
        logits = target_logits(planar("arcface", margin=0.5, easy_margin=True), given_cosine)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)

    def test_cosface_is_cos_minus_m(self) -> None:
        """Wang et al. 2018, eq. 4."""
        cosines = torch.linspace(-1, 1, 101, dtype=torch.float64)
        torch.testing.assert_close(target_logits(planar("cosface"), cosines), S * (cosines - 0.35))

    @pytest.mark.parametrize("name", MARGIN)
    def test_factor_warms_the_margin_up(self, name: str) -> None:
        head, (embedding, labels) = build(name), batch()
        full, none = head(embedding, labels), head(embedding)
        head.set_margin_factor(0)
        torch.testing.assert_close(head(embedding, labels), none)
        head.set_margin_factor(0.5)
        half = build(name, margin=head.full_margin / 2)
        assert torch.equal(head(embedding, labels), half(embedding, labels))
        head.set_margin_factor(1)
        assert torch.equal(head(embedding, labels), full)

    @pytest.mark.parametrize("factor", [-0.1, 1.5, float("nan"), float("inf")])
    def test_factor_out_of_range(self, factor: float) -> None:
        head = build("arcface")
        with pytest.raises(pvzoo.InputError) as caught:
            head.set_margin_factor(factor)
        assert str(caught.value) == f"the margin factor must lie in [0, 1], got {factor}"
        assert head.margin == 0.5


class TestAdaFace:
    @pytest.mark.parametrize("norm", [0.01, 10.0, 20.0, 25.0, 90.0])
    def test_is_the_formula_of_the_paper(self, norm: float) -> None:
        """Kim et al. 2022, eq. 13-16, written with the angle."""
        head = planar("adaface", margin=0.4, concentration=0.333)
        quality = max(-1.0, min(1.0, (norm - 20.0) / (10.0 + 1e-3) * 0.333))
        g_angle, g_add = -0.4 * quality, 0.4 * quality + 0.4
        theta = torch.linspace(0.01, pi - 0.01, 500, dtype=torch.float64)
        moved = theta + g_angle
        inside = (moved > 0) & (moved < pi)  # the paper clips the angle there
        expected = S * (torch.cos(moved) - g_add)
        logits = target_logits(head, theta.cos(), norm)
        assert inside.sum() > 400
        torch.testing.assert_close(logits[inside], expected[inside], rtol=0, atol=1e-9)

    @pytest.mark.parametrize("norm", QUALITIES)
    @pytest.mark.parametrize("margin", [0.05, 0.4, 0.78])
    def test_is_continuous_where_the_paper_clips(self, margin: float, norm: float) -> None:
        theta = torch.linspace(1e-3, pi - 1e-3, 100_001, dtype=torch.float64)
        logits = target_logits(planar("adaface", margin=margin), theta.cos(), norm)
        step = (theta[1] - theta[0]).item()
        assert logits.diff().abs().max() < 1.01 * S * step  # no steeper than a cosine: no jump anywhere

    def test_a_good_image_has_the_additive_margin_and_a_bad_one_the_angular(self) -> None:
        head = planar("adaface", margin=0.4)
        cosine = torch.tensor([0.5], dtype=torch.float64)
        theta = cosine.acos()
        torch.testing.assert_close(target_logits(head, cosine, 1e6), S * (torch.cos(theta - 0.4) - 0.8))
        torch.testing.assert_close(target_logits(head, cosine, 20.0), S * (cosine - 0.4))
        head.norm_std.fill_(1.0)
        torch.testing.assert_close(target_logits(head, cosine, 1e-6), S * torch.cos(theta + 0.4))

    def test_running_statistics_follow_the_norms(self) -> None:
        head, (embedding, labels) = build("adaface", momentum=0.25).train(), batch()
        norm = embedding.norm(dim=1)
        head(embedding, labels)
        torch.testing.assert_close(head.norm_mean, 0.75 * torch.tensor(20.0) + 0.25 * norm.mean())
        torch.testing.assert_close(head.norm_std, 0.75 * torch.tensor(100.0) + 0.25 * norm.std())

    @pytest.mark.parametrize("situation", ["eval mode", "no labels", "one sample"])
    def test_running_statistics_stay(self, situation: str) -> None:
        head, (embedding, labels) = build("adaface", momentum=1.0), batch(1 if situation == "one sample" else 6)
        head.train(situation != "eval mode")
        logits = head(embedding, None if situation == "no labels" else labels)
        assert logits.isfinite().all()
        assert (head.norm_mean.item(), head.norm_std.item()) == (20.0, 100.0)

    def test_running_statistics_travel_with_the_weights(self) -> None:
        assert {"norm_mean", "norm_std"} < set(build("adaface").state_dict())

    def test_norms_are_clipped_so_that_one_outlier_does_not_move_the_mean_far(self) -> None:
        head = build("adaface", momentum=1.0).train()
        embedding, labels = batch()
        embedding[0] *= 1e6
        head(embedding, labels)
        assert head.norm_mean <= 100

    def test_the_norm_gets_no_gradient(self) -> None:
        head, (embedding, labels) = build("adaface"), batch()
        embedding.requires_grad_()
        F.cross_entropy(head(embedding, labels), labels).backward()
        along = (embedding.grad * F.normalize(embedding)).sum(1)
        across = embedding.grad.norm(dim=1)
        assert (along.abs() < 1e-4 * across).all()


class TestSubcenters:
    def test_one_centre_is_arcface(self) -> None:
        embedding, labels = batch()
        one, plain = build("subcenter_arcface", centers=1), build("arcface")
        one.load_state_dict(plain.state_dict())
        assert torch.equal(one(embedding, labels), plain(embedding, labels))

    def test_the_nearest_centre_counts(self) -> None:
        head, (embedding, _) = build("subcenter_arcface", centers=3), batch()
        logits = head(embedding)
        for sample in range(len(embedding)):
            for label in range(CLASSES):
                own = head.weight[3 * label : 3 * label + 3]
                best = max(F.cosine_similarity(embedding[sample], center, dim=0) for center in own)
                torch.testing.assert_close(logits[sample, label], S * best)

    def test_only_the_nearest_centre_is_pulled(self) -> None:
        head, (embedding, labels) = build("subcenter_arcface", centers=3), batch(1)
        head(embedding, labels)[0, 0].backward()
        nearest = F.cosine_similarity(embedding, head.weight[:3]).argmax()
        assert head.weight.grad.any(1).nonzero().flatten().tolist() == [nearest]


class TestWithoutMargin:
    @pytest.mark.parametrize("bias", [True, False])
    def test_linear(self, bias: bool) -> None:
        head, (embedding, labels) = build("linear", bias=bias), batch()
        expected = embedding @ head.weight.T + (head.bias if bias else 0)
        torch.testing.assert_close(head(embedding), expected)
        assert torch.equal(head(embedding, labels), head(embedding))

    def test_none(self) -> None:
        embedding, labels = batch()
        assert build("none")(embedding) is None and build("none")(embedding, labels) is None


def with_neck(head: str, bnneck: bool = True) -> pvzoo.Model:
    torch.manual_seed(0)
    return pvzoo.create(
        {
            "preprocessing": {"size": 32},
            "modalities": ["palm"],
            "branches": {"local": {"backbone": "convnext_atto"}},
            "embedding": {"bnneck": bnneck},
            "head": head,
            "num_classes": None if head == "none" else CLASSES,
        }
    )


class TestBNNeck:
    """``embedding: {bnneck: true}``, for every head: the main gain of several palm recognition baselines."""

    @pytest.mark.parametrize("head", [*MARGIN, "linear", "none"])
    def test_stands_between_joined_branches_and_head(self, head: str) -> None:
        model = with_neck(head)
        assert isinstance(model.neck, nn.BatchNorm1d) and model.neck.num_features == 320
        assert not model.neck.bias.requires_grad and not model.neck.bias.any()
        model.neck.running_mean.normal_()
        model.neck.running_var.uniform_(0.5, 2)
        nn.init.uniform_(model.neck.weight, 0.5, 2)

        palm, labels = torch.randn(4, 1, 32, 32), torch.arange(4)
        joined = model.features(palm)["local"]["palm"]
        neck = model.neck
        necked = (joined - neck.running_mean) / (neck.running_var + neck.eps).sqrt() * neck.weight
        logits, embedding, _ = model(palm, labels=None if head == "none" else labels)
        torch.testing.assert_close(embedding, F.normalize(necked))
        torch.testing.assert_close(model.embed(palm), embedding)
        if head == "none":
            assert logits is None
        else:
            torch.testing.assert_close(logits, model.head(necked, labels))

    @pytest.mark.parametrize("head", [*MARGIN, "linear"])
    def test_its_bias_stays_zero_in_training(self, head: str) -> None:
        model = with_neck(head).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        palm, labels = torch.randn(6, 1, 32, 32), torch.arange(6)
        before = model.neck.weight.clone()
        F.cross_entropy(model(palm, labels=labels).logits, labels).backward()
        optimizer.step()
        assert model.neck.bias.grad is None and not model.neck.bias.any()
        assert not torch.equal(model.neck.weight, before)

    def test_is_left_out_unless_asked_for(self) -> None:
        model = with_neck("arcface", bnneck=False)
        assert isinstance(model.neck, nn.Identity)
        assert not [name for name in model.state_dict() if name.startswith("neck")]
