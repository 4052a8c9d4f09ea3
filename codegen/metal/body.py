"""The text of a kernel: an element of any value in it, computed where it is needed.

:meth:`Body.element` walks from a value to the kernel's operands. A function of one element becomes a statement, a
movement changes the index and leaves no trace, an operand becomes a load. Arithmetic is in float whatever is stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from codegen.metal import index
from codegen.metal.index import Atom, Index
from compiler import ir
from compiler.dialects.metal import MOVEMENT, POINTWISE
from compiler.errors import UnsupportedError

#: How functions of one element are spelled in MSL. tanh is precise: the fast one gives NaN for large numbers.
SPELLED = {
    "neg": "-{0}", "abs": "abs({0})", "sign": "sign({0})", "floor": "floor({0})", "ceil": "ceil({0})",
    "rint": "rint({0})", "exp": "exp({0})", "log": "log({0})", "sqrt": "sqrt({0})", "rsqrt": "rsqrt({0})",
    "reciprocal": "1.0f / {0}", "erf": "erf_of({0})", "sin": "sin({0})", "cos": "cos({0})", "tan": "tan({0})",
    "asin": "asin({0})", "acos": "acos({0})", "atan": "atan({0})", "sinh": "sinh({0})", "cosh": "cosh({0})",
    "tanh": "precise::tanh({0})", "asinh": "asinh({0})", "acosh": "acosh({0})", "atanh": "atanh({0})",
    "not": "!{0}", "copy": "{0}", "add": "{0} + {1}", "sub": "{0} - {1}", "mul": "{0} * {1}", "div": "{0} / {1}",
    "pow": "pow({0}, {1})", "max": "max({0}, {1})", "min": "min({0}, {1})", "less": "{0} < {1}",
    "less_equal": "{0} <= {1}", "equal": "{0} == {1}", "is_nan": "isnan({0})", "is_inf": "isinf({0})",
    "select": "{0} ? {1} : {2}", "and": "{0} & {1}", "or": "{0} | {1}", "xor": "{0} ^ {1}",
}  # fmt: skip

_INTEGERS = {"remainder": "{0} % {1}", "floor_mod": "(({0} % {1}) + {1}) % {1}"}
_FLOATS = {"remainder": "fmod({0}, {1})", "floor_mod": "{0} - floor({0} / {1}) * {1}"}


@dataclass(frozen=True, slots=True)
class Access:
    """How a tensor lies in a buffer of MSL type ``store``: element ``i`` at ``offset + Σ stride · i``, in elements.

    ``width`` elements are loaded as one; all else counts in such vectors. Elements of ``nibble`` and ``signed_nibble``
    are halves of bytes.
    """

    name: str
    shape: tuple[int, ...]
    store: str
    strides: tuple[int, ...]
    offset: int = 0
    width: int = 1

    @property
    def pointee(self) -> str:
        """The MSL type that the kernel's pointer is to."""
        if self.store.endswith("nibble"):
            return f"uchar{self.width // 2}" if self.width > 1 else "uchar"
        return f"{self.store}{self.width}" if self.width > 1 else self.store

    def load(self, where: Sequence[Index]) -> str:
        """What stands there, as it is stored."""
        if self.store.endswith("nibble"):
            at = self.at(where).text
            return f"{self.store}s({self.name}[{at}])" if self.width > 1 else f"{self.store}({self.name}, {at})"
        return f"{self.name}[{self.at(where).text}]"

    def at(self, where: Sequence[Index]) -> Index:
        out = index.of(self.offset)
        for i, s in zip(where, self.strides, strict=True):
            out = out + i * s
        return out


def quantized(value: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value | None] | None:
    """The integers, the scale and the zero point of a constant that is stored quantized; None of another value."""
    op = value.op
    if op is None or op.name != "metal.dequantize":
        return None
    x, scale, zero = (*op.operands, None)[:3]
    assert x is not None
    assert scale is not None
    return x, scale, zero


def register_type(type_: ir.Type) -> str:
    """The MSL type of an element while it is computed with."""
    assert isinstance(type_, ir.TensorType)
    if type_.dtype.is_float:
        return "float"
    if type_.dtype is ir.BOOL:
        return "bool"
    if type_.dtype.is_integer:
        return "int"
    raise UnsupportedError(f"Metal kernels have no elements of {type_.dtype}", "--target cpu")


def static(value: ir.Value) -> tuple[int, ...]:
    """The shape of a value, which fusion has seen to be known."""
    assert isinstance(value.type, ir.TensorType)
    return value.type.static_shape


