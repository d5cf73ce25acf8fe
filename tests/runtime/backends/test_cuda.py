"""CUDA's driver, over a stand-in."""

from __future__ import annotations

import ctypes
import gc

import numpy as np
import pytest

from edgekd.errors import BackendError
from edgekd.runtime.backends import _cuda
from edgekd.runtime.gpu import Gpu


def test_why_not_tells_a_driver_a_gpu_and_none_apart(stand_in, tmp_path):
    assert _cuda.unavailable_reason(stand_in(1)) is None
    assert "finds no GPU" in str(_cuda.unavailable_reason(stand_in(0)))
    assert "cannot be loaded" in str(_cuda.unavailable_reason(str(tmp_path / "gone.so")))


def test_the_gpu_is_described_and_its_int8_known(stand_in):
    found = _cuda.device(stand_in(1, name="Orin", capability=(8, 7)))
    assert found == Gpu("Orin", (8, 7), "12.6")
    able = [(5, 3), (6, 0), (6, 1), (6, 2), (7, 0), (8, 7), (12, 0)]
    assert [Gpu("x", each, "12.6").has_int8 for each in able] == [False, False, True, False, True, True, True]
    with pytest.raises(BackendError, match="cuDeviceGet failed"):
        _cuda.device(stand_in(0))


def test_a_tensor_goes_there_and_back_and_leaves_nothing(stand_in):
    library = stand_in(1)
    driver = _cuda.Driver(library)
    stream, buffer = _cuda.Stream(driver), _cuda.Buffer(driver, (2, 3), "float32")
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    buffer.array[...] = values
    buffer.upload(stream)
    buffer.array[...] = -1
    buffer.download(stream)
    stream.synchronize()
    assert np.array_equal(buffer.array, values)
    counter = ctypes.CDLL(library).live_handles
    assert counter() == 3
    del stream, buffer
    gc.collect()
    assert counter() == 0


def test_what_cuda_refuses_is_reported_and_what_was_taken_goes_back(stand_in):
    library = stand_in(1)
    driver = _cuda.Driver(library)
    with pytest.raises(BackendError, match=r"cuMemAlloc_v2 failed: out of memory \(error 2\)"):
        _cuda.Buffer(driver, (1 << 31,), "uint8")
    with pytest.raises(BackendError, match=r"unknown error \(error 400\)"):
        driver.call("cuStreamSynchronize", None)
    gc.collect()
    assert ctypes.CDLL(library).live_handles() == 0
