"""Score files: pvzoo's, CCNet's, bob's; what is read, what is written, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pvzoo import EvaluationError
from pvzoo.evaluation.scorefile import ScoreSet, read_scores, score_set, write_scores
from pvzoo.evaluation.scores import Comparisons
from pvzoo.evaluation.trials import Population, gallery_probe

NAMED = "score,probe,reference,probe_identity,reference_identity\n"
CSV = NAMED + "0.9,a2,a1,a,a\n0.2,a2,b1,a,b\n0.4,b2,a1,b,a\n0.7,b2,b1,b,b\n"


@pytest.fixture
def file(tmp_path: Path) -> Any:
    def write(text: str, name: str = "scores.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (CSV, True),
        ("\ufeff" + CSV.replace("\n", "\r\n"), True),
        (CSV.replace("score,", "note,genuine, score ,").replace("\n0", "\nx,,0").replace("x,,0.", "x,1,0."), None),
        ("genuine,score\n1,0.9\n0,0.2\nfalse,0.4\nTRUE,0.7\n", False),
        ("0.9 1\n0.2 -1\n0.4 -1\n0.7 1\n", False),
        ("0.9\t1.0\n2e-1 -1.0\n\n0.4 -1\n0.7 1\n", False),
        ("# claimed real probe score\na a a2 0.9\nb a a2 0.2\na b b2 0.4\nb b b2 0.7\n", True),
        ("a a1 a a2 0.9\nb b1 a a2 0.2\n# half\na a1 b b2 0.4\nb b1 b b2 0.7\n", True),
    ],
    ids=["csv", "csv of Windows", "contradiction", "flags", "ccnet", "ccnet of numpy", "bob4", "bob5"],
)
def test_all_formats_say_the_same(file: Any, text: str, named: bool | None) -> None:
    if named is None:
        with pytest.raises(EvaluationError, match=r"line 3: says genuine, and the identities are 'a' and 'b'$"):
            read_scores(file(text))
        return
    found = read_scores(file(text))
    assert found.scores.tolist() == [0.9, 0.2, 0.4, 0.7]
    assert found.genuine.tolist() == [True, False, False, True]
    assert (found.counts.genuine, found.counts.impostor) == (2, 2)
    if not named:
        assert found.who is None
        assert (found.counts.subjects, found.subjects, found.first_subject) == (None, 0, None)
        return
    who = found.who
    assert who is not None
    assert [who.probe.names[sample] for sample in who.probe.sample] == ["a2", "a2", "b2", "b2"]
    assert [who.identities[i] for i in who.reference.identity[who.reference.sample]] == ["a", "b", "a", "b"]
    assert [who.identities[i] for i in who.probe.identity[who.probe.sample]] == ["a", "a", "b", "b"]
    assert (found.counts.subjects, found.counts.identities) == (2, 2)


def test_distances_are_turned_round(file: Any) -> None:
    found = read_scores(file("0.1 1\n0.6 -1\n", "scores_VeriEER.txt"), distances=True)
    assert found.scores.tolist() == [-0.1, -0.6]


def test_subjects_may_be_told(file: Any) -> None:
    header = NAMED.strip() + ",probe_subject,reference_subject\n"
    found = read_scores(file(header + "1,a2,a1,anna/left,anna/left,anna,anna\n0,a2,b,anna/left,anna/right,anna,anna\n"))
    assert (found.counts.subjects, found.counts.identities) == (1, 2)
    assert found.first_subject is not None and found.first_subject.tolist() == [0, 0, 0]


WRONG = {
    "": "there are no scores in it",
    "\n# nothing\n": "there are no scores in it",
    "score,genuine\n": "there are no scores in it",
    "scores,genuine\n1,1\n": "there is no column 'score'; did you mean 'scores'?",
    "score,label\n1,1\n": "there is no column 'genuine'; it has score, label",
    "score,probe,reference\n1,a,b\n": "there is no column 'probe_identity'; it has score, probe, reference",
    NAMED.strip() + ",probe_subject\n1,a,b,c,d,e\n": (
        "probe_subject and reference_subject go together, and one of them is missing"
    ),
    "score,genuine\n1,1\n\n0.5\n": "line 4: 1 columns, and the header has 2",
    "score,genuine\n1,1\n0.5,maybe\n": "line 3: genuine must be 1 or 0, not 'maybe'",
    "score,genuine\n1,1\n0.5,\n": "line 3: genuine must be 1 or 0, not ''",
    "score,genuine\n1,1\nnan,0\n": "line 3: the score is 'nan'; a finite number is needed",
    "score,genuine\n1,1\n-inf,0\n": "line 3: the score is '-inf'; a finite number is needed",
    "score,genuine\n1,1\n1e200,0\n": "line 3: the score is '1e200'; a finite number is needed",
    "score,genuine\n1,1\nhigh,0\n": "line 3: the score is 'high'; a finite number is needed",
    "score,genuine\n1,1\n,0\n": "line 3: the score is missing",
    "score,genuine\n1,1\n0.5,1\n": "there is no impostor comparison among 2 scores; error rates need both classes",
    "1 -1\n": "there is no genuine comparison among 1 scores; error rates need both classes",
    "1 1\n2 0\n": "line 2: the label must be 1 or -1, not '0'",
    "1 1\n2 -1 x\n": "line 2: 3 columns; the lines before have 2",
    "1 1 1\n": "line 1: 3 columns; a score file has 2 (CCNet), 4 or 5 (bob), or commas",
    NAMED + "1,a,b,x,x\n1,c,b,,x\n": "line 3: probe_identity is missing",
    NAMED + "1,a,b,x,x\n1, ,b,y,x\n": "line 3: probe is missing",
    NAMED + "1,a,b,x,x\n1,c,a,y,y\n": "line 3: the identity of 'a' was another in line 2",
    NAMED + "1,a,b,x,x\n0,c,b,y,x\n1,a,b,x,x\n": "line 4: 'a' and 'b' were compared in line 2 already",
    NAMED + "1,a,b,x,x\n0,c,b,y,x\n1,b,a,x,x\n": "line 4: 'b' and 'a' were compared in line 2 already",
    NAMED + "1,a,b,x,x\n0,c,c,y,y\n": "line 3: 'c' is compared with itself",
    NAMED.strip() + ",probe_subject,reference_subject\n1,a,b,x,x,s,s\n0,c,d,y,x,t,t\n": (
        "line 3: identity 'x' is of subject 't', and was of another before"
    ),
    "a a p 1\nb a p 0\na a p 2\n": (
        "line 3: 'p' and 'a' were compared in line 1 already; if the identity has several references, "
        "five columns tell them apart"
    ),
    "a m a p 1\nb m b q 1\n": "line 2: the identity of 'm' was another in line 1",
    'score,genuine\n"1,1\n': "line 2: 1 columns, and the header has 2",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=range(len(WRONG)))
def test_refused(file: Any, text: str, message: str) -> None:
    path = file(text)
    with pytest.raises(EvaluationError) as caught:
        read_scores(path)
    assert str(caught.value) == f"{path}: {message}"


def test_files_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "scores.npz").write_bytes(b"PK\x03\x04\xff\xfe" * 10)
    with pytest.raises(EvaluationError, match=r"scores.npz: not a text file of scores"):
        read_scores(tmp_path / "scores.npz")
    with pytest.raises(EvaluationError, match=r"none.csv: cannot be read: No such file or directory$"):
        read_scores(tmp_path / "none.csv")
    with pytest.raises(EvaluationError, match=r"cannot be read: Is a directory$"):
        read_scores(tmp_path)


def test_progress_is_told_in_bytes(file: Any) -> None:
    done: list[int] = []
    path = file("score,genuine\n" + "0.5,1\n0.25,0\n" * 20_000)
    read_scores(path, advance=done.append)
    assert len(done) > 3 and sum(done) == path.stat().st_size


# --- writing ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def compared() -> ScoreSet:
    """Two hands of three people, one reference and two probes each; scores of the model's own precision."""
    labels = [f"{subject}/{hand}" for subject in ("anna", "ben", "cho") for hand in ("left", "right")] * 3
    population = Population.of(labels, [label.partition("/")[0] for label in labels])
    vectors = torch.randn(18, 8, generator=torch.Generator().manual_seed(0))
    source = Comparisons(vectors, population, gallery_probe(range(6), range(6, 18)))
    return score_set(source, [f"{label}/{number}" for number, label in enumerate(labels)])


