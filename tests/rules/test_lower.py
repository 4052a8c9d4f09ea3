"""Lowering and back: arithmetic, comparison, reductions, products, shapes, gathers. See :mod:`tests.rules.harness`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler import ir
from compiler.errors import UnsupportedError
from compiler.ir import Module
from rules.limits import REASONS, reason
from tests.rules.harness import C, build, check, lower, rand, refuses, run_mil

X, Y = rand(2, 3, 4), rand(3, 1, seed=1)
N = rand(2, 3, 4, dtype=np.int64)
SIGNED = np.array([-7, -3, -1, 0, 1, 5, 9], np.int64)
DIVISORS = np.array([2, -2, 3, 5, -4, 3, -9], np.int64)
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5], np.float32)


def kinds(module: Module) -> list[str]:
    """The operators of a lowered module but for constants, without ``mil.``."""
    return [
        op.name.removeprefix("mil.") for op in module.walk() if op.defn.constant is None and op.defn.dialect == "mil"
    ]


# ---- arithmetic


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
def test_binary(op: str) -> None:
    check(op, [X, Y])
    check(op, [X, C(1.5)])
    check(op, [C(rand(4)), X])
    check(op, [SIGNED, DIVISORS])
    check(op, [SIGNED.astype(np.int32), C(np.int32(3))])


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16])
def test_narrow_integers_wrap(op: str, dtype: Any) -> None:
    info = np.iinfo(dtype)
    a = np.array([info.max, info.min, 100, 3], dtype)
    b = np.array([2, 1, 200 % (info.max + 1), 1], dtype)
    with np.errstate(over="ignore"):
        want = {"Add": a + b, "Sub": a - b, "Mul": a * b}[op]
    check(op, [a, b], expected=[want])


def test_integer_division_rounds_toward_zero() -> None:
    check("Div", [SIGNED, DIVISORS])
    check("Div", [np.array([7, 200, 255], np.uint8), C(np.array([2, 7, 16], np.uint8))])
    assert kinds(check("Div", [np.array([[1.0, 4.0]], np.float32), C(2.0)])) == ["real_div"]


def test_division_of_what_is_not_negative_is_one_operator() -> None:
    module, arrays = build("Shape", [X])
    b = ir.Builder(module.main.block)
    module.main.set_outputs([b.op("onnx.Div", [module.main.outputs[0], b.constant(np.array([2]), "onnx")]).result])
    lowered = lower(module)
    assert kinds(lowered) == ["shape", "floor_div"]
    np.testing.assert_array_equal(run_mil(lowered, arrays)[0], [1, 1, 2])


@pytest.mark.parametrize("fmod", [0, 1])
def test_mod(fmod: int) -> None:
    check("Mod", [SIGNED, DIVISORS], {"fmod": fmod})
    a, b = np.array([-4.3, 7.2, 5.0, 4.3], np.float32), np.array([2.1, -3.4, 8.0, 2.1], np.float32)
    check("Mod", [a, b], {"fmod": fmod}, expected=[np.fmod(a, b) if fmod else np.mod(a, b)])


def test_pow() -> None:
    assert kinds(check("Pow", [X, C(2.0)])) == ["square"]
    check("Pow", [np.abs(X), Y])
    check("Pow", [X, C(np.array([1, 2, 3, 4], np.int64))])
    check("Pow", [np.array([1, 2, 3], np.int32), C(np.array([3, 1, 2], np.int64))])
    check("Pow", [np.array([1, 2, 3], np.int64), C(np.array([1.5, 0.5, 2], np.float32))])


def test_any_number_of_operands() -> None:
    for op in ("Sum", "Max", "Min", "Mean"):
        check(op, [X, Y, rand(4, seed=3)])
        check(op, [X])


@pytest.mark.parametrize("op", ["Abs", "Neg", "Sign"])
def test_signs(op: str) -> None:
    check(op, [X])
    check(op, [SIGNED])


@pytest.mark.parametrize(
    "op",
    ["Atan", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Sin", "Sinh", "Tan", "Asinh", "Reciprocal"],
)
def test_unary(op: str) -> None:
    check(op, [X])


@pytest.mark.parametrize("op", ["Acos", "Asin", "Atanh"])
def test_unary_below_one(op: str) -> None:
    check(op, [np.tanh(X)])


def test_unary_above_zero() -> None:
    check("Sqrt", [np.abs(X)])
    check("Acosh", [1 + np.abs(X)])
    check("Log", [np.array([0.0, 1e-30, 1.0, 9.0], np.float32)])


def test_round_half_to_even() -> None:
    check("Round", [np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.2], np.float32)])


def test_clip() -> None:
    assert kinds(check("Clip", [X, C(-0.5), C(0.75)])) == ["clip"]
    check("Clip", [X, C(0.5), C(-0.5)])
    check("Clip", [X, C(0.1)])
    check("Clip", [X, None, C(0.1)])
    check("Clip", [X])
    check("Clip", [X, np.float32(-0.5), np.float32(0.5)])
    check("Clip", [N, C(np.int64(-2)), C(np.int64(3))])


# ---- conversion


FLOATS = np.array([-2.9, -0.5, 0.0, 0.49, 1.5, 100.7], np.float32)


@pytest.mark.parametrize("to", [ir.F16, ir.F32, ir.F64, ir.I32, ir.I64, ir.BOOL])
def test_cast(to: ir.DType) -> None:
    check("Cast", [FLOATS], {"to": to})
    check("Cast", [SIGNED], {"to": to})
    check("Cast", [SIGNED > 0], {"to": to})
    check("Cast", [np.array([0, 7, 200], np.uint8)], {"to": to})


@pytest.mark.parametrize("to", [ir.I8, ir.U8, ir.I16, ir.U16])
def test_cast_cuts_bits(to: ir.DType) -> None:
    source = np.array([-70000, -300, -1, 0, 5, 127, 128, 255, 256, 40000, 70000], np.int32)
    check("Cast", [source], {"to": to}, expected=[source.astype(to.numpy)])
    check("Cast", [np.array([True, False])], {"to": to})


def test_strings_are_refused() -> None:
    refuses("Cast", [np.array([1.0], np.float32)], {"to": ir.STRING})


# ---- comparison and logic


@pytest.mark.parametrize("op", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
def test_compare(op: str) -> None:
    check(op, [N, C(np.int64(1))])
    check(op, [X, np.roll(X, 1, axis=0)])
    check(op, [SPECIAL, SPECIAL])


def test_logic() -> None:
    a, b = rand(3, 4, dtype=bool), rand(4, seed=1, dtype=bool)
    for op in ("And", "Or", "Xor", "Equal"):
        check(op, [a, b])
    check("Not", [a])
    check("Where", [a, rand(3, 4), rand(1, 4, seed=1)])
    check("Where", [a, rand(3, 4, dtype=np.int64), C(np.int64(7))])
    flags = a[::-1].copy()
    check("Where", [a, flags, C(False)], expected=[np.where(a, flags, False)])


def test_special_numbers() -> None:
    check("IsNaN", [SPECIAL])
    for negative in (0, 1):
        for positive in (0, 1):
            check("IsInf", [SPECIAL], {"detect_negative": negative, "detect_positive": positive})


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32])
def test_bitwise(dtype: Any) -> None:
    info = np.iinfo(dtype)
    a = np.array([info.min, info.max, 1, 85], dtype)
    b = np.array([info.max, 3, 0, 51], dtype)
    check("BitwiseAnd", [a, b])
    check("BitwiseOr", [a, b])
    check("BitwiseXor", [a, b])
    check("BitwiseNot", [a])


def test_bit_shift() -> None:
    a, n = np.array([1, 85, 255, 128], np.uint8), np.array([0, 3, 7, 8], np.uint8)
    check("BitShift", [a, n], {"direction": "LEFT"}, expected=[np.array([1, 168, 128, 0], np.uint8)])
    check("BitShift", [a, n], {"direction": "RIGHT"}, expected=[np.array([1, 10, 1, 0], np.uint8)])
    a, n = np.array([-8, 4, -1, -9], np.int32), np.array([-1, -32, 31, 2], np.int32)
    check("BitShift", [a, n], {"direction": "RIGHT"}, expected=[np.array([-1, 0, -1, -3], np.int32)])


# ---- reductions

REDUCTIONS = [
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSumExp",
]


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reduce(op: str, keepdims: int) -> None:
    check(op, [X, C([1])], {"keepdims": keepdims})
    check(op, [X, C([-1, 0])], {"keepdims": keepdims})
    check(op, [X], {"keepdims": keepdims})


def test_reduce_log_sum() -> None:
    check("ReduceLogSum", [np.abs(X) + 0.1, C([2])])


def test_reduce_integers() -> None:
    for op in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceSumSquare"):
        check(op, [N.astype(np.int32), C([1])])
    check("ReduceMax", [N > 0, C([1])])
    refuses("ReduceMean", [N.astype(np.int32), C([1])])


def test_reduce_nothing() -> None:
    check("ReduceSum", [X], {"noop_with_empty_axes": 1})
    check("ReduceMax", [np.float32(3)])


def test_reduce_along_computed_axes() -> None:
    cube = rand(3, 2, 2)
    for axes in ([1], [2], [-1]):
        module, arrays = build("ReduceSum", [cube, np.array(axes)], {"keepdims": 0})
        module.main.outputs[0].type = ir.TensorType(ir.F32, (3, 2))
        got = run_mil(lower(module), arrays)[0]
        np.testing.assert_allclose(got, cube.sum(axis=axes[0]), 1e-5)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_arg(op: str) -> None:
    ties = np.array([[1, 5, 5, 2], [0, 0, -1, -1]], np.float32)
    for axis in (0, -1):
        for keepdims in (0, 1):
            for last in (0, 1):
                check(op, [ties], {"axis": axis, "keepdims": keepdims, "select_last_index": last})


def test_scans_and_sorts() -> None:
    check("CumSum", [X, C(np.int64(-1))], {"exclusive": 1, "reverse": 1})
    check("CumSum", [N, C(np.int64(1))])
    check("CumSum", [X, np.int64(1)])
    check("TopK", [X, C([2])], {"axis": 1}, results=2)
    check("TopK", [X, C([3])], {"largest": 0}, results=2)


# ---- products


def test_matmul() -> None:
    assert kinds(check("MatMul", [rand(2, 3, 4), C(rand(4, 5))])) == ["linear"]
    assert kinds(check("MatMul", [rand(2, 3, 4, 5), C(rand(5, 6))])) == ["linear"]
    assert kinds(check("MatMul", [rand(2, 1, 3, 4, 5), C(rand(5, 6))])) == ["matmul"]
    for a, b in [
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((3,), (3,)),
        ((2, 3, 4), (4,)),
    ]:
        check("MatMul", [rand(*a), rand(*b, seed=1)])
    check("MatMul", [rand(2, 3, dtype=np.int32), rand(3, 4, dtype=np.int32)])


@pytest.mark.parametrize(
    "attributes", [{}, {"transA": 1}, {"transB": 1}, {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}]
)
def test_gemm(attributes: dict[str, Any]) -> None:
    a = rand(4, 3) if attributes.get("transA") else rand(3, 4)
    b = rand(5, 4, seed=1) if attributes.get("transB") else rand(4, 5, seed=1)
    for bias in (None, C(rand(5)), C(rand(1, 5)), C(rand(3, 1)), C(1.5), rand(3, 5)):
        check("Gemm", [a, b, bias], attributes)
        check("Gemm", [a, C(b), bias], attributes)


def test_dense_layer_is_linear() -> None:
    module, arrays = build("MatMul", [rand(3, 4), C(rand(4, 5))])
    b = ir.Builder(module.main.block)
    module.main.set_outputs([b.op("onnx.Add", [b.constant(rand(1, 5), "onnx"), module.main.outputs[0]]).result])
    lowered = lower(module)
    assert kinds(lowered) == ["linear"]
    np.testing.assert_allclose(run_mil(lowered, arrays)[0], arrays["x0"] @ rand(4, 5) + rand(1, 5), 1e-5)
    assert kinds(check("Gemm", [rand(3, 4), C(rand(4, 5)), C(rand(5))])) == ["linear"]


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("nchw,nwhu->nchu", [(2, 3, 4, 5), (2, 5, 4, 6)]),
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bij,bjk->bik", [(5, 2, 3), (5, 3, 4)]),
        ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("bqhd,bkhd->bhqk", [(2, 4, 3, 5), (2, 6, 3, 5)]),
        ("i,j->ij", [(3,), (4,)]),
        ("i,i->", [(3,), (3,)]),
        ("ij->ji", [(2, 3)]),
        ("ij->", [(2, 3)]),
        ("ii->i", [(3, 3)]),
        ("ii", [(3, 3)]),
        ("...ij,...jk->...ik", [(2, 5, 2, 3), (2, 1, 3, 4)]),
        ("...ij,jk", [(2, 5, 2, 3), (3, 4)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
        ("bc,bc->b", [(2, 3), (2, 3)]),
        ("ab,cd->acbd", [(2, 3), (4, 5)]),
        ("abc,c->ab", [(2, 3, 4), (4,)]),
        ("abc,cb->a", [(2, 1, 4), (4, 3)]),
        ("abcd,abcd->abc", [(2, 3, 4, 5), (2, 3, 4, 5)]),
        ("kij,jk->ik", [(4, 2, 3), (3, 4)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    check("Einsum", [rand(*s, seed=i) for i, s in enumerate(shapes)], {"equation": equation})


def test_einsum_with_weights_is_linear() -> None:
    made = check("Einsum", [rand(2, 3, 4), C(rand(2, 5, 4))], {"equation": "btd,hkd->bthk"})
    assert kinds(made) == ["linear", "reshape"]


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


# ---- Fourier transforms


@pytest.mark.parametrize("parts", [1, 2])
def test_dft(parts: int) -> None:
    x = rand(2, 7, 3, parts)
    for attributes in ({}, {"onesided": 1}, {"inverse": 1}):
        if not (attributes.get("onesided") and parts == 2):
            check("DFT", [x, None, C(np.int64(1))], attributes, rtol=1e-4, atol=1e-5)
    check("DFT", [x, C(np.int64(4)), C(np.int64(1))], rtol=1e-4, atol=1e-5)
    check("DFT", [x, C(np.int64(5))], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [6, 7])
def test_inverse_dft_of_half_a_spectrum(n: int) -> None:
    signal = rand(2, n)
    half = np.fft.rfft(signal)
    pairs = np.stack([half.real, half.imag], axis=-1).astype(np.float32)
    attributes = {"inverse": 1, "onesided": 1}
    module, arrays = build("DFT", [pairs, C(np.int64(n)), C(np.int64(1))], attributes)
    np.testing.assert_allclose(run_mil(lower(module), arrays)[0][..., 0], signal, 1e-4, 1e-5)


def test_stft() -> None:
    signal, window = rand(2, 64, 1), C(np.hanning(16).astype(np.float32))
    for onesided in (0, 1):
        check("STFT", [signal, C(np.int64(8)), window, C(np.int64(16))], {"onesided": onesided}, rtol=1e-4, atol=1e-4)
    check("STFT", [signal, C(np.int64(8)), None, C(np.int64(16))], rtol=1e-4, atol=1e-4)


# ---- operators that ONNX defines by others


def test_attention_by_its_definition() -> None:
    q, k, v = rand(1, 2, 3, 8), rand(1, 2, 5, 8, seed=1), rand(1, 2, 5, 8, seed=2)
    check("Attention", [q, k, v], {"is_causal": 1}, os="ios18")


# ---- element types


def test_constants_must_fit() -> None:
    module, _ = build("Add", [N, C(np.array([2**31]))])
    with pytest.raises(UnsupportedError, match="2147483648 of 'the_Add'"):
        lower(module)


def test_interface_has_no_bools() -> None:
    module, arrays = build("Not", [rand(3, dtype=bool)])
    lowered = lower(module)
    function = lowered.main
    assert [function.inputs[0].type, function.outputs[0].type] == [ir.TensorType(ir.I32, (3,))] * 2
    assert function.attributes["declared.x0"] is function.attributes["declared.y0"] is ir.TensorType(ir.BOOL, (3,))
    np.testing.assert_array_equal(run_mil(lowered, arrays)[0], ~arrays["x0"])


def test_widths_are_declared() -> None:
    lowered = lower(build("Cast", [rand(3, dtype=np.int64)], {"to": ir.F64})[0])
    assert lowered.main.attributes["declared.x0"].dtype is ir.I64
    assert lowered.main.attributes["declared.y0"].dtype is ir.F64
    assert lowered.main.outputs[0].type is ir.TensorType(ir.F32, (3,))


def test_casts_between_what_becomes_one_type_vanish() -> None:
    assert kinds(check("Cast", [rand(3, dtype=np.int32)], {"to": ir.I64})) == []
    assert kinds(check("Cast", [np.array([1, 200], np.uint8)], {"to": ir.U16})) == []


# ---- what Core ML cannot do


def test_reasons() -> None:
    def why(op: str, operands: list[Any], **attributes: Any) -> str | None:
        module, _ = build(op, operands, attributes)
        found = reason(next(o for o in module.walk() if o.name == f"onnx.{op}"))
        return found and found[0]

    assert why("Det", [rand(3, 3)]) == "Core ML has no determinants"
    assert why("Cast", [rand(3)], to=ir.STRING) == "Core ML computes with numbers, not with text"
    assert why("Cast", [rand(3)], to=ir.F8E5M2) == "Core ML cannot round to f8e5m2 at run time"
    assert why("Relu", [rand(1, 1, 1, 1, 1, 1)]) == "a tensor here has rank 6, and Core ML's have at most 5 axes"
    assert why("Relu", [np.zeros((2, 0), np.float32)]) == (
        "a tensor here has no elements (2 × 0), and Core ML has no empty tensors"
    )
    assert why("Cast", [rand(3)], to=ir.dtype("i4")) == "Core ML cannot pack numbers into i4 at run time"
    assert why("Relu", [rand(3)]) is None


def test_reasons_name_operators() -> None:
    for name in REASONS:
        assert ir.lookup(name).name == name
