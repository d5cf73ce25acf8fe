from __future__ import annotations

import math

import pytest
from PIL import Image

from edgekd.errors import DataError, RangeError
from edgekd.runtime import load
from edgekd.runtime.accuracy import WorstImage, measure
from edgekd.runtime.statistics import ClassAccuracy, wilson


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
    (own / ".DS_Store").write_bytes(b"of a Mac")
    (own / "readme.txt").write_text("no image")
    write(own, "loose.png", (200, 0, 0))
    (own / "red" / "self").symlink_to("self")
    (own / "all").symlink_to(own)
    shown = []
    found = measure(load(linear_bundle), own, progress=lambda *each: shown.append(each))
    assert shown == [(done, 6) for done in range(1, 7)]
    assert found.left_out == "2 files (2 .txt), 1 image outside any class folder, 2 hidden files, " + (
        "the folders @eaDir, __MACOSX, 2 links that lead nowhere or to a folder above (all, red/self)"
    )
    assert (found.accuracy, found.samples, found.variant) == (0.8, 5, "fp32")
    assert found.unreadable == (str(own / "green" / "broken.png"),)


def test_the_images_that_are_most_confidently_wrong_and_the_calibration(linear_bundle, tmp_path):
    own = tmp_path / "own"
    write(own / "red", "right.png", (200, 0, 0))
    write(own / "red" / "deeper", "wrong.png", (0, 0, 100))
    write(own / "green", "wro\x1b[31mng\n.png", (255, 0, 0))
    found = measure(load(linear_bundle), own)
    # The network's logits are the means of the channels.
    one, other = (math.exp(level) / (math.exp(level) + 2) for level in (1.0, 100 / 255))
    assert found.worst == (
        WorstImage("green/wro\\x1b[31mng\\n.png", "green", "red", pytest.approx(one)),
        WorstImage("red/deeper/wrong.png", "red", "blue", pytest.approx(other)),
    )
    right = math.exp(200 / 255) / (math.exp(200 / 255) + 2)
    assert found.calibration.confidence == pytest.approx((one + other + right) / 3)
    likelihood = math.log(right) + math.log((1 - other) / 2) + math.log((1 - one) / 2)
    assert found.calibration.nll == pytest.approx(-likelihood / 3, rel=1e-6)
    assert found.per_class == {"red": ClassAccuracy(0.5, wilson(1, 2), 2), "green": ClassAccuracy(0.0, wilson(0, 1), 1)}


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
    with pytest.raises(DataError, match=r"classes that the model does not have(?s:.)*found: yellow"):
        measure(model, tmp_path / "own")


def test_a_table_of_images_and_labels(linear_bundle, tmp_path):
    own = tmp_path / "own"
    write(own, "a.png", (200, 0, 0))
    write(own, "b, c.png", (0, 200, 0))
    write(tmp_path, "d.png", (0, 0, 200))
    table = own / "labels.csv"
    table.write_text('file,label\na.png,red\n"b, c.png",red\n../d.png,blue\n../d.png,blue\ngone.png,red\n')
    found = measure(load(linear_bundle), table)
    assert (found.accuracy, found.samples, found.split) == (2 / 3, 3, "")
    assert [(each.file, each.label, each.answer) for each in found.worst] == [("b, c.png", "red", "green")]
    assert found.unreadable == (str(own / "gone.png"),)
    table.write_text("path;kind;split\na.png;red;train\n../d.png;red;TEST\n")
    found = measure(load(linear_bundle), table, columns=(None, "kind"))
    assert (found.accuracy, found.samples, found.split) == (0.0, 1, "test")
    assert found.worst[0].file == (own / "../d.png").resolve().as_posix()


def test_tables_that_give_no_accuracy_are_refused(linear_bundle, tmp_path):
    model, table = load(linear_bundle), tmp_path / "labels.csv"
    table.write_text("file,label\na.png,yellow\n")
    with pytest.raises(DataError, match=r"classes that the model does not have(?s:.)*found: yellow"):
        measure(model, table)
    table.write_text("file,label\na.png,red\na.png,blue\n")
    with pytest.raises(DataError, match="more than one label"):
        measure(model, table)
    table.write_text("file,label\na.png,red\n")
    with pytest.raises(DataError, match="no readable images\n  found: 1 unreadable"):
        measure(model, table)


def test_an_image_in_another_range_is_refused_instead_of_left_out(linear_bundle, tmp_path):
    write(tmp_path / "own" / "red", "a.png", (200, 0, 0))
    Image.new("F", (8, 8), -1.5).save(tmp_path / "own" / "red" / "b.tif")
    with pytest.raises(RangeError, match=r"b\.tif has values outside(?s:.)*found: values from -1\.5 to -1\.5"):
        measure(load(linear_bundle), tmp_path / "own")
