"""Many identities: a step of training looks at a sample of the class centres, or each process holds a part of them.

An et al., "Killing Two Birds with One Stone: Efficient and Robust Training of Face Recognition CNNs by Partial FC",
CVPR 2022, https://arxiv.org/abs/2203.15565.

The centres that a step uses are copied into one small parameter, *the rows*, and the optimiser's values of each (its
momentum) along with them; after the step both are written back. So the optimiser, gradient clipping and loss scaling
see an ordinary dense parameter, and no work or memory of a step grows with the number of identities but what must:
the centres and their momentum themselves. Rows that were not drawn do not move at all, not even by weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

ELSEWHERE = -1  # label of a sample whose class is not among the rows


class CenterHead(Protocol):
    """A head of class centres: the part of its contract that lets it be sampled and sharded.

    Attributes:
        weight: The centres, (C K, D): those of a class beside each other.
        num_classes: C.
        sample_rate: Share of the classes that a step looks at.
    """

    weight: nn.Parameter
    num_classes: int
    sample_rate: float

    def __call__(self, embedding: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        """Logits (N, n) over the n classes whose centres ``weight`` has; a label counts these, or is -1."""


def center_head(head: nn.Module) -> CenterHead | None:
    """The head, if it can be sampled and sharded."""
    return cast(CenterHead, head) if hasattr(head, "sample_rate") else None


class ClassCenters:
    """The class centres of a head while it trains.

    Deliberately no module: what wraps or saves the modules of a training must not take the rows, which are others each
    step, for a part of the model.

    Args:
        head: While sharded, its own ``weight`` is empty.
        batch: Samples of a step on all processes together.
        seed: Of the samples.
        shard: Whether each process holds a part of the classes; else all hold all, and draw the same.
        device: Where to train.

    Attributes:
        rows: What the optimiser moves in place of ``head.weight``.
        shards: Number of parts.
    """

    def __init__(self, head: CenterHead, *, batch: int, seed: int, shard: bool, device: torch.device) -> None:
        self._head = head
        self._world, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        self.shards = self._world if shard else 1
        self._shard = rank if shard else 0
        self._borders = [head.num_classes * number // self.shards for number in range(self.shards + 1)]
        first, end = self._borders[self._shard : self._shard + 2]
        self._first, self._count = first, end - first
        self._centers = len(head.weight) // head.num_classes
        self._shape = head.weight.shape
        self._seed = seed
        head.weight.requires_grad_(False)
        if self.shards == 1:
            head.weight.data = head.weight.data.to(device)
            self._own = head.weight.data
        else:
            self._own = self._part(head.weight.data).to(device, copy=True)
            head.weight.data = self._own.new_empty(0, self._shape[1])
        self._drawn = self._count
        if head.sample_rate < 1:
            # A parameter has one size: as many classes as the batch may hold are drawn if that is more.
            self._drawn = min(self._count, max(math.ceil(head.sample_rate * self._count - 1e-9), batch))
        whole = self._drawn == self._count
        self.rows = nn.Parameter(self._own if whole else self._own[: self._drawn * self._centers].clone())
        self._index: Tensor | None = None
        self._values: dict[str, Tensor] = {}

    def loss(self, embedding: Tensor, labels: Tensor, *, step: int, label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy over the classes drawn: those of the batch, and others at random.

        Args:
            embedding: (N, D), what the head takes.
            labels: (N,), places among all classes.
            step: Number of the step, from which the draw follows.
            label_smoothing: As of ``F.cross_entropy``, over the classes drawn.

        Returns:
            The mean over this process's samples; sharded, over those of all processes.
        """
        everyone = _gathered(labels) if self._world > 1 else labels
        if self.shards > 1:
            # In the head's own float32: gradients are summed over the processes in the type of what was gathered.
            embedding = embedding.to(torch.promote_types(embedding.dtype, torch.float32))
            embedding = _Gathered.apply(embedding)
            labels = everyone
        self._draw(everyone, step)
        targets = self._places(labels)
        logits = self._head(embedding, targets, self.rows)
        if self.shards == 1:
            return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
        drawn = self._drawn if self._drawn < self._count else None
        classes = self._head.num_classes if drawn is None else self._total(drawn)
        return sharded_cross_entropy(logits, targets, classes, label_smoothing)

    def _draw(self, labels: Tensor, step: int) -> None:
        """Chooses the classes of a step, in order, and copies their centres into the rows."""
        if self._drawn == self._count:
            return
        generator = torch.Generator(self._own.device)
        generator.manual_seed(((self._seed * 1_000_003 + step) * 65_537 + self._shard) % 2**63)
        chances = torch.rand(self._count, generator=generator, device=self._own.device)
        local = labels - self._first
        chances[local[(local >= 0) & (local < self._count)]] = 2.0  # those of the batch come first
        self._index = chances.topk(self._drawn, sorted=False).indices.sort().values
        self._read(self._own, self.rows.data)

    def _places(self, labels: Tensor) -> Tensor:
        """Labels as places among the rows."""
        local = labels - self._first
        here = (local >= 0) & (local < self._count)
        places = local if self._index is None else torch.searchsorted(self._index, local)
        return torch.where(here, places, ELSEWHERE)

    def average(self) -> None:
        """After backward: the mean gradient of all processes, unless each has rows of its own."""
        if self._world > 1 and self.shards == 1 and self.rows.grad is not None:
            dist.all_reduce(self.rows.grad)
            self.rows.grad /= self._world

    def clip(self, parameters: Iterable[Tensor], limit: float) -> None:
        """Clips gradients by their norm, the rows of all processes included, so that all scale by the same."""
        parameters = list(parameters)
        shared = [p.grad for p in parameters if p is not self.rows and p.grad is not None]
        own = [] if self.rows.grad is None else [self.rows.grad]
        square = nn.utils.get_total_norm(own).to(self._own.device).square()
        if self.shards > 1:
            dist.all_reduce(square)
        norm = (square + nn.utils.get_total_norm(shared).to(square.device).square()).sqrt()
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)

    def before_step(self, optimiser: torch.optim.Optimizer) -> None:
        """Gives the optimiser its values of the rows."""
        state = optimiser.state[self.rows] if self._values else {}
        for name, values in self._values.items():
            if self._index is None:
                state[name] = values
            elif state[name].shape == self.rows.shape:
                self._read(values, state[name])
            else:  # of a checkpoint that another number of processes wrote
                state[name] = self._read(values, torch.empty_like(self.rows.data))

    def after_step(self, optimiser: torch.optim.Optimizer) -> None:
        """Keeps what the step made of the rows, and of the optimiser's values of them."""
        for name, values in optimiser.state.get(self.rows, {}).items():
            if isinstance(values, Tensor) and values.shape == self.rows.shape:
                if self._index is None:
                    self._values[name] = values
                else:
                    if name not in self._values:
                        self._values[name] = torch.zeros_like(self._own)
                    self._write(values, self._values[name])
        if self._index is not None:
            self._write(self.rows.data, self._own)

    def _read(self, whole: Tensor, rows: Tensor) -> Tensor:
        assert self._index is not None
        torch.index_select(whole.view(self._count, -1), 0, self._index, out=rows.view(self._drawn, -1))
        return rows

    def _write(self, rows: Tensor, whole: Tensor) -> None:
        assert self._index is not None
        whole.view(self._count, -1).index_copy_(0, self._index, rows.view(self._drawn, -1))

    def save(self) -> tuple[Tensor, dict[str, Tensor]]:
        """All centres, and the optimiser's values of them by name; whole on the first process alone."""
        return self._whole(self._own), {name: self._whole(values) for name, values in self._values.items()}

    def load(self, weight: Tensor, values: Mapping[str, Tensor]) -> None:
        """Takes what :meth:`save` gave, on any number of processes."""
        self._own.copy_(self._part(weight))
        self._values = {name: self._part(whole).to(self._own.device, copy=True) for name, whole in values.items()}

    def release(self) -> None:
        """Gives the head a matrix of its own again, not yet filled if it was sharded."""
        if self.shards > 1:
            self._head.weight.data = torch.empty(self._shape, dtype=self._own.dtype)

    def _part(self, whole: Tensor) -> Tensor:
        return whole[self._first * self._centers : (self._first + self._count) * self._centers]

    def _whole(self, part: Tensor) -> Tensor:
        """The parts of all processes, on the CPU of the first."""
        if self.shards == 1:
            return part
        if self._shard:
            dist.send(part, 0)
            return part.new_empty(0, self._shape[1])
        parts = [part.cpu()]
        for number in range(1, self.shards):
            classes = self._borders[number + 1] - self._borders[number]
            other = part.new_empty(classes * self._centers, self._shape[1])
            dist.recv(other, number)
            parts.append(other.cpu())
        return torch.cat(parts)

    def _total(self, drawn: int) -> int:
        total = torch.tensor(drawn, device=self._own.device)
        dist.all_reduce(total)
        return int(total)


