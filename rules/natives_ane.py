"""Builders of the rules that shape a model for the Neural Engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from compiler.ir import Op, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import constant_ints, rank_of, shape_of

#: So many heads at most are taken apart; a batch that was folded into the heads would make more.
MOST_HEADS = 64

#: How many movements :func:`behind_recurrent` looks through.
_BACK = 6
_MOVEMENTS = frozenset({"mil.reshape", "mil.transpose", "mil.expand_dims", "mil.squeeze", "mil.concat", "mil.reverse"})

Step = Callable[[Value, int], Value]


def pays(b: RuleBuilder, op: Op) -> None:
    """Looks whether what was built costs less on the unit than a step of ``op`` to the CPU and back.

    Raises:
        Decline: it does not. Without a target nothing is known to decline.
    """
    away = getattr(b.target, "milliseconds_away", None)
    if away is not None and sum(b.target.milliseconds(made) for made in b.made) > away(op):
        raise Decline("the CPU does it sooner, way included")


def behind_recurrent(x: Value) -> bool:
    """Whether a value comes from a recurrent layer, through movements only."""
    op = x.op
    for _ in range(_BACK):
        if op is None or op.name not in _MOVEMENTS or op.operands[0] is None:
            break
        op = op.operands[0].op
    return op is not None and op.name in ("mil.lstm", "mil.gru", "mil.rnn")


def given_out(y: Value) -> bool:
    """Whether a value is a result of the model and nothing else."""
    return bool(y.use_count) and all(user.defn.terminator for user in y.users)


def summed(b: RuleBuilder, parts: Sequence[Value]) -> Value:
    """The sum of several values, in pairs: half precision rounds each element log₂ n times, not n times."""
    while len(parts) > 1:
        pairs = [b.op("mil.add", list(parts[i : i + 2])) for i in range(0, len(parts) - 1, 2)]
        parts = [*pairs, parts[-1]] if len(parts) % 2 else pairs
    return parts[0]


def attention_per_head(b: RuleBuilder, m: Bindings) -> Value:
    """softmax(q kᵀ) v."""
    return _per_head(b, m, lambda s, h: s)


def attention_per_head_masked(b: RuleBuilder, m: Bindings) -> Value:
    """softmax(q kᵀ + mask) v."""
    mask = _per_head_of_scores(b, m.mask, shape_of(m.y)[-3])
    return _per_head(b, m, lambda s, h: b.op("mil.add", [s, mask(h)]))


def attention_per_head_biased(b: RuleBuilder, m: Bindings) -> Value:
    """softmax((q kᵀ + bias) + mask) v."""
    heads = shape_of(m.y)[-3]
    bias, mask = (_per_head_of_scores(b, x, heads) for x in (m.bias, m.mask))
    return _per_head(b, m, lambda s, h: b.op("mil.add", [b.op("mil.add", [s, bias(h)]), mask(h)]))


def attention_per_head_selected(b: RuleBuilder, m: Bindings) -> Value:
    """softmax(c ? q kᵀ : least) v."""
    heads = shape_of(m.y)[-3]
    condition = _per_head_of_scores(b, m.c, heads)
    return _per_head(b, m, lambda s, h: b.op("mil.select", [condition(h), s, m.least]))


def attention_per_head_biased_selected(b: RuleBuilder, m: Bindings) -> Value:
    """softmax(c ? q kᵀ + bias : least) v."""
    heads = shape_of(m.y)[-3]
    bias, condition = (_per_head_of_scores(b, x, heads) for x in (m.bias, m.c))
    return _per_head(b, m, lambda s, h: b.op("mil.select", [condition(h), b.op("mil.add", [s, bias(h)]), m.least]))


def _per_head(b: RuleBuilder, m: Bindings, step: Step) -> Value:
    """Scores bkhc,bchq → bkhq, softmax over the keys, values bchk,bkhq → bchq, for each head; heads joined as channels.

    q, k, v are (B, H, M, D), (B, H, S, D) or, where ``t`` is false, (B, H, D, S), and (B, H, S, E); of three axes, the
    first counts heads.

    Raises:
        Decline: there are too many heads, or the shapes are no attention's.
    """
    four = [x if rank_of(x) == 4 else b.op("mil.expand_dims", [x], {"axes": (0,)}) for x in (m.q, m.k, m.v)]
    q, k, v = four
    batch, heads, queries, depth = shape_of(q)
    if heads > MOST_HEADS:
        raise Decline("too many heads")
    keys, wide = shape_of(v)[2:]
    if shape_of(k)[2:] != ((keys, depth) if m.t else (depth, keys)):
        raise Decline("keys and values do not go together")
    queried = _parts(b, q, heads, (0, 1, 3, 2), 1)
    key = _parts(b, k, heads, (0, 2, 1, 3) if m.t else (0, 3, 1, 2), 3)
    value = _parts(b, v, heads, (0, 1, 3, 2), 1)
    outs = []
    for h in range(heads):
        scores = b.op("mil.einsum", [key(h), queried(h)], {"equation": "bkhc,bchq->bkhq"})
        weights = b.op("mil.softmax", [step(scores, h)], {"axis": 1})
        outs.append(b.op("mil.einsum", [value(h), weights], {"equation": "bchk,bkhq->bchq"}))
    joined = outs[0] if heads == 1 else b.op("mil.concat", outs, {"axis": 1})
    apart = b.op("mil.reshape", [joined, np.array([batch, heads, wide, queries], np.int32)])
    turned: Value = b.op("mil.transpose", [apart], {"perm": (0, 1, 3, 2)})
    three: Value = turned if rank_of(m.y) == 4 else b.op("mil.squeeze", [turned], {"axes": (0,)})
    return three


def _parts(b: RuleBuilder, x: Value, heads: int, perm: tuple[int, ...], axis: int) -> Callable[[int], Value]:
    """Head ``h`` of (B, H, …): turned, heads and depth made one dimension, which is ``axis`` of four, and cut.

    Heads that are copies of fewer ones are taken from those. All are turned at once, before they are cut (B).
    """
    source = _uncopied(x)
    turned = b.op("mil.transpose", [source], {"perm": perm})
    shape = shape_of(turned)
    have = shape_of(source)[1]
    joined = [shape[0], shape[1] * shape[2], 1, shape[3]] if axis == 1 else [*shape[:2], 1, shape[2] * shape[3]]
    flat = b.op("mil.reshape", [turned, np.array(joined, np.int32)])
    parts = [flat] if have == 1 else b.op("mil.split", [flat], {"num_splits": have, "axis": axis}, results=have)
    return lambda h: parts[h * have // heads]


def _uncopied(x: Value) -> Value:
    """(B, G, …) where ``x`` is (B, H, …), each of G groups repeated: expand_dims, tile along the new axis, reshape."""
    reshape = x.op
    tile = _producer(reshape, "mil.reshape")
    expand = _producer(tile, "mil.tile")
    if tile is None or expand is None or expand.name != "mil.expand_dims":
        return x
    source = expand.operands[0]
    batch, heads, *rest = shape_of(x)
    times = constant_ints(tile.operands[1])
    if source is None or times is None or len(shape_of(source)) != 4:
        return x
    groups = shape_of(source)[1]
    if shape_of(expand.results[0]) != (batch, groups, 1, *rest) or times != (1, 1, heads // groups, 1, 1):
        return x
    return source


def _producer(op: Any, name: str) -> Any:
    """What makes the first operand of ``op``, if that is called ``name``."""
    return op.operands[0].op if op is not None and op.name == name else None


def _per_head_of_scores(b: RuleBuilder, x: Value, heads: int) -> Callable[[int], Value]:
    """Of a tensor that is broadcast to the scores (B, H, M, S): what belongs to a head, as (B, S, 1, M)."""
    shape = shape_of(x)
    array = x.constant
    lead = 4 - len(shape)
    if array is not None:
        four = array.reshape((1,) * lead + shape)
        turned = [
            b.constant(np.ascontiguousarray(four[:, h : h + 1].transpose(0, 3, 1, 2)), "mil")
            for h in range(four.shape[1])
        ]
        return lambda h: turned[h if len(turned) > 1 else 0]
    if lead:
        x = b.op("mil.expand_dims", [x], {"axes": tuple(range(lead))})
    many = (*(1,) * lead, *shape)[1]
    parts = [x] if many == 1 else b.op("mil.split", [x], {"num_splits": many, "axis": 1}, results=many)
    values = [b.op("mil.transpose", [p], {"perm": (0, 3, 1, 2)}) for p in parts]
    return lambda h: values[h if many > 1 else 0]


def rotate_half(b: RuleBuilder, m: Bindings) -> Value:
    """(B, H, S, D) as channels (B, H·D, 1, S): cut into half heads, neighbours exchanged, joined, signed."""
    batch, heads, length, depth = shape_of(m.x)
    turned = b.op("mil.transpose", [m.x], {"perm": (0, 1, 3, 2)})
    flat = b.op("mil.reshape", [turned, np.array([batch, heads * depth, 1, length], np.int32)])
    parts = b.op("mil.split", [flat], {"num_splits": 2 * heads, "axis": 1}, results=2 * heads)
    crossed = b.op("mil.concat", [parts[i ^ 1] for i in range(2 * heads)], {"axis": 1})
    apart = b.op("mil.reshape", [crossed, np.array([batch, heads, depth, length], np.int32)])
    back = b.op("mil.transpose", [apart], {"perm": (0, 1, 3, 2)})
    signs = np.ones(depth, np.float32)
    signs[: depth // 2] = m.c.constant.reshape(-1)[0]
    out: Value = b.op("mil.mul", [back, signs.astype(m.c.constant.dtype)])
    return out
