from __future__ import annotations

import pytest

from edgekd.runtime.gpu import Gpu

CARDS = [((5, 3), "5.3", False), ((6, 1), "6.1", True), ((6, 2), "6.2", False), ((12, 0), "12.0", True)]


@pytest.mark.parametrize(("capability", "text", "int8"), CARDS)
def test_a_gpu_is_its_compute_capability(capability, text, int8):
    gpu = Gpu("x", capability, "12.6")
    assert (gpu.capability, gpu.has_int8) == (text, int8)
