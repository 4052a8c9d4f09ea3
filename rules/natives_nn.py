"""Convolution, normalization, attention and dropout: what the rules of lower_nn and meaning_nn call for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir import Dim, TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline, dims
from rules.natives import shape_of
from rules.natives_window import explicit_pads, interleaved, separated

Array = np.ndarray[Any, Any]


def is_compile_time(v: Value) -> bool:
    """Whether a value is a constant, plain or compressed."""
    return v.constant is not None or (v.op is not None and v.op.name.startswith("mil.constexpr_"))


def is_attended(mask: Value | None, q: Value, k: Value) -> bool:
    """Whether an attention mask covers every key, and has the type that Core ML takes beside ``q``."""
    if mask is None:
        return True
    shape = dims(mask)
    mask_type, data_type = mask.type, q.type
    assert isinstance(mask_type, TensorType)
    assert isinstance(data_type, TensorType)
    fits = mask_type.dtype is data_type.dtype  # a row that a bool mask hides whole is 0 in ONNX, undefined in Core ML
    return fits and len(shape) >= 2 and isinstance(shape[-1], int) and shape[-1] == dims(k)[-2]


def is_per_channel(slope: Array, x: Value) -> bool:
    """Whether broadcasting ``slope`` to ``x`` varies along axis 1 alone."""
    shape = dims(x)
    if slope.ndim > len(shape) or len(shape) < 2 or not isinstance(shape[1], int):
        return False
    full = (1,) * (len(shape) - slope.ndim) + slope.shape
    return all(d == 1 for i, d in enumerate(full) if i != 1) and full[1] in (1, shape[1])


def per_channel(vector: Array, rank: int) -> Array:
    """A vector with one element per channel, to be broadcast against tensors of ``rank`` with channels at axis 1."""
    return vector.reshape((1, -1) + (1,) * (rank - 2))


def normalized_shape(shape: Sequence[Dim], axis: int, scale: Array) -> tuple[int, ...]:
    """The dimensions from ``axis`` on, to which layer normalization's scale is spelled out.

    Raises:
        Decline: one of them is not known, and the scale does not tell.
    """
    tail = shape[axis:]
    if scale.ndim == len(tail):
        tail = tuple(s if not isinstance(d, int) and s != 1 else d for d, s in zip(tail, scale.shape))
    if not all(isinstance(d, int) for d in tail) or scale.ndim > len(tail):
        raise Decline("the normalized shape is not known")
    return tuple(int(d) for d in tail)


# ---- builders


def lower_conv_transpose(b: RuleBuilder, m: Bindings) -> Value:
    """ConvTranspose as a transposed convolution with explicit pads.

    Output padding takes from the pads behind. Where that leaves negative pads, the input gets zeros at that side: each
    adds ``stride`` places to which nothing but the bias contributes.
    """
    shape, kernel = dims(m.x), dims(m.w)[2:]
    n = len(kernel)
    if not all(isinstance(k, int) for k in kernel):
        raise Decline("the kernel's size is not known")
    strides, dilations = m.s or (1,) * n, m.d or (1,) * n
    extra = m.q or (0,) * n
    pads = [list(p) for p in zip(*[iter(interleaved(m.p or (0,) * (2 * n)))] * 2)]
    same = m.a in ("SAME_UPPER", "SAME_LOWER")
    if m.o or same:
        sizes = shape[2:]
        for i, (k, s, d) in enumerate(zip(kernel, strides, dilations)):
            size = sizes[i]
            if m.o:
                if not isinstance(size, int):
                    raise Decline("the size of the input is not known")
                total = s * (size - 1) + extra[i] + (k - 1) * d + 1 - m.o[-n:][i]
            else:
                total = max(0, extra[i] + (k - 1) * d + 1 - s)  # nothing is added to reach the size
            head = total // 2 if m.a == "SAME_UPPER" else total - total // 2
            head = max(head, 0)  # onnxruntime adds nothing in front to reach a size
            pads[i] = [head, total - head]
    elif m.a == "VALID":
        pads = [[0, 0] for _ in range(n)]
    before, after = [0] * n, [0] * n
    for i, s in enumerate(strides):
        pads[i][1] -= extra[i]
        for side, rows in ((0, before), (1, after)):
            if pads[i][side] < 0:
                rows[i] = -(pads[i][side] // s)
                pads[i][side] += rows[i] * s
    x = m.x
    if any(before) or any(after):
        x = b.op("mil.pad", [x, interleaved((*before, *after))], {"mode": "constant", "constant_val": 0.0})
    return b.op(
        "mil.conv_transpose",
        [x, m.w, m.b],
        {
            "strides": strides,
            "dilations": dilations,
            "groups": m.g,
            "pad_type": "custom",
            "pad": [p for pair in pads for p in pair],
        },
    )


# ---- what Core ML means


def align_element_types(b: RuleBuilder, m: Bindings) -> Value:
    """The operator again, its other operands converted to the element type of the first."""
    op = m.y.op
    x = op.operands[0]
    name = {"f16": "fp16", "f32": "fp32"}.get(x.type.dtype.name)
    if name is None:
        raise Decline("the data are no floats")
    rest = [
        v if v is None or v.type.dtype is x.type.dtype
        else b.constant(v.constant.astype(x.type.dtype.numpy), "mil") if v.constant is not None
        else b.op("mil.cast", [v], {"dtype": name})
        for v in op.operands[1:]
    ]  # fmt: skip
    result: Value = b.op(op.name, [x, *rest], op.attributes)
    return result


def mean_conv_transpose(b: RuleBuilder, m: Bindings) -> Value:
    """Pads as given; an output shape that is larger than what they leave adds to the end of each dimension."""
    n = len(dims(m.x)) - 2
    strides, dilations = m.s or (1,) * n, m.d or (1,) * n
    kernel, sizes = dims(m.w)[2:], dims(m.x)[2:]
    if not all(isinstance(k, int) for k in kernel):
        raise Decline("the kernel's size is not known")
    extra = [0] * n
    match m.t.lower():
        case "valid":
            pads = [0] * (2 * n)
        case "custom":
            pads = list(separated(m.p or (0,) * (2 * n)))
        case "same":
            # The result is stride times the input; what is odd goes behind, as for conv.
            total = [(k - 1) * d + 1 - s for k, d, s in zip(kernel, dilations, strides)]
            if min(total) < 0:
                raise Decline("a kernel is smaller than its stride")
            pads = [t // 2 for t in total] + [t - t // 2 for t in total]
        case _:
            raise Decline(f"pads are {m.t}")
    if m.o is not None:
        for i, wanted in enumerate(m.o[2:]):
            size = sizes[i]
            if not isinstance(size, int):
                raise Decline("a size is not known")
            natural = strides[i] * (size - 1) + (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[n + i]
            extra[i] = wanted - natural
            if not 0 <= extra[i] < max(strides[i], dilations[i]):
                raise Decline("the output shape leaves open what is padded")
    result: Value = b.op(
        "onnx.ConvTranspose",
        [m.x, m.w, m.b],
        {"strides": strides, "dilations": dilations, "group": m.g, "pads": pads, "output_padding": extra},
    )
    return result


def mean_layer_norm(b: RuleBuilder, m: Bindings) -> Value:
    """LayerNormalization where the axes are the last ones, else the formula."""
    rank = len(dims(m.x))
    axes = sorted(a % rank for a in m.a) if m.a is not None else list(range(rank))
    dtype = m.x.type.dtype
    if axes == list(range(rank - len(axes), rank)):
        gamma, bias = m.gamma, m.beta
        if gamma is None:
            sizes = dims(m.x)[axes[0] :]
            gamma = np.ones([s if isinstance(s, int) else 1 for s in sizes], dtype.numpy)
        attributes = {"axis": axes[0], "epsilon": m.e}
        result: Value = b.op("onnx.LayerNormalization", [m.x, gamma, bias], attributes)
        return result
    # Scale and offset have the normalized dimensions only, in ascending order.
    over = np.array(axes, np.int64)
    centered = b.op("onnx.Sub", [m.x, b.op("onnx.ReduceMean", [m.x, over], {"keepdims": 1})])
    variance = b.op("onnx.ReduceMean", [b.op("onnx.Mul", [centered, centered]), over], {"keepdims": 1})
    deviation = b.op("onnx.Sqrt", [b.op("onnx.Add", [variance, np.asarray(m.e, dtype.numpy)])])
    y = b.op("onnx.Div", [centered, deviation])
    missing = np.array([i for i in range(rank) if i not in axes], np.int64)
    if m.gamma is not None:
        y = b.op("onnx.Mul", [y, b.op("onnx.Unsqueeze", [m.gamma, missing])])
    if m.beta is not None:
        y = b.op("onnx.Add", [y, b.op("onnx.Unsqueeze", [m.beta, missing])])
    return y  # type: ignore[no-any-return]


# ---- normalization that also gives its statistics


def lower_layer_norm_with_statistics(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """LayerNormalization with mean and 1/√(σ² + ε) as further results."""
    if not any(y.use_count for y in m.ys[1:]):
        raise Decline("nobody asks for the statistics")
    rank = len(dims(m.x))
    axes = list(range(m.a % rank, rank))
    mean = b.op("mil.reduce_mean", [m.x], {"axes": axes, "keep_dims": True})
    centered = b.op("mil.sub", [m.x, mean])
    square = b.op("mil.mul", [centered, centered])
    variance = b.op("mil.reduce_mean", [square], {"axes": axes, "keep_dims": True})
    inverse = b.op("mil.rsqrt", [variance], {"epsilon": m.e})
    y = b.op("mil.mul", [b.op("mil.mul", [centered, inverse]), m.scale])
    if m.bias is not None:
        y = b.op("mil.add", [y, m.bias])
    return (y, mean, inverse)[: len(m.ys)]


def lower_training_batch_norm(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """BatchNormalization by the statistics of the batch, which also move the running ones."""
    rank = len(dims(m.x))
    axes, to = [i for i in range(rank) if i != 1], np.array([1, -1] + [1] * (rank - 2), np.int32)
    mean = b.op("mil.reduce_mean", [m.x], {"axes": axes, "keep_dims": True})
    centered = b.op("mil.sub", [m.x, mean])
    square = b.op("mil.mul", [centered, centered])
    variance = b.op("mil.reduce_mean", [square], {"axes": axes, "keep_dims": True})
    factor = b.op("mil.mul", [b.op("mil.reshape", [m.scale, to]), b.op("mil.rsqrt", [variance], {"epsilon": m.e})])
    out = [b.op("mil.add", [b.op("mil.mul", [centered, factor]), b.op("mil.reshape", [m.bias, to])])]
    for running, now in ((m.mean, mean), (m.var, variance)):
        flat = b.op("mil.reshape", [now, np.array([-1], np.int32)])
        kept = b.op("mil.mul", [running, float(m.momentum)])
        out.append(b.op("mil.add", [kept, b.op("mil.mul", [flat, 1.0 - float(m.momentum)])]))
    return tuple(out[: len(m.ys)])


def lower_dropout(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """Dropout that drops nothing: not in training, or with ratio 0."""
    training = m.t is not None and (m.t.constant is None or bool(np.any(m.t.constant)))
    nothing = m.ratio is not None and m.ratio.constant is not None and not np.any(m.ratio.constant)
    if training and not nothing:
        raise Decline("it drops at random")
    out: list[Value] = [m.x]
    if len(m.ys) > 1:
        mask = m.ys[1]
        out.append(b.constant(np.ones(shape_of(m.x), bool), "mil") if mask.use_count else mask)
    return tuple(out)


# ---- convolution with computed weights in groups


def lower_grouped_conv(b: RuleBuilder, m: Bindings) -> Value:
    """One convolution for each group; a depthwise one as the sum of shifted inputs, each times its weight."""
    shape, weights = dims(m.x), dims(m.w)
    n = len(shape) - 2
    kernel = weights[2:]
    if not all(isinstance(d, int) for d in (*weights, shape[1])):
        raise Decline("the shape of the weights is not known")
    strides, dilations = m.s or (1,) * n, m.d or (1,) * n
    pads = explicit_pads(m.a, m.p, shape[2:], kernel, strides, dilations)  # type: ignore[arg-type]
    if m.g == 1 or (all(d == 1 for d in dilations) and m.g <= 4):
        if any(d != 1 for d in dilations):
            raise Decline("the weights of a dilated convolution must be constant")
        xs = b.op("mil.split", [m.x], {"num_splits": m.g, "axis": 1}, results=m.g)
        ws = b.op("mil.split", [m.w], {"num_splits": m.g, "axis": 0}, results=m.g)
        attributes = {"strides": strides, "kernel_shape": None, "auto_pad": "NOTSET", "pads": separated(pads)}
        parts = [b.op("onnx.Conv", [x, w], attributes) for x, w in zip(xs, ws)]
        y = b.op("mil.concat", parts, {"axis": 1})
    elif weights[0] == m.g == shape[1]:
        y = _depthwise(b, m.x, m.w, kernel, strides, dilations, pads, shape_of(m.y))  # type: ignore[arg-type]
    else:
        raise Decline("many groups of several channels")
    if m.b is None:
        return y  # type: ignore[no-any-return]
    return b.op("mil.add", [y, b.op("mil.reshape", [m.b, np.array([1, -1] + [1] * n, np.int32)])])  # type: ignore[no-any-return]


def _depthwise(
    b: RuleBuilder, x: Value, w: Value, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
    pads: Sequence[int], result: Sequence[int],
) -> Value:  # fmt: skip
    if math.prod(kernel) > 64:
        raise Decline("a large window")
    if any(pads):
        x = b.op("mil.pad", [x, list(pads)], {"mode": "constant", "constant_val": 0.0})
    channels = result[1]
    flat = b.op("mil.reshape", [w, np.array([channels, math.prod(kernel)], np.int32)])
    total: Value | None = None
    for i, place in enumerate(itertools.product(*map(range, kernel))):
        begin = [0, 0, *(o * d for o, d in zip(place, dilations))]
        end = [result[0], channels, *(o + (r - 1) * s + 1 for o, r, s in zip(begin[2:], result[2:], strides))]
        part = b.op("mil.slice_by_index", [x, begin, end], {"stride": (1, 1, *strides)})
        weight = b.op("mil.slice_by_index", [flat, [0, i], [channels, i + 1]])
        weight = b.op("mil.reshape", [weight, np.array([1, channels] + [1] * len(kernel), np.int32)])
        part = b.op("mil.mul", [part, weight])
        total = part if total is None else b.op("mil.add", [total, part])
    assert total is not None
    return total
