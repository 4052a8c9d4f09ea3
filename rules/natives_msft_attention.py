"""Attention of com.microsoft over queries, keys and values that were projected before, in onnx.* operators.

Source: onnxruntime's docs/ContribOperators.md, and its CPU kernels (multihead_attention.cc, attention_cpu_base.h,
gqa_attention_base.h) where that is silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir import I64, TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives_msft import HIDDEN, attend, hidden_keys, used_results


def _sizes(value: Value, what: str) -> tuple[int, ...]:
    """The known sizes of a value behind its first axis, the batch, which may be open (-1).

    Raises:
        Decline: they are not known.
    """
    shape = value.type.shape if isinstance(value.type, TensorType) else None
    if shape is None or not all(isinstance(d, int) for d in shape[1:]):
        raise Decline(f"the size of {what} is not known")
    return tuple(d if isinstance(d, int) else -1 for d in shape)


def _heads(b: RuleBuilder, value: Value, heads: int) -> Value:
    """(batch, length, heads · size) as (batch, heads, length, size)."""
    _, length, width = _sizes(value, "what attends")
    if not heads or width % heads:
        raise Decline("the number of heads does not divide the width")
    split = b.op("onnx.Reshape", [value, np.array([0, length, heads, width // heads])])
    return b.op("onnx.Transpose", [split], {"perm": (0, 2, 1, 3)})  # type: ignore[no-any-return]


def _joined(b: RuleBuilder, value: Value, length: int, width: int) -> Value:
    """(batch, heads, length, size) as (batch, length, heads · size)."""
    turned = b.op("onnx.Transpose", [value], {"perm": (0, 2, 1, 3)})
    return b.op("onnx.Reshape", [turned, np.array([0, length, width])])  # type: ignore[no-any-return]


def multi_head(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """MultiHeadAttention: keys and values are (batch, keys, width), or (batch, heads, keys, size) as they come from a
    cache; the bias is that of queries, keys and values in a row."""
    a = m.a
    if m.k is None or m.v is None:
        raise Decline("queries, keys and values are packed into one tensor")
    if m.past_length is not None or m.cache is not None:
        raise Decline("a cache that is written in place")
    if len(m.ys) > 3 and m.ys[3].use_count:
        raise Decline("the scores are asked for")
    if len(_sizes(m.q, "the queries")) != 3:
        raise Decline("queries of another form than (batch, length, width)")
    heads = a["num_heads"]
    q, k, v = m.q, m.k, m.v
    _, length, width = _sizes(q, "the queries")
    if m.bias is not None:
        whole = _sizes(m.bias, "the bias") if m.bias.constant is None else m.bias.constant.shape
        if len(k.type.shape or ()) != 3:
            raise Decline("a bias for keys that are a cache")
        if whole[0] != 2 * width + _sizes(v, "the values")[2]:
            raise Decline("the bias is not that of queries, keys and values")
        parts = b.op("onnx.Split", [m.bias, np.array([width, width, whole[0] - 2 * width])], {"axis": 0}, results=3)
        q, k, v = (b.op("onnx.Add", [one, part]) for one, part in zip((q, k, v), parts))
    q, k, v = _heads(b, q, heads), *(one if one.type.rank == 4 else _heads(b, one, heads) for one in (k, v))
    past = 0
    if m.past_k is not None and m.past_v is not None:
        past = _sizes(m.past_k, "the cache")[2]
        k, v = (b.op("onnx.Concat", [old, new], {"axis": 2}) for old, new in ((m.past_k, k), (m.past_v, v)))
    size, each = _sizes(q, "the queries")[3], _sizes(v, "the values")[3]
    summands: list[Any] = [m.add]
    if m.mask is not None:
        summands.append(hidden_keys(b, m.mask, m.q.type.dtype.numpy, a.get("mask_filter_value")))
    if a.get("unidirectional"):
        if _sizes(k, "the keys")[2] != past + length:
            raise Decline("queries see no later keys, and keys are not those of the queries")
        summands.append(_later(m.q.type.dtype.numpy, length, _sizes(k, "the keys")[2], past))
    seen = attend(b, q, k, v, a.get("scale") or size**-0.5, summands)
    return used_results(m, _joined(b, seen, length, heads * each), k, v)


def _later(dtype: Any, length: int, keys: int, past: int, window: int = -1) -> np.ndarray[Any, Any]:
    """What hides from each query the keys behind it, and those ``window`` or more before it."""
    distance = past + np.arange(length)[:, None] - np.arange(keys)
    hidden = (distance < 0) | ((distance >= window) if window > 0 else False)
    return np.where(hidden, dtype.type(max(HIDDEN, float(np.finfo(dtype).min))), dtype.type(0))


def rotary(b: RuleBuilder, m: Bindings) -> Value:
    """RotaryEmbedding: positions are one for each token, or that of the first."""
    a = m.a
    if a.get("is_packed_batching") or (a.get("scale") or 1.0) != 1.0:
        raise Decline("batches are packed, or positions scaled")
    shape = _sizes(m.x, "what is turned")
    turned = 2 * _sizes(m.cos, "the cosines")[1]
    if not turned or (a.get("rotary_embedding_dim") or turned) != turned:
        raise Decline("there are no angles, or for more than is turned")
    attributes = {"interleaved": a.get("interleaved") or 0, "rotary_embedding_dim": a.get("rotary_embedding_dim") or 0}
    if len(shape) == 3:
        attributes["num_heads"] = a.get("num_heads") or shape[2] // turned
    return _turned(b, m.x, m.p, m.cos, m.sin, shape[-2 if len(shape) == 4 else 1], attributes)


def _turned(
    b: RuleBuilder, x: Value, at: Value | None, cos: Value, sin: Value, length: int, attributes: dict[str, Any]
) -> Value:
    batch = x.type.shape[0] if isinstance(x.type, TensorType) and x.type.shape else None
    if at is None or at.type.rank in (0, 1):
        if not isinstance(batch, int):
            raise Decline("the number of sequences is not known")
        steps = np.broadcast_to(np.arange(length, dtype=np.int64), (batch, length)).copy()
        at = b.constant(steps, "onnx") if at is None else b.op("onnx.Add", [at, steps])
    return b.op("onnx.RotaryEmbedding", [x, cos, sin, at], attributes)  # type: ignore[no-any-return]


#: What GroupQueryAttention can be asked for beside, by attribute, with the value that asks for nothing.
_UNSUPPORTED = {
    "smooth_softmax": (0, -1), "qk_output": (0,), "k_quant_type": ("", "NONE"), "v_quant_type": ("", "NONE"),
    "sliding_window_cache": (0,), "kv_cache_bit_width": (0,),
}  # fmt: skip


def group_query(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """GroupQueryAttention: new keys go behind a cache of a known size, or behind as much of it as each sequence fills,
    where lengths are computed."""
    a, q, k, v, at = m.a, m.q, m.k, m.v, m.at
    for name, plain in _UNSUPPORTED.items():
        if (a.get(name) if a.get(name) is not None else plain[0]) not in plain:
            raise Decline(f"its attribute {name} is {a[name]}")
    if any(x is not None for x in (m.sinks, m.k_scale, m.v_scale, m.q_norm, m.k_norm)):
        raise Decline("sinks, a quantized cache, or norms of queries and keys")
    if not (a.get("causal", 1) or a.get("causal") is None):
        raise Decline("queries see what comes behind them")
    if len(m.ys) > 3 and m.ys[3].use_count:
        raise Decline("the scores are asked for")
    heads, groups = a["num_heads"], a["kv_num_heads"]
    _, length, width = _sizes(q, "the queries")
    if k is None or v is None:
        size = width // (heads + 2 * groups)
        parts = np.array([heads * size, groups * size, groups * size])
        q, k, v = b.op("onnx.Split", [q, parts], {"axis": 2}, results=3)
    past = 0 if m.past_k is None else _sizes(m.past_k, "the cache")[2]
    if m.total.constant is None:
        raise Decline("the length of the longest sequence is computed at run time")
    if int(m.total.constant.reshape(-1)[0]) != past + length:
        raise Decline("a cache that is written in place")
    if past and len(m.ys) < 3:
        raise Decline("onnxruntime looks at a cache only where the next one is asked for")
    filled: Value | None = None
    if m.lengths.constant is None or np.any(m.lengths.constant != past + length - 1):
        if m.past_k is None or m.past_v is None:
            raise Decline("lengths that are computed, or several, are known to onnxruntime behind a cache only")
        filled = b.op("onnx.Add", [b.op("onnx.Reshape", [m.lengths, np.array([-1, 1])]), np.int32(1 - length)])
    q, k, v = _heads(b, q, heads), _heads(b, k, groups), _heads(b, v, groups)
    size = _sizes(q, "the queries")[3]
    if a.get("do_rotary"):
        if at is None:
            batch = _sizes(q, "the queries")[0]
            if batch < 0:
                raise Decline("the number of sequences is not known")
            steps = np.broadcast_to(np.arange(length, dtype=np.int64), (batch, length)).copy()
            if filled is None:
                at = b.constant(steps + past, "onnx")
            else:
                at = b.op("onnx.Add", [b.op("onnx.Cast", [filled], {"to": I64}), steps])
        if m.cos is None or m.sin is None:
            raise Decline("it turns by no angles")
        turned = 2 * _sizes(m.cos, "the cosines")[1]
        turn = {"interleaved": a.get("rotary_interleaved") or 0, "rotary_embedding_dim": turned if turned < size else 0}
        q, k = (_turned(b, one, at, m.cos, m.sin, length, turn) for one in (q, k))
    if m.past_k is not None and m.past_v is not None:
        k, v = (_behind(b, old, new, filled) for old, new in ((m.past_k, k), (m.past_v, v)))
    dtype = m.q.type.dtype.numpy
    window = -1 if a.get("local_window_size") is None else a["local_window_size"]
    if window != -1 and window < 1:
        raise Decline("queries see no key")
    later = (
        _later(dtype, length, past + length, past, window)
        if filled is None
        else _later_than(b, filled, dtype, length, past + length, window)
    )
    summands: Sequence[Any] = [m.add, later]
    keys, values = (_repeated(b, one, heads // groups) for one in (k, v))
    seen = attend(b, q, keys, values, a.get("scale") or size**-0.5, summands, a.get("softcap") or 0.0)
    return used_results(m, _joined(b, seen, length, heads * size), k, v)


def _behind(b: RuleBuilder, old: Value, new: Value, filled: Value | None) -> Value:
    """(batch, groups, length, size) of a cache, of which ``filled``, (batch, 1), elements count or all, and behind them
    what is new; zeros follow to the length of both."""
    if filled is None:
        return b.op("onnx.Concat", [old, new], {"axis": 2})  # type: ignore[no-any-return]
    _, groups, past, size = _sizes(old, "the cache")
    length = _sizes(new, "the new keys")[2]
    places = np.arange(past + length, dtype=np.int32).reshape(1, 1, -1, 1)
    start = b.op("onnx.Unsqueeze", [filled, np.array([1, 3])])  # (batch, 1, 1, 1)
    rank = b.op("onnx.Sub", [places, start])
    zero = np.zeros((), new.type.dtype.numpy)  # type: ignore[union-attr]
    wide = b.op("onnx.Pad", [old, np.array([0, 0, 0, 0, 0, 0, length, 0]), zero], {"mode": "constant"})
    taken = b.op("onnx.Clip", [rank, np.int32(0), np.int32(length - 1)])
    taken = b.op("onnx.Expand", [taken, np.array([1, groups, past + length, size])])
    tail = b.op("onnx.Where", [
        b.op("onnx.Less", [rank, np.int32(length)]), b.op("onnx.GatherElements", [new, taken], {"axis": 2}), zero
    ])  # fmt: skip
    return b.op("onnx.Where", [b.op("onnx.Less", [rank, np.int32(0)]), wide, tail])  # type: ignore[no-any-return]


def _later_than(b: RuleBuilder, filled: Value, dtype: Any, length: int, keys: int, window: int) -> Value:
    """:func:`_later` behind as many keys as ``filled``, (batch, 1), says: (batch, 1, length, keys)."""
    apart = np.arange(length, dtype=np.int32)[:, None] - np.arange(keys, dtype=np.int32)
    distance = b.op("onnx.Add", [b.op("onnx.Unsqueeze", [filled, np.array([1, 3])]), apart])
    hidden = b.op("onnx.Less", [distance, np.int32(0)])
    if window > 0:
        hidden = b.op("onnx.Or", [hidden, b.op("onnx.GreaterOrEqual", [distance, np.int32(window)])])
    lowest = dtype.type(max(HIDDEN, float(np.finfo(dtype).min)))
    return b.op("onnx.Where", [hidden, lowest, dtype.type(0)])  # type: ignore[no-any-return]


def _repeated(b: RuleBuilder, value: Value, times: int) -> Value:
    """(batch, groups, length, size) with each group as often as heads share it."""
    if times == 1:
        return value
    _, groups, length, size = _sizes(value, "keys and values")
    raised = b.op("onnx.Unsqueeze", [value, np.array([2])])
    spread = b.op("onnx.Expand", [raised, np.array([1, 1, times, 1, 1])])
    return b.op("onnx.Reshape", [spread, np.array([0, groups * times, length, size])])  # type: ignore[no-any-return]
