"""The composed network: branches a modality, aligned, fused, joined to one embedding, classified."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import weights
from .errors import BuildError, EvaluationError, InputError, MissingModalityError, a, did_you_mean
from .fusion.base import Fused
from .images import Images, preprocess
from .manifest import Facts
from .specs import ModelSpec
from .specs.fields import Ref
from .threshold import DEFAULT_FMR, Decision, Threshold

if TYPE_CHECKING:
    from .hub.publish import Published

BranchFeatures = Mapping[str, Mapping[str, Tensor | None]]
PARTS = ("branches", "alignments", "fusions", "head")


class Output(NamedTuple):
    """What a model gives for a batch of N samples.

    Attributes:
        logits: (N, num_classes), with the head's margin if labels were given; ``None`` without a head.
        embedding: (N, D), of unit length unless the spec says otherwise. Palms are compared by its cosine.
        details: By branch, the fusion weights ``w_<modality>``: (N, C) for vectors, (N, 1, H, W) or (N, C, H, W)
            for maps; they sum to 1 over the modalities.
    """

    logits: Tensor | None
    embedding: Tensor
    details: dict[str, dict[str, Tensor]]


class Parts(nn.ModuleDict):
    """Modules by names that may be Python keywords, such as ``"global"``.

    torch.export writes the names of modules into Python code, so in the names of tensors such a word has an
    underscore: ``branches.palm.global_``.
    """

    def __getitem__(self, key: str) -> nn.Module:
        return super().__getitem__(weights.attribute(key))

    def __setitem__(self, key: str, module: nn.Module) -> None:
        super().__setitem__(weights.attribute(key), module)

    def __contains__(self, key: str) -> bool:
        return super().__contains__(weights.attribute(key))


class Model(nn.Module):
    """A model of the zoo, built from a checked spec.

    Tensors are named ``branches.<modality>.<branch>...``, ``alignments.<modality>.<branch>...``,
    ``fusions.<branch>...``, ``neck...`` and ``head...`` in every model, so that branches trained alone go into a
    fused model by name. Shared branches are kept under the first modality.

    Args:
        spec: What to build.
        init: The parts to initialise; the others' parameters are left as they come from memory, to be loaded.
            ``None`` initialises all.

    Attributes:
        spec: The spec that the model was built from.
        check_inputs: Whether shapes, labels and finite values of inputs are checked; on an accelerator that waits
            for the device, so a training loop that checks its data elsewhere may turn it off.
        load_report: What was loaded from where; ``None`` for a model that was not loaded.
    """

    def __init__(self, spec: ModelSpec, *, init: Collection[str] | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.check_inputs = True
        self.load_report: weights.LoadReport | None = None
        self._owner = {m: spec.modalities[0] if spec.share_branches else m for m in spec.modalities}
        guards = {part: nullcontext() if init is None or part in init else weights.skip_init() for part in PARTS}
        with guards["branches"]:
            self.branches = Parts({m: self._build_branches(m) for m in dict.fromkeys(self._owner.values())})
        with guards["alignments"]:
            self.alignments = Parts({m: self._build_alignments(m) for m in spec.modalities})
        with guards["fusions"]:
            self.fusions = Parts({branch: self._build_fusion(branch) for branch in spec.fusion})
        width = spec.geometry.embedding
        self.neck: nn.Module = nn.Identity()
        if spec.embedding.bnneck:
            # Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-identification", 2019: BatchNorm
            # between embedding and classifier, its bias held at zero.
            self.neck = nn.BatchNorm1d(width)
            self.neck.bias.requires_grad_(False)
        with guards["head"]:
            self.head = _build(spec, spec.head, dim=width, num_classes=spec.num_classes)
        self._first_values = weights.first_values(self) if init is None else None
        self._thresholds: tuple[tuple[Threshold, ...], list[Tensor]] = ((), [])

    def _build_branches(self, modality: str) -> Parts:
        image = self.spec.preprocessing
        return Parts(
            {
                name: _build(self.spec, branch.backbone[modality], in_chans=image.channels, image_size=image.size)
                for name, branch in self.spec.branches.items()
            }
        )

    def _build_alignments(self, modality: str) -> Parts:
        built = {}
        for name, branch in self.spec.branches.items():
            shape = self.spec.geometry.backbones[name][modality].features(branch.features)
            built[name] = _build(self.spec, branch.alignment[modality], shape=shape)
        return Parts(built)

    def _build_fusion(self, name: str) -> nn.Module:
        shape = next(iter(self.spec.geometry.aligned[name].values()))
        return _build(self.spec, self.spec.fusion[name], modalities=self.spec.modalities, shape=shape)

    @property
    def device(self) -> torch.device:
        return self._example().device

    @property
    def dtype(self) -> torch.dtype:
        return self._example().dtype

    def _example(self) -> Tensor:
        """A tensor of the model's type and on its device, even if it has no parameters."""
        tensors = chain(self.parameters(), self.buffers())
        return next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))

    @property
    def untrained(self) -> bool:
        """Whether the parameters are still those of a random initialisation."""
        return self._first_values is not None and weights.unchanged(self, self._first_values)

    def set_load_report(self, report: weights.LoadReport) -> None:
        """Notes what was loaded, and whether it counts as trained."""
        self.load_report = report
        self._first_values = weights.first_values(self) if report.untrained else None
        self.set_thresholds(report.thresholds)

    @property
    def thresholds(self) -> tuple[Threshold, ...]:
        """Those that were measured with this model's scores: none once the weights have changed, or if it was created
        with another size of images, fusion or the like than it was saved with. Saved with the model."""
        thresholds, values = self._thresholds
        return thresholds if thresholds and weights.unchanged(self, values) else ()

    def set_thresholds(self, thresholds: Sequence[Threshold]) -> None:
        """Gives the model thresholds of its scores; see :func:`pvzoo.evaluation.results.choose_thresholds`."""
        self._thresholds = (tuple(thresholds), weights.first_values(self) if thresholds else [])

    def verify(self, a: Any, b: Any, *, fmr: float = DEFAULT_FMR) -> Decision:
        """Says whether two palms are of one identity: whether the cosine of their embeddings reaches a threshold.

        Args:
            a: The images of one palm, one a modality in the order of ``spec.modalities``, ``None`` for a missing one;
                a model of one modality takes the image itself. Anything that :meth:`preprocess` takes.
            b: Those of the other.
            fmr: The target of the threshold, one of :attr:`thresholds` that were measured with these modalities.

        Returns:
            The answer, with the score, the threshold, and which FMR was measured on what.

        Raises:
            EvaluationError: If the model has no threshold for this FMR and these modalities.
            InputError: If images are too many or too few.
        """
        threshold = self.threshold_for(a, b, fmr=fmr)  # before anything is computed
        score = self.score(a, b)
        return Decision(score >= threshold.value, score, threshold)

    def score(self, a: Any, b: Any) -> float:
        """How alike two palms are: the cosine of their embeddings. Arguments as of :meth:`verify`.

        Warns if the weights are random still.

        Raises:
            InputError: If images are too many or too few.
        """
        if self.untrained:
            hint = "pvzoo.create(..., pretrained=True) loads weights where there are any"
            warnings.warn(f"the model is untrained, and its scores say nothing; {hint}", stacklevel=2)
        with torch.inference_mode():
            first, second = (
                self.embed(*(None if image is None else self.preprocess(image) for image in self._images(palm))).float()
                for palm in (a, b)
            )
        return float(F.cosine_similarity(first, second))

    def decide(self, score: float, *, fmr: float = DEFAULT_FMR, modalities: Sequence[str] = ()) -> Decision:
        """The answer that a score means; see :meth:`verify`.

        Args:
            score: Of two palms.
            fmr: The target of the threshold.
            modalities: Those that both palms had; all that the model takes if left out.

        Raises:
            EvaluationError: As :meth:`threshold`.
        """
        threshold = self.threshold(fmr, modalities)
        return Decision(score >= threshold.value, score, threshold)

    def threshold_for(self, a: Any, b: Any, *, fmr: float = DEFAULT_FMR) -> Threshold:
        """The threshold that decides about two palms; arguments and errors as of :meth:`verify`."""
        first, second = (
            tuple(m for m, image in zip(self.spec.modalities, self._images(palm), strict=True) if image is not None)
            for palm in (a, b)
        )
        if first != second:
            has = f"one palm has {' and '.join(first) or 'no image'}, the other {' and '.join(second) or 'none'}"
            raise EvaluationError(f"{has}; thresholds are measured with the same modalities on both sides")
        return self.threshold(fmr, first)

    def threshold(self, fmr: float, modalities: Sequence[str] = ()) -> Threshold:
        """That of :attr:`thresholds` whose target is an FMR.

        Args:
            fmr: The target.
            modalities: Those that both palms have; all that the model takes if left out.

        Raises:
            EvaluationError: If there is none; says which there are.
        """
        used = () if set(modalities) == set(self.spec.modalities) else tuple(modalities)
        cuts = [cut for cut in self.thresholds if set(cut.modalities) == set(used)]
        has = {cut.target: cut for cut in cuts if cut.target is not None}
        for target, cut in has.items():
            if math.isclose(target, fmr):
                return cut
        known = f"it has {', '.join(f'{target:g}' for target in has)}" if has else "it has none"
        alone = f" with {' and '.join(used)} alone" if used else ""
        message = f"the model has no threshold for an FMR of {fmr:g}{alone}; {known}"
        if self._thresholds[0] and not self.thresholds:
            message += ", since its weights have changed since they were chosen"
        which = f" --modalities {','.join(used)}" if used else ""
        raise EvaluationError(f"{message}; 'pvzoo eval FOLDER --data ...{which} --export-thresholds' measures them")

    def _images(self, palm: Any) -> list[Any]:
        given = list(palm) if isinstance(palm, (list, tuple)) else [palm]
        if len(given) != len(self.spec.modalities):
            each = " and ".join(self.spec.modalities)
            raise InputError(f"a palm is {len(self.spec.modalities)} images ({each}), and {len(given)} were given")
        return given

    def forward(self, *images: Tensor | None, labels: Tensor | None = None, **by_name: Tensor | None) -> Output:
        """Runs the whole model: ``model(palm, vein)``, ``model(palm, vein, labels)``, ``model(palm=..., vein=...)``.

        Args:
            *images: One batch (N, C, H, W) a modality, in the order of ``spec.modalities``; ``None`` for a missing
                one. Labels may follow.
            labels: (N,) integers in [0, num_classes), which turn the head's margin on.
            **by_name: Images by modality.

        Raises:
            InputError: If an image or label does not fit.
            MissingModalityError: If a modality is missing that the fusion cannot do without.
        """
        if len(images) == len(self.spec.modalities) + 1 and labels is None:
            *images, labels = images  # type: ignore[assignment]
        inputs = self._inputs(images, by_name)
        if labels is not None and self._checking():
            # Before anything runs: a training step that fails should not have moved BatchNorm's statistics.
            self._check_labels(labels, next(len(image) for image in inputs.values() if image is not None))
        return self._classify(self._run_branches(inputs), labels)

    def embed(self, *images: Tensor | None, **by_name: Tensor | None) -> Tensor:
        """Images to the embedding (N, D), of unit length unless the spec says otherwise; no head is run."""
        return self.embedding(self.join(self.features(*images, **by_name)))

    def features(self, *images: Tensor | None, **by_name: Tensor | None) -> dict[str, dict[str, Tensor | None]]:
        """Runs the backbones alone: by branch and modality, vectors (N, D) or maps (N, D, h, w), before alignment.

        Frozen branches give the same features every time, so these may be kept and given to :meth:`fuse` again.
        """
        return self._run_branches(self._inputs(images, by_name))

    def branch(self, name: str, modality: str) -> nn.Module:
        """The backbone of a branch; modalities that share their branches have the same."""
        found: nn.Module = self.branches[self._owner[modality]][name]  # type: ignore[index]
        return found

    def run_branch(self, name: str, modality: str, image: Tensor) -> Tensor:
        """One backbone alone: (N, C, H, W) to its vector (N, D) or map (N, D, h, w), as the spec says."""
        features: Tensor = self.branch(name, modality)(image, pool=self.spec.branches[name].features == "vector")
        return features

    def _run_branches(self, inputs: Mapping[str, Tensor | None]) -> dict[str, dict[str, Tensor | None]]:
        return {
            name: {m: None if image is None else self.run_branch(name, m, image) for m, image in inputs.items()}
            for name in self.spec.branches
        }

    def fuse(self, features: BranchFeatures, labels: Tensor | None = None) -> Output:
        """Runs everything behind the backbones on what :meth:`features` gave.

        Raises:
            InputError: If a branch is missing, or features or a label do not fit.
            MissingModalityError: If a modality is missing that the fusion cannot do without.
        """
        if self._checking():
            batch = self._check_features(features)
            if labels is not None:
                self._check_labels(labels, batch)
        return self._classify(features, labels)

    def join(self, features: BranchFeatures) -> Tensor:
        """Runs what stands between backbones and head on what :meth:`features` gave: (N, D), as the head takes it."""
        vectors: Tensor = self.neck(self.concatenate(features))
        return vectors

    def concatenate(self, features: BranchFeatures) -> Tensor:
        """As :meth:`join`, but before the neck, whose BatchNorm is for all samples of a training step together."""
        return self._concatenate(features)[0]

    def _classify(self, features: BranchFeatures, labels: Tensor | None) -> Output:
        vectors, details = self._concatenate(features)
        joined = self.neck(vectors)
        return Output(self.head(joined, labels), self.embedding(joined), details)

    def _concatenate(self, features: BranchFeatures) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
        """Aligns and fuses each branch, pools maps, and puts the branches side by side: (N, D)."""
        vectors: list[Tensor] = []
        details: dict[str, dict[str, Tensor]] = {}
        for name in self.spec.branches:
            aligned = {
                modality: None if x is None else self.alignments[modality][name](x)  # type: ignore[index]
                for modality, x in features[name].items()
            }
            fused = self._fuse_branch(name, aligned)
            vectors.append(fused.features.mean((2, 3)) if fused.features.ndim == 4 else fused.features)
            details[name] = {f"w_{modality}": weight for modality, weight in fused.weights.items()}
        return torch.cat(vectors, dim=1), details

    def _fuse_branch(self, name: str, aligned: Mapping[str, Tensor | None]) -> Fused:
        if all(x is None for x in aligned.values()):
            raise self._nothing()
        if name in self.fusions:
            fused: Fused = self.fusions[name](aligned)
            return fused
        (only,) = (x for x in aligned.values() if x is not None)
        return Fused(only)

    def embedding(self, joined: Tensor) -> Tensor:
        """From what :meth:`join` gave to the embedding (N, D), of unit length unless the spec says otherwise."""
        if not self.spec.embedding.normalize:
            return joined
        # In float16 the small number that guards normalize against a division by zero is itself zero.
        return F.normalize(joined.to(torch.promote_types(joined.dtype, torch.float32))).to(joined.dtype)

    def preprocess(self, images: Images) -> Tensor:
        """Images to the tensor (N, C, H, W) that the model takes, on its device.

        Args:
            images: One image or a list: paths, PIL images, arrays (H, W) or (H, W, C), tensors (C, H, W); integers
                of 8 or 16 bits, or floats in [0, 1]. :func:`pvzoo.images.preprocess` says what becomes of alpha,
                EXIF orientation and 16-bit colours.

        Raises:
            ImageError: Naming the image that cannot be used, and why.
        """
        return preprocess(images, self.spec.preprocessing).to(self.device, self.dtype)

    def save(self, directory: str | PathLike[str], *, dtype: torch.dtype | None = None) -> Path:
        """Writes ``config.json``, ``model.safetensors`` and ``README.md``; see :func:`pvzoo.weights.save`."""
        return weights.save(self, Path(directory).expanduser(), dtype=dtype)

    def push_to_hub(
        self,
        repo: str,
        *,
        facts: Facts | Mapping[str, Any],
        private: bool = False,
        tag: str | None = None,
        token: str | bool | None = None,
    ) -> Published:
        """Publishes the model: one commit of config, weights and card, then the tag.

        Args:
            repo: ``"namespace/name"``; made if it does not exist.
            facts: What the card says and no file shows: licence, data, intended use, figures with their protocol.
            private: Make the repository private, if it is made.
            tag: For the commit; never moved.
            token: With the right to write; the one that you logged in with by default.

        Raises:
            WeightsError: Values are not finite, or the facts lack something; nothing was sent.
            HubError: The Hub refuses, cannot be reached, or somebody else changed the repository meanwhile.
        """
        from .hub import cards, publish

        checked = facts if isinstance(facts, Facts) else cards.check_facts(facts, "facts")
        with TemporaryDirectory() as folder:
            saved = self.save(folder)
            return publish.push(saved, repo, facts=checked, private=private, tag=tag, token=token)

    def load_weights(self, path: str | PathLike[str]) -> weights.LoadReport:
        """Loads a weights file or saved folder into this model; strict, and all or nothing."""
        report = weights.load_into(self, Path(path).expanduser())
        self.set_load_report(report)
        return report

    def load_branches(self, *sources: str | PathLike[str]) -> weights.LoadReport:
        """Starts a fused model from branches that were trained alone; see :func:`pvzoo.weights.load_branches`."""
        found = [(str(path), weights.header_at(path)) for path in (Path(source).expanduser() for source in sources)]
        report = weights.load_branches(self, found)
        self.set_load_report(report)
        return report

    def extra_repr(self) -> str:
        geometry = self.spec.geometry
        return f"{self.spec.name or 'unnamed'}: {' + '.join(self.spec.modalities)} -> embedding of {geometry.embedding}"

    def _inputs(
        self, images: tuple[Tensor | None, ...], by_name: Mapping[str, Tensor | None]
    ) -> dict[str, Tensor | None]:
        """Images by modality, checked."""
        modalities = self.spec.modalities
        if len(images) > len(modalities):
            takes = ", ".join(modalities)
            raise InputError(f"{len(images)} images given; the model takes {len(modalities)} ({takes}), and labels")
        inputs = dict.fromkeys(modalities) | dict(zip(modalities, images, strict=False))
        for name, image in by_name.items():
            if name not in inputs:
                raise InputError(f"the model has no modality {name!r}{did_you_mean(name, modalities)}")
            if modalities.index(name) < len(images):
                raise InputError(f"{name} is given twice, by position and by name")
            inputs[name] = image
        if all(image is None for image in inputs.values()):
            raise self._nothing()
        if self._checking():
            self._check_images(inputs)
        return inputs

    def _nothing(self) -> MissingModalityError:
        names = ", ".join(self.spec.modalities)
        return MissingModalityError(f"every modality is missing; give at least one of {names}")

    def _checking(self) -> bool:
        return self.check_inputs and not torch.compiler.is_compiling() and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]

    def _check_images(self, inputs: Mapping[str, Tensor | None]) -> None:
        wanted = (self.spec.preprocessing.channels, *self.spec.preprocessing.size)
        batch: int | None = None
        for name, image in inputs.items():
            if image is None:
                continue
            if not isinstance(image, Tensor):
                raise InputError(f"{name} is of type {type(image).__name__}; model.preprocess makes tensors of images")
            if image.ndim != 4:
                raise InputError(f"{name} has shape {tuple(image.shape)}; a batch (N, C, H, W) is needed")
            if tuple(image.shape[1:]) != wanted:
                message = f"{name} has images of {'x'.join(map(str, image.shape[1:]))}, and the model takes "
                message += "x".join(map(str, wanted))
                raise InputError(f"{message}; use model.preprocess, or create the model with in_chans or image_size")
            if not image.is_floating_point():
                raise InputError(f"{name} is of {image.dtype}; model.preprocess makes float tensors of images")
            if image.dtype != self.dtype and not _autocast(image.device.type):
                message = f"{name} is of {image.dtype}, and the model of {self.dtype}"
                raise InputError(f"{message}; use model.preprocess, or convert one of them")
            if not len(image):
                raise InputError(f"{name} has no samples")
            if batch is not None and len(image) != batch:
                raise InputError(f"{name} has {len(image)} samples, and the modality before it {batch}")
            batch = len(image)
            if image.device.type != "meta" and not bool(torch.isfinite(image).all()):
                raise InputError(f"{name} holds NaN or infinite values")

    def _check_features(self, features: BranchFeatures) -> int:
        """Features are those that the backbones of this model give; returns the number of samples."""
        batch = 0
        for name, branch in self.spec.branches.items():
            if name not in features:
                raise InputError(f"the features lack branch {name!r}; give all that model.features gave")
            for modality, x in features[name].items():
                if modality not in self.spec.modalities:
                    hint = did_you_mean(modality, self.spec.modalities)
                    raise InputError(f"features of branch {name!r}: the model has no modality {modality!r}{hint}")
                if x is None:
                    continue
                what = f"the features of {modality} in branch {name!r}"
                if not isinstance(x, Tensor):
                    raise InputError(f"{what} are of type {type(x).__name__}; a tensor is needed")
                shape = self.spec.geometry.backbones[name][modality].features(branch.features)
                assert shape is not None
                batch = batch or len(x)
                wanted = (batch, shape.dim, *(shape.grid or ()))
                if tuple(x.shape) != wanted:
                    raise InputError(f"{what} have shape {tuple(x.shape)}; {wanted} is needed")
                if x.device.type != "meta" and not bool(torch.isfinite(x).all()):
                    raise InputError(f"{what} hold NaN or infinite values")
        return batch

    def _check_labels(self, labels: Tensor, batch: int) -> None:
        if not isinstance(labels, Tensor):
            raise InputError(f"labels are of type {type(labels).__name__}; a tensor of integers ({batch},) is needed")
        if labels.ndim != 1 or len(labels) != batch:
            raise InputError(f"labels have shape {tuple(labels.shape)}; ({batch},) is needed")
        if labels.is_floating_point() or labels.is_complex() or labels.dtype is torch.bool:
            raise InputError(f"labels are of {labels.dtype}; integers are needed")
        classes = self.spec.num_classes
        if classes is None or labels.is_meta or not batch:
            return
        low, high = (int(bound) for bound in labels.long().aminmax())
        if not 0 <= low <= high < classes:
            message = f"labels run from {low} to {high}; the head has {classes} classes, 0 to {classes - 1}"
            raise InputError(message)


def _autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _build(spec: ModelSpec, ref: Ref, **context: Any) -> nn.Module:
    """Builds one component of a spec that was checked."""
    entry = spec.entry(ref)
    module = entry.create(ref.params, **context)
    if not isinstance(module, nn.Module):
        raise BuildError(f"{entry.label} was built as {a(type(module).__name__)}; a torch.nn.Module is needed")
    return module
