"""Which arrangement each tensor gets.

Operators that cannot run but as they were written (convolutions, products, inputs, outputs) say how their tensors
should lie; through all others these wishes spread. Between two wishes a minimum cut decides exactly, between more of
them expansion moves do (Boykov, Veksler and Zabih, "Fast approximate energy minimization via graph cuts", 2001), each a
minimum cut. Last, each tensor that is still moved tries what its neighbours have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from compiler.ir import Block, Op, TensorType, Value
from passes.layout import cut
from passes.layout.axes import Arrangement, Tie, dimension, leaves, moves, regroup, settle
from passes.layout.flows import Dims, Flow, Run, Strand, accepts, carried, number, run_as, static, tie, used
from passes.layout.names import VIEWS
from passes.layout.ops import describe
from passes.layout.products import is_pointwise

#: What it costs to move a tensor: its bytes and the kind of the step, ``transpose`` or ``reshape``.
MoveCost = Callable[[int, str], float]

#: An operator costs something even where it moves little: so many bytes' worth.
STEP = 4096

#: What is moved where a model begins and ends costs a little less: there it may be left to whoever calls it.
EDGE = 0.75


def moved_bytes(size: int, kind: str) -> int:
    """What is read and written, and a step more; a reshape that keeps the order of elements moves them once at most."""
    return STEP + (2 * size if kind == "transpose" else size)


@dataclass(slots=True)
class _Wish:
    """An arrangement that a tensor is wanted in, or made in, where nothing else will do."""

    tensor: int
    arrangement: Arrangement
    made: bool
    rank: int  # the lower, the sooner it spreads
    weight: float = 1.0  # of what it costs to move the tensor there


@dataclass(slots=True)
class Plan:
    """The tensors of a block, the operators that run over them, and an arrangement for each."""

    block: Block
    cost: MoveCost
    in_order: bool = False
    dims: Dims = field(default_factory=dict)
    tensor: dict[Value, int] = field(default_factory=dict)  # values that views connect have the same number
    size: list[int] = field(default_factory=list)  # bytes by number
    first: list[Value] = field(default_factory=list)  # the value that the others are views of
    flows: dict[Op, Flow] = field(default_factory=dict)
    wishes: list[_Wish] = field(default_factory=list)
    views: set[Op] = field(default_factory=set)
    label: list[Arrangement] = field(default_factory=list)
    touching: dict[int, list[Flow]] = field(default_factory=dict)  # flows by the tensors that they run over
    costs: dict[tuple[int, Arrangement, Arrangement], float] = field(default_factory=dict)
    natives: dict[Value, Arrangement] = field(default_factory=dict)

    # ---- what there is

    def decide(self) -> None:
        changed: list[Tie] = []
        for argument in self.block.arguments:
            self._own(argument)
        for op in self.block.ops:
            if op.defn.constant is not None:
                continue
            if op.name in VIEWS and self._view(op, changed):
                self.views.add(op)
                continue
            for r in op.results:
                self._own(r)
        for op in self.block.ops:
            if op in self.views or op.defn.constant is not None:
                continue
            flow = describe(op)
            if flow is not None and all(s.value in self.dims for s in flow.strands):
                self.flows[op] = flow
                tie(flow, self.dims)
        pending = list(dict.fromkeys(t for f in self.flows.values() for t in f.ties))
        settle(pending)
        self.flows = {op: f for op, f in self.flows.items() if number(f, self.dims)}
        self._wish()
        self._label()

    def _own(self, value: Value) -> None:
        shape = static(value)
        if shape is None or value.constant is not None:
            return
        assert isinstance(value.type, TensorType)
        self.dims[value] = tuple(dimension(n) for n in shape)
        self.tensor[value] = len(self.first)
        self.first.append(value)
        self.size.append(int(np.prod(shape, dtype=np.int64)) * max(value.type.dtype.bits // 8, 1))

    def _view(self, op: Op, changed: list[Tie]) -> bool:
        x, y = op.operands[0], op.results[0]
        have, want = static(x), static(y)
        if x is None or x not in self.dims or have is None or want is None:
            return False
        if op.name == "mil.transpose":
            rank = len(have)
            self.dims[y] = tuple(self.dims[x][p % rank] for p in op.attributes["perm"])
        else:
            groups = regroup([f for d in self.dims[x] for f in d], want, changed)
            if groups is None:
                return False
            self.dims[y] = tuple(groups)
        self.tensor[y] = self.tensor[x]
        return True

    def native(self, value: Value) -> Arrangement:
        """The arrangement in which ``value`` was written."""
        found = self.natives.get(value)
        if found is None:
            found = self.natives[value] = tuple(leaves(d) for d in self.dims[value])
        return found

    def _wish(self) -> None:
        """Collects what operators that run as written ask for, and what the interface does."""
        for argument in self.block.arguments:
            if argument in self.tensor:
                self._want(argument, True, 2, EDGE)
        for op in self.block.ops:
            if op in self.views or op.defn.constant is not None:
                continue
            if op in self.flows:
                liked = _liked(op)
                if liked is not None and liked in self.tensor:
                    self._want(liked, True, 1, 0.0)
                continue
            values = [(v, False) for v in used(op)] + [(r, True) for r in op.results]
            # Operators on four axes are those that a model is made of; what ends it has the last word.
            for value, made in values:
                if value in self.tensor:
                    four = len(self.dims[value]) == 4 and not op.defn.terminator
                    self._want(value, made, 0 if four else 2 if made else 3, EDGE if op.defn.terminator else 1.0)

    def _want(self, value: Value, made: bool, rank: int, weight: float) -> None:
        self.wishes.append(_Wish(self.tensor[value], self.native(value), made, rank, weight))

    # ---- what is best

    def _label(self) -> None:
        for flow in self.flows.values():
            for number_ in {self.tensor[s.value] for s in flow.strands}:
                self.touching.setdefault(number_, []).append(flow)
        fields = [self._spread([w for w in self.wishes if w.rank == rank]) for rank in (2, 0, 1, 3)]
        base = []
        for i, value in enumerate(self.first):
            base.append(next((f[i] for f in fields if i in f), self.native(value)))
        self.label = base
        hard = [w for w in self.wishes if w.weight]
        best = self._energy(hard)
        # A field that gained nothing gains nothing again, nor does one that has just been taken, until another has.
        idle = 0
        for other in 2 * (fields[1:] + fields[:1]):
            idle += 1
            if not all(self.label[i] == a for i, a in other.items()):
                tried = cut.expand(self.label, other, self._terms(hard, other))
                if tried != self.label:
                    old, self.label = self.label, tried
                    energy = self._energy(hard)
                    if energy < best:
                        best, idle = energy, 1
                    else:
                        self.label = old
            if idle == len(fields):
                break
        self._polish(hard)

    def _polish(self, hard: Sequence[_Wish]) -> None:
        """Where something is still moved, a tensor alone may lie better as a neighbour of its would have it."""
        wishes: dict[int, list[_Wish]] = {}
        for w in hard:
            wishes.setdefault(w.tensor, []).append(w)
        queue = deque(range(len(self.label)))
        tries = dict.fromkeys(queue, 0)
        while queue:
            i = queue.popleft()
            best = self._local(i, wishes)
            if best == 0.0 or tries[i] > 3:
                continue
            tries[i] += 1
            kept = self.label[i]
            for flow in self.touching.get(i, ()):
                for strand in flow.strands:
                    other = self.tensor[strand.value]
                    run = self._run_of(flow, other, self.label[other]) if other != i else None
                    for mine in flow.strands if run is not None else ():
                        if self.tensor[mine.value] == i and run is not None:
                            before, self.label[i] = self.label[i], run.lies[mine.index]
                            cost = self._local(i, wishes) if self.label[i] != before else best
                            if cost < best:
                                best = cost
                            else:
                                self.label[i] = before
            if self.label[i] != kept:
                queue.extend({self.tensor[s.value] for f in self.touching[i] for s in f.strands} - {i})

    def _local(self, i: int, wishes: dict[int, list[_Wish]]) -> float:
        """What tensor ``i`` and the operators that touch it cost."""
        total = sum(w.weight * self.move_cost(i, self.label[i], w.arrangement) for w in wishes.get(i, ()))
        return total + sum(self._flow_energy(f) for f in self.touching.get(i, ()))

    def _spread(self, wishes: Sequence[_Wish]) -> dict[int, Arrangement]:
        """Each tensor's arrangement if all lie as these wishes would have it, the nearest wish deciding."""
        found: dict[int, Arrangement] = {}
        queue: deque[tuple[int, Arrangement]] = deque((w.tensor, w.arrangement) for w in wishes)
        while queue:
            number_, arrangement = queue.popleft()
            if number_ in found:
                continue
            found[number_] = arrangement
            for flow in self.touching.get(number_, ()):
                run = self._run_of(flow, number_, arrangement)
                if run is None:
                    continue
                for strand in flow.strands:
                    other = self.tensor[strand.value]
                    if other not in found:
                        queue.append((other, run.lies[strand.index]))
        return found

    def _run_of(self, flow: Flow, number_: int, arrangement: Arrangement) -> Run | None:
        """How the operator runs if its tensor of this number lies so."""
        if self.tensor[flow.carrier.value] == number_:
            return run_as(flow, arrangement, self.dims, self.in_order)
        for strand in flow.strands:
            if self.tensor[strand.value] == number_:
                turned = carried(flow, strand, arrangement)
                return run_as(flow, turned, self.dims, self.in_order) if turned is not None else None
        return None

    def move_cost(self, number_: int, have: Arrangement, want: Arrangement) -> float:
        if have == want:
            return 0.0
        key = number_, have, want
        found = self.costs.get(key)
        if found is None:
            found = self.costs[key] = sum(self.cost(self.size[number_], kind) for kind, _ in moves(have, want))
        return found

    def flow_cost(self, flow: Flow, mine: Arrangement, strand: Strand, theirs: Arrangement) -> float:
        """What one tensor costs if the operator's carrier lies as ``mine`` and that tensor as ``theirs``."""
        number_ = self.tensor[strand.value]
        run = run_as(flow, mine, self.dims, self.in_order)
        if run is None:
            return self.move_cost(number_, theirs, self.native(strand.value))
        there = run.lies[strand.index]
        return 0.0 if accepts(flow, run.form, strand, there, theirs) else self.move_cost(number_, theirs, there)

    def _own_cost(self, flow: Flow, mine: Arrangement) -> float:
        """What it costs the carrier if the operator cannot run as it lies."""
        if run_as(flow, mine, self.dims, self.in_order) is not None:
            return 0.0
        return self.move_cost(self.tensor[flow.carrier.value], mine, self.native(flow.carrier.value))

    def _energy(self, hard: Sequence[_Wish]) -> float:
        total = sum(w.weight * self.move_cost(w.tensor, self.label[w.tensor], w.arrangement) for w in hard)
        return total + sum(self._flow_energy(flow) for flow in self.flows.values())

    def _flow_energy(self, flow: Flow) -> float:
        mine = self.label[self.tensor[flow.carrier.value]]
        total = self._own_cost(flow, mine)
        for strand in flow.strands:
            if strand is not flow.carrier:
                total += self.flow_cost(flow, mine, strand, self.label[self.tensor[strand.value]])
        return total

    def _terms(self, hard: Sequence[_Wish], other: dict[int, Arrangement]) -> cut.Terms:
        terms = cut.Terms()
        label = self.label
        for w in hard:
            if w.tensor in other and other[w.tensor] != label[w.tensor]:
                keep, take = (self.move_cost(w.tensor, a, w.arrangement) for a in (label[w.tensor], other[w.tensor]))
                terms.one(w.tensor, w.weight * keep, w.weight * take)
        for flow in self.flows.values():
            a = self.tensor[flow.carrier.value]
            old, new = label[a], other.get(a, label[a])
            if old != new:
                terms.one(a, self._own_cost(flow, old), self._own_cost(flow, new))
            for strand in flow.strands:
                if strand is flow.carrier:
                    continue
                b = self.tensor[strand.value]
                was, now = label[b], other.get(b, label[b])
                if old == new and was == now:
                    continue
                if a == b:
                    terms.one(a, self.flow_cost(flow, old, strand, was), self.flow_cost(flow, new, strand, now))
                elif old == new:
                    terms.one(b, self.flow_cost(flow, old, strand, was), self.flow_cost(flow, old, strand, now))
                elif was == now:
                    terms.one(a, self.flow_cost(flow, old, strand, was), self.flow_cost(flow, new, strand, was))
                else:
                    costs = [self.flow_cost(flow, x, strand, y) for x in (old, new) for y in (was, now)]
                    terms.two(a, b, *costs)
        return terms


def _liked(op: Op) -> Value | None:
    """A tensor of an operator that could run otherwise, but was written so for a reason: what a product makes, and what
    is split as (B, C, 1, S)."""
    if op.name == "mil.split":
        x = op.operands[0]
        return x if (static(x) or ())[2:3] == (1,) else None
    if op.name in ("mil.linear", "mil.matmul"):
        return op.results[0]
    return op.results[0] if is_pointwise(op) and (static(op.results[0]) or ())[2:3] == (1,) else None
