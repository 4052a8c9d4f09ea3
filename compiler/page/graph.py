"""A module as a drawing: nodes with what one wants to know of them, edges, and where they stand on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.ir import Module, Op, TensorType, Value
from compiler.report import counts_as_op, short

#: Sizes in the drawing's units: a node, and the distance from row to row and from node to node.
WIDTH, HEIGHT, ROW, GAP = 132, 30, 58, 18

#: How often the rows are ordered anew by the rows before and behind them.
SWEEPS = 4


@dataclass(slots=True)
class Node:
    """A box: an operator, or an input or output of the function.

    Attributes:
        label: what stands in it.
        name: the source node's name, or the input's.
        facts: further lines for whoever points at it, by title.
        x, y: its middle.
    """

    label: str
    name: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    x: float = 0.0
    y: float = 0.0


@dataclass(slots=True)
class Drawing:
    """Nodes, edges as pairs of their numbers, and which operator is which node."""

    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    number: dict[Op, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For the page's script: lists, not objects, since large graphs repeat their keys ten thousand times."""
        return {
            "nodes": [[n.label, n.name, round(n.x), round(n.y), n.facts] for n in self.nodes],
            "edges": [list(e) for e in self.edges],
            "size": [WIDTH, HEIGHT],
        }


def draw(module: Module) -> Drawing:
    """The main function's operators; constants are left out, and operators inside regions belong to the one around."""
    main = module.main
    drawing = Drawing()
    source: dict[Value, int] = {}
    for argument in main.inputs:
        source[argument] = len(drawing.nodes)
        drawing.nodes.append(Node("input", argument.name, {"type": str(argument.type)}))
    for op in main.block.ops:
        if not counts_as_op(op):
            continue
        number = len(drawing.nodes)
        drawing.number[op] = number
        drawing.nodes.append(Node(short(op), op.loc.nodes[0] if op.loc.nodes else "", _facts(op)))
        used = {v for o in op.walk() for v in o.operands if v is not None and v in source}
        drawing.edges += [(a, number) for a in dict.fromkeys(sorted(source[v] for v in used))]
        source.update(dict.fromkeys(op.results, number))
    for name, value in zip(main.output_names, main.outputs, strict=True):
        number = len(drawing.nodes)
        drawing.nodes.append(Node("output", name, {"type": str(value.type)}))
        if value in source:
            drawing.edges.append((source[value], number))
    arrange(drawing)
    return drawing


def arrange(drawing: Drawing) -> None:
    """Places the nodes in rows, each below all that it needs, ordered by the middle of their neighbours.

    Rows by longest path and order by barycentres are the first steps of Sugiyama, Tagawa and Toda, "Methods for visual
    understanding of hierarchical system structures" (1981).
    """
    count = len(drawing.nodes)
    before: list[list[int]] = [[] for _ in range(count)]
    behind: list[list[int]] = [[] for _ in range(count)]
    row = [0] * count
    for a, b in drawing.edges:  # edges run forward, since operators stand in order
        before[b].append(a)
        behind[a].append(b)
        row[b] = max(row[b], row[a] + 1)
    for i in range(count):  # what only feeds one place stands right before it
        if not before[i] and behind[i]:
            row[i] = max(row[i], min(row[j] for j in behind[i]) - 1)
    rows: list[list[int]] = [[] for _ in range(max(row, default=0) + 1)]
    for i in range(count):
        rows[row[i]].append(i)
    x = [0.0] * count
    for members in rows:
        _spread(members, [float(j) for j in range(len(members))], x)
    for sweep in range(SWEEPS):
        near, order = (before, rows) if sweep % 2 == 0 else (behind, rows[::-1])
        for members in order:
            wanted = [_middle(near[i], x, x[i]) for i in members]
            ranked = sorted(range(len(members)), key=lambda j: (wanted[j], j))
            members[:] = [members[j] for j in ranked]
            _spread(members, [wanted[j] for j in ranked], x)
    for i, node in enumerate(drawing.nodes):
        node.x, node.y = x[i], float(row[i] * ROW)


def _middle(near: Sequence[int], x: Sequence[float], otherwise: float) -> float:
    return sum(x[j] for j in near) / len(near) if near else otherwise


def _spread(members: Sequence[int], wanted: Sequence[float], x: list[float]) -> None:
    """Gives each member of a row the place it wants, as near as the distance between nodes allows."""
    step = WIDTH + GAP
    place = -math.inf
    for i, want in zip(members, wanted):
        place = max(want, place + step)
        x[i] = place
    if members:
        shift = sum(want - x[i] for i, want in zip(members, wanted)) / len(members)
        for i in members:
            x[i] += shift


def _facts(op: Op) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    flowing = [str(v.type) for v in op.operands if v is not None and not _is_constant(v)]
    if flowing:
        facts["takes"] = ", ".join(flowing)
    facts["gives"] = ", ".join(str(r.type) for r in op.results)
    attributes = {k: _spelled(v) for k, v in op.attributes.items() if v is not None and _spelled(v)}
    if attributes:
        facts["attributes"] = ", ".join(f"{k} = {v}" for k, v in attributes.items())
    if len(op.loc.nodes) > 1:
        facts["made of"] = f"{len(op.loc.nodes)} nodes: {', '.join(op.loc.nodes[:6])}"
    if op.loc.rules:
        facts["rules"] = " < ".join(reversed(op.loc.rules))
    return facts


def _is_constant(value: Value) -> bool:
    return value.op is not None and not counts_as_op(value.op)


def _spelled(value: Any) -> str:
    """A short attribute as text; arrays and long lists are left out."""
    if isinstance(value, (bool, int, float, str)) or (isinstance(value, tuple) and len(value) <= 8):
        return str(value)[:60]
    return ""


def weights_by_layer(module: Module, stored: Mapping[Op, int]) -> list[tuple[str, str, int, str]]:
    """Operator, source node, bytes and shape of the weights, largest first."""
    rows = []
    for op, size in stored.items():
        if size:
            shapes = [str(v.type) for v in op.operands if v is not None and _is_constant(v) and _is_large(v)]
            rows.append((short(op), op.loc.nodes[0] if op.loc.nodes else "", size, ", ".join(shapes)))
    return sorted(rows, key=lambda r: -r[2])


def _is_large(value: Value) -> bool:
    return isinstance(value.type, TensorType) and bool(value.type.shape) and (value.type.size or 0) > 1
