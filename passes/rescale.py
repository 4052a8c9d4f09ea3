"""Powers of two that bring values of a mil module into the range of half precision, folded into constants.

A value v is computed as v·2⁻ᵉ: what makes it from a constant (convolution, linear, a product with a constant, batch
normalization) takes the factor into that constant, which is exact; what commutes with a positive factor (relu, pools,
sums, joins, movements) hands it on, so that all it connects shares one e; a norm takes it into its epsilon. What does
neither, and inputs and outputs of the model, keep e = 0. Of a bias that is nothing beside its sum, what half precision
holds is kept. This is loss scaling (Micikevicius et al., "Mixed precision training", 2018) for a fixed network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.ir import F32, Module, Op, TensorType, Value
from passes.half import SMALLEST, constant_loss

Array = np.ndarray[Any, Any]

#: Where a group of values overflows, its largest is brought below this: half precision ends at 65504, and inputs that
#: were not tried may make more.
ROOM = 2.0**13

#: Where a group sinks below the normal halves (2⁻¹⁴), its largest is brought up to this.
FLOOR = 1.0

_LARGEST = float(np.finfo(np.float16).max)

#: With a constant operand at this position, the result has a scale of its own: the constant takes it.
_TAKES = {"conv": 1, "conv_transpose": 1, "linear": 1, "matmul": 1, "mul": 1, "real_div": 1, "batch_norm": 3}

#: What commutes with positive factors: its float operands and results have one scale.
_COMMUTES = frozenset(
    (
        *("relu", "leaky_relu", "prelu", "abs", "clip", "add", "sub", "maximum", "minimum", "select"),
        *("identity", "concat", "stack", "split", "pad", "tile", "reverse", "transpose", "reshape", "expand_dims"),
        *("squeeze", "slice_by_index", "slice_by_size", "gather", "max_pool", "avg_pool", "reduce_sum", "reduce_mean"),
        *("reduce_max", "reduce_min", "upsample_bilinear", "upsample_nearest_neighbor", "resize_bilinear"),
        *("resize_nearest_neighbor", "depth_to_space", "space_to_depth", "pixel_shuffle", "pixel_unshuffle", "crop"),
    )
)

#: Operands that are factors, not values on the scale of the result.
_FACTORS = frozenset({("leaky_relu", 1), ("prelu", 1), ("pad", 1), ("gather", 1), ("select", 0)})

_NORMS = frozenset({"layer_norm", "instance_norm"})


def takes_scales(name: str) -> bool:
    """Whether an operator of that name may take a factor into a constant of its own."""
    return name.removeprefix("mil.") in _TAKES


@dataclass(slots=True)
class _Groups:
    """Values that share a scale (union-find), and which of them cannot have one."""

    parent: dict[Value, Value] = field(default_factory=dict)
    fixed: set[Value] = field(default_factory=set)

    def find(self, value: Value) -> Value:
        root = value
        while (up := self.parent.setdefault(root, root)) is not root:
            root = up
        while self.parent[value] is not root:
            self.parent[value], value = root, self.parent[value]
        return root

    def join(self, a: Value, b: Value) -> None:
        a, b = self.find(a), self.find(b)
        if a is not b:
            self.parent[b] = a
            if b in self.fixed:
                self.fixed.add(a)

    def fix(self, value: Value) -> None:
        self.fixed.add(self.find(value))


@dataclass(slots=True)
class _Scales:
    """The exponents of groups, by their roots, and the largest magnitude of values, before they are scaled."""

    groups: _Groups
    exponents: dict[Value, int]
    largest: Mapping[Value, float]

    def of(self, value: Value | None) -> int:
        return self.exponents.get(self.groups.find(value), 0) if value is not None else 0

    def stays(self, op: Op) -> bool:
        """Whether an operator takes or gives what overflows in half precision after all, so that f32 computes it."""
        values = [v for v in (*op.operands, *op.results) if v is not None]
        return any(not self.of(v) and self.largest.get(v, 0.0) > _LARGEST for v in values)

    def hides(self, op: Op, index: int, change: int) -> bool:
        """Whether half precision loses nothing of the result where it loses some of a constant that is added."""
        if not _is_offset(op, index):
            return False
        scaled = np.ldexp(op.operands[index].constant, change)  # type: ignore[union-attr, arg-type]
        beside = self.largest.get(op.results[0], 0.0) * 2.0 ** -self.of(op.results[0])
        return bool(np.abs(scaled - _rounded(scaled)).max(initial=0.0) <= beside * 2.0**-14)


def run(module: Module, largest: Mapping[Value, float]) -> int:
    """Scales values of the main function in place, where it helps and every constant survives.

    Args:
        largest: the largest magnitude of f32 values on the inputs that were tried; groups of which none is given stay.

    Returns:
        How many of the given values are scaled.
    """
    block = module.main.block
    ops = [op for op in block.ops if op.results and op.defn.constant is None]
    groups = _Groups()
    for value in (*block.arguments, *module.main.outputs):
        groups.fix(value)
    for op in ops:
        _relate(op, groups)
    scales = _Scales(groups, _exponents(groups, largest), largest)
    while scales.exponents:
        lost = next((bad for op in ops if (bad := _lost(op, scales))), None)
        if lost is None:
            break
        # The group that is moved farther is given up: what touches it stays in f32, and asks nothing of constants.
        del scales.exponents[max(lost & scales.exponents.keys(), key=lambda root: abs(scales.exponents[root]))]
    if scales.exponents:
        for op in ops:
            _apply(op, scales)
    return sum(groups.find(v) in scales.exponents for v in largest)


def _relate(op: Op, groups: _Groups) -> None:
    """Enters what an operator says of the scales of its operands and results."""
    floats = [v for v in (*op.operands, *op.results) if v is not None and _flows(v)]
    if _takes(op) is not None or _is_norm(op):
        return
    if op.name.removeprefix("mil.") in _COMMUTES and not _pads_with_number(op):
        for other in floats[1:]:
            groups.join(floats[0], other)
        return
    for inner in op.walk():  # itself, and what its regions use of the values around them
        for value in (*inner.operands, *inner.results):
            if value is not None and _flows(value):
                groups.fix(value)


def _exponents(groups: _Groups, largest: Mapping[Value, float]) -> dict[Value, int]:
    """The exponent of each group that leaves the range of half precision, by its root."""
    most: dict[Value, float] = {}
    for value, size in largest.items():
        root = groups.find(value)
        most[root] = max(most.get(root, 0.0), size)
    found = {}
    for root, size in most.items():
        if root in groups.fixed or not np.isfinite(size) or size <= 0.0:
            continue
        if size > 2 * ROOM:
            found[root] = int(np.ceil(np.log2(size / ROOM)))
        elif size < 2.0**-12:
            found[root] = int(np.floor(np.log2(size / FLOOR)))
    return found


def _changes(op: Op, scales: _Scales) -> Iterator[tuple[int, int, set[Value]]]:
    """By which power of two constants of an operator change: operand, exponent, and the groups on which it depends."""
    e, groups = scales.of, scales.groups
    at, name = _takes(op), op.name.removeprefix("mil.")
    out = op.results[0]
    if at is not None:
        x = op.operands[1 - at] if name in ("mul", "matmul") else op.operands[0]
        on = {groups.find(v) for v in (x, out) if v is not None}
        change = e(out) - e(x) if name == "real_div" else e(x) - e(out)
        yield at, change, on
        if name == "batch_norm":
            yield 1, -e(x), on
            yield 4, -e(out), on
        elif name in ("conv", "conv_transpose", "linear"):
            yield 2, -e(out), on
    elif _is_norm(op):
        yield 1, -e(out), {groups.find(out)}
        yield 2, -e(out), {groups.find(out)}
    elif name in _COMMUTES:
        for i, v in enumerate(op.operands):
            if v is not None and v.constant is not None and _is_float(v) and (name, i) not in _FACTORS:
                yield i, -e(out), {groups.find(out)}


def _lost(op: Op, scales: _Scales) -> set[Value]:
    """The groups whose scale a constant of an operator would not survive in half precision."""
    if scales.stays(op):
        return set()
    for i, change, on in _changes(op, scales):
        value = op.operands[i] if i < len(op.operands) else None
        constant = value.constant if change and value is not None else None
        if constant is None or constant_loss(np.ldexp(constant, change)) is None:
            continue
        if not scales.hides(op, i, change):
            return on
    if _is_norm(op) and op.operands[0] is not None:
        x, out = scales.groups.find(op.operands[0]), scales.groups.find(op.results[0])
        epsilon = float(op.attributes["epsilon"]) * 4.0 ** -scales.of(x)
        if scales.of(x) and not SMALLEST <= epsilon < 1.0:
            return {x}
        if scales.of(out) and (len(op.operands) < 2 or op.operands[1] is None):
            return {out}
    return set()


def _apply(op: Op, scales: _Scales) -> None:
    for i, change, _ in list(_changes(op, scales)):
        value = op.operands[i] if i < len(op.operands) else None
        if change and value is not None and value.constant is not None:
            op.set_operand(i, _scaled(value, change, in_half=not scales.stays(op)))
            if value.op is not None and value.op.is_unused:
                value.op.erase()
    if _is_norm(op) and (exponent := scales.of(op.operands[0])):
        op.attributes["epsilon"] = float(op.attributes["epsilon"]) * 4.0**-exponent


def _scaled(value: Value, change: int, in_half: bool) -> Value:
    """A constant times a power of two, beside the old one. One that goes to half precision and loses too much there is
    one that :meth:`_Scales.hides`: what half precision holds of it is kept."""
    old = value.op
    assert old is not None
    assert old.block is not None
    assert old.defn.constant is not None
    array = np.ldexp(np.asarray(value.constant, np.float32), change)
    if in_half and constant_loss(array) is not None:
        array = _rounded(array)
    op = Op(old.defn, (), [value.type], {**old.attributes, old.defn.constant: array}, loc=old.loc)
    op.result.name = value.name
    old.block.insert_after(old, op)
    return op.result


def _takes(op: Op) -> int | None:
    """The position of the constant operand that takes a scale; None if there is none."""
    name = op.name.removeprefix("mil.")
    at = _TAKES.get(name)
    if at is None:
        return None
    for i in (at, 0) if name in ("mul", "matmul") else (at,):
        operand = op.operands[i] if i < len(op.operands) else None
        if operand is not None and operand.constant is not None and _is_float(operand):
            rest = [v for j, v in enumerate(op.operands) if j != i and v is not None]
            moving = [v for v in rest if v.constant is None]
            if len(moving) == 1 and (i != 0 or moving[0] is op.operands[1]):
                return i
    return None


def _is_offset(op: Op, index: int) -> bool:
    name = op.name.removeprefix("mil.")
    return (name in ("conv", "conv_transpose", "linear") and index == 2) or (name == "batch_norm" and index == 4)


def _rounded(array: Array) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(np.float32)


def _is_norm(op: Op) -> bool:
    """Whether an operator is a norm whose gamma and beta are constants, where it has them."""
    given = [v for v in op.operands[1:] if v is not None]
    return op.name.removeprefix("mil.") in _NORMS and all(v.constant is not None for v in given)


def _pads_with_number(op: Op) -> bool:
    return op.name == "mil.pad" and op.attributes["mode"] == "constant" and float(op.attributes["constant_val"]) != 0.0


def _flows(value: Value) -> bool:
    return _is_float(value) and value.constant is None


def _is_float(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype is F32
