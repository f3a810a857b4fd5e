"""Checks of components that are torch modules: fusions, backbones, alignments, heads."""

from __future__ import annotations

import copy
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from ..errors import MissingModalityError, PvzooError
from ..fusion.base import Fused
from ..registry import Alignment, Backbone, Fusion, Head
from ..shapes import FeatureKind, Shape
from ..weights import skip_init
from .entries import MODULES, ComponentCandidate
from .kit import CheckFailed, check, expect, said
from .watch import Seen, watched

Tensors = dict[str, Tensor]
Sizes = Mapping[str, tuple[int, ...]]
NAMES = ("palm", "vein", "dorsal")
DIM = 96  # many numbers of heads and groups divide it
GRID = (3, 4)
IMAGE_SIZES = ((64, 64), (75, 96), (128, 96), (224, 224))
CLASSES = 7


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way to build and call a component. All sizes are those of one sample, without the batch axis.

    Attributes:
        label: For messages.
        plain: Whether it is one of the few that stand for all in most checks.
        context: What the builder gets beside the parameters.
        inputs: By name.
        outputs: What the registry declares, by name.
        call: Calls the module, and names what it gives.
        wrong: Inputs that do not fit.
        parameters: Declared number of trained values; 0 if none is declared.
    """

    label: str
    plain: bool
    context: Mapping[str, Any]
    inputs: Sizes
    outputs: Sizes
    call: Callable[[nn.Module, Tensors], Tensors]
    wrong: Sequence[Sizes] = ()
    parameters: int = 0

    def run(self, module: nn.Module, inputs: Tensors) -> Tensors:
        try:
            return self.call(module, inputs)
        except CheckFailed:
            raise
        except Exception as error:
            raise CheckFailed(f"{self.label}: {said(error)}") from error

    def draw(self, batch: int = 2, seed: int = 1) -> Tensors:
        """Random inputs; they leave the global random state alone."""
        return draw(self.inputs, batch, seed)


def draw(sizes: Sizes, batch: int, seed: int = 1) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(batch, *size, generator=generator) for name, size in sizes.items()}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, the global random state starts from a seed; afterwards it is what it was."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class ModuleCandidate(ComponentCandidate):
    """A component that builds a torch module.

    Args:
        kind: Its kind.
        name: Its name in the registry.
        image_sizes: For a backbone, sizes to try; those that its ``shape`` refuses are passed over.
        **options: As for any component.
    """

    def __init__(
        self, kind: str, name: str, *, image_sizes: Sequence[tuple[int, int]] = IMAGE_SIZES, **options: Any
    ) -> None:
        super().__init__(kind, name, **options)
        self.image_sizes = image_sizes
        self._modules: dict[str, nn.Module] = {}

    @cached_property
    def trials(self) -> list[Trial]:
        return _TRIALS[self.kind](self)

    @property
    def plain(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.plain]

    def build(self, trial: Trial) -> nn.Module:
        """A new module in eval mode."""
        module = self.entry.create(self.params, **trial.context)
        expect(isinstance(module, nn.Module), f"build gave {type(module).__name__}, which is no torch.nn.Module")
        built: nn.Module = module.eval()
        return built

    def module(self, trial: Trial) -> nn.Module:
        """A module that is built once; a check that changes it takes a copy."""
        if trial.label not in self._modules:
            with seeded(0):
                self._modules[trial.label] = self.build(trial)
        return self._modules[trial.label]

    @cached_property
    def rehearsal(self) -> tuple[Seen, list[dict[str, float]]]:
        """Builds and runs it from two seeds: what was seen, and the numbers that each leaves to be drawn next."""
        drawn = []
        for seed in (5, 6):
            with seeded(seed):
                with watched() as seen:
                    for trial in self.plain:
                        trial.run(self.build(trial), trial.draw())
                drawn.append({"torch": float(torch.rand(())), "random": random.random(), "numpy": np.random.rand()})
        return seen, drawn

    @property
    def watched(self) -> Seen:
        return self.rehearsal[0]


# --- how each kind is built and called --------------------------------------------------------------------------------


def _shapes(accepts: Any, dim: int, grid: tuple[int, int]) -> list[tuple[FeatureKind, Shape]]:
    both: list[tuple[FeatureKind, Shape]] = [("vector", Shape(dim)), ("map", Shape(dim, grid))]
    return [(kind, shape) for kind, shape in both if kind in accepts]


def _size(shape: Shape) -> tuple[int, ...]:
    return (shape.dim, *(shape.grid or ()))


def _fusion(candidate: ModuleCandidate) -> list[Trial]:
    entry, params = candidate.entry, candidate.params
    assert isinstance(entry, Fusion)

    def call(module: nn.Module, inputs: Tensors) -> Tensors:
        fused = module(inputs)
        expect(isinstance(fused, Fused), f"forward gave {type(fused).__name__}, not pvzoo.Fused(features, weights)")
        return {"features": fused.features, **{f"weights of {name}": w for name, w in fused.weights.items()}}

    def trial(kind: str, shape: Shape, count: int) -> Trial:
        names, size = NAMES[:count], _size(shape)
        inputs = dict.fromkeys(names, size)
        return Trial(
            label=f"{kind}, {count} {'modality' if count == 1 else 'modalities'}",
            plain=count == 2,
            context={"modalities": names, "shape": shape},
            inputs=inputs,
            outputs={"features": (entry.out_dim(params, [shape.dim] * count), *size[1:])},
            call=call,
            wrong=[{**inputs, "vein": (dim, *size[1:])} for dim in (1, shape.dim + 1)] if count > 1 else (),
            parameters=entry.parameters(params, count, shape.dim),
        )

    return [trial(kind, shape, count) for count in (1, 2, 3) for kind, shape in _shapes(entry.accepts, DIM, GRID)]


def _backbone(candidate: ModuleCandidate) -> list[Trial]:
    entry, params = candidate.entry, candidate.params
    assert isinstance(entry, Backbone)
    trials: list[Trial] = []
    refused = []
    sizes = candidate.image_sizes
    for size, channels in [pair for order in ((1, 3), (3, 1)) for pair in zip(sizes, cycle(order), strict=False)]:
        if len(trials) == 3:
            break
        try:
            shape = entry.shape_of(params, channels, size)
        except ValueError as error:
            refused.append(str(error))
            continue
        outputs: dict[str, tuple[int, ...]] = {"vector": (shape.vector,)}
        if shape.map is not None:
            outputs["map"] = _size(shape.map)

        def call(module: nn.Module, inputs: Tensors, has_map: bool = shape.map is not None) -> Tensors:
            found: Tensors = {"vector": module(inputs["image"])}
            return {**found, "map": module(inputs["image"], pool=False)} if has_map else found

        trials.append(
            Trial(
                label=f"image {channels}x{size[0]}x{size[1]}",
                plain=not trials,
                context={"in_chans": channels, "image_size": size},
                inputs={"image": (channels, *size)},
                outputs=outputs,
                call=call,
                wrong=[{"image": size}],
                parameters=entry.parameters(params, channels, size),
            )
        )
    if not trials:
        raise PvzooError(f"it refuses every image size that was tried ({refused[0]}); give image_sizes=[(h, w), ...]")
    return trials


def _alignment(candidate: ModuleCandidate) -> list[Trial]:
    entry, params = candidate.entry, candidate.params
    assert isinstance(entry, Alignment)
    return [
        Trial(
            label=f"{kind} {shape}",
            plain=dim == DIM,
            context={"shape": shape},
            inputs={"x": _size(shape)},
            outputs={"features": _size(entry.out(params, shape))},
            call=lambda module, inputs: {"features": module(inputs["x"])},
            wrong=[{"x": (shape.dim + 1, *_size(shape)[1:])}],
            parameters=entry.parameters(params, shape),
        )
        for dim, grid in ((DIM, GRID), (DIM // 2, (5, 2)))
        for kind, shape in _shapes(entry.accepts, dim, grid)
    ]


def _head(candidate: ModuleCandidate) -> list[Trial]:
    entry, params = candidate.entry, candidate.params
    assert isinstance(entry, Head)

    def call(module: nn.Module, inputs: Tensors) -> Tensors:
        labels = torch.zeros(len(inputs["embedding"]), dtype=torch.long, device=inputs["embedding"].device)
        found = {"logits": module(inputs["embedding"]), "logits with labels": module(inputs["embedding"], labels)}
        if entry.classes:
            return found
        expect(found["logits"] is None, f"a head without classes gives None, and this one {type(found['logits'])}")
        return {}

    def trial(dim: int, classes: int | None) -> Trial:
        outputs = {} if classes is None else dict.fromkeys(("logits", "logits with labels"), (classes,))
        return Trial(
            label=f"embedding {dim}, {classes} classes",
            plain=dim == DIM,
            context={"dim": dim, "num_classes": classes},
            inputs={"embedding": (dim,)},
            outputs=outputs,
            call=call,
            wrong=[{"embedding": (dim + 1,)}] if outputs else (),
            parameters=entry.parameters(params, dim, classes or 0),
        )

    return [trial(DIM, CLASSES if entry.classes else None), trial(DIM // 2, 3 if entry.classes else None)]


_TRIALS: dict[str, Callable[[ModuleCandidate], list[Trial]]] = {
    "fusion": _fusion,
    "backbone": _backbone,
    "alignment": _alignment,
    "head": _head,
}


# --- checks of all of them --------------------------------------------------------------------------------------------


@check(*MODULES, since="0.1", do="read the message: it is the component's own", needs="params_defaults")
def builds(candidate: ModuleCandidate) -> None:
    """It can be built from its Params, and takes the plainest input."""
    for trial in candidate.plain:
        for name, x in trial.run(candidate.module(trial), trial.draw()).items():
            expect(isinstance(x, Tensor), f"{trial.label}: {name} is {type(x).__name__}, not a tensor")


@check(*MODULES, since="0.1", do="make shape, out or out_dim say what forward gives, or the other way", needs="builds")
def output_shape(candidate: ModuleCandidate) -> None:
    """It gives the shape that the registry declares, for batches of 1, 2 and 5; specs are checked by that alone."""
    for trial in candidate.trials:
        for batch in (1, 2, 5):
            with torch.no_grad():
                found = trial.run(candidate.module(trial), trial.draw(batch))
            for name, size in trial.outputs.items():
                shape = tuple(found[name].shape)
                expect(shape == (batch, *size), f"{trial.label}: {name} is {shape}, and declared {(batch, *size)}")


@check(*MODULES, since="0.1", do="keep roots, quotients and logarithms away from 0: add an epsilon", needs="builds")
def finite(candidate: ModuleCandidate) -> None:
    """Values and gradients are finite, for ordinary inputs, zeros and large ones."""
    for trial in candidate.plain:
        module = candidate.module(trial)
        for what, factor in (("ordinary", 1), ("zero", 0), ("large", 1000)):
            inputs = {name: (factor * x).requires_grad_() for name, x in trial.draw().items()}
            outputs = trial.run(module, inputs)
            for name, x in outputs.items():
                expect(x.isfinite().all(), f"{trial.label}: {name} of {what} values is not finite")
            for name, gradient in gradients(outputs, inputs).items():
                expect(gradient.isfinite().all(), f"{trial.label}: the gradient for {what} values of {name} is not")


@check(*MODULES, since="0.1", do="make tensors with x.new_zeros, or dtype=x.dtype, in forward", needs="builds")
def dtype_follows_input(candidate: ModuleCandidate) -> None:
    """A module of bfloat16 or float64 takes and gives that type; a head may give a wider one."""
    for trial in candidate.plain:
        for dtype in (torch.bfloat16, torch.float64):
            inputs = {name: x.to(dtype) for name, x in trial.draw().items()}
            module = copy.deepcopy(candidate.module(trial)).to(dtype)
            for name, x in trial.run(module, inputs).items():
                wider = candidate.kind == "head" and torch.promote_types(x.dtype, dtype) == x.dtype
                expect(x.dtype == dtype or wider, f"{trial.label}: {name} is {x.dtype} for {dtype}")


@check(
    *MODULES,
    since="0.1",
    do="make tensors with device=x.device in forward; register those that are kept as buffers",
    needs="builds",
)
def device_follows_input(candidate: ModuleCandidate) -> None:
    """A module that was moved to another device, here meta, works there."""
    for trial in candidate.plain:
        inputs = {name: x.to("meta") for name, x in trial.draw().items()}
        for name, x in trial.run(copy.deepcopy(candidate.module(trial)).to("meta"), inputs).items():
            expect(x.is_meta, f"{trial.label}: {name} is on {x.device}")


@check(*MODULES, since="0.1", do="name no device and look at no values in __init__", needs="builds")
def builds_on_meta(candidate: ModuleCandidate) -> None:
    """It can be built on the meta device, by which large models are looked at without memory."""
    for trial in candidate.plain:
        with torch.device("meta"):
            module = candidate.build(trial)
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            expect(tensor.is_meta, f"{trial.label}: {name} was made on {tensor.device}")


@check(*MODULES, since="0.1", do="in eval mode, use no statistics over the batch axis", needs="builds")
def batch_independence(candidate: ModuleCandidate) -> None:
    """In eval mode a sample's output does not depend on the others in its batch."""
    for trial in candidate.plain:
        module, inputs = candidate.module(trial), trial.draw(5)
        with torch.no_grad():
            whole = trial.run(module, inputs)
            turned = trial.run(module, {name: x.flip(0) for name, x in inputs.items()})
            alone = [trial.run(module, {name: x[i : i + 1] for name, x in inputs.items()}) for i in range(5)]
        for name, x in whole.items():
            expect(close(turned[name].flip(0), x), f"{trial.label}: {name} changes with the order of the samples")
            expect(close(torch.cat([one[name] for one in alone]), x), f"{trial.label}: {name} differs for one alone")