def told(scores: ScoreSet, *, references: bool = True) -> set[tuple[Any, ...]]:
    who = scores.who
    assert who is not None
    lines = set()
    for score, probe, reference in zip(scores.scores, who.probe.sample, who.reference.sample, strict=True):
        mine, other = who.probe.identity[probe], who.reference.identity[reference]
        name = who.reference.names[reference] if references else ""
        lines.add((float(score), who.probe.names[probe], name, who.identities[mine], who.identities[other]))
    return lines


@pytest.mark.parametrize("format", ["csv", "bob5", "bob4", "ccnet"])
def test_what_is_written_is_read_again(tmp_path: Path, compared: ScoreSet, format: Any) -> None:
    path = tmp_path / "scores"
    write_scores(path, compared, format)
    again = read_scores(path)
    assert again.scores.tolist() == compared.scores.tolist()
    assert again.genuine.tolist() == compared.genuine.tolist()
    if format != "ccnet":
        assert told(again, references=format != "bob4") == told(compared, references=format != "bob4")
    if format == "csv":
        assert again.who is not None and again.who.subjects == ("anna", "ben", "cho")
    assert [file.name for file in tmp_path.iterdir()] == ["scores"]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(-1e100, 1e100), st.booleans()), min_size=1))
def test_no_digit_is_lost(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, bool]]) -> None:
    rows += [(1.0, True), (-1.0, False)]
    scores = ScoreSet(np.array([score for score, _ in rows]), np.array([flag for _, flag in rows]))
    path = tmp_path_factory.getbasetemp() / "digits.csv"
    for format in ("csv", "ccnet"):
        write_scores(path, scores, format)
        again = read_scores(path)
        assert again.scores.tolist() == scores.scores.tolist()
        assert again.genuine.tolist() == scores.genuine.tolist()


