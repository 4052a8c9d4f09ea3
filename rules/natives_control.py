"""Loops and branches between ONNX and Core ML.

Core ML's while_loop asks its condition before each round, on the loop's variables; ONNX's Loop is told for the next
round by its body. Each region becomes a new one, whose operators the rules then go on to rewrite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.dialects.onnx_ranks import is_one_element, ranks_agree
from compiler.ir import BOOL, I64, Block, InferenceError, Op, TensorType, Value, get_dialect, type_meet
from compiler.ir.clone import clone_ops
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline

_SCALAR = np.array([], np.int64)


def region(block: Block, b: RuleBuilder) -> RuleBuilder:
    """A builder at the end of a region, whose terminator has yet to get its operands."""
    terminator = Op("ir.return", [], loc=b.loc)
    block.append(terminator)
    return RuleBuilder(terminator, b.loc, b.target)


def give(block: Block, values: Sequence[Value]) -> None:
    """Makes ``values`` what a region returns."""
    assert block.terminator is not None
    block.terminator.operands = tuple(values)


def inline(b: RuleBuilder, source: Block, arguments: Sequence[Value]) -> list[Value]:
    """Copies a region's operators to where ``b`` builds, and gives what it returns."""
    values: dict[Value, Value] = dict(zip(source.arguments, arguments, strict=True))
    terminator = source.terminator
    assert terminator is not None
    anchor = b.before
    clone_ops((op for op in source.ops if op is not terminator), b.block, values, anchor)
    return [values.get(v, v) for v in terminator.operands if v is not None]


def refined(b: RuleBuilder, source: Block, arguments: Sequence[Value]) -> list[Value]:
    """As :func:`inline`; the types of the copies follow from those of ``arguments``, of which more may be known."""
    last = b.before.prev if b.before is not None else b.block.last
    returned = inline(b, source, arguments)
    at = last.next if last is not None else b.block.first
    while at is not None and at is not b.before:
        if at.defn.constant is None and not at.regions:
            try:
                types = get_dialect(at.defn.dialect).infer(at.defn, at.operands, at.attributes, (), len(at.results))
            except InferenceError:
                types = []  # what was known before stays
            for result, type_ in zip(at.results, types):
                # What a model declares may be wrong where its exporter did not know; what follows from operands is not.
                result.type = type_meet(result.type, type_) or type_
        at = at.next
    return returned


def _nested(b: RuleBuilder, source: Block, arguments: Sequence[Value]) -> list[Value]:
    """As :func:`inline`, where the copies belong to the rewrite, and are visited and taken back with it."""
    values: dict[Value, Value] = dict(zip(source.arguments, arguments, strict=True))
    terminator = source.terminator
    assert terminator is not None
    made = clone_ops((op for op in source.ops if op is not terminator), b.block, values, b.before)
    b.made.extend(made)
    return [values.get(v, v) for v in terminator.operands if v is not None]


# ---- what Core ML means


def mean_while_loop(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """Loop without a limit: the condition on the initial values, then, behind the body, on the new ones."""
    types = [v.type for v in m.vs]
    names = [a.name for a in m.body.arguments]
    first = b.op("onnx.Reshape", [_nested(b, m.cond, m.vs)[0], _SCALAR])
    body = Block([TensorType(I64, ()), TensorType(BOOL, ()), *types], ["round", "going_on", *names])
    inside = region(body, b)
    after = inline(inside, m.body, body.arguments[2:])
    again = inside.op("onnx.Reshape", [inline(inside, m.cond, after)[0], _SCALAR])
    give(body, [again, *after])
    made = b.op("onnx.Loop", [None, first, *m.vs], {}, results=len(types), regions=[body])
    return made if isinstance(made, tuple) else (made,)


def mean_cond(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """If, with a scalar condition."""
    condition = b.op("onnx.Reshape", [m.p, _SCALAR])
    regions = []
    for source in (m.yes, m.no):
        block = Block()
        give(block, inline(region(block, b), source, ()))
        regions.append(block)
    made = b.op("onnx.If", [condition], {}, results=len(m.ys), regions=regions)
    return made if isinstance(made, tuple) else (made,)


# ---- lowering


def _static(types: Sequence[Any]) -> bool:
    return all(isinstance(t, TensorType) and t.shape is not None for t in types)


def lower_if(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """If whose branches give tensors of the same types."""
    returned = [[v.type for v in r.terminator.operands] for r in (m.yes, m.no)]
    for t, f, y in zip(*returned, m.ys):
        if not isinstance(t, TensorType) or t.shape is None or t is not f or type_meet(t, y.type) is None:
            raise Decline("the branches give tensors of different shapes")
    regions = []
    for source in (m.yes, m.no):
        block = Block()
        give(block, _forwarded(region(block, b), source))
        regions.append(block)
    made = b.op("mil.cond", [m.p], {}, results=len(m.ys), regions=regions)
    return made if isinstance(made, tuple) else (made,)


def _forwarded(b: RuleBuilder, source: Block) -> list[Value]:
    """What a branch returns; a value from outside it goes through an identity, since a block of Core ML's returns what
    it computes."""
    values = inline(b, source, ())
    return [v if v.op is not None and v.op.block is b.block else b.op("mil.identity", [v]) for v in values]


def lower_loop(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """Loop as while_loop over (round, going on, states, sequences so far).

    States must keep their shapes. Each scanned output is a tensor of all rounds that the body writes a row of, so the
    number of rounds must be known, and no condition may end them early.
    """
    body: Block = m.body
    states = [_first(b, m, i) for i in range(len(m.vs))]
    n = len(states)
    returned = [v for v in body.terminator.operands if v is not None]  # type: ignore[union-attr]
    scans = returned[1 + n :]
    for a, v, r in zip(body.arguments[2:], states, returned[1 : 1 + n]):
        if not isinstance(r.type, TensorType) or r.type.shape is None or not r.type.is_static or r.type is not v.type:
            raise Decline(f"the shape of '{a.name}' changes from round to round")
    limit = None if m.trips is None else m.trips.constant
    rounds = None if limit is None else int(limit.reshape(-1)[0])
    always = (m.going is None or _true(m.going)) and _goes_on(body)
    if scans and (rounds is None or not always):
        raise Decline("the number of rounds is not known")
    if any(not isinstance(s.type, TensorType) or not s.type.is_static for s in scans):
        raise Decline("the shape of a scanned output is not known")
    if m.trips is None and m.going is None:
        raise Decline("the loop has no end")
    variables: list[Value] = [b.constant(np.zeros(1, np.int32), "mil")]
    if not always:
        going = m.going if m.going is not None else b.constant(np.array(True), "mil")
        variables.append(b.op("mil.identity", [going]) if going.constant is None else b.constant(going.constant, "mil"))
    variables += [v if v.constant is None else b.constant(v.constant, "mil") for v in states]
    for s in scans:
        shape = (rounds, *s.type.static_shape)  # type: ignore[union-attr]
        variables.append(b.constant(np.zeros(shape, s.type.dtype.numpy), "mil"))  # type: ignore[union-attr]
    last = None
    if rounds is not None:
        last = b.constant(np.array([min(rounds, 2**31 - 1)], np.int32), "mil")
    elif m.trips is not None:
        last = b.op("mil.reshape", [b.op("mil.cast", [m.trips], {"dtype": "int32"}), np.array([1], np.int32)])
    types = [v.type for v in variables]
    names = ["round", *([] if always else ["going_on"]), *(a.name for a in body.arguments[2:])]
    names += [f"scanned{i}" for i in range(len(scans))]

    condition = Block(types, names)
    inside = region(condition, b)
    tests = []
    if last is not None:
        tests.append(inside.op("mil.squeeze", [inside.op("mil.less", [condition.arguments[0], last])], {"axes": (0,)}))
    if not always:
        tests.append(condition.arguments[1])
    give(condition, [tests[0] if len(tests) == 1 else inside.op("mil.logical_and", tests)])

    looped = Block(types, names)
    inside = region(looped, b)
    at = looped.arguments[0]
    skip = 1 if always else 2
    count = inside.op("onnx.Squeeze", [inside.op("onnx.Cast", [at], {"to": I64}), np.array([0])])
    going_on = looped.arguments[1] if not always else inside.constant(np.array(True), "onnx")
    again, *after = refined(inside, body, [count, going_on, *looped.arguments[skip : skip + n]])
    after[:n] = [_as_before(inside, v, s, a, y) for v, s, a, y in zip(after, states, body.arguments[2:], m.ys)]
    following = [inside.op("mil.add", [at, np.array([1], np.int32)])]
    if not always:
        following.append(again if again.type is variables[1].type else inside.op("onnx.Reshape", [again, _SCALAR]))
    following += after[:n]
    for done, row in zip(looped.arguments[skip + n :], after[n:]):
        lifted = inside.op("mil.expand_dims", [row], {"axes": (0,)})
        following.append(inside.op("mil.scatter", [done, at, lifted], {"axis": 0, "mode": "update"}))
    inputs = set(looped.arguments)
    give(looped, [v if v not in inputs and v.op is not None and v.op.block is looped
                  else inside.op("mil.identity", [v]) for v in following])  # fmt: skip
    made = b.op("mil.while_loop", variables, {}, results=len(variables), regions=[condition, looped])
    return tuple(made[skip:])


def _as_before(b: RuleBuilder, value: Value, start: Value, argument: Value, result: Value) -> Value:
    """A state after a round in the type that it had before: a vector of one becomes a number if nobody minds."""
    if value.type is start.type:
        return value
    if not all(is_one_element(v) and ranks_agree(a) for v, a in ((value, argument), (start, result))):
        raise Decline(f"the shape of '{argument.name}' changes from round to round")
    assert isinstance(start.type, TensorType)
    reshaped = b.op("onnx.Reshape", [value, np.array(start.type.static_shape, np.int64)])
    assert isinstance(reshaped, Value)
    return reshaped


def _first(b: RuleBuilder, m: Bindings, index: int) -> Value:
    """The initial value of a state. One that the body does not look at is of no account if there is a first round: then
    it is zeros of the shape that the body gives it."""
    value: Value = m.vs[index]
    argument = m.body.arguments[2 + index]
    later = m.body.terminator.operands[1 + index].type
    certain = (m.going is None or _true(m.going)) and (m.trips is None or _positive(m.trips))
    if argument.use_count or not certain or later is value.type:
        return value
    if not isinstance(later, TensorType) or not later.is_static:
        return value
    return b.constant(np.zeros(later.static_shape, later.dtype.numpy), "mil")


def _positive(v: Value) -> bool:
    return v.constant is not None and int(v.constant.reshape(-1)[0]) > 0


def _true(v: Value) -> bool:
    return v.constant is not None and bool(v.constant.reshape(-1)[0])


def _goes_on(body: Block) -> bool:
    """Whether the body never ends the loop: it returns true, or the condition that it got."""
    going = body.terminator.operands[0] if body.terminator is not None else None
    while going is not None and going.op is not None and going.op.name == "onnx.Identity":
        going = going.op.operands[0]
    return going is body.arguments[1] or (going is not None and _true(going))


def lower_scan(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """Scan as while_loop over (round, states, outputs so far)."""
    body: Block = m.body
    count = m.a["num_scan_inputs"]
    n = len(m.vs) - count
    states, sources = list(m.vs[:n]), list(m.vs[n:])
    returned = [v for v in body.terminator.operands if v is not None]  # type: ignore[union-attr]
    scans = returned[n:]
    k = len(scans)
    axes_in = m.a.get("scan_input_axes") or (0,) * count
    axes_out = m.a.get("scan_output_axes") or (0,) * k
    back_in = m.a.get("scan_input_directions") or (0,) * count
    back_out = m.a.get("scan_output_directions") or (0,) * k
    for v, r in zip(states, returned):
        if not isinstance(r.type, TensorType) or not r.type.is_static or r.type is not v.type:
            raise Decline("the shape of a state changes from round to round")
    if not _static([s.type for s in (*sources, *scans)]) or not all(s.type.is_static for s in (*sources, *scans)):  # type: ignore[union-attr]
        raise Decline("shapes are not known")
    rounds = sources[0].type.static_shape[axes_in[0]]  # type: ignore[union-attr]
    rows = []
    for v, axis in zip(sources, axes_in):
        rank = v.type.rank  # type: ignore[union-attr]
        axis %= rank
        perm = [axis, *(i for i in range(rank) if i != axis)]
        rows.append(v if axis == 0 else b.op("mil.transpose", [v], {"perm": perm}))
    variables: list[Value] = [b.constant(np.zeros(1, np.int32), "mil")]
    variables += [v if v.constant is None else b.constant(v.constant, "mil") for v in states]
    for s in scans:
        shape = (rounds, *s.type.static_shape)  # type: ignore[union-attr]
        variables.append(b.constant(np.zeros(shape, s.type.dtype.numpy), "mil"))  # type: ignore[union-attr]
    types = [v.type for v in variables]
    last = b.constant(np.array([rounds], np.int32), "mil")

    condition = Block(types)
    inside = region(condition, b)
    give(condition, [inside.op("mil.squeeze", [inside.op("mil.less", [condition.arguments[0], last])], {"axes": (0,)})])

    looped = Block(types)
    inside = region(looped, b)
    at = looped.arguments[0]
    mirrored = inside.op("mil.sub", [np.array([rounds - 1], np.int32), at]) if any((*back_in, *back_out)) else at
    here = []
    for row, back in zip(rows, back_in):
        picked = inside.op("mil.gather", [row, mirrored if back else at], {"axis": 0})
        here.append(inside.op("mil.squeeze", [picked], {"axes": (0,)}))
    after = refined(inside, body, [*looped.arguments[1 : 1 + n], *here])
    following = [inside.op("mil.add", [at, np.array([1], np.int32)]), *after[:n]]
    for done, row, back in zip(looped.arguments[1 + n :], after[n:], back_out):
        lifted = inside.op("mil.expand_dims", [row], {"axes": (0,)})
        where = mirrored if back else at
        following.append(inside.op("mil.scatter", [done, where, lifted], {"axis": 0, "mode": "update"}))
    give(looped, [v if v.op is not None and v.op.block is looped else inside.op("mil.identity", [v])
                  for v in following])  # fmt: skip
    made = b.op("mil.while_loop", variables, {}, results=len(variables), regions=[condition, looped])
    out = list(made[1:])
    for i, axis in enumerate(axes_out):
        rank = scans[i].type.rank + 1  # type: ignore[union-attr, operator]
        axis %= rank
        if axis:
            perm = list(range(1, rank))
            perm.insert(axis, 0)
            out[n + i] = b.op("mil.transpose", [out[n + i]], {"perm": perm})
    return tuple(out)
