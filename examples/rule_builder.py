"""The Python functions of docs/rules.md: one that a condition asks, one that builds a result."""

from __future__ import annotations

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder


def is_small_power(n: float) -> bool:
    return n == int(n) and 2 <= n <= 8


def products(b: RuleBuilder, m: Bindings) -> Value:
    """x to a whole power by repeated squaring: as many products as the power has bits, and ones among them."""
    power, square = int(m.n), m.x
    result = square if power % 2 else None
    while power := power // 2:
        square = b.op("onnx.Mul", [square, square])
        if power % 2:
            result = square if result is None else b.op("onnx.Mul", [result, square])
    return result
