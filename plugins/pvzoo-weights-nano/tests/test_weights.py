"""Every model of the package loads offline, and is what the manifest says of it."""

from __future__ import annotations

from importlib.resources import files

import pytest

from pvzoo import catalog
from pvzoo.hub import sources, verify
from pvzoo.manifest import read_manifest
from pvzoo.model import Model
from pvzoo.testing import check_weight_source
from pvzoo.zoo import Access

WEIGHTS = read_manifest(files("pvzoo_weights_nano") / "weights.json").weights


def test_the_source_keeps_its_contract() -> None:
    check_weight_source("weights-nano/packed")


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_model_is_as_the_manifest_says(name: str) -> None:
    found = sources.find(*catalog.split_tag(name), Access(offline=True))
    assert verify.faults(name, WEIGHTS[name], found, Model) == []
