"""The flows of operators whose channels have a fixed place: products with constants, norms of batches, prelu."""

from __future__ import annotations

from compiler.ir import Op, Value
from passes.layout.flows import (
    MOST_AXES,
    WHOLE,
    Flow,
    Form,
    Written,
    same,
    static,
)


def channels_second(op: Op) -> Flow | None:
    """Batch norm and prelu: constants for each channel, which is dimension 1 of three to five (prelu: of four)."""
    x = op.operands[0]
    assert x is not None
    if any(v is not None and v.constant is None for v in op.operands[1:]) or (static(x) or ())[1] == 1:
        return None
    carrier = same(x, 0)
    ranks = (4,) if op.name == "mil.prelu" else (3, 4, 5)

    def fits(form: Form) -> bool:
        return len(form) in ranks and form[1] == ((1, WHOLE),)

    def emit(flow: Flow, form: Form, operands: list[Value | None]) -> Written:
        return [x if x is not None else v for x, v in zip(operands, op.operands, strict=True)], dict(op.attributes)

    return Flow(op, carrier, [carrier, same(op.results[0], -1)], {1: False}, fits, emit)


def pointwise(op: Op) -> Flow | None:
    """A convolution that mixes nothing but channels: where the others stand is all the same to it."""
    x, w = op.operands[0], op.operands[1]
    assert x is not None
    if not is_pointwise(op) or w is None or w.constant is None:
        return None
    carrier = same(x, 0)
    shape, made = static(x) or (), static(op.results[0]) or ()
    if shape[1] == 1 or made[1] == 1:
        return None

    def fits(form: Form) -> bool:
        return len(form) == len(shape) and form[1] == ((1, WHOLE),)

    def emit(flow: Flow, form: Form, operands: list[Value | None]) -> Written:
        return [operands[0], *op.operands[1:]], dict(op.attributes)

    return Flow(op, carrier, [carrier, same(op.results[0], -1)], {1: False}, fits, emit)


def is_pointwise(op: Op) -> bool:
    """Whether a convolution is 1×1, with stride 1, one group and no padding."""
    if op.name != "mil.conv" or op.operands[1] is None or op.attributes["groups"] != 1:
        return False
    kernel = (static(op.operands[1]) or (0, 0, 0))[2:]
    ones = all(n == 1 for n in (*kernel, *(op.attributes.get("strides") or ())))
    padded = op.attributes["pad_type"] == "custom" and any(op.attributes.get("pad") or ())
    return ones and not padded


def linear(op: Op) -> Flow | None:
    """Rows times a constant matrix: linear takes up to four dimensions, matmul five."""
    x, w = op.operands[0], op.operands[1]
    assert x is not None
    if w is None or w.constant is None or w.constant.ndim != 2:
        return None
    if op.name == "mil.matmul" and (op.attributes["transpose_x"] or x.constant is not None):
        return None
    shape, made = static(x) or (), static(op.results[0]) or ()
    last = len(shape) - 1
    most = MOST_AXES if op.name == "mil.matmul" else 4
    if shape[last] == 1 or made[last] == 1:
        return None
    carrier = same(x, 0)

    def fits(form: Form) -> bool:
        return 2 <= len(form) <= most and form[-1] == ((last, WHOLE),)

    def emit(flow: Flow, form: Form, operands: list[Value | None]) -> Written:
        return [operands[0], *op.operands[1:]], dict(op.attributes)

    return Flow(op, carrier, [carrier, same(op.results[0], -1)], {last: False}, fits, emit)
