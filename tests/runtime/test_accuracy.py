from __future__ import annotations

import pytest
from PIL import Image

from edgekd.errors import DataError
from edgekd.runtime import load
from edgekd.runtime.accuracy import measure


def write(folder, name, colour):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), colour).save(folder / name)


def test_the_share_of_images_in_the_folder_of_their_class(linear_bundle, tmp_path):
    own = tmp_path / "own"
    write(own / "red", "a.png", (200, 0, 0))
    write(own / "red" / "deeper", "b.jpg", (200, 0, 0))
    write(own / "green", "c.png", (0, 200, 0))
    write(own / "green", "d.png", (0, 0, 200))  # a blue one
    (own / "green" / "broken.png").write_bytes(b"no image")
    (own / "green" / "notes.txt").write_text("no image either")
    write(own / "__MACOSX", "e.png", (0, 200, 0))
    write(own / "red" / "@eaDir", "f.png", (0, 200, 0))
    Image.new("RGB", (8, 8), (0, 200, 0)).save(own / "green" / "d.jfif", "JPEG")
    (own / "green" / "d.png").unlink()
    Image.new("RGB", (8, 8), (0, 0, 200)).save(own / "green" / "blue", "PNG")
    (own / "red" / "._a.png").write_bytes(b"of a Mac")
    found = measure(load(linear_bundle), own)
    assert found.left_out == "1 file (1 .txt), 1 hidden file, the folder @eaDir"
    assert (found.accuracy, found.samples, found.variant) == (0.8, 5, "fp32")
    assert found.unreadable == (str(own / "green" / "broken.png"),)


def test_folders_that_give_no_accuracy_are_refused(linear_bundle, tmp_path):
    model = load(linear_bundle)
    with pytest.raises(DataError, match="is not a folder"):
        measure(model, tmp_path / "nowhere")
    write(tmp_path / "flat", "a.png", (200, 0, 0))
    with pytest.raises(DataError, match=r"no folders of classes\n  found: images\n"):
        measure(model, tmp_path / "flat")
    (tmp_path / "own" / "red").mkdir(parents=True)
    with pytest.raises(DataError, match="no readable images"):
        measure(model, tmp_path / "own")
    write(tmp_path / "own" / "yellow", "a.png", (200, 200, 0))
    with pytest.raises(DataError, match=r"classes that this bundle does not have(?s:.)*found: yellow"):
        measure(model, tmp_path / "own")
