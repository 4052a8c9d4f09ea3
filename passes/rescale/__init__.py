"""Powers of two that bring values of a mil module into the range of half precision, folded into constants.

A value v is computed as v·2⁻ᵉ: what makes it from a constant (convolution, linear, a product with a constant, batch
normalization) takes the factor into that constant, which is exact; what commutes with a positive factor (relu, pools,
sums, joins, movements) hands it on, so that all it connects shares one e; a norm takes it into its epsilon. What does
neither, and inputs and outputs of the model, have e = 0. Where that cannot be had of all, a product with a power of two
stands between two operators: in front of what computes in f32 in any case, so that what comes before it need not, or
before a sum, to one of whose terms the other is nothing. Of a bias that is nothing beside its sum, what half precision
holds is kept. This is loss scaling (Micikevicius et al., "Mixed precision training", 2018) for a fixed network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from compiler.ir import F32, Module, Op, TensorType, Value
from passes.half import constant_loss
from passes.rescale.exponents import choose, takes_none
from passes.rescale.relations import LARGEST, TAKES, Array, added_to, changes, commutes, flows, is_norm

__all__ = ["run", "takes_scales"]

#: Powers of two that half precision holds as normal numbers.
_STEPS = (-14, 15)


def takes_scales(name: str) -> bool:
    """Whether an operator of that name may take a factor into a constant of its own."""
    return name.removeprefix("mil.") in TAKES


def run(module: Module, largest: Mapping[Value, float]) -> int:
    """Scales values of the main function in place, where it helps.

    Args:
        largest: the largest magnitude of f32 values on the inputs that were tried; of others nothing is asked.

    Returns:
        How many of the given values are scaled.
    """
    block = module.main.block
    ops = [op for op in block.ops if op.results and op.defn.constant is None]
    ends = [*block.arguments, *(v for v in module.main.outputs if v.op is None)]
    scales = _Scales(choose(ops, ends, largest), largest)
    if not scales.exponents:
        return 0
    for op in ops:
        _apply(op, scales)
    terminator = block.terminator
    assert terminator is not None
    for i, value in enumerate(terminator.operands):
        _give(terminator, i, scales.at(value, 0, terminator))
    return sum(bool(scales.of(v)) for v in largest)


@dataclass(slots=True)
class _Scales:
    """The exponents of values, and their largest magnitudes, before they are scaled."""

    exponents: dict[Value, int]
    largest: Mapping[Value, float]
    made: dict[tuple[Value, int], Value] = field(default_factory=dict)

    def of(self, value: Value | None) -> int:
        return self.exponents.get(value, 0) if value is not None else 0

    def stays(self, op: Op) -> bool:
        """Whether an operator takes or gives what overflows in half precision after all, so that f32 computes it."""
        values = [v for v in (*op.operands, *op.results) if v is not None]
        return any(self.largest.get(v, 0.0) * 2.0 ** -self.of(v) > LARGEST for v in values)

    def hides(self, op: Op, index: int, change: int) -> bool:
        """Whether half precision loses nothing of the result where it loses some of a constant that is added."""
        beside, constant = added_to(op, index), op.operands[index]
        if beside is None or constant is None:
            return False
        scaled = np.ldexp(np.asarray(constant.constant), change)
        size = self.largest.get(beside, 0.0) * 2.0 ** -self.of(beside)
        return bool(np.abs(scaled - _rounded(scaled)).max(initial=0.0) <= size * 2.0**-14)

    def at(self, value: Value | None, exponent: int, user: Op) -> Value | None:
        """A value with another exponent than its own, for one of its users: itself, times a power of two."""
        if value is None or not flows(value) or (change := self.of(value) - exponent) == 0:
            return value
        twin = self.made.get((value, exponent))
        if twin is None:
            # In steps that are halves themselves, unless f32 computes it, for the result is none.
            size = self.largest.get(value, 0.0) * 2.0**-exponent
            fits = size <= LARGEST and (size >= 2.0 ** _STEPS[0] or commutes(user))
            twin = value
            while change:
                step = max(_STEPS[0], min(change, _STEPS[1])) if fits else change
                twin = _times(twin, step, user)
                change -= step
            self.made[value, exponent] = twin
        return twin


def _apply(op: Op, scales: _Scales) -> None:
    stays, exponent = scales.stays(op), scales.of(op.operands[0]) if op.operands else 0
    for change in list(changes(op)):
        power = scales.of(change.plus) - scales.of(change.minus)
        value = op.operands[change.index] if change.index < len(op.operands) else None
        if power and value is not None and value.constant is not None:
            keeps = stays or not scales.hides(op, change.index, power)
            op.set_operand(change.index, _scaled(value, power, exact=keeps))
            if value.op is not None and value.op.is_unused:
                value.op.erase()
    if is_norm(op) and exponent:
        op.attributes["epsilon"] = float(op.attributes["epsilon"]) * 4.0**-exponent
    if takes_none(op) or commutes(op):
        needed = 0 if takes_none(op) else scales.of(op.results[0])
        for i, value in enumerate(op.operands):
            _give(op, i, scales.at(value, needed, op))


def _give(op: Op, index: int, value: Value | None) -> None:
    if value is not op.operands[index]:
        op.set_operand(index, value)


def _scaled(value: Value, power: int, exact: bool) -> Value:
    """A constant times a power of two, beside the old one; ``exact``, or else as half precision holds it."""
    old = value.op
    assert old is not None
    assert old.block is not None
    assert old.defn.constant is not None
    array = np.ldexp(np.asarray(value.constant, np.float32), power)
    if not exact and constant_loss(array) is not None:
        array = _rounded(array)
    op = Op(old.defn, (), [value.type], {**old.attributes, old.defn.constant: array}, loc=old.loc)
    op.result.name = value.name
    old.block.insert_after(old, op)
    return op.result


def _times(value: Value, power: int, user: Op) -> Value:
    """A value times a power of two, right before a user of it."""
    assert user.block is not None
    assert isinstance(value.type, TensorType)
    loc = value.op.loc if value.op is not None else user.loc
    factor = Op("mil.const", (), [TensorType(F32, ())], {"val": np.array(2.0**power, np.float32)}, loc=loc)
    op = Op("mil.mul", [value, factor.result], [value.type], loc=loc)
    op.result.name = f"{value.name}_scaled"
    user.block.insert_before(user, factor)
    user.block.insert_before(user, op)
    return op.result


def _rounded(array: Array) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(np.float32)
