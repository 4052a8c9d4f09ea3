"""The text of a kernel: an element of any value in it, computed where it is needed.

:meth:`Body.element` walks from a value to the kernel's operands. A function of one element becomes a statement, a
movement changes the index and leaves no trace, an operand becomes a load. Arithmetic is in float whatever is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from codegen.metal import index, movement
from codegen.metal.access import Access, quantized, register_type, static
from codegen.metal.index import Index
from codegen.metal.spelling import literal, spelled
from compiler import ir
from compiler.dialects.metal import MOVEMENT, POINTWISE
from compiler.errors import UnsupportedError

#: Writes the statements for an element of an operator's result, and gives an expression for it.
Element = Callable[["Body", ir.Op, Sequence[Index]], str]


class Body:
    """Statements, indented as they nest, and the elements that were computed, so that none is computed twice."""

    def __init__(self, accesses: dict[ir.Value, Access], elements: Mapping[str, Element] | None = None) -> None:
        """A body without statements.

        Args:
            accesses: where the kernel's operands lie.
            elements: what writes an element of the result of other operators than functions and movements, by name.
        """
        self.accesses = accesses
        self.elements = elements or {}
        self.lines: list[str] = []
        self.depth = 1
        self.known: list[dict[tuple[ir.Value, str], str]] = [{}]
        self.shown: list[bool] = []  # of the blocks that are open: whether they stand in the text
        self.count = 0
        self.stand_ins: dict[ir.Value, str] = {}

    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def open(self, text: str) -> None:
        """Starts a block; what is computed in it is forgotten when it ends."""
        self.line(text + " {")
        self.depth += 1
        self.known.append({})
        self.shown.append(True)

    def close(self) -> None:
        self.known.pop()
        if self.shown.pop():
            self.depth -= 1
            self.line("}")

    def loop(self, name: str, size: int, always: bool = False) -> Index:
        """Starts a loop over ``0 … size - 1`` and gives its variable; one turn needs no loop, unless ``always``."""
        if size == 1 and not always:
            self.known.append({})
            self.shown.append(False)
        else:
            self.open(f"for (int {name} = 0; {name} < {size}; ++{name})")
        return index.variable(name, size)

    def named(self, name: str, at: Index) -> Index:
        """The index in a variable of that name, where it is no variable or number already."""
        low, high = at.bounds
        if low == high or (len(at.terms) == 1 and at.terms[0][1] == 1 and at.terms[0][0].kind == "var"):
            return at
        text = at.text
        if len(at.terms) == 1 and at.terms[0][1] == 1 and not at.constant and text.startswith("("):
            text = text.removeprefix("(").removesuffix(")")
        self.line(f"const int {name} = {text};")
        return index.ranged(name, low, high)

    def fresh(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def element(self, value: ir.Value, where: Sequence[Index]) -> str:
        """An expression for the element of ``value`` at an index; a name, a literal or a load."""
        if value in self.stand_ins:
            return self.stand_ins[value]
        key = (value, ",".join(i.text for i in where))
        for scope in self.known:
            if key in scope:
                return scope[key]
        text = self._element(value, where)
        self.known[-1][key] = text
        return text

    def _element(self, value: ir.Value, where: Sequence[Index]) -> str:
        op = value.op
        if value.constant is not None:
            return literal(value.constant.reshape(-1)[0])
        if op is None:
            return self._load(value, where)
        if op.name in MOVEMENT:
            return movement.element(self, op, where)
        if op.name in self.elements:
            return self.elements[op.name](self, op, where)
        if op.name not in POINTWISE:
            raise UnsupportedError(f"no Metal kernel computes {op.name} inside another", "--target cpu")
        return self._named(op, [self.element(v, movement.broadcast(v, where)) for v in op.operands if v is not None])

    def _named(self, op: ir.Op, operands: Sequence[str]) -> str:
        short = op.name.removeprefix("metal.")
        text = spelled(op, operands)
        name = self.fresh(f"{short}_" if short in ("and", "or", "xor", "not") else short)
        self.line(f"const {register_type(op.result.type)} {name} = {text};")
        return name

    def _load(self, value: ir.Value, where: Sequence[Index]) -> str:
        access = self.accesses[value]
        kind = register_type(value.type)
        if access.width > 1:  # neighbours along the last dimension lie in a vector
            vector = access.load([*where[:-1], where[-1] // access.width])
            return f"float({vector}[{(where[-1] % access.width).text}])"
        text = access.load(where)
        return text if access.store == kind or access.store.endswith("nibble") else f"{kind}({text})"

    def vector(self, value: ir.Value, where: Sequence[Index], scales: Sequence[Index] = ()) -> str:
        """An expression for as many neighbours as an operand is loaded by; ``where`` and ``scales`` are in vectors.

        Args:
            scales: where the scale and the zero point of a dequantized constant lie; see :func:`quantized`.
        """
        constant = quantized(value)
        access = self.accesses[constant[0] if constant else value]
        kind = f"float{access.width}"
        text = f"{kind}({access.load(where)})"
        if constant is None:
            return text
        _, scale, shift = constant
        if shift is not None:
            text = f"({text} - {self._scale(shift, scales, 'zero')})"
        return f"{text} * {self._scale(scale, scales, 'scale')}"

    def hoist(self, value: ir.Value, scales: Sequence[Index]) -> None:
        """Loads the scale and the zero point of a dequantized constant now, for :meth:`vector` to use."""
        for v, stem in zip((quantized(value) or ())[1:], ("scale", "zero"), strict=False):
            if v is not None:
                self._scale(v, scales, stem)

    def _scale(self, value: ir.Value, where: Sequence[Index], stem: str) -> str:
        access = self.accesses.get(value)
        if access is None or access.width == 1:
            return self.element(value, where)
        key = (value, ",".join(i.text for i in where))
        for scope in self.known:
            if key in scope:
                return scope[key]
        kind = f"float{access.width}"
        self.line(f"const {kind} {stem} = {kind}({access.load(where)});")
        self.known[-1][key] = stem
        return stem

    def follow(self, start: ir.Value, where: Sequence[Index], value: str, end: ir.Value) -> tuple[list[Index], str]:
        """Computes ``end``, each element of which depends on one of ``start``: where that lies, and what it is.

        A slice on the way opens a block, for the caller to close, in which the element lies in that part.
        """
        self.stand_ins = {start: value}
        places: dict[ir.Value, list[Index]] = {start: list(where)}
        for op in between(start, end):
            first = next(v for v in op.operands if v is not None and v in places)
            here = places[first]
            if op.name == "metal.transpose":
                here = [here[p] for p in op.attributes["perm"]]
            elif op.name == "metal.reshape":
                here = list(index.unravel(index.linear(here, static(first)), static(op.result)))
            elif op.name == "metal.slice":
                here = self._part(op, here)
            if op.name in MOVEMENT:
                self.stand_ins[op.result] = self.stand_ins[first]
            else:
                operands = [self.element(v, movement.broadcast(v, here)) for v in op.operands if v is not None]
                self.stand_ins[op.result] = self._named(op, operands)
            places[op.result] = here
        at, text = places[end], self.stand_ins[end]
        self.stand_ins = {}
        return at, text

    def _part(self, op: ir.Op, here: Sequence[Index]) -> list[Index]:
        """Opens a block in which an element lies in a part of a tensor, and says where in it."""
        checks: list[str] = []
        moved: list[Index] = []
        for i, start, step in zip(here, op.attributes["starts"], op.attributes["steps"], strict=True):
            if step > 1:
                checks.append(f"{(i % step).atomic} == {start}")
                moved.append(i // step)
            else:
                moved.append(i - start)
        for i, size in zip(moved, static(op.result), strict=True):
            low, high = i.bounds
            checks += [f"{i.text} >= 0"] * (low < 0) + [f"{i.text} < {size}"] * (high >= size)
        self.open(f"if ({' && '.join(checks) or 'true'})")
        placed = []
        for i, size in zip(moved, static(op.result), strict=True):
            low, high = i.bounds
            if low >= 0 and high < size:
                placed.append(i)
                continue
            name = self.fresh("inner")
            self.line(f"const int {name} = {i.text};")
            placed.append(index.ranged(name, 0, size - 1))
        return placed

    def finish(
        self,
        anchor: ir.Value | None,
        where: Sequence[Index],
        value: str,
        roots: Sequence[ir.Value],
        outs: Sequence[Access],
    ) -> None:
        """Computes what stands behind the anchor's element and stores it."""
        for root, out in zip(roots, outs, strict=True):
            depth = self.depth
            if anchor is not None:
                at, text = self.follow(anchor, where, value, root)
            else:
                at, text = list(where), self.element(root, where)
            stored = text if out.store == register_type(root.type) else f"{out.store}({text})"
            self.line(f"{out.name}[{out.at(at).text}] = {stored};")
            while self.depth > depth:
                self.close()


def between(start: ir.Value, end: ir.Value) -> list[ir.Op]:
    """The operators in order by which ``end`` depends on ``start``."""
    wanted: set[ir.Op] = set()
    stack = [end]
    while stack:
        value = stack.pop()
        if value is not start and value.op is not None and value.op not in wanted:
            wanted.add(value.op)
            stack += [v for v in value.op.operands if v is not None]
    block = end.op.block if end.op is not None else None
    reached, out = {start}, []
    for op in block.ops if block is not None else ():
        if op in wanted and any(v in reached for v in op.operands):
            reached.update(op.results)
            out.append(op)
    return out
