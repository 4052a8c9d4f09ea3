"""Layers as exporters write them out, for tests of what fusion makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.rules.onnx_graph import normal

#: Scale and shift of a normalization over 8.
G, BETA = normal(8, seed=5), normal(8, seed=6)


def norm(channels: int) -> list[np.ndarray]:
    """Scale, bias, mean and variance of a batch normalization."""
    scale, bias, mean, var = (normal(channels, seed=s) for s in range(3, 7))
    return [scale, bias, mean, np.abs(var) + 0.1]


def channels(n: int, rank: int = 3) -> np.ndarray:
    """A factor of each of ``n`` channels of a tensor of this rank."""
    return normal(n, *[1] * (rank - 1), seed=9) + 2


def layer_norm(
    o: Any, x: Any, *, square: str = "pow", root: str = "div", axes: Any = (-1,), eps: float = 1e-5, affine: bool = True
) -> Any:
    """A layer normalization, as it is written without the operator."""
    d = o.Sub(x, o.ReduceMean(x, list(axes)))
    d2 = o.Sub(x, o.ReduceMean(x, list(axes))) if square == "again" else d
    squared = o.Mul(d2, d2) if square in ("mul", "again") else o.Pow(d2, 2.0)
    v = o.Add(eps, o.ReduceMean(squared, list(axes)))
    y = {
        "div": lambda: o.Div(d, o.Sqrt(v)),
        "power": lambda: o.Div(d, o.Pow(v, 0.5)),
        "reciprocal": lambda: o.Mul(o.Reciprocal(o.Sqrt(v)), d),
        "one": lambda: o.Mul(d, o.Div(1.0, o.Sqrt(v))),
        "minus half": lambda: o.Mul(d, o.Pow(v, -0.5)),
        "scaled": lambda: o.Mul(d, o.Mul(o.Reciprocal(o.Sqrt(v)), G)),
    }[root]()
    if not affine:
        return y
    return o.Add(y if root == "scaled" else o.Mul(y, G), BETA)
