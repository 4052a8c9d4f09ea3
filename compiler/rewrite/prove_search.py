"""From graphs of the right structure to instances of a rule: the matcher says what is missing, and that is mended.

The traced matcher gives the clause that failed and what its names stood for. An equation is solved for a name that
can be set (an attribute, a constant), a wish for equal shapes is granted, anything else is drawn again. What matches
is kept and varied.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compiler.ir import DType, TensorType, Value, lookup
from compiler.rewrite import prove_values as draw
from compiler.rewrite import syntax as s
from compiler.rewrite.driver import NO_TARGET
from compiler.rewrite.expressions import ExpressionCompiler
from compiler.rewrite.functions import Decline
from compiler.rewrite.instantiate import Misfit, Pins, Sampler, pools_of, symbolic
from compiler.rewrite.library import Entry, Library
from compiler.rewrite.prove_replay import recipe_of
from compiler.rewrite.prove_seeds import Seeds
from compiler.rewrite.recipe import Leaf, Realized, Recipe, pruned, realize, swapped
from compiler.rewrite.rule_tests import build_graph

#: How often one graph is mended before another is drawn.
_REPAIRS = 8
#: How many instances are kept to be varied, per rewrite of the rule.
_ARCHIVE = 24


@dataclass(slots=True)
class Instance:
    """A graph to which the rule applies, and which of its rewrites does."""

    recipe: Recipe
    realized: Realized
    rewrite: int


@dataclass(slots=True)
class Failure:
    """How far the matcher got: the clause and what names stood for."""

    step: int = -1
    pos: s.Pos | None = None
    text: str = ""
    found: dict[str, Any] = field(default_factory=dict)


class Search:
    """Finds instances of one variant of a rule."""

    def __init__(
        self,
        entry: Entry,
        library: Library,
        seeds: Seeds,
        rng: random.Random,
        targets: Sequence[Any] = (),
    ) -> None:
        """``entry`` is compiled in the traced form."""
        self.entry = entry
        self.variant = entry.variant
        self.library = library
        self.rng = rng
        self.targets = [NO_TARGET, *targets]
        rule = entry.rule
        self.pools = pools_of(rule, library.env.fns)
        self.sampler = Sampler(self.variant, rng, seeds, self.pools, rule.numeric.contract == "exact")
        self.pins = [pins_of(e, library) for e in rule.examples]
        whens = [r.when for r in rule.rewrites if r.when is not None]
        #: Optional operands that conditions ask about: they should be there often enough.
        self.asked = {n for e in (*rule.where, *whens) for n in s.mentioned(e)}
        self.shown = list(self._shown())
        self.blame: Counter[tuple[s.Pos | None, str]] = Counter()
        self.archive: dict[int, list[Recipe]] = {}
        self.reached: Counter[int] = Counter()
        self.globals: dict[str, Any] | None = None

    def _shown(self) -> Iterator[Recipe]:
        """The graphs of the rule's own test blocks to which this variant applies."""
        rule = self.entry.rule
        for test in rule.tests:
            if test.after is None:
                continue
            wanted = {t.id for stmt in test.after for t in stmt.targets}
            module = build_graph(self.library, rule, test, test.before, wanted)
            for op in module.main.block.ops:
                if op.name in self.entry.keys and self.entry.matcher.match(op, NO_TARGET) is not None:
                    yield recipe_of(module, op)
                    break

    # ---- one attempt

    def attempt(self) -> Instance | None:
        """Draws a graph, or varies one that matched; None if the rule does not match it and it cannot be mended."""
        recipe = self.draw()
        if recipe is None:
            return None
        best = -1
        for _ in range(_REPAIRS):
            try:
                realized = realize(recipe)
            except Exception as e:  # inference of mil runs rules, which may raise anything on what is no operator
                self.blame[None, str(e)] += 1
                return None
            try:
                found, failure = self.match(recipe, realized)
            except Exception:  # a condition that raises: wrong if the graph is valid, which the check finds out
                return Instance(recipe, realized, -1)
            if found is not None:
                rarest = min(range(len(self.variant.rewrites)), key=lambda i: self.reached[i])
                if self.reached[found] > 3 * self.reached[rarest] + 3 and self.rng.random() < 0.6:
                    other = self.towards(rarest, self.locals_of(realized, recipe), recipe)
                    if other is not None:
                        recipe = other
                        continue
                return self.keep(Instance(recipe, realized, found))
            self.blame[failure.pos, failure.text] += 1
            if failure.step < best and self.rng.random() < 0.7:
                return None
            best = max(best, failure.step)
            mended = self.mend(failure, recipe)
            if mended is None:
                return None
            recipe = mended
        return None

    def draw(self) -> Recipe | None:
        rng = self.rng
        kept = [r for found in self.archive.values() for r in found]
        if kept and rng.random() < 0.6:
            least = min(self.archive, key=lambda i: self.reached[i])
            recipe = rng.choice(self.archive[least] if rng.random() < 0.3 else kept)
            for _ in range(rng.randint(1, 3)):
                recipe = self.vary(recipe)
            return recipe
        if self.shown and rng.random() < 0.3:
            recipe = rng.choice(self.shown)
            leaves = {n: self.redrawn(leaf, recipe) if not leaf.constant else leaf for n, leaf in recipe.leaves.items()}
            return replace(recipe, leaves=leaves)
        pins = rng.choice(self.pins) if self.pins and rng.random() < 0.5 else None
        try:
            recipe = self.sampler.draw(pins, self.asked if rng.random() < 0.5 else ())
        except Misfit as e:
            self.blame[e.pos, str(e)] += 1
            return None
        return replace(recipe, target=rng.choice(self.targets) if rng.random() < 0.6 else NO_TARGET)

    def keep(self, instance: Instance) -> Instance:
        types = [v.type for v in instance.realized.function.outputs]
        if self.rng.random() < 0.3 and all(isinstance(t, TensorType) and t.dtype.kind == "bool" for t in types):
            instance = self.wilder(instance)
        self.reached[instance.rewrite] += 1
        kept = self.archive.setdefault(instance.rewrite, [])
        if len(kept) < _ARCHIVE:
            kept.append(instance.recipe)
        else:
            kept[self.rng.randrange(_ARCHIVE)] = instance.recipe
        return instance

    def wilder(self, instance: Instance) -> Instance:
        """The instance with infinities and NaN among its inputs: for results that are true or false."""
        leaves = {
            n: replace(leaf, array=draw.contents(self.rng, leaf.type, wild=True))
            if leaf.array.dtype.kind == "f" and not leaf.constant and not leaf.pinned
            else leaf
            for n, leaf in instance.recipe.leaves.items()
        }
        recipe = replace(instance.recipe, leaves=leaves)
        return Instance(recipe, realize(recipe), instance.rewrite)

    def dismiss(self, instance: Instance) -> None:
        """Forgets an instance that turned out not to be valid."""
        if instance.rewrite < 0:
            return
        kept = self.archive.get(instance.rewrite, [])
        self.archive[instance.rewrite] = [r for r in kept if r is not instance.recipe]
        if not self.archive[instance.rewrite]:
            del self.archive[instance.rewrite]
        self.reached[instance.rewrite] -= 1

    def match(self, recipe: Recipe, realized: Realized) -> tuple[int | None, Failure]:
        """The rewrite that applies, or how far the matcher got."""
        deepest = Failure()
        steps = self.entry.matcher.steps

        def failed(step: int, found: dict[str, Any]) -> None:
            if step >= deepest.step:
                deepest.step, deepest.found = step, found
                deepest.pos, deepest.text = steps[step].pos, steps[step].text

        self.entry.matcher.trace.hook = failed
        try:
            match = self.entry.matcher.match(realized.ops[recipe.anchor], recipe.target)
        finally:
            self.entry.matcher.trace.hook = None
        return (match[0], deepest) if match is not None else (None, deepest)

    def locals_of(self, realized: Realized, recipe: Recipe) -> dict[str, Any]:
        match = self.entry.matcher.match(realized.ops[recipe.anchor], recipe.target)
        assert match is not None
        bound: dict[str, Any] = {f"v_{n}": v for n, v in zip(self.entry.matcher.names, match[2])}
        bound["target"] = recipe.target
        return bound

    # ---- mending

    def mend(self, failure: Failure, recipe: Recipe) -> Recipe | None:
        """The graph changed so that the clause has a better chance; None if nothing can be done about it."""
        pos = failure.pos
        for w in self.variant.where:
            if w.pos == pos:
                if _unknown(failure) and self.rng.random() < 0.7:
                    known = self.known(recipe, s.mentioned(w))
                    if known is not None:
                        return known
                return self.solve(w, failure.found, recipe) or self.disturb(w, recipe, failure.found)
        for b in self.variant.let:
            if b.value.pos == pos:
                return self.known(recipe) if _unknown(failure) else self.disturb(b.value, recipe, failure.found)
        whens = [r.when for r in self.variant.rewrites if r.when is not None]
        if failure.text == "when" and whens:
            one = self.rng.choice(whens)
            return self.solve(one, failure.found, recipe) or self.disturb(one, recipe, failure.found)
        return None

    def towards(self, rewrite: int, found: Mapping[str, Any], recipe: Recipe) -> Recipe | None:
        """The graph changed so that another rewrite of the rule applies: those before it do not, and it does."""
        changed: Recipe | None = None
        for i, r in enumerate(self.variant.rewrites[: rewrite + 1]):
            if r.when is not None:
                known, value = self.try_evaluate(r.when, found)
                if known and bool(value) == (i == rewrite):
                    continue
                start = changed or recipe
                changed = self.solve(r.when, found, start, i == rewrite) or self.disturb(r.when, start, found)
        return changed

    def known(self, recipe: Recipe, about: set[str] | None = None) -> Recipe | None:
        """Dimensions known, and one more leaf constant, one that is asked about if there is one."""
        open_ = [n for n, leaf in recipe.leaves.items() if leaf.names is not None]
        if open_:
            leaves = {n: replace(leaf, names=None) for n, leaf in recipe.leaves.items()}
            return replace(recipe, leaves=leaves)
        inputs = [n for n, leaf in recipe.leaves.items() if not leaf.constant]
        if not inputs or len(inputs) == len(recipe.leaves) == 1:
            return None
        asked = [n for n in inputs if about is not None and n in about]
        name = self.rng.choice(asked or inputs)
        return recipe.with_leaf(name, replace(recipe.leaves[name], constant=True))

    def evaluate(self, e: s.Expr, found: Mapping[str, Any]) -> Any:
        """The value of an expression where the match has got to.

        Raises:
            Exception: whatever the expression raises, names not bound yet included.
        """
        compiler = ExpressionCompiler(self.library.env, self.library.externs)
        source = compiler.data(e, self.variant.bindings)
        return eval(source, {**compiler.globals}, dict(found))

    def try_evaluate(self, e: s.Expr, found: Mapping[str, Any]) -> tuple[bool, Any]:
        try:
            return True, self.evaluate(e, found)
        except Exception:  # the match has not bound what the expression needs, or it declines
            return False, None

    def solve(self, e: s.Expr, found: Mapping[str, Any], recipe: Recipe, want: bool = True) -> Recipe | None:
        """The graph changed so that ``e`` is ``want``, if the way is plain."""
        match e:
            case s.Binary("and", left, right, _) if want:
                return self._solve_each((left, right), found, recipe)
            case s.Binary("or", left, right, _) if not want:
                return self._solve_each((left, right), found, recipe, False)
            case s.Binary("and" | "or", left, right, _):
                return self.solve(self.rng.choice((left, right)), found, recipe, want)
            case s.Unary("not", operand, _):
                return self.solve(operand, found, recipe, not want)
            case s.Binary(op, left, right, _) if op in _COMPARISONS:
                return self._solve_comparison(op if want else _OPPOSITE[op], left, right, found, recipe)
            case s.Call(callee, args, _, _, _) if callee in self.library.env.fns:
                fn = self.library.env.fns[callee]
                body = _substituted(fn.body, dict(zip(fn.parameters, args)))
                return self.solve(body, found, recipe, want)
            case s.Call(callee, args, _, _, _):
                return self._solve_call(callee, args, recipe, want)
            case _:
                return None

    def _solve_each(
        self, parts: Sequence[s.Expr], found: Mapping[str, Any], recipe: Recipe, want: bool = True
    ) -> Recipe | None:
        changed = None
        for part in parts:
            known, value = self.try_evaluate(part, found)
            if not known or bool(value) != want:
                changed = self.solve(part, found, changed or recipe, want) or changed
        return changed

    def _solve_comparison(
        self, op: str, left: s.Expr, right: s.Expr, found: Mapping[str, Any], recipe: Recipe
    ) -> Recipe | None:
        sides = [(left, right, op), (right, left, _MIRRORED.get(op, op))]
        if self.rng.random() < 0.3:
            sides.reverse()
        for what, than, sign in sides:
            if not _settable(what):
                continue
            known, value = self.try_evaluate(than, found)
            if not known:
                continue
            for _ in range(3):
                wish = self._wish(sign, value)
                changed = self._set(what, wish, found, recipe) if wish is not _NOTHING else None
                if changed is not None:
                    return changed
        return None

    def _wish(self, op: str, value: Any) -> Any:
        rng = self.rng
        if op == "==":
            return value
        if op == "in":
            items = list(value) if not isinstance(value, (str, bytes)) and hasattr(value, "__iter__") else []
            return rng.choice(items) if items else _NOTHING
        if op in ("!=", "not in"):
            return _ANYTHING
        if not isinstance(value, (int, float, np.integer, np.floating)):
            return _NOTHING
        step = rng.choice((0, 0, 1, 2)) if isinstance(value, (int, np.integer)) else rng.choice((0.0, 0.5, 1.0))
        strict = 1 if op in ("<", ">") else 0
        return value + step + strict if op in (">", ">=") else value - step - strict

    def _set(self, what: s.Expr, wish: Any, found: Mapping[str, Any], recipe: Recipe) -> Recipe | None:
        """The graph in which ``what`` is ``wish``."""
        match what:
            case s.Name(name, _):
                return self._set_name(name, wish, recipe)
            case s.Call(callee, (s.Name(name, _), *_), _, _, _):
                if callee in ("rank", "dim", "shape", "dims", "size", "len", "prod", "dtype"):
                    return self._set_type(callee, name, what, wish, found, recipe)
                if callee == "splat" and name in recipe.leaves and wish is not _ANYTHING:
                    leaf = recipe.leaves[name]
                    value = np.full(leaf.array.shape, 0 if wish is None else wish).astype(leaf.array.dtype)
                    return recipe.with_leaf(name, replace(leaf, array=value, constant=True))
                return self._set_name(name, wish, recipe)
            case s.Call(_, (inner, *_), _, _, _) if isinstance(inner, s.Expr):  # all(k), sorted(ints(k)) …
                return self._set(inner, wish, found, recipe) if _settable(inner) else None
            case s.Binary("??", s.Name(name, _), _, _):
                return self._set_name(name, wish, recipe)
            case s.Binary("%", inner, by, _) if _settable(inner):
                known, value = self.try_evaluate(by, found)
                if known and isinstance(wish, int):
                    return self._set(inner, wish + int(value) * self.rng.randint(1, 2), found, recipe)
                return None
            case s.Index(s.Name(name, _), _, _):
                return self._set_name(name, _ANYTHING, recipe)
            case s.Index(s.Call("shape" | "dims", (s.Name(name, _),), _, _, _), at, _) if not isinstance(at, s.Slice):
                known, axis = self.try_evaluate(at, found)
                leaf = recipe.leaves.get(name)  # type: ignore[assignment]
                if known and leaf is not None and isinstance(wish, int) and -leaf.array.ndim <= axis < leaf.array.ndim:
                    return self._set_dim(name, int(axis) % leaf.array.ndim, wish, recipe)
                return None
            case s.Member(s.Name("target", _), _, _):
                return self._set_target(wish, recipe)
            case _:
                return None

    def _set_name(self, name: str, wish: Any, recipe: Recipe) -> Recipe | None:
        leaf = recipe.leaves.get(name)
        if leaf is not None:
            if leaf.pinned:
                return None
            if wish is _ANYTHING:
                return recipe.with_leaf(name, self.redrawn(leaf, recipe))
            if wish is None:
                return self.without(name, recipe)
            try:
                array = np.asarray(wish).astype(leaf.array.dtype)
            except (TypeError, ValueError):
                return None
            if array.ndim == 0:
                array = np.full(leaf.array.shape, array)
            return recipe.with_leaf(name, replace(leaf, array=array, constant=True, names=None))
        at = recipe.names.get(name)
        if at is not None:
            return self._set_attribute(at[0], at[1], wish, recipe)
        if wish is not _ANYTHING and isinstance(wish, int) and name in self.variant.bindings:
            return self._rename_dim(name, wish, recipe)
        return None

    def _set_attribute(self, index: int, key: str, wish: Any, recipe: Recipe) -> Recipe | None:
        node = recipe.nodes[index]
        if key in node.pinned:
            return None
        spec = lookup(node.op).attributes[key]
        if wish is _ANYTHING:
            wish = draw.attribute(self.rng, spec, self.pools, self.shapes(recipe), ())
        attributes = {k: v for k, v in node.attributes.items() if k != key}
        if wish is not None:
            if isinstance(wish, np.ndarray) and spec.kind != "tensor":
                wish = wish.tolist()
            if spec.kind in ("ints", "floats", "strings", "bools"):
                if not isinstance(wish, (list, tuple, range)):
                    return None
                kind = {"ints": int, "floats": float, "strings": str, "bools": bool}[spec.kind]
                try:
                    wish = tuple(kind(v) for v in wish)
                except (TypeError, ValueError):
                    return None
            elif spec.kind in ("int", "float"):
                if isinstance(wish, (list, tuple, range, str, DType)):
                    return None
                wish = int(wish) if spec.kind == "int" else float(wish)
            attributes[key] = wish
        elif spec.required:
            return None
        return recipe.with_node(index, replace(node, attributes=attributes))

    def _set_type(
        self, callee: str, name: str, call: s.Call, wish: Any, found: Mapping[str, Any], recipe: Recipe
    ) -> Recipe | None:
        leaf = recipe.leaves.get(name)
        if leaf is None or leaf.pinned:
            if callee == "rank" and isinstance(wish, (int, np.integer)):
                return self._rank_below(name, int(wish), found, recipe)
            return self._set_attribute(*recipe.names[name], _ANYTHING, recipe) if name in recipe.names else None
        array = leaf.array
        if callee == "dtype":
            if not isinstance(wish, DType):
                return self.retyped(name, None, recipe)
            return self.retyped(name, wish, recipe)
        if callee in ("shape", "dims"):
            if not isinstance(wish, (tuple, list)) or not all(isinstance(d, int) for d in wish):
                return None
            dims = tuple(wish)
        elif callee == "rank":
            if not isinstance(wish, (int, np.integer)) or not 0 <= int(wish) <= 6:
                return None
            dims = _with_rank(self.rng, array.shape, int(wish))
        elif callee == "dim" and len(call.args) > 1 and isinstance(wish, (int, np.integer)):
            known, axis = self.try_evaluate(call.args[1], found)  # type: ignore[arg-type]
            if not known or not -array.ndim <= int(axis) < array.ndim:
                return None
            return self._set_dim(name, int(axis) % array.ndim, int(wish), recipe)
        elif callee in ("size", "len") and isinstance(wish, (int, np.integer)) and array.ndim == 1:
            dims = (max(int(wish), 0),)
        else:
            return None
        if not draw.small(dims):
            return None
        return recipe.with_leaf(name, self.redrawn(leaf, recipe, dims))

    def _rank_below(self, name: str, rank: int, found: Mapping[str, Any], recipe: Recipe) -> Recipe | None:
        """Another rank for a value inside: its leaves of the same rank get it."""
        v = found.get(f"v_{name}")
        if not isinstance(v, Value) or v.shape is None:
            return None
        now = len(v.shape)
        changed = recipe
        for n, leaf in recipe.leaves.items():
            if leaf.array.ndim == now and not leaf.pinned:
                changed = changed.with_leaf(n, self.redrawn(leaf, recipe, _with_rank(self.rng, leaf.array.shape, rank)))
        return changed if changed is not recipe else None

    def _set_dim(self, name: str, axis: int, wish: int, recipe: Recipe) -> Recipe | None:
        leaf = recipe.leaves[name]
        if not 0 <= wish <= 64:
            return None
        if self.rng.random() < 0.5:
            return self.resized(recipe, leaf.array.shape[axis], wish)
        dims = (*leaf.array.shape[:axis], wish, *leaf.array.shape[axis + 1 :])
        return recipe.with_leaf(name, self.redrawn(leaf, recipe, dims))

    def _rename_dim(self, name: str, wish: int, recipe: Recipe) -> Recipe | None:
        if self.variant.bindings[name].kind != "dim" or not 0 <= wish <= 64:
            return None
        for leaf_name, axis in self._dim_places(name):
            leaf = recipe.leaves.get(leaf_name)
            if leaf is not None and axis < leaf.array.ndim:
                return self.resized(recipe, leaf.array.shape[axis], wish)
        return None

    def _dim_places(self, name: str) -> Iterator[tuple[str, int]]:
        """The leaves whose constraint names a dimension, with the axis."""
        for p in _values(self.variant.statements):
            dims = p.constraint.dims if p.constraint is not None else None
            if dims is None or any(d.rest for d in dims):
                continue
            for i, d in enumerate(dims):
                if d.value == name:
                    yield p.id, i

    def _set_target(self, wish: Any, recipe: Recipe) -> Recipe | None:
        fitting = [t for t in self.targets if wish is _ANYTHING or wish in (t.unit, t.ios, t.precision)]
        if not fitting and isinstance(wish, int):
            fitting = self.targets
        return replace(recipe, target=self.rng.choice(fitting)) if fitting else None

    def _solve_call(self, callee: str, args: Sequence[Any], recipe: Recipe, want: bool) -> Recipe | None:
        names = [a.id for a in args if isinstance(a, (s.Name, s.Optional))]
        rng = self.rng
        if callee == "has" and names:
            return self.without(names[0], recipe) if not want else None
        if callee in ("is_const", "is_static") and want:
            return self.known(recipe)
        if callee in ("is_static", "has_rank") and not want:
            return symbolic(recipe, rng)
        if callee == "is_const" and not want and names and names[0] in recipe.leaves:
            leaf = recipe.leaves[names[0]]
            return recipe.with_leaf(names[0], replace(leaf, constant=False)) if not leaf.pinned else None
        if callee in ("same_shape", "same_type", "broadcasts_to") and want and len(names) >= 2:
            return self._align(callee, names[0], names[1], recipe)
        return None

    def _align(self, callee: str, first: str, second: str, recipe: Recipe) -> Recipe | None:
        rng = self.rng
        if first not in recipe.leaves and second in recipe.leaves and callee != "broadcasts_to":
            first, second = second, first
        leaf, other = recipe.leaves.get(first), recipe.leaves.get(second)
        if leaf is None or leaf.pinned:
            return None
        if other is None:  # made inside: small enough a shape broadcasts to it
            if callee != "broadcasts_to":
                return None
            dims = tuple(1 if rng.random() < 0.5 else d for d in leaf.array.shape[rng.randint(0, leaf.array.ndim) :])
            return recipe.with_leaf(first, self.redrawn(leaf, recipe, dims))
        dims = other.array.shape
        if callee == "broadcasts_to":
            dims = tuple(1 if rng.random() < 0.4 else d for d in dims[rng.randint(0, len(dims)) :])
        changed = self.redrawn(leaf, recipe, dims)
        if callee == "same_type":
            changed = replace(changed, array=changed.array.astype(other.array.dtype))
        return recipe.with_leaf(first, changed)

    def disturb(self, e: s.Expr, recipe: Recipe, found: Mapping[str, Any]) -> Recipe:
        """Draws something anew that the condition mentions; ``found`` has the values around, with their shapes."""
        mentioned = s.mentioned(e)
        for callee in _called(e):
            fn = self.library.env.fns.get(callee)
            if fn is not None:
                mentioned |= s.mentioned(fn.body)
        for b in self.variant.let:
            if b.id in mentioned:
                mentioned |= s.mentioned(b.value)
        attributes = [recipe.names[n] for n in mentioned if n in recipe.names]
        leaves = [n for n in mentioned if n in recipe.leaves and not recipe.leaves[n].pinned]
        pick = self.rng.random()
        if attributes and (pick < 0.6 or not leaves):
            index, key = self.rng.choice(sorted(attributes))
            changed = self._set_attribute(index, key, _ANYTHING, recipe)
            if changed is not None:
                return changed
        if leaves and pick < 0.9:
            name = self.rng.choice(sorted(leaves))
            leaf = recipe.leaves[name]
            dims = leaf.array.shape
            if self.rng.random() < 0.6:
                around = [v.type.static_shape for v in found.values() if _is_static(v)]
                dims = draw.like(self.rng, self.rng.choice([dims, *around, *around]))
            return recipe.with_leaf(name, self.redrawn(leaf, recipe, dims))
        return self.vary(recipe)

    # ---- varying

    def shapes(self, recipe: Recipe) -> list[tuple[int, ...]]:
        return [leaf.array.shape for leaf in recipe.leaves.values()]

    def redrawn(self, leaf: Leaf, recipe: Recipe, dims: tuple[int, ...] | None = None) -> Leaf:
        """Other contents, perhaps of another shape."""
        dims = leaf.array.shape if dims is None or not draw.small(dims) else dims
        if leaf.array.dtype.kind in "iu" and len(dims) < 2 and self.rng.random() < 0.6:
            values = draw.small_ints(self.rng, int(np.prod(dims)), self.shapes(recipe), self.pools.ints)
            if len(values) == int(np.prod(dims)):
                array = np.array(values, dtype=np.int64).astype(leaf.array.dtype).reshape(dims)
                return replace(leaf, array=array, names=None)
        type_ = TensorType(leaf.type.dtype, dims)
        array = draw.contents(self.rng, type_, leaf.low, leaf.high, self.sampler.wild)
        return replace(leaf, array=array, names=leaf.names if dims == leaf.array.shape else None)

    def retyped(self, name: str, to: DType | None, recipe: Recipe) -> Recipe | None:
        """Every leaf of the same element type in another one."""
        leaf = recipe.leaves[name]
        if to is None:
            names = ("f32", "f16") if leaf.type.dtype.is_float else ("i32", "i64", "f32")
            to = self.rng.choice([d for d in _dtypes(names) if d is not leaf.type.dtype])
        old = leaf.array.dtype
        leaves = dict(recipe.leaves)
        for n, other in recipe.leaves.items():
            if n == name or (other.array.dtype == old and self.rng.random() < 0.9):
                type_ = TensorType(to, other.array.shape)
                array = draw.contents(self.rng, type_, other.low, other.high, self.sampler.wild)
                if other.pinned:
                    try:
                        exact = other.array if other.literal is None else np.full(other.array.shape, other.literal)
                        array = exact.astype(to.numpy)
                    except TypeError:
                        return None
                leaves[n] = replace(other, array=array)
        return replace(recipe, leaves=leaves)

    def resized(self, recipe: Recipe, old: int, new: int) -> Recipe:
        """Every dimension of size ``old``, and numbers that may stand for it, become ``new``."""
        rng = self.rng
        leaves = {}
        for n, leaf in recipe.leaves.items():
            if old in leaf.array.shape:
                leaf = self.redrawn(leaf, recipe, tuple(new if d == old else d for d in leaf.array.shape))
            elif leaf.array.dtype.kind in "iu" and leaf.array.ndim < 2 and not leaf.pinned and rng.random() < 0.8:
                leaf = replace(leaf, array=np.where(leaf.array == old, new, leaf.array).astype(leaf.array.dtype))
            leaves[n] = leaf
        nodes = []
        for node in recipe.nodes:
            attributes = dict(node.attributes)
            for k, v in node.attributes.items():
                if isinstance(v, tuple) and k not in node.pinned and old > 1 and rng.random() < 0.5:
                    attributes[k] = tuple(new if x == old and isinstance(x, int) else x for x in v)
            nodes.append(replace(node, attributes=attributes))
        return replace(recipe, leaves=leaves, nodes=tuple(nodes))

    def without(self, name: str, recipe: Recipe) -> Recipe | None:
        """The graph without an operand that may be absent."""
        for i, node in enumerate(recipe.nodes):
            for k in node.optional:
                ref = node.operands[k] if k < len(node.operands) else None
                if ref is not None and ref.leaf == name:
                    operands = tuple(None if j == k else r for j, r in enumerate(node.operands))
                    return pruned(recipe.with_node(i, replace(node, operands=operands)))
        at = recipe.names.get(name)
        return self._set_attribute(at[0], at[1], None, recipe) if at is not None else None

    def vary(self, recipe: Recipe) -> Recipe:
        """A random change: contents, sizes, ranks, attributes, order, what is known, the target."""
        rng = self.rng
        kind = rng.random()
        if self.sampler.careful and kind > 0.1:
            kind = 0.0
        free = [n for n, leaf in recipe.leaves.items() if not leaf.pinned]
        if kind < 0.25:
            leaves = {n: leaf if leaf.pinned else self._refreshed(leaf, recipe) for n, leaf in recipe.leaves.items()}
            return replace(recipe, leaves=leaves)
        if kind < 0.5:
            sizes = sorted({d for n in free for d in recipe.leaves[n].array.shape})
            if sizes:
                return self.resized(recipe, rng.choice(sizes), draw.size(rng, self.pools.sizes))
        if kind < 0.6 and free:
            name = rng.choice(free)
            leaf = recipe.leaves[name]
            return recipe.with_leaf(name, self.redrawn(leaf, recipe, draw.like(rng, leaf.array.shape)))
        if kind < 0.75:
            index = rng.randrange(len(recipe.nodes))
            keys = [k for k in recipe.nodes[index].attributes if k not in recipe.nodes[index].pinned]
            bound = [at for at in recipe.names.values() if at[0] == index] + [(index, k) for k in keys]
            if bound:
                return self._set_attribute(*rng.choice(bound), _ANYTHING, recipe) or recipe
        if kind < 0.8 and free:
            return self.retyped(rng.choice(free), None, recipe) or recipe
        if kind < 0.85:
            index = rng.randrange(len(recipe.nodes))
            if len(recipe.nodes[index].operands) == 2 and lookup(recipe.nodes[index].op).commutative:
                return replace(recipe, nodes=swapped(recipe.nodes, index))
        if kind < 0.9:
            return replace(recipe, target=rng.choice(self.targets))
        if kind < 0.94:
            return symbolic(recipe, rng)
        if free:
            name = rng.choice(free)
            leaf = recipe.leaves[name]
            if leaf.type.dtype.bits >= 8:
                return recipe.with_leaf(name, replace(leaf, constant=not leaf.constant, names=None))
        return recipe

    def _refreshed(self, leaf: Leaf, recipe: Recipe) -> Leaf:
        if leaf.array.dtype.kind in "iu" and leaf.array.ndim < 2 and self.rng.random() < 0.8:
            return leaf  # axes and shapes
        return self.redrawn(leaf, recipe)


