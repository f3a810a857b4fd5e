"""Layouts of data sets: small trees as published, whole sets by their names, wrong roots and bad parameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from unprivileged import unprivileged

from pvzoo import DataError
from pvzoo.data.adapters import Adapter, Record, Table, open_layout
from pvzoo.data.adapters.base import numbered
from pvzoo.data.check import Finding, survey
from pvzoo.plugins import host


@pytest.fixture
def touch(tmp_path: Path) -> Callable[..., Path]:
    """Makes empty files: a scan opens none."""

    def make(*paths: str) -> Path:
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        return tmp_path

    return make


# --- names as published -----------------------------------------------------------------------------------------------

Key = tuple[str, str, int, int]
CASES: list[tuple[str, dict[str, Any], list[str], Key]] = [
    ("tongji", {}, ["ROI/session1/00011.bmp", "Palmvein/session1/00011.tiff"], ("2", "", 1, 1)),
    ("tongji", {"two_hands": True}, ["ROI/session2/00012.BMP", "Palmvein/session2/00012.bmp"], ("1", "b", 2, 2)),
    ("tongji", {"palm_root": "p r/x", "vein_root": "./v"}, ["p r/x/session1/06000.bmp", "v/Session1/06000.TIF"],
     ("600", "", 1, 10)),
    ("tongji", {"palm_root": ".", "vein_root": "Palmvein"}, ["session1/00001.bmp", "Palmvein/session1/00001.tiff"],
     ("1", "", 1, 1)),
    ("tongji", {"vein_root": None}, ["ROI/session1/00011.bmp"], ("2", "", 1, 1)),
    ("tongji600_flat", {}, ["PalmPrint/PalmPrint_3_4.png", "PalmVein/PalmVein_3_4.png"], ("3", "", 0, 4)),
    ("tongji600_flat", {}, ["print/PalmPrint_0_0.jpg", "vein/PalmVein_0_0.jpg"], ("0", "", 0, 0)),
    ("tongji600_flat", {"two_hands": True, "first": 0}, ["PalmPrint_1_4.png", "PalmVein_1_4.png"], ("1", "b", 0, 4)),
    ("casia_ms", {}, ["images/007_l_460_04.jpg", "images/007_l_850_04.jpg"], ("7", "left", 2, 1)),
    ("casia_ms", {"palm": "WHT", "vein": 940}, ["ROI_0007_R_wht_03.JPG", "ROI_0007_r_940_03.jpg"],
     ("7", "right", 1, 3)),
    ("casia_ms", {"vein": None}, ["007_l_460_04.jpg"], ("7", "left", 2, 1)),
    ("polyu_ms", {}, ["Blue/0002/2_03_s.jpg", "NIR/0002/2_03_s.jpg"], ("2", "", 2, 3)),
    ("polyu_ms", {"palm": "Red"}, ["red/0002/2_03.bmp", "nir/0002/2_03_S.JPG"], ("2", "", 2, 3)),
    ("polyu_ms", {"two_hands": True}, ["Blue_ind/0002_0007.jpg", "NIR/palm_000207.jpg"], ("1", "b", 2, 1)),
    ("cuhksz", {}, ["imgs/1_00005_8.bmp", "imgs2/1_00005_8.bmp"], ("5", "right", 1, 2)),
    ("iitd", {}, ["Segmented/Left/012_3.bmp"], ("12", "left", 1, 3)),
    ("polyu2", {}, ["P_S_12_3.bmp"], ("12", "", 2, 3)),
    ("xjtu_up", {}, ["LG/Flash/R_9/x y é.jpg"], ("9", "right", 1, 1)),
    ("xjtu_up", {"phones": ["huawei"], "lights": ["Nature"]}, ["HUAWEI/Nature/L_009/ü.JPEG"], ("9", "left", 1, 1)),
    ("mpdv2", {}, ["001_2_h_r_04.JPG"], ("1", "right", 2, 7)),
    ("mpdv2", {}, ["generation/3-ROI_verification/001_1_m_l_10_ROI.jpeg"], ("1", "left", 1, 20)),
    ("vera", {}, ["roi/003-F/003_R_2_5.png"], ("3", "right", 2, 5)),
    ("vera", {"images": "raw"}, ["raw/003-F/003_R_2_5.png"], ("3", "right", 2, 5)),
    ("put", {}, ["Palm/o_003/Left/Series_2/P_o003_L_S2_Nr4.bmp"], ("3", "left", 2, 4)),
    ("put", {}, ["hand/o_003/left/2/P_o003.bmp"], ("3", "left", 2, 1)),
    ("scut_pv", {}, ["ROI/scale1.0/17/17_10.jpg"], ("17", "", 1, 10)),
    ("scut_pv", {"scale": 1.2, "two_hands": True}, ["ROI/scale1.2/17_2.jpg"], ("9", "a", 1, 2)),
    ("folder_pair", {}, ["palm/a/anna_1.png", "vein/a/anna_1.BMP"], ("a/anna", "", 0, 1)),
    ("folder_pair", {}, ["palm/0001_left_01.png", "vein/0001_left_01.png"], ("0001", "left", 0, 1)),
    ("folder_pair", {}, ["palm/0001_left_2_03.png", "vein/0001_left_2_03.png"], ("0001", "left", 2, 3)),
    ("folder_pair", {}, ["palm/0001_2_03.png", "vein/0001_2_03.png"], ("0001_2", "", 0, 3)),
    ("folder_pair", {"pattern": r"(?P<subject>.+) (?P<hand>l|r) (?P<session>\d)-(?P<sample>\d+)"},
     ["palm/Zoë Ω l 2-0.png", "vein/Zoë Ω l 2-0.tiff"], ("Zoë Ω", "l", 2, 0)),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "params", "paths", "key"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_scan_reads_the_published_names(
    touch: Callable[..., Path], layout: str, params: dict[str, Any], paths: list[str], key: Key
) -> None:
    adapter = open_layout(layout, params)
    root = touch(*paths, "ROI/stray.png" if layout == "tongji" and params.get("palm_root") != "." else "stray.png")
    if params.get("palm_root") == "p r/x":
        touch("p r/x/stray.png")
    table = adapter.scan(root)
    assert {record.key for record in table} == {key}
    assert sorted(record.path for record in table) == sorted(paths)
    assert table.modalities == adapter.modalities
    assert len(table.pairs()) == 1
    assert len(table.unexpected) == 1 and table.unexpected[0].endswith("stray.png")
    assert table.pairing == adapter.pairing
    assert bool(table.pairing) == (len(paths) == 2)


def published() -> Iterator[tuple[str, Iterator[str]]]:
    """All paths of the sets whose counts are regular."""
    two, hands = (1, 2), ("L", "R")
    yield (
        "tongji",
        (f"{folder}/session{s}/{n:05d}.bmp" for folder, s, n in product(("ROI", "Palmvein"), two, range(1, 6001))),
    )
    yield (
        "tongji600_flat",
        (f"Palm{m}/Palm{m}_{i}_{n}.png" for m, i, n in product(("Print", "Vein"), range(600), range(20))),
    )
    bands = ("460", "630", "700", "850", "940", "WHT")
    yield (
        "casia_ms",
        (f"images/{i:03d}_{h}_{b}_0{n}.jpg" for i, h, b, n in product(range(1, 101), "lr", bands, range(1, 7))),
    )
    yield (
        "polyu_ms",
        (
            f"{b}/{i:04d}/{s}_{n:02d}_s.jpg"
            for b, i, s, n in product(("Blue", "Green", "Red", "NIR"), range(1, 501), two, range(1, 7))
        ),
    )
    yield "cuhksz", (f"{f}/1_{i:05d}_{n}.bmp" for f, i, n in product(("imgs", "imgs2"), range(1, 1168), range(1, 13)))
    phones = ("iPhone", "huawei", "LG", "MI8", "Samsung")
    yield (
        "xjtu_up",
        (
            f"{p}/{w}/{h}_{i:03d}/{n}.jpg"
            for p, w, h, i, n in product(phones, ("Flash", "Nature"), hands, range(1, 101), range(10))
        ),
    )
    yield (
        "mpdv2",
        (f"{i:03d}_{s}_{p}_{h}_{n:02d}.jpg" for i, s, p, h, n in product(range(1, 201), two, "hm", "lr", range(1, 11))),
    )
    yield (
        "vera",
        (
            f"{w}/{i:03d}-M/{i:03d}_{h}_{s}_{n}.png"
            for w, i, h, s, n in product(("raw", "roi"), range(1, 111), hands, two, range(1, 6))
        ),
    )
    yield (
        "put",
        (
            f"hand/o_{i:03d}/{h}/Series_{s}/{w}_o{i:03d}_{h[0].upper()}_S{s}_Nr{n}.bmp"
            for i, h, s, w, n in product(range(1, 51), ("left", "right"), (1, 2, 3), "PW", range(1, 5))
        ),
    )
    yield (
        "scut_pv",
        (f"ROI/scale{s}/{i}/{i}_{n}.jpg" for s, i, n in product(("1.0", "2.0"), range(1, 1101), range(1, 11))),
    )


def parsed(adapter: Adapter[Any], paths: Iterator[str]) -> Table:
    """The table of a tree, without the tree."""
    found = [(path, adapter.parse(path)) for path in paths]
    records = [record for _, record in found if isinstance(record, Record)]
    return Table(numbered(records), Path("/"), unexpected=[path for path, what in found if what is None])


@pytest.mark.parametrize(("layout", "paths"), [pytest.param(*case, id=case[0]) for case in published()])
def test_the_whole_set_has_the_published_counts(layout: str, paths: Iterator[str]) -> None:
    adapter = open_layout(layout)
    table = parsed(adapter, paths)
    assert list(survey(table, adapter)) == []
    assert table.unexpected == ()
    expected = adapter.expected
    assert len(table) == (expected.images or 0) * len(adapter.modalities)
    assert len(table.pairs()) == expected.images


# As the papers and pages of the sets say.
COUNTS = {
    "tongji": (600, 2, 10, 12000, "same_identity"),
    "tongji600_flat": (600, 1, 20, 12000, "same_identity"),
    "casia_ms": (200, 2, 3, 1200, "simultaneous"),
    "polyu_ms": (500, 2, 6, 6000, "simultaneous"),
    "cuhksz": (2334, 1, 6, 14004, "simultaneous"),
    "polyu2": (386, 2, None, 7752, ""),
    "iitd": (460, 1, None, None, ""),
    "xjtu_up": (200, 1, None, 20000, ""),
    "mpdv2": (400, 2, 20, 16000, ""),
    "vera": (220, 2, 5, 2200, ""),
    "put": (100, 3, 4, 1200, ""),
    "scut_pv": (1100, 1, 10, 11000, ""),
}


def test_published_counts_and_pairing() -> None:
    names = {entry.name for entry in host().builtins("dataset")}
    assert names == {*COUNTS, "txt_list", "pair_csv", "folder_pair", "virtual_pair"}
    for name, counts in COUNTS.items():
        adapter = open_layout(name)
        expected = adapter.expected
        found = (expected.identities, expected.sessions, expected.samples, expected.images, adapter.pairing)
        assert found == counts, name


def test_parts_that_were_not_asked_for_are_not_missed() -> None:
    flash = open_layout("xjtu_up", {"lights": ["Flash"]})
    paths = dict(published())
    table = parsed(flash, paths["xjtu_up"])
    assert (len(table), list(survey(table, flash))) == (10000, [])
    palms = open_layout("polyu_ms", {"palm": "Green", "vein": None})
    table = parsed(palms, paths["polyu_ms"])
    assert (table.modalities, table.pairing, list(survey(table, palms))) == (("palm",), "", [])


@pytest.mark.parametrize(
    ("layout", "paths", "unused"),
    [
        ("casia_ms", ["001_l_460_01.jpg", "001_l_630_01.jpg", "001_l_WHT_01.jpg"], 2),
        ("cuhksz", ["imgs/1_00001_1.bmp", "marks/1_00001_1.mat", "disp/1_00001_1.txt"], 2),
        ("iitd", ["Segmented/Left/001_1.bmp", "Left Hand/001_1.jpg", "Right Hand/002_1.JPG"], 2),
        ("put", ["hand/o_001/left/1/P_o001_L_S1_Nr1.bmp", "wrist/o_001/left/1/W_o001_L_S1_Nr1.bmp"], 1),
        ("scut_pv", ["ROI/scale1.0/1_1.jpg", "ROI/scale1.2/1_1.jpg", "RAW/1_1.bmp"], 2),
        ("vera", ["roi/003-F/003_R_2_5.png", "raw/003-F/003_R_2_5.png"], 1),
    ],
)
def test_published_files_that_were_not_asked_for_are_counted(
    touch: Callable[..., Path], layout: str, paths: list[str], unused: int
) -> None:
    table = open_layout(layout).scan(touch(*paths))
    assert (len(table), table.unused, table.unexpected) == (1, unused, ())


@pytest.mark.parametrize(
    ("layout", "path"),
    [
        ("casia_ms", "001_l_460_07.jpg"),
        ("casia_ms", "001_l_500_01.jpg"),
        ("cuhksz", "imgs/1_00001_13.bmp"),
        ("polyu_ms", "NIR/0001/1_07_s.jpg"),
        ("polyu_ms", "NIR_ind/0001_0013.jpg"),
        ("polyu_ms", "NIR/0000/1_01_s.jpg"),
        ("tongji", "ROI/session1/00000.bmp"),
        ("tongji", "ROI/session3/00001.bmp"),
        ("polyu2", "P_F_0_1.bmp"),
        ("folder_pair", "palm/anna.png"),
        ("folder_pair", "palm/anna_1.txt"),
        ("folder_pair", "iris/anna_1.png"),
    ],
)
def test_numbers_that_were_never_published_are_not_of_the_layout(layout: str, path: str) -> None:
    assert open_layout(layout).parse(path) is None


@pytest.mark.parametrize(
    ("names", "alike", "pattern"),
    [
        ("{who}_{session}_1", "1_1 and 1_2", r"(?P<subject>.+)_(?P<session>\d+)_(?P<sample>\d+)"),
        ("{who}-s{session}_1", "1-s1 and 1-s2", r"(?P<subject>.+)-s(?P<session>\d+)_(?P<sample>\d+)"),
        ("{who}/{hand}_1", "1/L and 1/R", r"(?P<subject>.+)/(?P<hand>L|R)_(?P<sample>\d+)"),
        (
            "{who}_{hand}_{session}_1",
            "1_L_1 and 1_L_2",
            r"(?P<subject>.+)_(?P<hand>L|R)_(?P<session>\d+)_(?P<sample>\d+)",
        ),
    ],
)
def test_sessions_that_pass_for_people_are_doubted(
    touch: Callable[..., Path], names: str, alike: str, pattern: str
) -> None:
    every = {names.format(who=w, hand=h, session=s) for w in (1, 2, 3) for h in "LR" for s in (1, 2)}
    root = touch(*(f"{modality}/{name}.png" for modality in ("palm", "vein") for name in every))
    table = open_layout("folder_pair").scan(root)
    assert table.hashed().doubts == (
        f"subjects {alike} look like one person, and no split would keep their images apart: {len(every)} subjects may "
        "be 3 people. If they are, make a table of them: pvzoo data scan DIR --layout folder_pair "
        f"--set 'pattern={pattern}' -o table.csv",
    )
    right = open_layout("folder_pair", {"pattern": pattern}).scan(root)
    assert (right.subjects, right.doubts) == (("1", "2", "3"), ())


@pytest.mark.parametrize("names", ["anna_1 bob_1", "clinic_001_1 clinic_002_1", "1_left_1_1 1_right_1_1 1_left_2_1"])
def test_names_that_are_read_rightly_are_not_doubted(touch: Callable[..., Path], names: str) -> None:
    assert open_layout("folder_pair").scan(touch(*(f"palm/{name}.png" for name in names.split()))).doubts == ()


# --- lists, CSV, virtual pairs ----------------------------------------------------------------------------------------


def test_txt_lists(touch: Callable[..., Path]) -> None:
    root = touch("img/a b.png", "img/c.png", "img/d.png")
    (root / "train.txt").write_text("\ufeff./a b.png 4\r\n\nc.png 5\n", encoding="utf-8")
    (root / "test.txt").write_text("d.png 4\n")
    table = open_layout("txt_list", {"images": "img", "modality": "vein"}).scan(root)
    assert [(r.path, r.modality, *r.key) for r in table] == [
        ("img/a b.png", "vein", "4", "", 1, 1),
        ("img/d.png", "vein", "4", "", 2, 1),
        ("img/c.png", "vein", "5", "", 1, 1),
    ]
    once = open_layout("txt_list", {"images": str(root / "img"), "one_session": True}).scan(root)
    assert [r.key for r in once] == [("4", "", 0, 1), ("4", "", 0, 2), ("5", "", 0, 1)]
    assert all(once.file(record).is_file() for record in once)


def test_a_csv_of_pairs(touch: Callable[..., Path]) -> None:
    root = touch("a b.png", "ü.png")
    (root / "pairs.csv").write_text("subject, palm,vein,session,hand\nx,a b.png,,1,left\ny,a b.png,./ü.png,2,\n")
    for place in (root, root / "pairs.csv"):
        table = open_layout("pair_csv", {"pairing": "same_sample"}).scan(place)
        assert [(r.path, r.modality, *r.key, r.pairing) for r in table] == [
            ("a b.png", "palm", "x", "left", 1, 1, "same_sample"),
            ("a b.png", "palm", "y", "", 2, 2, "same_sample"),
            ("ü.png", "vein", "y", "", 2, 2, "same_sample"),
        ]


LIST_FAULTS = [
    ("txt_list", "train.txt", "a.png 1\nno-label\n", "{root}/train.txt:2: a line is 'path label', not 'no-label'"),
    ("txt_list", "train.txt", "\n", "{root}: the lists train.txt name no image"),
    ("txt_list", "train.txt", "x/b c.png 1\n",
     "{root}: none of the 1 images that the lists name is there, such as {root}/x/b c.png; "
     "set images to the folder that their paths start from"),
    ("txt_list", "train.txt", b"\xff\xfe", "{root}/train.txt: not text in UTF-8"),
    ("txt_list", "other.txt", "", "{root}/train.txt: no such file; layout 'txt_list' needs it"),
    ("pair_csv", "pairs.csv", "subject,palm\nx,b.png\n",
     "{root}/pairs.csv: none of the 1 images that it names is there, such as {root}/b.png; "
     "paths start from the folder of the CSV"),
    ("pair_csv", "pairs.csv", "subject,plam\nx,a.png\n",
     "{root}/pairs.csv: there is no column 'palm'; did you mean 'plam'?"),
    ("pair_csv", "pairs.csv", "palm\na.png\n", "{root}/pairs.csv: there is no column 'subject'; it has palm"),
    ("pair_csv", "pairs.csv", "subject,palm\n,a.png\n", "{root}/pairs.csv:2: subject is empty"),
    ("pair_csv", "pairs.csv", "subject,palm,vein\nx,a.png,\ny,,\n", "{root}/pairs.csv:3: palm and vein are empty"),
    ("pair_csv", "pairs.csv", "subject,palm,session\nx,a.png,one\n",
     "{root}/pairs.csv:2: session must be a whole number, not 'one'"),
    ("pair_csv", "pairs.csv", "subject,palm\n", "{root}/pairs.csv: no row names an image"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "name", "text", "message"), LIST_FAULTS)
def test_faults_of_lists(touch: Callable[..., Path], layout: str, name: str, text: str | bytes, message: str) -> None:
    root = touch("a.png")
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    params = {"lists": ["train.txt"]} if layout == "txt_list" else {}
    assert fault(layout, root, params) == message.format(root=root)


def test_a_list_above_or_below(touch: Callable[..., Path]) -> None:
    root = touch("lists/train.txt", "images/x.png")
    assert fault("txt_list", root).endswith(f"layout 'txt_list' needs it; there is one in {root}/lists")
    root = touch("pairs.csv")
    assert fault("pair_csv", root / "images").endswith(f"layout 'pair_csv' needs it; there is one in {root}")


def test_virtual_pairs(touch: Callable[..., Path]) -> None:
    root = touch(
        "palm/P_F_1_1.bmp", "palm/P_F_7_1.bmp", "palm/P_F_7_2.bmp",
        "vein/roi/001-M/001_L_1_1.png", "vein/roi/002-F/002_R_1_1.png", "vein/x.png",
    )  # fmt: skip
    params = {"palm_layout": "polyu2", "vein_layout": "vera"}
    table = open_layout("virtual_pair", params).scan(root)
    assert [(pair.subject, pair.hand, [r.path for r in pair.records]) for pair in table.pairs()] == [
        ("1", "a", ["palm/P_F_1_1.bmp", "vein/roi/001-M/001_L_1_1.png"]),
        ("2", "a", ["palm/P_F_7_1.bmp", "vein/roi/002-F/002_R_1_1.png"]),
    ]
    assert {record.pairing for record in table} == {"virtual"}
    assert (table.unused, table.unexpected) == (1, ("vein/x.png",))
    wrong = {**params, "vein_layout": "iitd", "vein_root": "palm"}
    assert "no image here has layout 'iitd'" in fault("virtual_pair", root, wrong)
    wrong = {**params, "vein_layout": "polyu2", "vein_root": "palm"}
    assert fault("virtual_pair", root, wrong) == f"{root}/palm: layout 'polyu2' has no vein images to join"


# --- wrong roots ------------------------------------------------------------------------------------------------------


def fault(layout: str, root: Path, params: dict[str, Any] | None = None) -> str:
    with pytest.raises(DataError) as caught:
        open_layout(layout, params).scan(root)
    return str(caught.value)


def test_a_wrong_root_says_what_was_expected(touch: Callable[..., Path]) -> None:
    root = touch("x.png")
    start = f"{root}: no image here has layout 'iitd', such as {root}/Segmented/Left/001_1.bmp; "
    assert fault("iitd", root) == start + "it holds 1 other file, such as x.png"
    (root / "x.png").unlink()
    assert fault("iitd", root) == start + "it is empty"
    assert fault("iitd", root / "no") == f"{root}/no: no such folder, to scan as layout 'iitd'"
    touch("a.txt")
    assert fault("iitd", root / "a.txt") == f"{root}/a.txt: is a file; layout 'iitd' needs a folder"
    assert fault("tongji", root / "a.txt") == f"{root}/a.txt: is a file; layout 'tongji' needs a folder"


def test_parameters_that_leave_out_everything(touch: Callable[..., Path]) -> None:
    root = touch("001_l_630_01.jpg")
    end = "; the parameters leave out all that it has (1 file)"
    assert fault("casia_ms", root).endswith(f"such as {root}/images/001_l_460_01.jpg{end}")


# layout, root that is given, root that fits, a file
LEVELS = [
    ("tongji", "d/ROI", "d", "d/ROI/session1/00001.bmp"),
    ("tongji", "d/ROI/session1", "d", "d/ROI/session1/00001.bmp"),
    ("tongji", ".", "d", "d/ROI/session1/00001.bmp"),
    ("tongji", ".", "a/d", "a/d/Palmvein/session1/00001.tiff"),
    ("polyu_ms", "d/NIR", "d", "d/NIR/0001/1_01_s.jpg"),
    ("polyu_ms", "d/NIR/0001", "d", "d/NIR/0001/1_01_s.jpg"),
    ("vera", "d/roi", "d", "d/roi/001-M/001_L_1_1.png"),
    ("cuhksz", "d/imgs2", "d", "d/imgs2/1_00001_1.bmp"),
    ("iitd", "d/Segmented/Left", "d/Segmented", "d/Segmented/Left/001_1.bmp"),
    ("xjtu_up", "d/iPhone/Flash/L_1", "d", "d/iPhone/Flash/L_1/x.jpg"),
    ("put", "d/hand/o_001/left/1", "d/hand", "d/hand/o_001/left/1/P_o001.bmp"),
    ("scut_pv", "d/ROI/scale1.0/1", "d/ROI", "d/ROI/scale1.0/1/1_1.jpg"),
    ("folder_pair", "d/palm", "d", "d/palm/anna_1.png"),
    ("folder_pair", ".", "d", "d/palm/anna_1.png"),
]


@pytest.mark.parametrize(("layout", "given", "fits", "path"), LEVELS)
def test_a_root_too_high_or_too_low_says_which_one_fits(
    touch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, layout: str, given: str, fits: str, path: str
) -> None:
    root = touch(path)
    end = f"; layout {layout!r} fits {root / fits}"
    assert fault(layout, root / given).endswith(end)
    monkeypatch.chdir(root / given)
    assert fault(layout, Path()).endswith(end)  # as "."


@pytest.mark.parametrize("layout", ["casia_ms", "polyu_ms", "cuhksz", "iitd", "vera", "scut_pv", "tongji600_flat"])
def test_a_layout_of_one_pattern_may_lie_deeper(touch: Callable[..., Path], layout: str) -> None:
    adapter = open_layout(layout)
    assert len(adapter.scan(touch(f"copy/of a/{adapter.example}"))) == 1


def test_tongji_without_one_of_its_roots(touch: Callable[..., Path]) -> None:
    root = touch("ROI/session1/00001.bmp", "Palm_vein/session1/00001.tiff")
    start = f"{root}/Palmvein: layout 'tongji' expects the vein images here, such as "
    start += f"{root}/Palmvein/session1/00001.tiff; set vein_root to their folder, or to null if there are none"
    assert fault("tongji", root) == start + "; did you mean 'Palm_vein'?"
    (root / "Palm_vein").rename(root / "x")
    assert fault("tongji", root) == start + f"; {root} holds ROI, x"
    assert fault("tongji", root / "ROI/session1", {"palm_root": "a"}).partition("; set palm_root")[2] == (
        f" to their folder, or to null if there are none; {root}/ROI/session1 holds no folders"
    )


def test_tongji_with_roots_elsewhere(touch: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    root, other = touch("mine/a/session1/00001.bmp"), tmp_path_factory.mktemp("other")
    (other / "session1").mkdir()
    (other / "session1/00001.tiff").touch()
    table = open_layout("tongji", {"palm_root": "../mine/a", "vein_root": str(other)}).scan(root / "mine")
    assert [record.path for record in table] == ["../mine/a/session1/00001.bmp", f"{other}/session1/00001.tiff"]
    table.write(root / "table.csv")
    again = Table.read(root / "table.csv")
    assert [record.path for record in again] == ["mine/a/session1/00001.bmp", f"{other}/session1/00001.tiff"]
    assert all(again.file(record).is_file() for record in again)


# --- the walk ---------------------------------------------------------------------------------------------------------


def test_what_file_managers_leave_behind_is_passed_over(touch: Callable[..., Path]) -> None:
    litter = [".DS_Store", "Thumbs.db", "Desktop.ini", "._001_l_460_01.jpg", ".cache/001_l_460_02.jpg"]
    table = open_layout("casia_ms").scan(touch("001_l_460_01.jpg", *litter))
    assert ([record.path for record in table], table.unexpected) == (["001_l_460_01.jpg"], ())


def test_links_are_followed_but_not_in_circles(touch: Callable[..., Path], tmp_path_factory: Any) -> None:
    root, other = touch("a/001_l_460_01.jpg"), tmp_path_factory.mktemp("other")
    (other / "001_l_850_01.jpg").touch()
    (root / "a/veins").symlink_to(other, target_is_directory=True)
    (root / "a/round").symlink_to(root, target_is_directory=True)
    (root / "a/itself").symlink_to("itself")
    (root / "a/001_l_460_02.jpg").symlink_to("gone.jpg")
    table = open_layout("casia_ms").scan(root)
    found = ["a/001_l_460_01.jpg", "a/001_l_460_02.jpg", "a/veins/001_l_850_01.jpg"]
    assert sorted(record.path for record in table) == found
    assert table.unexpected == ("a/itself", "a/round")


def test_a_closed_folder_is_an_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("open")
    (root / "Segmented/Left").mkdir(parents=True)
    (root / "Segmented/Left/001_1.bmp").touch()
    (root / "Segmented/Right").mkdir(mode=0o000)
    right = root / "Segmented/Right"
    cases = [(open_layout("iitd"), root), (open_layout("iitd"), right), (open_layout("tongji"), right)]
    with unprivileged(root):
        for adapter, place in cases:
            with pytest.raises(DataError) as caught:
                adapter.scan(place)
            assert str(caught.value) == f"{right}: cannot be read: Permission denied"


def test_a_name_that_is_not_unicode_is_never_in_a_table(touch: Callable[..., Path]) -> None:
    root = touch("LG/Flash/R_9/1.jpg")
    try:
        Path(os.fsdecode(os.fsencode(root) + b"/LG/Flash/R_9/\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system has Unicode names only")
    table = open_layout("xjtu_up").scan(root)
    assert [record.path for record in table] == ["LG/Flash/R_9/1.jpg"]
    assert table.unexpected == ("LG/Flash/R_9/\\udcff.jpg",)


# --- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "params", "message"),
    [
        ("tongji", {"palm_rot": "x"}, "palm_rot: unknown field; did you mean 'palm_root'?"),
        ("tongji", {"palm_root": "x", "vein_root": "x"},
         "palm_root and vein_root are both 'x': choose two, or null for one of them"),
        ("tongji", {"palm_root": None, "vein_root": None},
         "palm_root and vein_root are both null: nothing is left"),
        ("casia_ms", {"palm": 850}, "palm and vein are both '850': choose two, or null for one of them"),
        ("casia_ms", {"palm": "white"},
         "palm: input should be '460', '630', '700', '850', '940' or 'WHT', got 'white'"),
        ("polyu_ms", {"vein": "nir"}, "vein: input should be 'Blue', 'Green', 'Red' or 'NIR', got 'nir'"),
        ("xjtu_up", {"phones": ["iphone"]},
         "phones.0: input should be 'iPhone', 'huawei', 'LG', 'MI8' or 'Samsung', got 'iphone'"),
        ("iitd", {"hands": 2}, "hands: unknown field; the fields are none at all"),
        ("folder_pair", {"pattern": "("},
         "pattern: not a regular expression: missing ), unterminated subpattern at position 0"),
        ("folder_pair", {"pattern": "(?P<subject>.)(?P<what>.)"},
         "pattern: needs groups (?P<subject>...) and (?P<sample>...), may have hand, session; it has subject, what"),
        ("virtual_pair", {"palm_layout": "iitd"}, "vein_layout: is required"),
    ],
)  # fmt: skip
def test_bad_parameters(layout: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        open_layout(layout, params)
    assert str(caught.value) == f"layout {layout!r}: {message}"


def test_all_bad_parameters_are_named() -> None:
    with pytest.raises(DataError) as caught:
        open_layout("casia_ms", {"palm": "x", "vien": "850"})
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["palm", "vien"]


def test_the_first_palm_of_flat_copies_is_given_not_guessed(touch: Callable[..., Path]) -> None:
    root = touch("PalmPrint_0_0.png")
    message = "PalmPrint_0_0.png: palm 0 comes before the first, 1; set first to 0"
    assert fault("tongji600_flat", root, {"two_hands": True}) == message


# --- a layout of a plugin ---------------------------------------------------------------------------------------------

PLUGIN = """
    class Params(pvzoo.Params):
        vein: bool = True

    @hookimpl
    def register_datasets(register):
        register("palmlab/clinic", build="palmlab_layout:Clinic", params=Params, summary="Our clinic")
