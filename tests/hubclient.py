"""Lets the real huggingface_hub, in this process or another, speak to a server of tests, without its long pauses."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http, disable_progress_bars

from pvzoo.hub import client


class Clock:
    """A clock that a sleep sets forward, so that waiting takes no time and deadlines still come."""

    def __init__(self) -> None:
        self.slept = 0.0

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        time.sleep(0.001)

    def monotonic(self) -> float:
        return time.monotonic() + self.slept

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def environment(url: str, home: Path) -> dict[str, str]:
    """For processes; huggingface_hub reads most of it when it is imported."""
    return {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "",
        "NO_PROXY": "127.0.0.1,localhost",
        "OMP_NUM_THREADS": "1",
        "PVZOO_CACHE": str(home / "pvzoo"),
    }


def connect(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> Clock:
    """The same for this process, which has huggingface_hub already; returns the clock that its pauses go by."""
    for name, value in environment(url, home).items():
        monkeypatch.setenv(name, value)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 1)
    clock = Clock()
    for module in (_http, file_download, client):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(file_download, "_ETAG_RETRY_TIMEOUT", 1, raising=False)
    disable_progress_bars()
    # Its connections are kept, and those made before know of a proxy.
    _http.close_session()
    return clock
