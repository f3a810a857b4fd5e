"""The card of a model that is published: rendered from its author's facts, or written by hand and checked."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from pydantic import ValidationError

from .. import card
from ..errors import WeightsError
from ..manifest import Facts, Metric, explain
from ..specs import ModelSpec
from ..tensorfile import About

NEEDED = ("Data", "Intended use")


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
        data: Any = ModelCard(text, ignore_metadata_errors=False).data
    except (ValueError, TypeError, yaml.YAMLError) as error:
        return [f"its metadata cannot be read: {str(error).splitlines()[0]}"]
    found = []
    if not getattr(data, "license", None):
        found.append("its metadata names no license")
    sections = re.split(r"^#{1,6}[ \t]+(.*?)[ \t#]*$", text, flags=re.MULTILINE)
    filled = {title.lower() for title, content in zip(sections[1::2], sections[2::2], strict=True) if content.strip()}
    found += [f"it has no section {title!r} with text in it" for title in NEEDED if title.lower() not in filled]
    return found


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
