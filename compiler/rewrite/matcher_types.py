"""Tests of attributes, element types and dimensions, as lines of a matcher."""

from __future__ import annotations

from collections.abc import Iterable

from compiler.ir import DTYPES, UNKNOWN, DType, lookup
from compiler.rewrite import syntax as s
from compiler.rewrite.expressions import local
from compiler.rewrite.functions import DTYPE_CLASSES
from compiler.rewrite.matcher_source import Emitter


def _dtype_set(names: Iterable[str]) -> frozenset[DType]:
    out: set[DType] = set()
    for n in names:
        out |= {DTYPES[n]} if n in DTYPES else {d for d in DTYPES.values() if DTYPE_CLASSES[n](d)}
    return frozenset(out)


class TypeTests(Emitter):
    """Emits the tests of attributes, element types and dimensions."""

    def attributes(self, var: str, p: s.OpPattern) -> None:
        mentioned = {a.name for a in p.attrs if isinstance(a, s.AttrPattern)}
        spread = next((a for a in p.attrs if isinstance(a, s.AttrSpread)), None)
        if p.attrs:
            attrs = self.fresh("t")
            self.emit(f"{attrs} = {var}.attributes")
            for a in p.attrs:
                if isinstance(a, s.AttrPattern):
                    self.attribute(attrs, a)
        if spread is not None:
            self.bound.add(spread.id)
            names = self.refer(frozenset(mentioned), "n") if mentioned else ""
            filtered = f" if k not in {names}" if mentioned else ""
            self.emit(f"{local(spread.id)} = {{k: x for k, x in {var}.attributes.items(){filtered}}}")
        elif any(set(lookup(n).attributes) - mentioned for n in p.names):
            names = self.refer(frozenset(mentioned), "n")
            self.check(
                f"_only({var}, {names})", p.pos, "attributes that the pattern does not mention have their default"
            )

    def attribute(self, attrs: str, a: s.AttrPattern) -> None:
        var = self.fresh("t")
        self.emit(f"{var} = {attrs}.get({a.name!r})")
        tests = []
        for c in a.choices:
            match c.kind:
                case "bind" if c.value in ("true", "false"):
                    tests.append(f"{var} is {c.value.title()}")
                case "bind" if c.value in DTYPES:
                    tests.append(f"{var} is {self.refer(DTYPES[c.value])}")
                case "bind" | "optional" | "default":
                    self.bind_attribute(var, a, c)
                    return
                case "literal":
                    tests.append(f"_same({var}, {self.spelled(c.value)})")
                case _:
                    number, tolerance = c.value
                    tests.append(f"_close({var}, {number!r}, {tolerance!r})")
        self.check(" or ".join(tests), a.pos, f"attribute {a.name}")

    def bind_attribute(self, var: str, a: s.AttrPattern, c: s.AttrChoice) -> None:
        name = c.value[0] if c.kind == "default" else c.value
        if name == "_":  # any value, or none: one is not compared with another
            return
        if c.kind == "bind":
            self.check(f"{var} is not None", a.pos, f"attribute {a.name} is given")
        elif c.kind == "default":
            self.emit(f"if {var} is None: {var} = {self.spelled(c.value[1])}")
        if name in self.bound:
            self.check(f"_same({var}, {local(name)})", a.pos, f"attribute {a.name} equals '{name}'")
        else:
            self.emit(f"{local(name)} = {var}")
            self.bound.add(name)

    def variadic_constraint(self, rest: s.VariadicPattern) -> None:
        assert rest.constraint is not None
        c = rest.constraint
        tests = ["x is not None"]
        if c.const:
            tests.append("x.constant is not None")
        if c.dtypes is not None:
            tests.append(f"type(x.type) is _TensorType and x.type.dtype in {self.refer(_dtype_set(c.dtypes), 'd')}")
        if c.dims is not None:
            tests.append(f"x.shape is not None and len(x.shape) == {len(c.dims)}")
        self.check(f"all({' and '.join(tests)} for x in {local(rest.id)})", rest.pos, f"every one of '{rest.id}'")

    def constraint(self, var: str, c: s.Constraint, optional: bool = False) -> None:
        """Emits the tests of element type and dimensions; the names of dimensions are bound where they first occur."""
        if c.dtypes is None and c.dims is None:
            return
        absent = f"{var} is None or " if optional else ""
        self.check(f"{absent}type({var}.type) is _TensorType", c.pos, "a tensor")
        if c.dtypes is not None:
            self.element_type(var, c, absent)
        if c.dims is None:
            return
        shape = self.fresh("s")
        self.emit(f"{shape} = {var}.type.shape" + (f" if {var} is not None else None" if optional else ""))
        rest = next((i for i, d in enumerate(c.dims) if d.rest), None)
        if optional:
            # An absent operand binds no dimensions; names first met here would be unbound, so they are only tested.
            self.optional_dims(var, shape, c)
            return
        n = len(c.dims)
        size = f"len({shape}) == {n}" if rest is None else f"len({shape}) >= {n - 1}"
        self.check(f"{shape} is not None and {size}", c.pos, f"rank {n if rest is None else f'at least {n - 1}'}")
        for i, d in enumerate(c.dims):
            if d.rest:
                end = n - 1 - i
                source = f"{shape}[{i}:{f'len({shape}) - {end}' if end else ''}]"
                if d.broadcast:
                    self.broadcast.append(lambda d=d, of=source: self.broadcast_dims(of, d))  # type: ignore[misc]
                else:
                    self.bind_dim(source, str(d.value), d.pos)
            else:
                at = i if rest is None or i < rest else i - n
                if d.broadcast:
                    self.broadcast.append(lambda d=d, of=f"{shape}[{at}],": self.broadcast_dims(of, d))  # type: ignore[misc]
                else:
                    self.dim(f"{shape}[{at}]", d)

    def optional_dims(self, var: str, shape: str, c: s.Constraint) -> None:
        tests = [f"{shape} is not None and len({shape}) == {len(c.dims or ())}"]
        for i, d in enumerate(c.dims or ()):
            if isinstance(d.value, int):
                tests.append(f"{shape}[{i}] == {d.value}")
            elif d.rest:
                raise ValueError(f"the shape of an optional operand is given in full, without *{d.value}")
            elif d.value in self.bound:
                one = f"{shape}[{i}] == 1 or " if d.broadcast else ""
                tests.append(f"({one}{shape}[{i}] == {local(d.value)} != {UNKNOWN!r})")
            elif d.value != "_":
                raise ValueError(f"dimension '{d.value}' of an optional operand must also occur in another operand")
        self.check(f"{var} is None or ({' and '.join(tests)})", c.pos, "shape")

    def element_type(self, var: str, c: s.Constraint, absent: str) -> None:
        names = c.dtypes or ()
        variable = len(names) == 1 and names[0] not in DTYPES and names[0] not in DTYPE_CLASSES
        if not variable:
            allowed = self.refer(_dtype_set(names), "d")
            self.check(f"{absent}{var}.type.dtype in {allowed}", c.pos, f"element type {' or '.join(names)}")
        elif names[0] in self.bound:
            self.check(f"{absent}{var}.type.dtype is {local(names[0])}", c.pos, f"element type {names[0]}")
        else:
            self.emit(f"{local(names[0])} = {var}.type.dtype")
            self.bound.add(names[0])

    def dim(self, source: str, d: s.Dim) -> None:
        if isinstance(d.value, int):
            self.check(f"{source} == {d.value}", d.pos, f"dimension {d.value}")
        elif d.value != "_":
            self.bind_dim(source, d.value, d.pos)

    def bind_dim(self, source: str, name: str, pos: s.Pos) -> None:
        if name in self.bound:
            self.check(f"_same({source}, {local(name)})", pos, f"dimension '{name}'")
            return
        self.emit(f"{local(name)} = {source}")
        self.bound.add(name)
        if name in self.computed_dims():
            self.known(name, pos)

    def known(self, name: str, pos: s.Pos) -> None:
        known = f"type({local(name)}) is _int"
        if self.variant.bindings[name].kind == "dims":
            known = f"all(type(d) is _int for d in {local(name)})"
        self.check(known, pos, f"dimension '{name}' is known")

    def broadcast_dims(self, source: str, d: s.Dim) -> None:
        """Emits the test that dimensions broadcast to those that a name stands for.

        A name that some constraint also has without ``~`` is what that says. One that only has ``~`` stands for what
        its occurrences broadcast to together, so that it grows with each.
        """
        name, at = str(d.value), "" if d.rest else "[0]"
        held = local(name) if d.rest else f"({local(name)},)"
        if name not in self.bound:
            self.emit(f"{local(name)} = ({source}){at}")
            self.bound.add(name)
            self.grown.append((name, d.pos))
        elif all(name != n for n, _ in self.grown):
            self.check(f"_into({source if d.rest else f'({source})'}, {held})", d.pos, f"broadcasts to '{name}'")
        else:
            both = self.fresh("b")
            self.emit(f"{both} = _together({held}, {source if d.rest else f'({source})'})")
            self.check(f"{both} is not None", d.pos, f"broadcasts with '{name}'")
            self.emit(f"{local(name)} = {both}{at}")

    def known_dims(self) -> None:
        """Emits: what grew by broadcasting is a number where expressions compute with it."""
        computed = self.computed_dims()
        for name, pos in self.grown:
            if name in computed:
                self.known(name, pos)

    def computed_dims(self) -> set[str]:
        """Dimensions that expressions compute with: they must be numbers. The others only have to agree."""
        v = self.variant
        used: set[str] = set()
        for w in v.where:
            used |= s.mentioned(w)
        for b in v.let:
            used |= s.mentioned(b.value)
        for r in v.rewrites:
            used |= s.mentioned(r.when) if r.when is not None else set()
            for stmt in r.statements:
                used |= s.mentioned(stmt.value)
            if r.builder is not None:
                used |= set(v.bindings)
        return {n for n in used if n in v.bindings and v.bindings[n].kind in ("dim", "dims")}
