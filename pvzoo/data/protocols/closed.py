"""Closed set: every identity trains with some of its samples and is tested with others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from ..split import Comparisons, Excluded, by_identity
from ..table import Pair, Table
from .base import OneTable, P, ProtocolParams, Sides, those_of, without


class ClosedKParams(ProtocolParams):
    """Closed set by number of samples."""

    k: int = Field(5, ge=1, description="samples that train")


class ClosedMixedParams(ProtocolParams):
    """Closed set by number of samples in each session."""

    k: int | None = Field(None, ge=1, description="samples of each session that train; half of them if left out")


class FewShotParams(ProtocolParams):
    """Few samples of each identity."""

    k: int = Field(1, ge=1, description="samples of each identity that train, chosen from its first session")


class Closed(OneTable[P]):
    """All identities train; dev is held out of the training samples of each."""

    shares = frozenset({"identity", "subject"})

    @abstractmethod
    def divided(self, samples: list[Pair], sessions: Sequence[int]) -> tuple[list[Pair], list[Pair]]:
        """The samples of one identity that train, and those that are tested."""

    def divide(self, pairs: list[Pair], table: Table) -> Sides:
        sessions = sorted({pair.session for pair in pairs})
        train: list[Pair] = []
        probes: list[Pair] = []
        excluded: list[Excluded] = []
        for samples in by_identity(pairs).values():
            first, second = self.divided(samples, sessions)
            if first and second:
                train += first
                probes += second
                excluded += [Excluded(pair, "a session that is not used") for pair in without(samples, first + second)]
            else:
                reason = f"an identity without a sample to {'test' if first else 'train'}"
                excluded += [Excluded(pair, reason) for pair in samples]
        if not train:
            raise self.error(f"there is nothing to divide: the first of the samples is of {excluded[0].reason}")
        return self.with_dev(train, probes, excluded)

    def with_dev(self, train: list[Pair], probes: list[Pair], excluded: list[Excluded]) -> Sides:
        dev: list[Pair] = []
        for samples in by_identity(train).values():
            by_name = {str(pair): pair for pair in samples}
            count = min(max(1, round(self.params.dev * len(samples))), len(samples) - 1)
            dev += [by_name[name] for name in self.ordered(by_name, "dev")[:count]]
        kept = without(train, dev)
        return Sides(
            kept,
            Comparisons(self.enrolled(kept), tuple(dev)),
            Comparisons(self.enrolled(train), tuple(probes)),
            excluded,
        )


class ClosedSessions(Closed[ProtocolParams]):
    """One session trains and is the gallery, another is tested."""

    train_session: ClassVar[int]

    def divided(self, samples: list[Pair], sessions: Sequence[int]) -> tuple[list[Pair], list[Pair]]:
        if len(sessions) < 2:
            raise self.error(f"needs two sessions, and the table has {', '.join(map(str, sessions))} (0: not known)")
        train, test = sessions[self.train_session], sessions[1 - self.train_session]
        return those_of(samples, "session", [train]), those_of(samples, "session", [test])


class ClosedS1S2(ClosedSessions):
    name = "closed_s1_s2"
    summary = "closed set: session 1 trains and is the gallery, session 2 is tested"
    train_session = 0


class ClosedS2S1(ClosedSessions):
    name = "closed_s2_s1"
    summary = "closed set: session 2 trains and is the gallery, session 1 is tested"
    train_session = 1


class ClosedFirstK(Closed[ClosedKParams]):
    name = "closed_first_k"
    summary = "closed set: the first k samples of each identity train, the rest are tested; may leak sessions"
    shares = frozenset({"identity", "subject", "session"})
    params_type = ClosedKParams

    def divided(self, samples: list[Pair], sessions: Sequence[int]) -> tuple[list[Pair], list[Pair]]:
        return samples[: self.params.k], samples[self.params.k :]


class ClosedMixed(Closed[ClosedMixedParams]):
    name = "closed_mixed"
    summary = "closed set that leaks sessions: the first k samples of each session train, the rest are tested"
    shares = frozenset({"identity", "subject", "session"})
    params_type = ClosedMixedParams

    def divided(self, samples: list[Pair], sessions: Sequence[int]) -> tuple[list[Pair], list[Pair]]:
        parts = [those_of(samples, "session", [session]) for session in sessions]
        first = [pair for part in parts for pair in part[: self.params.k or len(part) // 2]]
        return first, without(samples, first)


class FewShotK(Closed[FewShotParams]):
    """Nothing can be held out of so few samples, so dev takes whole subjects, which are then not tested."""

    name = "few_shot_k"
    summary = "closed set: k samples of each identity's first session train and are the gallery, the rest are tested"
    shares = frozenset({"identity", "subject", "session"})
    params_type = FewShotParams

    def divided(self, samples: list[Pair], sessions: Sequence[int]) -> tuple[list[Pair], list[Pair]]:
        by_name = {str(pair): pair for pair in samples if pair.session == samples[0].session}
        first = [by_name[name] for name in self.ordered(by_name, "shots")[: self.params.k]]
        return first, without(samples, first)

    def with_dev(self, train: list[Pair], probes: list[Pair], excluded: list[Excluded]) -> Sides:
        kept, dev = self.carved(train)
        chosen = {pair.identity for pair in dev}
        dev_probes = tuple(pair for pair in probes if pair.identity in chosen)
        tested = tuple(pair for pair in probes if pair.identity not in chosen)
        return Sides(
            kept, Comparisons(self.enrolled(dev), dev_probes), Comparisons(self.enrolled(kept), tested), excluded
        )
