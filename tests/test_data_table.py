"""The table: one order whatever the order of files, and the same records back from CSV and Parquet."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvzoo import DataError
from pvzoo.data.adapters import open_layout
from pvzoo.data.adapters.base import UNNUMBERED, numbered
from pvzoo.data.table import COLUMNS, PAIRINGS, Record, Table

SUFFIXES = ("csv", "parquet")

# What a file name, or a cell of somebody's CSV, may hold: commas, quotes, line ends, any letter.
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
part = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=12)
paths = st.lists(part.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3).map("/".join)
numbers = st.integers(0, 10**18 - 1)
records = st.builds(
    Record,
    path=paths,
    modality=st.sampled_from(["palm", "vein"]),
    subject=text.filter(bool),
    hand=text,
    session=numbers,
    sample=numbers,
    spectrum=text,
    pairing=st.sampled_from(PAIRINGS),
    digest=text,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(deadline=None)
@given(st.lists(records, max_size=6))
def test_a_table_comes_back_as_it_was_written(folder: Path, suffix: str, found: list[Record]) -> None:
    table = Table(found, folder)
    path = folder / f"table.{suffix}"
    table.write(path)
    assert Table.read(path) == table
    assert list(folder.glob("*.partial")) == []


@settings(deadline=None)
@given(st.lists(records, max_size=8), st.randoms())
def test_a_table_does_not_depend_on_the_order_of_files(found: list[Record], chance: random.Random) -> None:
    shuffled = chance.sample(found, len(found))
    one, other = (Table(order, Path("/data")) for order in (found, shuffled))
    assert one == other
    assert one.digest() == other.digest()


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["1", "2", "10"]), part), unique=True, max_size=12), st.randoms())
def test_samples_without_a_number_do_not_depend_on_the_order_of_files(
    names: list[tuple[str, str]], chance: random.Random
) -> None:
    found = [Record(f"{subject}/{name}", "palm", subject, "", 1, UNNUMBERED) for subject, name in names]
    expected = numbered(list(found))
    assert set(numbered(chance.sample(found, len(found)))) == set(expected)
    for subject in {"1", "2", "10"}:
        each = sorted(record.sample for record in expected if record.subject == subject)
        assert each == list(range(1, len(each) + 1))


def test_a_scan_does_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    """Folders list names in the order in which they were made, on some file systems."""
    names = [f"LG/Flash/{hand}_{subject}/{n}.jpg" for hand in "LR" for subject in (1, 2, 10) for n in (9, 10, 2)]
    tables = []
    for seed in range(3):
        root = tmp_path / str(seed)
        for name in random.Random(seed).sample(names, len(names)):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        tables.append(open_layout("xjtu_up").scan(root))
    assert tables[0].records == tables[1].records == tables[2].records
    assert [record.path for record in tables[0]][:4] == [f"LG/Flash/L_1/{n}.jpg" for n in (2, 9, 10)] + [
        "LG/Flash/R_1/2.jpg"
    ]
    assert tables[0].subjects == ("1", "2", "10")


def test_what_a_table_says_of_itself() -> None:
    table = Table(
        [
            Record("b.png", "vein", "2", "left", 1, 1, "850", "simultaneous"),
            Record("a.png", "palm", "2", "left", 1, 1, "460", "simultaneous"),
            Record("c.png", "palm", "10", "", 2, 1, "460", "virtual"),
        ],
        Path("/data"),
    )
    assert [record.path for record in table] == ["a.png", "b.png", "c.png"]
    assert (table.modalities, table.identities, table.subjects) == (("palm", "vein"), ("2/left", "10"), ("2", "10"))
    assert (table.sessions, table.pairing) == ((1, 2), "virtual")
    assert [[record.path for record in pair.records] for pair in table.pairs()] == [["a.png", "b.png"], ["c.png"]]
    assert table.pairs()[1].missing == ["vein"]
    assert Table([], Path("/data")).pairing == ""


def test_paths_are_relative_to_the_table_where_images_lie_below_it(tmp_path: Path) -> None:
    (tmp_path / "set/in").mkdir(parents=True)
    (tmp_path / "tables").mkdir()
    (tmp_path / "set/in/a b.png").write_bytes(b"x")
    table = Table([Record("in/a b.png", "palm", "1")], tmp_path / "set")
    table.write(tmp_path / "table.csv")
    table.write(tmp_path / "tables/table.parquet")
    assert [record.path for record in Table.read(tmp_path / "table.csv")] == ["set/in/a b.png"]
    assert [record.path for record in Table.read(tmp_path / "tables/table.parquet")] == [f"{tmp_path}/set/in/a b.png"]
    (tmp_path / "moved").mkdir()
    for name in ("set", "table.csv"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    (record,) = moved = Table.read(tmp_path / "moved/table.csv")
    assert moved.file(record).read_bytes() == b"x"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_columns_of_other_programs(tmp_path: Path, suffix: str) -> None:
    """In any order, with more of them, and with whole numbers where pandas has made them."""
    path = tmp_path / f"table.{suffix}"
    rows = {"subject": [0, 7], "note": ["x", None], "modality": ["palm", "vein"], "path": ["0.png", "1.png"]}
    if suffix == "csv":
        lines = [
            ",".join(rows),
            *(",".join("" if cell is None else str(cell) for cell in row) for row in zip(*rows.values(), strict=True)),
        ]
        path.write_text("\n".join(lines))
    else:
        pyarrow.parquet.write_table(pyarrow.table({**rows, "session": [1.0, None]}), path)
    session = 1 if suffix == "parquet" else 0
    assert list(Table.read(path)) == [Record("0.png", "palm", "0", session=session), Record("1.png", "vein", "7")]


START = "path,modality,subject,session,pairing\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (START + "a,palm,1,x,\n", "line 2: session must be a whole number from 0, not 'x'"),
        (START + "a,palm,1,-1,\n", "line 2: session must be a whole number from 0, not '-1'"),
        (START + f"a,palm,1,{'9' * 5000},\n", f"line 2: session must be a whole number from 0, not '{'9' * 5000}'"),
        (START + "a,palm,1,,\n,palm,1,,\n", "line 3: path is empty"),
        (START + "a,palm,,,\n", "line 2: subject is empty"),
        (START + "a,iris,1,,\n", "line 2: modality must be one of palm, vein, not 'iris'"),
        (START + "a,palm,1,,sure\n",
         "line 2: pairing must be one of simultaneous, same_sample, same_identity, virtual, not 'sure'"),
        (START + "a,palm,1,,,b\n",
         "line 2: has more cells than there are columns; put quotes around cells with commas"),
        ("path,subject\n", "a table needs column 'modality'; this file has path, subject"),
        ("", "a table needs column 'path'; this file has none"),
        (b"\xff\xfe\x00", "not a CSV file: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
)  # fmt: skip
def test_faults_of_csv_files(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read_fault(path) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a"], "modality": ["palm"], "subject": [[1]]}, "row 1: subject must be text, not [1]"),
        ({"path": ["a"], "modality": ["palm"], "subject": ["1"], "session": [1.5]},
         "row 1: session must be text, not 1.5"),
        ({"path": ["a", None], "modality": ["palm"] * 2, "subject": ["1"] * 2}, "row 2: path is empty"),
        ({"path": ["a"]}, "a table needs column 'modality'; this file has path"),
    ],
)  # fmt: skip
def test_faults_of_parquet_files(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = tmp_path / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    assert read_fault(path) == f"{path}: {message}"


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    assert read_fault(tmp_path / "a.parquet").startswith(f"{tmp_path}/a.parquet: not a Parquet file: ")
    end = "no such file; 'pvzoo data scan DIR --layout NAME -o b.csv' makes one"
    assert read_fault(tmp_path / "b.csv") == f"{tmp_path}/b.csv: {end}"
    end = "a table is a .csv or .parquet file; 'pvzoo data scan' makes one from a folder"
    assert read_fault(tmp_path / "b.json") == f"{tmp_path}/b.json: {end}"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("table.json", "a table is a .csv or .parquet file"),
        ("no/table.csv", "there is no folder {root}/no"),
        ("folder.csv", "cannot be written: Is a directory"),
    ],
)
def test_where_no_table_can_be_written(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError) as caught:
        Table([], tmp_path).write(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: {message.format(root=tmp_path)}"
    assert list(tmp_path.glob("*.partial")) == []


@pytest.mark.parametrize(
    ("suffix", "record"),
    [
        ("csv", Record("\udcff.png", "palm", "1")),
        ("parquet", Record("\udcff.png", "palm", "1")),
        ("parquet", Record("a.png", "palm", "1", sample=10**30)),
        ("csv", Record("a.png", "palm", "1", session=10**18)),
    ],
)
def test_what_no_table_can_hold(tmp_path: Path, suffix: str, record: Record) -> None:
    with pytest.raises(DataError, match=f"table.{suffix}: a value cannot be written: "):
        Table([record], tmp_path).write(tmp_path / f"table.{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_the_columns_are_those_of_the_docs() -> None:
    docs = (Path(__file__).parents[1] / "docs/data.md").read_text(encoding="utf-8")
    rows = docs.partition("| column |")[2].partition("\n\n")[0].splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(COLUMNS)


def read_fault(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        Table.read(path)
    return str(caught.value)