@check(*MODULES, since="0.1", do="use every input in forward, and detach none", needs="builds")
def every_input_matters(candidate: ModuleCandidate) -> None:
    """Every input (of a fusion, every modality) changes the output and gets a gradient."""
    for trial in candidate.trials if candidate.kind == "fusion" else candidate.plain:
        module = copy.deepcopy(candidate.module(trial))
        with seeded(2), torch.no_grad():
            for parameter in module.parameters():  # a branch may start at zero, to be learned
                parameter.add_(0.05 * torch.randn_like(parameter))
        inputs = {name: x.requires_grad_() for name, x in trial.draw().items()}
        other = trial.draw(seed=3)
        outputs = trial.run(module, inputs)
        found = gradients(outputs, inputs)
        for name in inputs if outputs else ():  # a head without classes gives nothing
            replaced = trial.run(module, {**inputs, name: other[name]})
            changed = any(not torch.equal(replaced[key], x) for key, x in outputs.items())
            expect(changed, f"{trial.label}: the output is the same whatever {name} is")
            expect(name in found and found[name].any(), f"{trial.label}: {name} gets no gradient")


@check(
    *MODULES,
    since="0.1",
    do="keep every tensor as a parameter or persistent buffer, and compute none from the first values of another",
    needs="builds",
)
def safetensors_round_trip(candidate: ModuleCandidate) -> None:
    """Its tensors, saved and loaded into another module, give the same bits."""
    for trial in candidate.plain:
        module, inputs = candidate.module(trial), trial.draw()
        with tempfile.TemporaryDirectory() as folder, torch.no_grad(), seeded(4):
            file = str(Path(folder) / "model.safetensors")
            save_model(module, file)
            with skip_init():  # as pvzoo builds what it loads
                loaded = candidate.build(trial)
            load_model(loaded, file)
            first, second = trial.run(module, inputs), trial.run(loaded, inputs)
        for name, x in first.items():
            expect(torch.equal(x, second[name]), f"{trial.label}: {name} differs after saving and loading")


