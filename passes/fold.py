"""Constant folding: what does not depend on the inputs is computed now.

One walk from front to back. Shape arithmetic is followed element by element; every other operator on constants joins a
batch, which onnxruntime computes in one session, at the end or as soon as a later type depends on it. Types are
inferred anew behind everything that changed, so that a shape that becomes known makes further shapes known in the same
walk. An ``If`` with a known condition becomes its branch.

Left alone are operators that blow up: a result above 1 MB and more than four times the size of what it was made from
(an ``Expand`` is a better way to store it), and weights that are stored quantized, for the writer to store them so too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from compiler import ir
from compiler.dialects import onnx_infer
from compiler.dialects.onnx_contents import Memo, as_array, computes_shapes, contents, is_known
from compiler.dialects.onnx_schema import DOMAINS
from compiler.execution import evaluate
from passes.dce import is_pure

Array = np.ndarray[Any, Any]

_LARGE = 1 << 20
_GROWTH = 4
#: A dequantized vector (a bias, a scale) is no storage worth keeping.
_STORED = 1 << 10


def run(module: ir.Module) -> int:
    """Folds constants.

    Returns:
        How many operators became constants or vanished because they only served such.
    """
    return sum(_Folder().function(function) for function in module.functions.values())


class _Folder:
    def __init__(self) -> None:
        self._changed = 0
        #: Operators on constants, in order, whose results are not computed yet.
        self._pending: dict[ir.Op, None] = {}
        #: Values of which more is known than when the operators behind them were typed.
        self._dirty: set[ir.Value] = set()
        self._memo = Memo()

    def function(self, function: ir.Function) -> int:
        self._block(function.block)
        self._flush()
        return self._changed

    def _block(self, block: ir.Block) -> None:
        for op in block.ops:
            if op.defn.constant is None and not op.defn.terminator:
                self._op(op)

    def _op(self, op: ir.Op) -> None:
        if op.defn.dialect not in DOMAINS:
            return
        if op.regions:
            self._with_regions(op)
            return
        foldable = bool(op.operands) and all(v is None or self._is_constant(v) for v in op.operands)
        if not foldable:
            self._settle_operands(op)
        self._infer(op)
        if not op.defn.pure:
            return
        if len(op.results) == 1 and computes_shapes(op):
            known = contents(op.results[0], self._memo)
            if known is not None and is_known(known):
                type_ = op.results[0].type
                assert isinstance(type_, ir.TensorType)
                self._replace(op, [as_array(known, type_)])
                return
        tensors = all(isinstance(r.type, ir.TensorType) for r in op.results)
        if foldable and tensors and not self._grows(op):
            self._pending[op] = None

    def _is_constant(self, value: ir.Value) -> bool:
        op = value.op
        return op is not None and (op.defn.constant is not None or op in self._pending)

    def _settle_operands(self, op: ir.Op) -> None:
        """Computes what is pending if more might be known of ``op`` then."""
        if not self._pending or (self._is_settled(op) and not computes_shapes(op)):
            return
        for i, v in enumerate(op.operands):
            if v is not None and v.op in self._pending and (onnx_infer.reads(op.defn, i) or computes_shapes(op)):
                self._flush()
                return

    def _infer(self, op: ir.Op) -> None:
        """Narrows the types of the results, if more is known of the operands than when they were inferred."""
        if self._dirty and any(v in self._dirty for v in op.operands) and not self._is_settled(op):
            self._narrow(op, onnx_infer.infer(op.defn, op.operands, op.attributes, (), len(op.results), self._memo))

    @staticmethod
    def _is_settled(op: ir.Op) -> bool:
        return all(isinstance(r.type, ir.TensorType) and r.type.is_static for r in op.results)

    def _narrow(self, op: ir.Op, types: Iterable[ir.Type]) -> None:
        for result, type_ in zip(op.results, types):
            known = ir.type_meet(type_, result.type)
            if known is not None and known is not result.type:
                result.type = known
                self._dirty.add(result)

    def _grows(self, op: ir.Op) -> bool:
        """Whether the results, as constants, would take much more room than what they are made of."""
        made = sum(_bytes(r.type) for r in op.results)
        used = sum(_bytes(v.type) for v in op.operands if v is not None)
        if op.name.partition("@")[0].endswith(".DequantizeLinear") and made > max(used, _STORED):
            return True
        return made > _LARGE and made > _GROWTH * used

    def _with_regions(self, op: ir.Op) -> None:
        if op.name.partition("@")[0] == "onnx.If":
            condition = op.operands[0]
            assert condition is not None
            if condition.op in self._pending:
                self._flush()
                condition = op.operands[0]
                assert condition is not None
            value = condition.constant
            if value is not None and value.size == 1:
                self._inline(op, op.regions[0 if value.reshape(-1)[0] else 1])
                return
        for region in op.regions:
            self._block(region)
        types = onnx_infer.infer(op.defn, op.operands, op.attributes, op.regions, len(op.results))
        self._narrow(op, types)

    def _inline(self, op: ir.Op, branch: ir.Block) -> None:
        """Puts the operators of a branch in the place of its If, and folds them: the walk goes on behind them."""
        end = branch.terminator
        block = op.block
        assert end is not None
        assert block is not None
        inner = [each for each in branch.ops if each is not end]
        for each in inner:
            block.insert_before(op, branch.remove(each))
        for result, value in zip(op.results, end.operands):
            assert value is not None
            known = ir.type_meet(value.type, result.type)
            if known is not None and known is not value.type:
                value.type = known
            if not value.name:
                value.name = result.name
            self._dirty.add(value)
            result.replace_all_uses_with(value)
        op.erase()
        self._changed += 1
        for each in inner:
            if each.defn.constant is None:
                self._op(each)

    def _replace(self, op: ir.Op, arrays: list[Array | None]) -> None:
        """Constants in the place of the results of ``op``, which goes; None for a result that nobody uses."""
        assert op.block is not None
        loc = ir.Location.fuse([op.loc], "fold")
        for result, array in zip(op.results, arrays):
            if array is None or not result.use_count:
                continue
            constant = ir.Op("onnx.Constant", (), (onnx_infer.type_of_array(array),), {"value": array}, loc=loc)
            op.block.insert_before(op, constant)
            constant.results[0].name = result.name
            self._dirty.add(constant.results[0])
            result.replace_all_uses_with(constant.results[0])
        self._erase(op)

    def _erase(self, op: ir.Op) -> None:
        """Erases ``op``, and then what only it used."""
        stack = [op]
        while stack:
            each = stack.pop()
            makers = [v.op for v in each.operands if v is not None and v.op is not None]
            each.erase()
            self._changed += each.defn.constant is None
            stack += [m for m in dict.fromkeys(makers) if m.block is not None and m.is_unused and is_pure(m)]

    def _flush(self) -> None:
        """Computes what is pending, as far as onnxruntime can, and puts constants in its place."""
        batch, self._pending = self._pending, {}
        arrays: dict[ir.Value, Array] = {}
        while batch:
            try:
                arrays = _compute(batch)
                break
            except evaluate.EvaluationError as e:
                # What onnxruntime cannot compute stays in the graph, with all that hangs on it.
                batch = _without(batch, e.op)
        for op in reversed(batch):  # users first: of results that only they use there are no arrays
            if op.block is None:  # erased with its last user
                continue
            made = [arrays.get(r) for r in op.results]
            whole = all(a is not None or not r.use_count for a, r in zip(made, op.results))
            if whole and any(a is not None for a in made) and not _too_large(op, made):
                self._replace(op, made)


def _compute(batch: dict[ir.Op, None]) -> dict[ir.Value, Array]:
    """The results of ``batch`` that operators outside it use.

    Raises:
        EvaluationError: onnxruntime cannot compute one of them; ``op`` is that operator, if it named one.
    """
    function = ir.Function("fold")
    copies: dict[ir.Value, ir.Value] = {}
    originals: dict[ir.Op, ir.Op] = {}
    constants = dict.fromkeys(v.op for op in batch for v in op.operands if v is not None and v.op not in batch)
    ir.clone_ops([c for c in constants if c is not None], function.block, copies)
    for op in batch:
        for copy in ir.clone_ops([op], function.block, copies):
            originals[copy] = op
    wanted = [r for op in batch for r in op.results if any(user not in batch for user in r.users)]
    function.set_outputs([copies[r] for r in wanted], [f"fold_{i}" for i in range(len(wanted))])
    try:
        return dict(zip(wanted, evaluate.Session(function).run({})))
    except evaluate.EvaluationError as e:
        raise evaluate.EvaluationError(e.message, originals.get(e.op) if e.op is not None else None) from None


def _without(batch: dict[ir.Op, None], culprit: ir.Op | None) -> dict[ir.Op, None]:
    """What of ``batch`` does not hang on ``culprit``; nothing if that is not known."""
    if culprit is None:
        return {}
    lost = {culprit}
    for op in batch:
        if any(v is not None and v.op in lost for v in op.operands):
            lost.add(op)
    return {op: None for op in batch if op not in lost}


def _bytes(type_: ir.Type) -> int:
    """The size of a tensor in memory; 0 where it is not known."""
    size = type_.size if isinstance(type_, ir.TensorType) else None
    return 0 if size is None else size * max(8, type_.dtype.bits) // 8  # type: ignore[attr-defined]


def _too_large(op: ir.Op, arrays: list[Array | None]) -> bool:
    """As ``_grows``, now that the sizes are known."""
    made = sum(a.nbytes for a in arrays if a is not None)
    if made <= _LARGE:
        return False
    return made > _GROWTH * sum(_bytes(v.type) for v in op.operands if v is not None)
