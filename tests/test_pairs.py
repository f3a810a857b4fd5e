"""Samples of a folder or CSV: paired by name, never by order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pvzoo.errors import PairsError
from pvzoo.pairs import Sample, read_samples

BOTH = ("palm", "vein")
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def touch(tmp_path: Path) -> Callable[..., Path]:
    """Makes empty files: nothing here reads an image."""

    def make(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "pairs.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def names(samples: list[Sample], root: Path) -> dict[str, tuple[str | None, ...]]:
    return {
        sample.id: tuple(image and image.relative_to(root).as_posix() for image in sample.images.values())
        for sample in samples
    }


def fault(path: Path, modalities: tuple[str, ...] = BOTH) -> str:
    with pytest.raises(PairsError) as caught:
        read_samples(path, modalities)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_paired_by_name(touch: Callable[..., Path]) -> None:
    # by order, a would meet b, and c nothing
    root = touch("palm/c.png", "palm/a.png", "vein/c.BMP", "vein/b.tif", "vein/notes.txt", "vein/a.csv")
    assert names(read_samples(root, BOTH), root) == {
        "a": ("palm/a.png", None),
        "b": (None, "vein/b.tif"),
        "c": ("palm/c.png", "vein/c.BMP"),
    }


def test_the_order_of_images_is_that_of_the_modalities(touch: Callable[..., Path]) -> None:
    root = touch("palm/a.png", "vein/a.png")
    (sample,) = read_samples(root, ("vein", "palm"))
    assert list(sample.images) == ["vein", "palm"]


def test_nested_folders_are_part_of_the_name(touch: Callable[..., Path]) -> None:
    root = touch("palm/anna/left/1.png", "vein/anna/left/1.jpeg", "palm/ben/1.png", "vein/ben/1.png", "palm/1.png")
    assert names(read_samples(root, BOTH), root) == {
        "1": ("palm/1.png", None),
        "anna/left/1": ("palm/anna/left/1.png", "vein/anna/left/1.jpeg"),
        "ben/1": ("palm/ben/1.png", "vein/ben/1.png"),
    }


def test_dots_in_names_stay(touch: Callable[..., Path]) -> None:
    root = touch("palm/s1.left.png", "vein/s1.left.png")
    assert list(names(read_samples(root, BOTH), root)) == ["s1.left"]


def test_a_model_of_one_modality_takes_a_folder_of_images(touch: Callable[..., Path]) -> None:
    root = touch("b.png", "a.png", "sub/c.png")
    assert names(read_samples(root, ("vein",)), root) == {"a": ("a.png",), "b": ("b.png",), "sub/c": ("sub/c.png",)}


def test_a_model_of_one_modality_takes_its_part_of_a_folder_of_pairs(touch: Callable[..., Path]) -> None:
    root = touch("palm/a.png", "vein/a.png", "vein/b.png")
    assert names(read_samples(root, ("vein",)), root) == {"a": ("vein/a.png",), "b": ("vein/b.png",)}


def test_hidden_files_and_folders_with_an_image_s_name_are_no_images(touch: Callable[..., Path]) -> None:
    root = touch("palm/a.png", "palm/._a.png", "palm/.b.jpg", "palm/odd.png/readme", "vein/a.png")
    assert list(names(read_samples(root, BOTH), root)) == ["a"]


def test_faults_of_folders(touch: Callable[..., Path]) -> None:
    root = touch("palm/a.png", "palm/sub/b.png", "palm/sub/b.tiff", "empty/palm/x.txt", "empty/vein/x.txt")
    assert fault(root) == f"{root}: the model takes palm and vein, and there is no {root / 'vein'}"
    assert fault(root, ("vein", "iris")).endswith(f"there is no {root / 'vein'}, no {root / 'iris'}")
    assert fault(root, ("palm",)) == f"{root / 'palm/sub/b.tiff'}: b.png has the same name; keep one"
    assert fault(root / "empty") == f"{root / 'empty'}: no images in it (.bmp, .jpeg, .jpg, .png, .tif, .tiff)"
    assert fault(root / "nowhere") == f"{root / 'nowhere'}: no such file or folder"


def test_a_csv_with_ids(table: Callable[..., Path], tmp_path: Path) -> None:
    path = table("vein,id,palm,subject\nv/1.png,anna,p/2.png,7\nv/2.png,ben,p/1.png,8\n")
    assert names(read_samples(path, BOTH), tmp_path) == {
        "anna": ("p/2.png", "v/1.png"),
        "ben": ("p/1.png", "v/2.png"),
    }


def test_a_csv_without_ids_is_named_by_line(table: Callable[..., Path], tmp_path: Path) -> None:
    path = table("palm,vein\na.png,b.png\n\nc.png,d.png\n")
    assert names(read_samples(path, BOTH), tmp_path) == {
        "line 2": ("a.png", "b.png"),
        "line 4": ("c.png", "d.png"),
    }


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffpalm,vein,id\na.png,b.png,x\n",
        "palm,vein,id\r\na.png,b.png,x\r\n",
        'id,"palm","vein"\nx,"a.png","b.png"',
        "id, palm , vein\nx, a.png , b.png\n",
        "id,palm,vein\nx,a.png,b.png,more,and more\n",
    ],
)
def test_csv_as_programs_write_it(text: str, table: Callable[..., Path], tmp_path: Path) -> None:
    assert names(read_samples(table(text), BOTH), tmp_path) == {"x": ("a.png", "b.png")}


def test_paths_are_relative_to_the_csv_and_may_be_absolute(
    table: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table("palm,vein\nsub/ä b.png,/data/v.png\n")
    monkeypatch.chdir("/")
    (sample,) = read_samples(path, BOTH)
    assert sample.images == {"palm": tmp_path / "sub/ä b.png", "vein": Path("/data/v.png")}


def test_an_empty_cell_is_a_missing_image(table: Callable[..., Path], tmp_path: Path) -> None:
    path = table("id,palm,vein\na,,v.png\nb,p.png\nc,p.png,  \n")
    assert names(read_samples(path, BOTH), tmp_path) == {
        "a": (None, "v.png"),
        "b": ("p.png", None),
        "c": ("p.png", None),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,palm,vien\na,b,c\n", "there is no column 'vein'; did you mean 'vien'?"),
        ("id,left,right\na,b,c\n", "there is no column 'palm'; it has id, left, right"),
        ("", "there is no column 'palm'; it has none"),
        ("palm,vein\n", "no images in it (.bmp, .jpeg, .jpg, .png, .tif, .tiff)"),
        ("id,palm,vein\na,1,1\nb,2,2\na,3,3\n", "line 4: the id 'a' is there already"),
        ("palm,vein\nm\xfcller.png,b\n".encode("latin-1"), None),
        (b"\x89PNG\r\n\x1a\n\0\0", None),
        ('palm,vein\n"' + "x" * 140_000 + '",b\n', None),
    ],
)
def test_faults_of_csv_files(text: str | bytes, message: str | None, table: Callable[..., Path]) -> None:
    path = table(text)
    found = fault(path)
    if message is None:
        assert found.startswith(f"{path}: not a CSV file: ")
    else:
        assert found == f"{path}: {message}"


def test_the_examples_are_the_same_as_folder_and_csv() -> None:
    table, folder = read_samples(EXAMPLES / "pairs.csv", BOTH), read_samples(EXAMPLES / "palms", BOTH)
    assert table == folder
    assert all(image is not None and image.is_file() for sample in table for image in sample.images.values())