@check(*MODULES, since="0.1", do="use a torch.Generator of your own where numbers must be fixed", needs="builds")
def random_state(candidate: ModuleCandidate) -> None:
    """It seeds no global random numbers, which would take the chance out of everything that follows."""
    first, second = candidate.rehearsal[1]
    for what, number in first.items():
        expect(number != second[what], f"after it was built and run, {what} draws the same from two seeds")


@check(*MODULES, since="0.1", do="check shapes in forward, and say which input is wrong", needs="builds")
def bad_shape(candidate: ModuleCandidate) -> None:
    """An input of the wrong shape is an error with a message, or at least does not come out as if it were right."""
    for trial in candidate.plain:
        module = candidate.module(trial)
        for sizes in trial.wrong:
            what = ", ".join(f"{name} {size}" for name, size in sizes.items())
            try:
                outputs = trial.call(module, draw(sizes, 2))
            except Exception as error:
                expect(str(error).strip(), f"{trial.label}: {what} is {type(error).__name__} without a message")
                continue
            right = all(outputs[name].shape == (2, *size) for name, size in trial.outputs.items())
            expect(not right, f"{trial.label}: {what} was taken, and gave the declared shape")


@check(*MODULES, since="0.1", do="correct the function that is registered as parameters=", needs="builds")
def parameters(candidate: ModuleCandidate) -> None:
    """The declared number of parameters is the real one; a backbone or fusion may declare up to a tenth less."""
    for trial in candidate.trials:
        real = sum(parameter.numel() for parameter in candidate.module(trial).parameters())
        # A fusion does not know the grid, and a backbone may look its size up.
        low = 0.9 * real if candidate.kind in ("fusion", "backbone") else real
        fits = not trial.parameters or low <= trial.parameters <= real
        expect(fits, f"{trial.label}: {trial.parameters} are declared, and there are {real}")


