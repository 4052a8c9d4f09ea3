"""What tests of lowering rules share: one operator goes all the way down, and is given its meaning back.

    check("Slice", [x, C([0]), C([2]), C([1])])          # x an array: an input; C(…): a constant
    check("Split", [x], {"num_outputs": 3}, results=3)

The original operator and the meaning of what it was lowered to run in onnxruntime on the same arrays.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import compiler.dialects.mil
import compiler.dialects.onnx  # noqa: F401  (registers the dialect)
from compiler import ir, meaning, target
from compiler.dialects.mil import legal
from compiler.execution import evaluate
from compiler.ir import Builder, Function, Module, TensorType, from_numpy, print_module
from compiler.ir.clone import clone_module
from compiler.rewrite import Library, load_library
from compiler.target import Target
from passes import dce, narrow

RULES = Path(__file__).parents[2] / "rules"
RELEASES = tuple(target.RELEASES)
NEWEST = RELEASES[-1]


@dataclass(frozen=True)
class C:
    """An operand that is a constant."""

    array: Any
    dtype: Any = None

    @property
    def value(self) -> np.ndarray:
        if self.dtype is not None or isinstance(self.array, np.ndarray):
            return np.asarray(self.array, self.dtype)
        array = np.asarray(self.array)
        return array.astype(np.float32) if array.dtype == np.float64 else array


@functools.cache
def library() -> Library:
    """The rules of stages lower and meaning, and mil's inference."""
    files = [f for f in sorted(RULES.glob("*.rules")) if f.name.startswith(("lower", "meaning"))]
    found = load_library(files, builtin=False)
    meaning.install(found)
    return found


def build(
    op: str,
    operands: Sequence[Any],
    attributes: Mapping[str, Any] | None = None,
    results: int = 1,
    shapes: Mapping[int, Sequence[Any]] | None = None,
) -> tuple[Module, dict[str, np.ndarray]]:
    """A module of one operator, and the arrays for its inputs.

    Args:
        op: with or without the dialect: ``Add``, ``mil.add``.
        operands: arrays become inputs ``x0`` …, ``C(…)`` constants, None an absent operand.
        shapes: the shapes of inputs by the operand's index, where they are not those of the arrays.
    """
    name = op if "." in op else f"onnx.{op}"
    dialect = name.partition(".")[0]
    arrays = {f"x{i}": np.asarray(v) for i, v in enumerate(operands) if v is not None and not isinstance(v, C)}
    types = {n: TensorType(from_numpy(a.dtype), (shapes or {}).get(int(n[1:]), a.shape)) for n, a in arrays.items()}
    function = Function("main", types, [f"y{i}" for i in range(results)])
    arguments = {a.name: a for a in function.inputs}
    b = Builder(function.block, loc=ir.Location((f"the_{name.partition('.')[2]}",)))
    values: list[ir.Value | None] = []
    for i, v in enumerate(operands):
        if v is None:
            values.append(None)
        elif isinstance(v, C):
            values.append(b.constant(v.value, dialect))
        else:
            values.append(arguments[f"x{i}"])
    made = b.op(name, values, attributes, results=results)
    function.set_outputs(made.results[:results])
    module = Module("test")
    module.add(function)
    return module, arrays


def lower(module: Module, os: str = NEWEST, precision: str = "fp32", unit: str = "cpu") -> Module:
    """A lowered and narrowed copy, which holds only operators that the release takes."""
    out = clone_module(module)

    library().rewrite(out, "lower", Target(unit, os, precision))
    dce.run(out)
    left = [op.name for op in out.walk() if op.defn.dialect not in ("mil", "ir")]
    assert not left, f"no lowering for {left}\n{print_module(out)}"
    narrow.run(out)
    ir.verify(out)
    for op in out.walk():
        if op.defn.dialect == "mil":
            why = legal(op, os)
            assert why is None, f"{why}\n{print_module(out)}"
    return out


def mean(module: Module) -> Module:
    """A copy with every mil operator replaced by what it means."""
    out = clone_module(module)
    library().rewrite(out, "meaning")
    dce.run(out)
    left = [op.name for op in out.walk() if op.defn.dialect == "mil"]
    assert not left, f"no meaning for {left}\n{print_module(out)}"
    return out


def run_mil(module: Module, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What a mil module computes, by its meaning, on arrays cast to the types of its inputs."""
    given = mean(module)
    feeds = {a.name: np.asarray(arrays[a.name]).astype(a.type.dtype.numpy, copy=False) for a in given.main.inputs}
    return list(evaluate.run(given, feeds).values())


def check(
    op: str,
    operands: Sequence[Any],
    attributes: Mapping[str, Any] | None = None,
    results: int = 1,
    *,
    os: str | Sequence[str] = RELEASES,
    shapes: Mapping[int, Sequence[Any]] | None = None,
    expected: Sequence[np.ndarray] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-6,
) -> Module:
    """Lowers an operator for each release in ``os`` and holds its meaning against onnxruntime on the original.

    Args:
        expected: what is right, where onnxruntime cannot say.

    Returns:
        The mil module of the last release, for further looks.
    """
    module, arrays = build(op, operands, attributes, results, shapes)
    ir.verify(module)
    want = list(expected) if expected is not None else list(evaluate.run(module, arrays).values())
    lowered = module
    for release in [os] if isinstance(os, str) else os:
        lowered = lower(module, release)
        got = run_mil(lowered, arrays)
        for a, b in zip(got, want, strict=True):
            assert a.shape == b.shape, f"{release}: {a.shape} for {b.shape}\n{print_module(lowered)}"
            kept = a.astype(b.dtype)
            text = f"{release}\n{print_module(lowered)}"
            if b.dtype.kind in "fc":
                np.testing.assert_allclose(kept, b, rtol, atol, equal_nan=True, err_msg=text)
            else:
                np.testing.assert_array_equal(kept, b, text)
    return lowered


def refuses(
    op: str, operands: Sequence[Any], attributes: Mapping[str, Any] | None = None, results: int = 1, os: str = NEWEST
) -> None:
    """No rule lowers the operator for that release: Core ML cannot compute it."""
    module, _ = build(op, operands, attributes, results)
    library().rewrite(module, "lower", Target("cpu", os, "fp32"))
    assert any(o.defn.dialect not in ("mil", "ir") and o.defn.constant is None for o in module.walk()), print_module(
        module
    )


def rand(*shape: int, seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """Normal numbers; for integer types small ones of both signs."""
    rng = np.random.default_rng([seed, *shape])
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.random(shape) < 0.5
    if kind.kind in "iu":
        return rng.integers(0 if kind.kind == "u" else -9, 10, shape).astype(kind)
    return rng.standard_normal(shape).astype(kind)


def kinds(module: Module) -> list[str]:
    """The operators of a lowered module but for constants, without ``mil.``."""
    return [
        op.name.removeprefix("mil.") for op in module.walk() if op.defn.constant is None and op.defn.dialect == "mil"
    ]
