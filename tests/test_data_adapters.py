"""Small trees in the published layouts: what scan finds, and what check says of bad copies."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pvzoo import DataError
from pvzoo.data.adapters.base import open_layout
from pvzoo.data.check import check
from pvzoo.data.table import Table


def draw(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        value = sum(map(ord, path)) * 7919 % 2**24
        Image.new("RGB", (4, 4), (value % 256, value >> 8 & 255, value >> 16)).save(root / path)


CASES = [
    ("tongji", {}, ["ROI/session1/00011.bmp", "Palmvein/session1/00011.tiff"], ("2", "", 1, 1)),
    ("tongji", {"two_hands": True}, ["ROI/session2/00012.BMP", "Palmvein/session2/00012.bmp"], ("1", "b", 2, 2)),
    ("tongji600_flat", {}, ["PalmPrint/PalmPrint_3_4.png", "PalmVein/PalmVein_3_4.png"], ("3", "", 0, 5)),
    ("casia_ms", {}, ["images/007_l_460_04.jpg", "images/007_l_850_04.jpg"], ("7", "left", 2, 1)),
    ("polyu_ms", {}, ["Blue/0002/2_03_s.jpg", "NIR/0002/2_03_s.jpg"], ("2", "", 2, 3)),
    ("polyu_ms", {}, ["Blue_ind/0002_0007.jpg", "NIR/palm_000207.jpg"], ("2", "", 2, 1)),
    ("cuhksz", {}, ["imgs/1_00005_8.bmp", "imgs2/1_00005_8.bmp"], ("5", "right", 1, 2)),
    ("iitd", {}, ["Segmented/Left/012_3.bmp"], ("12", "left", 1, 3)),
    ("polyu2", {}, ["P_S_12_3.bmp"], ("12", "", 2, 3)),
    ("xjtu_up", {}, ["LG/Flash/R_9/x y é.jpg"], ("9", "right", 1, 1)),
    ("mpdv2", {}, ["001_2_h_r_04.JPG"], ("1", "right", 2, 1)),
    ("vera", {}, ["roi/003-F/003_R_2_5.png"], ("3", "right", 2, 5)),
    ("put", {}, ["hand/o_003/left/Series_2/P_o003.bmp"], ("3", "left", 2, 1)),
    ("scut_pv", {}, ["ROI/scale1.0/17_2.jpg"], ("17", "", 1, 3)),
    ("folder_pair", {}, ["palm/anna_1.png", "vein/anna_1.bmp"], ("anna", "", 0, 1)),
]


@pytest.mark.parametrize(("layout", "params", "paths", "key"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_scan_reads_the_published_names(
    tmp_path: Path, layout: str, params: dict[str, object], paths: list[str], key: tuple[object, ...]
) -> None:
    draw(tmp_path, *paths, "stray.png")
    table = open_layout(layout, params).scan(tmp_path)
    assert table.unexpected == ("stray.png",)
    assert {record.key for record in table} == {key}
    assert sorted(record.path for record in table) == sorted(paths)
    assert len(table.modalities) == len(paths)
    for suffix in ("csv", "parquet"):
        table.write(tmp_path / f"table.{suffix}")
        assert Table.read(tmp_path / f"table.{suffix}").records == table.records


def test_lists_csv_and_virtual_pairs(tmp_path: Path) -> None:
    draw(tmp_path, "a b.png", "palm/P_F_1_1.bmp", "vein/roi/001-M/001_L_1_1.png")
    (tmp_path / "train.txt").write_text("a b.png 4\n")
    (record,) = open_layout("txt_list", {"lists": ["train.txt"]}).scan(tmp_path)
    assert (record.path, record.subject) == ("a b.png", "4")
    (tmp_path / "pairs.csv").write_text("subject,palm,vein\nx,a b.png,\n")
    (record,) = open_layout("pair_csv").scan(tmp_path)
    assert (record.modality, record.subject) == ("palm", "x")
    table = open_layout("virtual_pair", {"palm_layout": "polyu2", "vein_layout": "vera"}).scan(tmp_path)
    assert (len(table), len(table.pairs()), table.pairing) == (2, 1, "virtual")


def test_a_wrong_root_says_what_was_expected(tmp_path: Path) -> None:
    draw(tmp_path, "x.png")
    with pytest.raises(DataError) as caught:
        open_layout("iitd").scan(tmp_path)
    expected = f"{tmp_path}: no image here has layout 'iitd', such as {tmp_path}/Segmented/Left/001_1.bmp; "
    assert str(caught.value) == expected + "it holds 1 other files, such as x.png"


def test_check_finds_merged_palms_duplicates_and_broken_files(tmp_path: Path) -> None:
    for identity in range(300):
        for sample in range(40):
            path = tmp_path / f"PalmPrint/PalmPrint_{identity}_{sample}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x")
    findings = check(open_layout("tongji600_flat"), tmp_path).findings
    assert {finding.kind for finding in findings} == {"counts", "samples", "duplicate", "unreadable"}
    (merged,) = (finding for finding in findings if finding.kind == "samples")
    assert "this copy merges two palms into one identity (300 x 40)" in merged.message
