"""Checkpoints: everything comes back as it was, nothing is half written, and no code runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from pvzoo import WeightsError
from pvzoo.training.checkpoint import SafeCheckpointIO

IO = SafeCheckpointIO()
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.sampled_from(["$tensor", "$tuple"]), inner)
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@given(value=plain)
def test_plain_data_comes_back_as_it_was(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("io") / "x.safetensors"
    IO.save_checkpoint({"value": value}, path)
    assert same(IO.load_checkpoint(path), {"value": value})


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    weight = torch.rand(3, 4)
    state = {
        "state_dict": {"a": weight, "tied": weight, "half": weight.half(), "part": weight[:, 1]},
        "optimizer_states": [
            {"state": {0: {"step": torch.tensor(3.0), "exp_avg": weight}}, "param_groups": [{"betas": (0.9, 0.999)}]}
        ],
        "dtype": torch.bfloat16,
        "a": {"b": torch.ones(1)},
        "a/b": torch.zeros(1),
        "keys": {1: torch.ones(1), "1": torch.zeros(1)},
    }
    IO.save_checkpoint(state, tmp_path / "x.safetensors")
    assert same(IO.load_checkpoint(tmp_path / "x.safetensors"), state)


def test_a_checkpoint_whose_tensors_are_named_otherwise_loads(tmp_path: Path) -> None:
    """Before 0.1.0 they were named by their paths."""
    plain = {"state_dict": {"a": {"$tensor": "/state_dict/a"}}, "epoch": 3}
    weight = torch.rand(3)
    save_file({"/state_dict/a": weight}, tmp_path / "x.safetensors", metadata={"checkpoint": json.dumps(plain)})
    assert same(IO.load_checkpoint(tmp_path / "x.safetensors"), {"state_dict": {"a": weight}, "epoch": 3})


def test_what_is_neither_tensor_nor_plain_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="holds object at /callbacks/mine/1, which is neither tensor nor plain data"):
        IO.save_checkpoint({"callbacks": {"mine": [1, object()]}}, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    IO.save_checkpoint({"value": 1}, path)

    def full(*args: Any, **more: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pvzoo.training.checkpoint.save_file", full)
    with pytest.raises(
        WeightsError, match=r"cannot be written: .*No space left on device.*; the last one is untouched"
    ):
        IO.save_checkpoint({"value": 2}, path)
    assert IO.load_checkpoint(path) == {"value": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"no safetensors", None])
def test_other_files_are_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a checkpoint of pvzoo train"):
        IO.load_checkpoint(path)
