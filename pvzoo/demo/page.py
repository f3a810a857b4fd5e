"""A demo as files: ``demo.json``, and ``index.html`` with images, attention and scores in it (extra ``viz``)."""

from __future__ import annotations

import io
import json
from pathlib import Path

from ..evaluation import report
from ..evaluation.figures import draw
from ..evaluation.page import inline, render
from ..evaluation.pictures import picture
from ..model import Model
from ..visualization import draw_attention, look
from .run import Demo, person

SHOWN = 4  # people whose attention is drawn, with two samples each


def write_demo(demo: Demo, model: Model, folder: Path, command: str = "") -> list[Path]:
    """Writes both files.

    Raises:
        EvaluationError: If they cannot be written.
        MissingExtraError: If matplotlib is not installed.
    """
    caption = "How spread the scores of true and false claims are, and the threshold that decides."
    text = render(
        "demo.html.jinja",
        __package__,
        demo=demo,
        person=person,
        report=report,
        command=command,
        scores=inline(draw({demo.model: demo.result}, ["scores"])["scores"], caption),
        caption=caption,
        rows=_rows(demo, model),
        attention=_attention(demo, model),
        shown=SHOWN,
    )
    plain = json.dumps(demo.to_json(), indent=2, ensure_ascii=False) + "\n"
    return report.write_texts(folder, {"demo.json": plain, report.PAGE: text})


def _rows(demo: Demo, model: Model) -> list[tuple[str, list[tuple[str, dict[str, bytes]]]]]:
    """By person, its samples as they were seen: what they are, and a JPEG a modality."""
    found = []
    for column, pair in enumerate(demo.enrolled):
        probes = [probe for probe, own in zip(demo.probes, demo.own, strict=True) if own == column]
        samples = [("enrolled", pair), *((f"sample {probe.sample}", probe) for probe in probes)]
        pictures = [
            (what, {m: picture(demo.reader, sample, m) for m in model.spec.modalities}) for what, sample in samples
        ]
        found.append((person(pair), pictures))
    return found


def _attention(demo: Demo, model: Model) -> bytes:
    """A PNG: what the model attends to in the enrolled and one other sample of the first people."""
    seen = []
    for column, pair in enumerate(demo.enrolled[:SHOWN]):
        probe = demo.probes[demo.own.tolist().index(column)]
        palms = []
        for sample in (pair, probe):
            images = demo.reader.read(sample)
            palms.append([images[m] for m in model.spec.modalities])
        seen += look(model, palms, names=[f"{person(pair)}, enrolled", f"{person(pair)}, later"])
    file = io.BytesIO()
    draw_attention(seen).savefig(file, format="png", dpi=110, bbox_inches="tight", pad_inches=0.05)
    return file.getvalue()
