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

from compiler.hardware import Chip, Refusal, Work, refusal, transfer_ms, weights_ms, work
from compiler.hardware.cost import is_free_after, operator_ms, step_ms
from compiler.hardware.work import size
from compiler.ir import Module, Op, TensorType, Value
from passes.place_bounds import Flow, settle, stretches

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
        work: what each operator has to do.
        ms: the estimated time of each operator on its unit; 0 for what a unit does while it writes the operator before.
        segments: runs of one unit, in an order that leaves a unit as seldom as the graph allows greedily.
        moved_ms: the estimated time of handing values from unit to unit.
        calls_ms: the estimated time of starting the segments.
        steps_ms: the estimated time that units take from operator to operator. It has no part in the choice of units,
            for which Core ML's estimates have no such time.
        stream_ms: by how much streaming weights exceeds the time of the operators that use them.
    """

    chip: Chip
    wanted: str
    unit: dict[Op, str] = field(default_factory=dict)
    refused: dict[Op, Refusal] = field(default_factory=dict)
    work: dict[Op, Work] = field(default_factory=dict)
    ms: dict[Op, float] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    moved_ms: float = 0.0
    calls_ms: float = 0.0
    steps_ms: float = 0.0
    stream_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """The estimated time of one prediction."""
        return sum(self.ms.values()) + self.moved_ms + self.calls_ms + self.steps_ms + self.stream_ms


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
    placed.work = problem.work
    for op, unit in placed.unit.items():
        source = op.operands[0].op if op.operands and op.operands[0] is not None else None
        free = source is not None and placed.unit.get(source) == unit and is_free_after(op, unit)
        placed.ms[op] = 0.0 if free else problem.ms[unit][op]
    placed.segments = list(segments(placed.unit))
    placed.moved_ms = sum(transfer_ms(_bytes(v), chip) for v in problem.crossing(placed.unit))
    # Starting the CPU is free: the program that asks runs there.
    placed.calls_ms = chip.dispatch_ms * sum(s.unit != HOST for s in placed.segments)
    placed.steps_ms = sum(step_ms(unit) for unit in placed.unit.values())
    for segment in placed.segments:
        streamed = weights_ms(sum(placed.work[o].weights for o in segment.ops), segment.unit, chip)
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
        self.known = set(self.ops)
        self.terminator = block.terminator
        self.inputs: dict[Value, None] = dict.fromkeys(block.arguments)
        self.refused: dict[Op, Refusal] = {}
        if "ane" in units:
            for op in self.ops:
                why = refusal(op, chip, ios)
                if why is not None:
                    self.refused[op] = why
        self.work = {op: work(op) for op in self.ops}
        every = dict.fromkeys((*self.units, HOST))
        self.ms = {u: {op: operator_ms(op, done, u, chip) for op, done in self.work.items()} for u in every}
        self.free = {u: {op for op in self.ops if is_free_after(op, u)} for u in every}

    def takes(self, unit: str, op: Op) -> bool:
        return unit != "ane" or op not in self.refused

    def solve(self) -> dict[Op, str]:
        """The unit of each operator."""
        if len(self.units) == 1:
            return dict.fromkeys(self.ops, self.units[0])
        first = {op: next(u for u in (HOST, *self.units) if u in self.units) for op in self.ops}
        if len(self.units) == 2 and HOST in self.units:
            return self._two(next(u for u in self.units if u != HOST))
        best, now = self.energy(first), first
        for _ in range(8):  # it settles in two or three rounds
            for unit in self.units:
                tried = self._cut(self.ops, now, unit)
                if self.energy(tried) < best - 1e-12:
                    best, now = self.energy(tried), tried
                    break
            else:
                break
        return now

    def _two(self, unit: str) -> dict[Op, str]:
        """The cheapest labelling with the host's unit and ``unit``: bounds first, a cut for what they leave open."""
        gain = {op: self._ms(HOST, op) - self._ms(unit, op) for op in self.ops if self.takes(unit, op)}
        flows: list[Flow[Op]] = []
        for value, home, users in self._flows():
            near = tuple(dict.fromkeys(u for u in users if u is not None and u in gain))
            fixed = any(e is None or e not in gain for e in (home, *users))
            if near or (home in gain and fixed):
                flows.append(Flow(home if home in gain else None, near, fixed, self._transfer(value)))
        labels = dict.fromkeys(self.ops, HOST)
        for ops, values in stretches(list(gain), flows):
            moved, open_parts = settle(ops, values, gain)
            tried = {**dict.fromkeys(ops, HOST), **dict.fromkeys(moved, unit)}
            for part, _ in open_parts:
                tried.update(self._cut(part, {**labels, **tried}, unit))
            saved = sum(gain[op] for op in ops if tried[op] == unit)
            if saved > sum(f.charge for f in values if _crosses(f, tried)):
                labels.update(tried)
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
        return 0.0 if op in self.free[unit] else self.ms[unit][op]

    def _transfer(self, value: Value) -> float:
        """Handing a value over: a copy, and half of a call, of which each stay on a unit has two ends."""
        return transfer_ms(_bytes(value), self.chip) + self.chip.dispatch_ms / 2

    def _flows(self, near: Collection[Op] | None = None) -> Iterator[tuple[Value, Op | None, list[Op | None]]]:
        """Values with their producer and users, None for the host; only those that touch ``near`` if it is given."""
        known = self.known
        values: dict[Value, Op | None]
        if near is None:
            values = {**dict.fromkeys(self.inputs), **{r: op for op in self.ops for r in op.results}}
        else:
            touched = (v for op in near for o in op.walk() for v in (*o.operands, *o.results) if v is not None)
            values = {v: v.op for v in touched if v.op in known or v in self.inputs}
        for value, home in values.items():
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

    def _cut(self, among: Sequence[Op], now: Mapping[Op, str], unit: str) -> dict[Op, str]:
        """The cheapest labelling in which the operators ``among`` keep their unit or move to ``unit``."""
        import networkx as nx

        keep, move = "keep", "move"
        free = set(among)

        def node(op: Op | None) -> Any:
            """An operator that may move, or the side on which it stays."""
            if op in free:
                return op
            return move if (now[op] if op is not None else HOST) == unit else keep

        graph: Any = nx.DiGraph()
        graph.add_nodes_from((keep, move))
        for op in among:
            # An edge from `move` is cut when the operator keeps its unit, one to `keep` when it moves.
            _edge(graph, move, op, None if now[op] == unit else self._ms(now[op], op))
            _edge(graph, op, keep, self._ms(unit, op) if self.takes(unit, op) else None)
        for i, (value, home, users) in enumerate(self._flows(free)):
            source, ends = node(home), {node(u) for u in users} - {node(home)}
            charge = self._transfer(value)
            if len(ends) == 1:
                (end,) = ends
                _edge(graph, source, end, charge)
                _edge(graph, end, source, charge)
            elif ends:
                # Charged once if the producer moves and any user keeps, and the other way round.
                _edge(graph, source, ("out", i), charge)
                _edge(graph, ("in", i), source, charge)
                for end in ends:
                    _edge(graph, ("out", i), end, None)
                    _edge(graph, end, ("in", i), None)
        _, (moved, _) = nx.minimum_cut(graph, move, keep, flow_func=nx.algorithms.flow.preflow_push)
        return {op: unit if op in moved else now[op] for op in among}


def _crosses(flow: Flow[Op], unit: Mapping[Op, str]) -> bool:
    """Whether a value is needed on another unit than the one that makes it; what is fixed is the host's."""
    units = {unit[n] for n in flow.ends} | ({HOST} if flow.fixed else set())
    return len(units) > 1


def _bytes(value: Value) -> int:
    return size(value.type) if isinstance(value.type, TensorType) else 0


def _outermost(op: Op, known: set[Op]) -> Op | None:
    outer: Op | None = op
    while outer is not None and outer not in known:
        outer = outer.parent
    return outer


def _edge(graph: Any, tail: Any, head: Any, ms: float | None) -> None:
    """Adds capacity to an edge, in whole picoseconds, which add up exactly; None is infinite."""
    known = graph.get_edge_data(tail, head)
    if ms is None:
        graph.add_edge(tail, head)
        graph[tail][head].pop("capacity", None)
    elif known is None:
        graph.add_edge(tail, head, capacity=round(ms * 1e9))
    elif "capacity" in known:
        known["capacity"] += round(ms * 1e9)