def sharded_cross_entropy(logits: Tensor, targets: Tensor, classes: int, label_smoothing: float = 0.0) -> Tensor:
    """``F.cross_entropy`` of logits whose classes are spread over the processes.

    Args:
        logits: (N, n), those of this process's classes.
        targets: (N,), places among these; -1 for a class of another process.
        classes: Number of classes of all processes together.
        label_smoothing: As of ``F.cross_entropy``.

    Returns:
        The loss, the same on every process; each gets the gradient of its own logits.
    """
    top = logits.detach().amax(1)
    dist.all_reduce(top, dist.ReduceOp.MAX)
    own = logits.gather(1, targets.clamp_min(0)[:, None])[:, 0]
    terms = [(logits - top[:, None]).exp().sum(1), torch.where(targets == ELSEWHERE, 0.0, own)]
    if label_smoothing:
        terms.append(logits.sum(1) / classes)
    summed: Tensor = _Summed.apply(torch.stack(terms))
    mass, target, *mean = summed
    wanted = target if not mean else (1 - label_smoothing) * target + label_smoothing * mean[0]
    loss: Tensor = (top + mass.log() - wanted).mean()
    return loss


def _gathered(part: Tensor) -> Tensor:
    """(N, ...) of each process to (world N, ...)."""
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, part.contiguous())
    return torch.cat(parts)


class _Gathered(torch.autograd.Function):
    """All processes' samples. What each makes of them adds to one loss, so its gradients are summed.

    The parameters before it are replicated, and their gradients will be averaged over the processes; hence the factor.
    """

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        return _gathered(part)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        world = dist.get_world_size()
        return torch.mul(gradient.chunk(world)[dist.get_rank()], world)


class _Summed(torch.autograd.Function):
    """The sum over processes. Each computes the same loss from it, and its own part has the gradient of the sum."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient
