from __future__ import annotations

import pytest

from edgekd.bench.shapes import ONLY, plan_inputs
from edgekd.errors import BenchError, UnknownNameError, UsageError
from edgekd.runtime.backends import TensorInfo


def tensor(name: str, *shape: int | str, dtype: str = "float32") -> TensorInfo:
    return TensorInfo(name, shape, dtype)


IMAGE = tensor("image", "n", 3, 8, 8)
DYNAMIC = tensor("image", "n", 3, "height", "width")
FIXED = tensor("image", 4, 3, 8, 8)
NAMELESS = tensor("x", "dim0", 3)
LOGITS = tensor("logits", 4, 10)
TOKENS, MASK = (tensor(name, "batch", "length", dtype="int64") for name in ("tokens", "mask"))


def planned(*inputs, outputs=(), batch=None, **shapes):
    plan = plan_inputs(
        inputs, outputs, batch=batch, shapes={name.replace("only", ONLY): s for name, s in shapes.items()}
    )
    return plan.batch, list(plan.shapes.values())


@pytest.mark.parametrize(
    ("inputs", "options", "batch", "shapes"),
    [
        # One input.
        ([IMAGE], {}, 1, [(1, 3, 8, 8)]),
        ([IMAGE], {"batch": 8}, 8, [(8, 3, 8, 8)]),
        ([DYNAMIC], {"batch": 2, "only": (1, 3, 32, 48)}, 2, [(2, 3, 32, 48)]),
        ([DYNAMIC], {"image": (5, 3, 32, 48)}, 5, [(5, 3, 32, 48)]),
        ([FIXED], {"batch": 4, "only": (4, 3, 8, 8)}, 4, [(4, 3, 8, 8)]),
        ([FIXED], {"outputs": [LOGITS]}, 4, [(4, 3, 8, 8)]),
        # Without a batch dimension: one call is one sample.
        ([tensor("x")], {}, 1, [()]),
        ([tensor("x")], {"batch": 1}, 1, [()]),
        ([tensor("x", 7)], {"outputs": [tensor("y", 7)]}, 1, [(7,)]),
        ([tensor("x", 3, 8, 8)], {"outputs": [tensor("y", 3, 8, 8)]}, 1, [(3, 8, 8)]),
        ([tensor("x", 3, 8, 8)], {"batch": 3}, 3, [(3, 8, 8)]),
        ([FIXED], {"outputs": [tensor("y", 1, 10)]}, 1, [(4, 3, 8, 8)]),
        ([], {}, 1, []),
        ([tensor("x", dtype="int64")], {"x": (2, 3)}, 1, [(2, 3)]),  # the graph may tell no dimensions
        ([tensor("x", "n", 1, 4), tensor("past", "n", 0, 4)], {"batch": 2}, 2, [(2, 1, 4), (2, 0, 4)]),
        ([tensor("x", "?", 3, "?")], {"batch": 2, "x": (1, 3, 6)}, 2, [(2, 3, 6)]),
        # A single dynamic dimension is the batch where it is called so, or where a batch size is asked for.
        ([tensor("x", "batch_size")], {}, 1, [(1,)]),
        ([tensor("x", "samples")], {"batch": 16}, 16, [(16,)]),
        ([tensor("x", "samples")], {"x": (16_000,)}, 1, [(16_000,)]),
        ([tensor("user", "n"), tensor("history", "n", 5)], {}, 1, [(1,), (1, 5)]),
        # Several inputs: dynamic dimensions of one name are one.
        ([TOKENS, MASK], {"batch": 4, "tokens": (1, 128)}, 4, [(4, 128), (4, 128)]),
        ([IMAGE, tensor("threshold")], {"batch": 2}, 2, [(2, 3, 8, 8), ()]),
        ([IMAGE, tensor("anchors", 100, 4)], {}, 1, [(1, 3, 8, 8), (100, 4)]),
        ([FIXED, tensor("size", 2)], {"outputs": [LOGITS]}, 4, [(4, 3, 8, 8), (2,)]),
        ([tensor("points", "count", 3), tensor("x", "batch", 2)], {"points": (9, 3)}, 1, [(9, 3), (1, 2)]),
        ([IMAGE, tensor("state", 2, "n", 16)], {"batch": 5}, 5, [(5, 3, 8, 8), (2, 5, 16)]),
        # Without names: the first is the batch, the others are each of its own.
        (
            [tensor("a", "dim0", "dim1"), tensor("b", "dim0", "dim1")],
            {"batch": 2, "a": (1, 6), "b": (1, 7)},
            2,
            [(2, 6), (2, 7)],
        ),
        ([tensor("x", "x_dynamic_axes_1", 3), tensor("y", "y_dynamic_axes_1", 2)], {"batch": 4}, 4, [(4, 3), (4, 2)]),
        ([tensor("x", "unk__5", 3), tensor("y", "unk__6", 2)], {}, 1, [(1, 3), (1, 2)]),
        ([NAMELESS, tensor("at", "dim0", 2)], {"batch": 4, "at": (100, 2), "x": (1, 3)}, 4, [(4, 3), (100, 2)]),
        ([NAMELESS, tensor("at", "dim0", 2)], {"x": (2, 3), "at": (1, 2)}, 2, [(2, 3), (1, 2)]),
    ],
)
def test_shapes_that_a_model_is_measured_with(inputs, options, batch, shapes):
    assert planned(*inputs, **options) == (batch, shapes)


