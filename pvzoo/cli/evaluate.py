"""``pvzoo eval``: how well palms are told apart. torch is imported when the command runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from hashlib import file_digest
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import EvaluationError
from ..extras import MissingExtraError
from ..progress import track
from .output import console, note, silence_pillow, table
from .settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..evaluation.extremes import Worst
    from ..evaluation.results import Evaluation
    from ..evaluation.scorefile import ScoreSet
    from ..model import Model
    from ..threshold import Threshold

FILES, MODELS, REPORT = "Scores of a file", "A model", "The report"


def evaluate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write the report to.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="Name of the zoo, a saved folder, or a spec file.", show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="A SynthPalm release; a table; or a folder.", show_default=False, rich_help_panel=MODELS),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            "-l",
            help="Layout of the folder; 'pvzoo data layouts' lists them.",
            show_default=False,
            rich_help_panel=MODELS,
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol", "-p", help="How it is split; 'pvzoo data protocols' lists them.", rich_help_panel=MODELS
        ),
    ] = "open_subject",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A parameter of the protocol, such as fold=1 or gallery=first.",
            rich_help_panel=MODELS,
        ),
    ] = None,
    tested: Annotated[
        str | None,
        typer.Option(
            "--test", help="For cross_dataset: the data set to test on.", show_default=False, rich_help_panel=MODELS
        ),
    ] = None,
    modalities: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Those to use, such as palm; all that the model takes if left out.",
            show_default=False,
            rich_help_panel=MODELS,
        ),
    ] = "",
    device: Annotated[
        str, typer.Option(help="Where to run: auto, cpu, cuda, cuda:1, mps.", rich_help_panel=MODELS)
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Samples at once.", rich_help_panel=MODELS)] = 32,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.", rich_help_panel=MODELS)] = 0,
    baselines: Annotated[
        bool | None,
        typer.Option(
            "--baselines/--no-baselines",
            help="Matchers without training, on the same comparisons; by default for up to a million of them.",
            show_default=False,
            rich_help_panel=MODELS,
        ),
    ] = None,
    export: Annotated[
        bool,
        typer.Option(
            "--export-thresholds",
            help="Save the thresholds of dev with the model, for 'pvzoo compare' and model.verify.",
            rich_help_panel=MODELS,
        ),
    ] = False,
    write_scores: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv", help="Write all scores of the test.", show_default=False, rich_help_panel=MODELS
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            help="Scores of any matcher: a CSV with columns score,genuine or score,probe,reference,probe_identity,"
            "reference_identity, or a file of CCNet or bob.",
            show_default=False,
            rich_help_panel=FILES,
        ),
    ] = None,
    dev_scores: Annotated[
        Path | None,
        typer.Option(
            help="Scores of other subjects, to choose thresholds on.", show_default=False, rich_help_panel=FILES
        ),
    ] = None,
    distances: Annotated[
        bool,
        typer.Option(
            "--distances", help="Lower is more alike, as in the files that CCNet writes.", rich_help_panel=FILES
        ),
    ] = False,
    folds: Annotated[
        int,
        typer.Option(min=0, help="Folds of the subject bootstrap; 0 for no intervals.", rich_help_panel=REPORT),
    ] = 1000,
    seed: Annotated[
        int, typer.Option(help="Seed of the bootstrap, and of an untrained model.", rich_help_panel=REPORT)
    ] = 0,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="Write index.html and its figures.", rich_help_panel=REPORT)
    ] = True,
    pictures: Annotated[
        bool,
        typer.Option(
            "--pictures/--no-pictures", help="Show images of the worst pairs on the page.", rich_help_panel=REPORT
        ),
    ] = True,
) -> None:
    """Evaluate a model, or scores of any matcher: EER, TAR at FMR, and more, with intervals by subject.

    A model's thresholds are chosen on dev and applied to the test. The folder gets metrics.json, report.md, CSV, and
    index.html, one page with all of it.

    Examples: [bold]pvzoo eval runs/first/model --data synthpalm-mini --out report[/],
    [bold]pvzoo eval stage2_spatial --data tongji.parquet --protocol closed_s1_s2 --out report[/],
    [bold]pvzoo eval --scores scores.csv --out report[/]
    """
    given = {
        "--data": data,
        "--layout": layout,
        "--set": settings,
        "--test": tested,
        "--modalities": modalities,
        "--export-thresholds": export,
        "--write-scores": write_scores,
        "--dev-scores": dev_scores,
        "--distances": distances,
    }
    _check_kind(model, scores, [option for option, value in given.items() if value])
    _check_out(out, write_scores)
    if scores is not None:
        found = _of_scores(scores, dev_scores, distances, folds, seed)
    else:
        assert model is not None and data is not None
        job = _Job(model, data, layout, protocol, read_settings(settings or [], "NAME=VALUE, such as fold=1"), tested)
        used = tuple(filter(None, modalities.replace(",", " ").split()))
        how = {"folds": folds, "seed": seed, "batch_size": batch_size, "workers": workers, "modalities": used}
        found = _of_model(job, device, how, baselines=baselines, pictures=page and pictures, export=export)
    _write(found, out, write_scores, page)


@dataclass(frozen=True)
class _Job:
    """Which model on what."""

    model: str
    data: str
    layout: str | None
    protocol: str
    params: dict[str, Any]
    tested: str | None


@dataclass
class _Found:
    """What there is to write."""

    result: Evaluation
    worst: Worst
    baselines: dict[str, Evaluation] = field(default_factory=dict)
    left_out: str = ""
    scores: Callable[[], ScoreSet] | None = None


def _check_kind(model: str | None, scores: Path | None, given: list[str]) -> None:
    """One of MODEL and ``--scores``, and options of that one alone."""
    if (model is None) == (scores is None):
        raise EvaluationError("give a MODEL, or --scores FILE" + ("" if scores is None else ", not both"))
    of_scores = {"--dev-scores", "--distances"}
    for option in given:
        if (option in of_scores) != (scores is not None):
            raise EvaluationError(f"{option} belongs to {'--scores FILE' if option in of_scores else 'a MODEL'}")
    if model is not None and "--data" not in given:
        raise EvaluationError("--data is missing: a SynthPalm release such as synthpalm-mini, a table, or a folder")


def _check_out(out: Path, write_scores: Path | None) -> None:
    if out.exists() and not out.is_dir():
        raise EvaluationError(f"{out}: is a file; a folder is needed")
    for path in filter(None, (out, write_scores)):
        if not path.absolute().parent.is_dir():
            raise EvaluationError(f"{path}: there is no folder {path.absolute().parent}")
    if write_scores is not None and write_scores.suffix.lower() != ".csv":
        raise EvaluationError(f"{write_scores}: scores are written as .csv")


def _of_model(
    job: _Job, device: str, how: dict[str, Any], *, baselines: bool | None, pictures: bool, export: bool
) -> _Found:
    """A model on a protocol of a data set."""
    from ..data.params import Data
    from ..data.protocols import open_protocol
    from ..data.sources import open_images
    from ..evaluation import floor
    from ..evaluation.models import evaluate_model
    from ..evaluation.pictures import worst_pairs
    from .loading import open_model, weights_of

    silence_pillow()
    chosen = open_protocol(job.protocol, job.params)
    net = open_model(job.model, device, how["seed"])
    folder = _exportable(job.model, net) if export else None
    images = open_images(Data(source=job.data, layout=job.layout))
    tested = None if job.tested is None else open_images(Data(source=job.tested))
    split = chosen.split(images.table, *([] if tested is None else [tested.table]))
    done = evaluate_model(net, images, split, name=job.model, tested=tested, track=track, **how)
    if folder is not None:
        _export(net, done.thresholds, folder)
    # After the export: it writes the same tensors, and a file with another digest.
    protocol = {"model": job.model, **weights_of(job.model, net), **done.result.protocol}
    reader = (tested or images).reader
    used = how["modalities"] or net.spec.modalities
    total = split.test.genuine + split.test.impostor
    with track("looking for the worst pairs", total) as advance:
        worst = worst_pairs(done.scores, done.samples, reader, used if pictures else (), advance=advance)
    found = _Found(replace(done.result, protocol=protocol), worst, scores=done.score_set)
    if baselines is False:
        found.left_out = "left out, as --no-baselines asks"
    elif baselines is None and total > floor.AFFORDABLE:
        found.left_out = f"left out, as {total:,} comparisons take them long; --baselines has them all the same"
    else:
        try:
            found.baselines = floor.floors(split.test, reader, used, folds=how["folds"], seed=how["seed"], track=track)
        except (EvaluationError, MissingExtraError) as error:
            if baselines:
                raise
            found.left_out = f"left out: {error}"
    return found


def _exportable(name: str, net: Model) -> Path:
    """The folder that thresholds can be saved in."""
    folder = Path(name.removeprefix("local-dir:")).expanduser()
    if not folder.is_dir():
        raise EvaluationError(f"--export-thresholds saves into a model's folder, and {name} is none")
    if net.untrained:
        raise EvaluationError(f"{name} is untrained; thresholds of random weights decide nothing")
    return folder


def _export(net: Model, thresholds: Sequence[Threshold], folder: Path) -> None:
    """Saves thresholds with their model, which else stays as it is on disk.

    They take the place of older ones of the same modalities.
    """
    from ..weights import header_at

    stored = {dtype for dtype, _ in header_at(folder).tensors.values() if dtype.is_floating_point}
    measured = {cut.modalities for cut in thresholds}
    net.set_thresholds([*(cut for cut in net.thresholds if cut.modalities not in measured), *thresholds])
    net.save(folder, dtype=stored.pop() if len(stored) == 1 else None)
    targets = ", ".join(f"{cut.target:g}" for cut in thresholds if cut.target is not None)
    note(f"{folder}: has thresholds now" + (f" for an FMR of {targets}" if targets else ", but for the EER alone"))


def _of_scores(path: Path, dev_path: Path | None, distances: bool, folds: int, seed: int) -> _Found:
    """Scores of a file."""
    from ..evaluation import extremes, results

    found = _read(path, distances)
    chosen = []
    if dev_path is not None:
        dev = _read(dev_path, distances)
        _check_disjoint(dev, found)
        chosen = results.choose_thresholds(dev, name=dev_path.name)
    with track("evaluating", len(found.scores) * results.passes(found, folds)) as advance:
        protocol = _protocol(path, dev_path)
        result = results.evaluate(found, dev=chosen, folds=folds, seed=seed, protocol=protocol, advance=advance)
    return _Found(result, extremes.worst_of(found))


def _write(found: _Found, out: Path, write_scores: Path | None, page: bool) -> None:
    """Writes files and prints the figures; the page comes last, since it needs more."""
    from ..evaluation import report
    from ..evaluation.scorefile import write_scores as write

    result = found.result
    beside = report.Beside(join(["pvzoo", *sys.argv[1:]]), found.baselines, found.left_out, found.worst)
    files = report.write_report(result, out, beside)
    if write_scores is not None and found.scores is not None:
        write(write_scores, found.scores(), "csv")
    rows = [
        (each.title, report.number(each.value), report.span(each.interval), report.remarks(each))
        for each in result.figures
    ]
    rows += [
        (f"EER of {name}", report.number(each.eer.value), report.span(each.figure("eer").interval), "baseline")
        for name, each in found.baselines.items()
    ]
    table(("figure", "value", "95% interval", "remarks"), rows)
    counts = result.counts
    rests = f"{report.amount(counts.subjects)} subjects, {report.amount(counts.identities)} identities, "
    rests += f"{counts.genuine:,} genuine and {counts.impostor:,} impostor comparisons"
    console.print(f"{files[0]}: {rests}", highlight=False, markup=False, soft_wrap=True)
    for warning in result.warnings:
        note(f"warning: {warning}")
    if found.left_out:
        note(f"baselines: {found.left_out}")
    if page:
        from ..evaluation.page import write_page

        console.print(f"{write_page(result, out, beside)[0]}", highlight=False, markup=False, soft_wrap=True)


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