def test_bob_columns_are_in_bobs_order(tmp_path: Path, file: Any) -> None:
    scores = read_scores(file(CSV))
    write_scores(tmp_path / "four", scores, "bob4")
    assert (tmp_path / "four").read_text().splitlines()[1] == "b a a2 0.2"
    write_scores(tmp_path / "five", scores, "bob5")
    assert (tmp_path / "five").read_text().splitlines()[1] == "b b1 a a2 0.2"
    write_scores(tmp_path / "two", scores, "ccnet")
    assert (tmp_path / "two").read_text().splitlines()[:2] == ["0.9 1", "0.2 -1"]


def test_formats_that_cannot_hold_the_scores(tmp_path: Path, file: Any) -> None:
    path = tmp_path / "out"
    with pytest.raises(EvaluationError, match=r"out: bob's files say who was compared, and these scores do not$"):
        write_scores(path, read_scores(file("1 1\n0 -1\n")), "bob5")
    with pytest.raises(EvaluationError, match=r"'anna left' has white space or starts with '#'$"):
        write_scores(path, read_scores(file(NAMED + "1,a,b,x,x\n0,a,c,x,anna left\n")), "bob5")
    several = read_scores(file(CSV + "0.8,b2,b3,b,b\n"))
    with pytest.raises(EvaluationError, match=r"has several references, and four columns cannot tell; write bob5$"):
        write_scores(path, several, "bob4")
    with pytest.raises(EvaluationError, match=r"cannot be written: No such file or directory$"):
        write_scores(tmp_path / "nowhere" / "out", several, "csv")
    assert not path.exists()


def test_a_score_set_is_checked_too() -> None:
    with pytest.raises(EvaluationError, match=r"^score 1 is nan, not a number that can be counted$"):
        ScoreSet(np.array([0.0, np.nan]), np.array([True, False]))
