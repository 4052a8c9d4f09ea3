"""Terms → drawings: the graph that a pattern looks for, and the one that stands in its place, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from compiler.rewrite.check_terms import ANY, Node, Term

_ROW, _GAP, _HEIGHT, _CHAR = 44, 34, 26, 7.2


def drawing(roots: Sequence[Term]) -> str:
    """An SVG of what leads to ``roots``, operands on the left; variables are plain, constants have rounded corners."""
    return _Drawing(roots).svg()


class _Drawing:
    def __init__(self, roots: Sequence[Term]) -> None:
        self.layers: dict[object, int] = {}
        self.labels: dict[object, str] = {}
        self.edges: list[tuple[object, object]] = []
        self.kinds: dict[object, str] = {}
        self.roots = [self.place(t) for t in roots]

    def place(self, t: Term) -> object:
        """Gives a term, and all that leads to it, a layer; gives its key."""
        key: object = t.node if t.node is not None else t
        if key in self.layers:
            return key
        self.layers[key] = 0
        if t.node is None:
            self.kinds[key] = "constant" if t.const else "value"
            shown = "" if t.content is None else str(list(t.content) if isinstance(t.content, tuple) else t.content)
            self.labels[key] = t.name or shown or ("constant" if t.const else "any")
            return key
        self.kinds[key] = "operator"
        self.labels[key] = _operator(t.node)
        operands = [self.place(a) for a in t.node.args if a is not None]
        self.edges += [(a, key) for a in operands]
        self.layers[key] = 1 + max((self.layers[a] for a in operands), default=0)
        return key

    def svg(self) -> str:
        columns: dict[int, list[object]] = {}
        for key, layer in self.layers.items():
            columns.setdefault(layer, []).append(key)
        x, at = 4.0, {}
        tallest = max(len(c) for c in columns.values())
        for layer in sorted(columns):
            width = max(_width(self.labels[k]) for k in columns[layer])
            top = (tallest - len(columns[layer])) * _ROW / 2 + 4
            for i, key in enumerate(columns[layer]):
                at[key] = (x, top + i * _ROW, _width(self.labels[key]))
            x += width + _GAP
        parts = []
        for a, b in self.edges:
            (ax, ay, aw), (bx, by, _) = at[a], at[b]
            x1, y1, x2, y2 = ax + aw, ay + _HEIGHT / 2, bx, by + _HEIGHT / 2
            middle = (x1 + x2) / 2
            parts.append(
                f'<path d="M{x1:.0f} {y1:.0f}C{middle:.0f} {y1:.0f} {middle:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"/>'
            )
        for key, (kx, ky, kw) in at.items():
            radius = 13 if self.kinds[key] == "constant" else 3
            root = " root" if key in self.roots else ""
            parts.append(
                f'<rect class="{self.kinds[key]}{root}" x="{kx:.0f}" y="{ky:.0f}" width="{kw:.0f}" height="{_HEIGHT}" '
                f'rx="{radius}"/><text x="{kx + kw / 2:.0f}" y="{ky + 17:.0f}">{escape(self.labels[key])}</text>'
            )
        size = f'viewBox="0 0 {x - _GAP + 6:.0f} {tallest * _ROW:.0f}" width="{x - _GAP + 6:.0f}"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" class="graph" {size}>{"".join(parts)}</svg>'


def _operator(node: Node) -> str:
    name = " / ".join(sorted(n.partition(".")[2] or n for n in node.ops)) or "the same"
    values = [f"{k}={v[0]}" for k, v in node.attrs.items() if v is not ANY and len(v) == 1]
    return f"{name} {' '.join(values)}".strip()[:48]


def _width(label: str) -> float:
    return len(label) * _CHAR + 16
