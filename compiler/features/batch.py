"""``--batch 1,4,8`` or ``1..8``: the batch of a model that was exported for one row, opened.

The first axis of every input that has one row, or leaves it open, becomes a symbol, and shapes are inferred anew behind
it. Shapes that the export wrote down with its one row are rewritten where a reshape keeps the batch an axis of its own.
That rows do not mix is shown twice: the symbol must survive every operator it goes into, and in onnxruntime every value
of three rows together must be what the rows give one by one (:mod:`compiler.features.rows`). The proof then compares
the package on several rows with the original model on each.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from compiler.errors import UnsupportedError, UserError
from compiler.features import rows
from compiler.features.base import Arrays, Feature, Run
from compiler.ir import NOWHERE, InferenceError, Module, Op, TensorType, Value
from compiler.shapes import Choice, Shape, Span

#: The symbol of the opened axis.
ROWS = "planish_rows"

#: The module's attribute that says so of the finished package.
ROWS_APART = "rows_apart"


def parse(text: str) -> Batch:
    """The feature that ``--batch`` asks for.

    Raises:
        UserError: it is neither sizes with commas between them nor a range.
    """
    spelling = "--batch 1,4,8 for a choice of sizes, --batch 1..8 for a range"
    if match := re.fullmatch(r"(\d+)\.\.(\d+)", text):
        low, high = int(match[1]), int(match[2])
        if 1 <= low < high:
            return Batch(Span(low, high))
    elif re.fullmatch(r"\d+(,\d+)*", text):
        sizes = sorted({int(s) for s in text.split(",")})
        if sizes[0] >= 1:
            return Batch(Choice(tuple(sizes)) if len(sizes) > 1 else Span(sizes[0], sizes[0]))
    raise UserError(f"--batch {text} is no size of a batch", spelling)


@dataclass(slots=True)
class Batch(Feature):
    """Any of some numbers of rows."""

    size: Span | Choice
    _inputs: set[str] = field(default_factory=set)
    _axes: dict[str, int | None] = field(default_factory=dict)

    @property
    def symbol(self) -> str:
        return ROWS

    def open(self, declared: Mapping[str, TensorType], given: Mapping[str, Shape]) -> dict[str, Shape]:
        """The shapes of inputs, with the batch in each that has one row or an open first axis.

        Raises:
            UserError: no input has.
        """
        out = dict(given)
        self._inputs = set()
        for name, type_ in declared.items():
            if not type_.shape or not (type_.shape[0] == 1 or isinstance(type_.shape[0], str)):
                continue
            rest = given.get(name, type_.shape)[1:]
            open_sizes = [d for d in rest if isinstance(d, str)]
            if open_sizes:
                continue  # what is said of an input whose other sizes stay open is said without it
            out[name] = (self.size, *(d for d in rest if not isinstance(d, str)))
            self._inputs.add(name)
        if not self._inputs:
            raise UserError("--batch finds no input with one row", "--shape for inputs whose sizes are open")
        return out

    def prepare(self, module: Module) -> None:
        dirty: set[Value] = {a for a in module.main.inputs if a.name in self._inputs}
        for op in list(module.main.block.ops):
            if op.defn.terminator or not any(v in dirty for v in op.operands):
                continue
            if op.name.partition("@")[0] == "onnx.Reshape":
                _reshape(op)
            self._infer(op)
            dirty.update(op.results)
            self._survives(op)

    def _infer(self, op: Op) -> None:
        from compiler.dialects import onnx_infer

        try:
            types = onnx_infer.infer(op.defn, op.operands, op.attributes, op.regions, len(op.results))
        except InferenceError as e:
            raise UnsupportedError(
                f"{op.name}{_at(op)} does not take several rows: {e}", "a model exported with an open batch"
            ) from None
        for result, type_ in zip(op.results, types):
            result.type = type_

    def _survives(self, op: Op) -> None:
        """Raises UnsupportedError if rows go into ``op`` and none come out."""
        if rows.is_shape(op) or not any(_axis(v) is not None for v in op.operands if v is not None):
            return
        for result in op.results:
            type_ = result.type
            if isinstance(type_, TensorType) and type_.shape is not None and type_.is_static and result.use_count:
                raise UnsupportedError(
                    f"{op.name}{_at(op)} mixes the rows of a batch: its result has no axis for them",
                    "without --batch, one row at a time",
                )

    def imported(self, module: Module) -> None:
        self._axes = rows.check(module, self._inputs, ROWS)
        if isinstance(self.size, Span) and self.size.low == self.size.high:
            self._settle(module, self.size.low)

    def _settle(self, module: Module, size: int) -> None:
        """Gives the opened axis its only size."""
        from passes import fold

        for argument in module.main.inputs:
            if argument.name in self._inputs and isinstance(argument.type, TensorType) and argument.type.shape:
                argument.type = argument.type.with_shape((size, *argument.type.shape[1:]))
                module.main.attributes.pop(f"range.{argument.name}", None)
        module.attributes["flexible"] = tuple(f for f in module.attributes["flexible"] if f[0] != ROWS)
        for op in module.main.block.ops:
            if op.defn.constant is None and not op.defn.terminator and not op.regions:
                self._infer(op)
        fold.run(module)

    def seal(self, module: Module) -> None:
        module.attributes[ROWS_APART] = True

    def around(self, run: Run) -> Run:
        """One row at a time: the model as it was exported knows no other way."""

        def by_rows(inputs: Arrays) -> Arrays:
            count = max(len(inputs[n]) for n in self._inputs)
            each = [run({n: a[i : i + 1] if n in self._inputs else a for n, a in inputs.items()}) for i in range(count)]
            out = {}
            for name, first in each[0].items():
                axis = self._axes.get(name, 0)
                out[name] = first if axis is None else np.concatenate([one[name] for one in each], axis)
            return out

        return by_rows


def _axis(value: Value) -> int | None:
    """Where the rows of a value lie, as far as its type says."""
    shape = value.type.shape if isinstance(value.type, TensorType) else None
    return shape.index(ROWS) if shape is not None and ROWS in shape else None


def _reshape(op: Op) -> None:
    """Gives a reshape to a shape that was written down an open batch.

    Raises:
        UnsupportedError: it does not keep the batch an axis of its own.
    """
    data, shape = op.operands[0], op.operands[1]
    assert data is not None
    type_ = data.type
    axis = _axis(data)
    target = shape.constant if shape is not None else None
    if axis is None or target is None or not isinstance(type_, TensorType) or type_.shape is None:
        return
    before = [1 if d == ROWS else d for d in type_.shape]
    if not all(isinstance(d, int) for d in before):
        return
    sizes = [d for d in before if isinstance(d, int)]
    copies = not op.attributes.get("allowzero", 0)
    wanted = [sizes[i] if t == 0 and copies else int(t) for i, t in enumerate(target.reshape(-1))]
    known = math.prod(w for w in wanted if w != -1)
    wanted = [math.prod(sizes) // known if w == -1 else w for w in wanted]
    places = [k for k, w in enumerate(wanted) if w == 1 and math.prod(wanted[:k]) == math.prod(sizes[:axis])]
    if not places:
        raise UnsupportedError(
            f"{op.name}{_at(op)} merges the rows of a batch with another axis: "
            f"{' × '.join(map(str, sizes))} becomes {' × '.join(map(str, wanted))}",
            "a model exported with an open batch",
        )
    place = axis if axis in places else places[0]
    wanted[place] = -1
    assert shape is not None
    assert op.block is not None
    constant = Op("onnx.Constant", (), [shape.type], {"value": np.array(wanted, np.int64)}, loc=NOWHERE)
    op.block.insert_before(op, constant)
    op.set_operand(1, constant.result)


def _at(op: Op) -> str:
    return f" at node '{op.loc.nodes[0]}'" if op.loc.nodes else ""
