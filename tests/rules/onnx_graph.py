"""What tests of canonicalize and fuse share: a graph of onnx operators, before and after, in onnxruntime.

    rewritten(lambda o, x: o.Mul(o.Add(x, 3.0), 2.0), x).ops == ["Add", "Mul"]

An input is an array, or ``Open(array, "n", 3)`` with names for dimensions that are not known. Numbers, lists and arrays
among the operands become constants of the element type that the operator wants.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import compiler.dialects.onnx  # noqa: F401  (registers the dialects)
from compiler import ir
from compiler.execution import evaluate
from compiler.rewrite import Library, RuleBuilder, load_library
from passes import dce

STAGES = ("canonicalize", "fuse")


@dataclass(frozen=True)
class Open:
    """An input whose dimensions have names, or are not known (``?``); no dimensions: not even the rank is."""

    array: np.ndarray
    dims: tuple[Any, ...] | None

    def __init__(self, array: np.ndarray, *dims: Any) -> None:
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "dims", dims or None)


class Operators:
    """``o.Add(x, 1.0)`` makes an operator."""

    def __init__(self, builder: RuleBuilder) -> None:
        self._builder = builder

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def make(*operands: Any, results: int = 1, **attributes: Any) -> Any:
            return self._builder.op(f"onnx.{name}", operands, attributes, results)

        return make


@dataclass(frozen=True)
class Rewritten:
    """What became of a graph."""

    module: ir.Module
    fires: dict[str, int]

    @property
    def ops(self) -> list[str]:
        """The names of the operators that are left, sorted, constants aside."""
        return sorted(op.name.removeprefix("onnx.") for op in operators(self.module))

    def only(self, name: str) -> ir.Op:
        """The one operator of that name."""
        found = [op for op in operators(self.module) if op.name == f"onnx.{name}"]
        assert len(found) == 1, f"{len(found)} operators are {name}\n{ir.print_module(self.module)}"
        return found[0]


@functools.cache
def library() -> Library:
    """The compiler's own rules."""
    return load_library()


def operators(module: ir.Module) -> list[ir.Op]:
    """All operators but constants and terminators."""
    return [op for op in module.walk() if op.defn.constant is None and not op.defn.terminator]


def graph(build: Callable[..., Any], *inputs: Any) -> tuple[ir.Module, dict[str, np.ndarray]]:
    """The module that ``build`` makes of operators and one value for each of ``inputs``, and the arrays for these."""
    arrays: dict[str, np.ndarray] = {}
    types: dict[str, ir.Type] = {}
    for i, x in enumerate(inputs):
        array = x.array if isinstance(x, Open) else np.asarray(x)
        arrays[f"x{i}"] = array
        types[f"x{i}"] = ir.TensorType(ir.from_numpy(array.dtype), x.dims if isinstance(x, Open) else array.shape)
    function = ir.Function("main", types, [])
    end = function.block.append(ir.Op("ir.return"))
    made = build(Operators(RuleBuilder(end, ir.NOWHERE)), *function.inputs)
    values = made if isinstance(made, tuple) else (made,)
    function.output_names = [f"y{i}" for i in range(len(values))]
    end.operands = tuple(values)
    module = ir.Module("test")
    module.add(function)
    ir.verify(module)
    return module, arrays


def rewritten(
    build: Callable[..., Any],
    *inputs: Any,
    stages: Sequence[str] = STAGES,
    rtol: float = 1e-5,
) -> Rewritten:
    """Applies ``stages`` to a graph and holds what it computes against onnxruntime on the graph as it was.

    Args:
        rtol: the greatest difference, relative to the greatest magnitude in an output; NaN and infinities must agree.
    """
    module, arrays = graph(build, *inputs)
    before = list(evaluate.run(module, arrays).values())
    fires: dict[str, int] = {}
    for stage in stages:
        fires |= library().rewrite(module, stage).fires
    dce.run(module)
    ir.verify(module)
    after = list(evaluate.run(module, arrays).values())
    for want, got in zip(before, after, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape)
        if want.dtype.kind != "f":
            np.testing.assert_array_equal(got, want)
            continue
        finite = np.isfinite(want)
        np.testing.assert_array_equal(got[~finite], want[~finite])
        if finite.any():
            scale = max(float(np.abs(want[finite]).max()), 1e-30)
            error = float(np.abs(got[finite].astype(np.float64) - want[finite]).max())
            assert error <= rtol * scale, f"{error / scale:.1e} > {rtol:.0e}\n{ir.print_module(module)}"
    return Rewritten(module, fires)


def unchanged(build: Callable[..., Any], *inputs: Any, stages: Sequence[str] = STAGES) -> None:
    """Asserts that the stages leave a graph as it is."""
    before = sorted(op.name.removeprefix("onnx.") for op in operators(graph(build, *inputs)[0]))
    after = rewritten(build, *inputs, stages=stages)
    assert not after.fires, f"{after.fires}\n{ir.print_module(after.module)}"
    assert after.ops == before


def normal(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """Normally distributed numbers, the same for the same shape and seed."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def fused(build: Any, *inputs: Any, **options: Any) -> list[str]:
    """The operators that canonicalize and fuse leave of a graph."""
    return rewritten(build, *inputs, **options).ops
