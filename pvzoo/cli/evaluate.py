"""``pvzoo eval``: how well palms were told apart. torch is imported when the command runs."""

from __future__ import annotations

import sys
from hashlib import file_digest
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import EvaluationError
from .output import console, note, table
from .progress import track

if TYPE_CHECKING:
    from ..evaluation.scorefile import ScoreSet


def evaluate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write the report to.", show_default=False)],
    scores: Annotated[
        Path,
        typer.Option(
            help="Scores of any matcher: a CSV with columns score,genuine or score,probe,reference,probe_identity,"
            "reference_identity, or a file of CCNet or bob.",
            show_default=False,
        ),
    ],
    dev_scores: Annotated[
        Path | None,
        typer.Option(help="Scores of other subjects, to choose thresholds on.", show_default=False),
    ] = None,
    distances: Annotated[
        bool, typer.Option("--distances", help="Lower is more alike, as in the files that CCNet writes.")
    ] = False,
    folds: Annotated[int, typer.Option(min=0, help="Folds of the subject bootstrap; 0 for no intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
) -> None:
    """Evaluate scores: EER, TAR at FMR, and more, with intervals by subject, as metrics.json, Markdown and CSV.

    Example: [bold]pvzoo eval --scores scores.csv --out report[/]
    """
    from ..evaluation import report, results

    _check_out(out)
    found = _read(scores, distances)
    chosen = []
    if dev_scores is not None:
        dev = _read(dev_scores, distances)
        _check_disjoint(dev, found)
        chosen = results.choose_thresholds(dev, name=dev_scores.name)
    total = len(found.scores) * results.passes(found, folds)
    with track("evaluating", total) as advance:
        result = results.evaluate(
            found, dev=chosen, folds=folds, seed=seed, protocol=_protocol(scores, dev_scores), advance=advance
        )
    files = report.write_report(result, out, command=join(["pvzoo", *sys.argv[1:]]))
    rows = [
        (each.title, report.number(each.value), report.span(each.interval), report.remarks(each))
        for each in result.figures
    ]
    table(("figure", "value", "95% interval", "remarks"), rows)
    counts = result.counts
    rests = f"{report.amount(counts.subjects)} subjects, {report.amount(counts.identities)} identities, "
    rests += f"{counts.genuine:,} genuine and {counts.impostor:,} impostor comparisons"
    console.print(f"{files[0]}: {rests}", highlight=False, markup=False, soft_wrap=True)
    for warning in result.warnings:
        note(f"warning: {warning}")


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise EvaluationError(f"{out}: is a file; a folder is needed")
    if not out.absolute().parent.is_dir():
        raise EvaluationError(f"{out}: there is no folder {out.absolute().parent}")


def _read(path: Path, distances: bool) -> ScoreSet:
    from ..evaluation.scorefile import read_scores

    with track(f"reading {path.name}", path.stat().st_size if path.is_file() else 0) as advance:
        return read_scores(path, distances=distances, advance=advance)


def _check_disjoint(dev: ScoreSet, test: ScoreSet) -> None:
    """A threshold that was chosen on the subjects of a test is not one chosen beforehand."""
    if dev.who is None or test.who is None:
        note("warning: the scores do not say whose they are, so dev and test may share subjects")
        return
    both = sorted(set(dev.who.subjects) & set(test.who.subjects))
    if both:
        raise EvaluationError(f"subject {both[0]!r} is in the dev scores and in the test scores ({len(both)} in all)")


def _protocol(scores: Path, dev_scores: Path | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, path in (("scores", scores), ("dev_scores", dev_scores)):
        if path is not None:
            with path.open("rb") as file:
                found |= {name: path.name, f"{name}_sha256": file_digest(file, "sha256").hexdigest()}
    return found
