"""The order of a graph's nodes: the file's own where that works, else the topological order nearest to it."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from onnx import AttributeProto, GraphProto, NodeProto


class Names(Protocol):
    """A set of names."""

    def __contains__(self, name: str, /) -> bool: ...


class CycleError(ValueError):
    """Nodes that wait for each other, in order."""

    def __init__(self, nodes: Sequence[NodeProto]) -> None:
        super().__init__("a cycle of nodes")
        self.nodes = list(nodes)


def uses(node: NodeProto) -> Iterator[str]:
    """The names of the values that a node needs, those that its subgraphs take from outside included."""
    yield from (n for n in node.input if n)
    for a in node.attribute:
        for graph in [a.g] if a.type == AttributeProto.GRAPH else a.graphs:
            yield from _captured(graph)


def _captured(graph: GraphProto) -> Iterator[str]:
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    own.update(t.values.name for t in graph.sparse_initializer)
    own.update(o for node in graph.node for o in node.output)
    for node in graph.node:
        yield from (n for n in uses(node) if n not in own)
    yield from (o.name for o in graph.output if o.name not in own)


def in_order(nodes: Sequence[NodeProto], known: Names) -> Sequence[NodeProto]:
    """``nodes`` such that each comes after those whose results it uses.

    Args:
        known: the names of inputs and initializers, and of what lies around the graph.

    Returns:
        ``nodes`` itself if it is in order.

    Raises:
        CycleError: there is no such order.
    """
    made: set[str] = set()
    for node in nodes:
        # Few nodes have attributes, and fewer have subgraphs: what others use are their inputs.
        for name in uses(node) if node.attribute else node.input:
            if name not in made and name and name not in known:
                return _sorted(nodes, known)
        made.update(node.output)
    return nodes


def _sorted(nodes: Sequence[NodeProto], known: Names) -> Sequence[NodeProto]:
    produced: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for o in node.output:
            produced.setdefault(o, i)
    needs = [{produced[n] for n in uses(node) if n in produced and n not in known} for node in nodes]
    followers: list[list[int]] = [[] for _ in nodes]
    waiting = [len(needed) for needed in needs]
    for i, needed in enumerate(needs):
        for j in needed:
            followers[j].append(i)
    ready = [i for i, n in enumerate(waiting) if n == 0]
    heapq.heapify(ready)
    out = []
    while ready:
        i = heapq.heappop(ready)
        out.append(nodes[i])
        for j in followers[i]:
            waiting[j] -= 1
            if waiting[j] == 0:
                heapq.heappush(ready, j)
    if len(out) < len(nodes):
        raise CycleError([nodes[i] for i in _cycle(needs, waiting)])
    return out


def _cycle(needs: Sequence[Collection[int]], waiting: Sequence[int]) -> list[int]:
    """Nodes along one cycle: walking back from any that still waits must come round."""
    at = next(i for i, n in enumerate(waiting) if n)
    path: dict[int, int] = {}
    while at not in path:
        path[at] = len(path)
        at = min(j for j in needs[at] if waiting[j])
    return [i for i, place in path.items() if place >= path[at]][::-1]
