"""Lowering to metal.*, where a rule in one line will not do: movements, products, reductions, windows.

Builders get what a rule matched and give what replaces it; see compiler/rewrite/build.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler import ir
from compiler.ir import TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline, axis, shape
from rules.natives_msft_quant import unpacked
from rules.natives_window import explicit_pads, separated, windows_start_inside

Array = np.ndarray[Any, Any]


def all_pads(
    auto_pad: str,
    pads: Sequence[int] | None,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """The pads of a window operator in ONNX's order: before each spatial dimension, then behind each."""
    return separated(explicit_pads(auto_pad, pads, sizes, kernel, strides, dilations))


def constant_of(value: Value | None, what: str) -> Array:
    """The array of a value that must be constant."""
    array = value.constant if value is not None else None
    if array is None:
        raise Decline(f"{what} is not constant")
    return array


def reshaped(b: RuleBuilder, x: Value, to: Sequence[int]) -> Value:
    """``x`` in another shape; ``x`` itself if it has it."""
    if shape(x) == tuple(to):
        return x
    out: Value = b.op("metal.reshape", [x], {"shape": tuple(int(d) for d in to)})
    return out


def transposed(b: RuleBuilder, x: Value, perm: Sequence[int]) -> Value:
    """``x`` with its dimensions in another order; ``x`` itself if the order is theirs."""
    if tuple(perm) == tuple(range(len(perm))):
        return x
    out: Value = b.op("metal.transpose", [x], {"perm": tuple(perm)})
    return out


def with_last_two_swapped(b: RuleBuilder, x: Value) -> Value:
    if x.constant is not None:
        return b.constant(np.ascontiguousarray(x.constant.swapaxes(-1, -2)), "metal")
    r = len(shape(x))
    return transposed(b, x, (*range(r - 2), r - 1, r - 2))


# ---- movements


def part(b: RuleBuilder, x: Value, starts: Sequence[int], steps: Sequence[int], sizes: Sequence[int]) -> Value:
    """Elements ``starts + steps · i`` for ``i`` in ``sizes``, along every dimension."""
    if tuple(sizes) == shape(x) and all(s == 1 for s in steps):
        return x
    attributes = {"starts": tuple(starts), "steps": tuple(steps), "shape": tuple(sizes)}
    out: Value = b.op("metal.slice", [x], attributes)
    return out