class Body:
    """Statements, indented as they nest, and the elements that were computed, so that none is computed twice."""

    def __init__(self, accesses: dict[ir.Value, Access]) -> None:
        self.accesses = accesses
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
        if len(at.terms) == 1 and at.terms[0][1] == 1 and not at.constant:
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
            return self._moved(op, where)
        if op.name not in POINTWISE:
            raise UnsupportedError(f"no Metal kernel computes {op.name} inside another", "--target cpu")
        return self._named(op, [self.element(v, _broadcast(v, where)) for v in op.operands if v is not None])

    def _named(self, op: ir.Op, operands: Sequence[str]) -> str:
        short = op.name.removeprefix("metal.")
        kind = register_type(op.result.type)
        if short == "cast":
            source = op.operands[0]
            assert source is not None
            text = operands[0] if register_type(source.type) == kind else f"{kind}({operands[0]})"
        else:
            table = _FLOATS if kind == "float" else _INTEGERS
            form = table[short] if short in table else SPELLED[short]
            text = form.format(*(f"({o})" if o.startswith("-") else o for o in operands))
        name = self.fresh(f"{short}_" if short in ("and", "or", "xor", "not") else short)
        self.line(f"const {kind} {name} = {text};")
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

    def _dequantized(self, op: ir.Op, where: Sequence[Index]) -> str:
        x, scale, zero = quantized(op.result) or (None, None, None)
        assert x is not None
        assert scale is not None
        axis, block = op.attributes["axis"], op.attributes["block"]
        at = [] if not static(scale) else [where[axis]]
        if block:
            at = [i // block if d == axis else i for d, i in enumerate(where)]
        text = f"float({self.element(x, where)})"
        if zero is not None:
            text = f"({text} - {self.element(zero, at)})"
        name = self.fresh("dequantized")
        self.line(f"const float {name} = {text} * {self.element(scale, at)};")
        return name

    def _moved(self, op: ir.Op, where: Sequence[Index]) -> str:
        x = op.operands[0]
        assert x is not None
        a = op.attributes
        match op.name:
            case "metal.reshape":
                return self.element(x, index.unravel(index.linear(where, static(op.result)), static(x)))
            case "metal.transpose":
                back = [Index()] * len(where)
                for i, p in zip(where, a["perm"], strict=True):
                    back[p] = i
                return self.element(x, back)
            case "metal.broadcast":
                return self.element(x, _broadcast(x, where))
            case "metal.slice":
                moved = [i * t + s for i, s, t in zip(where, a["starts"], a["steps"], strict=True)]
                return self.element(x, moved)
            case "metal.strided":
                flat = sum((i * s for i, s in zip(where, a["strides"], strict=True)), index.of(a["start"]))
                return self.element(x, index.unravel(flat, static(x)))
            case "metal.pad":
                return self._padded(op, x, where)
            case "metal.concat":
                return self._side_by_side(op, where)
            case "metal.gather":
                return self._gathered(op, x, where)
            case "metal.gather_elements":
                axis = a["axis"]
                row = self._row(op, where, static(x)[axis])
                return self.element(x, [*where[:axis], row, *where[axis + 1 :]])
            case "metal.gather_nd":
                return self._gathered_nd(op, x, where)
            case "metal.dequantize":
                return self._dequantized(op, where)
        raise UnsupportedError(f"no Metal kernel reads through {op.name} yet", "--target cpu")

    def _padded(self, op: ir.Op, x: ir.Value, where: Sequence[Index]) -> str:
        if op.attributes["mode"] not in ("constant", "edge", "reflect"):
            raise UnsupportedError(f"no Metal kernel pads by '{op.attributes['mode']}'", "--target cpu")
        inside, at = [], []
        for i, b, n in zip(where, op.attributes["before"], static(x), strict=True):
            j = i - b
            low, high = j.bounds
            inside += [f"{j.text} >= 0"] if low < 0 else []
            inside += [f"{j.text} < {n}"] if high >= n else []
            if op.attributes["mode"] == "reflect" and (low < 0 or high >= n):
                text = f"({n - 1} - abs({n - 1} - abs({j.text})))"
                at.append(index.ranged(text, 0, n - 1))
            else:
                at.append(j.clamped(0, n - 1))
        value = self.element(x, at)
        if op.attributes["mode"] != "constant" or not inside:
            return value
        kind = register_type(op.result.type)
        name = self.fresh("padded")
        fill = literal(np.array(op.attributes["value"], np.float32 if kind == "float" else np.int32))
        self.line(f"const {kind} {name} = ({' && '.join(inside)}) ? {value} : {fill};")
        return name

    def _side_by_side(self, op: ir.Op, where: Sequence[Index]) -> str:
        axis = op.attributes["axis"]
        kind = register_type(op.result.type)
        name = self.fresh("part")
        at, text = 0, ""
        for v in op.operands:
            assert v is not None
            n = static(v)[axis]
            inner = [*where[:axis], (where[axis] - at).clamped(0, n - 1), *where[axis + 1 :]]
            value = self.element(v, inner)
            at += n
            text += value if v is op.operands[-1] else f"{where[axis].text} < {at} ? {value} : "
        self.line(f"const {kind} {name} = {text};")
        return name

    def _gathered(self, op: ir.Op, x: ir.Value, where: Sequence[Index]) -> str:
        axis, chosen = op.attributes["axis"], op.operands[1]
        assert chosen is not None
        r = len(static(chosen))
        row = self._row(op, where[axis : axis + r], static(x)[axis])
        return self.element(x, [*where[:axis], row, *where[axis + r :]])

    def _gathered_nd(self, op: ir.Op, x: ir.Value, where: Sequence[Index]) -> str:
        """Rows of indices: the last dimension of the indices names the first ones of ``x`` behind the batch's."""
        chosen, batch = op.operands[1], op.attributes["batch_dims"]
        assert chosen is not None
        *outer, depth = static(chosen)
        r = len(outer)
        at = [self._row(op, [*where[:r], index.of(k)], static(x)[batch + k]) for k in range(depth)]
        return self.element(x, [*where[:batch], *at, *where[r:]])

    def _row(self, op: ir.Op, where: Sequence[Index], size: int) -> Index:
        """An element of the indices, counted from the end where it is negative."""
        chosen = op.operands[1]
        assert chosen is not None
        row = self.element(chosen, where)
        name = self.fresh("row")
        self.line(f"const int {name} = {row} < 0 ? {row} + {size} : {row};")
        return Index(((Atom(name, 0, size - 1), 1),)) if size > 1 else Index()

    def finish(self, anchor: ir.Value | None, where: Sequence[Index], value: str, root: ir.Value, out: Access) -> None:
        """Computes what stands behind the anchor's element and stores it."""
        at = list(where)
        if anchor is not None:
            self.stand_ins = {anchor: value}
            block = root.op.block if root.op is not None else None
            assert block is not None
            places: dict[ir.Value, list[Index]] = {anchor: at}
            for op in block.ops:
                chain = [v for v in op.operands if v in places]
                if not chain or op.defn.terminator:
                    continue
                first = chain[0]
                assert first is not None
                here = places[first]
                if op.name == "metal.transpose":
                    here = [here[p] for p in op.attributes["perm"]]
                    self.stand_ins[op.result] = self.stand_ins[first]
                elif op.name == "metal.reshape":
                    here = list(index.unravel(index.linear(here, static(first)), static(op.result)))
                    self.stand_ins[op.result] = self.stand_ins[first]
                else:
                    operands = [self.element(v, _broadcast(v, here)) for v in op.operands if v is not None]
                    self.stand_ins[op.result] = self._named(op, operands)
                places[op.result] = here
            at, value = places[root], self.stand_ins[root]
        else:
            value = self.element(root, at)
        stored = value if out.store == register_type(root.type) else f"{out.store}({value})"
        self.line(f"{out.name}[{out.at(at).text}] = {stored};")
        self.stand_ins = {}


def zero(width: int) -> str:
    """Nothing, as a float or as so many."""
    return f"float{width}(0.0f)" if width > 1 else "0.0f"


def literal(value: object) -> str:
    """A number in MSL."""
    v = np.asarray(value).reshape(())[()]
    if isinstance(v, (bool, np.bool_)):
        return str(bool(v)).lower()
    if np.asarray(v).dtype.kind in "iu":
        whole = int(np.clip(int(v), -(2**31), 2**31 - 1))
        # There is no literal for the least int: a minus is an operator, and 2147483648 is none.
        return "(-2147483647 - 1)" if whole == -(2**31) else str(whole)
    f = float(v)
    if math.isinf(f):
        return "-INFINITY" if f < 0 else "INFINITY"
    if math.isnan(f):
        return "NAN"
    text = repr(float(np.format_float_positional(np.float32(f)))) if abs(f) < 1e7 else repr(f)
    return f"{text}f"


def _broadcast(value: ir.Value | None, where: Sequence[Index]) -> list[Index]:
    """The index of an operand that broadcasts to the shape that ``where`` is an index of."""
    assert value is not None
    shape = static(value)
    kept = where[len(where) - len(shape) :]
    return [Index() if n == 1 else i for n, i in zip(shape, kept, strict=True)]
