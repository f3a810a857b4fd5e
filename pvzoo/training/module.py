"""One training as a LightningModule: losses, parameter groups, and verification of the dev identities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from math import cos, pi
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.loading import Batch
from ..data.split import Comparisons
from ..errors import PvzooError
from ..evaluation import metrics
from ..evaluation.protocols import compared
from ..evaluation.scores import count_scores
from ..model import Model
from .centers import ClassCenters, center_head
from .features import FeatureBatch
from .lightning import LightningModule
from .losses import auxiliary
from .plan import Plan, make_plan
from .recipe import Recipe

TARGET_FMR = 1e-3
HEAD_WEIGHT, CENTERS = "head.weight", "class_centers"


class TrainingError(PvzooError, RuntimeError):
    """A training cannot go on, such as one whose loss is not a number."""


class TrainingModule(LightningModule):
    """Trains a model as a recipe says, and chooses by verification of the dev identities.

    Args:
        model: What is trained, in place.
        recipe: How.
        dev: What is compared to validate; its samples come from the validation loader in this order.

    Attributes:
        plan: What is trained.
        centers: Of a head that is sampled or sharded, from the beginning of ``fit`` on.
    """

    def __init__(self, model: Model, recipe: Recipe, dev: Comparisons) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.plan: Plan = make_plan(model, recipe.plan)
        self.centers: ClassCenters | None = None
        self._dev = dev
        self._steps = 1
        self._found: dict[int, Tensor] = {}

    def setup(self, stage: str) -> None:
        # Before processes agree on what they exchange: all that is trained at some time, and nothing else.
        self.plan.apply(self.model, self.recipe.epochs)
        device, world = self.trainer.strategy.root_device, self.trainer.world_size
        shard, rate = self.recipe.shard_head, getattr(self.model.head, "sample_rate", 1.0)
        if self.recipe.sync_batchnorm and world > 1 and device.type == "cpu":
            raise TrainingError("sync_batchnorm: torch has none on the CPU; leave it out")
        if len(self._dev.samples) < world:
            raise TrainingError(f"{len(self._dev.samples)} dev samples are too few for {world} processes")
        if rate == 1 and not shard:
            return
        head = center_head(self.model.head)
        if head is None:
            name = self.model.spec.head.name
            raise TrainingError(f"shard_head: head {name!r} has no class centres that can be sharded; leave it out")
        if shard and head.num_classes < world:
            raise TrainingError(f"shard_head: {head.num_classes} classes cannot be sharded over {world} processes")
        if shard and self.trainer.precision == "16-mixed":
            raise TrainingError("shard_head: does not work with precision fp16, which was chosen; set bf16 or fp32")
        if rate < 1 and self.recipe.batch.accumulate > 1:
            message = f"head.params.sample_rate is {rate:g}: each step looks at other classes, so gradients of several"
            raise TrainingError(f"{message} steps cannot be summed; set batch.accumulate to 1, or sample_rate to 1")
        batch = self.recipe.batch.size * world
        self.centers = ClassCenters(head, batch=batch, seed=self.recipe.seed, shard=shard, device=device)
        self.plan.replace(HEAD_WEIGHT, self.centers.rows)

    def teardown(self, stage: str) -> None:
        if self.centers is not None:
            self.centers.release()

    def on_train_epoch_start(self) -> None:
        # All that is random in an epoch follows from the seed and its number, so a resumed run repeats it bit by bit.
        torch.manual_seed((self.recipe.seed * 1_000_003 + self.current_epoch) % 2**63)
        self.plan.apply(self.model, self.current_epoch)
        grow = getattr(self.model.head, "set_margin_factor", None)
        if grow is not None:
            grow(self.recipe.schedule.margin.at(self.current_epoch, self.recipe.epochs))

    def training_step(self, batch: Batch | FeatureBatch, index: int) -> Tensor:
        joined = self._run(batch, self._present(batch))
        weights = self.recipe.losses
        losses = {"classification": self._classification(joined, batch.labels)}
        losses |= auxiliary(weights, self.model.embedding(joined), batch.labels, lambda: self._alone(batch))
        loss = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(loss):
            parts = ", ".join(f"{name} {float(value.detach()):g}" for name, value in losses.items())
            message = f"epoch {self.current_epoch + 1}, step {self.global_step + 1}: the loss is not finite ({parts})"
            raise TrainingError(
                f"{message}; lower optimiser.lr or set precision=fp32. The last checkpoint is untouched"
            )
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.labels), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch | FeatureBatch, index: int) -> None:
        present = torch.stack([batch.present[m] for m in self.model.spec.modalities], 1)
        embedding = self.model.embedding(self._run(batch, present))
        self._found.update(zip(batch.positions.tolist(), embedding.float().cpu(), strict=True))

    def on_validation_epoch_end(self) -> None:
        found, self._found = self._of_all_ranks(self._found), {}
        if self.trainer.sanity_checking:
            return
        embeddings = torch.stack([found[position] for position in range(len(self._dev.samples))])
        tally = count_scores(compared(embeddings, self._dev), targets=(TARGET_FMR,)).tally
        self.log("dev_eer", metrics.eer(tally).value)
        self.log("dev_tar", metrics.tar_at_fmr(tally, TARGET_FMR))

    def configure_optimizers(self) -> Any:
        self._steps = int(self.trainer.estimated_stepping_batches)
        how = self.recipe.optimiser
        groups = []
        for group, members in zip(self.plan.groups, self.plan.members, strict=True):
            for decayed in (True, False):
                # A decay of biases, norms and scales would only make them small.
                chosen = [p for p in members.values() if (p.ndim > 1) == decayed]
                if chosen:
                    decay = how.weight_decay if decayed else 0.0
                    groups.append({"params": chosen, "lr": group.lr or how.lr, "weight_decay": decay})
        # A fused optimiser unscales float16 gradients itself, so they could not be clipped before.
        fused = self.trainer.precision != "16-mixed"
        optimiser: torch.optim.Optimizer
        if how.name == "sgd":
            optimiser = torch.optim.SGD(groups, momentum=how.momentum, nesterov=how.momentum > 0, fused=fused)
        else:
            kind = torch.optim.AdamW if how.name == "adamw" else torch.optim.Adam
            optimiser = kind(groups, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_after_backward(self) -> None:
        if self.centers is not None:
            self.centers.average()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.centers is not None:
            self.centers.before_step(optimizer)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Lightning refuses to clip for fused optimisers in mixed precision, for the sake of loss scaling alone.
        if gradient_clip_val is not None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            clip = torch.nn.utils.clip_grad_norm_ if self.centers is None else self.centers.clip
            clip(parameters, gradient_clip_val)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        if self.centers is not None:
            self.centers.after_step(optimizer.optimizer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.centers is not None:
            whole, checkpoint[CENTERS] = self.centers.save()
            if self.centers.shards > 1:
                checkpoint["state_dict"][f"model.{HEAD_WEIGHT}"] = whole

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.centers is not None:
            state, name = checkpoint["state_dict"], f"model.{HEAD_WEIGHT}"
            self.centers.load(state[name], checkpoint[CENTERS])
            if self.centers.shards > 1:
                state[name] = self.model.get_parameter(HEAD_WEIGHT).detach()  # empty

    def _rate(self, step: int) -> float:
        """Learning rate as a share of its peak: linear warm-up, then half a cosine."""
        how = self.recipe.schedule
        warmup = how.warmup * self._steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = min(1.0, (step - warmup) / max(1.0, self._steps - warmup))
        return how.final + (1 - how.final) * (1 + cos(pi * done)) / 2

    def _present(self, batch: Batch | FeatureBatch) -> Tensor:
        """Which modalities each sample has, (N, M), after modality dropout."""
        present = torch.stack([batch.present[m] for m in self.model.spec.modalities], 1)
        if self.recipe.modality_dropout:
            count = len(self.model.spec.modalities)
            whole = present.cpu().all(1)
            loses = (torch.rand(len(present)) < self.recipe.modality_dropout) & whole
            lost = F.one_hot(torch.randint(count, (len(present),)), count).bool() & loses[:, None]
            present = present & ~lost.to(present.device)
        return present

    def _run(self, batch: Batch | FeatureBatch, present: Tensor) -> Tensor:
        """What the head takes; samples that have the same modalities go through the model together, up to the neck."""
        patterns, which = torch.unique(present.cpu(), dim=0, return_inverse=True)
        if len(patterns) == 1:
            whole: Tensor = self.model.neck(self._forward(batch, slice(None), patterns[0]))
            return whole
        rows = [torch.nonzero(which == number)[:, 0].to(present.device) for number in range(len(patterns))]
        parts = [self._forward(batch, chosen, pattern) for chosen, pattern in zip(rows, patterns, strict=True)]
        joined: Tensor = self.model.neck(torch.cat(parts)[torch.cat(rows).argsort()])
        return joined

    def _forward(self, batch: Batch | FeatureBatch, rows: Any, pattern: Tensor) -> Tensor:
        """Samples with the modalities of a pattern, as they come to the neck."""
        has = dict(zip(self.model.spec.modalities, pattern.tolist(), strict=True))

        def part(values: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
            return {m: values[m][rows] if there else None for m, there in has.items()}  # type: ignore[index]

        # Modality dropout, or data that lack some modality, may leave a sample to go alone.
        single = isinstance(rows, Tensor) and len(rows) == 1
        with _running_statistics(self.model) if single else nullcontext():
            if isinstance(batch, FeatureBatch):
                return self.model.concatenate({branch: part(values) for branch, values in batch.features.items()})
            return self.model.concatenate(self.model.features(**part(batch.images)))

    def _classification(self, joined: Tensor, labels: Tensor) -> Tensor:
        smoothing = self.recipe.losses.label_smoothing
        if self.centers is not None:
            return self.centers.loss(joined, labels, step=self.global_step, label_smoothing=smoothing)
        logits: Tensor = self.model.head(joined, labels)
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)

    def _alone(self, batch: Batch | FeatureBatch) -> tuple[Tensor, Tensor] | None:
        """The embeddings of each of the first two modalities alone, of the samples that have both."""
        present = torch.stack([batch.present[m] for m in self.model.spec.modalities], 1)
        rows = torch.nonzero(present[:, :2].all(1))[:, 0]
        if not len(rows):
            return None
        first, second = torch.eye(present.shape[1], dtype=torch.bool)[:2]
        parts = [self._forward(batch, rows, pattern) for pattern in (first, second)]
        one, other = self.model.embedding(self.model.neck(torch.cat(parts))).chunk(2)
        return one, other

    def _of_all_ranks(self, found: dict[int, Tensor]) -> dict[int, Tensor]:
        if self.trainer.world_size == 1:
            return found
        parts: list[dict[int, Tensor]] = [{} for _ in range(self.trainer.world_size)]
        torch.distributed.all_gather_object(parts, found)
        return {position: embedding for part in parts for position, embedding in part.items()}


@contextmanager
def _running_statistics(model: Model) -> Iterator[None]:
    """BatchNorm as it is in use: a sample alone has no variance to train with."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.training]
    try:
        for norm in norms:
            norm.training = False
        yield
    finally:
        for norm in norms:
            norm.training = True
