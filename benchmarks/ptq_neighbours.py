"""Quantizes an ONNX file with another toolkit: `PYTHON ptq_neighbours.py TOOL FP32.onnx IMAGES.npy OUT.onnx`.

Run by benchmarks/ptq.py with an interpreter that has the toolkit (nncf, or nvidia-modelopt[onnx]), so that edgekd does
not need it. Imports nothing of edgekd. Prints the version of the toolkit in the last line.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

import numpy as np
import numpy.typing as npt
import onnx

Floats = npt.NDArray[np.float32]


def with_nncf(fp32: str, images: Floats, out: str) -> str:
    """With the defaults, but on all images: uint8 and int8, per channel, min-max, fast bias correction."""
    import nncf

    model = onnx.load(fp32)
    name = model.graph.input[0].name
    shown = nncf.Dataset(images, lambda image: {name: image[np.newaxis]})
    onnx.save(nncf.quantize(model, shown, subset_size=len(images)), out)
    return version("nncf")


def with_modelopt(fp32: str, images: Floats, out: str) -> str:
    """With the defaults on a CPU: symmetric int8, per channel, entropy; what is not int8 stays fp32."""
    from modelopt.onnx.quantization import quantize

    quantize(
        fp32,
        quantize_mode="int8",
        calibration_data={onnx.load(fp32).graph.input[0].name: images},
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=out,
    )
    return version("nvidia-modelopt")


TOOLS = {"nncf": with_nncf, "modelopt": with_modelopt}


def main() -> None:
    tool, fp32, images, out = sys.argv[1:]
    print(TOOLS[tool](fp32, np.load(images), out))


if __name__ == "__main__":
    main()
