"""How operators walk through their tensors: which can run in another arrangement than the one they were written in.

A *flow* describes an operator by the axes that it runs over, its frame. Each dimension of an operand or result follows
one axis of the frame, or is single. A *form* is a tuple of groups of slots, where a slot is one factor of an axis, or a
whole axis where the operator treats that as one; it says in which arrangement all the tensors lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from compiler.ir import Op, TensorType, Type, Value
from passes.layout.axes import Arrangement, Factor, Group, Tie, leaves

#: An axis of the frame and the number of a factor of it; WHOLE stands for all factors of an axis that stays together.
Slot = tuple[int, int]
Form = tuple[tuple[Slot, ...], ...]
WHOLE = -1

#: Core ML's tensors have at most so many axes.
MOST_AXES = 5

#: Operands, of which arrays become constants, and attributes.
Written = tuple[list[Any], dict[str, Any]]

#: What an operator becomes in a form: its name, operands (None where the flow's own tensor stands), attributes.
Emit = Callable[["Flow", Form, list[Value | None]], tuple[list[Value | np.ndarray[Any, Any] | None], dict[str, Any]]]


@dataclass(slots=True)
class Strand:
    """A tensor of an operator, and the axis of the frame that each of its dimensions follows (None: it is single).

    Attributes:
        index: which operand it is; -1 - i for result i.
    """

    value: Value
    axes: tuple[int | None, ...]
    index: int


@dataclass(slots=True)
class Flow:
    """An operator that can run in several forms.

    Attributes:
        carrier: the tensor that has all axes; its arrangement decides the form.
        whole: axes that stay together, and whether other factors may stand behind them in their dimension.
        fits: whether the operator can run in a form, beyond what ``whole`` asks.
        emit: what it becomes.
        loose: whether operands may lack leading single dimensions, as broadcasting allows.
        single: dimensions of a form that the result has only if kept, and the attributes that drop them.
        rows: the axes that it goes along to make one number of many (or many of many, as softmax does).
    """

    op: Op
    carrier: Strand
    strands: list[Strand]
    whole: dict[int, bool]
    fits: Callable[[Form], bool]
    emit: Emit
    loose: bool = False
    single: Callable[[Form], tuple[list[int], dict[str, Any]]] | None = None
    rows: frozenset[int] = frozenset()
    ties: list[Tie] = field(default_factory=list)
    slots: dict[int, dict[Factor, Slot]] = field(default_factory=dict)
    sizes: dict[Slot, int] = field(default_factory=dict)
    known: dict[Arrangement, Run | None] = field(default_factory=dict)


@dataclass(slots=True)
class Run:
    """An operator run in a form, and how each of its tensors lies then, by the strand's index."""

    form: Form
    lies: dict[int, Arrangement]


Dims = dict[Value, tuple[tuple[Factor, ...], ...]]


def tie(flow: Flow, dims: Dims) -> None:
    """Ties the dimensions that walk together."""
    reference: dict[int, tuple[Factor, ...]] = {}
    for d, e in enumerate(flow.carrier.axes):
        if e is not None:
            reference[e] = dims[flow.carrier.value][d]
    for strand in flow.strands:
        if strand is flow.carrier:
            continue
        for d, e in enumerate(strand.axes):
            mine = dims[strand.value][d]
            if e is not None and e not in flow.whole and mine:
                flow.ties.append(Tie(reference[e], mine))


def number(flow: Flow, dims: Dims) -> bool:
    """Numbers the factors of all tensors once they are settled; False if dimensions could not be brought together."""
    if any(t.broken for t in flow.ties):
        return False
    for strand in flow.strands:
        slots: dict[Factor, Slot] = {}
        for d, e in enumerate(strand.axes):
            if e is None:
                continue
            for i, f in enumerate(leaves(dims[strand.value][d])):
                slots[f] = (e, i)
                if e not in flow.whole and strand is flow.carrier:
                    flow.sizes[e, i] = f.size
        flow.slots[strand.index] = slots
    return True


def lift(flow: Flow, arrangement: Arrangement, dims: Dims) -> Form | None:
    """The form in which the carrier lies as ``arrangement``; None if the operator cannot run so."""
    slots = flow.slots[flow.carrier.index]
    counts = {e: len(leaves(dims[flow.carrier.value][d])) for d, e in enumerate(flow.carrier.axes) if e is not None}
    form = []
    for group in arrangement:
        out: list[Slot] = []
        i = 0
        while i < len(group):
            e, place = slots[group[i]]
            if e in flow.whole:
                n = counts[e]
                run = [slots[f] for f in group[i : i + n]]
                if place != 0 or run != [(e, k) for k in range(n)]:
                    return None
                if out:
                    return None  # it must be the major factor of its dimension
                out.append((e, WHOLE))
                i += n
                if i < len(group) and not flow.whole[e]:
                    return None
            else:
                out.append((e, place))
                i += 1
        form.append(tuple(out))
    found = tuple(form)
    return found if len(found) <= MOST_AXES and flow.fits(found) else None


def project(flow: Flow, form: Form, strand: Strand, dims: Dims) -> Arrangement | None:
    """How a tensor of the operator lies in a form; None if it would have to be repeated within a dimension."""
    by_slot: dict[Slot, Group] = {}
    for d, e in enumerate(strand.axes):
        if e is None:
            continue
        own = leaves(dims[strand.value][d])
        if e in flow.whole:
            if own:
                by_slot[e, WHOLE] = own
        else:
            for i, f in enumerate(own):
                by_slot[e, i] = (f,)
    out = []
    for group in form:
        have = [by_slot[s] for s in group if s in by_slot]
        # A whole axis that is single here leaves what stands behind it.
        if have and any(s not in by_slot and s[1] != WHOLE for s in group):
            return None
        out.append(tuple(f for g in have for f in g))
    return tuple(out)