def slice_(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Slice with constant bounds."""
    dims = shape(m.x)
    rest = [None if v is None else constant_of(v, "a bound of the slice").reshape(-1) for v in m.y.op.operands[1:]]
    begin, end = rest[0], rest[1]
    axes = rest[2] if len(rest) > 2 and rest[2] is not None else np.arange(len(begin))
    steps = rest[3] if len(rest) > 3 and rest[3] is not None else np.ones(len(begin), np.int64)
    starts, strides, sizes = [0] * len(dims), [1] * len(dims), list(dims)
    for low, high, a, step in zip(begin, end, axes, steps, strict=True):
        d = axis(int(a), len(dims))
        # Python's slices clamp as ONNX's do.
        chosen = range(*slice(int(low), int(high), int(step)).indices(dims[d]))
        if not chosen:
            raise Decline("the slice is empty")
        starts[d], strides[d], sizes[d] = chosen.start, chosen.step, len(chosen)
    return part(b, m.x, starts, strides, sizes)


def split(b: RuleBuilder, m: Bindings) -> list[Value]:
    """onnx.Split: as many slices."""
    dims, d = shape(m.x), axis(m.a, len(shape(m.x)))
    out, at = [], 0
    for y in m.ys:
        sizes = shape(y)
        starts = [at if i == d else 0 for i in range(len(dims))]
        out.append(part(b, m.x, starts, [1] * len(dims), sizes))
        at += sizes[d]
    return out


def pad(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Pad with constant pads, negative ones being slices."""
    operands = m.y.op.operands
    dims = shape(m.x)
    pads = constant_of(operands[1], "pads").reshape(-1)
    fill = operands[2] if len(operands) > 2 else None
    axes = constant_of(operands[3], "axes") if len(operands) > 3 and operands[3] is not None else np.arange(len(dims))
    before, after = [0] * len(dims), [0] * len(dims)
    for i, a in enumerate(np.asarray(axes).reshape(-1)):
        before[axis(int(a), len(dims))] = int(pads[i])
        after[axis(int(a), len(dims))] = int(pads[len(pads) // 2 + i])
    cut = [max(0, -p) for p in before]
    sizes = [n - c - max(0, -q) for n, c, q in zip(dims, cut, after, strict=True)]
    x = part(b, m.x, cut, [1] * len(dims), sizes)
    value = 0.0 if fill is None else float(constant_of(fill, "the fill value").reshape(-1)[0])
    attributes = {
        "before": tuple(max(0, p) for p in before),
        "after": tuple(max(0, p) for p in after),
        "mode": m.m,
        "value": value,
    }
    if not any(attributes["before"]) and not any(attributes["after"]):
        return x
    out: Value = b.op("metal.pad", [x], attributes)
    return out


def frames(b: RuleBuilder, m: Bindings) -> Value:
    """Stretches of one signal side by side, each where the one before ends: overlapping frames of the signal."""
    source: Value | None = None
    dims = shape(m.y)
    start = step = None
    for part_ in m.xs:
        x = part_.op.operands[0] if _is(part_, "metal.reshape") else part_
        if not _is(x, "metal.slice") or sum(n > 1 for n in shape(x.op.operands[0])) != 1:
            raise Decline("a part is no stretch of a signal")
        if any(s != 1 for s in x.op.attributes["steps"]) or source not in (None, x.op.operands[0]):
            raise Decline("a part is not contiguous, or of another signal")
        source = x.op.operands[0]
        sizes = shape(part_)
        strides = tuple(math.prod(sizes[d + 1 :]) for d in range(len(sizes)))
        if start is None:
            start, step, expected = sum(x.op.attributes["starts"]), strides, sum(x.op.attributes["starts"])
        if strides != step or sum(x.op.attributes["starts"]) != expected:
            raise Decline("parts do not follow one another")
        expected += sizes[m.a] * strides[m.a]
    out: Value = b.op("metal.strided", [source], {"start": start, "strides": step, "shape": dims})
    return out


def tile(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Tile: a broadcast along a new dimension before each."""
    dims, repeats = shape(m.x), [int(r) for r in constant_of(m.r, "repeats").reshape(-1)]
    x = reshaped(b, m.x, [d for n in dims for d in (1, n)])
    x = b.op("metal.broadcast", [x], {"shape": tuple(d for n, r in zip(dims, repeats, strict=True) for d in (r, n))})
    return reshaped(b, x, shape(m.y))


def depth_to_space(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.DepthToSpace in its two orders of depth."""
    n, c, h, w = shape(m.x)
    s = m.b
    if m.m == "DCR":
        x = transposed(b, reshaped(b, m.x, (n, s, s, c // s**2, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        x = transposed(b, reshaped(b, m.x, (n, c // s**2, s, s, h, w)), (0, 1, 4, 2, 5, 3))
    return reshaped(b, x, shape(m.y))


def space_to_depth(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.SpaceToDepth."""
    n, c, h, w = shape(m.x)
    s = m.b
    x = transposed(b, reshaped(b, m.x, (n, c, h // s, s, w // s, s)), (0, 3, 5, 1, 2, 4))
    return reshaped(b, x, shape(m.y))


def trilu(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Trilu: a choice by a constant mask."""
    rows, columns = shape(m.x)[-2:]
    k = 0 if m.k is None else int(constant_of(m.k, "k").reshape(-1)[0])
    mask = np.triu(np.ones((rows, columns), bool), k) if m.u else np.tril(np.ones((rows, columns), bool), k)
    out: Value = b.op("metal.select", [b.constant(mask, "metal"), m.x, _number(b, 0, m.x)])
    return out


def constant_of_shape(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.ConstantOfShape: one number, broadcast."""
    value = np.asarray(m.v).reshape(())
    dtype = m.y.type.dtype.numpy
    out: Value = b.op("metal.broadcast", [b.constant(value.astype(dtype), "metal")], {"shape": shape(m.y)})
    return out


def range_(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Range of constants."""
    first, end, step = (constant_of(v, "a bound of the range").reshape(-1)[0].item() for v in (m.a, m.b, m.c))
    count = max(math.ceil((end - first) / step), 0)
    return b.constant((first + step * np.arange(count)).astype(m.y.type.dtype.numpy), "metal")


def shape_(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Shape of a known shape."""
    return b.constant(np.array(shape(m.x)[m.s : m.e], np.int64), "metal")


def _number(b: RuleBuilder, value: float, like: Value) -> Value:
    assert isinstance(like.type, TensorType)
    return b.constant(np.array(value, like.type.dtype.numpy), "metal")


def stored_quantized(b: RuleBuilder, x: Value, scale: Array, zero: Array | None, axis_: int, block: int) -> Value:
    """A constant that is brought back where it is read, its scale and zero point as onnx.DequantizeLinear has them."""
    if scale.size == 1:
        scale, block = scale.reshape(()), 0
    operands = [x, b.constant(scale, "metal")]
    if zero is not None and zero.any():
        operands.append(b.constant(zero.astype(scale.dtype).reshape(scale.shape), "metal"))
    out: Value = b.op("metal.dequantize", operands, {"axis": axis_, "block": block})
    return out


def transposed_weights(b: RuleBuilder, m: Bindings) -> Value:
    """The transpose of a constant that is stored quantized: of what is stored."""
    if not m.p:
        raise Decline("there is nothing to transpose")
    x = b.constant(np.ascontiguousarray(constant_of(m.w, "the weights").transpose(m.p)), "metal")
    scale = constant_of(m.s, "the scales")
    zero = None if m.z is None else np.broadcast_to(constant_of(m.z, "the zero points"), scale.shape)
    if m.k:
        scale, zero = scale.transpose(m.p), None if zero is None else zero.transpose(m.p)
    return stored_quantized(b, x, scale, zero, m.p.index(m.a), m.k)


def matmul_of_bits(b: RuleBuilder, m: Bindings) -> Value:
    """msft.MatMulNBits: weights of 4 or 8 bits in blocks along the inner dimension, a row for each of the columns."""
    if m.bits not in (4, 8):
        raise Decline(f"weights of {m.bits} bits")
    blocks = -(-m.K // m.block)
    packed, scale = constant_of(m.w, "the weights"), constant_of(m.s, "the scales").reshape(m.N, blocks)
    rows = unpacked(packed.reshape(m.N, blocks, -1), m.bits).reshape(m.N, blocks * m.block)[:, : m.K]
    zero = np.full((m.N, blocks), 1 << (m.bits - 1), np.uint8)
    if m.z is not None:
        given = constant_of(m.z, "the zero points")
        if given.dtype.kind == "f":
            raise Decline("zero points that are floats")
        zero = unpacked(given.reshape(m.N, -1), m.bits)[:, :blocks]
    dtype = ir.dtype(f"u{m.bits}").numpy
    x = b.constant(np.ascontiguousarray(rows.T.astype(dtype)), "metal")
    weights = stored_quantized(b, x, np.ascontiguousarray(scale.T), np.ascontiguousarray(zero.T), 0, m.block)
    y: Value = b.op("metal.matmul", [m.x, weights])
    return y


def dequantize(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.DequantizeLinear per tensor or per axis: ``(x − z) · s``; constants stay as they are stored."""
    rank = len(shape(m.x))
    if m.x.constant is not None:
        scale = constant_of(m.s, "the scale")
        zero = None if m.z is None else constant_of(m.z, "the zero point")
        return stored_quantized(b, m.x, scale, zero, axis(m.a, rank) if rank else 0, m.k)
    if m.k:
        raise Decline("blocks of what is computed at run time")

    def along(array: Array) -> Array:
        if array.size == 1:
            return array.reshape(())
        return array.reshape([-1 if i == axis(m.a, rank) else 1 for i in range(rank)])

    scale = along(constant_of(m.s, "the scale"))
    x = b.op("metal.cast", [m.x], {"to": m.s.type.dtype})
    if m.z is not None:
        zero = along(constant_of(m.z, "the zero point")).astype(scale.dtype)
        if zero.any():
            x = b.op("metal.sub", [x, b.constant(zero, "metal")])
    out: Value = b.op("metal.mul", [x, b.constant(scale, "metal")])
    if m.s.type.dtype is not m.y.type.dtype:
        out = b.op("metal.cast", [out], {"to": m.y.type.dtype})
    return out


# ---- products


def matmul_of_vectors(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.MatMul where an operand is a vector: a row on the left, a column on the right."""
    a, c = m.a, m.b
    a = reshaped(b, a, (1, *shape(a))) if len(shape(a)) == 1 else a
    c = reshaped(b, c, (*shape(c), 1)) if len(shape(c)) == 1 else c
    return reshaped(b, b.op("metal.matmul", [a, c]), shape(m.y))


def gemm(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Gemm: a product, scaled, with a summand."""
    y = gemm_without_bias(b, m)
    if m.c is None:
        return y
    c = m.c if m.t == 1.0 else b.op("metal.mul", [m.c, _number(b, m.t, m.c)])
    out: Value = b.op("metal.add", [y, c])
    return out


def gemm_without_bias(b: RuleBuilder, m: Bindings) -> Value:
    """``s · a · b``, each transposed if its attribute says so."""
    a = with_last_two_swapped(b, m.a) if m.ta else m.a
    c = with_last_two_swapped(b, m.b) if m.tb else m.b
    y: Value = b.op("metal.matmul", [a, c])
    return y if m.s == 1.0 else b.op("metal.mul", [y, _number(b, m.s, y)])


def conv_transpose(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.ConvTranspose; the pads before follow from the shape of the result (operator documentation)."""
    n = len(shape(m.x)) - 2
    attributes = m.y.op.attributes
    strides = m.s or (1,) * n
    dilations = m.d or (1,) * n
    extra = attributes.get("output_padding") or (0,) * n
    pads = list(attributes.get("pads") or (0,) * (2 * n))
    if m.a in ("SAME_UPPER", "SAME_LOWER") or attributes.get("output_shape"):
        for i in range(n):
            full = strides[i] * (shape(m.x)[2 + i] - 1) + extra[i] + (shape(m.w)[2 + i] - 1) * dilations[i] + 1
            total = max(0, full - shape(m.y)[2 + i])
            pads[i] = total // 2 if m.a == "SAME_UPPER" else total - total // 2
    operands = [m.x, m.w, m.b] if m.b is not None else [m.x, m.w]
    how = {"strides": tuple(strides), "pads": tuple(pads[:n]), "dilations": tuple(dilations), "group": m.g}
    out: Value = b.op("metal.conv_transpose", operands, how, replaced=(m.y,))
    return out


def attention(b: RuleBuilder, m: Bindings) -> Value:
    """``softmax(scale · q · kᵀ + mask) · v``, where nobody else uses the weights."""
    weights, mask, scale = m.l, None, 1.0
    if _only_use(m.y.op.operands[0]) and _is(weights, "metal.add") and _only_use(weights):
        first, second = weights.op.operands
        inner = first if _is_product(first) else second
        mask = second if inner is first else first
        weights = inner
    if _is(weights, "metal.mul") or _is(weights, "metal.div"):
        x, k = weights.op.operands
        factor = k.constant
        if factor is not None and factor.size == 1 and _only_use(weights):
            scale = float(factor.reshape(-1)[0])
            scale = scale if _is(weights, "metal.mul") else 1.0 / scale
            weights = x
    if not (_is(weights, "metal.matmul") and _only_use(weights) and _only_use(m.y.op.operands[0])):
        raise Decline("the weights are no product of queries and keys, or are used elsewhere")
    q, keys = weights.op.operands
    if shape(q)[:-2] != shape(m.y)[:-2] or shape(keys)[:-2] != shape(m.v)[:-2] or shape(keys)[:-2] != shape(q)[:-2]:
        raise Decline("heads are broadcast")
    if max(shape(q)[-1], shape(m.v)[-1]) > 256 or shape(q)[-2] == 1:
        raise Decline("heads are too large to be held in registers, or there is one query")
    operands = [q, with_last_two_swapped(b, keys), m.v, *([mask] if mask is not None else [])]
    out: Value = b.op("metal.attention", operands, {"scale": scale, "causal": False}, replaced=(m.y,))
    return out


def _is(value: Value, name: str) -> bool:
    return value.op is not None and value.op.name == name


def _is_product(value: Value) -> bool:
    if _is(value, "metal.matmul"):
        return True
    return (_is(value, "metal.mul") or _is(value, "metal.div")) and _is(value.op.operands[0], "metal.matmul")


def _only_use(value: Value) -> bool:
    return value.use_count == 1


# ---- reductions


def _reduced(b: RuleBuilder, x: Value, kind: str, axes: Sequence[int], to: Value) -> Value:
    if not axes:
        return x
    y = b.op("metal.reduce", [x], {"kind": kind, "axes": tuple(sorted(set(axes)))})
    return reshaped(b, y, shape(to))


def reduce(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Reduce…: over all dimensions if no axes are given, unless that is to mean none."""
    rank = len(shape(m.x))
    axes = () if m.a is None else tuple(axis(int(i), rank) for i in np.asarray(constant_of(m.a, "axes")).reshape(-1))
    if not axes and not m.n:
        axes = tuple(range(rank))
    return _reduced(b, m.x, m.y.op.name.removeprefix("onnx.Reduce").lower(), axes, m.y)


def global_pool(b: RuleBuilder, m: Bindings) -> Value:
    """A reduction over all spatial dimensions."""
    kind = "mean" if "Average" in m.y.op.name else "max"
    return _reduced(b, m.x, kind, range(2, len(shape(m.x))), m.y)


def arg_max(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.ArgMax."""
    return _arg(b, m, "max")


def arg_min(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.ArgMin."""
    return _arg(b, m, "min")


def _arg(b: RuleBuilder, m: Bindings, kind: str) -> Value:
    dims = shape(m.x)
    a = axis(m.a, len(dims))
    attributes = {"kind": kind, "axis": a, "last": bool(m.l)}
    y = b.op("metal.arg_reduce", [m.x], attributes)
    return reshaped(b, y, shape(m.y))


def group_norm(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.GroupNormalization: a normalization of each group of channels."""
    dims = shape(m.x)
    x = reshaped(b, m.x, (dims[0], m.k, dims[1] // m.k, *dims[2:]))
    axes = tuple(range(2, len(dims) + 1))
    z = reshaped(b, b.op("metal.normalize", [x], {"axes": axes, "epsilon": m.e, "center": True}), dims)
    per_channel = (dims[1], *(1,) * (len(dims) - 2))
    scaled = b.op("metal.mul", [z, reshaped(b, m.g, per_channel)])
    out: Value = b.op("metal.add", [scaled, reshaped(b, m.b, per_channel)])
    return out


# ---- windows


def max_pool(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.MaxPool; windows that hang over the end see less."""
    return _pool(b, m, "max", False)


def average_pool(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.AveragePool, over what lies inside or over the padded tensor."""
    return _pool(b, m, "mean", not m.i)


def _pool(b: RuleBuilder, m: Bindings, kind: str, inside: bool) -> Value:
    dims, n = shape(m.x), len(m.k)
    strides, dilations = m.s or (1,) * n, m.d or (1,) * n
    if windows_start_inside(m.a, dims[2:], m.k, strides, dilations):
        raise Decline("windows lie so far apart that pads would be negative")
    pads = all_pads(m.a, m.p, dims[2:], m.k, strides, dilations)
    attributes = {
        "kind": kind,
        "kernel": tuple(m.k),
        "strides": tuple(strides),
        "pads": tuple(pads),
        "dilations": tuple(dilations),
        "inside": inside,
    }
    out: Value = b.op("metal.pool", [m.x], attributes, replaced=(m.y,))
    return out


def resize(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Resize without a region of interest and without antialiasing."""
    how = m.y.op.attributes
    mode = how["coordinate_transformation_mode"]
    if mode == "tf_crop_and_resize" or how.get("antialias") or how.get("axes") is not None:
        raise Decline("a crop, antialiasing or chosen axes")
    if how.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Decline("the aspect ratio is kept")
    dims, to = shape(m.x), shape(m.y)
    given = None if m.scales is None else np.asarray(constant_of(m.scales, "scales"))
    scales = [o / i for o, i in zip(to, dims, strict=True)]
    if given is not None and given.size:
        scales = [float(s) for s in given]
    return _resized(
        b, m, how["mode"], scales, mode, how["nearest_mode"], how["cubic_coeff_a"], bool(how["exclude_outside"])
    )


def upsample(b: RuleBuilder, m: Bindings) -> Value:
    """The deprecated onnx.Upsample: a resize with asymmetric coordinates, rounded down."""
    scales = [float(s) for s in np.asarray(constant_of(m.s, "scales")).reshape(-1)]
    return _resized(b, m, m.m, scales, "asymmetric", "floor", -0.75, False)


def _resized(
    b: RuleBuilder, m: Bindings, mode: str, scales: list[float], how: str, rounding: str, cubic: float, exclude: bool
) -> Value:
    if any(not math.isclose(s, 1.0) for s, n, o in zip(scales, shape(m.x), shape(m.y), strict=True) if n == o):
        raise Decline("a dimension is scaled to its own size")
    if shape(m.x) == shape(m.y):
        return m.x
    factors = [
        o // i if o % i == 0 and math.isclose(s, o // i) else 0
        for i, o, s in zip(shape(m.x), shape(m.y), scales, strict=True)
    ]
    if mode == "nearest" and all(_repeats(n, f, how, rounding) for n, f in zip(shape(m.x), factors, strict=True)):
        return _repeated(b, m.x, factors)
    attributes = {
        "mode": mode,
        "scales": tuple(scales),
        "coordinates": how,
        "rounding": rounding,
        "cubic": cubic,
        "exclude": exclude,
    }
    out: Value = b.op("metal.resize", [m.x], attributes, replaced=(m.y,))
    return out


def _repeats(size: int, factor: int, how: str, rounding: str) -> bool:
    """Whether the nearest element to each of ``size · factor`` places is that at the place divided by the factor."""
    if factor <= 1 or how not in ("asymmetric", "half_pixel", "pytorch_half_pixel"):
        return factor == 1
    places = np.arange(size * factor, dtype=np.float64)
    at = places / factor if how == "asymmetric" else (places + 0.5) / factor - 0.5
    rounded = {
        "floor": np.floor(at),
        "ceil": np.ceil(at),
        "round_prefer_floor": np.ceil(at - 0.5),
        "round_prefer_ceil": np.floor(at + 0.5),
    }[rounding]
    return bool(np.array_equal(np.clip(rounded, 0, size - 1), places // factor))


def _repeated(b: RuleBuilder, x: Value, factors: Sequence[int]) -> Value:
    """Each element as often as ``factors`` say along each dimension, side by side."""
    dims = shape(x)
    split = [d for n, f in zip(dims, factors, strict=True) for d in ((n, 1) if f > 1 else (n,))]
    wide = [d for n, f in zip(dims, factors, strict=True) for d in ((n, f) if f > 1 else (n,))]
    if split == wide:
        return x
    spread: Value = b.op("metal.broadcast", [reshaped(b, x, split)], {"shape": tuple(wide)})
    return reshaped(b, spread, [n * f for n, f in zip(dims, factors, strict=True)])


def nms(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.NonMaxSuppression where what it finds is an output: a buffer for the most there can be, and its rows."""
    if any(not u.defn.terminator for u in m.y.users):
        raise Decline("the number of boxes is not known at compile time, and something is computed from them")
    limit = 0 if m.limit is None else int(constant_of(m.limit, "the limit").reshape(-1)[0])
    if limit < 1:
        raise Decline("no box may be chosen")
    attributes = {
        "limit": min(limit, 2**31 - 1),
        "iou": 0.0 if m.iou is None else float(constant_of(m.iou, "the overlap").reshape(-1)[0]),
        "score": -math.inf if m.score is None else float(constant_of(m.score, "the least score").reshape(-1)[0]),
        "center": bool(m.c),
    }
    found = b.op("metal.nms", [m.b, m.s], attributes, results=2)
    out: Value = b.op("metal.trim", list(found))
    return out