@pytest.mark.parametrize(
    ("inputs", "options", "parts"),
    [
        ([tensor("x", 1, 3, dtype="seq(tensor(float))")], {}, ["'x'", "seq(tensor(float))", "float16", "bool"]),
        ([tensor("x", 1, 3, dtype="tensor(bfloat16)")], {}, ["bfloat16", "float32"]),
        ([FIXED], {"outputs": [LOGITS], "batch": 1}, ["fixed at 4", "requested 1", "--batch 4"]),
        ([tensor("x", 3, 8, 8)], {"batch": 2}, ["no batch dimension", "x (3, 8, 8)", "requested batch 2"]),
        ([], {"batch": 2}, ["no batch dimension", "no input"]),
        ([tensor("x", 0, 3)], {}, ["empty inputs only", "x (0, 3)"]),
        ([tensor("x", "?", "-1")], {}, ["dynamic dimensions", "x (?, -1)", "--input-shape 1x128"]),
        ([DYNAMIC], {}, ["dynamic dimensions", "(n, 3, height, width)", "--input-shape 1x3x224x224"]),
        ([tensor("x", "samples")], {}, ["dynamic dimensions", "x (samples,)", "--input-shape 128", "--batch 1"]),
        ([TOKENS, MASK], {}, ["'tokens', 'mask'", "--input-shape tokens=1x128", "--input"]),
        ([tensor("a b", "n", "m"), IMAGE], {"batch": 2}, ["--input-shape 'a b=2x128'", "{'a b': (2, 128)}"]),
        ([tensor("points", "count", 3), tensor("x", "batch", 2)], {}, ["'points'", "(count, 3)", "points=128x3"]),
        ([DYNAMIC], {"only": (1, 4, 8, 8)}, ["does not fit", "(1, 4, 8, 8)", "(n, 3, height, width)"]),
        ([DYNAMIC], {"only": (1, 3, 8)}, ["does not fit", "(1, 3, 8)"]),
    ],
)
def test_what_cannot_be_measured_is_refused_with_its_reason(inputs, options, parts):
    with pytest.raises(BenchError) as caught:
        planned(*inputs, **options)
    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("inputs", "options", "kind", "parts"),
    [
        ([TOKENS, MASK], {"only": (1, 8)}, UsageError, ["2 inputs", "tokens (batch, length)", "tokens=1x8"]),
        ([], {"only": (1, 8)}, UsageError, ["0 inputs", "leave the shape out"]),
        ([TOKENS, MASK], {"token": (1, 8)}, UnknownNameError, ["'token'", "did you mean 'tokens'"]),
        (
            [TOKENS, MASK],
            {"tokens": (1, 8), "mask": (1, 9)},
            UsageError,
            ["'length'", "8 in 'tokens', 9 in 'mask'"],
        ),
        ([IMAGE], {"only": (8, 3, 8, 8), "batch": 2}, UsageError, ["another batch size", "8, requested 2", "--batch"]),
        ([tensor("x", "dim0", 3)], {"only": (8, 3), "batch": 2}, UsageError, ["another batch size", "8, requested 2"]),
    ],
)
def test_shapes_that_contradict_the_model_or_each_other(inputs, options, kind, parts):
    with pytest.raises(kind) as caught:
        planned(*inputs, **options)
    assert [part for part in parts if part not in str(caught.value)] == []
