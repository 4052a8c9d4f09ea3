"""Which constants of a mil module are weights worth compressing, and along which axes their channels lie.

The choice is coremltools' own (``need_compress_const`` and ``select_input_output_channel_axis`` of
``coremltools.optimize``): float constants of at least two axes and more than 2048 elements, whoever uses them.
"""

from __future__ import annotations

from dataclasses import dataclass

from compiler.ir import F16, F32, Module, Op, TensorType, Value
from passes.compress.encode import Axes

#: coremltools' default ``weight_threshold``: no more elements than this are left as they are.
THRESHOLD = 2048


_ELEMENTWISE = frozenset(
    f"mil.{name}"
    for name in ("add", "sub", "mul", "real_div", "floor_div", "mod", "pow", "maximum", "minimum", "select")
)


@dataclass(frozen=True, slots=True)
class Weight:
    """A constant that can be compressed.

    Attributes:
        op: the ``mil.const``.
        axes: None where its users disagree about which axis is which; such a weight takes one scale only.
    """

    op: Op
    axes: Axes | None

    @property
    def name(self) -> str:
        return self.op.result.name or (self.op.loc.nodes[0] if self.op.loc.nodes else "weight")


def weights(module: Module, threshold: int = THRESHOLD) -> list[Weight]:
    """The weights of all functions and regions, in order; one that several operators share stands there once."""
    return [Weight(op, axes(op.result)) for op in module.walk() if is_weight(op, threshold)]


def is_weight(op: Op, threshold: int = THRESHOLD) -> bool:
    """Whether an operator is a constant that can be compressed."""
    if op.name != "mil.const" or op.is_unused:
        return False
    type_ = op.result.type
    if not isinstance(type_, TensorType) or type_.dtype not in (F16, F32):
        return False
    if (type_.rank or 0) < 2 or (type_.size or 0) <= threshold:
        return False
    return not any(u.name.startswith("mil.constexpr_") or u.defn.terminator for u in op.result.users)


def is_elementwise(op: Op) -> bool:
    """Whether a constant is but added, multiplied and the like, element by element. It is no weight of a layer, whose
    sums even errors out: anchors of a detector move every box by what they lose, and masks what they hide."""
    return all(user.name in _ELEMENTWISE for user in op.result.users)


def axes(value: Value) -> Axes | None:
    """The axes of output and input channels by what the users make of it: 0 and 1 but for transposed convolutions and
    products of matrices; None where users disagree."""
    rank = len(value.shape or ())
    found = {_axes(user, value, rank) for user in value.users}
    return found.pop() if len(found) == 1 else None


def _axes(user: Op, value: Value, rank: int) -> Axes:
    if user.name == "mil.conv_transpose":
        return Axes(1, 0)
    if user.name == "mil.matmul":
        right = user.operand("y") is value
        turned = bool(user.attributes["transpose_y" if right else "transpose_x"])
        last = Axes(rank - 1, rank - 2)
        return last if right != turned else Axes(rank - 2, rank - 1)
    return Axes(0, 1)
