"""Writes a data set: each file appears whole, and a run that was ended goes on where it stopped."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import Literal

from ..extras import opencv
from .config import RELEASES, Key, SynthConfig, SynthError, release
from .generator import Generator

COLUMNS = ("path", "modality", "subject", "hand", "session", "sample", "spectrum", "pairing")
SPECTRA = {"palm": "visible", "vein": "nir"}
SYNTH = "synth.json"
LAYERS = {"palm": "palm", "vein": "vein", "crease_mask": "masks/crease", "vein_mask": "masks/vein"}


def generate(
    config: str | SynthConfig, out: Path, *, workers: int = 1, progress: Callable[[int], object] = lambda count: None
) -> None:
    """Writes ``palm/``, ``vein/`` and ``masks/`` of PNG files, ``synth.json``, and last of all ``table.csv``.

    Files that are there already are kept, so a run that was ended continues; the bytes do not depend on ``workers``.

    Args:
        config: A data set, or the name of a release.
        out: Folder to write to; made if it is not there.
        workers: Processes; 1 draws in this one.
        progress: Called with the number of samples that were done since the last call.

    Raises:
        SynthError: If the folder holds another data set, or cannot be written to.
    """
    name = config if isinstance(config, str) else "custom"
    config = release(config) if isinstance(config, str) else config
    if workers < 1:
        raise SynthError(f"workers is {workers}; it is at least 1")
    opencv()
    try:
        for folder in LAYERS.values():
            (out / folder).mkdir(parents=True, exist_ok=True)
        _claim(out, name, config)
        missing: dict[tuple[int, str], list[Key]] = {}
        for subject, hand in config.identities():
            keys = [key for key in config.keys(subject, hand) if not _done(out, key)]
            if keys:
                missing[subject, hand] = keys
        progress(len(config) - sum(map(len, missing.values())))
        for count in _drawn(partial(_draw, config, out), list(missing.values()), workers):
            progress(count)
        _write(out / "table.csv", _table(config).encode())
    except OSError as error:
        raise SynthError(f"{error.filename or out}: cannot be written: {error.strerror or error}") from error


def _drawn(work: Callable[[list[Key]], int], hands: list[list[Key]], workers: int) -> Iterable[int]:
    if workers == 1 or len(hands) < 2:
        yield from map(work, hands)
        return
    # spawn: a process that has loaded torch, say, or runs threads cannot be forked safely.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(hands)), mp_context=context, initializer=_start_worker)
    try:
        with _ctrl_c_later():
            futures = [pool.submit(work, keys) for keys in hands]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Workers that start here do not see Ctrl-C before they are ready to ignore it; the parent sees it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which would let signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    """Ctrl-C is the parent's to handle; a worker finishes its hand, and ends at once if the parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    opencv().setNumThreads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _draw(config: SynthConfig, out: Path, keys: list[Key]) -> int:
    """Draws and writes samples of one hand; returns their number."""
    cv2 = opencv()
    generator = Generator(config, cache=1)
    for key in keys:
        sample = generator.sample(*key)
        for layer, folder in LAYERS.items():
            _, data = cv2.imencode(".png", getattr(sample, layer), [cv2.IMWRITE_PNG_COMPRESSION, 1])
            _write(out / folder / file_name(key), data.tobytes())
    return len(keys)


def file_name(key: Key) -> str:
    """The file of a sample, the same in each folder: ``0001_left_1_01.png``."""
    subject, hand, session, sample = key
    return f"{subject:04d}_{hand}_{session}_{sample:02d}.png"


def _done(out: Path, key: Key) -> bool:
    return all((out / folder / file_name(key)).exists() for folder in LAYERS.values())


def _write(path: Path, data: bytes) -> None:
    """Writes a file beside its place and moves it there, so that no one ever sees half of it."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def _claim(out: Path, name: str, config: SynthConfig) -> None:
    """Writes synth.json, or refuses a folder in which another data set was begun."""
    generator = Generator(config)
    keys = [key for identity in config.identities() for key in config.keys(*identity)]
    head = {"release": name, "config": asdict(config)}
    file = out / SYNTH
    if file.exists():
        try:
            found = json.loads(file.read_text(encoding="utf-8"))["config"]
        except (ValueError, KeyError, TypeError) as error:
            raise SynthError(f"{file}: not what pvzoo synth writes; choose another folder") from error
        if found != head["config"]:
            raise SynthError(f"{out}: holds another data set, {found}; choose another folder")
    else:
        samples = {file_name(key).removesuffix(".png"): generator.params(*key) for key in keys}
        _write(file, (json.dumps({**head, "samples": samples}, indent=1) + "\n").encode())


def release_in(folder: Path) -> str | None:
    """The named release that a folder holds, as :func:`generate` wrote it; ``None`` if it holds something else.

    Raises:
        SynthError: If its ``synth.json`` cannot be read, or names a release that is not the one in the folder.
    """
    file = folder / SYNTH
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        name, config = str(found["release"]), found["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SynthError(f"{file}: not what pvzoo synth writes: {error}") from error
    if name not in RELEASES:
        return None
    if config != asdict(RELEASES[name]):
        raise SynthError(f"{file}: says {name}, and was drawn with other settings: {config}")
    return name


def rows(config: SynthConfig) -> Iterator[tuple[str, str, int, str, int, int, str, Literal["simultaneous"]]]:
    """What ``table.csv`` says of each image, in the order of :data:`COLUMNS`."""
    for identity in config.identities():
        for key in config.keys(*identity):
            for modality, spectrum in SPECTRA.items():
                yield f"{modality}/{file_name(key)}", modality, *key, spectrum, "simultaneous"


def _table(config: SynthConfig) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows(config))
    return text.getvalue()