"""
LAYOUT = r"""
    from pvzoo.data.adapters import UNUSED, Expected, PatternAdapter, Record


    class Clinic(PatternAdapter):
        name = "palmlab/clinic"
        example = "p1/d1/palm.png"
        expected = Expected(identities=1, sessions=2, samples=1, images=2)
        pairing = "simultaneous"
        pattern = r"p(\d+)/d(\d+)/(palm|vein)\.png"

        def wanted(self):
            return ("palm", "vein") if self.params.vein else ("palm",)

        def record(self, path, match):
            modality = match[3].lower()
            if modality not in self.modalities:
                return UNUSED
            return Record(path, modality, match[1], "", int(match[2]), 1, pairing=self.pairing)
"""


def test_a_layout_of_a_plugin(run_pvzoo: Callable[..., Any], touch: Callable[..., Path], site: Any) -> None:
    site.install(PLUGIN, palmlab_layout=LAYOUT)
    touch("data/p1/d1/palm.png", "data/p1/d1/vein.png", "data/p1/d2/palm.png")
    done = run_pvzoo("data", "scan", "data", "--layout", "palmlab/clinic", path=site)
    assert done.returncode == 0, done.stderr
    assert "pairing\tsimultaneous, 1 of 2 samples with palm and vein\n" in done.stdout
    assert "warning: vein: 1 session, and 2 are published\n" in done.stderr
    done = run_pvzoo("data", "scan", "data", "-l", "palmlab/clinic", "--set", "vein=false", path=site)
    assert done.stdout.splitlines()[0] == "palm\t2 images"
    assert done.stderr == ""
    done = run_pvzoo("data", "layouts", path=site)
    assert "palmlab/clinic\tpalm and vein\tsimultaneous\t1\t2\t1\t2\tp1/d1/palm.png\n" in done.stdout


def test_a_layout_that_cannot_be_imported_is_named(run_pvzoo: Callable[..., Any], site: Any) -> None:
    site.install(PLUGIN)
    done = run_pvzoo("data", "layouts", path=site)
    assert done.returncode == 0 and "tongji\t" in done.stdout
    message = "dataset 'palmlab/clinic' of pvzoo-palmlab 1.0 failed while it was built: ModuleNotFoundError"
    assert message in done.stderr


def test_findings_are_text() -> None:
    assert str(Finding("missing", "a.png", "there is no such file")) == "missing: a.png: there is no such file"
    assert str(Finding("counts", "", "palm: 1 image")) == "counts: palm: 1 image"