_COMPARISONS = {"==", "!=", "<", ">", "<=", ">=", "in", "not in"}
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">", "in": "not in", "not in": "in"}
_MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_NOTHING = object()
_ANYTHING = object()


def _is_static(v: Any) -> bool:
    return isinstance(v, Value) and isinstance(v.type, TensorType) and v.type.is_static


def _unknown(failure: Failure) -> bool:
    """Whether the clause asked for something that is not known, rather than being false."""
    why = failure.found.get("_why")
    return isinstance(why, Decline) and str(why) != "no such axis"


def _settable(e: Any) -> bool:
    match e:
        case s.Name():
            return True
        case s.Call(_, (first, *_), _, _, _):
            return _settable(first)
        case s.Binary("??" | "%", left, _, _):
            return _settable(left)
        case s.Index(base, _, _):
            return _settable(base)
        case s.Member():
            return True
        case _:
            return False


def _with_rank(rng: random.Random, dims: tuple[int, ...], rank: int) -> tuple[int, ...]:
    out = list(dims)
    while len(out) > rank:
        out.pop(rng.randrange(len(out)))
    while len(out) < rank:
        out.insert(rng.randint(0, len(out)), draw.size(rng))
    return tuple(out)


def _dtypes(names: Sequence[str]) -> list[DType]:
    from compiler.ir import dtype

    return [dtype(n) for n in names]


