"""Which samples make a batch, and in what order: the same for a seed and an epoch, on one rank or several.

A sampler goes to a ``DataLoader`` together with its ``batch_size``. Each pass over it is the next epoch, and
``set_epoch`` goes to any. All are ``DistributedSampler``, so Lightning leaves them as they are; but none repeats or
drops samples in silence to make the ranks even.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from random import Random
from typing import NamedTuple

from torch.utils.data import DistributedSampler

from ..errors import DataError


class Draw(NamedTuple):
    """One use of a sample, on which its augmentation depends.

    Attributes:
        position: Place of the sample in its dataset.
        epoch: From 0.
        turn: How often the epoch used the sample before.
    """

    position: int
    epoch: int = 0
    turn: int = 0


class Sampler(DistributedSampler[Draw], ABC):
    """What the samplers have in common.

    Attributes:
        batch_size: Samples a batch, on each rank.
    """

    def __init__(self, count: int, batch_size: int, seed: int, rank: int, world_size: int) -> None:
        if batch_size < 1:
            raise DataError(f"a batch of {batch_size} samples is none; it has at least 1")
        if not 0 <= rank < world_size:
            raise DataError(f"rank {rank} of {world_size} does not exist; they are counted from 0")
        super().__init__(range(count), num_replicas=world_size, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.count = count
        self.batch_size = batch_size

    @abstractmethod
    def draws(self, epoch: int) -> Iterable[Draw]:
        """An epoch, all ranks together."""

    @abstractmethod
    def __len__(self) -> int:
        """Draws of an epoch on this rank."""

    def __iter__(self) -> Iterator[Draw]:
        epoch = self.epoch
        self.set_epoch(epoch + 1)
        yield from self.share(self.draws(epoch))

    def share(self, draws: Iterable[Draw]) -> Iterable[Draw]:
        """The part of this rank: every n-th draw."""
        return islice(draws, self.rank, None, self.num_replicas)

    def random(self, epoch: int) -> Random:
        return Random(f"{self.seed}/{epoch}")


class InOrder(Sampler):
    """Every sample once, in order; a rank may have one more than another.

    But all have equally many batches, as ranks need that wait for each other in each (unless there are fewer samples
    than ranks): where the one sample more would be a batch of its own, batches are larger by a sample or two.
    """

    def __init__(self, count: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(count, batch_size, 0, rank, world_size)
        if count % world_size and count > world_size:
            while count // world_size % self.batch_size == 0:
                self.batch_size += 1

    def __len__(self) -> int:
        return len(range(self.rank, self.count, self.num_replicas))

    def draws(self, epoch: int) -> Iterable[Draw]:
        return map(Draw, range(self.count))


class Shuffled(Sampler):
    """Every sample once, in random order, in whole batches, of which all ranks have equally many.

    What makes no whole batch is left out of an epoch: :attr:`left_out` samples, others each time. BatchNorm cannot
    train on a batch of one, and ranks with fewer batches would wait for ever.
    """

    def __init__(self, count: int, batch_size: int, *, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(count, batch_size, seed, rank, world_size)
        self.left_out = count % (batch_size * world_size)
        if not len(self):
            each = f" on each of {world_size} ranks" if world_size > 1 else ""
            raise DataError(f"{count} samples are too few for a batch of {batch_size}{each}")

    def __len__(self) -> int:
        return (self.count - self.left_out) // self.num_replicas

    def draws(self, epoch: int) -> Iterable[Draw]:
        order = list(range(self.count))
        self.random(epoch).shuffle(order)
        return (Draw(position, epoch) for position in order[: self.count - self.left_out])


class Balanced(Sampler):
    """Batches of P identities with K samples each.

    In an epoch, no identity comes a second time before all others have come, nor does a sample before all others of its
    identity. A batch repeats samples only of an identity that has fewer than K: each of them equally often, or once
    more. An epoch has as many draws as there are samples, and what fills the last batch on each rank.

    Args:
        labels: That of each sample.
        identities: P.
        samples: K.
        seed: Of the order.
        rank: That of this process.
        world_size: How many there are.
    """

    def __init__(
        self,
        labels: Sequence[int],
        identities: int,
        samples: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if min(identities, samples) < 1:
            raise DataError(f"a batch of {identities} identities with {samples} samples each is none")
        super().__init__(len(labels), identities * samples, seed, rank, world_size)
        self.identities = identities
        self.samples = samples
        self.members: dict[int, list[int]] = {}
        for position, label in enumerate(labels):
            self.members.setdefault(label, []).append(position)
        if identities > len(self.members):
            raise DataError(f"a batch of {identities} identities cannot be made of {len(self.members)}")

    def __len__(self) -> int:
        return math.ceil(self.count / (self.batch_size * self.num_replicas)) * self.batch_size

    def draws(self, epoch: int) -> Iterable[Draw]:
        random = self.random(epoch)
        identities = _Deck(self.members, random)
        decks = {label: _Deck(members, random) for label, members in self.members.items()}
        turns: Counter[int] = Counter()
        for _ in range(len(self) * self.num_replicas // self.batch_size):
            for label in identities.deal(self.identities):
                for position in decks[label].deal(self.samples):
                    yield Draw(position, epoch, turns[position])
                    turns[position] += 1

    def share(self, draws: Iterable[Draw]) -> Iterable[Draw]:
        """Every n-th batch."""
        for number, draw in enumerate(draws):
            if number // self.batch_size % self.num_replicas == self.rank:
                yield draw


class _Deck:
    """Cards in random order, each dealt once before any is dealt again."""

    def __init__(self, cards: Iterable[int], random: Random) -> None:
        self._cards = list(cards)
        self._left: list[int] = []
        self._random = random

    def deal(self, count: int) -> list[int]:
        """Deals a hand, without a card twice unless there are fewer cards than ``count``."""
        hand: list[int] = []
        while len(hand) < count:
            if not self._left:
                self._random.shuffle(self._cards)
                # Dealt from the end: what the hand has most of comes last.
                self._left = sorted(self._cards, key=hand.count, reverse=True)
            hand.append(self._left.pop())
        return hand


__all__ = ["Balanced", "Draw", "InOrder", "Sampler", "Shuffled"]
