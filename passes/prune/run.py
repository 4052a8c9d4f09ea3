"""Structured pruning: classes of channels of least importance are cut out of all operators that see them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.dialects import onnx_infer
from compiler.ir import Builder, Function, Module, Op, Value
from passes import cse, dce
from passes.prune.analysis import analyse
from passes.prune.channels import Classes, held
from passes.prune.importance import magnitude

Array = np.ndarray[Any, Any]

#: Of so many channels and more, a multiple of eight is kept: units compute that many at a time.
_MANY = 64


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was cut.

    Attributes:
        channels, of: how many channels of how many that could be.
        macs, parameters: before and after.
    """

    channels: int
    of: int
    macs: tuple[int, int]
    parameters: tuple[int, int]


def run(module: Module, amount: float, scores: Mapping[int, float] | None = None) -> Pruned:
    """Prunes the main function of a module of onnx.* operators in place.

    Args:
        amount: the share of channels to cut out of each layer whose channels can go.
        scores: how much each class of channels matters (:mod:`passes.prune.importance`), as :func:`analyse` numbers
            them in this function; the norm of its filters when None.

    Returns:
        What was cut.
    """
    main = module.main
    before = (macs(main), parameters(main))
    classes = analyse(main)
    gone, total = choose(classes, amount, magnitude(classes) if scores is None else scores)
    cut(main, classes, gone)
    dce.run(module)
    cse.run(module)
    return Pruned(len(gone), total, (before[0], macs(main)), (before[1], parameters(main)))


def masked(module: Module, amount: float, scores: Mapping[int, float] | None = None) -> None:
    """Makes ``module`` compute what :func:`run` would leave of it, with all shapes as they are: what mixes channels
    takes nothing from those that would go. The two must agree, which tests the classes against the graph itself.
    """
    classes = analyse(module.main)
    gone, _ = choose(classes, amount, magnitude(classes) if scores is None else scores)
    for c in classes.cuts:
        if c.role == "in":
            array = held(c).copy()
            lost = np.isin(classes.roots(c.ids), list(gone))
            array[(slice(None),) * c.axis + (lost,)] = 0
            _put(c.op, c.operand, array)
    for op, channels in classes.sums:
        source = op.operands[0]
        assert op.block is not None
        assert source is not None
        kept = (~np.isin(classes.roots(channels.ids), list(gone))).astype(np.float32)
        builder = Builder(op.block, before=op, loc=op.loc)
        along = [-1] + [1] * (len(source.shape or ()) - channels.axis - 1)
        op.set_operand(0, builder.op("onnx.Mul", [source, builder.constant(kept.reshape(along), "onnx")]).result)
    dce.run(module)


def choose(classes: Classes, amount: float, scores: Mapping[int, float]) -> tuple[set[int], int]:
    """The classes to cut, by the numbers that stand for them, and how many there are to choose from.

    Classes that the same operators make are ranked among themselves; the same share of each such set goes.
    """
    makers: dict[int, set[int]] = {}
    for i, c in enumerate(classes.cuts):
        if c.role == "out":
            for root in set(classes.roots(c.ids).tolist()):
                makers.setdefault(root, set()).add(i)
    sets: dict[frozenset[int], list[int]] = {}
    for root, sites in makers.items():
        if not classes.is_fixed(root):
            sets.setdefault(frozenset(sites), []).append(root)
    gone: set[int] = set()
    for members in sets.values():
        keep = math.ceil((1 - amount) * len(members))
        if len(members) >= _MANY:
            keep = min(-(-keep // 8) * 8, len(members))
        ranked = sorted(members, key=lambda root: (scores.get(root, 0.0), root))
        gone.update(ranked[: len(members) - max(keep, 1)])
    return gone, sum(len(m) for m in sets.values())


def cut(function: Function, classes: Classes, gone: set[int]) -> None:
    """Cuts classes out of constants and shapes, and infers types anew."""
    lost = list(gone)

    def keep(ids: Array) -> Array:
        kept: Array = ~np.isin(classes.roots(ids), lost)
        return kept

    for c in classes.cuts:
        kept = keep(c.ids)
        if not kept.all():
            _put(c.op, c.operand, np.ascontiguousarray(np.compress(kept, held(c), axis=c.axis)))
    for fixup in classes.fixups:
        fixup(keep)
    for op in function.block.ops:
        if op.defn.constant is None and not op.defn.terminator:
            types = onnx_infer.infer(op.defn, op.operands, op.attributes, op.regions, len(op.results))
            for result, type_ in zip(op.results, types):
                result.type = type_


def _put(op: Op, operand: int, array: Array) -> None:
    assert op.block is not None
    constant = Builder(op.block, before=op, loc=op.loc).constant(array, "onnx")
    old = op.operands[operand]
    constant.name = old.name if old is not None else ""
    op.set_operand(operand, constant)


def mixing_inputs(classes: Classes) -> list[tuple[Value, int]]:
    """Values whose channels operators mix, with the axis of the channels."""
    out: dict[Value, int] = {}
    for c in classes.cuts:
        source = c.op.operands[0]
        if c.role == "in" and source is not None and source.shape is not None:
            out[source] = 1 if c.op.name in ("onnx.Conv", "onnx.ConvTranspose") else len(source.shape) - 1
    return list(out.items())


def macs(function: Function) -> int:
    """Multiplications with weights, of convolutions and products, where sizes are known."""
    total = 0
    for op in function.walk():
        weight = op.operands[1] if len(op.operands) > 1 else None
        held = weight.constant if weight is not None else None
        if held is None or op.name not in ("onnx.Conv", "onnx.ConvTranspose", "onnx.MatMul", "onnx.Gemm"):
            continue
        shape = op.operands[0].shape if op.name == "onnx.ConvTranspose" else op.results[0].shape  # type: ignore[union-attr]
        positions = [d for d in (shape or ()) if isinstance(d, int)]
        channel = 1 if "Conv" in op.name else len(positions) - 1
        total += held.size * math.prod(d for i, d in enumerate(positions) if i != channel)
    return total


def parameters(function: Function) -> int:
    """Elements of float constants, each constant once."""
    arrays = {id(op): op.attributes["value"] for op in function.walk() if op.name == "onnx.Constant"}
    return sum(a.size for a in arrays.values() if a.dtype.kind == "f")
