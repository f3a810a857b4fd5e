"""The card of a model that is published: rendered from its author's facts, or written by hand and checked."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from pydantic import ValidationError

from .. import card
from ..errors import WeightsError
from ..manifest import Facts, Metric, explain
from ..specs import ModelSpec
from ..tensorfile import About

NEEDED = ("Data", "Intended use")
NO_LICENCE = {"", "none", "unknown", "noassertion", "n/a", "tbd", "todo"}  # stands where one is still to be chosen


def render(spec: ModelSpec, about: About, facts: Facts, source: str) -> str:
    """The whole card, with the metadata that the Hub reads: licence, library, and a model-index of the metrics."""
    data = ModelCardData(
        license=facts.licence.lower(),
        library_name=card.LIBRARY,
        tags=list(card.TAGS),
        pipeline_tag="image-feature-extraction",
        model_name=spec.name or source.rpartition("/")[2],
        eval_results=[_result(metric) for metric in facts.metrics] or None,
    )
    text = card.body(spec, untrained=about.untrained, thresholds=about.thresholds, source=source, facts=facts)
    return f"---\n{data.to_yaml()}\n---\n\n{text}"


def _result(metric: Metric) -> EvalResult:
    return EvalResult(
        task_type="biometric-verification",
        dataset_type=_identifier(metric.dataset),
        dataset_name=metric.dataset,
        dataset_config=metric.protocol,  # results of one type and config are listed as one, whatever else they say
        metric_type=metric.name,
        metric_name=metric.title,
        metric_value=metric.value,
        metric_args={"low": metric.low, "high": metric.high, "counts": metric.counts},
    )


def _identifier(name: str) -> str:
    """A data set's name in small letters and digits; with a digest where these do not tell it from all others."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return plain if plain == name else "-".join(filter(None, (plain, digest)))


def faults(text: str) -> list[str]:
    """What a card lacks that a published model must say; there is no default for any of it."""
    try:
        written = ModelCard(text, ignore_metadata_errors=False)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        return [f"its metadata cannot be read: {str(error).splitlines()[0]}"]
    found = []
    licence = str(getattr(written.data, "license", None) or "")
    if licence.strip().lower() in NO_LICENCE:
        found.append("its metadata names no license" + (f": {licence!r} is none" if licence else ""))
    filled = _filled(re.sub(r"<!--.*?(-->|\Z)", "", written.content, flags=re.DOTALL))
    found += [f"it has no section {title!r} with text in it" for title in NEEDED if title.lower() not in filled]
    return found


def _filled(text: str) -> set[str]:
    """Titles, in lower case, of the sections of a Markdown text that hold text of their own or in sections below."""
    parts = re.split(r"^(#{1,6})[ \t]+(.*?)[ \t#]*$", text, flags=re.MULTILINE)[1:]
    filled: set[str] = set()
    above: list[tuple[int, str]] = []
    for marks, title, content in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        above = [*(each for each in above if each[0] < len(marks)), (len(marks), title.lower())]
        if content.strip():
            filled.update(name for _, name in above)
    return filled


def read_facts(path: Path) -> Facts:
    """Facts from a YAML or JSON file.

    Raises:
        WeightsError: If it cannot be read, or lacks something; names every field.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    return check_facts(content, str(path))


def check_facts(content: object, source: str) -> Facts:
    """Facts from plain data.

    Raises:
        WeightsError: If a field is missing or wrong; names every one.
    """
    try:
        return Facts.model_validate(content)
    except ValidationError as error:
        raise WeightsError(f"{source}:" + "".join(f"\n  {fault}" for fault in explain(error))) from error
