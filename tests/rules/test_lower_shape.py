"""Lowering and back: shapes, gathers, what is made of shapes. See :mod:`tests.rules.harness`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler import ir
from compiler.errors import UnsupportedError
from compiler.ir import Module
from tests.rules.harness import C, build, check, kinds, lower, rand, refuses, run_mil

X = rand(2, 3, 4)
N = rand(2, 3, 4, dtype=np.int64)


# ---- shapes


def test_reshapes() -> None:
    assert kinds(check("Reshape", [X, C([4, -1])])) == ["reshape"]
    check("Reshape", [X, C([0, 2, -1])])
    check("Reshape", [rand(1, 1), C(np.array([], np.int64))])
    check("Reshape", [np.float32(3), C([1, 1])])
    check("Reshape", [X > 0, C([24])])
    check("Flatten", [X], {"axis": 2})
    check("Flatten", [X], {"axis": 0})
    check("Squeeze", [rand(1, 3, 1), C([0])])
    check("Squeeze", [rand(1, 3, 1)])
    check("Unsqueeze", [X, C([0, -1])])
    check("Unsqueeze", [np.float32(3), C([0])])
    assert kinds(check("Reshape", [X, C([2, 3, 4])])) == []


def test_reshape_with_open_dimension() -> None:
    module, arrays = build("Reshape", [X, C([0, 12])], shapes={0: ("n", 3, 4)})
    lowered = lower(module)
    np.testing.assert_array_equal(run_mil(lowered, arrays)[0], X.reshape(2, 12))
    shape = next(op for op in lowered.walk() if op.name == "mil.reshape").operands[1]
    assert shape.constant.tolist() == [-1, 12]


def check_open(op: str, operands: list[Any], shapes: dict[int, Any], want: np.ndarray, **attributes: Any) -> Module:
    """Lowers an operator whose inputs have open dimensions."""
    module, arrays = build(op, operands, attributes, shapes=shapes)
    lowered = lower(module)
    np.testing.assert_array_equal(run_mil(lowered, arrays)[0], want)
    return lowered


def test_reshape_with_several_open_dimensions() -> None:
    x = rand(2, 3, 8)
    check_open("Reshape", [x, C([0, 0, 2, 4])], {0: ("n", "s", 8)}, x.reshape(2, 3, 2, 4))
    check_open("Reshape", [x, C([0, -1])], {0: ("n", "s", 8)}, x.reshape(2, 24))
    check_open("Reshape", [x, C([0, 0, -1, 2])], {0: ("n", "s", "c")}, x.reshape(2, 3, 4, 2))


def test_indices_into_open_dimensions() -> None:
    x = rand(4, 3)
    check_open("Gather", [x, np.array([-1, 0])], {0: ("n", 3), 1: ("m",)}, x[[-1, 0]])
    check_open("Gather", [x, C(np.int64(-1))], {0: ("n", 3)}, x[-1])
    check_open("GatherND", [x, np.array([[-1, 0], [2, -1]])], {0: ("n", "c")}, x[[-1, 2], [0, -1]])
    added = x.copy()
    added[[-1, 1]] += 1
    ones = np.ones((2, 3), np.float32)
    check_open("ScatterND", [x, np.array([[-1], [1]]), ones], {0: ("n", 3)}, added, reduction="add")


@pytest.mark.parametrize("perm", [None, (2, 0, 1), (0, 1, 2)])
def test_transpose(perm: Any) -> None:
    check("Transpose", [X], {"perm": perm} if perm else {})


@pytest.mark.parametrize(
    ("shape", "perm"),
    [
        ((2, 3, 2, 4, 2, 5), (0, 1, 3, 5, 2, 4)),  # pixel shuffle
        ((2, 4, 3, 5, 3, 2), (0, 1, 3, 2, 4, 5)),  # windows
        ((2, 3, 2, 2, 3, 2), (5, 3, 1, 4, 2, 0)),
        ((1, 2, 1, 3, 1, 2, 2), (6, 0, 5, 3, 2, 1, 4)),
    ],
)
def test_transpose_of_high_rank_between_reshapes(shape: tuple[int, ...], perm: tuple[int, ...]) -> None:
    """Core ML has no rank 6, but what goes in and comes out is of lower rank."""
    x = rand(int(np.prod(shape)))
    module, arrays = build("Reshape", [x, C(shape)])
    b = ir.Builder(module.main.block)
    turned = b.op("onnx.Transpose", [module.main.outputs[0]], {"perm": perm}).result
    module.main.set_outputs([b.op("onnx.Reshape", [turned, b.constant(np.array([-1]), "onnx")]).result])
    lowered = lower(module)
    assert max(v.type.rank for op in lowered.walk() for v in op.results) <= 5
    np.testing.assert_array_equal(run_mil(lowered, arrays)[0], x.reshape(shape).transpose(perm).reshape(-1))


def test_axes_merge_where_more_than_five_are_passed_through() -> None:
    """x (2·3·2·4·2·5) reshaped to rank 6, worked on, and reshaped back."""
    shape = (2, 3, 2, 4, 2, 5)
    x = rand(int(np.prod(shape)))
    bias = rand(3, 1, 4, 1, 1)

    def lowered(make: Any) -> np.ndarray:
        module, arrays = build("Reshape", [x, C(shape)])
        b = ir.Builder(module.main.block)
        high = module.main.outputs[0]
        made = make(b, high)
        module.main.set_outputs([b.op("onnx.Reshape", [made, b.constant(np.array([-1]), "onnx")]).result])
        mil = lower(module)
        assert max(v.type.rank for op in mil.walk() for v in op.results if op.defn.constant is None) <= 5
        return run_mil(mil, arrays)[0]

    high = x.reshape(shape)
    got = lowered(lambda b, v: b.op("onnx.Add", [v, b.constant(bias, "onnx")]).result)
    np.testing.assert_allclose(got, (high + bias).reshape(-1), 1e-6)
    got = lowered(lambda b, v: b.op("onnx.Relu", [v]).result)
    np.testing.assert_array_equal(got, np.maximum(x, 0))
    got = lowered(lambda b, v: b.op("onnx.ReduceSum", [v, b.constant(np.array([1, 2, -1]), "onnx")]).result)
    np.testing.assert_allclose(got, high.sum(axis=(1, 2, 5)).reshape(-1), 1e-5, 1e-6)
    got = lowered(lambda b, v: b.op("onnx.Concat", [v, v], {"axis": 2}).result)
    np.testing.assert_array_equal(got, np.concatenate([high, high], axis=2).reshape(-1))
    got = lowered(lambda b, v: b.op("onnx.Softmax", [v], {"axis": 3}).result)
    np.testing.assert_allclose(got, (np.exp(high) / np.exp(high).sum(3, keepdims=True)).reshape(-1), 1e-5)


def test_rank_and_emptiness_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="'the_Unsqueeze' gives a tensor of rank 6"):
        lower(build("Unsqueeze", [rand(1, 1, 1, 2), C([0, 1])])[0])
    with pytest.raises(UnsupportedError, match="without elements"):
        lower(build("Relu", [np.zeros((2, 0), np.float32)])[0])


def test_joining_and_splitting() -> None:
    check("Concat", [X, rand(2, 1, 4)], {"axis": -2})
    check("Concat", [X, C(rand(2, 1, 4))], {"axis": 1})
    check("Concat", [X > 0, X > 1], {"axis": 0})
    assert kinds(check("Concat", [X, C(np.zeros((2, 0, 4), np.float32))], {"axis": 1})) == []
    check("Split", [X], {"axis": 2, "num_outputs": 2}, results=2)
    check("Split", [rand(2, 5)], {"axis": -1, "num_outputs": 3}, results=3)
    with pytest.raises(UnsupportedError, match="without elements"):
        lower(build("Split", [X], {"axis": -1, "num_outputs": 3}, results=3)[0])
    check("Split", [X, C([1, 2])], {"axis": 1}, results=2)
    check("Split", [X], {"axis": 1, "num_outputs": 1})
    check("Tile", [X, C([1, 2, 3])])
    check("Expand", [rand(3, 1), C([2, 3, 4])])
    check("Expand", [X, C([1, 1])])
    check("Expand", [rand(3, 1) > 0, C([2, 1, 4])])
    check("Expand", [rand(3, 1), np.array([2, 3, 4])])


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(mode: str) -> None:
    x = rand(2, 4, 5)
    for pads in ([0, 0, 1, 0, 0, 2], [0, 1, 2, 0, 1, 0], [1, 1, 0, 0, 2, 1], [0, -1, 2, 0, 0, -2]):
        check("Pad", [x, C(pads)], {"mode": mode})
    check("Pad", [x, C([1, 2]), None, C([-1])], {"mode": mode})
    if mode == "constant":
        check("Pad", [x, C([0, 0, 1, 0, 0, 2]), C(2.5)])
        check("Pad", [rand(2, 3, dtype=np.int64), C([0, 1, 1, 2]), C(np.int64(7))])
        check("Pad", [x, C([0, 0, 1, 0, -1, 2]), np.float32(2.5)])
        check("Pad", [rand(2, 3, dtype=np.int64), C([0, 1, 1, 2]), np.array([7])])


SLICES: list[tuple[list[int], list[int], list[int] | None, list[int] | None]] = [
    ([1], [3], [2], None),
    ([0, 1], [2, 9], [0, 2], [1, 2]),
    ([-2], [np.iinfo(np.int64).max], [-1], None),
    ([9], [np.iinfo(np.int64).min], [1], [-1]),
    ([-1], [-4], [2], [-2]),
    ([0, 0, 0], [2, 3, 4], None, None),
    ([-99], [-1], [1], None),
]


@pytest.mark.parametrize(("starts", "ends", "axes", "steps"), SLICES)
def test_slice(starts: Any, ends: Any, axes: Any, steps: Any) -> None:
    operands = [C(v) if v is not None else None for v in (starts, ends, axes, steps)]
    check("Slice", [X, *operands])
    check("Slice", [X > 0, *operands])
    module, arrays = build("Slice", [X, *operands], shapes={0: ("a", "b", "c")})
    (want,) = run_mil(lower(build("Slice", [X, *operands])[0]), arrays)
    np.testing.assert_array_equal(run_mil(lower(module), arrays)[0], want)


def test_slice_by_computed_bounds() -> None:
    check("Slice", [X, np.array([1]), np.array([3]), C([2])])
    check("Slice", [X, np.array([1, 0]), C([9, 2]), C([2, 0])])
    check("Slice", [X, C([0, 1, 1]), np.array([1, 2, 3])])


def test_empty_results_are_refused() -> None:
    refuses("Slice", [X, C([1]), C([1]), C([0])])


# ---- gathers and scatters


def test_gather() -> None:
    check("Gather", [X, C(np.array([[0, -1], [1, 1]]))], {"axis": 1})
    check("Gather", [X, C(np.int64(-1))], {"axis": 2})
    check("Gather", [rand(5), C(np.int64(-2))])
    check("Gather", [X, np.array([-1, 0, 1])])
    check("Gather", [X, np.int64(1)], {"axis": 1})
    check("Gather", [X > 0, np.array([-1, 0])])
    check("Gather", [N, np.array([2, -3], np.int32)], {"axis": 1})


def test_negative_indices_survive_only_on_ios16() -> None:
    module, _ = build("Gather", [X, np.array([-1, 0, 1])])
    assert kinds(lower(module, "ios16")) == ["gather"]
    assert "select" in kinds(lower(module, "ios17"))


def test_element_of_an_axis_is_a_slice() -> None:
    assert kinds(check("Gather", [X, C(np.int64(-1))], {"axis": 1})) == ["slice_by_index"]


def test_gather_elements() -> None:
    indices = np.array([[[0, -1, 2, 1]], [[2, 1, 0, -3]]])
    check("GatherElements", [X, indices], {"axis": 1})
    check("GatherElements", [X, C(indices)], {"axis": 1})
    check("GatherElements", [X, np.array([[[1, -1]]])], {"axis": -1})


def test_gather_nd() -> None:
    check("GatherND", [X, C(np.array([[0, 1], [-1, -2]]))])
    check("GatherND", [X, np.array([[0, 1, 1], [-1, -2, 3]])])
    check("GatherND", [X, np.array([[[1]], [[-1]]])], {"batch_dims": 1})


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter(reduction: str) -> None:
    indices = np.array([[[0, -1, 2, 1]], [[2, 1, 0, -3]]])
    updates = rand(2, 1, 4, seed=3)
    attributes = {"axis": 1, "reduction": reduction}
    check("ScatterElements", [X, indices, updates], attributes)
    check("ScatterElements", [X, C(indices), updates], attributes)
    check("ScatterElements", [X, indices[:1, :, :2].copy(), updates[:1, :, :2].copy()], attributes)
    check("ScatterElements", [X, C(indices[:1, :, :2].copy()), updates[:1, :, :2].copy()], attributes)
    attributes = {"reduction": reduction}
    check("ScatterND", [X, np.array([[0, 1], [-1, -1]]), rand(2, 4)], attributes)
    check("ScatterND", [X, C(np.array([[0, 1, -1]])), rand(1)], attributes)


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_writes_into_a_cache(mode: str) -> None:
    at = np.array([1, 3 if mode == "circular" else 2])
    for cache, update, axis in (((2, 3, 4, 5), (2, 3, 2, 5), -2), ((2, 4, 3), (2, 2, 3), 1)):
        check("TensorScatter", [rand(*cache), rand(*update, seed=1), at], {"axis": axis, "mode": mode})
        check("TensorScatter", [rand(*cache), rand(*update, seed=1), C(at)], {"axis": axis, "mode": mode})
        check("TensorScatter", [rand(*cache), rand(*update, seed=1)], {"axis": axis, "mode": mode})


def test_scatter_of_bools() -> None:
    flags = rand(2, 3, dtype=bool)
    check("ScatterND", [flags, C(np.array([[0]])), np.array([[True, False, True]])])
    refuses("ScatterND", [flags, C(np.array([[0]])), np.array([[True, False, True]])], {"reduction": "max"})


def test_one_hot() -> None:
    indices = np.array([[0, 2], [-1, 5]])
    check("OneHot", [indices, C(np.int64(3)), C(np.array([0.5, 2], np.float32))])
    check("OneHot", [indices, C(np.int64(3)), C(np.array([0, 1], np.float32))], {"axis": 0})
    check("OneHot", [indices.astype(np.float32), C(np.float32(3)), np.array([1, 7], np.float32)], {"axis": 1})


def test_triangles() -> None:
    for upper in (0, 1):
        for k in (None, C(np.int64(1)), C(np.int64(-1)), np.int64(1), np.int64(-2)):
            check("Trilu", [X, k], {"upper": upper})
    check("Trilu", [N, C(np.int64(0))])


def test_places_known_at_run_time_only() -> None:
    flags = rand(3, 4, dtype=bool)
    check("NonZero", [flags])
    check("NonZero", [N])
    check("Compress", [X, np.array([True, False, True])], {"axis": 1})
    check("Compress", [X, np.array([False, True, True])])


# ---- tensors made of shapes and numbers


def test_made_of_shapes() -> None:
    check("Shape", [X])
    check("Shape", [X], {"start": 1, "end": -1})
    check("Size", [X])
    check("Range", [np.int64(1), np.int64(9), np.int64(3)])
    check("Range", [np.float32(1), np.float32(3), np.float32(0.5)])
    check("ConstantOfShape", [np.array([2, 3])], {"value": np.array([7], np.int64)})
    check("ConstantOfShape", [C([2, 3])], {"value": np.array([0.5], np.float32)})
    check("EyeLike", [rand(3, 4)], {"k": 1})
    check("ReverseSequence", [rand(4, 3, 2), np.array([1, 4, 2])])


@pytest.mark.parametrize("align_corners", [0, 1])
def test_affine_grid(align_corners: int) -> None:
    check("AffineGrid", [rand(2, 2, 3), C([2, 3, 4, 5])], {"align_corners": align_corners})
    check("AffineGrid", [rand(2, 3, 4), C([2, 3, 4, 5, 2])], {"align_corners": align_corners})
