"""Images of samples for matchers and reports."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

from PIL import Image

from ..data.loading import SampleError
from ..data.reading import Reader
from ..data.table import Pair
from ..errors import EvaluationError, ImageError
from ..images import grey, naming
from ..progress import Advance, no_progress
from .extremes import Sample, Worst, extremes, shown
from .metrics import Array
from .scores import Comparisons

SIDE = 144  # pixels of the longer side of a picture


def grey_image(reader: Reader, pair: Pair, modality: str) -> Array:
    """An image of a sample as it is, (H, W), uint8.

    Raises:
        EvaluationError: If the sample has no such image.
        SampleError: If it cannot be read; names the file and the sample.
    """
    record = pair.images[modality]
    if record is None:
        raise EvaluationError(f"{pair}: has no {modality} image")
    try:
        pixels = reader.read(replace(pair, images={modality: record}))[modality]
        assert pixels is not None
        with naming(record.path):
            return grey(pixels)
    except ImageError as error:
        raise SampleError(f"{error} ({pair})") from error


def picture(reader: Reader, pair: Pair, modality: str) -> bytes:
    """An image of a sample as a small JPEG file.

    Raises:
        PvzooError: As :func:`grey_image`.
    """
    image = Image.fromarray(grey_image(reader, pair, modality))
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


def worst_pairs(
    scores: Comparisons,
    samples: Sequence[Pair],
    reader: Reader,
    modalities: Sequence[str],
    *,
    advance: Advance = no_progress,
) -> Worst:
    """The comparisons that went most wrong, with their pictures.

    Args:
        scores: The comparisons.
        samples: Of what, by number.
        reader: Where pixels come from.
        modalities: Those to show; none for names alone.
        advance: Called with the number of comparisons done.

    Raises:
        SampleError: If an image cannot be read.
    """

    def sample(number: int) -> Sample:
        pair = samples[number]
        has = [modality for modality in modalities if pair.images[modality] is not None]
        return Sample(str(pair), {modality: picture(reader, pair, modality) for modality in has})

    return shown(extremes(scores, advance=advance), sample, sample)
