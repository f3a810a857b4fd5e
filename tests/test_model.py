"""The composed network: the reference architecture to the parameter, missing modalities, and what it refuses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from small import TINY, batch, randomise
from torch import Tensor, nn

import pvzoo
from pvzoo.errors import InputError, MissingModalityError
from pvzoo.model import PARTS, Model
from pvzoo.plugins import Host, host, using

# The local branch alone: a third of the time of TINY.
LOCAL = {**TINY, "branches": {"local": TINY["branches"]["local"]}, "fusion": {"local": "spatial_attention"}}
LABELS = torch.tensor([0, 1, 4])


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def make(base: dict[str, Any] = TINY, **overrides: Any) -> Model:
    model = pvzoo.create(base, **overrides)
    randomise(model)
    return model


@pytest.fixture(scope="module")
def tiny() -> Model:
    """Read only: tests that change a model make their own."""
    return make()


@pytest.fixture(scope="module")
def local() -> Model:
    """Read only, as ``tiny``."""
    return make(LOCAL)


# The reference architecture


@pytest.fixture(scope="module")
def reference() -> Model:
    return pvzoo.create("stage2_spatial", device="meta")


@pytest.mark.parametrize(
    ("part", "parameters"),
    {
        "branches.palm.global_": 2_155_908,
        "branches.palm.local": 27_817_056,
        "branches.vein.global_": 2_155_908,
        "branches.vein.local": 27_817_056,
        "alignments.palm.global_": 192 * 256 + 256,
        "alignments.palm.local": 768 * 256 + 2 * 256,
        "alignments.vein.global_": 192 * 256 + 256,
        "alignments.vein.local": 768 * 256 + 2 * 256,
        "fusions.global_": (512 * 128 + 128) + (128 * 512 + 512),
        "fusions.local": 512 * 64 + 2 * 64 + (64 * 2 * 9 + 2),
        "neck": 0,
        "head": 100 * 512,
        "": 60_655_946,
    }.items(),
    ids=lambda value: (value or "all") if isinstance(value, str) else None,
)
def test_stage2_spatial_has_the_parameters_of_the_reference(reference: Model, part: str, parameters: int) -> None:
    assert count(reference.get_submodule(part)) == parameters


@pytest.mark.parametrize(("branch", "architecture"), [("global", "efficientvit_m0"), ("local", "convnext_tiny")])
@pytest.mark.parametrize("modality", ["palm", "vein"])
def test_its_branches_are_the_networks_of_timm(reference: Model, modality: str, branch: str, architecture: str) -> None:
    with torch.device("meta"):
        original = timm.create_model(architecture, in_chans=1, num_classes=0)
    net = reference.branches[modality][branch].net
    shapes = [(name, tensor.shape) for name, tensor in net.state_dict().items()]
    assert shapes == [(name, tensor.shape) for name, tensor in original.state_dict().items()]


def test_its_shapes_are_those_of_the_reference(reference: Model) -> None:
    images = torch.empty(4, 1, 224, 224, device="meta")
    labels = torch.zeros(4, dtype=torch.long, device="meta")
    logits, embedding, details = reference(images, images, labels)
    assert logits.shape == (4, 100)
    assert embedding.shape == (4, 512)
    assert {branch: {name: tuple(w.shape) for name, w in weights.items()} for branch, weights in details.items()} == {
        "global": {"w_palm": (4, 256), "w_vein": (4, 256)},
        "local": {"w_palm": (4, 1, 7, 7), "w_vein": (4, 1, 7, 7)},
    }
    features = reference.features(images, images)
    assert {branch: {name: tuple(x.shape) for name, x in by.items()} for branch, by in features.items()} == {
        "global": {"palm": (4, 192), "vein": (4, 192)},
        "local": {"palm": (4, 768, 7, 7), "vein": (4, 768, 7, 7)},
    }
    assert (reference.head.scale, reference.head.margin) == (64.0, 0.5)


BY_HAND = {
    "branches.palm.global_.net": "vit_palm",
    "branches.vein.global_.net": "vit_vein",
    "branches.palm.local.net": "cnn_palm",
    "branches.vein.local.net": "cnn_vein",
    "alignments.palm.global_.0": "align_global.0",
    "alignments.vein.global_.0": "align_global.1",
    "alignments.palm.local.conv": "align_local.0.0",
    "alignments.palm.local.norm": "align_local.0.1",
    "alignments.vein.local.conv": "align_local.1.0",
    "alignments.vein.local.norm": "align_local.1.1",
    "fusions.global_.score": "channel",
    "fusions.local.score": "spatial",
    "head.weight": "centers",
}


def test_stage2_spatial_computes_what_the_same_layers_do_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    by_hand = pytest.importorskip("by_hand", reason="the benchmarks stand in the repository only")
    model = make("stage2_spatial")
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        (prefix,) = (prefix for prefix in BY_HAND if name == prefix or name.startswith(f"{prefix}."))
        tensors[BY_HAND[prefix] + name.removeprefix(prefix)] = tensor
    expected = by_hand.Stage2Spatial().eval()
    expected.load_state_dict(tensors)
    palm, vein = batch(model, 2)
    with torch.inference_mode():
        logits, embedding = expected(palm, vein)
        output = model(palm, vein)
    torch.testing.assert_close(output.embedding, embedding, atol=1e-5, rtol=0)
    torch.testing.assert_close(output.logits / 64, logits / 64, atol=1e-5, rtol=0)


# The zoo

#: By name: total parameters, parameters of the branches, width of the embedding, shapes of the weights.
VECTOR, MAP = (2, 256), (2, 1, 7, 7)
ZOO = {
    "stage1_efficientvit_palm": (2_175_108, 2_155_908, 192, {"global": None}),
    "stage1_efficientvit_vein": (2_175_108, 2_155_908, 192, {"global": None}),
    "stage1_convnext_palm": (27_893_856, 27_817_056, 768, {"local": None}),
    "stage1_convnext_vein": (27_893_856, 27_817_056, 768, {"local": None}),
    "stage1_convnext_palm_nano": (3_405_240, 3_373_240, 320, {"local": None}),
    "stage1_convnext_vein_nano": (3_405_240, 3_373_240, 320, {"local": None}),
    "stage2_channel": (60_753_096, 59_945_928, 512, {"global": VECTOR, "local": VECTOR}),
    "stage2_channel_nano": (11_636_088, 11_058_296, 512, {"global": VECTOR, "local": VECTOR}),
    "stage2_spatial": (60_655_946, 59_945_928, 512, {"global": VECTOR, "local": MAP}),
    "stage2_spatial_nano": (11_538_938, 11_058_296, 512, {"global": VECTOR, "local": MAP}),
    "stage2_shared": (30_682_982, 29_972_964, 512, {"global": VECTOR, "local": MAP}),
    "stage2_shared_nano": (6_009_790, 5_529_148, 512, {"global": VECTOR, "local": MAP}),
    "stage2_concat": (60_243_656, 59_945_928, 512, {"global": None, "local": None}),
    "stage2_concat_nano": (11_241_336, 11_058_296, 512, {"global": None, "local": None}),
    "stage2_global": (4_567_944, 4_311_816, 256, {"global": VECTOR}),
    "stage2_global_nano": (4_407_112, 4_311_816, 128, {"global": (2, 128)}),
    "stage2_local": (56_088_002, 55_634_112, 256, {"local": MAP}),
    "stage2_local_nano": (6_970_994, 6_746_480, 256, {"local": MAP}),
}


def test_the_table_names_every_model_of_the_zoo() -> None:
    with using(Host(plugins=[])):
        assert pvzoo.list_models() == sorted(ZOO)


@pytest.mark.parametrize("name", ZOO)
def test_a_zoo_model_has_its_shapes_and_sizes(name: str) -> None:
    parameters, of_branches, width, shapes = ZOO[name]
    device = "cpu" if name.endswith("nano") else "meta"  # the small ones run, the others only count
    model = pvzoo.create(name, device=device)
    assert count(model) == parameters
    assert count(model.branches) == of_branches
    images = {modality: torch.rand(2, 1, 224, 224, device=device) for modality in model.spec.modalities}
    with torch.no_grad():
        logits, embedding, details = model(**images)
    assert logits.shape == (2, 100)
    assert embedding.shape == (2, width)
    assert {branch: {k: tuple(w.shape) for k, w in by.items()} for branch, by in details.items()} == {
        branch: {f"w_{modality}": shape for modality in model.spec.modalities} if shape else {}
        for branch, shape in shapes.items()
    }
    if device == "meta":
        return
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    assert logits.abs().max() <= 64.01
    for weights in filter(None, details.values()):
        total = sum(weights.values())
        torch.testing.assert_close(total, torch.ones_like(total))


# Calling


def test_images_go_in_by_position_or_by_name(tiny: Model) -> None:
    palm, vein = batch(tiny)
    logits, embedding, details = tiny(palm, vein, LABELS)
    calls = [
        tiny(palm, vein, labels=LABELS),
        tiny(palm, vein=vein, labels=LABELS),
        tiny(vein=vein, palm=palm, labels=LABELS),
    ]
    for other in calls:
        assert torch.equal(other.logits, logits)
        assert torch.equal(other.embedding, embedding)
        assert torch.equal(other.details["local"]["w_palm"], details["local"]["w_palm"])
    assert not torch.equal(tiny(vein, palm).embedding, embedding)


def test_labels_lower_the_logit_of_the_true_class_and_change_nothing_else(tiny: Model) -> None:
    palm, vein = batch(tiny)
    without, with_labels = tiny(palm, vein), tiny(palm, vein, LABELS)
    true = nn.functional.one_hot(LABELS, 5).bool()
    assert torch.equal(with_labels.logits[~true], without.logits[~true])
    assert (with_labels.logits[true] < without.logits[true]).all()
    assert torch.equal(with_labels.embedding, without.embedding)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.uint16])
def test_labels_are_of_any_integer_type(local: Model, dtype: torch.dtype) -> None:
    palm, vein = batch(local)
    assert torch.equal(local(palm, vein, LABELS.to(dtype)).logits, local(palm, vein, LABELS).logits)


def test_embed_is_the_embedding_of_the_whole_model(tiny: Model) -> None:
    palm, vein = batch(tiny)
    assert torch.equal(tiny.embed(palm, vein), tiny(palm, vein).embedding)
    assert torch.equal(tiny.embed(vein=vein), tiny(None, vein).embedding)


@pytest.mark.parametrize("given", [{"palm", "vein"}, {"palm"}, {"vein"}], ids=lambda given: "+".join(sorted(given)))
def test_kept_features_give_the_same_bits(tiny: Model, given: set[str]) -> None:
    images = {m: x for m, x in zip(tiny.spec.modalities, batch(tiny), strict=True) if m in given}
    features = tiny.features(**images)
    assert {m for m, x in features["local"].items() if x is not None} == given
    direct, kept = tiny(**images, labels=LABELS), tiny.fuse(features, LABELS)
    assert torch.equal(kept.logits, direct.logits)
    assert torch.equal(kept.embedding, direct.embedding)
    assert torch.equal(tiny.fuse(features).logits, tiny(**images).logits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("local"), "the features lack branch 'local'; give all that model.features gave"),
        (
            lambda f: f["local"].update(plam=f["local"].pop("palm")),
            "features of branch 'local': the model has no modality 'plam'; did you mean 'palm'?",
        ),
        (
            lambda f: f["local"].update(vein=f["local"]["vein"].mean((2, 3))),
            "the features of vein in branch 'local' have shape (3, 320); (3, 320, 2, 2) is needed",
        ),
        (
            lambda f: f["local"].update(vein=f["local"]["vein"][:1]),
            "the features of vein in branch 'local' have shape (1, 320, 2, 2); (3, 320, 2, 2) is needed",
        ),
        (
            lambda f: f["global"].update(palm=f["global"]["palm"] / 0),
            "the features of palm in branch 'global' hold NaN or infinite values",
        ),
        (
            lambda f: f["global"].update(palm=[1.0]),
            "the features of palm in branch 'global' are of type list; a tensor is needed",
        ),
    ],
    ids=["branch", "modality", "vector", "batch", "infinite", "list"],
)
def test_features_that_are_not_the_models_are_refused(tiny: Model, change: Any, message: str) -> None:
    features = tiny.features(*batch(tiny))
    change(features)
    with pytest.raises(InputError) as caught:
        tiny.fuse(features, LABELS)
    assert str(caught.value) == message


def test_a_sample_does_not_depend_on_its_batch(tiny: Model) -> None:
    palm, vein = batch(tiny)
    torch.testing.assert_close(tiny.embed(palm[1:2], vein[1:2])[0], tiny.embed(palm, vein)[1], atol=1e-5, rtol=0)


# Missing modalities

FUSIONS = {
    "channel_attention": "reweight",
    "spatial_attention": "reweight",
    "gated": "reweight",
    "cross_attention": "reweight",
    "aff": "reweight",
    "iaff": "reweight",
    "channel_selection": "ignore",
    "sum": "ignore",
    "max": "ignore",
    "concat": "refuse",
    "low_rank_bilinear": "refuse",
}


def test_the_table_names_every_fusion() -> None:
    with using(Host(plugins=[])):
        assert {entry.name: entry.missing for entry in host().entries("fusion")} == FUSIONS


@pytest.mark.parametrize(("fusion", "policy"), FUSIONS.items())
def test_what_a_fusion_does_about_a_missing_modality(fusion: str, policy: str) -> None:
    model = make(LOCAL, **{"fusion.local": fusion})
    palm, vein = batch(model)
    if policy == "refuse":
        with pytest.raises(MissingModalityError) as caught:
            model(None, vein)
        assert str(caught.value) == (
            f"fusion {fusion!r} needs every modality, and palm is missing; "
            "channel_attention, gated, sum and others do without"
        )
        return
    for missing, output in {
        "palm": [model(None, vein), model(vein=vein), model(palm=None, vein=vein)],
        "vein": [model(palm, None), model(palm), model(palm=palm), model(palm, None, LABELS)],
    }.items():
        first, *others = output
        assert all(torch.equal(first.embedding, other.embedding) for other in others)
        assert torch.isfinite(first.embedding).all()
        weights = first.details["local"]
        assert set(weights) == ({"w_palm", "w_vein"} if policy == "reweight" else set())
        for name, weight in weights.items():
            torch.testing.assert_close(weight, torch.full_like(weight, float(name != f"w_{missing}")))
    assert not torch.equal(model.embed(palm, vein), model.embed(palm))


@pytest.mark.parametrize("images", [(), (None,), (None, None), (None, None, LABELS)], ids=str)
def test_one_modality_at_least_is_needed(local: Model, images: tuple[Any, ...]) -> None:
    for fusion in ({}, {"local": "concat"}):
        model = pvzoo.create(LOCAL, fusion=fusion) if fusion else local
        with pytest.raises(MissingModalityError, match=r"^every modality is missing; give at least one of palm, vein$"):
            model(*images)


def test_a_missing_modality_of_a_unimodal_model() -> None:
    model = make(LOCAL, modalities=["palm"], fusion={})
    with pytest.raises(MissingModalityError, match=r"^every modality is missing; give at least one of palm$"):
        model(None)
    assert model(*batch(model)).details == {"local": {}}


def test_a_unimodal_model_may_have_a_fusion_with_nothing_to_weigh() -> None:
    model = make(LOCAL, modalities=["palm"])
    weight = model(*batch(model), LABELS).details["local"]["w_palm"]
    assert torch.equal(weight, torch.ones_like(weight))


def test_weights_follow_the_images_not_the_order_of_names(tiny: Model) -> None:
    palm, vein = batch(tiny)
    assert (tiny(palm, None).details["local"]["w_palm"] == 1).all()
    assert (tiny(None, vein).details["local"]["w_palm"] == 0).all()


# Compositions


def test_three_modalities() -> None:
    model = make(modalities=["palm", "vein", "dorsal"])
    palm, vein, dorsal = batch(model)
    output = model(palm, vein, dorsal, LABELS)
    assert output.embedding.shape == (3, 32)
    for weights in output.details.values():
        assert list(weights) == ["w_palm", "w_vein", "w_dorsal"]
        torch.testing.assert_close(sum(weights.values()), torch.ones_like(weights["w_palm"]))
    without = model(palm, dorsal=dorsal).details["global"]
    assert (without["w_vein"] == 0).all()
    torch.testing.assert_close(without["w_palm"] + without["w_dorsal"], torch.ones(3, 16))


def test_each_modality_may_have_a_backbone_of_its_own() -> None:
    backbones = {"palm": {"name": "timm", "params": {"arch": "resnet10t"}}, "vein": "convnext_atto"}
    model = make(LOCAL, **{"branches.local.backbone": backbones})
    assert {m: type(model.branches[m]["local"].net).__name__ for m in ("palm", "vein")} == {
        "palm": "ResNet",
        "vein": "ConvNeXt",
    }
    features = model.features(*batch(model))["local"]
    assert {m: tuple(x.shape[1:]) for m, x in features.items() if x is not None} == {
        "palm": (512, 2, 2),
        "vein": (320, 2, 2),
    }
    assert model(*batch(model)).embedding.shape == (3, 16)


def test_shared_branches_are_one_module_under_the_first_modality(tiny: Model) -> None:
    model = make(share_branches=True)
    assert list(model.branches) == ["palm"]
    assert list(model.alignments) == ["palm", "vein"]
    assert count(model.branches) == count(tiny.branches) / 2
    palm, vein = batch(model)
    features = model.features(palm, palm)
    assert all(torch.equal(by["palm"], by["vein"]) for by in features.values())
    model(palm, vein, LABELS).logits.sum().backward()
    both = model.branches["palm"]["local"].net.stem[0].weight.grad.clone()
    model.zero_grad()
    model(palm, None, LABELS).logits.sum().backward()
    assert not torch.allclose(model.branches["palm"]["local"].net.stem[0].weight.grad, both)


def test_bnneck_stands_between_embedding_and_head() -> None:
    model = make(LOCAL, **{"embedding.bnneck": True})
    assert isinstance(model.neck, nn.BatchNorm1d)
    assert not model.neck.bias.requires_grad
    seen: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    embedding = model(*batch(model)).embedding
    torch.testing.assert_close(embedding, nn.functional.normalize(seen[0]))
    assert torch.equal(embedding, model.embed(*batch(model)))


def test_an_embedding_may_keep_its_length(local: Model) -> None:
    long = pvzoo.create(LOCAL, **{"embedding.normalize": False})
    long.load_state_dict(local.state_dict())
    palm, vein = batch(local)
    embedding = long.embed(palm, vein)
    assert not torch.allclose(embedding.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(nn.functional.normalize(embedding), local.embed(palm, vein))
    assert torch.equal(long(palm, vein).logits, local(palm, vein).logits)


def test_without_a_head_logits_are_none() -> None:
    model = make(LOCAL, num_classes=0)
    palm, vein = batch(model)
    logits, embedding, _ = model(palm, vein, LABELS)
    assert logits is None
    assert embedding.shape == (3, 16)
    assert not any(name.startswith("head") for name in model.state_dict())


def test_tensors_are_named_after_the_parts() -> None:
    model = pvzoo.create(TINY, **{"embedding.bnneck": True}, device="meta")
    parts = {name.split(".")[0] for name in model.state_dict()}
    assert parts == {*PARTS, "neck"} == {"branches", "alignments", "fusions", "neck", "head"}
    prefixes = sorted({".".join(name.split(".")[:3]) for name in model.state_dict() if name.startswith(PARTS[:2])})
    assert prefixes == [
        "alignments.palm.global_",
        "alignments.palm.local",
        "alignments.vein.global_",
        "alignments.vein.local",
        "branches.palm.global_",
        "branches.palm.local",
        "branches.vein.global_",
        "branches.vein.local",
    ]


def test_a_model_says_what_it_is(local: Model) -> None:
    assert "(0): unnamed" not in repr(local)
    assert "unnamed: palm + vein -> embedding of 16" in repr(local)
    assert "stage1_convnext_palm_nano: palm -> embedding of 320" in repr(
        pvzoo.create("stage1_convnext_palm_nano", device="meta")
    )


# Training


def test_gradients_reach_every_parameter_but_the_norm_that_only_pooling_uses() -> None:
    model = make(image_size=128).train()  # at 64 pixels EfficientViT's last attention sees one token: no gradient
    logits, _, _ = model(*batch(model), LABELS)
    nn.functional.cross_entropy(logits, LABELS).backward()
    untouched = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().any()}
    # A map stops before ConvNeXt's head; the norm there stays, so that stage-1 weights fit by name.
    assert untouched == {
        f"branches.{modality}.local.net.head.norm.{kind}"
        for modality in ("palm", "vein")
        for kind in ("weight", "bias")
    }


def test_a_missing_modality_gets_no_gradient_and_the_other_does(tiny: Model) -> None:
    model = copy.deepcopy(tiny).train()
    palm, _ = batch(model)
    model(palm, None, LABELS).logits.sum().backward()
    reached = {name.split(".")[1] for name, p in model.named_parameters() if name[:2] == "br" and p.grad is not None}
    assert reached == {"palm"}


def test_batch_norm_learns_in_train_mode_only() -> None:
    model = make(LOCAL)
    images = batch(model)
    mean = model.alignments["palm"]["local"].norm.running_mean
    before = mean.clone()
    first = model.embed(*images)
    assert torch.equal(mean, before)
    assert torch.equal(first, model.embed(*images))
    model.train()
    assert not torch.allclose(model.embed(*images), first)
    assert not torch.equal(mean, before)


def test_frozen_branches_train_on_kept_features() -> None:
    model = make(LOCAL)
    model.branches.requires_grad_(False)
    features = model.features(*batch(model))
    assert not any(x.requires_grad for x in features["local"].values() if x is not None)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(model.fuse(features, LABELS).logits, LABELS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_copy_is_a_model_of_its_own(local: Model) -> None:
    palm, vein = batch(local)
    expected = local.embed(palm, vein)
    twin = copy.deepcopy(local)
    assert torch.equal(twin.embed(palm, vein), expected)
    randomise(twin, seed=9)
    assert torch.equal(local.embed(palm, vein), expected)
    assert not torch.equal(twin.embed(palm, vein), expected)
    assert twin.spec == local.spec


# Types and compilers


@pytest.mark.parametrize(("dtype", "near"), [(torch.bfloat16, 0.999), (torch.float16, 0.9999), (torch.float64, 0.9999)])
def test_models_run_in_other_floating_point_types(tiny: Model, dtype: torch.dtype, near: float) -> None:
    model = copy.deepcopy(tiny).to(dtype)
    assert model.dtype is dtype
    images = batch(tiny)
    logits, embedding, details = model(*(image.to(dtype) for image in images), LABELS)
    assert logits.dtype is torch.promote_types(dtype, torch.float32)  # margins are too fine for half precision
    assert embedding.dtype is details["local"]["w_palm"].dtype is dtype
    assert nn.functional.cosine_similarity(embedding.float(), tiny.embed(*images)).min() > near


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(tiny: Model, dtype: torch.dtype) -> None:
    images = batch(tiny)
    with torch.autocast("cpu", dtype=dtype):
        logits, embedding, _ = tiny(*images, LABELS)
        assert torch.equal(tiny.embed(*(image.to(dtype) for image in images)).isfinite().all(), torch.tensor(True))
    assert logits.dtype is torch.float32
    assert nn.functional.cosine_similarity(embedding.float(), tiny.embed(*images)).min() > 0.999


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_embedding_of_zeros_stays_finite(dtype: torch.dtype) -> None:
    model = pvzoo.create(LOCAL, dtype=dtype)
    nn.init.zeros_(model.alignments["palm"]["local"].norm.weight)
    embedding = model.embed(palm=batch(model)[0].to(dtype))
    assert torch.equal(embedding, torch.zeros(3, 16, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_preprocess_gives_what_the_model_takes(tmp_path: Path, dtype: torch.dtype) -> None:
    model = pvzoo.create(LOCAL, dtype=dtype)
    Image.new("L", (80, 100), 128).save(tmp_path / "palm.png")
    images = model.preprocess([tmp_path / "palm.png", tmp_path / "palm.png"])
    assert images.shape == (2, 1, 64, 64)
    assert (images.dtype, images.device) == (model.dtype, model.device)
    assert model.embed(images, images).shape == (2, 16)
    assert pvzoo.create(LOCAL, device="meta").preprocess(tmp_path / "palm.png").is_meta


class Mean(nn.Module):
    """A backbone without a parameter: the average of each quarter of the image."""

    def __init__(self, params: Any, *, in_chans: int, image_size: tuple[int, int]) -> None:
        super().__init__()

    def forward(self, x: Tensor, pool: bool = True) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


class Plugin:
    @pvzoo.hookimpl
    def register_backbones(self, register: Any) -> None:
        register("acme/mean", build=Mean, shape=lambda params, channels, size: pvzoo.BackboneShape(4 * channels))


def test_a_model_need_not_have_parameters() -> None:
    with using(Host(plugins=[])) as own:
        own.add("acme", Plugin())
        spec = {"branches": {"global": {"backbone": "acme/mean"}}, "fusion": {"global": "sum"}}
        model = pvzoo.create(spec, image_size=8)
    assert list(model.parameters()) == []
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    palm = model.preprocess(torch.rand(1, 20, 20))
    torch.testing.assert_close(model.embed(palm, palm).norm(), torch.tensor(1.0))


@pytest.mark.slow
@pytest.mark.parametrize("branch", ["local", "global"])
def test_torch_export(branch: str) -> None:
    """``global`` is a Python keyword, and torch.export writes module names into Python code."""
    model = make({**LOCAL, "branches": {branch: LOCAL["branches"]["local"]}, "fusion": {branch: "spatial_attention"}})
    palm, vein = batch(model)
    exported = torch.export.export(model, (palm, vein)).module()
    torch.testing.assert_close(exported(palm, vein).embedding, model.embed(palm, vein))


# What is refused

GOOD = torch.rand(3, 1, 64, 64)
WRONG_IMAGES: dict[str, tuple[Any, str]] = {
    "rank": (GOOD[0], "vein has shape (1, 64, 64); a batch (N, C, H, W) is needed"),
    "channels": (
        GOOD.expand(-1, 3, -1, -1),
        "vein has images of 3x64x64, and the model takes 1x64x64; "
        "use model.preprocess, or create the model with in_chans or image_size",
    ),
    "size": (
        GOOD[..., :60],
        "vein has images of 1x64x60, and the model takes 1x64x64; "
        "use model.preprocess, or create the model with in_chans or image_size",
    ),
    "integers": ((GOOD * 255).byte(), "vein is of torch.uint8; model.preprocess makes float tensors of images"),
    "complex": (
        GOOD.to(torch.complex64),
        "vein is of torch.complex64; model.preprocess makes float tensors of images",
    ),
    "double": (
        GOOD.double(),
        "vein is of torch.float64, and the model of torch.float32; use model.preprocess, or convert one of them",
    ),
    "half": (
        GOOD.half(),
        "vein is of torch.float16, and the model of torch.float32; use model.preprocess, or convert one of them",
    ),
    "NaN": (GOOD.index_fill(0, torch.tensor(1), float("nan")), "vein holds NaN or infinite values"),
    "infinite": (GOOD.index_fill(0, torch.tensor(1), float("-inf")), "vein holds NaN or infinite values"),
    "fewer": (GOOD[:2], "vein has 2 samples, and the modality before it 3"),
    "none": (GOOD[:0], "vein has no samples"),
    "array": (GOOD.numpy(), "vein is of type ndarray; model.preprocess makes tensors of images"),
    "path": ("vein.png", "vein is of type str; model.preprocess makes tensors of images"),
    "list": ([GOOD], "vein is of type list; model.preprocess makes tensors of images"),
    "labels": (LABELS, "vein has shape (3,); a batch (N, C, H, W) is needed"),
}


@pytest.mark.parametrize(("vein", "message"), WRONG_IMAGES.values(), ids=WRONG_IMAGES)
def test_images_that_do_not_fit(local: Model, vein: Any, message: str) -> None:
    for call in (local, local.embed, local.features):
        with pytest.raises(InputError) as caught:
            call(GOOD, vein)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("images", "by_name", "message"),
    [
        ((), {"plam": GOOD}, "the model has no modality 'plam'; did you mean 'palm'?"),
        ((GOOD,), {"label": LABELS}, "the model has no modality 'label'"),
        ((GOOD,), {"palm": GOOD}, "palm is given twice, by position and by name"),
        ((GOOD, None), {"vein": GOOD}, "vein is given twice, by position and by name"),
        ((GOOD, GOOD, LABELS, LABELS), {}, "4 images given; the model takes 2 (palm, vein), and labels"),
        ((GOOD, GOOD, LABELS), {"labels": LABELS}, "3 images given; the model takes 2 (palm, vein), and labels"),
    ],
)
def test_calls_that_do_not_fit(local: Model, images: Any, by_name: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        local(*images, **by_name)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:2], "labels have shape (2,); (3,) is needed"),
        (LABELS[:, None], "labels have shape (3, 1); (3,) is needed"),
        (torch.tensor(1), "labels have shape (); (3,) is needed"),
        (LABELS.float(), "labels are of torch.float32; integers are needed"),
        (LABELS.bool(), "labels are of torch.bool; integers are needed"),
        (torch.tensor([0, 1, 5]), "labels run from 0 to 5; the head has 5 classes, 0 to 4"),
        (torch.tensor([-1, 1, 4]), "labels run from -1 to 4; the head has 5 classes, 0 to 4"),
        ([0, 1, 4], "labels are of type list; a tensor of integers (3,) is needed"),
        (2, "labels are of type int; a tensor of integers (3,) is needed"),
    ],
    ids=["too few", "rank", "scalar", "floats", "bool", "too large", "negative", "list", "int"],
)
def test_labels_that_do_not_fit(local: Model, labels: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        local(GOOD, GOOD, labels)
    assert str(caught.value) == message


def test_the_first_and_the_last_class_are_labels(local: Model) -> None:
    assert torch.isfinite(local(GOOD, GOOD, torch.tensor([0, 4, 0])).logits).all()


def test_checks_can_be_turned_off() -> None:
    model = make(LOCAL)
    bad = GOOD.index_fill(0, torch.tensor(1), float("nan"))
    with pytest.raises(InputError):
        model(bad, GOOD)
    model.check_inputs = False
    assert model(bad, GOOD).embedding.isnan().any(1).tolist() == [False, True, False]
