"""Order and batches: nothing lost or doubled in silence, equal for a seed and an epoch, on any number of ranks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvzoo import DataError
from pvzoo.data.sampling import Balanced, Draw, InOrder, Sampler, Shuffled


def epoch(make: Callable[..., Sampler], world_size: int, number: int = 0) -> list[list[Draw]]:
    """One epoch of every rank."""
    found = []
    for rank in range(world_size):
        sampler = make(rank=rank, world_size=world_size)
        sampler.set_epoch(number)
        found.append(list(sampler))
        assert len(found[-1]) == len(sampler)
    return found


@given(count=st.integers(1, 60), world_size=st.integers(1, 4))
def test_in_order_has_every_sample_once(count: int, world_size: int) -> None:
    ranks = epoch(lambda **rank: InOrder(count, 8, **rank), world_size)
    assert sorted(draw.position for rank in ranks for draw in rank) == list(range(count))
    assert max(map(len, ranks)) - min(map(len, ranks)) <= 1
    assert all(rank == sorted(rank) for rank in ranks)


@given(count=st.integers(1, 90), batch_size=st.integers(1, 9), world_size=st.integers(1, 3), number=st.integers(0, 3))
def test_shuffled_leaves_out_what_makes_no_batch_and_says_how_many(
    count: int, batch_size: int, world_size: int, number: int
) -> None:
    def make(**rank: int) -> Shuffled:
        return Shuffled(count, batch_size, seed=5, **rank)

    if count < batch_size * world_size:
        with pytest.raises(DataError, match="samples are too few for a batch of"):
            make(rank=0, world_size=world_size)
        return
    ranks = epoch(make, world_size, number)
    positions = [draw.position for rank in ranks for draw in rank]
    left_out = make(rank=0, world_size=world_size).left_out
    assert left_out < batch_size * world_size
    assert len(positions) == len(set(positions)) == count - left_out
    assert {len(rank) for rank in ranks} == {len(ranks[0])}
    assert len(ranks[0]) % batch_size == 0
    assert {draw[1:] for rank in ranks for draw in rank} == {(number, 0)}


def test_what_is_left_out_differs_between_epochs() -> None:
    sampler = Shuffled(10, 4)
    seen = [frozenset(draw.position for draw in sampler) for _ in range(6)]
    assert {len(some) for some in seen} == {8}
    assert len(set(seen)) > 3
    assert frozenset.union(*seen) == set(range(10))


LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=60)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), labels=LABELS, samples=st.integers(1, 5), world_size=st.integers(1, 3), seed=st.integers(0, 9))
def test_balanced(data: Any, labels: list[int], samples: int, world_size: int, seed: int) -> None:
    sizes = Counter(labels)
    identities = data.draw(st.integers(1, len(sizes)))
    ranks = epoch(lambda **rank: Balanced(labels, identities, samples, seed=seed, **rank), world_size)
    dealt: Counter[int] = Counter()
    uses: Counter[int] = Counter()
    for rank in ranks:
        for start in range(0, len(rank), identities * samples):
            batch = rank[start : start + identities * samples]
            hands: dict[int, Counter[int]] = {}
            for draw in batch:
                hands.setdefault(labels[draw.position], Counter())[draw.position] += 1
                uses[draw.position] += 1
            assert len(hands) == identities
            dealt.update(hands.keys())
            for label, hand in hands.items():
                assert hand.total() == samples
                assert len(hand) == min(samples, sizes[label])
                assert max(hand.values()) - min(hand.values()) <= 1
    # As many draws as there are samples, but for what fills a last batch on every rank.
    assert 0 <= uses.total() - len(labels) < identities * samples * world_size
    # Fair to identities, and to the samples of each.
    assert max(dealt.values()) - min(dealt[label] for label in sizes) <= 1
    for label in sizes:
        counts = [uses[position] for position, other in enumerate(labels) if other == label]
        assert max(counts) - min(counts) <= 1
    # Each use of a sample is another one, over all ranks.
    turns = [draw for rank in ranks for draw in rank]
    assert len(set(turns)) == len(turns)
    assert all(draw.turn < uses[draw.position] for draw in turns)


@pytest.mark.parametrize(
    "make",
    [lambda seed: Shuffled(40, 4, seed=seed), lambda seed: Balanced([n // 4 for n in range(40)], 5, 2, seed=seed)],
)
def test_an_epoch_depends_on_the_seed_and_its_number(make: Callable[[int], Sampler]) -> None:
    sampler = make(1)
    first, second = list(sampler), list(sampler)
    assert [draw.epoch for draw in (*first, *second)] == [0] * len(first) + [1] * len(second)
    assert [draw.position for draw in first] != [draw.position for draw in second]
    other = make(1)
    other.set_epoch(1)
    assert list(other) == second
    assert list(make(2)) != first


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Shuffled(10, 16), "10 samples are too few for a batch of 16"),
        (lambda: Shuffled(10, 8, world_size=2), "10 samples are too few for a batch of 8 on each of 2 ranks"),
        (lambda: Shuffled(10, 0), "a batch of 0 samples is none; it has at least 1"),
        (lambda: InOrder(10, 2, rank=2, world_size=2), "rank 2 of 2 does not exist; they are counted from 0"),
        (lambda: Balanced([0, 0, 1], 3, 2), "a batch of 3 identities cannot be made of 2"),
        (lambda: Balanced([0, 0, 1], -2, -2), "a batch of -2 identities with -2 samples each is none"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], Sampler], message: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        make()
