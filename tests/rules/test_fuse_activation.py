"""The stage fuse: what exporters write for an activation function becomes one operator; nothing else does."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tests.rules.layers import channels
from tests.rules.onnx_graph import fused, normal, rewritten, unchanged

X = normal(2, 5, 8)
HALF = np.float16


SQRT2, HALF_PI = math.sqrt(2), math.sqrt(2 / math.pi)


@pytest.mark.parametrize(
    "build",
    [
        lambda o, x: o.Mul(o.Mul(x, o.Add(o.Erf(o.Div(x, SQRT2)), 1.0)), 0.5),
        lambda o, x: o.Mul(0.5, o.Mul(o.Add(1.0, o.Erf(o.Mul(x, 1 / SQRT2))), x)),
        lambda o, x: o.Mul(o.Mul(x, 0.5), o.Add(o.Erf(o.Div(x, SQRT2)), 1.0)),
        lambda o, x: o.Mul(o.Div(x, 2.0), o.Add(o.Erf(o.Div(x, SQRT2)), 1.0)),
        lambda o, x: o.Mul(x, o.Mul(o.Add(o.Erf(o.Div(x, SQRT2)), 1.0), 0.5)),
        lambda o, x: o.Mul(x, o.Add(o.Mul(o.Erf(o.Div(x, SQRT2)), 0.5), 0.5)),
        lambda o, x: o.Div(o.Mul(x, o.Add(o.Erf(o.Mul(x, 0.70710677)), 1.0)), 2.0),
    ],
)
def test_gelu_in_every_spelling(build: Any) -> None:
    assert fused(build, X) == ["Gelu"]
    assert fused(build, X.astype(HALF), rtol=4e-3) == ["Gelu"]


def cubic(o: Any, x: Any, form: int) -> Any:
    """√(2/π) (x + 0.044715 x³)."""
    return [
        lambda: o.Mul(o.Add(x, o.Mul(o.Pow(x, 3.0), 0.044715)), HALF_PI),
        lambda: o.Mul(HALF_PI, o.Add(x, o.Mul(0.044715, o.Mul(o.Mul(x, x), x)))),
        lambda: o.Mul(o.Add(x, o.Mul(x, o.Mul(x, o.Mul(x, 0.044715)))), HALF_PI),
        lambda: o.Mul(o.Mul(x, o.Add(o.Mul(o.Pow(x, 2.0), 0.044715), 1.0)), HALF_PI),
        lambda: o.Mul(o.Mul(x, HALF_PI), o.Add(o.Mul(o.Mul(x, 0.044715), x), 1.0)),
        lambda: o.Mul(x, o.Add(HALF_PI, o.Mul(o.Mul(x, x), HALF_PI * 0.044715))),
    ][form]()


@pytest.mark.parametrize(("form", "outer"), list(itertools.product(range(6), range(4))))
def test_gelu_by_tanh_in_every_spelling(form: int, outer: int) -> None:
    def build(o: Any, x: Any) -> Any:
        t = o.Tanh(cubic(o, x, form))
        return [
            lambda: o.Mul(o.Mul(x, 0.5), o.Add(t, 1.0)),
            lambda: o.Mul(o.Mul(x, o.Add(1.0, t)), 0.5),
            lambda: o.Mul(x, o.Mul(0.5, o.Add(t, 1.0))),
            lambda: o.Mul(x, o.Add(o.Mul(t, 0.5), 0.5)),
        ][outer]()

    done = rewritten(build, X)
    assert done.ops == ["Gelu"]
    assert done.only("Gelu").attributes["approximate"] == "tanh"


def test_what_is_no_gelu() -> None:
    def of(k: float, one: float, half: float) -> Any:
        return lambda o, x: o.Mul(o.Mul(x, o.Add(o.Erf(o.Mul(x, k)), one)), half)

    unchanged(of(0.7, 1.0, 0.5), X)
    unchanged(of(0.70710678, 1.1, 0.5), X)
    assert fused(of(0.70710678, 1.0, 0.25), X) == ["Gelu", "Mul"]
    unchanged(lambda o, x, z: o.Mul(o.Mul(z, o.Add(o.Erf(o.Mul(x, 0.70710678)), 1.0)), 0.5), X, X + 1)
    unchanged(lambda o, x: o.Mul(o.Mul(x, o.Add(o.Erf(o.Mul(x, 0.70710678)), 1.0)), np.full((3, 1, 1, 1), 0.5)), X)


ACTIVATIONS: Mapping[str, list[Any]] = {
    "Swish": [
        lambda o, x: o.Mul(x, o.Sigmoid(x)),
        lambda o, x: o.Mul(o.Sigmoid(o.Mul(x, 1.702)), x),
        lambda o, x: o.Div(x, o.Add(1.0, o.Exp(o.Neg(x)))),
    ],
    "Sigmoid": [
        lambda o, x: o.Div(1.0, o.Add(o.Exp(o.Neg(x)), 1.0)),
        lambda o, x: o.Reciprocal(o.Add(o.Exp(o.Neg(x)), 1.0)),
    ],
    "HardSigmoid": [
        lambda o, x: o.Div(o.Clip(o.Add(x, 3.0), 0.0, 6.0), 6.0),
        lambda o, x: o.Div(o.Min(o.Relu(o.Add(x, 3.0)), 6.0), 6.0),
        lambda o, x: o.Clip(o.Add(o.Mul(x, 0.2), 0.5), 0.0, 1.0),
        lambda o, x: o.Min(o.Max(o.Add(o.Mul(x, 0.2), 0.5), 0.0), 1.0),
    ],
    "HardSwish": [
        lambda o, x: o.Mul(x, o.Div(o.Clip(o.Add(x, 3.0), 0.0, 6.0), 6.0)),
        lambda o, x: o.Div(o.Mul(x, o.Clip(o.Add(x, 3.0), 0.0, 6.0)), 6.0),
        lambda o, x: o.Mul(o.Mul(x, 1 / 6), o.Clip(o.Add(x, 3.0), 0.0, 6.0)),
        lambda o, x: o.Mul(x, o.HardSigmoid(x, alpha=1 / 6, beta=0.5)),
        lambda o, x: o.Mul(x, o.Mul(o.Min(o.Max(o.Add(x, 3.0), 0.0), 6.0), 1 / 6)),
    ],
    "LeakyRelu": [
        lambda o, x: o.Max(x, o.Mul(x, 0.2)),
        lambda o, x: o.Sub(o.Relu(x), o.Mul(0.2, o.Relu(o.Neg(x)))),
        lambda o, x: o.Add(o.Relu(x), o.Mul(-0.2, o.Relu(o.Neg(x)))),
        lambda o, x: o.Where(o.Greater(x, 0.0), x, o.Mul(x, 0.2)),
        lambda o, x: o.PRelu(x, [0.2]),
    ],
    "PRelu": [
        lambda o, x: o.Sub(o.Relu(x), o.Mul(np.abs(channels(5, 2)), o.Relu(o.Neg(x)))),
        lambda o, x: o.Add(o.Relu(x), o.Mul(o.Mul(o.Sub(x, o.Abs(x)), channels(5, 2)), 0.5)),
        lambda o, x: o.Max(x, o.Mul(x, np.abs(np.tanh(channels(5, 2))))),
    ],
    "Mish": [
        lambda o, x: o.Mul(x, o.Tanh(o.Softplus(x))),
        lambda o, x: o.Mul(x, o.Tanh(o.Log(o.Add(1.0, o.Exp(x))))),
    ],
    "Softplus": [lambda o, x: o.Log(o.Add(o.Exp(x), 1.0))],
    "Elu": [
        lambda o, x: o.Where(o.Greater(x, 0.0), x, o.Sub(o.Exp(x), 1.0)),
        lambda o, x: o.Where(o.Greater(x, 0.0), x, o.Mul(0.7, o.Sub(o.Exp(x), 1.0))),
    ],
}


@pytest.mark.parametrize(("name", "build"), [(n, b) for n, builds in ACTIVATIONS.items() for b in builds])
def test_activation_functions(name: str, build: Any) -> None:
    assert fused(build, X * 3) == [name]
    assert fused(build, (X * 3).astype(HALF), rtol=6e-3) == [name]


@pytest.mark.parametrize(
    "build",
    [
        lambda o, x: o.Max(x, o.Mul(x, 1.5)),
        lambda o, x: o.Max(x, o.Mul(x, -0.2)),
        lambda o, x: o.Mul(x, o.Sigmoid(o.Add(x, 1.0))),
        lambda o, x: o.Mul(x, o.Sigmoid(o.Mul(x, normal(8)))),
        lambda o, x: o.Mul(o.Clip(o.Add(x, 3.0), 0.0, 6.0), 0.2),
        lambda o, x: o.Mul(x, o.HardSigmoid(x)),
        lambda o, x: o.Log(o.Add(o.Exp(x), 2.0)),
        lambda o, x: o.Where(o.Less(x, 0.0), x, o.Mul(x, 0.2)),
        lambda o, x: o.Where(o.Greater(x, 1.0), x, o.Mul(x, 0.2)),
    ],
)
def test_what_is_no_activation_function(build: Any) -> None:
    unchanged(build, X)
