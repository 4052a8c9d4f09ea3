"""What Core ML has no element type for, and what may cross a function's boundary."""

from __future__ import annotations

import numpy as np
import pytest

import compiler.dialects.mil
import compiler.dialects.onnx  # noqa: F401 (registers onnx.*)
from compiler import ir
from compiler.errors import UnsupportedError
from passes import legalize


def function(inputs: dict[str, ir.Type]) -> tuple[ir.Module, ir.Function, ir.Builder]:
    module = ir.Module()
    main = module.add(ir.Function("main", inputs))
    return module, main, ir.Builder(main.block)


def test_64_bits_become_32_and_constants_become_mil() -> None:
    type_ = ir.TensorType(ir.I64, (3,))
    module, main, b = function({"x": type_})
    one = b.constant(np.array([1, 2, -3], np.int64), "onnx", "one")
    y = b.op("mil.add", [main.inputs[0], one], result_types=[type_]).result
    main.set_outputs([y], ["y"])
    legalize.run(module)
    ir.verify(module)
    assert {v.type.dtype for op in module.walk() for v in op.results} == {ir.I32}  # type: ignore[attr-defined]
    assert main.inputs[0].type is ir.TensorType(ir.I32, (3,))
    assert [op.name for op in main.walk()] == ["mil.const", "mil.add", "ir.return"]


def test_a_constant_that_does_not_fit_is_refused_with_its_node() -> None:
    type_ = ir.TensorType(ir.I64, ())
    module, main, b = function({"x": type_})
    big = b.constant(np.array(2**40), "onnx")
    op = b.op("mil.add", [main.inputs[0], big], result_types=[type_], loc=ir.Location(("sum",)))
    main.set_outputs([op.result], ["y"])
    with pytest.raises(UnsupportedError, match=r"1099511627776 of node 'sum'"):
        legalize.run(module)


def test_flags_cross_the_boundary_as_integers() -> None:
    flag = ir.TensorType(ir.BOOL, (2,))
    module, main, b = function({"p": flag})
    q = b.op("mil.logical_not", [main.inputs[0]], result_types=[flag]).result
    main.set_outputs([q], ["q"])
    legalize.run(module)
    ir.verify(module)
    assert main.inputs[0].type is ir.TensorType(ir.I32, (2,))
    assert main.outputs[0].type is ir.TensorType(ir.I32, (2,))
    casts = [op.attributes["dtype"] for op in main.walk() if op.name == "mil.cast"]
    assert casts == ["bool", "int32"]


def test_every_output_is_the_result_of_an_operator_of_its_own() -> None:
    type_ = ir.TensorType(ir.F32, (2,))
    module, main, b = function({"x": type_})
    c = b.constant(np.zeros(2, np.float32), "onnx")
    r = b.op("mil.relu", [main.inputs[0]], result_types=[type_]).result
    main.set_outputs([main.inputs[0], c, r, r], ["a", "b", "c", "d"])
    legalize.run(module)
    ir.verify(module)
    assert len(set(main.outputs)) == 4
    assert [v.op.name for v in main.outputs if v.op] == ["mil.identity", "mil.identity", "mil.relu", "mil.identity"]
