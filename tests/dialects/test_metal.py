"""The metal dialect: what a movement reaches for is there."""

from __future__ import annotations

import pytest

from compiler import ir
from compiler.dialects import metal  # noqa: F401 (registers the dialect)


def made(op, attributes, *shapes):
    f = ir.Function("main", {f"x{i}": ir.TensorType(ir.F32, s) for i, s in enumerate(shapes)})
    return ir.Builder(f.block).op(f"metal.{op}", f.inputs, attributes).result.shape


@pytest.mark.parametrize(
    ("op", "fits", "attribute", "others"),
    [
        ("reshape", {"shape": (6,)}, "shape", [(5,), (-2, -3)]),
        ("broadcast", {"shape": (4, 2, 3)}, "shape", [(3,), (2, 4)]),
        ("slice", {"starts": (1, 2), "steps": (1, -2), "shape": (1, 2)}, "shape", [(2, 2), (1, 3), (-1, 2), (1,)]),
        ("slice", {"starts": (0, 2), "steps": (1, 1), "shape": (2, 1)}, "starts", [(1, 2), (-1, 2)]),
        ("strided", {"start": 1, "strides": (2, 1), "shape": (2, 3)}, "start", [-1, 2]),
        ("strided", {"start": 5, "strides": (-1,), "shape": (6,)}, "start", [4, 6]),
    ],
)
def test_movements_stay_inside(op, fits, attribute, others):
    assert made(op, fits, (2, 3)) == fits["shape"]
    for other in others:
        with pytest.raises(ir.InferenceError, match="does not fit a tensor of shape"):
            made(op, {**fits, attribute: other}, (2, 3))


def test_there_are_as_many_zero_points_as_scales():
    how = {"axis": 1, "block": 0}
    assert made("dequantize", how, (2, 3), (3,), (3,)) == (2, 3)
    for scale, zero in (((), (3,)), ((3,), ())):
        with pytest.raises(ir.InferenceError, match="as many zero points"):
            made("dequantize", how, (2, 3), scale, zero)
