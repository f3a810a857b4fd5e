"""Whether maps lie on the lines and vessels of SynthPalm, whose masks are known.

* Pointing game: Zhang et al., "Top-down Neural Attention by Excitation Backprop", IJCV 2018,
  https://arxiv.org/abs/1608.00507: a map hits if its maximum lies in the mask or within a tolerance of it, there 15
  pixels of images about 500 wide. Of several equal maxima, the share that hits counts.
* Energy in the mask: Wang et al., "Score-CAM", CVPRW 2020, https://arxiv.org/abs/1910.01279: of a map brought to
  [0, 1], the share of its sum that lies in the mask, without tolerance.

Lines and vessels cover much of an image, and more with a tolerance. So beside each stands what a map that knows nothing
has: the share of the image that the mask covers, with the same tolerance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..data.table import Pair
from ..errors import EvaluationError, count
from ..evaluation.bootstrap import CONFIDENCE, Interval, draw, mean_interval
from ..evaluation.report import markdown_table, number, span, write_texts
from ..evaluation.results import FEW_SUBJECTS
from ..extras import opencv
from ..model import Model
from ..progress import Advance, no_progress
from ..synth import Generator, SynthConfig
from .attention import Array, Method, Seen, attend, choose_method, on_images
from .figures import draw_attention, save

TOLERANCE = 15 / 500  # of the image's side, as in the pointing game's source
MASKS = {"palm": "crease_mask", "vein": "vein_mask"}
PICTURED = 4  # samples in the picture, each of another identity


def pointing(heat: Array, mask: Array) -> float:
    """Share of the largest values of a map that lie in the mask: 0 or 1 unless there are several.

    Args:
        heat: (H, W).
        mask: (H, W) bool, widened by the tolerance.
    """
    return float(mask[heat == heat.max()].mean())


def energy(heat: Array, mask: Array) -> float:
    """Share of a map's sum that lies in the mask, after the map was brought to [0, 1]; ``nan`` if it is constant.

    Args:
        heat: (H, W).
        mask: (H, W) bool.
    """
    raised = heat.astype(np.float64) - heat.min()
    total = float(raised.sum())
    return float(raised[mask].sum()) / total if total > 0 else float("nan")


def widened(mask: Array, tolerance: float) -> Array:
    """The mask and all pixels within ``tolerance`` pixels of it, centre to centre."""
    if not mask.any():
        return mask
    cv2 = opencv()
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(away <= tolerance + 1e-4)


@dataclass(frozen=True)
class Located:
    """How often, or how much, the maps of one branch and modality lie on what the image shows.

    Attributes:
        branch: Whose map.
        modality: Whose image.
        game: ``"pointing"`` or ``"energy"``.
        value: Mean over the samples, in [0, 1].
        interval: By subject bootstrap.
        chance: Mean share of the image that the mask covers.
        gain: value - chance.
        gain_interval: By subject bootstrap.
        samples: How many it rests on; constant maps are left out.
        subjects: Whose they are.
    """

    branch: str
    modality: str
    game: str
    value: float
    interval: Interval
    chance: float
    gain: float
    gain_interval: Interval
    samples: int
    subjects: int


@dataclass(frozen=True, eq=False)
class Scoring:
    """What :func:`score_attention` found.

    Attributes:
        located: One a branch, modality and game.
        method: Whether the maps are fusion weights or Grad-CAM.
        tolerance: Of the pointing game, in pixels of the image.
        size: Height and width of the images.
        constant: Maps without any difference, by branch and modality; they are left out.
        pictured: A few samples, with their masks, to draw.
        bootstrap: Folds and seed.
    """

    located: tuple[Located, ...]
    method: Method
    tolerance: float
    size: int
    constant: Mapping[str, int]
    pictured: tuple[Seen, ...]
    bootstrap: Mapping[str, int]

    @property
    def warnings(self) -> list[str]:
        """What a reader has to know."""
        left = [f"left out: {count(n, 'map')} of {of} without any difference" for of, n in self.constant.items()]
        people = min((each.subjects for each in self.located), default=0)
        few = f"intervals from {count(people, 'subject')} are too narrow; take {FEW_SUBJECTS} or more"
        return [*left, *[few] * (people < FEW_SUBJECTS)]


def score_attention(
    model: Model,
    config: SynthConfig,
    pairs: Sequence[Pair],
    *,
    method: Method | None = None,
    tolerance: float | None = None,
    folds: int = 1000,
    seed: int = 0,
    batch_size: int = 16,
    advance: Advance = no_progress,
) -> Scoring:
    """Scores a model's maps against the masks of SynthPalm.

    Grad-CAM explains the score of each sample with the mean embedding of the others of its identity.

    Args:
        model: In eval mode, of the modalities palm and vein or one of them.
        config: The data set.
        pairs: Samples of it, such as the test part of a split.
        method: As of :func:`~pvzoo.visualization.attention.look`.
        tolerance: Of the pointing game, in pixels of the image; :data:`TOLERANCE` of its side if left out.
        folds: Of the subject bootstrap.
        seed: Of its draws.
        batch_size: Samples at once.
        advance: Called with the number of samples done: all of them once, for Grad-CAM twice.

    Raises:
        EvaluationError: If the model gives no maps, has another modality, or Grad-CAM has no other sample of an
            identity to compare with.
    """
    unknown = [m for m in model.spec.modalities if m not in MASKS]
    if unknown:
        raise EvaluationError(f"SynthPalm has no mask of {unknown[0]}; it has those of {' and '.join(MASKS)}")
    reach = TOLERANCE * config.size if tolerance is None else tolerance
    generator = Generator(config)
    batches = [pairs[start : start + batch_size] for start in range(0, len(pairs), batch_size)]
    chosen = method or choose_method(model, _draw(model, generator, pairs[:1])[1])
    references: Tensor | None = None
    if chosen == "grad_cam":
        with torch.no_grad():
            parts = []
            for batch in batches:
                parts.append(model.embed(**_draw(model, generator, batch)[1]))
                advance(len(batch))
        references = _others(torch.cat(parts), pairs)
    people = {subject: number for number, subject in enumerate(dict.fromkeys(pair.subject for pair in pairs))}
    found: dict[tuple[str, str, str], list[tuple[int, float, float]]] = {}
    constant: dict[str, int] = {}
    pictured: dict[str, Seen] = {}
    done = 0
    for batch in batches:
        samples, inputs = _draw(model, generator, batch)
        here = None if references is None else references[done : done + len(batch)]
        done += len(batch)
        attention = attend(model, inputs, chosen, references=here)
        if not attention.maps:
            raise EvaluationError("the model's fusion weighs channels alone, which have no place; Grad-CAM gives maps")
        for row, (pair, sample) in enumerate(zip(batch, samples, strict=True)):
            images = {m: getattr(sample, m) / np.float32(255) for m in model.spec.modalities}
            masks = {m: getattr(sample, MASKS[m]) > 0 for m in images}
            seen = on_images(model, pair.identity, images, attention, chosen, row, masks)
            if len(pictured) < PICTURED:
                pictured.setdefault(pair.identity, seen)
            for branch, maps in seen.maps.items():
                for modality, heat in maps.items():
                    if heat.max() == heat.min():
                        name = f"{branch}, {modality}"
                        constant[name] = constant.get(name, 0) + 1
                        continue
                    mask = masks[modality]
                    wide = widened(mask, reach)
                    for game, value, chance in (
                        ("pointing", pointing(heat, wide), wide.mean()),
                        ("energy", energy(heat, mask), mask.mean()),
                    ):
                        rows = found.setdefault((branch, modality, game), [])
                        rows.append((people[pair.subject], value, float(chance)))
        advance(len(batch))
    weights = draw(len(people), folds, seed)
    located = tuple(_located(*key, np.array(rows), weights) for key, rows in found.items())
    about = {"folds": folds, "seed": seed}
    return Scoring(located, chosen, reach, config.size, constant, tuple(pictured.values()), about)


def _draw(model: Model, generator: Generator, pairs: Sequence[Pair]) -> tuple[list[Any], dict[str, Tensor]]:
    samples = [generator.sample(int(pair.subject), pair.hand, pair.session, pair.sample) for pair in pairs]
    return samples, {m: model.preprocess([getattr(sample, m) for sample in samples]) for m in model.spec.modalities}


def _others(embeddings: Tensor, pairs: Sequence[Pair]) -> Tensor:
    """(N, D): of each sample, the mean embedding of the other samples of its identity."""
    rows: dict[str, list[int]] = {}
    for row, pair in enumerate(pairs):
        rows.setdefault(pair.identity, []).append(row)
    found = torch.empty_like(embeddings)
    for identity, members in rows.items():
        if len(members) < 2:
            raise EvaluationError(f"identity {identity} has one sample: a second is needed to compare it with")
        total = embeddings[members].sum(0)
        for row in members:
            found[row] = (total - embeddings[row]) / (len(members) - 1)
    return found


def _located(branch: str, modality: str, game: str, rows: Array, weights: Array) -> Located:
    """From rows (subject, value, chance)."""
    subject, values, chances = rows[:, 0].astype(int), rows[:, 1], rows[:, 2]
    value, chance = float(values.mean()), float(chances.mean())
    return Located(
        branch,
        modality,
        game,
        value,
        mean_interval(values, subject, weights),
        chance,
        value - chance,
        mean_interval(values - chances, subject, weights),
        len(rows),
        len(np.unique(subject)),
    )


def write_scoring(found: Scoring, folder: Path, *, about: Mapping[str, Any], command: str = "") -> list[Path]:
    """Writes ``attention.json``, ``attention.md`` and ``attention.png``.

    Args:
        found: What to write.
        folder: Made if it is not there.
        about: What was scored: model, data set, protocol.
        command: How it was made.

    Raises:
        EvaluationError: If they cannot be written.
    """
    facts = _to_json(found, about, command)
    texts = {
        "attention.json": json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
        "attention.md": _to_markdown(found, about, command),
    }
    written = write_texts(folder, texts)
    picture = folder / "attention.png"
    save(draw_attention(found.pictured), picture)
    return [*written, picture]


def _plain(value: Any) -> Any:
    """With ``null`` for ``nan``, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


