"""What proofs know of onnxruntime's kernels: where it is no judge, and where it still is."""

from __future__ import annotations

import numpy as np
import pytest

import compiler.dialects.onnx  # noqa: F401 (registers the dialect)
from compiler import ir
from compiler.rewrite.prove_kernels import astray


def said(op, x, constants=(), attributes=None, results=1):
    f = ir.Function("main", {"x": ir.TensorType(ir.from_numpy(x.dtype), x.shape)}, ["y"])
    b = ir.Builder(f.block)
    operands = [*f.inputs, *(b.constant(np.array(c), "onnx") for c in constants)]
    made = b.op(f"onnx.{op}", operands, attributes or {}, results=results)
    f.set_outputs([made.results[0]])
    return astray(f, {f.inputs[0]: x})


@pytest.mark.parametrize(
    ("op", "numbers", "axes", "attributes", "over"),
    [
        ("ReduceSumSquare", [[46341, 0]], [1], {}, True),
        ("ReduceSumSquare", [[46340, 0]], [-1], {}, False),
        ("ReduceSumSquare", [[46340], [46340]], [1, -1], {}, False),
        ("ReduceSumSquare", [[46340], [46340]], [0], {}, True),
        ("ReduceSum", [[2**31 - 1, 1]], [], {}, True),
        ("ReduceSum", [[2**31 - 1, 1]], [], {"noop_with_empty_axes": 1}, False),
        ("ReduceSum", [[2**31 - 1, -1]], [], {}, False),
        ("ReduceL1", [[2**31 - 1, -1]], [], {}, True),
    ],
)
def test_sums_that_integers_do_not_hold(op, numbers, axes, attributes, over):
    text = said(op, np.array(numbers, np.int32), [np.array(axes, np.int64)], attributes)
    assert text == ("a sum that the integer type does not hold" if over else None)
    assert said(op, np.array(numbers, np.float32), [np.array(axes, np.int64)], attributes) is None


@pytest.mark.parametrize(
    ("k", "attributes", "is_open"),
    [(2, {"sorted": 0}, True), (1, {"sorted": 0}, False), (2, {"sorted": 1}, False), (2, {}, False)],
)
def test_the_best_come_in_any_order_where_none_is_asked_for(k, attributes, is_open):
    x = np.array([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]], np.float32)
    text = said("TopK", x, [np.array([k])], attributes, results=2)
    assert text == ("the best elements in any order" if is_open else None)
