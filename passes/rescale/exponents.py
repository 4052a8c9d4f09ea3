"""The choice of exponents: a linear program over differences of two unknowns.

Each value v has an unknown exponent e(v): it will hold v·2⁻ᵉ. What operators ask is that a difference of two exponents,
or one of them, lies in an interval; what cannot be had is paid for by the power of two that is missing. Matrices of
differences are totally unimodular, so that the optimum that the simplex method finds is one of integers (Schrijver,
"Theory of Linear and Integer Programming", 1986, chapter 19).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, inf, isfinite, log2

import numpy as np

from compiler.ir import Op, Value
from passes.rescale.relations import (
    added_to,
    beside,
    changes,
    commutes,
    epsilon_range,
    flows,
    is_norm,
    survives,
    takes,
)

#: A value above is one that overflows, or may on inputs that were not tried: half precision ends at 2¹⁶.
HIGH = 14

#: To which power of two what overflows is brought down, where nothing speaks against it.
ROOM = 13

#: A value whose largest is below sinks below the normal halves (2⁻¹⁴); it is brought up to 1.
LOW = -12

# What it costs, for each power of two that is missing. Products that leave the range weigh most, since what leaves it
# stays in f32. A factor between two operators costs an operator; in front of one that stays in f32 anyway, less.
_PRODUCT, _OTHER, _FACTOR, _FACTOR_OUT, _WISH = 10.0, 1.0, 5.0, 4.0, 1e-4


@dataclass(slots=True)
class _Program:
    """Rows e(plus) - e(minus) in [low, high], by the numbers of the unknowns (-1: none), and what missing it costs."""

    number: dict[Value, int] = field(default_factory=dict)
    rows: list[tuple[int, int, float, float, float]] = field(default_factory=list)

    def of(self, value: Value | None) -> int:
        if value is None or not flows(value):
            return -1
        return self.number.setdefault(value, len(self.number))

    def ask(self, plus: Value | None, minus: Value | None, low: float, high: float, cost: float) -> None:
        a, b = self.of(plus), self.of(minus)
        if a != b and low <= high and (low > -inf or high < inf):
            self.rows.append((a, b, low, high, cost))

    def solve(self) -> dict[Value, int]:
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_array

        n = len(self.number)
        soft = [i for i, row in enumerate(self.rows) if isfinite(row[4])]
        entries = [(i, a, 1.0) for i, (a, *_) in enumerate(self.rows) if a >= 0]
        entries += [(i, b, -1.0) for i, (_, b, *_) in enumerate(self.rows) if b >= 0]
        entries += [(i, n + 2 * k + side, 1.0 - 2 * side) for k, i in enumerate(soft) for side in (0, 1)]
        at, column, factor = zip(*entries, strict=True)
        matrix = coo_array((factor, (at, column)), shape=(len(self.rows), n + 2 * len(soft)))
        low, high = ([row[k] for row in self.rows] for k in (2, 3))
        cost = np.repeat([self.rows[i][4] for i in soft], 2)
        found = milp(
            np.concatenate([np.zeros(n), cost]),
            constraints=LinearConstraint(matrix.tocsr(), low, high),
            bounds=Bounds(np.concatenate([np.full(n, -inf), np.zeros(2 * len(soft))]), inf),
        )
        assert found.x is not None, found.message  # all that is asked without a price is that exponents are equal or 0
        return {value: round(float(found.x[i])) for value, i in self.number.items()}


def choose(ops: Sequence[Op], ends: Sequence[Value], largest: Mapping[Value, float]) -> dict[Value, int]:
    """By which powers of two values are divided; those that are not named here by none.

    Operands of what commutes with factors, and of what takes none, may come out with another exponent than the operator
    needs: 0 if :func:`takes_none`, else that of its result. Then a factor has to stand between.

    Args:
        ops: the operators that are no constants, in order.
        ends: values whose exponents are 0.
        largest: the largest magnitude of values on the inputs that were tried; of others nothing is known.
    """
    program = _Program()
    for value in ends:
        program.ask(value, None, 0, 0, inf)
    for op in ops:
        _ask(op, program, largest)
    products = {v for op in ops if takes(op) is not None for v in (*op.operands, *op.results)}
    for value, size in largest.items():
        if not isfinite(size) or size <= 0.0:
            continue
        power = log2(size)
        cost = _PRODUCT if value in products else _OTHER
        program.ask(value, None, ceil(power - HIGH), floor(power - LOW), cost)
        wish = ceil(power - ROOM) if power > HIGH else floor(power) if power < LOW else 0
        program.ask(value, None, wish, wish, _WISH)
    return {value: e for value, e in program.solve().items() if e} if program.rows else {}


def takes_none(op: Op) -> bool:
    """Whether an operator's operands and results must have exponents of 0."""
    return takes(op) is None and not is_norm(op) and not commutes(op)


def _ask(op: Op, program: _Program, largest: Mapping[Value, float]) -> None:
    out = op.results[0]
    if takes_none(op):
        for value in op.operands:
            program.ask(value, None, 0, 0, _FACTOR_OUT)
        for inner in (i for i in op.walk() if i is not op):  # what regions use of the values around them
            for value in (*inner.operands, *inner.results):
                program.ask(value, None, 0, 0, inf)
        for value in op.results:
            program.ask(value, None, 0, 0, inf)
        return
    if commutes(op):
        for value in op.operands:
            program.ask(value, out, 0, 0, _FACTOR)
        for value in op.results[1:]:
            program.ask(value, out, 0, 0, inf)
    if is_norm(op):
        program.ask(op.operands[0], None, *epsilon_range(op), _PRODUCT)
        if len(op.operands) < 2 or op.operands[1] is None:
            program.ask(out, None, 0, 0, inf)
    for change in changes(op):
        value = op.operands[change.index] if change.index < len(op.operands) else None
        constant = value.constant if value is not None else None
        if constant is None or (commutes(op) and not beside(constant, op, largest)):
            continue
        low, high = survives(constant)
        least = low if added_to(op, change.index) is None else -inf
        program.ask(change.plus, change.minus, least, high, _PRODUCT)