def _to_json(found: Scoring, about: Mapping[str, Any], command: str) -> dict[str, Any]:
    return {
        **about,
        "method": found.method,
        "tolerance_pixels": found.tolerance,
        "image_pixels": found.size,
        "located": [_plain(asdict(each)) for each in found.located],
        "warnings": found.warnings,
        "bootstrap": {**found.bootstrap, "confidence": CONFIDENCE, "unit": "subject"},
        "pvzoo": __version__,
        "command": command,
    }


def table_rows(found: Scoring) -> list[tuple[str, ...]]:
    """For a table with :data:`HEAD`."""
    return [
        (
            each.branch,
            each.modality,
            each.game,
            number(each.value, 3),
            span(each.interval),
            number(each.chance, 3),
            number(each.gain, 3),
            span(each.gain_interval),
            f"{each.samples:,}",
            f"{each.subjects:,}",
        )
        for each in found.located
    ]


HEAD = (
    *("branch", "modality", "game", "value", f"{CONFIDENCE:.0%} interval", "chance", "above chance"),
    *(f"{CONFIDENCE:.0%} interval", "samples", "subjects"),
)


def _to_markdown(found: Scoring, about: Mapping[str, Any], command: str) -> str:
    maps = "fusion weights" if found.method == "weights" else "Grad-CAM of the score with the other samples"
    lines = ["# Attention on SynthPalm", "", *(f"* {name}: {value}" for name, value in about.items())]
    lines += [f"* maps: {maps}", "", *markdown_table(HEAD, table_rows(found)), ""]
    lines += [
        f"Pointing: the maximum lies on a line or vessel, or within {number(found.tolerance, 3)} pixels of one, "
        f"in images of {found.size} x {found.size}. Energy: the share of the map, brought to [0, 1], that lies in the "
        "mask itself. Chance: the share of the image that the mask covers, widened for pointing.",
        "",
    ]
    lines += ["## Read with care", "", *(f"* {warning}" for warning in found.warnings), ""] * bool(found.warnings)
    lines += [f"Intervals: {found.bootstrap['folds']} folds of subjects, seed {found.bootstrap['seed']}.", ""]
    lines += ["![Maps, with the masks outlined and the maximum marked](attention.png)", ""]
    lines += [f"pvzoo {__version__}" + (f", `{command}`" if command else "")]
    return "\n".join(lines) + "\n"