def run_as(flow: Flow, arrangement: Arrangement, dims: Dims, in_order: bool = False) -> Run | None:
    """How the operator runs if its carrier lies as ``arrangement``; None if it cannot.

    Args:
        in_order: whether what it makes one number of must stay in the order of elements that it was written in.
    """
    if arrangement in flow.known:
        return flow.known[arrangement]
    form = lift(flow, arrangement, dims)
    if form is not None and in_order and flow.rows and not _rows_stay(form):
        form = None
    run: Run | None = None
    if form is not None:
        lies = {s.index: project(flow, form, s, dims) for s in flow.strands}
        found = {i: a for i, a in lies.items() if a is not None}
        run = Run(form, found) if len(found) == len(lies) else None
    flow.known[arrangement] = run
    return run


def _rows_stay(form: Form) -> bool:
    slots = [s for group in form for s in group]
    return slots == sorted(slots)


def carried(flow: Flow, strand: Strand, arrangement: Arrangement) -> Arrangement | None:
    """The carrier's arrangement in which ``strand`` lies as ``arrangement``; None if that says too little.

    A result's whole axes that an operand has not, being single along them (what is stacked, that is), are put where it
    has its last single dimension.
    """
    own: dict[int, list[Factor]] = {}
    at: dict[Slot, Factor] = {}
    for f, (e, i) in flow.slots[flow.carrier.index].items():
        own.setdefault(e, []).append(f)
        at[e, i] = f
    slots = flow.slots[strand.index]
    out: list[list[Factor]] = []
    for group in arrangement:
        out.append([])
        for f in group:
            e, i = slots.get(f, (WHOLE, 0))
            if e not in own:
                return None
            if e not in flow.whole:
                out[-1].append(at[e, i])
            elif i == 0:
                out[-1].extend(own[e])
    have = {e for e, _ in slots.values()}
    for e, factors in own.items():
        if e in have:
            continue
        empty = [i for i, g in enumerate(out) if not g]
        if e not in flow.whole or not empty or flow.carrier.index >= 0:
            return None
        out[empty[-1]].extend(factors)
    return tuple(tuple(g) for g in out)


def arrange_constant(
    flow: Flow, form: Form, array: np.ndarray[Any, Any], axes: Sequence[int | None]
) -> np.ndarray[Any, Any]:
    """A constant operand, its dimensions following ``axes``, as it lies in a form; repeated where it must be."""
    split: list[int] = []
    names: list[Slot] = []
    for size, e in zip(array.shape, axes, strict=True):
        if e is None or size == 1:
            continue
        if e in flow.whole:
            split.append(size)
            names.append((e, WHOLE))
        else:
            factors = [n for (axis, _), n in sorted(flow.sizes.items()) if axis == e]
            split.extend(factors)
            names.extend((e, i) for i in range(len(factors)))
    spread = array.reshape(split)
    order = [names.index(s) for group in form for s in group if s in names]
    spread = spread.transpose(order)
    shape, full, target = [], [], []
    for group in form:
        present = [s for s in group if s in names]
        partial = bool(present) and len(present) < len(group)
        size = 1
        for s in group:
            if s in names:
                n = split[names.index(s)]
                shape.append(n)
                full.append(n)
            elif partial:
                n = flow.sizes[s]
                shape.append(1)
                full.append(n)
            else:
                continue
            size *= n
        target.append(size)
    return np.broadcast_to(spread.reshape(shape), full).reshape(target)


def place(form: Form, axis: int) -> int:
    """The dimension of a form in which an axis stands, the first factor of it."""
    return next(i for i, group in enumerate(form) for s in group if s[0] == axis)


def behind(flow: Flow, form: Form, axis: int) -> int:
    """How many elements stand behind a whole axis in its dimension."""
    group = form[place(form, axis)]
    return math.prod(flow.sizes[s] for s in group if s != (axis, WHOLE))


def static(value: Value | None) -> tuple[int, ...] | None:
    """The shape of a tensor, if all of it is known and nothing of it is empty."""
    return _static(value.type) if value is not None else None


@cache
def _static(type_: Type) -> tuple[int, ...] | None:
    if not isinstance(type_, TensorType) or not type_.is_static:
        return None
    shape = type_.static_shape
    return shape if all(shape) else None


def accepts(flow: Flow, form: Form, strand: Strand, want: Arrangement, have: Arrangement) -> bool:
    """Whether a tensor that lies as ``have`` will do where ``want`` is asked for (or made, for a result)."""
    if have == want:
        return True
    if strand.index < 0:
        if flow.single is None:
            return False
        places, _ = flow.single(form)
        return tuple(g for k, g in enumerate(want) if k not in places) == have
    return flow.loose and len(have) <= len(want) and _stripped(have) == _stripped(want)


def _stripped(arrangement: Arrangement) -> Arrangement:
    """Without leading single dimensions."""
    i = 0
    while i < len(arrangement) and not arrangement[i]:
        i += 1
    return arrangement[i:]


def used(op: Op) -> list[Value]:
    """What an operator uses, and what its regions use of the outside."""
    return [v for inner in op.walk() for v in inner.operands if v is not None and v.constant is None]


def always(form: Form) -> bool:
    """For operators that run in any form."""
    return True


def same(value: Value, index: int) -> Strand:
    """A tensor that has the frame's own axes."""
    return Strand(value, tuple(range(len(static(value) or ()))), index)