def _called(e: Any) -> set[str]:
    from compiler.rewrite.instantiate import _callees

    return _callees(e)


def _values(node: Any) -> Iterator[s.ValuePattern]:
    if isinstance(node, s.ValuePattern):
        yield node
    elif isinstance(node, tuple) and not isinstance(node, s.Pos):
        for x in node:
            yield from _values(x)
    elif isinstance(node, (s.MatchStmt, s.OpPattern, s.NamedOperand)):
        for f in node.__dataclass_fields__:
            yield from _values(getattr(node, f))


def _substituted(e: Any, by: Mapping[str, Any]) -> Any:
    """An expression with names replaced: a function's body with the arguments of a call."""
    if isinstance(e, s.Name) and e.id in by:
        return by[e.id]
    if isinstance(e, s.Pos) or not hasattr(e, "__dataclass_fields__"):
        if isinstance(e, tuple) and not isinstance(e, s.Pos):
            return tuple(_substituted(x, by) for x in e)
        return e
    return replace(e, **{f: _substituted(getattr(e, f), by) for f in e.__dataclass_fields__ if f != "pos"})


def pins_of(givens: Sequence[s.Given], library: Library) -> Pins:
    """What an ``example`` fixes."""
    pins = Pins()
    for g in givens:
        if g.constraint is not None:
            pins.types[g.id] = g.constraint
        elif g.value is not None:
            compiler = ExpressionCompiler(library.env, library.externs)
            try:
                pins.data[g.id] = eval(compiler.data(g.value, {}), {**compiler.globals}, {"target": NO_TARGET})
            except Decline:
                continue
    return pins
