"""Whether a copy is whole: every kind of damage is found, and named with its message."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from unprivileged import unprivileged

from pvzoo.data.adapters import open_layout
from pvzoo.data.adapters.base import numbered
from pvzoo.data.check import Report, check, survey
from pvzoo.data.table import Record, Table


def draw(path: Path, seed: int, size: tuple[int, int] = (8, 8), mode: str = "L") -> None:
    """An image of noise, of a seed of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.frombytes("L", size, random.Random(seed).randbytes(size[0] * size[1])).convert(mode).save(path)


@pytest.fixture
def casia(tmp_path: Path) -> Path:
    """Two palms of CASIA-MS, whole, in the spectra that count as palm and as vein."""
    for number, (hand, spectrum, n) in enumerate(product("lr", ("460", "850"), range(1, 7))):
        draw(tmp_path / f"001_{hand}_{spectrum}_0{n}.jpg", number + 1000)
    return tmp_path


def report(layout: str, root: Path, **params: Any) -> Report:
    adapter = open_layout(layout, params)
    return check(adapter.scan(root), adapter)


def lines(found: Report) -> list[str]:
    """Findings but for the counts of a whole set, of which there is only a part here."""
    return [str(finding) for finding in found.findings if finding.kind != "counts"]


def test_a_whole_copy_has_no_findings(casia: Path) -> None:
    found = report("casia_ms", casia)
    assert lines(found) == []
    assert [str(finding) for finding in found.findings] == [
        f"counts: {modality}: {what}"
        for modality in ("palm", "vein")
        for what in (
            "2 identities, and 200 are published",
            "12 images, and 1200 are published",
        )
    ]
    assert found.notes == ("palm images are 8x8, 8-bit grey", "vein images are 8x8, 8-bit grey")


def test_progress_counts_every_image(casia: Path) -> None:
    adapter = open_layout("casia_ms")
    done: list[int] = []
    check(adapter.scan(casia), adapter, done.append)
    assert sum(done) == 24


def lose(root: Path) -> None:
    (root / "001_l_850_02.jpg").unlink()


def lose_session(root: Path) -> None:
    for name in root.glob("001_l_*_0[456].jpg"):
        name.unlink()


def empty(root: Path) -> None:
    (root / "001_l_460_01.jpg").write_bytes(b"")


def truncate(root: Path) -> None:
    draw(root / "001_l_460_01.jpg", 1, (64, 64))
    content = (root / "001_l_460_01.jpg").read_bytes()
    (root / "001_l_460_01.jpg").write_bytes(content[:-40])


def web_page(root: Path) -> None:
    (root / "001_l_460_01.jpg").write_text("<html>log in first</html>")


def link_to_nothing(root: Path) -> None:
    (root / "001_l_460_01.jpg").unlink()
    (root / "001_l_460_01.jpg").symlink_to("gone.jpg")


def copy(source: str, target: str) -> Callable[[Path], None]:
    return lambda root: (root / target).write_bytes((root / source).read_bytes()) and None


def pipe(root: Path) -> None:
    (root / "001_l_460_01.jpg").unlink()
    os.mkfifo(root / "001_l_460_01.jpg")


