"""A pattern → a random graph that has the pattern's structure.

Operators are built from the operands up. Those whose types are known decide, by way of a seed (see
:mod:`prove_seeds`) whose sizes are renamed to theirs, what the others look like; the operator's inference has the
last word, and another seed or shape is tried. Whether the conditions of the rule hold is not asked here:
:mod:`prove_search` does.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compiler.ir import (
    DTYPES,
    F32,
    I64,
    Block,
    Builder,
    DType,
    OpDef,
    OperandSpec,
    TensorType,
    Value,
    clone_block,
    lookup,
)
from compiler.rewrite import prove_values as draw
from compiler.rewrite import syntax as s
from compiler.rewrite.functions import DTYPE_CLASSES
from compiler.rewrite.prove_seeds import Seed, Seeds
from compiler.rewrite.recipe import Leaf, Node, Recipe, Ref
from compiler.rewrite.resolve import Variant

Array = np.ndarray[Any, Any]

#: How often an operator is tried with other shapes and attributes before the whole graph is given up.
_TRIES = 24


class Misfit(Exception):  # noqa: N818 (no error: another graph is drawn)
    """No operands and attributes were found that an operator accepts."""

    def __init__(self, pos: s.Pos, op: str, reason: str) -> None:
        super().__init__(f"{op}: {reason}")
        self.pos = pos


@dataclass(slots=True)
class Pins:
    """What an ``example`` fixes: types of values, contents, attributes by the name that the rule has for them."""

    types: dict[str, s.Constraint] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.types or name in self.data


@dataclass(frozen=True, slots=True)
class Want:
    """What the user of a result would like: its element type, its rank."""

    dtypes: frozenset[DType] | None = None
    rank: int | None = None


@dataclass(slots=True)
class _Plan:
    """One try at an operator: the leaves that it needs, its attributes, how many results it has."""

    leaves: dict[int, Leaf]
    attributes: dict[str, Any]
    results: int
    regions: tuple[Block, ...] = ()


class Sampler:
    """Draws graphs for one variant of a rule."""

    def __init__(self, variant: Variant, rng: random.Random, seeds: Seeds, pools: draw.Pools, wild: bool) -> None:
        """``wild``: contents may be infinite or NaN. Operators that nothing here can check as a whole (those whose
        meaning is what is to be proved) are only drawn as seeds have them, where there are any."""
        self.variant = variant
        self.rng = rng
        self.seeds = seeds
        self.pools = pools
        self.wild = wild
        self.careful = variant.rule.stage == "meaning"
        self.statement_of = {t.id: i for i, stmt in enumerate(variant.statements) for t in stmt.targets if t.id != "_"}
        self.pins = Pins()
        self.present: Collection[str] = ()
        self._reset()

    def _reset(self) -> None:
        self.leaves: dict[str, Leaf] = {}
        self.values: dict[str, Value] = {}
        self.nodes: list[Node] = []
        self.results: list[tuple[Value, ...]] = []
        self.built: dict[int, int] = {}
        self.dims: dict[str, int] = {}
        self.rests: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, DType] = {}
        self.attributes: dict[str, Any] = {}
        self.names: dict[str, tuple[int, str]] = {}
        self.scratch = Builder(Block())
        self.serial = 0
        self.uniform: int | None = self.rng.choice((2, 3)) if self.rng.random() < 0.2 else None
        self.rank: int | None = None  # that the operator being built should have
        self.length: int | None = None  # of the last operand of numbers: starts, ends and axes are as many

    def draw(self, pins: Pins | None = None, present: Collection[str] = ()) -> Recipe:
        """A graph with the structure of the pattern; optional operands in ``present`` are there.

        Raises:
            Misfit: an operator could not be built.
        """
        self.pins, self.present = pins or Pins(), present
        self._reset()
        rng = self.rng
        anchors = [self.statement(i) for i in self.variant.anchors]
        outputs: list[Ref] = []
        for i, node in zip(self.variant.anchors, anchors):
            for k, t in enumerate(self.variant.statements[i].targets):
                if t.variadic:
                    outputs += [Ref(node=node, index=j) for j in range(len(self.results[node]))]
                elif t.id != "_":
                    outputs.append(Ref(node=node, index=k))
        if rng.random() < 0.06:
            inner = rng.randrange(len(self.nodes))
            if inner not in anchors:
                outputs.append(Ref(node=inner))
        nodes = tuple(self.nodes)
        recipe = Recipe(self.leaves, nodes, tuple(outputs), anchors[0], names=self.names)
        return symbolic(recipe, rng) if rng.random() < 0.12 else recipe

    # ---- structure

    def statement(self, index: int, want: Want = Want()) -> int:
        """Builds statement ``index`` unless that is done; the number of its operator."""
        if index not in self.built:
            stmt = self.variant.statements[index]
            assert isinstance(stmt.pattern, s.OpPattern)
            variadic = any(getattr(t, "variadic", False) for t in stmt.targets)
            self.built[index] = self.op(stmt.pattern, None if variadic else len(stmt.targets), want)
        return self.built[index]

    def inner(self, p: s.Pattern, want: Want) -> Ref | None:
        """The operand that an operator of the pattern makes, or a leaf that is there already; else None."""
        if isinstance(p, s.OpPattern):
            return Ref(node=self.op(p, 1, want))
        if isinstance(p, s.ValuePattern):
            stmt = self.statement_of.get(p.id)
            if stmt is not None:
                node = self.statement(stmt, want)
                targets = [t.id for t in self.variant.statements[stmt].targets]
                return Ref(node=node, index=targets.index(p.id))
            if p.id in self.leaves and p.id != "_":
                return Ref(leaf=p.id)
        return None

    def value(self, ref: Ref) -> Value:
        return self.values[ref.leaf] if ref.leaf else self.results[ref.node][ref.index]

    def op(self, p: s.OpPattern, results: int | None, want: Want = Want()) -> int:
        """Builds an operator and what it needs; its number."""
        rng = self.rng
        defn = lookup(rng.choice(p.names))
        placed, rest = _placed(p, defn)
        operands: dict[int, Ref] = {}
        unknown: dict[int, s.Pattern] = {}
        optional: set[int] = set()
        wanted: dict[str, frozenset[DType]] = {}
        if want.dtypes is not None and defn.results and defn.results[0].type_variable:
            wanted[defn.results[0].type_variable] = want.dtypes
        ranks = self.ranks(p, defn)
        for i, sub in placed.items():
            spec = _spec(defn, i)
            found = self.inner(sub, Want(wanted.get(spec.type_variable, spec.dtypes), ranks.get(i)))
            if found is not None:
                operands[i] = found
                type_ = self.value(found).type
                if spec.type_variable and isinstance(type_, TensorType):
                    wanted[spec.type_variable] = frozenset({type_.dtype})
                continue
            if isinstance(sub, s.ValuePattern) and sub.optional:
                optional.add(i)
                if sub.id not in self.pins and sub.id not in self.present and rng.random() < 0.35:
                    continue
            unknown[i] = sub
        if rest is not None:
            first = max([*placed, -1]) + 1
            spec = defn.operands[-1]
            most = 3 if spec.arity == "variadic" else len(defn.operands) - first
            least = max(0, defn.operand_range[0] - first)
            for k in range(rng.choice([n for n in (1, 1, 2, 0, 3) if least <= n <= most] or [least])):
                unknown[first + k] = s.ValuePattern(f"{rest.id}__{k}", False, rest.constraint, rest.pos)
        number = len(self.nodes)
        reason = "no operands"
        for attempt in range(_TRIES):
            self.rank, self.length = want.rank, None
            plan = self.plan(p, defn, {i: self.value(r) for i, r in operands.items()}, unknown, results, wanted)
            if plan is None:
                continue
            made = {i: self.leaf_value(leaf) for i, leaf in plan.leaves.items()}
            width = max([*operands, *unknown, -1]) + 1
            values = [self.value(operands[i]) if i in operands else made.get(i) for i in range(width)]
            try:
                regions = [clone_block(r, {}) for r in plan.regions]
                op = self.scratch.op(defn.name, values, plan.attributes, results=plan.results, regions=regions)
            except Exception as e:  # inference of mil runs rules, which may raise anything on what is no operator
                reason = str(e)
                continue
            made_rank = op.results[0].type.rank if op.results and isinstance(op.results[0].type, TensorType) else None
            if want.rank not in (None, made_rank) and attempt < _TRIES - 4:
                continue
            for i, leaf in plan.leaves.items():
                operands[i] = Ref(leaf=self.keep(unknown[i], leaf, made[i]))
            refs = [operands.get(i) for i in range(width)]
            if len(refs) == 2 and defn.commutative and not p.ordered and rng.random() < 0.5:
                refs.reverse()
            pinned = self.bind_attributes(p, plan.attributes, number)
            self.nodes.append(
                Node(defn.name, tuple(refs), plan.attributes, plan.results, plan.regions, pinned, frozenset(optional))
            )
            self.results.append(op.results)
            return len(self.nodes) - 1
        raise Misfit(p.pos, defn.name, reason)

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

    def keep(self, p: s.Pattern, leaf: Leaf, value: Value) -> str:
        name = p.id if isinstance(p, s.ValuePattern) and p.id != "_" else ""
        if not name:
            self.serial += 1
            name = f"_{self.serial}"
        self.leaves[name], self.values[name] = leaf, value
        return name

    def leaf_value(self, leaf: Leaf) -> Value:
        if leaf.constant:
            return self.scratch.constant(leaf.array, leaf.dialect)
        return self.scratch.block.add_argument(leaf.type)

    def bind_attributes(self, p: s.OpPattern, attributes: Mapping[str, Any], number: int) -> frozenset[str]:
        pinned = set()
        number = len(self.nodes)
        for a in p.attrs:
            if isinstance(a, s.AttrSpread):
                continue
            name = _bound_name(a)
            if name is None:
                pinned.add(a.name)
            elif name != "_":
                self.attributes.setdefault(name, attributes.get(a.name))
                self.names.setdefault(name, (number, a.name))
        return frozenset(pinned)

    # ---- one try

    def plan(
        self,
        p: s.OpPattern,
        defn: OpDef,
        known: Mapping[int, Value],
        unknown: Mapping[int, s.Pattern],
        results: int | None,
        wanted: Mapping[str, frozenset[DType]],
    ) -> _Plan | None:
        rng = self.rng
        seeds = [x for x in self.seeds.of(defn.name) if _goes_with(x, known, unknown, defn)]
        seed = rng.choice(seeds) if seeds and (self.careful or rng.random() < 0.8) else None
        if defn.regions and (seed is None or len(seed.regions) != len(defn.regions)):
            return None
        names = _Renaming(rng, self.pools.sizes)
        names.uniform = self.uniform
        if seed is not None:
            for i, v in known.items():
                mine = seed.operands[i] if i < len(seed.operands) else None
                if mine is not None:
                    names.learn(mine.type.shape, v.shape)
            if defn.regions or rng.random() < (0.6 if self.careful else 0.15):
                names.fixed = True
        shapes = [v.type.static_shape for v in known.values() if isinstance(v.type, TensorType) and v.type.is_static]
        bound: dict[str, DType] = {}
        for i, v in known.items():
            spec = _spec(defn, i)
            if spec.type_variable and isinstance(v.type, TensorType):
                bound.setdefault(spec.type_variable, v.type.dtype)
        leaves: dict[int, Leaf] = {}
        named: dict[str, Leaf] = {}
        # Literals last: they broadcast to what the others are.
        for i in sorted(unknown, key=lambda i: (not isinstance(unknown[i], s.ValuePattern), i)):
            sub = unknown[i]
            if isinstance(sub, s.ValuePattern) and sub.id in named:
                leaves[i] = named[sub.id]
                continue
            like = seed.operands[i] if seed is not None and i < len(seed.operands) else None
            spec = _spec(defn, i)
            if spec.type_variable in wanted:
                both = (
                    wanted[spec.type_variable] & spec.dtypes if spec.dtypes is not None else wanted[spec.type_variable]
                )
                spec = replace(spec, dtypes=both)
            leaf = self.leaf(sub, spec, defn, bound, like, names, shapes)
            if leaf is None:
                return None
            leaves[i] = leaf
            shapes.append(leaf.array.shape)
            if spec.type_variable:
                bound.setdefault(spec.type_variable, leaf.type.dtype)
            if isinstance(sub, s.ValuePattern) and sub.id != "_":
                named[sub.id] = leaf
        attributes = self.draw_attributes(p, defn, seed, names, shapes)
        if attributes is None:
            return None
        count = results
        if count is None:
            count = seed.results if seed is not None and rng.random() < 0.8 else rng.randint(1, 3)
        least = defn.result_range[0]
        if seed is not None and defn.regions:
            count = seed.results
        return _Plan(leaves, attributes, max(count, least), seed.regions if seed is not None and defn.regions else ())

    def leaf(
        self,
        p: s.Pattern,
        spec: OperandSpec,
        defn: OpDef,
        bound: Mapping[str, DType],
        like: Any,
        names: _Renaming,
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
        if dims is None or not draw.small(dims):
            return None
        if numbers and len(dims) == 1:
            self.length = dims[0]
        array: Array | None = None
        low, high = (like.low, like.high) if like is not None else (None, None)
        if like is not None and like.contents is not None and self.careful:
            numbers = True
        if numbers and (self.careful or len(dims) < 2) and rng.random() < 0.9:
            array = self.numbers(dims, to, like, names, shapes)
        if array is None:
            array = draw.contents(rng, TensorType(to, dims), low, high, self.wild)
        const = constraint is not None and constraint.const
        const = const or (p.id in self.variant.bindings and self.variant.bindings[p.id].const if name else False)
        # Elements of less than a byte are packed where they come from outside.
        const = const or to.bits < 8 or rng.random() < (0.75 if numbers else 0.08)
        return Leaf(array, const, dialect, pinned=pin is not None, low=low, high=high)

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
        names: _Renaming,
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
        self, dims: tuple[int, ...], to: DType, like: Any, names: _Renaming, shapes: Sequence[tuple[int, ...]]
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
        return np.array(values, dtype=np.int64).astype(to.numpy).reshape(dims)

    # ---- attributes

    def draw_attributes(
        self, p: s.OpPattern, defn: OpDef, seed: Seed | None, names: _Renaming, shapes: Sequence[tuple[int, ...]]
    ) -> dict[str, Any] | None:
        rng = self.rng
        out: dict[str, Any] = {}
        rename = rng.random() < 0.4 and not names.fixed
        mentioned = set()
        spread = False

        def fresh(name: str) -> Any:
            spec = defn.attributes[name]
            if seed is not None and name in seed.attributes and (self.careful or rng.random() < 0.8):
                value = seed.attributes[name]
                if rename and spec.kind == "ints":
                    return tuple(names(v) if v > 1 and v in names.known else v for v in value)
                return value
            if seed is not None and name not in seed.attributes and (self.careful or rng.random() < 0.7):
                return spec.default
            seen = [x.attributes[name] for x in self.seeds.of(defn.name)[:60] if name in x.attributes]
            return draw.attribute(rng, spec, self.pools, shapes, seen)

        for a in p.attrs:
            if isinstance(a, s.AttrSpread):
                spread = True
                continue
            mentioned.add(a.name)
            value = self.attribute(a, fresh)
            if value is None:
                if a.choices[0].kind == "bind" or defn.attributes[a.name].required:
                    return None
                continue
            out[a.name] = _as_kind(value, defn.attributes[a.name].kind)
        for name, spec in defn.attributes.items():
            if name in mentioned:
                continue
            value = self.pins.data.get(name) if spread else None
            if value is None and spread:
                value = fresh(name)
            if value is not None:
                out[name] = _as_kind(value, spec.kind)
            elif spec.required:
                return None
        return out

    def attribute(self, a: s.AttrPattern, fresh: Any) -> Any:
        c = self.rng.choice(a.choices)
        if c.kind == "literal":
            return c.value
        if c.kind == "approx":
            return float(c.value[0])
        name = _bound_name(a) or c.value
        if name in ("true", "false"):
            return name == "true"
        if name in DTYPES:
            return DTYPES[name]
        if name in self.attributes:
            return self.attributes[name]
        if name in self.pins.data:
            return self.pins.data[name]
        if c.kind in ("optional", "default") and self.rng.random() < 0.2:
            return None
        value = fresh(a.name)
        for _ in range(3):
            if value is None and c.kind == "bind":
                value = fresh(a.name)
        return value


def symbolic(recipe: Recipe, rng: random.Random) -> Recipe:
    """The same graph with input dimensions that are not known at compile time.

    They may share names, or be 1 when it comes to it: what is not known to be more may be broadcast.
    """
    share = rng.random() < 0.4
    one = not share and rng.random() < 0.6
    leaves = {}
    for name, leaf in recipe.leaves.items():
        if not leaf.constant and leaf.array.ndim:
            open_ = [rng.random() < 0.6 for _ in leaf.array.shape]
            names = tuple(
                (f"n{d}" if share else f"{name}{i}") if is_open else d
                for i, (d, is_open) in enumerate(zip(leaf.array.shape, open_))
            )
            array = leaf.array
            if one:
                array = np.ascontiguousarray(array[tuple(slice(0, 1) if o else slice(None) for o in open_)])
            leaf = replace(leaf, names=names, array=array)
        leaves[name] = leaf
    return replace(recipe, leaves=leaves)


class _Renaming:
    """Sizes of a seed → sizes of the graph at hand."""

    def __init__(self, rng: random.Random, extra: Sequence[int]) -> None:
        self.rng = rng
        self.extra = extra
        self.known: dict[int, list[int]] = {}
        self.fixed = False
        self.uniform: int | None = (
            None  # all sizes are this one: a wrong order of axes then shows in the contents alone
        )

    def learn(self, seed: Any, actual: Any) -> None:
        for a, b in zip(seed or (), actual or ()):
            if isinstance(a, int) and isinstance(b, int):
                self.known.setdefault(a, []).append(b)

    def __call__(self, d: int) -> int:
        found = self.known.get(d)
        if found is not None:
            return self.rng.choice(found)
        if self.fixed:
            return d
        if self.uniform is not None and d > 1:
            return self.uniform
        r = self.rng.random()
        new = d if (r < 0.35 and d <= 12) or (d == 1 and r < 0.9) else draw.size(self.rng, self.extra)
        self.known[d] = [new]
        return new


def _goes_with(seed: Seed, known: Mapping[int, Value], unknown: Mapping[int, s.Pattern], defn: OpDef) -> bool:
    present = {i for i, x in enumerate(seed.operands) if x is not None}
    here = {*known, *unknown}
    # What is optional need not be there in both.
    if any(_spec(defn, i).arity != "optional" for i in present ^ here):
        return False
    for i, v in known.items():
        mine = seed.operands[i] if i < len(seed.operands) else None
        if mine is None and i not in present:
            continue
        if mine is None or v.shape is None or len(v.shape) != len(mine.type.static_shape):
            return False
    return True


def _placed(p: s.OpPattern, defn: OpDef) -> tuple[dict[int, s.Pattern], s.VariadicPattern | None]:
    placed: dict[int, s.Pattern] = {}
    rest = None
    for i, a in enumerate(p.args):
        if isinstance(a, s.VariadicPattern):
            rest = a
        elif isinstance(a, s.NamedOperand):
            index = defn.operand_index(a.name)
            assert index is not None, "resolved"
            placed[index] = a.pattern
        else:
            placed[i] = a
    return placed, rest


def _spec(defn: OpDef, index: int) -> OperandSpec:
    return defn.operands[min(index, len(defn.operands) - 1)]


def _is_data(spec: OperandSpec, defn: OpDef) -> bool:
    """Whether an operand holds numbers that say what to do (axes, shapes), rather than what to do it with."""
    return not spec.type_variable or all(r.type_variable != spec.type_variable for r in defn.results)


def _bound_name(a: s.AttrPattern) -> str | None:
    for c in a.choices:
        if c.kind == "default":
            return str(c.value[0])
        if c.kind == "optional" or (c.kind == "bind" and c.value not in DTYPES and c.value not in ("true", "false")):
            return str(c.value)
    return None


def _as_kind(value: Any, kind: str) -> Any:
    if isinstance(value, (list, tuple, range)):
        to = {"floats": float, "ints": int}.get(kind)
        return tuple(to(v) for v in value) if to else tuple(value)
    if kind == "float" and isinstance(value, (int, float)):
        return float(value)
    if kind in ("ints", "floats") and isinstance(value, np.ndarray):
        return tuple(value.reshape(-1).tolist())
    if isinstance(value, np.generic):
        return value.item()
    return value


def literals(node: Any) -> Iterator[Any]:
    """Every number, string and list of numbers that a piece of a rule mentions."""
    if isinstance(node, (s.Literal, s.LiteralPattern)):
        yield node.value
    elif isinstance(node, s.ListPattern):
        yield node.values
    elif isinstance(node, s.Dim):
        yield node.value if isinstance(node.value, int) else 1
    elif isinstance(node, s.AttrChoice) and node.kind == "literal":
        yield node.value
    elif isinstance(node, s.ListExpr):
        if all(isinstance(i, s.Literal) for i in node.items):
            yield tuple(i.value for i in node.items)  # type: ignore[union-attr]
        for i in node.items:
            yield from literals(i)
    elif isinstance(node, tuple) and not isinstance(node, s.Pos):
        for x in node:
            yield from literals(x)
    elif hasattr(node, "__dataclass_fields__"):
        for f in node.__dataclass_fields__:
            if f not in ("pos", "name_pos", "tests"):
                yield from literals(getattr(node, f))


def pools_of(rule: s.Rule, fns: Mapping[str, s.FnDef]) -> draw.Pools:
    """The values that a rule's text, and the functions it calls, mention."""
    pools = draw.Pools()
    called = [f for f in fns.values() if f.name in _callees(rule)]
    for v in literals((rule.match, rule.where, rule.let, tuple(r.when for r in rule.rewrites), tuple(called))):
        if isinstance(v, str):
            pools.strings.append(v)
        elif isinstance(v, tuple):
            pools.lists.append(v)
        else:
            pools.numbers += [v, v + 1] if float(v).is_integer() and 0 < v < 32 else [v]
    return pools


def _callees(node: Any) -> set[str]:
    if isinstance(node, s.Pos) or node is None:
        return set()
    if isinstance(node, tuple):
        return set().union(*(_callees(x) for x in node))
    if not hasattr(node, "__dataclass_fields__"):
        return set()
    own = {node.callee} if isinstance(node, s.Call) else set()
    return own.union(*(_callees(getattr(node, f)) for f in node.__dataclass_fields__))
