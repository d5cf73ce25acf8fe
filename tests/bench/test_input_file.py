"""Inputs that are read from a file: what fits the model, and what is wrong with what does not."""

from __future__ import annotations

import hashlib
import zipfile

import numpy as np
import pytest

from edgekd.bench.input_file import input_file, read_inputs
from edgekd.errors import BenchError
from edgekd.runtime.backends import TensorInfo

IMAGE = TensorInfo("image", ("n", 3, 2, 2), "float32")
TEXT = TensorInfo("text", ("n", 1), "str")
GOOD = {"image": np.ones((2, 3, 2, 2), np.float32), "text": np.array([["a"], ["bcd"]])}


def test_arrays_by_name_in_the_models_order_and_the_files_digest(tmp_path):
    file = tmp_path / "in.npz"
    np.savez_compressed(file, text=GOOD["text"], image=GOOD["image"])
    found = read_inputs(file, [IMAGE, TEXT])
    assert list(found) == ["image", "text"] and all(np.array_equal(found[name], GOOD[name]) for name in GOOD)
    recorded = input_file(file)
    assert (recorded.name, recorded.sha256) == ("in.npz", hashlib.sha256(file.read_bytes()).hexdigest())


def test_another_byte_order_is_the_same_type(tmp_path):
    np.savez(tmp_path / "in.npz", image=GOOD["image"].astype(">f4"))
    assert np.array_equal(read_inputs(tmp_path / "in.npz", [IMAGE])["image"], GOOD["image"])


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"image": None}, ["'image' is missing"]),
        (
            {"image": None, "imgae": GOOD["image"]},
            ["'image' is missing", "'imgae' is no input", "did you mean 'image'"],
        ),
        ({"more": np.ones(1)}, ["'more' is no input of the model"]),
        ({"image": GOOD["image"].astype(np.float64)}, ["'image' is float64, the model takes float32"]),
        ({"text": np.array([[b"a"], [b"b"]])}, ["the model takes str"]),
        ({"image": np.ones((2, 3, 2, 4), np.float32)}, ["has the shape (2, 3, 2, 4), the model takes (n, 3, 2, 2)"]),
        ({"image": np.ones((3, 2, 2), np.float32)}, ["has the shape (3, 2, 2)"]),
        ({"image": np.ones((0, 3, 2, 2), np.float32)}, ["'image' is empty: (0, 3, 2, 2)"]),
        ({"image": np.ones((2, 3, 2, 4), np.float32), "text": None}, ["(2, 3, 2, 4)", "'text' is missing"]),
    ],
)
def test_all_mismatches_are_named_with_what_the_model_takes(tmp_path, changes, parts):
    arrays = {name: array for name, array in {**GOOD, **changes}.items() if array is not None}
    np.savez(tmp_path / "in.npz", **arrays)
    with pytest.raises(BenchError, match="does not fit the model's inputs") as caught:
        read_inputs(tmp_path / "in.npz", [IMAGE, TEXT])
    assert [
        part for part in (*parts, "image (n, 3, 2, 2) float32, text (n, 1) str") if part not in str(caught.value)
    ] == []


def pickled(file):
    np.savez(file, image=np.array([{}, {}]))


def single(file):
    with file.open("wb") as stream:
        np.save(stream, GOOD["image"])


def truncated(file):
    np.savez(file, **GOOD)
    file.write_bytes(file.read_bytes()[:-40])


def damaged(file):
    np.savez(file, **GOOD)
    content = bytearray(file.read_bytes())
    content[200:210] = bytes(10)
    file.write_bytes(content)


def other_files(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("image", "not an array")


def huge(file):
    header = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 8), }"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("image.npy", header.ljust(127) + b"\n")


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (pickled, "Python objects"),
        (single, "not an .npz archive"),
        (truncated, "not an .npz archive"),
        (damaged, ""),
        (other_files, "files that are no arrays: image"),
        (huge, ""),
        (lambda file: file.write_text("text"), "not an .npz archive"),
        (lambda file: file.touch(), "not an .npz archive"),
        (lambda file: file.mkdir(), "not an .npz archive"),
        (lambda file: None, "no such file"),
    ],
)
def test_what_is_no_archive_of_arrays(tmp_path, make, found):
    make(tmp_path / "in.npz")
    with pytest.raises(BenchError, match=r"in.npz cannot be read as inputs") as caught:
        read_inputs(tmp_path / "in.npz", [IMAGE, TEXT])
    assert f"found: {found}" in str(caught.value) and "numpy.savez" in str(caught.value)
