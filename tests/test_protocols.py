"""Protocols: who trains and who is tested, what is refused, and that nothing but the seed decides."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvzoo import DataError, UnknownNameError
from pvzoo.data.protocols import PROTOCOLS, open_protocol
from pvzoo.data.split import Comparisons, LeakError, Split, reasons
from pvzoo.data.table import Pair, Record, Table

ROOT = Path("data")


def records(
    subjects: int = 10, sessions: int = 2, samples: int = 4, hands: tuple[str, ...] = ("left", "right")
) -> list[Record]:
    return [
        Record(
            f"{m}/{subject}_{hand}_{session}_{sample}.png", m, str(subject), hand, session, sample, "", "simultaneous"
        )
        for subject in range(1, subjects + 1)
        for hand in hands
        for session in range(1, sessions + 1)
        for sample in range(1, samples + 1)
        for m in ("palm", "vein")
    ]


def table(**counts: Any) -> Table:
    return Table(records(**counts), ROOT)


def split(name: str, data: Table | None = None, **params: Any) -> Split:
    return open_protocol(name, params).split(data or table())


def names(pairs: Iterable[Pair], what: str) -> set[Any]:
    return {getattr(pair, what) for pair in pairs}


# Identities, subjects, samples, genuine and impostor comparisons, of 20 hands x 2 sessions x 4 samples.
COUNTS = """
closed_s1_s2   {}                   train 20 10 60    dev 20 10 80 60 1,140    test 20 10 160 320 6,080
closed_s2_s1   {"gallery":"first"}  train 20 10 60    dev 20 10 40 20 380      test 20 10 100 80 1,520
closed_first_k {"k":5}              train 20 10 80    dev 20 10 100 80 1,520   test 20 10 160 300 5,700
closed_mixed   {"k":3}              train 20 10 100   dev 20 10 120 100 1,900  test 20 10 160 240 4,560
open_half      {}                   train 7 6 56      dev 3 2 24 84 192        test 10 8 80 280 2,880
open_1_3       {}                   train 3 3 24      dev 2 2 16 56 64         test 15 10 120 420 6,720
open_subject   {}                   train 14 7 112    dev 2 1 16 56 64         test 4 2 32 112 384
open_subject   {"gallery":2}        train 14 7 112    dev 2 1 16 24 24         test 4 2 32 48 144
few_shot_k     {"k":1}              train 18 9 18     dev 2 1 16 14 14         test 18 9 144 126 2,142
"""


@pytest.mark.parametrize("line", COUNTS.strip().splitlines(), ids=lambda line: "".join(line.split()[:2]))
def test_counts(line: str) -> None:
    name, params, *expected = line.split()
    parts = split(name, **json.loads(params)).counts()
    assert [word for part, counts in parts.items() for word in (part, *(f"{n:,}" for n in counts.values()))] == expected


@pytest.mark.parametrize("name", sorted(set(PROTOCOLS) - {"pairs", "cross_dataset"}))
def test_every_image_has_one_place_and_comparisons_are_what_is_counted(name: str) -> None:
    made = split(name, gallery=1)
    pairs = table().pairs()
    placed = [*made.train, *made.dev.probes, *made.test.probes, *(item.pair for item in made.excluded)]
    galleries = {*made.dev.gallery, *made.test.gallery}
    assert len(placed) == len(set(placed))
    assert {*placed, *galleries} == set(pairs)
    for part in (made.dev, made.test):
        compared = [(a, b) for a in part.gallery for b in part.probes]
        assert part.genuine == sum(a.identity == b.identity for a, b in compared) > 0
        assert part.impostor == sum(a.identity != b.identity for a, b in compared) > 0


def test_closed_sets_keep_sessions_apart_and_hold_dev_out_of_training() -> None:
    made = split("closed_s1_s2")
    assert (
        names(made.train, "session") == names(made.test.gallery, "session") == names(made.dev.probes, "session") == {1}
    )
    assert names(made.test.probes, "session") == {2}
    assert not set(made.train) & set(made.dev.probes)
    assert set(made.train) | set(made.dev.probes) == set(made.test.gallery)
    assert len(made.classes) == 20
    assert made.notes == ()


def test_open_sets_keep_identities_apart() -> None:
    for name in ("open_half", "open_1_3", "open_subject"):
        made = split(name)
        sides = [names(part, "identity") for part in (made.train, made.dev.samples, made.test.samples)]
        assert sum(map(len, sides)) == len(set.union(*sides)) == 20


def test_open_subject_never_has_a_persons_other_hand_on_another_side() -> None:
    tested: list[str] = []
    for fold in range(3):
        made = split("open_subject", folds=3, fold=fold)
        sides = [names(part, "subject") for part in (made.train, made.dev.samples, made.test.samples)]
        assert sum(map(len, sides)) == len(set.union(*sides)) == 10
        tested += sides[2]
    assert sorted(tested, key=int) == [str(subject) for subject in range(1, 11)]


@settings(max_examples=25, deadline=None)
@given(
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 5),
    name=st.sampled_from(["open_subject", "open_half", "few_shot_k"]),
)
def test_the_split_depends_on_the_seed_and_not_on_the_order_of_files(
    order: random.Random, seed: int, name: str
) -> None:
    shuffled = records()
    order.shuffle(shuffled)
    assert split(name, Table(shuffled, ROOT), seed=seed) == split(name, seed=seed)


def test_seeds_differ() -> None:
    assert len({split("open_subject", seed=seed).test for seed in range(5)}) == 5


def test_a_new_subject_moves_nobody_in_the_order() -> None:
    protocol = open_protocol("open_subject")
    before, after = (protocol.ordered(map(str, range(n)), "test") for n in (10, 11))
    assert [name for name in after if name != "10"] == before


LEAKS = "leaks sessions: images that one identity gave in one session both train and are tested"


@pytest.mark.parametrize(
    ("name", "data", "note"),
    [
        ("closed_mixed", table(), LEAKS),
        ("closed_first_k", table(), LEAKS),
        ("few_shot_k", table(), LEAKS),
        ("open_half", table(), "a person's other hand may be on the other side; open_subject keeps them together"),
        (
            "open_subject",
            table(subjects=20, hands=("",)),
            "the table tells no hands: if it has a person's two hands as two subjects, they may be apart",
        ),
    ],
)
def test_what_a_reader_must_know_is_noted(name: str, data: Table, note: str) -> None:
    assert split(name, data).notes == (note,)


def test_first_k_that_is_a_whole_session_leaks_none() -> None:
    assert split("closed_first_k", k=4).notes == ()


def lacking(modality: str, subject: str) -> Table:
    return Table([r for r in records() if (r.modality, r.subject, r.sample) != (modality, subject, 1)], ROOT)


def test_samples_without_a_modality_are_listed_kept_or_refused() -> None:
    data = lacking("vein", "3")
    made = split("open_subject", data)
    (reason, pairs), = reasons(made.excluded).items()  # fmt: skip
    assert (reason, len(pairs)) == ("no vein image", 4)
    kept = split("open_subject", data, incomplete="keep")
    assert kept.excluded == ()
    assert sum(bool(pair.missing) for pair in (*kept.train, *kept.dev.samples, *kept.test.samples)) == 4
    message = "4 of 160 samples lack a modality, the first identity 3/left, session 1, sample 1: no vein image"
    with pytest.raises(DataError, match=message):
        split("open_subject", data, incomplete="refuse")


def test_identities_that_cannot_be_tested_are_listed() -> None:
    data = Table([r for r in records() if (r.subject, r.session) != ("2", 2)], ROOT)
    made = split("closed_s1_s2", data)
    assert {reason: len(pairs) for reason, pairs in reasons(made.excluded).items()} == {
        "an identity without a sample to test": 8
    }
    assert len(made.classes) == 18
    three = split("closed_s1_s2", table(sessions=3))
    assert {reason: len(pairs) for reason, pairs in reasons(three.excluded).items()} == {
        "a session that is not used": 80
    }


NOTHING = "there is nothing to divide: the first of the samples is of an identity without a sample to test"


@pytest.mark.parametrize(
    ("name", "data", "params", "message"),
    [
        ("closed_s1_s2", table(sessions=1), {}, "needs two sessions, and the table has 1 (0: not known)"),
        ("open_subject", table(subjects=4), {}, "4 subjects cannot be split into 5 folds"),
        ("open_subject", table(), {"fold": 5}, "fold 5 of 5 does not exist; the last is 4"),
        ("open_subject", table(subjects=2), {"folds": 2}, "1 training subjects are too few to carve dev out of them"),
        ("open_half", table(samples=1, sessions=1), {}, "dev has no genuine comparison in 3 samples of 3 identities"),
        ("closed_first_k", table(), {"k": 8}, NOTHING),
        ("closed_first_k", table(), {"k": 1}, "dev has no genuine comparison in 20 samples of 20 identities"),
        ("cross_dataset", table(), {}, "needs a second data set, which is tested"),
    ],
)
def test_what_cannot_be_split_is_refused(name: str, data: Table, params: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        split(name, data, **params)
    assert str(caught.value) == f"{open_protocol(name, params)}: {message}"


def digested(changes: dict[str, str]) -> Table:
    return Table([replace(r, digest=changes.get(r.path, r.path)) for r in records()], ROOT)


def test_equal_bytes_on_both_sides_are_a_leak() -> None:
    made = split("open_subject", digested({}))
    a, b = made.train[0].images["palm"], made.test.samples[0].images["palm"]
    assert a and b
    with pytest.raises(LeakError) as caught:
        split("open_subject", digested({a.path: "same", b.path: "same"}))
    message = f"training and test share the bytes of a file: {a.path} ({a.identity}) and {b.path} ({b.identity}); "
    assert str(caught.value) == f"{made.protocol}: {message}remove one from the table"


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (set(), "training and test share identity 1/left and 19 more"),
        ({"identity"}, "training and test share subject 1 and 9 more"),
        ({"identity", "subject"}, "training and test share session 1"),
        ({"identity", "subject", "session"}, "training and test share the file: palm/1_left_1_1.png (1/left)"),
    ],
)
def test_a_split_with_a_leak_cannot_be_made(shares: set[Any], message: str) -> None:
    pairs = tuple(table().pairs())
    first = tuple(pair for pair in pairs if pair.session == 1)
    both = Comparisons(first, first)
    with pytest.raises(LeakError) as caught:
        Split("mine", ROOT, first, Comparisons(pairs, pairs), both, shares=frozenset(shares))
    assert str(caught.value).startswith(f"mine: {message}")


def test_cross_dataset_trains_on_one_and_tests_on_all_of_another(tmp_path: Path) -> None:
    other = Table(records(subjects=3, samples=2), tmp_path)
    made = open_protocol("cross_dataset").split(table(), other)
    assert (len(made.train), len(made.dev.samples), len(made.test.samples)) == (144, 16, 24)
    assert made.test.gallery[0].records[0].path == str(tmp_path / "palm/1_left_1_1.png")
    palms = Table([r for r in records() if r.modality == "palm"], tmp_path)
    with pytest.raises(DataError, match="train on has palm and vein, the one to test palm"):
        open_protocol("cross_dataset").split(table(), palms)
    with pytest.raises(DataError, match="takes one data set"):
        open_protocol("open_half").split(table(), other)


def listed(tmp_path: Path, lines: str) -> Split:
    (tmp_path / "list.csv").write_text(lines)
    return open_protocol("pairs", {"file": "list.csv"}).split(Table(records(), tmp_path))


def test_a_list_of_comparisons_is_the_test(tmp_path: Path) -> None:
    made = listed(tmp_path, "palm/1_left_1_1.png, palm/1_left_2_1.png,1\npalm/1_left_1_1.png,vein/2_left_1_1.png,0\n")
    assert made.test.listed == ((0, 0), (0, 1))
    assert (made.test.genuine, made.test.impostor) == (1, 1)
    assert not names(made.train, "subject") & {"1", "2"}
    assert {reason: len(pairs) for reason, pairs in reasons(made.excluded).items()} == {
        "a tested subject's, and not listed": 29
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a,b\n", "1: a line is path,path,1 (genuine) or 0, not a,b"),
        ("\nx.png,palm/1_left_1_1.png,1\n", "2: x.png is not in the table, or lacks a modality"),
        ("palm/1_left_1_1.png,palm/2_left_1_1.png,1\n", "1: listed as genuine, but the table has 1/left, 2/left"),
        ("palm/1_left_1_1.png,palm/1_left_1_1.png,1\n", "1: compares a sample with itself; remove the line"),
        (
            "palm/1_left_1_1.png,palm/1_left_1_2.png,1\nvein/1_left_1_2.png,palm/1_left_1_1.png,1\n",
            "2: compares two samples a second time; remove the line",
        ),
    ],
)
def test_faults_of_a_list_are_named_by_line(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        listed(tmp_path, lines)
    assert str(caught.value) == f"{tmp_path / 'list.csv'}:{message}"


def test_a_written_split_says_where_each_image_belongs(tmp_path: Path) -> None:
    data = Table(lacking("vein", "3").records, tmp_path)
    split("closed_s1_s2", data).write(tmp_path / "split.csv")
    with (tmp_path / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    places = Counter((row["part"], row["dev_role"], row["test_role"], row["session"]) for row in rows)
    assert places == {
        ("train", "gallery", "gallery", "1"): 2 * 58,
        ("dev", "probe", "gallery", "1"): 2 * 20,
        ("test", "", "probe", "2"): 2 * 78,
        ("excluded", "", "", "1"): 2,
        ("excluded", "", "", "2"): 2,
    }
    assert {row["protocol"] for row in rows} == {"closed_s1_s2(dev=0.1, gallery=all, incomplete=drop, seed=0)"}
    assert Table.read(tmp_path / "split.csv").records == data.records


def test_a_written_split_may_be_parquet(tmp_path: Path) -> None:
    data = Table(records(), tmp_path)
    split("open_subject", data).write(tmp_path / "split.parquet")
    assert Table.read(tmp_path / "split.parquet").records == data.records


@pytest.mark.parametrize(
    ("name", "params", "error", "message"),
    [
        ("open_subjects", {}, UnknownNameError, "no protocol named 'open_subjects'; did you mean 'open_subject'?"),
        ("open_subject", {"fold_s": 3}, DataError, "fold_s: unknown field; did you mean 'folds'?"),
        ("open_subject", {"folds": 1}, DataError, "folds: input should be greater than or equal to 2"),
        ("open_half", {"gallery": "some"}, DataError, "gallery: should be first, all, or a number from 1, got 'some'"),
        ("pairs", {}, DataError, "file: is required"),
    ],
)
def test_unknown_names_and_parameters(name: str, params: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        open_protocol(name, params)
    assert message in str(caught.value)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    """A table of files, no two of the same bytes."""
    for record in records(subjects=10, samples=2):
        (tmp_path / record.path).parent.mkdir(exist_ok=True)
        (tmp_path / record.path).write_text(record.path)
    Table(records(subjects=10, samples=2), tmp_path).write(tmp_path / "table.csv")
    return tmp_path


def test_the_command_prints_counts_and_writes_the_split(drawn: Path, run_pvzoo: Any) -> None:
    result = run_pvzoo("data", "split", "table.csv", "-p", "open_half", "--set", "seed=3", "-o", "split.csv")
    assert result.returncode == 0, result.stderr
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0] == ["open_half(dev=0.1, gallery=all, incomplete=drop, seed=3)"]
    assert [line[0] for line in lines[1:]] == ["train", "dev", "test"]
    assert lines[3] == ["test", "10", *lines[3][2:3], "40", "60", "720"]
    assert result.stderr == "note: a person's other hand may be on the other side; open_subject keeps them together\n"
    assert all(record.digest for record in Table.read(drawn / "split.csv"))


def test_the_command_refuses_equal_files_on_both_sides(drawn: Path, run_pvzoo: Any) -> None:
    for file in drawn.glob("palm/*_left_1_1.png"):
        file.write_text("the same")
    result = run_pvzoo("data", "split", "table.csv", "--protocol", "open_subject")
    assert result.returncode == 2
    assert "training and test share the bytes of a file: palm/" in result.stderr


def test_the_command_lists_protocols_and_their_parameters(run_pvzoo: Any) -> None:
    result = run_pvzoo("data", "protocols")
    assert result.returncode == 0, result.stderr
    assert {line.split("\t")[0] for line in result.stdout.splitlines()} == {*PROTOCOLS, "", "all"}
    assert "--set folds=5: parts of the subjects" in result.stdout
    assert {entry["name"] for entry in json.loads(run_pvzoo("data", "protocols", "--json").stdout)} == set(PROTOCOLS)


def test_the_command_as_json(drawn: Path, run_pvzoo: Any) -> None:
    result = run_pvzoo("data", "split", "table.csv", "-p", "closed_s1_s2", "--json")
    found = json.loads(result.stdout)
    assert found["parts"]["test"] == {"identities": 20, "subjects": 10, "samples": 80, "genuine": 80, "impostor": 1520}
