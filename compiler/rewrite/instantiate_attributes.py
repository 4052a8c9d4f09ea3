"""Attributes of an operator that is drawn at random; and what the parts of the sampler share."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from compiler.ir import DTYPES, Block, Builder, DType, OpDef, Value
from compiler.rewrite import prove_values as draw
from compiler.rewrite import syntax as s
from compiler.rewrite.prove_pools import Pins, Pools
from compiler.rewrite.prove_seeds import Seed, Seeds
from compiler.rewrite.recipe import Leaf, Node
from compiler.rewrite.resolve_names import Variant

#: Attributes that are one value each: nearly any goes with the operands that there are.
_SCALARS = frozenset({"int", "float", "bool", "string", "type"})


class AttributeSampler:
    """What has been drawn of a graph so far, and how attributes are drawn."""

    def __init__(self, variant: Variant, rng: random.Random, seeds: Seeds, pools: Pools, wild: bool) -> None:
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
        self.reset()

    def reset(self) -> None:
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

    def draw_attributes(
        self, p: s.OpPattern, defn: OpDef, seed: Seed | None, names: Renaming, shapes: Sequence[tuple[int, ...]]
    ) -> dict[str, Any] | None:
        rng = self.rng
        out: dict[str, Any] = {}
        rename = rng.random() < 0.4 and not names.fixed
        mentioned = set()
        spread = False

        def fresh(name: str, named: bool = False) -> Any:
            spec = defn.attributes[name]
            named = named and not self.careful
            if seed is not None and name in seed.attributes and (self.careful or rng.random() < 0.8):
                value = seed.attributes[name]
                if rename and spec.kind == "ints":
                    return tuple(names(v) if v > 1 and v in names.known else v for v in value)
                return value
            if seed is not None and name not in seed.attributes:
                # What the rule has a name for matters to it; but few lists go with the operands that there are.
                often = 0.3 if named and spec.kind in _SCALARS else 0.7
                if self.careful or rng.random() < often:
                    return spec.default
                seen = self.seeds.seen(defn.name, name)
                if named and seen and spec.kind == "ints" and rng.random() < 0.7:
                    return rng.choice(seen)
            return draw.attribute(rng, spec, self.pools, shapes, self.seeds.seen(defn.name, name))

        for a in p.attrs:
            if isinstance(a, s.AttrSpread):
                spread = True
                continue
            mentioned.add(a.name)
            value = self.attribute(a, fresh)
            if value is None:
                if (a.choices[0].kind == "bind" and a.choices[0].value != "_") or defn.attributes[a.name].required:
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
        name = bound_name(a) or c.value
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
        named = name != "_"
        value = fresh(a.name, named)
        for _ in range(3):
            if value is None and c.kind == "bind":
                value = fresh(a.name, named)
        return value


class Renaming:
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


def bound_name(a: s.AttrPattern) -> str | None:
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
