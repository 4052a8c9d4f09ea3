"""Leaves of a graph that is drawn at random: their element types, shapes and contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compiler.ir import DTYPES, F32, I64, DType, OpDef, OperandSpec, TensorType
from compiler.rewrite import prove_values as draw
from compiler.rewrite import syntax as s
from compiler.rewrite.functions import DTYPE_CLASSES
from compiler.rewrite.instantiate_attributes import AttributeSampler, Renaming
from compiler.rewrite.recipe import Leaf

Array = np.ndarray[Any, Any]


class LeafSampler(AttributeSampler):
    """Draws what no operator of the pattern makes."""

    def ranks(self, p: s.OpPattern, defn: OpDef) -> dict[int, int]:
        """Ranks that the operands might well have: those of a seed, or as many as a list of the pattern is long."""
        lists = [c.value for a in p.attrs if isinstance(a, s.AttrPattern) for c in a.choices if c.kind == "literal"]
        for v in lists:
            if isinstance(v, tuple) and sorted(v) == list(range(len(v))):
                return {0: len(v)}
        seeds = self.seeds.of(defn.name)
        if not seeds or self.rng.random() < 0.3:
            return {}
        seed = self.rng.choice(seeds)
        return {i: len(o.type.static_shape) for i, o in enumerate(seed.operands) if o is not None}

    def leaf(
        self,
        p: s.Pattern,
        spec: OperandSpec,
        defn: OpDef,
        bound: Mapping[str, DType],
        like: Any,
        names: Renaming,
        shapes: list[tuple[int, ...]],
    ) -> Leaf | None:
        rng = self.rng
        name = p.id if isinstance(p, s.ValuePattern) else ""
        constraint = p.constraint if isinstance(p, s.ValuePattern) else None
        pin = self.pins.types.get(name)
        if pin is not None:
            constraint = pin
        to = self.dtype(p, spec, constraint, bound.get(spec.type_variable), like)
        if to is None:
            return None
        dialect = defn.dialect if defn.dialect == "mil" else "onnx"
        if isinstance(p, s.LiteralPattern):
            return self.literal(p, to, shapes, dialect)
        if isinstance(p, s.ListPattern):
            return Leaf(np.array(p.values).astype(to.numpy), True, dialect, pinned=True)
        if name in self.pins.data:
            given = np.asarray(self.pins.data[name])
            return Leaf(given.astype(to.numpy), True, dialect, pinned=True)
        assert isinstance(p, s.ValuePattern), "alternatives are expanded"
        numbers = to.is_integer and _is_data(spec, defn)
        dims = self.shape(constraint, like, names, shapes, numbers)
        # An example says for itself how large it has to be.
        if dims is None or not (pin is not None or draw.small(dims)):
            return None
        if numbers and len(dims) == 1:
            self.length = dims[0]
        array: Array | None = None
        low, high = (like.low, like.high) if like is not None else (None, None)
        within = to.is_float and spec.name.endswith("_scale")
        if within:  # of a quantized tensor: what division by zero gives is not said, so nothing can be held to it
            low, high = draw.SCALES
        if like is not None and like.contents is not None and self.careful:
            numbers = True
        if numbers and (self.careful or (len(dims) < 2 and rng.random() < 0.9)):
            array = self.numbers(dims, to, like, names, shapes)
        if array is None:
            array = draw.contents(rng, TensorType(to, dims), low, high, self.wild, within)
        const = constraint is not None and constraint.const
        const = const or (p.id in self.variant.bindings and self.variant.bindings[p.id].const if name else False)
        # Elements of less than a byte are packed where they come from outside.
        const = const or to.bits < 8 or rng.random() < (0.75 if numbers else 0.08)
        return Leaf(array, const, dialect, low=low, high=high, within=within)

    def literal(self, p: s.LiteralPattern, to: DType, shapes: Sequence[tuple[int, ...]], dialect: str) -> Leaf | None:
        if not to.is_float and (not float(p.value).is_integer() or (p.value < 0 and to.kind in ("uint", "bool"))):
            return None
        kind = self.rng.random()
        dims: tuple[int, ...] = ()
        if kind > 0.6:
            dims = (1,)
        if kind > 0.75 and shapes:
            other = self.rng.choice(list(shapes))
            dims = tuple(1 if self.rng.random() < 0.4 else max(d, 1) for d in other[self.rng.randint(0, len(other)) :])
        with np.errstate(over="ignore"):
            return Leaf(np.full(dims, p.value).astype(to.numpy), True, dialect, pinned=True, literal=p.value)

    def dtype(
        self, p: s.Pattern, spec: OperandSpec, constraint: s.Constraint | None, bound: DType | None, like: Any
    ) -> DType | None:
        allowed = set(spec.dtypes) if spec.dtypes is not None else set(DTYPES.values())
        variable = ""
        names = constraint.dtypes if constraint is not None else None
        for n in names or ():
            if n not in DTYPES and n not in DTYPE_CLASSES:
                variable = n
        if names and not variable:
            allowed &= {
                d
                for d in DTYPES.values()
                if any(d.name == n or (n in DTYPE_CLASSES and DTYPE_CLASSES[n](d)) for n in names)
            }
        if bound is not None:
            return bound if bound in allowed else None
        if variable in self.dtypes:
            return self.dtypes[variable] if self.dtypes[variable] in allowed else None
        if isinstance(p, s.LiteralPattern) and not float(p.value).is_integer():
            allowed = {d for d in allowed if d.is_float}
        if isinstance(p, s.ListPattern) and I64 in allowed:
            return I64
        if not allowed:
            return None
        if like is not None and like.type.dtype in allowed and (self.rng.random() < 0.5 or spec.dtypes is None):
            to: DType = like.type.dtype
        elif spec.dtypes is None and like is None and F32 in allowed and self.rng.random() < 0.7:
            to = F32
        else:
            to = draw.dtype(self.rng, sorted(allowed, key=lambda d: d.name))
        if variable:
            self.dtypes[variable] = to
        return to

    def shape(
        self,
        constraint: s.Constraint | None,
        like: Any,
        names: Renaming,
        shapes: Sequence[tuple[int, ...]],
        numbers: bool,
    ) -> tuple[int, ...] | None:
        rng = self.rng
        suggested: tuple[int, ...]
        if like is not None:
            suggested = tuple(names(d) for d in like.type.static_shape)
        elif numbers:
            lengths = [
                1,
                1,
                2,
                3,
                *([self.length] * 20 if self.length is not None else []),
                *(len(x) for x in shapes[:1]),
                *([self.rank] * 5 if self.rank else []),
            ]
            r = rng.random()
            suggested = () if r < 0.15 else (0,) if r < 0.18 else (rng.choice(lengths),)
        elif shapes and rng.random() < 0.9:
            suggested = draw.like(rng, rng.choice(list(shapes)))
        else:
            suggested = draw.shape(rng, None, self.pools.sizes)
        if self.uniform is not None and not numbers:
            suggested = tuple(self.uniform if d > 1 else d for d in suggested)
        if constraint is None or constraint.dims is None:
            return suggested
        return self.constrained(constraint.dims, suggested)

    def constrained(self, dims: Sequence[s.Dim], suggested: tuple[int, ...]) -> tuple[int, ...]:
        """A shape that fits the dimensions of a constraint, near to the one suggested."""
        rng = self.rng
        plain = sum(not d.rest for d in dims)
        out: list[int] = []
        for i, d in enumerate(dims):
            if d.rest:
                found = self.rests.get(str(d.value))
                if found is not None and d.broadcast:
                    found = tuple(1 if rng.random() < 0.3 else n for n in found)
                    if len(dims) == 1 and rng.random() < 0.3:
                        found = found[rng.randint(0, len(found)) :]
                if found is None:
                    n = len(suggested) - plain
                    found = suggested[i : i + n] if n >= 0 else draw.shape(rng, rng.randint(0, 2))
                    if d.value != "_":
                        self.rests[str(d.value)] = found
                out += found
            elif isinstance(d.value, int):
                out.append(d.value)
            elif d.value in self.dims:
                out.append(1 if d.broadcast and rng.random() < 0.3 else self.dims[d.value])
            else:
                at = len(out)
                n = suggested[at] if at < len(suggested) else draw.size(rng, self.pools.sizes)
                if d.value != "_":
                    self.dims[d.value] = n
                out.append(n)
        return tuple(out)

    def numbers(
        self, dims: tuple[int, ...], to: DType, like: Any, names: Renaming, shapes: Sequence[tuple[int, ...]]
    ) -> Array | None:
        rng = self.rng
        n = int(np.prod(dims))
        if (
            like is not None
            and like.contents is not None
            and like.contents.size == n
            and (self.careful or rng.random() < 0.8)
        ):
            values = [int(v) for v in like.contents.reshape(-1).tolist()]
            if rng.random() < 0.6:
                values = [names(v) if v > 1 and v in names.known else v for v in values]
        else:
            values = draw.small_ints(rng, n, shapes, self.pools.ints)
        if len(values) != n:
            return None
        if to.kind == "uint":
            values = [abs(v) for v in values]
        with np.errstate(over="ignore"):
            array: Array = np.array(values, dtype=np.int64).astype(to.numpy).reshape(dims)
        # What is too large for a float would be an infinity, which is for the wild to draw.
        return array if to.is_integer or bool(np.isfinite(array.astype(np.float64)).all()) else None


def _is_data(spec: OperandSpec, defn: OpDef) -> bool:
    """Whether an operand holds numbers that say what to do (axes, shapes), rather than what to do it with."""
    return not spec.type_variable or all(r.type_variable != spec.type_variable for r in defn.results)
