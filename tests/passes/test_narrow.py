"""Narrowing to Core ML's element types, on mil modules written as text."""

from __future__ import annotations

import numpy as np
import pytest

import compiler.dialects.mil  # noqa: F401  (registers the dialect)
from compiler import ir
from compiler.errors import UnsupportedError
from passes import narrow


def narrowed(body: str, arguments: str = "%x: tensor<2xi64>", results: str = "%y: tensor<2xi64>") -> ir.Module:
    module = ir.parse_module(f"module @m {{\n  func @main({arguments}) -> ({results}) {{\n{body}\n  }}\n}}\n")
    narrow.run(module)
    ir.verify(module)
    return module


def test_integers_floats_and_their_declared_types() -> None:
    module = narrowed(
        "    %0 = mil.const() {val = dense<[1, 2]>} : tensor<2xi64>\n"
        "    %1 = mil.add(%x, %0) : tensor<2xi64>\n"
        '    %2 = mil.cast(%z) {dtype = "int32"} : tensor<2xi64>\n'
        "    %3 = mil.mul(%1, %2) : tensor<2xi64>\n"
        "    return %3",
        "%x: tensor<2xi64>, %z: tensor<2xf64>",
    )
    types = {v.type.dtype for op in module.walk() for v in op.results}
    assert types == {ir.I32}
    assert [a.type.dtype for a in module.main.inputs] == [ir.I32, ir.F32]
    declared = {k: v.dtype for k, v in module.main.attributes.items()}
    assert declared == {"declared.x": ir.I64, "declared.z": ir.F64, "declared.y": ir.I64}


def test_bools_leave_the_interface() -> None:
    module = narrowed(
        "    %0 = mil.logical_not(%x) : tensor<2xbool>\n    return %0", "%x: tensor<2xbool>", "%y: tensor<2xbool>"
    )
    assert [op.name for op in module.walk()] == ["mil.cast", "mil.logical_not", "mil.cast", "ir.return"]
    assert module.main.inputs[0].type is module.main.outputs[0].type is ir.TensorType(ir.I32, (2,))


def test_an_input_that_is_returned() -> None:
    module = narrowed("    return %x", "%x: tensor<2xbool>", "%y: tensor<2xbool>")
    assert module.main.outputs[0].type is ir.TensorType(ir.I32, (2,))


def test_casts_that_lead_nowhere_vanish() -> None:
    module = narrowed(
        '    %0 = mil.cast(%x) {dtype = "int32"} : tensor<2xi32>\n    return %0', results="%y: tensor<2xi32>"
    )
    assert [op.name for op in module.walk()] == ["ir.return"]


def test_quantized_data_stays_narrow() -> None:
    """The same constant as quantized data and as numbers becomes two."""
    module = narrowed(
        "    %0 = mil.const() {val = dense<[1, 2]>} : tensor<2xi8>\n"
        "    %1 = mil.const() {val = dense<0.5>} : tensor<f32>\n"
        "    %2 = mil.const() {val = dense<0>} : tensor<i8>\n"
        "    %3 = mil.constexpr_affine_dequantize(%0, %2, %1) {axis = 0} : tensor<2xf32>\n"
        '    %4 = mil.cast(%0) {dtype = "fp32"} : tensor<2xf32>\n'
        "    %5 = mil.add(%3, %4) : tensor<2xf32>\n"
        "    return %5",
        results="%y: tensor<2xf32>",
    )
    dequantize = next(op for op in module.walk() if op.name.startswith("mil.constexpr"))
    cast = next(op for op in module.walk() if op.name == "mil.cast")
    assert dequantize.operands[0].constant.dtype == np.int8
    assert cast.operands[0].constant.dtype == np.int32


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1])
def test_constants_that_do_not_fit(value: int) -> None:
    with pytest.raises(UnsupportedError, match=f"the constant {value} of"):
        narrowed(f"    %0 = mil.const() {{val = dense<[{value}, 0]>}} : tensor<2xi64>\n    return %0")


def test_what_core_ml_cannot_hold() -> None:
    with pytest.raises(UnsupportedError, match="rank 6"):
        narrowed(
            "    %0 = mil.relu(%x) : tensor<1x1x1x1x1x1xf32>\n    return %0",
            "%x: tensor<1x1x1x1x1x1xf32>",
            "%y: tensor<1x1x1x1x1x1xf32>",
        )
    with pytest.raises(UnsupportedError, match="without elements"):
        narrowed("    %0 = mil.relu(%x) : tensor<2x0xf32>\n    return %0", "%x: tensor<2x0xf32>", "%y: tensor<2x0xf32>")
