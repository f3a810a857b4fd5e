"""Thresholds that travel with a model: from which score on two palms count as one, and what was measured there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_FMR = 1e-3
"""The false match rate at which decisions are made if none is named."""


class Threshold(BaseModel):
    """A score from which on two samples are accepted as of one identity, chosen on a set of comparisons.

    Attributes:
        value: Accept if the score >= this.
        rule: ``"eer"``: where FMR and FNMR are closest; ``"fmr"``: the lowest with an FMR of at most ``target``.
        target: The FMR of the rule.
        fmr: The FMR that was measured with it.
        fnmr: The FNMR.
        genuine: Genuine comparisons of the set.
        impostor: Impostor comparisons.
        subjects: Persons in the set; ``None`` if unknown.
        measured_on: What the set was: data set, protocol, split.
        modalities: Those that both samples had, the model's others missing; all that it takes if left out. Scores of
            palm alone lie elsewhere than those of palm and vein.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    rule: Literal["eer", "fmr"]
    target: float | None = Field(None, gt=0, lt=1)
    fmr: float = Field(ge=0, le=1)
    fnmr: float = Field(ge=0, le=1)
    genuine: int = Field(gt=0)
    impostor: int = Field(gt=0)
    subjects: int | None = None
    measured_on: str = ""
    modalities: tuple[str, ...] = ()

    def __str__(self) -> str:
        people = "" if self.subjects is None else f" of {self.subjects:,} subjects"
        where = f" on {self.measured_on}" if self.measured_on else ""
        alone = f" of {' and '.join(self.modalities)} alone" if self.modalities else ""
        counts = f"{self.impostor:,} impostor comparisons{alone}{people}{where}"
        return f"{self.value:.6g}, with FMR {self.fmr:.3g} in {counts}"


@dataclass(frozen=True)
class Decision:
    """Whether two samples are of one identity; true if they are.

    Attributes:
        same: The answer.
        score: Their similarity.
        threshold: What it was compared with, and which FMR was measured on what.
    """

    same: bool
    score: float
    threshold: Threshold

    def __bool__(self) -> bool:
        return self.same

    def __str__(self) -> str:
        answer = "yes" if self.same else "no"
        return f"{answer}: score {self.score:.6g}, {'at or above' if self.same else 'below'} threshold {self.threshold}"
