"""What moves channels: to another axis, into parts, or beside others."""

from __future__ import annotations

import numpy as np

from compiler.ir import Op, Value
from passes.prune.channels import Channels, Keep, reshaped
from passes.prune.state import Analysis, Shape, follows, handles, replace, set_entry, size


@follows("Transpose")
def _transpose(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    perm = list(op.attributes.get("perm") or reversed(range(len(before))))
    a.of[op.result] = Channels(perm.index(x.axis), x.ids)
    return True


@follows("Squeeze", "Unsqueeze")
def _of_one(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    if op.result.shape is None or len(x.ids) == 1:
        return False
    found = reshaped(x, before, op.result.shape, a.classes)
    if found is None or len(found.ids) != len(x.ids):
        return False
    a.of[op.result] = found
    return True


@follows("Reshape")
def _reshape(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    target = op.operands[1].constant if op.operands[1] is not None else None
    if op.result.shape is None or target is None or len(x.ids) == 1:
        return False
    made = reshaped(x, before, op.result.shape, a.classes, lambda axis: _taken_apart(op.result, axis))
    if made is None:
        return False
    if int(target[made.axis]) != -1:
        a.classes.fixups.append(lambda keep: set_entry(op, 1, made.axis, int(keep(made.ids).sum())))
    a.of[op.result] = made
    return True


def _taken_apart(value: Value, axis: int) -> bool:
    """Whether parts of a value along an axis go different ways, as queries, keys and values that one product makes."""
    for user in value.users:
        rank = len(value.shape or ())
        if user.name in ("onnx.Split", "onnx.Gather") and user.operands[0] is value:
            if user.attributes["axis"] % rank == axis:
                return True
        elif user.name == "onnx.Transpose":
            perm = list(user.attributes.get("perm") or reversed(range(rank)))
            if _taken_apart(user.result, perm.index(axis)):
                return True
        elif user.name == "onnx.Squeeze" and size(value, axis) != 1 and user.result.shape is not None:
            axes = user.operands[1].constant if len(user.operands) > 1 and user.operands[1] is not None else None
            if axes is not None and _taken_apart(user.result, axis - sum(int(i) % rank < axis for i in axes)):
                return True
    return False


@follows("Resize")
def _resize(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    sizes = op.operands[3] if len(op.operands) > 3 else None
    if op.attributes.get("axes") or op.attributes["coordinate_transformation_mode"] == "tf_crop_and_resize":
        return False
    if sizes is not None:
        if sizes.constant is None:
            return False
        a.classes.fixups.append(lambda keep: set_entry(op, 3, x.axis, int(keep(x.ids).sum())))
    a.of[op.result] = x
    return True


@handles("Concat")
def _concat(a: Analysis, op: Op) -> bool:
    rank = len(op.result.shape or ())
    axis = op.attributes["axis"] % rank
    known = [a.known(v) for v in op.operands]
    if all(k is None for k in known):
        return True
    if all(k is None or k.axis == axis for k in known):
        parts = []
        for v, k in zip(op.operands, known):
            count = size(v, axis)
            if not isinstance(count, int):
                return False
            parts.append(k.ids if k is not None else a.classes.fresh(count, fixed=True))
        a.of[op.result] = Channels(axis, np.concatenate(parts))
        return True
    first = known[0]
    if first is None or any(k is None or k.axis != first.axis for k in known) or first.axis == axis:
        return False
    for k in known[1:]:
        assert k is not None
        a.classes.join(first.ids, k.ids)
    a.of[op.result] = first
    return True


@follows("Split")
def _split(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    if op.attributes["axis"] % len(op.results[0].shape or ()) != x.axis:
        for result in op.results:
            a.of[result] = x
        return True
    sizes = [size(r, x.axis) for r in op.results]
    if not all(isinstance(s, int) for s in sizes) or sum(sizes) != len(x.ids):
        return False
    ends = np.cumsum(sizes)
    parts = [x.ids[int(e) - s : int(e)] for e, s in zip(ends, sizes)]
    for result, part in zip(op.results, parts):
        a.of[result] = Channels(x.axis, part)

    def resize(keep: Keep) -> None:
        op.attributes.pop("num_outputs", None)
        replace(op, 1, np.array([int(keep(p).sum()) for p in parts], np.int64))

    a.classes.fixups.append(resize)
    return True


@follows("Slice")
def _slice(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    fixed = [v.constant if v is not None else None for v in op.operands[1:]]
    axes = fixed[2] if len(fixed) > 2 else np.arange(len(fixed[0])) if fixed and fixed[0] is not None else None
    if axes is None or x.axis in {int(i) % len(before) for i in axes}:
        return False
    a.of[op.result] = x
    return True


@follows("Pad")
def _pad(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    pads = op.operands[1].constant if op.operands[1] is not None else None
    some_axes = len(op.operands) > 3 and op.operands[3] is not None
    if pads is None or some_axes or pads[x.axis] or pads[x.axis + len(before)]:
        return False
    a.of[op.result] = x
    return True


@follows("Expand")
def _expand(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    result = op.result
    target = op.operands[1].constant if op.operands[1] is not None else None
    if result.shape is None or target is None:
        return False
    axis = x.axis + len(result.shape) - len(before)
    if result.shape[axis] != len(x.ids):
        return False
    entry = axis - len(result.shape) + len(target)
    if entry >= 0 and int(target[entry]) != 1:
        a.classes.fixups.append(lambda keep: set_entry(op, 1, entry, int(keep(x.ids).sum())))
    a.of[result] = Channels(axis, x.ids)
    return True
