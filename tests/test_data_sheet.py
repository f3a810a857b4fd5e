"""Contact sheets: what is chosen, where it is drawn, and what stands for images that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from pvzoo import DataError
from pvzoo.data.sheet import MARGIN, TILE, draw_sheet
from pvzoo.data.table import Record, Table

GREY = {"palm": 90, "vein": 170}


def make(root: Path, identities: int = 3, sessions: int = 2, samples: int = 2) -> Iterator[Record]:
    """Palm images of one grey, vein images of another."""
    for identity in range(identities):
        for session in range(1, sessions + 1):
            for sample in range(samples):
                for modality, grey in GREY.items():
                    path = f"{modality}/{identity}_{session}_{sample}.png"
                    (root / path).parent.mkdir(exist_ok=True)
                    Image.new("L", (20, 20), grey).save(root / path)
                    yield Record(path, modality, f"p{identity}", "", session, sample, pairing="same_sample")


def tiles(image: Image.Image) -> list[tuple[int, int, int]]:
    """Colours of the squares of the first row, from left to right, one entry a run of TILE pixels."""
    y = MARGIN + 34 + 26 + 5
    row = [image.getpixel((x, y)) for x in range(image.width)]
    found = []
    x = 0
    while x < len(row):
        run = next((i for i in range(x, len(row)) if row[i] != row[x]), len(row)) - x
        if run == TILE:
            found.append(row[x])
        x += run
    return found


def test_palm_and_vein_stand_side_by_side_by_session(tmp_path: Path) -> None:
    table = Table(make(tmp_path), tmp_path)
    sheet = draw_sheet(table)
    assert sheet.faults == ()
    palm, vein = ((grey,) * 3 for grey in GREY.values())
    assert tiles(sheet.image) == [palm, vein] * 4
    assert tiles(draw_sheet(table, samples=1).image) == [palm, vein] * 2
    taller = draw_sheet(Table(make(tmp_path, identities=4), tmp_path)).image
    assert (taller.width, taller.height - sheet.image.height) == (sheet.image.width, TILE + 18 + 12)


def test_the_choice_depends_on_the_seed_alone(tmp_path: Path) -> None:
    records = list(make(tmp_path, identities=12, sessions=1, samples=1))
    for record in records:  # each looks different
        Image.new("L", (20, 20), int(record.subject[1:]) * 20).save(tmp_path / record.path)
    one, again = (draw_sheet(Table(order, tmp_path), rows=3).image for order in (records, records[::-1]))
    assert same(one, again)
    assert not same(one, draw_sheet(Table(records, tmp_path), rows=3, seed=1).image)
    # What is chosen stays chosen when others leave.
    shades = {image.getpixel((MARGIN + 40, MARGIN + 70 + row * (TILE + 30))) for image in [one] for row in range(3)}
    kept = [record for record in records if (int(record.subject[1:]) * 20,) * 3 in shades]
    assert len(kept) == 6
    other = draw_sheet(Table(kept, tmp_path), rows=3).image
    body = (0, MARGIN + 34, min(one.width, other.width), one.height)
    assert same(one.crop(body), other.crop(body))


def test_what_is_missing_or_broken_is_drawn_as_such(tmp_path: Path) -> None:
    records = list(make(tmp_path, identities=1, sessions=1, samples=2))
    (tmp_path / records[1].path).write_bytes(b"no image")
    (tmp_path / records[2].path).unlink()
    sheet = draw_sheet(Table(records[:3], tmp_path))
    assert sheet.faults == (
        "vein/0_1_0.png: not an image that can be read (PNG, JPEG, BMP or TIFF)",
        "palm/0_1_1.png: no such file",
    )
    empty, broken = (240, 241, 243), (249, 222, 222)
    assert tiles(sheet.image) == [(90, 90, 90), broken, broken, empty]


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("I;16", (20, 20), 30000), (116, 116, 116)),
        (Image.new("F", (20, 20), 0.5), (127, 127, 127)),
        (Image.new("RGB", (20, 20), (10, 200, 30)).quantize(4), (10, 200, 30)),
        (Image.new("1", (20, 20), 1), (255, 255, 255)),
        (Image.new("LA", (20, 20), (77, 0)), (77, 77, 77)),
    ],
    ids=["16-bit", "float", "palette", "1-bit", "transparent"],
)
def test_every_kind_of_pixel_is_shown(tmp_path: Path, image: Image.Image, colour: tuple[int, ...]) -> None:
    name = "a.tiff" if image.mode == "F" else "a.png"
    image.save(tmp_path / name)
    sheet = draw_sheet(Table([Record(name, "palm", "1")], tmp_path))
    assert sheet.faults == ()
    (shown,) = tiles(sheet.image) if colour != (255, 255, 255) else [colour]
    assert all(abs(a - b) <= 1 for a, b in zip(shown, colour, strict=True))


def test_images_keep_their_shape(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.png")
    image = draw_sheet(Table([Record("a.png", "palm", "1")], tmp_path)).image
    left, top, right, bottom = ImageChops.subtract(*image.split()[:2]).getbbox() or (0, 0, 0, 0)
    assert (right - left, bottom - top) == (TILE, TILE // 2)
    assert top == MARGIN + 34 + 26 + TILE // 4


def test_of_many_sessions_the_first_are_drawn(tmp_path: Path) -> None:
    image = draw_sheet(Table(make(tmp_path, identities=1, sessions=7, samples=1), tmp_path)).image
    assert len(tiles(image)) == 2 * 4


def test_names_in_any_script(tmp_path: Path) -> None:
    records = list(make(tmp_path, identities=1, sessions=1, samples=1))
    for subject in ("Zoë", "掌", "a" * 60):
        draw_sheet(Table([Record(r.path, r.modality, subject) for r in records], tmp_path))


def test_an_empty_table_and_two_files_for_one_image(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one row and one sample, not 0 and 2"):
        draw_sheet(Table([], tmp_path), rows=0)
    with pytest.raises(DataError, match="the table is empty"):
        draw_sheet(Table([], tmp_path))
    with pytest.raises(DataError, match=r"a.png and b.png both claim to be the palm image of identity 1"):
        draw_sheet(Table([Record("a.png", "palm", "1"), Record("b.png", "palm", "1")], tmp_path))


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and ImageChops.difference(one, other).getbbox() is None