# --- checks of fusions ------------------------------------------------------------------------------------------------


@check(
    "fusion",
    since="0.1",
    do="return Fused(features, weights) with a softmax's shares, or no weights",
    needs="builds",
)
def weights_sum_to_one(candidate: ModuleCandidate) -> None:
    """Weights, if it gives any, are there for every modality and sum to 1 over them; pictures are made of them."""
    for trial in candidate.trials:
        fused = candidate.module(trial)(trial.draw())
        _check_weights(trial, fused.weights, list(trial.inputs))


def _check_weights(trial: Trial, weights: Mapping[str, Tensor], present: Sequence[str]) -> None:
    if not weights:
        return
    names = list(trial.inputs)
    expect(sorted(weights) == sorted(names), f"{trial.label}: there are weights of {', '.join(weights)}")
    total = torch.stack([weights[name] for name in present]).sum(0)
    expect((total - 1).abs().max() < 1e-3, f"{trial.label}: those of {' and '.join(present)} sum to {total.mean():.3f}")
    for name in names:
        absent = name not in present
        expect(not absent or not weights[name].any(), f"{trial.label}: {name} is missing, and its weight is not 0")


@check("fusion", since="0.1", do="register missing= as what forward does with None", needs="builds")
def missing_modality(candidate: ModuleCandidate) -> None:
    """Without a modality it does what missing= declares: refuses, ignores it, or gives the others its weight."""
    declared = candidate.entry.missing
    for trial in candidate.trials:
        module = candidate.module(trial)
        for present in ([name] for name in trial.inputs):
            if len(trial.inputs) > 1:
                _check_missing(trial, module, present, declared)
        if len(trial.inputs) > 2:
            _check_missing(trial, module, ["palm", "dorsal"], declared)


