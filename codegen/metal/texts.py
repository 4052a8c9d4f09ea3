"""The texts of a program's kernels: each piece of work once, and those that differ in sizes as one function."""

from __future__ import annotations

from collections.abc import Sequence

from codegen.metal import helpers, variants
from codegen.metal.access import static
from codegen.metal.body import Body
from codegen.metal.by_hand import Handwritten
from codegen.metal.launch import Launch
from codegen.metal.variants import Kernel, Variant
from compiler import ir

HEADER = """#include <metal_stdlib>
using namespace metal;

// Written by planish. A thread computes in float, whatever the buffers hold.
"""


class Texts:
    """Kernels as they are written."""

    def __init__(self) -> None:
        self.kernels: dict[str, Kernel] = {}
        self._names: dict[str, str] = {}  # of kernels by their text

    def add(self, op: ir.Op, parameters: Sequence[str], launch: Launch, body: Body) -> tuple[str, str]:
        """The name of a kernel, which is written unless the same text is there already, and its text without name."""
        listed = [*parameters, *(f"{type_} {name} [[{attribute}]]" for type_, name, attribute in launch.positions)]
        several = sum(map(len, listed)) > 70
        separator = ",\n    " if several else ", "
        head = ("\n    " if several else "") + separator.join(listed) + ("\n" if several else "")
        lines = "\n".join([*launch.opening, *body.lines])
        text = f"({head}) {{\n{lines}\n}}\n"
        by_hand = op.attributes["name"]
        found = self._names.get(by_hand + text)
        if found is not None:
            return found, text
        stem = f"{by_hand or op.attributes['kind']}_{'x'.join(map(str, static(op.results[0])))}"
        name, count = stem, 1
        while name in self.kernels:
            count += 1
            name = f"{stem}_{count}"
        self._names[by_hand + text] = name
        self.kernels[name] = Kernel(name, comment(op), head, lines, alone=bool(by_hand))
        return name, text

    def source(self, hand: Handwritten | None) -> tuple[str, dict[str, Variant]]:
        """The whole file, in which the user's kernels stand first, so that their lines keep their numbers.

        Returns:
            It, and how the kernels come from functions of other names.
        """
        ours = [k for k in self.kernels.values() if hand is None or k.name not in hand.kernels]
        declarations, texts, found = variants.merged(ours)
        body = "".join(texts)
        if hand is None:
            return HEADER + declarations + helpers.used_by(body) + body, found
        return f"{hand.text.rstrip()}\n{declarations}{helpers.used_by(body, hand.text)}{body}", found


def comment(op: ir.Op) -> str:
    """What a kernel computes: the operators in it with their result types, and the model's nodes."""
    inner = [
        f"{o.name.removeprefix('metal.')} {'×'.join(map(str, static(o.result)))}" if len(o.results) == 1 else o.name
        for o in op.regions[0].ops
        if not o.defn.terminator and o.defn.constant is None
    ]
    nodes = ", ".join(op.loc.nodes[:6]) + (" …" if len(op.loc.nodes) > 6 else "")
    lines, line = [], "//"
    for word in [*(f"{w}," for w in inner[:-1]), inner[-1]]:
        if len(line) + len(word) > 110:
            lines.append(line)
            line = "//"
        line += f" {word}"
    lines.append(line)
    if nodes:
        lines.append(f"// nodes: {nodes}".replace("\n", " ")[:160])
    return "\n".join(lines)