def tiff(root: Path, **options: Any) -> None:
    Image.new("I", (8, 8), 70000).save(root / "x.tiff")
    (root / "x.tiff").rename(root / "001_l_460_01.jpg")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lose, [
            "modality: 001_l_460_02.jpg: has no vein image",
            "samples: identity 1/left: 5 vein images, and 6 are published; missing session 1 sample 2",
        ]),
        (lose_session, [
            f"samples: identity 1/left: 3 {modality} images, and 6 are published; missing session 2 sample 1, "
            "session 2 sample 2, session 2 sample 3"
            for modality in ("palm", "vein")
        ]),
        (empty, ["unreadable: 001_l_460_01.jpg: the file is empty"]),
        (truncate, ["unreadable: 001_l_460_01.jpg: cannot be decoded: the file is truncated"]),
        (web_page, ["unreadable: 001_l_460_01.jpg: not an image that can be read (PNG, JPEG, BMP or TIFF)"]),
        (pipe, ["unreadable: 001_l_460_01.jpg: is not a file"]),
        (tiff, ["unreadable: 001_l_460_01.jpg: signed or 32-bit integer pixels have no known range; "
                "save it with 8 or 16 bits"]),
        (link_to_nothing, ["missing: 001_l_460_01.jpg: there is no such file"]),
        (copy("001_l_460_01.jpg", "001_l_460_02.jpg"),
         ["duplicate: 001_l_460_02.jpg: same bytes as 001_l_460_01.jpg"]),
        (copy("001_l_460_01.jpg", "001_l_460_04.jpg"),
         ["duplicate: 001_l_460_04.jpg: same bytes as 001_l_460_01.jpg, of another session (2 and 1)"]),
        (copy("001_l_460_01.jpg", "001_l_850_01.jpg"),
         ["duplicate: 001_l_850_01.jpg: same bytes as 001_l_460_01.jpg, of the other modality (vein and palm)"]),
        (copy("001_l_460_01.jpg", "001_r_460_01.jpg"),
         ["duplicate: 001_r_460_01.jpg: same bytes as 001_l_460_01.jpg, of another identity (1/right and 1/left)"]),
        (copy("001_l_460_01.jpg", "copy of 001_l_460_01.jpg"),
         ["unexpected: copy of 001_l_460_01.jpg: an image that is not of the layout"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_damage_is_found(casia: Path, damage: Callable[[Path], None], expected: list[str]) -> None:
    damage(casia)
    assert sorted(lines(report("casia_ms", casia))) == expected


def test_two_files_for_one_image(casia: Path) -> None:
    draw(casia / "ROI_001_L_460_01.PNG", 77)
    assert lines(report("casia_ms", casia)) == [
        "ambiguous: ROI_001_L_460_01.PNG: takes the place of 001_l_460_01.jpg: two files for one image",
        "samples: identity 1/left: 7 palm images, and 6 are published",
    ]


def test_a_modality_that_is_not_there_at_all(casia: Path) -> None:
    for path in casia.glob("*_850_*"):
        path.unlink()
    found = report("casia_ms", casia)
    assert lines(found) == ["modality: there are no vein images at all"]
    assert found.findings[0].kind == "modality"  # what is wrong with the whole set comes first


def test_files_that_are_no_images_are_a_note(casia: Path) -> None:
    (casia / "README.txt").touch()
    (casia / "Agreement.pdf").touch()
    found = report("casia_ms", casia)
    assert lines(found) == []
    assert found.notes[0] == "2 files are no images, such as Agreement.pdf"


def test_sizes_and_kinds_of_pixels_are_a_note(casia: Path) -> None:
    draw(casia / "001_l_460_01.jpg", 99, (16, 12))
    Image.new("I;16", (8, 8), 40000).save(casia / "001_l_850_01.png")
    (casia / "001_l_850_01.jpg").unlink()
    draw(casia / "002_l_460_01.png", 5, mode="P")
    draw(casia / "002_l_850_01.png", 6, mode="RGB")
    found = report("casia_ms", casia)
    assert not [finding for finding in found.findings if finding.kind == "unreadable"]
    assert found.notes == (
        "palm images differ: 11 are 8x8, 8-bit grey; 1 are 16x12, 8-bit grey (such as 001_l_460_01.jpg); "
        "1 are 8x8, palette (such as 002_l_460_01.png)",
        "vein images differ: 11 are 8x8, 8-bit grey; 1 are 8x8, 16-bit grey (such as 001_l_850_01.png); "
        "1 are 8x8, 8-bit colour (such as 002_l_850_01.png)",
    )


def test_images_are_measured_upright_and_to_all_their_bits(casia: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("L", (12, 8)).save(casia / "001_l_460_01.jpg", exif=turned)
    found = report("casia_ms", casia)
    assert "1 are 8x12, 8-bit grey" in found.notes[0]


def test_many_kinds_are_summed_up(casia: Path) -> None:
    for n in range(1, 7):
        draw(casia / f"001_l_460_0{n}.jpg", n, (8 + n, 8))
    (note, _) = report("casia_ms", casia).notes
    assert note.startswith("palm images differ: 6 are 8x8, 8-bit grey; 1 are 10x8")
    assert note.endswith("; 2 more kinds")


def test_a_file_that_is_listed_twice(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", 1)
    (tmp_path / "train.txt").write_text("a.png 1\nb.png 1\n")
    (tmp_path / "test.txt").write_text("a.png 2\n")
    assert lines(report("txt_list", tmp_path)) == [
        "missing: b.png: there is no such file",
        "duplicate: a.png: listed twice, of another identity (2 and 1)",
    ]


def test_a_closed_file_is_unreadable(casia: Path) -> None:
    (casia / "001_l_460_01.jpg").chmod(0)
    adapter = open_layout("casia_ms")
    table = adapter.scan(casia)
    check(table, adapter)
    with unprivileged(casia):
        found = check(table, adapter)
    assert lines(found) == ["unreadable: 001_l_460_01.jpg: Permission denied"]


# --- counts of whole sets, by their names alone -----------------------------------------------------------------------


def surveyed(layout: str, paths: list[str], **params: Any) -> list[str]:
    adapter = open_layout(layout, params)
    records = [record for path in paths if isinstance(record := adapter.parse(path), Record)]
    return [str(finding) for finding in survey(Table(numbered(records), Path("/")), adapter)]


@pytest.mark.parametrize(("identities", "first"), [(300, 0), (300, 1), (290, 0)])
def test_two_palms_merged_into_one_identity(identities: int, first: int) -> None:
    modalities = ("Print", "Vein")
    paths = [f"Palm{m}_{i + first}_{n + first}.jpg" for m, i, n in product(modalities, range(identities), range(40))]
    found = surveyed("tongji600_flat", paths)
    for modality in ("palm", "vein"):
        assert f"counts: {modality}: {identities} identities, and 600 are published" in found
        assert (
            f"samples: {identities} identities have 40 {modality} images, and 20 are published: "
            f"this copy merges two palms into one identity ({identities} x 40); do not train on it"
        ) in found
    assert not [line for line in found if "identity " in line.partition("merges")[0]]


@pytest.mark.parametrize("first", [0, 1])
def test_a_missing_sample_is_named_as_the_copy_counts(first: int) -> None:
    paths = [f"Palm{m}_{i}_{n + first}.jpg" for m, i, n in product(("Print", "Vein"), range(600), range(20))]
    paths.remove(f"PalmVein_77_{first + 3}.jpg")
    assert surveyed("tongji600_flat", paths) == [
        f"modality: PalmPrint_77_{first + 3}.jpg: has no vein image",
        "counts: vein: 11999 images, and 12000 are published",
        f"samples: identity 77: 19 vein images, and 20 are published; missing sample {first + 3}",
    ]


def tongji(skip: Callable[[int, int], bool]) -> list[str]:
    folders = ("ROI", "Palmvein")
    numbers = product((1, 2), range(1, 6001))
    return [f"{f}/session{s}/{n:05d}.bmp" for s, n in numbers if not skip(s, n) for f in folders]


def test_a_palm_that_is_missing_is_named() -> None:
    found = surveyed("tongji", tongji(lambda session, number: (number - 1) // 10 + 1 in (7, 600)))
    assert found == [
        f"counts: {modality}: {what}"
        for modality in ("palm", "vein")
        for what in (
            "598 identities, and 600 are published; missing 7, 600",
            "11960 images, and 12000 are published",
        )
    ]
    found = surveyed("tongji", tongji(lambda session, number: number <= 80), two_hands=True)
    missing = "1/a, 1/b, 2/a, 2/b, 3/a and 3 more"
    assert found[0] == f"counts: palm: 592 identities, and 600 are published; missing {missing}"
    # Of half a set, no one knows which half is meant.
    found = surveyed("tongji", tongji(lambda session, number: number > 3000))
    assert found[0] == "counts: palm: 300 identities, and 600 are published"


def test_a_session_that_was_not_copied() -> None:
    found = surveyed("tongji", tongji(lambda session, number: session == 2))
    assert found[:3] == [
        "counts: palm: 1 session, and 2 are published",
        "counts: palm: 6000 images, and 12000 are published",
        "samples: 600 identities have 10 palm images, and 20 are published",
    ]
    assert len(found) == 6


def test_a_copy_that_stopped_in_the_middle() -> None:
    found = surveyed("tongji", tongji(lambda session, number: session == 2 and number > 1234))
    assert "samples: 476 identities have 10 palm images, and 20 are published" in found
    assert "samples: identity 124: 14 palm images, and 20 are published; missing session 2 sample 5" not in found
    (partly,) = (line for line in found if line.startswith("samples: identity 124: 14 palm"))
    assert partly == "samples: identity 124: 14 palm images, and 20 are published"


def test_what_is_kept_in_memory_is_small(tmp_path: Path) -> None:
    """A table and a check of it: hundreds of bytes a file, whatever the images weigh."""
    adapter = open_layout("tongji")
    peaks = []
    for files in (400, 1600):
        root = tmp_path / str(files)
        for folder, session, number in product(("ROI", "Palmvein"), (1, 2), range(1, files // 4 + 1)):
            path = root / f"{folder}/session{session}/{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = number * 4 + session * 2 + (folder == "ROI")
            Image.frombytes("L", (64, 64), content.to_bytes(4, "big") * 1024).save(path, compress_level=0)
        check(adapter.scan(root), adapter)
        tracemalloc.start()
        assert not [f for f in check(adapter.scan(root), adapter).findings if f.kind != "counts"]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 1200 < 800
