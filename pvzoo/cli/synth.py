"""Drawing a SynthPalm data set. OpenCV is imported when the command runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..progress import track
from .output import console


def synth(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.", show_default=False)],
    release: Annotated[str, typer.Option(help="Named release: synthpalm-mini or synthpalm-v1.")] = "synthpalm-v1",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; all cores if left out.", show_default=False)
    ] = None,
) -> None:
    """Draw a data set of palmprint and palm-vein images of identities that do not exist.

    A run that was ended goes on where it stopped; the images do not depend on the number of processes.

    Example: [bold]pvzoo synth --release synthpalm-mini --out palms[/]
    """
    from ..synth import generate
    from ..synth import release as find

    config = find(release)
    with track(release, len(config)) as advance:
        generate(release, out, workers=workers or os.cpu_count() or 1, progress=advance)
    text = f"{len(config)} pairs of {config.subjects * 2} hands in {out}"
    console.print(text, highlight=False, markup=False, soft_wrap=True)
