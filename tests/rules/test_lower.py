"""Lowering and back: arithmetic, comparison, element types, and what is refused. See :mod:`tests.rules.harness`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from compiler import ir
from compiler.errors import UnsupportedError
from rules.limits import REASONS, reason
from tests.rules.harness import C, build, check, kinds, lower, rand, refuses, run_mil

X, Y = rand(2, 3, 4), rand(3, 1, seed=1)
N = rand(2, 3, 4, dtype=np.int64)
SIGNED = np.array([-7, -3, -1, 0, 1, 5, 9], np.int64)
DIVISORS = np.array([2, -2, 3, 5, -4, 3, -9], np.int64)
SPECIAL = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5], np.float32)


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
    check("Pow", [np.array([-3, 5, 17], np.int64), C(np.array([17, 0, 7], np.float32))])  # no float of 32 bits
    for exponent in (C(np.float32(0.5)), C(np.float32(-1)), np.float32(2)):
        refuses("Pow", [np.array([1, 2, 3], np.int64), exponent])


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


def _around(dtype: ir.DType) -> np.ndarray:
    """All numbers of a narrow float, what lies halfway between neighbours and just beside that, and what is beyond."""
    with np.errstate(invalid="ignore"):
        every = np.arange(1 << dtype.bits).astype(np.uint8).view(dtype.numpy).astype(np.float32)
    every = np.unique(every[np.isfinite(every)])
    ties = (every[1:] + every[:-1]) / 2
    beside = [np.nextafter(ties, np.float32(to)) for to in (-np.inf, np.inf)]
    top = every[-1]
    beyond = np.array([1.01 * top, 2 * top, 1e30, np.inf, np.nan, 1e-30], np.float32)
    return np.concatenate([every, ties, *beside, beyond, -beyond]).astype(np.float32)


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("name", ["f8e4m3fn", "f8e4m3fnuz", "f8e5m2", "f8e5m2fnuz"])
def test_cast_rounds_to_narrow_floats(name: str, saturate: int) -> None:
    to = ir.dtype(name)
    x = _around(to)
    with np.errstate(invalid="ignore", over="ignore"):
        want = (numpy_helper.saturate_cast(x, to.numpy) if saturate else x.astype(to.numpy)).astype(np.float32)
    check("Cast", [x], {"to": to, "saturate": saturate}, expected=[want], rtol=0, atol=0)
    with np.errstate(invalid="ignore", over="ignore"):
        halves = x.astype(np.float16)
        plain = halves.astype(np.float32)
        want = (numpy_helper.saturate_cast(plain, to.numpy) if saturate else plain.astype(to.numpy)).astype(np.float32)
    check("Cast", [halves], {"to": to, "saturate": saturate}, expected=[want], rtol=0, atol=0)


def test_cast_rounds_to_four_bits() -> None:
    x = np.array([0.25, 0.26, 0.74, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 5.1, 7, 1e9, np.inf, 0], np.float32)
    want = np.array([0, 0.5, 0.5, 1, 1, 2, 2, 4, 4, 6, 6, 6, 6, 0], np.float32)
    check("Cast", [np.append(x, -x)], {"to": ir.F4E2M1}, expected=[np.append(want, -want)], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["i4", "u4", "i2", "u2"])
def test_cast_to_packed_integers(name: str) -> None:
    to = ir.dtype(name)
    source = np.array([-300, -17, -9, -8, -2, -1, 0, 1, 3, 4, 7, 8, 15, 16, 300], np.int32)
    low = source % (1 << to.bits)
    want = np.where(low >= 1 << (to.bits - 1), low - (1 << to.bits), low) if to.is_signed else low
    for given in (source, source.astype(np.float32), source.astype(np.int64)):
        check("Cast", [given], {"to": to}, expected=[want])
    halves = np.array([0.5, -0.5, 0.49, -1.49, -1.51], np.float32)  # away from zero, as onnxruntime rounds them
    rounded = np.array([1, -1, 0, -1, -2])
    check("Cast", [halves], {"to": to}, expected=[rounded if to.is_signed else rounded % (1 << to.bits)])
    check("Cast", [np.array([True, False])], {"to": to}, expected=[np.array([1, 0])])


def test_bits_of_integers_that_count_otherwise() -> None:
    x = np.array([-128, -1, 0, 127], np.int8)
    check("BitCast", [x], {"to": ir.U8}, expected=[x.view(np.uint8)])
    check("BitCast", [x.view(np.uint8)], {"to": ir.I8}, expected=[x])
    check("BitCast", [x.view(np.uint16)], {"to": ir.I16}, expected=[x.view(np.int16)])
    check("BitCast", [np.array([True, False])], {"to": ir.U8}, expected=[np.array([1, 0], np.uint8)])
    refuses("BitCast", [np.array([1.0], np.float32)], {"to": ir.I32})


def test_strings_are_refused() -> None:
    refuses("Cast", [np.array([1.0], np.float32)], {"to": ir.STRING})


# ---- flags


@pytest.mark.parametrize("flag", [0, 1, 2, -1])
def test_flags_are_read_as_onnxruntime_reads_them(flag: int) -> None:
    """Sizes of 1 are kept where a flag is 1; the last of several is taken where another is not 0."""
    rows = np.array([[1, 1, 0], [2, 3, 3]], np.float32)
    check("ArgMax", [rows], {"axis": 1, "keepdims": flag})
    check("ArgMin", [-rows], {"axis": 1, "select_last_index": flag})
    check("ReduceSum", [rows, C(np.array([1]))], {"keepdims": flag})


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

    assert why("Det", [rand(3, 3)]) == (
        "Core ML has no determinants, and rules write out those of one to three rows only"
    )
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
