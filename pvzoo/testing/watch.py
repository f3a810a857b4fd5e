"""Watching what code does beside its work: what it prints, whom it calls, what it imports (no torch)."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any

from ..plugins import Host

HEAVY = ("torch", "torchvision", "timm", "numpy", "scipy", "cv2", "sklearn", "pandas", "matplotlib", "lightning")
_NETWORK = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0}


@dataclass
class Seen:
    """What was seen.

    Attributes:
        printed: Text on stdout and stderr.
        called: Hosts that were asked for.
    """

    printed: str = ""
    called: list[str] = field(default_factory=list)


_watching: list[Seen] = []


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or event not in _NETWORK:
        return
    address = arguments[_NETWORK[event]]
    if event in ("socket.connect", "socket.sendto") and not isinstance(address, tuple):
        return  # a socket of this machine
    _watching[-1].called.append(str(address[0] if isinstance(address, tuple) else address))
    raise OSError("pvzoo.testing refuses the network here")


@lru_cache(maxsize=1)
def _install() -> None:
    sys.addaudithook(_listen)  # it cannot be removed again, and does nothing unless something is watched


@contextmanager
def watched() -> Iterator[Seen]:
    """Inside, what is printed is kept from the terminal, and the network is refused; both are noted.

    An error after the network was refused comes from that, and only ends the block.
    """
    _install()
    seen = Seen()
    text = io.StringIO()
    _watching.append(seen)
    try:
        with redirect_stdout(text), redirect_stderr(text):
            yield seen
    except Exception:
        if not seen.called:
            raise
    finally:
        _watching.remove(seen)
        seen.printed = text.getvalue()


@dataclass(frozen=True)
class Probe:
    """What became of a module that was imported in a process of its own.

    Attributes:
        fault: Why it could not be imported, or an empty string.
        seconds: How long that took.
        heavy: Those of ``HEAVY`` that it pulled in.
        printed: What it printed.
        called: Hosts that it asked for.
    """

    fault: str = ""
    seconds: float = 0.0
    heavy: tuple[str, ...] = ()
    printed: str = ""
    called: tuple[str, ...] = ()


def probe(target: str, vendor: str = "", timeout: float = 120) -> Probe:
    """Imports an entry point's ``"package.module"`` or ``"package.module:object"`` in a fresh process.

    A module that crashes the interpreter, or never comes back, is a finding and not the end.

    Args:
        target: What to import.
        vendor: Load this plugin instead, as pvzoo does, so that faults of its hooks are seen too.
        timeout: Seconds until it counts as hanging.
    """
    return _probe(target, vendor, timeout, os.pathsep.join(filter(None, sys.path)))


@lru_cache(maxsize=256)
def _probe(target: str, vendor: str, timeout: float, path: str) -> Probe:
    code = "import sys\nfrom pvzoo.testing.watch import report\nreport(*sys.argv[1:])"
    environment = {**os.environ, "PYTHONPATH": path}  # the other process finds what this one finds
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, target, vendor],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=environment,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return Probe(f"hangs: not imported after {timeout:g} seconds", timeout)
    if done.returncode < 0:
        return Probe(f"killed by signal {-done.returncode}")
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Probe(f"exit code {done.returncode}: {reason}")
    return Probe(found["fault"], found["seconds"], tuple(found["heavy"]), found["printed"], tuple(found["called"]))


def report(target: str, vendor: str = "") -> None:
    """The other side of :func:`probe`: imports, and prints what it saw as JSON."""
    fault = ""
    start = time.perf_counter()
    with watched() as seen:
        if vendor:
            fault = _loaded(vendor)
        else:
            module, _, attribute = target.partition(":")
            value = import_module(module)
            for part in filter(None, attribute.split(".")):
                value = getattr(value, part)
    heavy = tuple(name for name in HEAVY if name in sys.modules)
    found = Probe(fault, time.perf_counter() - start, heavy, seen.printed, tuple(seen.called))
    assert sys.__stdout__ is not None
    sys.__stdout__.write(json.dumps(asdict(found)) + "\n")


def _loaded(vendor: str) -> str:
    """Loads a plugin; returns why it cannot be used, or an empty string."""
    host = Host()
    for plugin in host.plugins:
        if plugin.vendor == vendor:
            host.load(plugin)
            return "" if plugin.state == "loaded" else plugin.problem()
    return f"no installed plugin has vendor name {vendor!r}"
