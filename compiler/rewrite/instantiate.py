"""A pattern → a random graph that has the pattern's structure.

Operators are built from the operands up. Those whose types are known decide, by way of a seed (see
:mod:`prove_seeds`) whose sizes are renamed to theirs, what the others look like; the operator's inference has the
last word, and another seed or shape is tried. Whether the conditions of the rule hold is not asked here:
:mod:`prove_search` does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from compiler.ir import Block, DType, OpDef, OperandSpec, TensorType, Value, clone_block, lookup
from compiler.rewrite import syntax as s
from compiler.rewrite.instantiate_attributes import Renaming, bound_name
from compiler.rewrite.instantiate_leaf import LeafSampler
from compiler.rewrite.prove_pools import Pins
from compiler.rewrite.prove_seeds import Seed
from compiler.rewrite.recipe import Leaf, Node, Recipe, Ref, symbolic

#: How often an operator is tried with other shapes and attributes before the whole graph is given up.
_TRIES = 24


class Misfit(Exception):  # noqa: N818 (no error: another graph is drawn)
    """No operands and attributes were found that an operator accepts."""

    def __init__(self, pos: s.Pos, op: str, reason: str) -> None:
        super().__init__(f"{op}: {reason}")
        self.pos = pos


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


class Sampler(LeafSampler):
    """Draws graphs for one variant of a rule."""

    def draw(self, pins: Pins | None = None, present: Collection[str] = ()) -> Recipe:
        """A graph with the structure of the pattern; optional operands in ``present`` are there.

        Raises:
            Misfit: an operator could not be built.
        """
        self.pins, self.present = pins or Pins(), present
        self.reset()
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
                if self.pins.data.get(sub.id, sub) is None:  # an example says that it is absent
                    continue
                if sub.id not in self.pins and sub.id not in self.present and rng.random() < 0.35:
                    continue
            unknown[i] = sub
        if rest is not None:
            first = max([*placed, -1]) + 1
            spec = defn.operands[-1]
            most = 3 if spec.arity == "variadic" else len(defn.operands) - first
            least = max(0, defn.operand_range[0] - first)
            counts = [n for n in (1, 1, 2, 0, 3) if least <= n <= most] or [least]
            if defn.regions:  # these take what a seed's take
                counts = [
                    len(x.operands) - first for x in self.seeds.of(defn.name) if len(x.operands) >= first
                ] or counts
            told = self.pins.every.get(rest.id)
            for k, constraint in enumerate(told or [rest.constraint] * rng.choice(counts)):
                unknown[first + k] = s.ValuePattern(f"{rest.id}__{k}", False, constraint, rest.pos)
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
            name = bound_name(a)
            if name is None:
                pinned.add(a.name)
            elif name == "_":  # free to vary, though the rule has no name for it
                self.names[f"{number}.{a.name}"] = (number, a.name)
            else:
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
        names = Renaming(rng, self.pools.sizes)
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
