"""Long work says how far it is, on a terminal and in a log."""

from __future__ import annotations

import pytest

from pvzoo import progress


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "reading [a]: 1,000 of 2,500\nreading [a]: 2,500 of 2,500\n"), (30.0, "")],
    ids=["long", "short"],
)
def test_a_log_has_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: float, said: str
) -> None:
    monkeypatch.setattr(progress, "SECONDS", seconds)
    with progress.track("reading [a]", 2500) as advance:
        advance(1000)
        advance(1500)
    assert capsys.readouterr().err == said


def test_a_terminal_has_a_bar_that_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which rich takes for a terminal
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("TERM", raising=False)
    with progress.track("reading", 25) as advance:
        advance(5)
    shown = capsys.readouterr().err
    assert "reading" in shown
    assert "0/25" in shown
    assert shown.endswith("\x1b[2K")  # the line is erased
