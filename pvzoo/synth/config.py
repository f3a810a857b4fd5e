"""What a SynthPalm data set is: its seed, its counts, its difficulty; and the named releases."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..errors import PvzooError, UnknownNameError, did_you_mean, nearest

if TYPE_CHECKING:
    from numpy.random import RandomState

HANDS = ("left", "right")

Key = tuple[int, str, int, int]  # subject, hand, session, sample


class SynthError(PvzooError, ValueError):
    """A SynthPalm data set cannot be as asked for."""


@dataclass(frozen=True)
class SynthConfig:
    """A whole data set: two equal configs give the same images.

    Attributes:
        seed: Seed of the data set; all others are derived from it.
        subjects: Persons, numbered from 1; each has a left and a right hand, which are independent identities.
        sessions: Visits of each person, numbered from 1; each has light, focus and noise of its own.
        samples: Pairs of images of each hand in each session, numbered from 1.
        size: Height and width of the images, in pixels.
        k: Difficulty: how much pose, bend, light, dropped strokes and occlusion differ between the samples of a hand.
    """

    seed: int
    subjects: int
    sessions: int = 2
    samples: int = 5
    size: int = 224
    k: float = 1.0

    def __post_init__(self) -> None:
        for name in ("subjects", "sessions", "samples"):
            if getattr(self, name) < 1:
                raise SynthError(f"{name} is {getattr(self, name)}; it is at least 1")
        if not 32 <= self.size <= 1024:
            raise SynthError(f"size is {self.size}; it is from 32 to 1024 pixels")
        if not (math.isfinite(self.k) and 0 <= self.k <= 4):
            raise SynthError(f"k is {self.k}; it is from 0 to 4")

    def __len__(self) -> int:
        return self.subjects * len(HANDS) * self.sessions * self.samples

    def identities(self) -> Iterator[tuple[int, str]]:
        """Every (subject, hand)."""
        return ((subject, hand) for subject in range(1, self.subjects + 1) for hand in HANDS)

    def keys(self, subject: int, hand: str) -> list[Key]:
        """Every sample of one hand."""
        sessions, samples = range(1, self.sessions + 1), range(1, self.samples + 1)
        return [(subject, hand, session, sample) for session in sessions for sample in samples]

    def check(self, subject: int, hand: str, session: int = 1, sample: int = 1) -> None:
        """Raises :class:`SynthError` if the data set has no such sample."""
        if hand not in HANDS:
            raise SynthError(f"hand is {hand!r}; it is 'left' or 'right'")
        for name, value in (("subject", subject), ("session", session), ("sample", sample)):
            count = getattr(self, f"{name}s")
            if not 1 <= value <= count:
                raise SynthError(f"{name} is {value}; this data set has {name}s 1 to {count}")

    def random(self, *what: int | str) -> RandomState:
        """A stream of random numbers that belongs to ``what`` alone, whatever else is drawn, where and when.

        ``RandomState`` and not ``Generator``: NumPy has frozen the streams of the former for good (NEP 19).
        """
        from numpy.random import RandomState

        digest = hashlib.sha256(repr((self.seed, *what)).encode()).digest()
        return RandomState([int.from_bytes(digest[i : i + 4], "little") for i in range(0, 32, 4)])


RELEASES = MappingProxyType(
    {
        "synthpalm-mini": SynthConfig(seed=20, subjects=10, sessions=2, samples=2, size=112, k=0.5),
        "synthpalm-v1": SynthConfig(seed=1, subjects=200, sessions=2, samples=5, size=224, k=1.0),
        # To train on; its identities are others than those of synthpalm-v1, on which models are reported.
        "synthpalm-train-v1": SynthConfig(seed=7, subjects=1000, sessions=2, samples=4, size=224, k=1.0),
    }
)


def release(name: str) -> SynthConfig:
    """Returns the config of a named release.

    Raises:
        UnknownNameError: If there is none of this name.
    """
    if name in RELEASES:
        return RELEASES[name]
    near = nearest(name, RELEASES)
    message = f"no SynthPalm release named {name!r}{did_you_mean(name, RELEASES)}"
    message += "" if near else f"; there are {', '.join(RELEASES)}"
    raise UnknownNameError(message, kind="release", name=name, suggestions=[near] if near else [])
