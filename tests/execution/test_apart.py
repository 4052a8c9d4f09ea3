"""onnxruntime in a process of its own: it may crash or hang, and the next model is run all the same."""

from __future__ import annotations

import numpy as np
import pytest

import compiler.dialects.onnx  # noqa: F401 (registers operators)
from compiler.execution import apart
from compiler.execution.apart import CrashError, run
from compiler.execution.evaluate import EvaluationError
from compiler.ir import Function, parse_module

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def function(text: str) -> Function:
    return parse_module(f"module @m {{\n{text}\n}}").main


def negated() -> Function:
    return function(
        """func @main(%x: tensor<2x3xf32>) -> (%y: tensor<2x3xf32>) {
             %0 = onnx.Neg(%x) : tensor<2x3xf32>
             return %0
           }"""
    )


def quotient() -> Function:
    return function(
        """func @main(%a: tensor<1xi32>, %b: tensor<1xi32>) -> (%y: tensor<1xi32>) {
             %0 = onnx.Div(%a, %b) : tensor<1xi32>
             return %0
           }"""
    )


def test_results_and_extra_values() -> None:
    made = negated()
    op = made.block.first
    assert op is not None
    y, again = run(made, {"x": X}, [op.result])
    np.testing.assert_array_equal(y, -X)
    np.testing.assert_array_equal(again, -X)


def test_element_types_that_numpy_lacks() -> None:
    import ml_dtypes

    made = function(
        """func @main(%x: tensor<2xbf16>) -> (%y: tensor<2xbf16>) {
             %0 = onnx.Identity(%x) : tensor<2xbf16>
             return %0
           }"""
    )
    x = np.array([1, -2], ml_dtypes.bfloat16)
    (y,) = run(made, {"x": x})
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y.astype(np.float32), [1, -2])


def test_what_onnxruntime_says_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="Integer division by zero") as raised:
        run(quotient(), {"a": np.ones(1, np.int32), "b": np.zeros(1, np.int32)})
    assert not isinstance(raised.value, CrashError)


def test_a_crash_is_an_error_and_the_next_model_runs() -> None:
    # The quotient is no 32-bit integer: the processor traps.
    with pytest.raises(CrashError, match=r"brought its process down \(SIG"):
        run(quotient(), {"a": np.full(1, -(2**31), np.int32), "b": np.full(1, -1, np.int32)})
    (y,) = run(quotient(), {"a": np.full(1, 6, np.int32), "b": np.full(1, 3, np.int32)})
    assert y.tolist() == [2]


def test_what_takes_too_long_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    run(negated(), {"x": X})
    worker = apart._worker()
    worker.stop()
    monkeypatch.setattr(apart, "_run", lambda *_: time.sleep(60))
    with pytest.raises(CrashError, match=r"within 0\.2 s"):
        run(negated(), {"x": X}, seconds=0.2)
    monkeypatch.undo()
    np.testing.assert_array_equal(run(negated(), {"x": X})[0], -X)
