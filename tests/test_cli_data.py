"""``pvzoo data`` as a process: what it prints, writes, and exits with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pvzoo.cli import main
from pvzoo.data.params import Data
from pvzoo.data.protocols import open_protocol
from pvzoo.data.sources import open_images
from pvzoo.data.table import Table


@pytest.fixture
def casia(tmp_path: Path) -> Path:
    """One palm of CASIA-MS, in three spectra, without one of its vein images; and two other files."""
    root = tmp_path / "casia set"
    root.mkdir()
    for number, spectrum in enumerate(("460", "850", "WHT")):
        for n in range(1, 7):
            Image.new("L", (9, 9), 20 * n + number).save(root / f"001_l_{spectrum}_0{n}.jpg")
    (root / "001_l_850_06.jpg").unlink()
    (root / "README.txt").touch()
    (root / "sheet.png").touch()
    return root


def run_ok(done: Any) -> str:
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_scan_prints_what_it_found(run_pvzoo: Callable[..., Any], casia: Path, tmp_path: Path) -> None:
    for suffix in ("csv", "parquet"):
        done = run_pvzoo("data", "scan", "casia set", "--layout", "casia_ms", "-o", f"table.{suffix}")
        assert run_ok(done).splitlines() == [
            "palm\t6 images",
            "vein\t5 images",
            "identities\t1",
            "subjects\t1",
            "sessions\t2",
            "pairing\tsimultaneous, 5 of 6 samples with palm and vein",
            "unused\t6 files of the layout",
            "unexpected\t2 files, such as README.txt",
            f"table\ttable.{suffix}",
        ]
        table = Table.read(tmp_path / f"table.{suffix}")
        assert len(table) == 11
        assert table.records[0].path == "casia set/001_l_460_01.jpg"
    assert done.stderr.splitlines() == [
        "warning: palm: 1 identity, and 200 are published",
        "warning: palm: 6 images, and 1200 are published",
        "warning: vein: 1 identity, and 200 are published",
        "warning: vein: 5 images, and 1200 are published",
        "7 findings in names alone; to list them, and open every image: pvzoo data check 'casia set' --layout casia_ms",
    ]


def test_scan_takes_parameters(run_pvzoo: Callable[..., Any], casia: Path) -> None:
    done = run_pvzoo("data", "scan", "casia set", "-l", "casia_ms", "--set", "palm=WHT", "--set", "vein=null")
    assert run_ok(done).splitlines()[:2] == ["palm\t6 images", "identities\t1"]
    assert "pairing\tnone\n" in done.stdout
    assert done.stderr.endswith("pvzoo data check 'casia set' --layout casia_ms --set palm=WHT --set vein=null\n")


def test_check_prints_every_finding_and_exits_with_1(run_pvzoo: Callable[..., Any], casia: Path) -> None:
    done = run_pvzoo("data", "check", "casia set", "--layout", "casia_ms")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "counts: palm: 1 identity, and 200 are published",
        "counts: palm: 6 images, and 1200 are published",
        "counts: vein: 1 identity, and 200 are published",
        "counts: vein: 5 images, and 1200 are published",
        "unexpected: sheet.png: an image that is not of the layout",
        "modality: 001_l_460_06.jpg: has no vein image",
        "samples: identity 1/left: 5 vein images, and 6 are published",
        "1 file is no image, such as README.txt",
        "palm images are 9x9, 8-bit grey",
        "vein images are 9x9, 8-bit grey",
        "7 findings (4 counts, 1 unexpected, 1 modality, 1 samples): 11 images of 1 identity, pairing simultaneous",
    ]


def test_what_may_be_read_wrongly_is_said_wherever_it_matters(run_pvzoo: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "set/palm").mkdir(parents=True)
    for number in range(40):
        Image.new("L", (9, 9), number).save(tmp_path / f"set/palm/{number // 4}_{number // 2 % 2 + 1}_{number % 2}.png")
    doubt = "subjects 0_1 and 0_2 look like one person, "
    done = run_pvzoo("data", "scan", "set", "--layout", "folder_pair", "--output", "table.csv")
    assert "subjects\t20\n" in run_ok(done) and done.stderr.startswith(f"warning: {doubt}")
    assert doubt in run_pvzoo("data", "check", "set", "--layout", "folder_pair").stdout
    images = open_images(Data(source=str(tmp_path / "set"), layout="folder_pair"))
    assert open_protocol("open_subject").split(images.table).notes[0].startswith(doubt)


def test_check_of_a_whole_set_exits_with_0(run_pvzoo: Callable[..., Any], tmp_path: Path) -> None:
    for modality, value in (("palm", 5), ("vein", 60)):
        (tmp_path / "set" / modality).mkdir(parents=True)
        for n in (1, 2):
            Image.new("L", (9, 9), value * n).save(tmp_path / "set" / modality / f"Zoë Ω_{n}.png")
    done = run_pvzoo("data", "check", "set", "--layout", "folder_pair", "--set", "pairing=simultaneous")
    lines = run_ok(done).splitlines()
    assert lines[-1] == "no findings: 4 images of 1 identity, pairing simultaneous"


def test_check_as_json(run_pvzoo: Callable[..., Any], casia: Path) -> None:
    done = run_pvzoo("data", "check", "casia set", "-l", "casia_ms", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert {key: value for key, value in found.items() if key not in ("findings", "notes")} == {
        "layout": "casia_ms",
        "images": {"palm": 6, "vein": 5},
        "identities": 1,
        "subjects": 1,
        "sessions": [1, 2],
        "samples": 6,
        "complete": 5,
        "pairing": "simultaneous",
        "unused": 6,
        "unexpected": 2,
    }
    assert len(found["findings"]) == 7
    assert found["findings"][4] == {
        "kind": "unexpected",
        "where": "sheet.png",
        "message": "an image that is not of the layout",
    }
    assert found["notes"][0] == "1 file is no image, such as README.txt"


def test_damaged_files_print_no_warnings_of_other_libraries(run_pvzoo: Callable[..., Any], casia: Path) -> None:
    for path in casia.glob("*.jpg"):
        path.write_bytes(path.read_bytes()[:-30])
    Image.new("P", (9, 9)).save(casia / "001_l_850_06.png", transparency=b"\0\x80")
    done = run_pvzoo("data", "check", "casia set", "-l", "casia_ms")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count(": cannot be decoded: the file is truncated\n") == 11


def test_layouts(run_pvzoo: Callable[..., Any]) -> None:
    lines = run_ok(run_pvzoo("data", "layouts")).splitlines()
    assert len(lines) == 16
    assert "tongji\tpalm and vein\tsame_identity\t600\t2\t10\t12000\tROI/session1/00001.bmp" in lines
    assert "iitd\tpalm\t\t460\t1\t\t\tSegmented/Left/001_1.bmp" in lines
    assert "txt_list\tpalm, vein\t\t\t\t\t\ttrain.txt" in lines
    found = {fact["name"]: fact for fact in json.loads(run_ok(run_pvzoo("data", "layouts", "--json")))}
    assert found["vera"] == {
        "name": "vera",
        "summary": "VERA palm vein",
        "modalities": ["vein"],
        "pairing": "",
        "expected": {"identities": 220, "sessions": 2, "samples": 5, "images": 2200},
        "example": "roi/001-M/001_L_1_1.png",
    }


def test_show_draws_a_table_or_a_folder(run_pvzoo: Callable[..., Any], casia: Path, tmp_path: Path) -> None:
    run_ok(run_pvzoo("data", "scan", "casia set", "-l", "casia_ms", "-o", "table.csv"))
    assert run_ok(run_pvzoo("data", "show", "table.csv", "-o", "a.png")).startswith("a.png: ")
    run_ok(run_pvzoo("data", "show", "casia set", "-l", "casia_ms", "-o", "b.png", "--rows", "3", "--seed", "0"))
    with Image.open(tmp_path / "a.png") as a, Image.open(tmp_path / "b.png") as b:
        assert (a.format, a.mode, a.height) == ("PNG", "RGB", b.height)
    (casia / "001_l_460_01.jpg").write_bytes(b"")
    done = run_pvzoo("data", "show", "table.csv", "-o", "a.png", "--samples", "6")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "warning: casia set/001_l_460_01.jpg: not an image that can be read (PNG, JPEG, BMP or TIFF)"
    ]


FAULTS = [
    (["scan", "casia set", "-l", "casia"], "no dataset named 'casia'; did you mean 'casia_ms'?"),
    (["scan", "casia set", "-l", "casia_ms", "--set", "plam=WHT"],
     "layout 'casia_ms': plam: unknown field; did you mean 'palm'?"),
    (["scan", "casia set", "-l", "casia_ms", "--set", "palm"],
     "--set palm: write NAME=VALUE, such as palm=WHT"),
    (["scan", "casia set", "-l", "casia_ms", "-o", "table.txt"], "table.txt: a table is a .csv or .parquet file"),
    (["scan", "nowhere", "-l", "casia_ms"], "nowhere: no such folder, to scan as layout 'casia_ms'"),
    (["check", "casia set", "-l", "vera"],
     "casia set: no image here has layout 'vera', such as casia set/roi/001-M/001_L_1_1.png; "
     "it holds 19 other files, such as 001_l_460_01.jpg"),
    (["show", "casia set", "-o", "a.png"], "casia set: is a folder: say its --layout, or give a table"),
    (["show", "a.csv", "-o", "a.png"],
     "a.csv: no such file; 'pvzoo data scan DIR --layout NAME -o a.csv' makes one"),
    (["show", "a.csv", "-o", "a.png", "--set", "palm=WHT"],
     "--set is for a folder and its --layout; a table has no parameters"),
    (["show", "a.csv", "-o", "a.jpg"], "a.jpg: the sheet is a .png file"),
    (["show", "casia set", "-l", "casia_ms", "-o", "no/a.png"], "no/a.png: there is no folder {root}/no"),
]  # fmt: skip


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """The program in this process; gives its exit code."""

    def run(*arguments: str) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["pvzoo", "data", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run


@pytest.mark.parametrize(("arguments", "message"), FAULTS, ids=[" ".join(case[0]) for case in FAULTS])
def test_faults(
    program: Callable[..., int], capsys: Any, casia: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert program(*arguments) == 2
    assert capsys.readouterr() == ("", f"error: {message.format(root=tmp_path)}\n")


def test_show_points_to_the_table_in_a_folder(program: Callable[..., int], capsys: Any, casia: Path) -> None:
    (casia / "table.csv").touch()
    assert program("show", "casia set", "-o", "a.png") == 2
    end = "is a folder: say its --layout, or give a table; it holds table.csv\n"
    assert capsys.readouterr().err == f"error: casia set: {end}"


@pytest.mark.parametrize("command", ["scan", "check", "show"])
def test_help_shows_how(program: Callable[..., int], capsys: Any, command: str) -> None:
    assert program(command, "--help") == 0
    assert f"pvzoo data {command} " in capsys.readouterr().out.partition("Example")[2]
