"""One rule for what an image is: by suffix or by content, upright, whatever it is passed as."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from edgekd.errors import DataError
from edgekd.runtime.images import BROKEN, LeftOut, clear_read_errors, find_images, is_image, open_upright

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8))
# EXIF orientation: how a camera's image is turned to be upright.
TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: np.rot90(a),
}


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("orientation", TURNS)
def test_an_image_is_upright_however_it_is_passed(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(IMAGE, "PNG", exif=exif)
    (tmp_path / "a.png").write_bytes(content)
    upright = TURNS[orientation](np.asarray(IMAGE))
    with (tmp_path / "a.png").open("rb") as file, Image.open(io.BytesIO(content)) as image:
        passed = [
            tmp_path / "a.png",
            str(tmp_path / "a.png"),
            content,
            bytearray(content),
            io.BytesIO(content),
            file,
            image,
        ]
        for each in passed:
            assert np.array_equal(np.asarray(open_upright(each)), upright), type(each)
    assert np.array_equal(np.asarray(open_upright(open_upright(content))), upright)  # not turned twice


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"])
@pytest.mark.parametrize("name", ["photo", "photo.dat", "PHOTO.JFIF"])
def test_an_image_counts_by_its_content_whatever_its_suffix(kind, name, tmp_path):
    (tmp_path / name).write_bytes(encoded(IMAGE, kind))
    assert is_image(tmp_path / name) and open_upright(tmp_path / name).size == (6, 4)


@pytest.mark.parametrize("content", [b"", b"text", b"\x00" * 200, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_a_file_without_an_image_counts_only_under_the_suffix_of_one(content, tmp_path):
    for name, counts in (("a.txt", False), ("a", False), ("a.eps", False), ("a.tga", False), ("a.JPG", True)):
        (tmp_path / name).write_bytes(content)
        assert is_image(tmp_path / name) == counts, name
        with pytest.raises(BROKEN):
            open_upright(tmp_path / name)


def test_what_is_found_and_what_is_left_out(tmp_path):
    for folder in ("a/b", "__MACOSX/a", ".ipynb_checkpoints", "@eaDir", "lost+found"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("1.png", "a/2.jfif", "a/b/3", "__MACOSX/a/4.png", ".ipynb_checkpoints/5.png", "a/._1.png"):
        (tmp_path / name).write_bytes(encoded(IMAGE, "PNG"))
    for name in ("a/notes.TXT", "a/b/list.txt", "README", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_text("no image")
    found = find_images(tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in found.images] == ["1.png", "a/2.jfif", "a/b/3"]
    assert found.left_out == LeftOut(
        {".txt": 2, "": 1}, hidden=3, folders=(".ipynb_checkpoints", "@eaDir", "__MACOSX", "lost+found")
    )
    assert str(found.left_out) == (
        "3 files (2 .txt, 1 without a suffix), 3 hidden files, "
        "the folders .ipynb_checkpoints, @eaDir, __MACOSX, lost+found"
    )
    assert str(LeftOut()) == "" and str(LeftOut(hidden=1) + LeftOut({".md": 1})) == "1 file (1 .md), 1 hidden file"


def test_links_that_lead_nowhere_or_back_are_left_out_and_named(tmp_path):
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "root/c").mkdir()
    (tmp_path / "root/a/1.png").write_bytes(encoded(IMAGE, "PNG"))
    for link, target in {
        "a/b/self": "self",
        "a/b/self.png": "self.png",
        "a/one": "b/other",
        "a/b/other": "../one",
        "a/gone": "nothing",
        "a/into": "1.png/inner",
        "a/b/up": "..",
        "a/b/outside": "../../..",
        "a/c": "../c",
        "c/a": "../a",
    }.items():
        (tmp_path / "root" / link).symlink_to(target)
    found = find_images(tmp_path / "root/a", (tmp_path / "root",))
    assert [file.name for file in found.images] == ["1.png", "self.png"]
    back, nowhere = ("a/b/outside", "a/b/up", "a/c/a"), ("a/b/other", "a/b/self", "a/gone", "a/into", "a/one")
    assert found.left_out == LeftOut(links=tuple(sorted((*back, *nowhere))))
    assert str(found.left_out) == (
        "8 links that lead nowhere or to a folder above (a/b/other, a/b/outside, a/b/self, a/b/up, a/c/a, …)"
    )
    one = LeftOut(links=("\x1b",)) + LeftOut({".md": 1})
    assert str(one) == "1 file (1 .md), 1 link that leads nowhere or to a folder above (\\x1b)"


@pytest.mark.skipif(Image.registered_extensions().get(".heic") is not None, reason="pillow-heif is installed here")
def test_a_phones_format_names_what_reads_it(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\x00\x00\x00\x18ftypheic" + bytes(40))
    found = find_images(tmp_path)
    assert not found.images and "1 .heic" in str(found.left_out) and "pip install pillow-heif" in str(found.left_out)
    with pytest.raises(BROKEN, match="pip install pillow-heif"):
        open_upright(tmp_path / "a.heic")


def test_what_cannot_be_read_is_one_message(tmp_path):
    with pytest.raises(DataError, match="gone cannot be read(?s:.)*No such file"):
        with clear_read_errors(tmp_path):
            (tmp_path / "gone").read_bytes()
