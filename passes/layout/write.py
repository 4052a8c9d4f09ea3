"""Writes a block anew as a plan of layouts has it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.ir import NOWHERE, Block, Builder, Location, Op, TensorType, Value
from passes.layout.axes import Arrangement, moves, shape_of
from passes.layout.flows import Flow, Form, Strand, accepts, run_as, static
from passes.layout.plan import Plan


class Writer:
    """Replaces operators one by one, in order, and remembers how each tensor lies by now."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.have: dict[int, dict[Arrangement, Value]] = {}
        self.rewritten = 0

    def write(self) -> int:
        """How many tensors lie otherwise now than they were written."""
        for argument in self.plan.block.arguments:
            self._keep(argument)
        for op in list(self.plan.block.ops):
            if op.defn.constant is not None:
                continue
            if op in self.plan.views:
                continue
            flow = self.plan.flows.get(op)
            if flow is None or not self._rewrite(op, flow):
                self._as_written(op)
        _sweep(self.plan.block)
        return self.rewritten

    def _keep(self, value: Value) -> None:
        if value in self.plan.tensor:
            self.have.setdefault(self.plan.tensor[value], {})[self.plan.native(value)] = value

    def _as_written(self, op: Op) -> None:
        for inner in op.walk():
            new = []
            for v in inner.operands:
                known = v is not None and v in self.plan.tensor
                new.append(
                    self._get(self.plan.tensor[v], self.plan.native(v), op, v.name) if known and v is not None else v
                )
            if tuple(new) != inner.operands:
                inner.operands = tuple(new)
        for r in op.results:
            self._keep(r)

    def _rewrite(self, op: Op, flow: Flow) -> bool:
        """Writes an operator in the form that its carrier's label asks for; False if it runs as it was written."""
        mine = self.plan.label[self.plan.tensor[flow.carrier.value]]
        run = run_as(flow, mine, self.plan.dims, self.plan.in_order)
        if run is None:
            return False
        form, lies = run.form, run.lies
        operands: list[Value | None] = [None] * len(op.operands)
        for strand in flow.strands:
            if strand.index >= 0:
                number_ = self.plan.tensor[strand.value]
                found = self._found(flow, form, strand, lies[strand.index])
                operands[strand.index] = found or self._get(number_, lies[strand.index], op, strand.value.name)
        written, attributes = flow.emit(flow, form, operands)
        builder = Builder(op.block, op, op.loc) if op.block is not None else None
        assert builder is not None
        # np.ascontiguousarray would make a vector of a scalar.
        held = [np.asarray(v, order="C") if isinstance(v, np.ndarray) else v for v in written]
        values = [builder.constant(v, "mil") if isinstance(v, np.ndarray) else v for v in held]
        results = {s.index: s for s in flow.strands if s.index < 0}
        types, out = [], []
        for i, r in enumerate(op.results):
            assert isinstance(r.type, TensorType)
            arrangement = lies[-1 - i]
            if flow.loose:
                # Operands that all lack leading single dimensions make a result that lacks them.
                rank = max(len(static(v) or ()) for v in values if v is not None)
                arrangement = arrangement[len(arrangement) - rank :]
            if flow.single is not None:
                places, dropped = flow.single(form)
                short = tuple(g for k, g in enumerate(arrangement) if k not in places)
                if short == self.plan.label[self.plan.tensor[r]] and short != arrangement:
                    arrangement = short
                    attributes = {**attributes, **dropped}
            out.append(arrangement)
            types.append(TensorType(r.type.dtype, shape_of(arrangement)))
        assert len(results) == len(op.results)
        new = Op(op.defn, values, types, attributes, loc=op.loc)
        assert op.block is not None
        op.block.insert_before(op, new)
        for r, made, arrangement in zip(op.results, new.results, out, strict=True):
            native = self.plan.native(r) == arrangement
            made.name = r.name if native or not r.name else f"{r.name}_laid"
            self.have.setdefault(self.plan.tensor[r], {})[arrangement] = made
            self.rewritten += not native
        return True

    def _found(self, flow: Flow, form: Form, strand: Strand, want: Arrangement) -> Value | None:
        """A value that lies well enough already."""
        for arrangement, value in self.have.get(self.plan.tensor[strand.value], {}).items():
            if arrangement == want or accepts(flow, form, strand, want, arrangement):
                return value
        return None

    def _get(self, number_: int, want: Arrangement, before: Op, name: str) -> Value:
        """The tensor in this arrangement: as it lies, or moved there from where that costs least."""
        have = self.have[number_]
        found = have.get(want)
        if found is not None:
            return found
        source = min(have, key=lambda a: self.plan.move_cost(number_, a, want))
        value = have[source]
        assert before.block is not None
        loc = value.op.loc if value.op is not None else NOWHERE
        builder = Builder(before.block, before, Location.fuse([loc], "layout"))
        for kind, data in moves(source, want):
            value = self._step(builder, kind, data, value)
        value.name = f"{name}_moved" if name else ""
        have[want] = value
        return value

    @staticmethod
    def _step(builder: Builder, kind: str, data: tuple[int, ...], value: Value) -> Value:
        assert isinstance(value.type, TensorType)
        have = value.type.static_shape
        if kind == "transpose":
            type_ = value.type.with_shape(tuple(have[p] for p in data))
            return builder.op("mil.transpose", [value], {"perm": data}, [type_]).result
        type_ = value.type.with_shape(data)
        axes = _single_axes(have, data)
        if axes is not None and len(have) < len(data):
            return builder.op("mil.expand_dims", [value], {"axes": axes}, [type_]).result
        if axes is not None:
            return builder.op("mil.squeeze", [value], {"axes": axes}, [type_]).result
        shape = builder.constant(np.array(data, np.int32), "mil")
        return builder.op("mil.reshape", [value, shape], None, [type_]).result


def _single_axes(have: Sequence[int], want: Sequence[int]) -> tuple[int, ...] | None:
    """The places of the single dimensions that one of two shapes has more than the other; None if they differ more."""
    long, short = (want, have) if len(want) > len(have) else (have, want)
    axes, i = [], 0
    for k, n in enumerate(long):
        if i < len(short) and short[i] == n:
            i += 1
        elif n == 1:
            axes.append(k)
        else:
            return None
    return tuple(axes) if axes and i == len(short) and len(axes) == len(long) - len(short) else None


def _sweep(block: Block) -> None:
    """Drops what has been written anew."""
    op = block.last
    while op is not None:
        before = op.prev
        if op.is_unused and not op.defn.terminator and op.defn.pure and not op.regions:
            op.erase()
        op = before
