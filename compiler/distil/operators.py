"""Operators of ONNX as differentiable functions of JAX, one by one. Semantics are those of the newest opset.

Each function takes the operator and its operands, ``None`` for absent ones. What shapes depend on (axes, sizes, pads)
comes as NumPy arrays, everything else as arrays of JAX.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from compiler.errors import UnsupportedError
from compiler.ir import Op

Value = Any
Function = Callable[..., Any]

#: By qualified name.
OPERATORS: dict[str, Function] = {}


def register(*names: str) -> Callable[[Function], Function]:
    """Makes a function that of operators of onnx."""

    def add(function: Function) -> Function:
        OPERATORS.update(dict.fromkeys((f"onnx.{n}" for n in names), function))
        return function

    return add


def _elementwise(name: str, function: Function) -> None:
    OPERATORS[f"onnx.{name}"] = lambda op, *operands: function(*operands)


_PLAIN: dict[str, Function] = {
    "Add": jnp.add,
    "Sub": jnp.subtract,
    "Mul": jnp.multiply,
    "Div": jnp.divide,
    "Pow": jnp.power,
    "Neg": jnp.negative,
    "Abs": jnp.abs,
    "Exp": jnp.exp,
    "Log": jnp.log,
    "Sqrt": jnp.sqrt,
    "Reciprocal": jnp.reciprocal,
    "Sin": jnp.sin,
    "Cos": jnp.cos,
    "Tanh": jnp.tanh,
    "Erf": jax.scipy.special.erf,
    "Relu": jax.nn.relu,
    "Sigmoid": jax.nn.sigmoid,
    "Softplus": jax.nn.softplus,
    "Softsign": jax.nn.soft_sign,
    "HardSwish": jax.nn.hard_swish,
    "Mish": jax.nn.mish,
    "PRelu": lambda x, slope: jnp.where(x < 0, slope * x, x),
    "Identity": lambda x: x,
    "Dropout": lambda x, *_: x,
    "Where": jnp.where,
    "Max": lambda *x: _folded(jnp.maximum, x),
    "Min": lambda *x: _folded(jnp.minimum, x),
    "Sum": lambda *x: _folded(jnp.add, x),
    "Equal": jnp.equal,
    "Less": jnp.less,
    "Greater": jnp.greater,
    "LessOrEqual": jnp.less_equal,
    "GreaterOrEqual": jnp.greater_equal,
    "And": jnp.logical_and,
    "Or": jnp.logical_or,
    "Xor": jnp.logical_xor,
    "Not": jnp.logical_not,
    "MatMul": jnp.matmul,
    "Reshape": lambda x, shape: x.reshape(tuple(x.shape[i] if d == 0 else int(d) for i, d in enumerate(shape))),
    "Expand": lambda x, shape: jnp.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(map(int, shape)))),
    "Unsqueeze": lambda x, axes: jnp.expand_dims(x, tuple(map(int, axes))),
    "Tile": lambda x, repeats: jnp.tile(x, tuple(map(int, repeats))),
}
for _name, _function in _PLAIN.items():
    _elementwise(_name, _function)


def _folded(function: Function, values: Sequence[Value]) -> Value:
    result = values[0]
    for value in values[1:]:
        result = function(result, value)
    return result


@register("LeakyRelu")
def _leaky_relu(op: Op, x: Value) -> Value:
    return jnp.where(x < 0, op.attributes["alpha"] * x, x)


@register("Elu")
def _elu(op: Op, x: Value) -> Value:
    return jax.nn.elu(x, op.attributes["alpha"])


@register("HardSigmoid")
def _hard_sigmoid(op: Op, x: Value) -> Value:
    return jnp.clip(op.attributes["alpha"] * x + op.attributes["beta"], 0.0, 1.0)


@register("Swish")
def _swish(op: Op, x: Value) -> Value:
    return x * jax.nn.sigmoid(op.attributes["alpha"] * x)


@register("Gelu")
def _gelu(op: Op, x: Value) -> Value:
    return jax.nn.gelu(x, approximate=op.attributes["approximate"] == "tanh")


@register("Clip")
def _clip(op: Op, x: Value, low: Value = None, high: Value = None) -> Value:
    return jnp.clip(x, low, high)


@register("Softmax")
def _softmax(op: Op, x: Value) -> Value:
    return jax.nn.softmax(x, axis=op.attributes["axis"])


@register("LogSoftmax")
def _log_softmax(op: Op, x: Value) -> Value:
    return jax.nn.log_softmax(x, axis=op.attributes["axis"])


@register("Gemm")
def _gemm(op: Op, a: Value, b: Value, c: Value = None) -> Value:
    t = op.attributes
    product = t["alpha"] * jnp.matmul(a.T if t["transA"] else a, b.T if t["transB"] else b)
    return product if c is None else product + t["beta"] * c


@register("Einsum")
def _einsum(op: Op, *operands: Value) -> Value:
    return jnp.einsum(op.attributes["equation"], *operands)


@register("Conv")
def _conv(op: Op, x: Value, weight: Value, bias: Value = None) -> Value:
    t = op.attributes
    n = x.ndim - 2
    dilations = t.get("dilations") or [1] * n
    strides = t.get("strides") or [1] * n
    window = [d * (k - 1) + 1 for d, k in zip(dilations, weight.shape[2:], strict=True)]
    y = lax.conv_general_dilated(
        x,
        weight,
        strides,
        _padding(op, x.shape[2:], window, strides),
        rhs_dilation=dilations,
        feature_group_count=t["group"],
    )
    return y if bias is None else y + bias.reshape(-1, *[1] * n)


@register("MaxPool")
def _max_pool(op: Op, x: Value) -> Value:
    if len(op.results) > 1:
        raise _unsupported(op, "gives indices")
    return _pooled(op, x, -jnp.inf, lax.max)


@register("AveragePool")
def _average_pool(op: Op, x: Value) -> Value:
    total = _pooled(op, x, 0.0, lax.add)
    if op.attributes["count_include_pad"] and not op.attributes["ceil_mode"]:
        return total / math.prod(op.attributes["kernel_shape"])
    return total / _pooled(op, jnp.ones_like(x), 0.0, lax.add)


def _pooled(op: Op, x: Value, start: float, function: Function) -> Value:
    t = op.attributes
    n = x.ndim - 2
    strides, dilations = t.get("strides") or [1] * n, t.get("dilations") or [1] * n
    window = [d * (k - 1) + 1 for d, k in zip(dilations, t["kernel_shape"], strict=True)]
    pads = _padding(op, x.shape[2:], window, strides)
    if t["ceil_mode"]:
        if t.get("count_include_pad"):
            raise _unsupported(op, "counts padding and rounds sizes up")
        given = op.results[0].shape
        assert given is not None
        for i, (size, w, s) in enumerate(zip(x.shape[2:], window, strides, strict=True)):
            wanted = (int(given[i + 2]) - 1) * s + w
            pads[i] = (pads[i][0], max(pads[i][1], wanted - size - pads[i][0]))
    return lax.reduce_window(
        x,
        start,
        function,
        (1, 1, *t["kernel_shape"]),
        (1, 1, *strides),
        ((0, 0), (0, 0), *pads),
        window_dilation=(1, 1, *dilations),
    )


def _padding(op: Op, sizes: Sequence[int], window: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Padding before and behind along each axis, by ``pads`` or ``auto_pad``."""
    n = len(sizes)
    auto = op.attributes.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        pads = op.attributes.get("pads") or [0] * 2 * n
        return [(0, 0)] * n if auto == "VALID" else list(zip(pads[:n], pads[n:], strict=True))
    out = []
    for size, w, s in zip(sizes, window, strides, strict=True):
        total = max((-(-size // s) - 1) * s + w - size, 0)
        small, large = total // 2, total - total // 2
        out.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return out


@register("GlobalAveragePool")
def _global_average_pool(op: Op, x: Value) -> Value:
    return x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)


_REDUCTIONS: dict[str, Function] = {
    "ReduceMean": jnp.mean,
    "ReduceSum": jnp.sum,
    "ReduceMax": jnp.max,
    "ReduceMin": jnp.min,
    "ReduceProd": jnp.prod,
    "ReduceL2": lambda x, **k: jnp.sqrt(jnp.square(x).sum(**k)),
    "ReduceL1": lambda x, **k: jnp.abs(x).sum(**k),
    "ReduceSumSquare": lambda x, **k: jnp.square(x).sum(**k),
    "ReduceLogSumExp": jax.scipy.special.logsumexp,
}


@register(*_REDUCTIONS)
def _reduce(op: Op, x: Value, axes: Value = None) -> Value:
    if (axes is None or len(axes) == 0) and op.attributes["noop_with_empty_axes"]:
        return x
    over = None if axes is None or len(axes) == 0 else tuple(map(int, axes))
    return _REDUCTIONS[op.name.removeprefix("onnx.")](x, axis=over, keepdims=bool(op.attributes["keepdims"]))


@register("Transpose")
def _transpose(op: Op, x: Value) -> Value:
    return jnp.transpose(x, op.attributes.get("perm") or None)


@register("Concat")
def _concat(op: Op, *values: Value) -> Value:
    return jnp.concatenate(values, axis=op.attributes["axis"])


@register("Flatten")
def _flatten(op: Op, x: Value) -> Value:
    axis = op.attributes["axis"]
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


@register("Squeeze")
def _squeeze(op: Op, x: Value, axes: Value = None) -> Value:
    return jnp.squeeze(x, None if axes is None else tuple(map(int, axes)))


@register("Split")
def _split(op: Op, x: Value, sizes: Value = None) -> Value:
    axis = op.attributes["axis"]
    if sizes is None:
        shapes = [r.shape for r in op.results]
        sizes = [s[axis] for s in shapes if s is not None]
    return tuple(jnp.split(x, np.cumsum(np.asarray(sizes, int))[:-1].tolist(), axis=axis))


@register("Slice")
def _slice(op: Op, x: Value, starts: Value, ends: Value, axes: Value = None, steps: Value = None) -> Value:
    at: list[slice] = [slice(None)] * x.ndim
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis, step = int(axes[i]) if axes is not None else i, int(steps[i]) if steps is not None else 1
        size = x.shape[axis]
        # Behind the beginning, backwards: Python would take a negative end from the other side.
        last = None if step < 0 and int(end) < -size else int(end)
        at[axis] = slice(int(start), last, step)
    return x[tuple(at)]


@register("Gather")
def _gather(op: Op, x: Value, indices: Value) -> Value:
    return jnp.take(x, jnp.asarray(indices), axis=op.attributes["axis"], mode="wrap")


@register("Pad")
def _pad(op: Op, x: Value, pads: Value, value: Value = None, axes: Value = None) -> Value:
    modes = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    on = [int(a) % x.ndim for a in axes] if axes is not None else list(range(x.ndim))
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(on):
        widths[axis] = (int(pads[i]), int(pads[i + len(on)]))
    if any(w < 0 for pair in widths for w in pair):
        raise _unsupported(op, "cuts instead of padding")
    more = {"constant_values": value if value is not None else 0} if op.attributes["mode"] == "constant" else {}
    return jnp.pad(x, widths, mode=modes[op.attributes["mode"]], **more)


@register("Resize")
def _resize(op: Op, x: Value, *_: Value) -> Value:
    t = op.attributes
    shape = op.results[0].shape
    assert shape is not None
    factors = [int(b) / a for a, b in zip(x.shape, shape, strict=True)]
    exact = t["mode"] == "nearest" and all(f == int(f) for f in factors) and "floor" in t["nearest_mode"]
    if not exact or t["coordinate_transformation_mode"] not in ("asymmetric", "half_pixel"):
        raise _unsupported(op, "is not nearest by whole factors")
    for axis, factor in enumerate(factors):
        if factor != 1:
            x = jnp.repeat(x, int(factor), axis=axis)
    return x


@register("DepthToSpace")
def _depth_to_space(op: Op, x: Value) -> Value:
    n, c, h, w = x.shape
    b = op.attributes["blocksize"]
    if op.attributes["mode"] == "DCR":
        return x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)
    return x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // b**2, h * b, w * b)


@register("Cast")
def _cast(op: Op, x: Value) -> Value:
    from compiler.ir import TensorType

    type_ = op.results[0].type
    assert isinstance(type_, TensorType)
    return jnp.asarray(x).astype(type_.dtype.numpy)


@register("ConstantOfShape")
def _constant_of_shape(op: Op, shape: Value) -> Value:
    value = op.attributes["value"]
    return np.full(tuple(map(int, shape)), 0.0 if value is None else np.asarray(value).ravel()[0], np.float32)


def _unsupported(op: Op, what: str) -> UnsupportedError:
    at = f" at node '{op.loc.nodes[0]}'" if op.loc.nodes else ""
    return UnsupportedError(f"{op.name}{at} {what}, which is not differentiated here", "a model without it")
