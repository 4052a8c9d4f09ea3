"""The cheapest choice between two arrangements for each of many tensors: a minimum cut, by networkx."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from passes.layout.axes import Arrangement


class Terms:
    """What choices cost: of one tensor, and of pairs of them. Choice 0 keeps, choice 1 takes the other arrangement."""

    def __init__(self) -> None:
        self.alone: dict[int, list[float]] = {}
        self.pairs: dict[tuple[int, int], float] = {}

    def one(self, a: int, keep: float, take: float) -> None:
        have = self.alone.setdefault(a, [0.0, 0.0])
        have[0] += keep
        have[1] += take

    def two(self, a: int, b: int, c00: float, c01: float, c10: float, c11: float) -> None:
        """A pair's costs, ``c01`` where ``a`` keeps and ``b`` takes.

        They are put as E = c00 + (c10 - c00)·a + (c11 - c10)·b + (c01 + c10 - c00 - c11)·(1 - a)·b (Kolmogorov and
        Zabih, "What energy functions can be minimized via graph cuts?", 2004). Where the last factor would be negative,
        it is taken for zero; what the cut proposes is kept only if it costs less.
        """
        self.one(a, c00, c10)
        self.one(b, 0.0, c11 - c10)
        both = c01 + c10 - c00 - c11
        if both > 0:
            self.pairs[a, b] = self.pairs.get((a, b), 0.0) + both


def expand(label: Sequence[Arrangement], other: Mapping[int, Arrangement], terms: Terms) -> list[Arrangement]:
    """The labels after the best of all moves in which any set of tensors takes its arrangement in ``other`` at once."""
    out = list(label)
    for tensor in _taking(terms):
        out[tensor] = other[tensor]
    return out


def _taking(terms: Terms) -> set[int]:
    import networkx as nx

    graph = nx.Graph()
    graph.add_nodes_from(terms.alone)
    graph.add_edges_from(terms.pairs)
    leaving: dict[int, list[tuple[int, float]]] = {}
    for (a, b), weight in terms.pairs.items():
        leaving.setdefault(a, []).append((b, weight))
    taking: set[int] = set()
    for component in nx.connected_components(graph):
        better = [t for t in component if terms.alone[t][1] < terms.alone[t][0]]
        worse = any(terms.alone[t][1] > terms.alone[t][0] for t in component)
        if not better:
            continue
        taking.update(_cut(component, terms, leaving) if worse and len(component) > 1 else better)
    return taking


def _cut(component: set[int], terms: Terms, leaving: Mapping[int, Sequence[tuple[int, float]]]) -> set[int]:
    """The tensors on the side of the sink, which take: an edge a → b is cut where a keeps and b takes."""
    import networkx as nx
    from networkx.algorithms.flow import boykov_kolmogorov

    net = nx.DiGraph()
    for t in component:
        keep, take = terms.alone[t]
        least = min(keep, take)
        net.add_edge("keep", t, capacity=take - least)
        net.add_edge(t, "take", capacity=keep - least)
        for other, weight in leaving.get(t, ()):
            net.add_edge(t, other, capacity=weight)
    _, (_, sink) = nx.minimum_cut(net, "keep", "take", flow_func=boykov_kolmogorov)
    return {t for t in sink if t != "take"}