def _check_missing(trial: Trial, module: nn.Module, present: list[str], declared: str) -> None:
    what = f"{trial.label}, {' and '.join(present)} alone"
    inputs: Any = {name: x if name in present else None for name, x in trial.draw().items()}
    whole = trial.run(module, trial.draw())["features"].shape
    try:
        features, weights = module(inputs)
    except Exception as error:
        refused = isinstance(error, MissingModalityError)
        expect(refused and declared == "refuse", f"{what}: missing is {declared!r}, and it raised {said(error)}")
        return
    expect(declared != "refuse", f"{what}: missing is 'refuse', and it raised no pvzoo.MissingModalityError")
    expect(features.shape == whole, f"{what}: features are {tuple(features.shape)}, and {tuple(whole)} with all")
    expect(features.isfinite().all(), f"{what}: features are not finite")
    expect(weights or declared != "reweight", f"{what}: missing is 'reweight', and there are no weights")
    _check_weights(trial, weights, present)


# --- checks of heads --------------------------------------------------------------------------------------------------


@check("head", since="0.1", do="apply the margin to the true class, and only if labels are given", needs="builds")
def margin_only_with_labels(candidate: ModuleCandidate) -> None:
    """Labels are optional; a margin acts with them alone, and never raises the logit of the true class."""
    for trial in candidate.plain if candidate.entry.classes else ():
        module, x = candidate.module(trial), trial.draw(8)["embedding"]
        with torch.no_grad():
            free = module(x)
            changes = [module(x, torch.full((8,), label)) - free for label in range(CLASSES)]
        acts = any(bool(change.any()) for change in changes)
        tolerance = 1e-5 * float(free.abs().max())
        for label, change in enumerate(changes):
            own = change[:, label]
            expect(own.max() <= tolerance, f"label {label} raises its own logit by {own.max():.3g}")
            idle = acts and own.min() >= -tolerance
            expect(not idle, f"label {label} changes nothing and others do, so the margin acts without labels")


@check("head", since="0.1", do="compute in float32, inside torch.autocast(device, enabled=False)", needs="builds")
def float32_under_autocast(candidate: ModuleCandidate) -> None:
    """A head with a margin computes in float32 under autocast: a cosine of bfloat16 moves in steps of 5 degrees."""
    for trial in candidate.plain if candidate.entry.classes else ():
        module, inputs = candidate.module(trial), trial.draw(8)
        with torch.no_grad():
            exact = trial.run(module, inputs)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = trial.run(module, inputs)
        if torch.equal(exact["logits"], exact["logits with labels"]):
            continue
        for name, x in found.items():
            expect(x.dtype == torch.float32, f"{name} are {x.dtype}")
            error = float((x - exact[name]).abs().max() / exact[name].abs().max())
            expect(error < 1e-4, f"{name} are off by {error:.1g} of the largest")


def gradients(outputs: Tensors, inputs: Tensors) -> Tensors:
    """Of all outputs, with random weights, for the inputs that they depend on."""
    generator = torch.Generator().manual_seed(7)
    terms = [(x * torch.randn(x.shape, generator=generator)).sum() for x in outputs.values() if x.requires_grad]
    if not terms:
        return {}
    found = torch.autograd.grad(sum(terms, torch.zeros(())), list(inputs.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(inputs, found, strict=True) if gradient is not None}


def close(actual: Tensor, expected: Tensor) -> bool:
    """Equal but for the rounding of another order of operations."""
    return torch.allclose(actual, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()) + 1e-6)
