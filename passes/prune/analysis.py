"""Channels through a whole graph of onnx.* operators: what each operator does with them.

What is not known here mixes channels for all one knows, and fixes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.ir import Builder, Function, Op, Value
from passes.prune.channels import Channels, Classes, Keep, reshaped

Array = np.ndarray[Any, Any]

#: Operators whose first operand's channels are their result's.
_UNARY = {
    *("Abs", "Cast", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *(
        "Identity",
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
        "Sign",
    ),
    *("Sin", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu"),
}
_BINARY = {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu"}
_POOLS = {"AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"}
_REDUCTIONS = {"ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2"}


def analyse(function: Function) -> Classes:
    """The classes of channels of a function, and all that changes with them."""
    return _Analysis(function).classes


class _Analysis:
    def __init__(self, function: Function) -> None:
        self.classes = Classes()
        self.of: dict[Value, Channels] = {}
        for op in function.block.ops:
            self._op(op)

    def _op(self, op: Op) -> None:
        if op.defn.constant is not None:
            return
        name = op.name.removeprefix("onnx.")
        handler: Callable[[Op], bool] | None = getattr(self, f"_{name.lower()}", None)
        if name in _UNARY or name in _POOLS:
            handler = self._pass
        elif name in _BINARY:
            handler = self._binary
        elif name in _REDUCTIONS:
            handler = self._reduce
        if op.name.startswith("onnx.") and not op.regions and handler is not None and handler(op):
            return
        for inner in op.walk():
            for v in inner.operands:
                self.classes.fix(self._known(v))
        for result in op.results:
            self.of.pop(result, None)

    def _known(self, v: Value | None) -> Channels | None:
        return self.of.get(v) if v is not None else None

    def _pass(self, op: Op) -> bool:
        x = self._known(op.operands[0])
        others = [self._known(v) for v in op.operands[1:]]
        if any(o is not None for o in others):
            return False
        if x is not None:
            for result in op.results:
                self.of[result] = x
        return True

    # What mixes channels

    def _conv(self, op: Op) -> bool:
        x, w = op.operands[0], op.operands[1]
        groups = op.attributes["group"]
        held = w.constant if w is not None else None
        if x is None or held is None or not isinstance(_size(x, 1), int):
            return False
        taken = self._taken(x, 1)
        made = self.classes.fresh(len(held))
        if groups == 1:
            self.classes.cut(op, 1, 1, taken, "in")
        elif held.shape[1] == 1:
            # Depthwise: each channel goes on as one or more of its own.
            made = np.repeat(taken, len(held) // groups)
            self.classes.fixups.append(lambda keep: _set(op, "group", int(keep(taken).sum())))
        else:
            # The same channels go in every group, so that groups stay equally large.
            for ids in (taken.reshape(groups, -1), made.reshape(groups, -1)):
                for row in ids[1:]:
                    self.classes.join(ids[0], row)
            self.classes.cut(op, 1, 1, taken[: held.shape[1]], "in")
        self.classes.cut(op, 1, 0, made, "out")
        self._bias(op, 2, made)
        self.of[op.result] = Channels(1, made)
        return True

    def _convtranspose(self, op: Op) -> bool:
        x, w = op.operands[0], op.operands[1]
        held = w.constant if w is not None else None
        if x is None or held is None or op.attributes["group"] != 1 or not isinstance(_size(x, 1), int):
            return False
        made = self.classes.fresh(held.shape[1])
        self.classes.cut(op, 1, 0, self._taken(x, 1), "in")
        self.classes.cut(op, 1, 1, made, "out")
        self._bias(op, 2, made)
        self.of[op.result] = Channels(1, made)
        return True

    def _gemm(self, op: Op) -> bool:
        x, w = op.operands[0], op.operands[1]
        held = w.constant if w is not None else None
        if x is None or held is None or op.attributes["transA"]:
            return False
        turned = bool(op.attributes["transB"])
        made = self.classes.fresh(held.shape[0 if turned else 1])
        self.classes.cut(op, 1, 1 if turned else 0, self._taken(x, 1), "in")
        self.classes.cut(op, 1, 0 if turned else 1, made, "out")
        bias = op.operands[2] if len(op.operands) > 2 else None
        if bias is not None and bias.constant is None:
            return False
        if bias is not None and bias.shape and bias.shape[-1] == len(made):
            self.classes.cut(op, 2, len(bias.shape) - 1, made, "each")
        self.of[op.result] = Channels(1, made)
        return True

    def _matmul(self, op: Op) -> bool:
        x, w = op.operands
        if x is None or w is None or x.shape is None or w.shape is None:
            return False
        held = w.constant
        if held is None:
            return self._product(op, x, w)
        if held.ndim != 2 or len(x.shape) < 2 or not isinstance(x.shape[-1], int):
            return False
        made = self.classes.fresh(held.shape[1])
        self.classes.cut(op, 1, 0, self._taken(x, len(x.shape) - 1), "in")
        self.classes.cut(op, 1, 1, made, "out")
        self.of[op.result] = Channels(len(x.shape) - 1, made)
        return True

    def _product(self, op: Op, x: Value, y: Value) -> bool:
        """The product of two computed values, whose channels may be what it is computed for each of: heads."""
        assert x.shape is not None
        assert y.shape is not None
        a, b = self._known(x), self._known(y)
        if a is None and b is None:
            return True
        rank = len(x.shape)
        if a is None or b is None or len(y.shape) != rank or a.axis != b.axis or a.axis >= rank - 2:
            return False
        if len(a.ids) != len(b.ids):
            return False
        self.classes.join(a.ids, b.ids)
        self.of[op.result] = a
        return True

    def _taken(self, x: Value, axis: int) -> Array:
        """The numbers along an axis that an operator mixes; channels along any other axis of ``x`` are fixed."""
        known = self._known(x)
        if known is not None and known.axis == axis:
            return known.ids
        self.classes.fix(known)
        size = _size(x, axis)
        assert isinstance(size, int)
        return self.classes.fresh(size, fixed=True)

    def _bias(self, op: Op, index: int, ids: Array) -> None:
        bias = op.operands[index] if len(op.operands) > index else None
        if bias is None:
            return
        if bias.constant is None:
            self.classes.fix(Channels(0, ids))
        else:
            self.classes.cut(op, index, 0, ids, "each")

    # What keeps channels apart

    def _binary(self, op: Op) -> bool:
        rank = len(op.result.shape or ())
        found: Channels | None = None
        for v in op.operands:
            known = self._known(v)
            if known is None or v is None or v.shape is None:
                continue
            here = Channels(known.axis + rank - len(v.shape), known.ids)
            if found is None:
                found = here
            elif found.axis != here.axis or len(found.ids) != len(here.ids):
                return False
            else:
                self.classes.join(found.ids, here.ids)
        if found is None:
            return True
        for i, v in enumerate(op.operands):
            if v is None or self._known(v) is not None:
                continue
            shape = v.shape
            if shape is None:
                return False
            axis = found.axis - rank + len(shape)
            if axis < 0 or shape[axis] == 1:
                continue
            if v.constant is None or shape[axis] != len(found.ids):
                return False
            self.classes.cut(op, i, axis, found.ids, "each")
        self.of[op.result] = found
        return True

    def _batchnormalization(self, op: Op) -> bool:
        x = self._known(op.operands[0])
        return x is None or (x.axis == 1 and len(op.results) == 1 and self._each(op, x, (1, 2, 3, 4)))

    def _instancenormalization(self, op: Op) -> bool:
        x = self._known(op.operands[0])
        return x is None or (x.axis == 1 and self._each(op, x, (1, 2)))

    def _each(self, op: Op, x: Channels, operands: tuple[int, ...]) -> bool:
        if any(op.operands[i] is None or op.operands[i].constant is None for i in operands):  # type: ignore[union-attr]
            return False
        for i in operands:
            self.classes.cut(op, i, 0, x.ids, "each")
        self.of[op.results[0]] = x
        return True

    def _softmax(self, op: Op) -> bool:
        x = self._known(op.operands[0])
        if x is None:
            return True
        if op.attributes["axis"] % len(op.result.shape or ()) == x.axis:
            return False
        return self._pass(op)

    def _layernormalization(self, op: Op) -> bool:
        x = self._known(op.operands[0])
        if x is None:
            return True
        if x.axis >= op.attributes["axis"] % len(op.results[0].shape or ()):
            return False
        return self._pass(op)

    def _reduce(self, op: Op) -> bool:
        x = self._known(op.operands[0])
        if x is None:
            return True
        axes_value = op.operands[1] if len(op.operands) > 1 else None
        source = op.operands[0]
        assert source is not None
        if axes_value is None or axes_value.constant is None or source.shape is None:
            return False
        axes = {int(a) % len(source.shape) for a in axes_value.constant.reshape(-1)}
        if x.axis in axes:
            return False
        moved = 0 if op.attributes["keepdims"] else sum(a < x.axis for a in axes)
        self.of[op.result] = Channels(x.axis - moved, x.ids)
        return True

    def _transpose(self, op: Op) -> bool:
        x = self._known(op.operands[0])
        if x is not None:
            rank = len(op.result.shape or ())
            perm = list(op.attributes.get("perm") or reversed(range(rank)))
            self.of[op.result] = Channels(perm.index(x.axis), x.ids)
        return True

    def _squeeze(self, op: Op) -> bool:
        return self._as_reshape(op)

    def _unsqueeze(self, op: Op) -> bool:
        return self._as_reshape(op)

    def _as_reshape(self, op: Op) -> bool:
        x, source = self._known(op.operands[0]), op.operands[0]
        if x is None:
            return True
        if source is None or source.shape is None or op.result.shape is None or len(x.ids) == 1:
            return False
        found = reshaped(x, source.shape, op.result.shape, self.classes)
        if found is None or len(found[0].ids) != len(x.ids):
            return False
        self.of[op.result] = found[0]
        return True

    def _reshape(self, op: Op) -> bool:
        x, source = self._known(op.operands[0]), op.operands[0]
        if x is None:
            return True
        target = op.operands[1].constant if op.operands[1] is not None else None
        if source is None or source.shape is None or op.result.shape is None or target is None or len(x.ids) == 1:
            return False
        found = reshaped(x, source.shape, op.result.shape, self.classes)
        if found is None:
            return False
        made = found[0]
        if int(target[made.axis]) != -1:
            self.classes.fixups.append(lambda keep: _entry(op, 1, made.axis, int(keep(made.ids).sum())))
        self.of[op.result] = made
        return True

    def _resize(self, op: Op) -> bool:
        x = self._known(op.operands[0])
        if x is None:
            return True
        sizes = op.operands[3] if len(op.operands) > 3 else None
        if op.attributes.get("axes") or op.attributes["coordinate_transformation_mode"] == "tf_crop_and_resize":
            return False
        if sizes is not None:
            if sizes.constant is None:
                return False
            self.classes.fixups.append(lambda keep: _entry(op, 3, x.axis, int(keep(x.ids).sum())))
        self.of[op.result] = x
        return True

    def _concat(self, op: Op) -> bool:
        rank = len(op.result.shape or ())
        axis = op.attributes["axis"] % rank
        known = [self._known(v) for v in op.operands]
        if all(k is None for k in known):
            return True
        if all(k is None or k.axis == axis for k in known):
            parts = []
            for v, k in zip(op.operands, known):
                size = _size(v, axis)
                if not isinstance(size, int):
                    return False
                parts.append(k.ids if k is not None else self.classes.fresh(size, fixed=True))
            self.of[op.result] = Channels(axis, np.concatenate(parts))
            return True
        first = known[0]
        if first is None or any(k is None or k.axis != first.axis for k in known) or first.axis == axis:
            return False
        for k in known[1:]:
            assert k is not None
            self.classes.join(first.ids, k.ids)
        self.of[op.result] = first
        return True

    def _split(self, op: Op) -> bool:
        x = self._known(op.operands[0])
        if x is None:
            return True
        if op.attributes["axis"] % len(op.results[0].shape or ()) != x.axis:
            for result in op.results:
                self.of[result] = x
            return True
        sizes = [_size(r, x.axis) for r in op.results]
        if not all(isinstance(s, int) for s in sizes) or sum(sizes) != len(x.ids):
            return False
        ends = np.cumsum(sizes)
        parts = [x.ids[int(e) - s : int(e)] for e, s in zip(ends, sizes)]
        for result, part in zip(op.results, parts):
            self.of[result] = Channels(x.axis, part)

        def resize(keep: Keep) -> None:
            op.attributes.pop("num_outputs", None)
            _replace(op, 1, np.array([int(keep(p).sum()) for p in parts], np.int64))

        self.classes.fixups.append(resize)
        return True

    def _slice(self, op: Op) -> bool:
        x, source = self._known(op.operands[0]), op.operands[0]
        if x is None:
            return True
        if source is None or source.shape is None:
            return False
        fixed = [v.constant if v is not None else None for v in op.operands[1:]]
        axes = fixed[2] if len(fixed) > 2 else np.arange(len(fixed[0])) if fixed and fixed[0] is not None else None
        if axes is None or x.axis in {int(a) % len(source.shape) for a in axes}:
            return False
        self.of[op.result] = x
        return True

    def _pad(self, op: Op) -> bool:
        x, source = self._known(op.operands[0]), op.operands[0]
        if x is None:
            return True
        pads = op.operands[1].constant if op.operands[1] is not None else None
        some_axes = len(op.operands) > 3 and op.operands[3] is not None
        if source is None or source.shape is None or pads is None or some_axes:
            return False
        rank = len(source.shape)
        if pads[x.axis] or pads[x.axis + rank]:
            return False
        self.of[op.result] = x
        return True


def _size(v: Value | None, axis: int) -> Any:
    return v.shape[axis] if v is not None and v.shape is not None and len(v.shape) > axis else None


def _set(op: Op, name: str, value: Any) -> None:
    op.attributes[name] = value


def _entry(op: Op, operand: int, index: int, value: int) -> None:
    """One entry of a constant vector that an operator takes."""
    held = op.operands[operand]
    assert held is not None
    assert held.constant is not None
    new = held.constant.copy()
    new[index] = value
    _replace(op, operand, new)


def _replace(op: Op, operand: int, array: Array) -> None:
    assert op.block is not None
    constant = Builder(op.block, before=op, loc=op.loc).constant(array, "onnx")
    operands = [*op.operands, *[None] * (operand + 1 - len(op.operands))]
    operands[operand] = constant
    op.operands = tuple(operands)
