"""Which compute unit runs each operator, and where the program is cut: a prediction from public tables and estimates.

For two units the labelling of least estimated time is a minimum cut (Kolmogorov and Zabih, "What energy functions can
be minimized via graph cuts?", 2004): an operator costs its time on the unit that it gets, and a value that is needed on
the other unit costs its transfer once, however many users it has there.

For three units, each unit in turn may take operators over from the others by such a cut, which is kept if the whole
then costs less, until no unit gains (after Boykov, Veksler and Zabih, "Fast approximate energy minimization via graph
cuts", 2001). A transfer between two units that both stay out of a step is not part of its cut, so this descends to a
labelling that no single step improves, and need not be the best.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.hardware import Chip, Refusal, cost, refusal, transfer_ms, weights_ms, work
from compiler.hardware.cost import is_free_after
from compiler.hardware.work import size
from compiler.ir import Module, Op, TensorType, Value
from passes.place_bounds import Flow, all_or_none, stretches

#: Units that a target may use, the one it asks for first. Core ML left what the ANE refuses to the CPU, though the GPU
#: was estimated faster (source H), so a program for the ANE is placed on these two.
UNITS: Mapping[str, tuple[str, ...]] = {"ane": ("ane", "cpu"), "gpu": ("gpu", "cpu"), "cpu": ("cpu",)}

#: Where inputs come from and outputs go.
HOST = "cpu"


@dataclass(frozen=True, slots=True)
class Segment:
    """Operators that one unit runs without interruption."""

    unit: str
    ops: tuple[Op, ...]


@dataclass(slots=True)
class Placement:
    """What runs where.

    Attributes:
        chip: for which chip that is.
        unit: the unit of each operator that computes something, in order.
        refused: why operators cannot run on the unit asked for.
        ms: the estimated time of each operator on its unit; 0 for what a unit does while it writes the operator before.
        segments: runs of one unit, in an order that leaves a unit as seldom as the graph allows greedily.
        moved_ms: the estimated time of handing values from unit to unit.
        calls_ms: the estimated time of starting the segments.
        stream_ms: by how much streaming weights exceeds the time of the operators that use them.
    """

    chip: Chip
    wanted: str
    unit: dict[Op, str] = field(default_factory=dict)
    refused: dict[Op, Refusal] = field(default_factory=dict)
    ms: dict[Op, float] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    moved_ms: float = 0.0
    calls_ms: float = 0.0
    stream_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """The estimated time of one prediction."""
        return sum(self.ms.values()) + self.moved_ms + self.calls_ms + self.stream_ms


def run(module: Module, wanted: str, chip: Chip, ios: int, units: Sequence[str] | None = None) -> Placement:
    """Places the operators of the main function.

    Args:
        wanted: the unit asked for: what it cannot run is in ``refused``.
        units: which units may be used, two or three; those of :data:`UNITS` when None.
    """
    units = UNITS[wanted] if units is None else units
    placed = Placement(chip, wanted)
    problem = _Problem(module, units, chip, ios)
    placed.refused = dict(problem.refused) if wanted == "ane" else {}
    placed.unit = problem.solve()
    for op, unit in placed.unit.items():
        source = op.operands[0].op if op.operands and op.operands[0] is not None else None
        free = source is not None and placed.unit.get(source) == unit and is_free_after(op)
        placed.ms[op] = 0.0 if free else problem.ms[unit][op]
    placed.segments = list(segments(placed.unit))
    placed.moved_ms = sum(transfer_ms(_bytes(v), chip) for v in problem.crossing(placed.unit))
    # Starting the CPU is free: the program that asks runs there.
    placed.calls_ms = chip.dispatch_ms * sum(s.unit != HOST for s in placed.segments)
    for segment in placed.segments:
        streamed = weights_ms(sum(work(o).weights for o in segment.ops), segment.unit, chip)
        placed.stream_ms += max(0.0, streamed - sum(placed.ms[o] for o in segment.ops))
    return placed


def computes(op: Op) -> bool:
    """Whether an operator runs at all: no constant, compressed or not, and no terminator."""
    return op.defn.constant is None and not op.defn.terminator and "constexpr_" not in op.name


def segments(unit: Mapping[Op, str]) -> Iterator[Segment]:
    """The operators in an order that stays on a unit while anything is ready there."""
    waiting = {op: len({v.op for v in op.operands if v is not None and v.op in unit}) for op in unit}
    ready: dict[str, list[Op]] = {u: [] for u in unit.values()}
    for op, count in waiting.items():
        if not count:
            ready[unit[op]].append(op)
    now = HOST if ready.get(HOST) else next((u for u, ops in ready.items() if ops), HOST)
    while any(ready.values()):
        run_: list[Op] = []
        queue = ready[now]
        for op in queue:  # grows while it is walked
            run_.append(op)
            for user in dict.fromkeys(u for r in op.results for u in r.users):
                if user in waiting:
                    waiting[user] -= 1
                    if not waiting[user]:
                        ready[unit[user]].append(user)
        ready[now] = []
        yield Segment(now, tuple(run_))
        now = next((u for u, ops in ready.items() if ops), now)


class _Problem:
    """Times of operators by unit, transfers of values, and the labelling that costs least."""

    def __init__(self, module: Module, units: Sequence[str], chip: Chip, ios: int) -> None:
        block = module.main.block
        self.units = tuple(units)
        self.chip = chip
        self.ops = [op for op in block.ops if computes(op)]
        self.terminator = block.terminator
        self.inputs: list[Value] = list(block.arguments)
        self.refused: dict[Op, Refusal] = {}
        if "ane" in units:
            for op in self.ops:
                why = refusal(op, chip, ios)
                if why is not None:
                    self.refused[op] = why
        self.ms = {u: {op: cost(op, u, chip).ms for op in self.ops} for u in dict.fromkeys((*self.units, HOST))}
        self.free = {op for op in self.ops if is_free_after(op)}

    def takes(self, unit: str, op: Op) -> bool:
        return unit != "ane" or op not in self.refused

    def solve(self) -> dict[Op, str]:
        """The unit of each operator."""
        if len(self.units) == 1:
            return dict.fromkeys(self.ops, self.units[0])
        first = {op: next(u for u in (HOST, *self.units) if u in self.units) for op in self.ops}
        if len(self.units) == 2 and HOST in self.units:
            other = next(u for u in self.units if u != HOST)
            return self._bounded(other) or self._expand(first, other)
        best, now = self.energy(first), first
        for _ in range(8):  # it settles in two or three rounds
            for unit in self.units:
                tried = self._expand(now, unit)
                if self.energy(tried) < best - 1e-12:
                    best, now = self.energy(tried), tried
                    break
            else:
                break
        return now

    def _bounded(self, unit: str) -> dict[Op, str] | None:
        """The cheapest labelling with the host's unit and ``unit`` where bounds alone prove it, else None."""
        free = {op: self._ms(HOST, op) - self._ms(unit, op) for op in self.ops if self.takes(unit, op)}
        flows: list[Flow[Op]] = []
        for value, home, users in self._flows():
            near = tuple(dict.fromkeys(u for u in users if u is not None and u in free))
            fixed = any(e is None or e not in free for e in (home, *users))
            if near or (home in free and fixed):
                flows.append(Flow(home if home in free else None, near, fixed, self._transfer(value)))
        labels = dict.fromkeys(self.ops, HOST)
        for ops, values in stretches(list(free), flows):
            moved = all_or_none(ops, values, free)
            if moved is None:
                return None
            if moved:
                labels.update(dict.fromkeys(ops, unit))
        return labels

    def energy(self, unit: Mapping[Op, str]) -> float:
        """What a labelling costs: operators and transfers."""
        total = sum(self._ms(unit[op], op) for op in self.ops)
        return total + sum(self._transfer(v) for v in self.crossing(unit))

    def crossing(self, unit: Mapping[Op, str]) -> Iterator[Value]:
        """Values that are needed on a unit that does not make them, once for each such unit."""
        for value, home, users in self._flows():
            made = unit[home] if home is not None else HOST
            for _ in {unit[u] if u is not None else HOST for u in users} - {made}:
                yield value

    def _ms(self, unit: str, op: Op) -> float:
        return 0.0 if op in self.free else self.ms[unit][op]

    def _transfer(self, value: Value) -> float:
        """Handing a value over: a copy, and half of a call, of which each stay on a unit has two ends."""
        return transfer_ms(_bytes(value), self.chip) + self.chip.dispatch_ms / 2

    def _flows(self) -> Iterator[tuple[Value, Op | None, list[Op | None]]]:
        """Values with their producer and users; None for the host."""
        known = set(self.ops)
        values: list[tuple[Value, Op | None]] = [(v, None) for v in self.inputs]
        values += [(r, op) for op in self.ops for r in op.results]
        for value, home in values:
            users: list[Op | None] = []
            for user in value.users:
                if user in known:
                    users.append(user)
                elif user is self.terminator:
                    users.append(None)
                else:  # inside a region: the operator that holds it, as far out as the main function
                    outer = _outermost(user, known)
                    if outer is not None:
                        users.append(outer)
            if users:
                yield value, home, users

    def _expand(self, now: Mapping[Op, str], unit: str) -> dict[Op, str]:
        """The cheapest labelling in which each operator keeps its unit or moves to ``unit``."""
        import networkx as nx

        graph: Any = nx.DiGraph()
        keep, move = "keep", "move"
        graph.add_nodes_from((keep, move))
        for op in self.ops:
            stay_ms = self._ms(now[op], op)
            # An edge from `move` is cut when the operator keeps its unit, one to `keep` when it moves.
            if now[op] == unit:
                _edge(graph, move, op, None)
            else:
                _edge(graph, move, op, stay_ms)
                _edge(graph, op, keep, self._ms(unit, op) if self.takes(unit, op) else None)
        for i, (value, home, users) in enumerate(self._flows()):
            if home is not None and users == [home]:
                continue
            charge = self._transfer(value)
            source: Any = home if home is not None else (move if unit == HOST else keep)
            ends: Collection[Any] = {u if u is not None else (move if unit == HOST else keep) for u in users} - {source}
            if not ends:
                continue
            # Charged once if the producer moves and any user keeps, and the other way round.
            _edge(graph, source, ("out", i), charge)
            _edge(graph, ("in", i), source, charge)
            for end in ends:
                _edge(graph, ("out", i), end, None)
                _edge(graph, end, ("in", i), None)
        _, (moved, _) = nx.minimum_cut(graph, move, keep, flow_func=nx.algorithms.flow.boykov_kolmogorov)
        return {op: unit if op in moved else now[op] for op in self.ops}


def _bytes(value: Value) -> int:
    return size(value.type) if isinstance(value.type, TensorType) else 0


def _outermost(op: Op, known: set[Op]) -> Op | None:
    outer: Op | None = op
    while outer is not None and outer not in known:
        outer = outer.parent
    return outer


def _edge(graph: Any, tail: Any, head: Any, capacity: float | None) -> None:
    """Adds capacity to an edge; None is infinite."""
    if capacity is None:
        graph.add_edge(tail, head)
        graph[tail][head].pop("capacity", None)
    elif graph.has_edge(tail, head):
        if "capacity" in graph[tail][head]:
            graph[tail][head]["capacity"] += capacity
    else:
        graph.add_edge(tail, head, capacity=capacity)
