"""A dialect for tests, with one operator of each make, and random modules in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from compiler import ir

FLOATS = frozenset({ir.F16, ir.F32})
KINDS: tuple[ir.opdef.AttributeKind, ...] = (
    "int",
    "float",
    "string",
    "bool",
    "ints",
    "floats",
    "strings",
    "bools",
    "tensor",
    "type",
    "any",
)


def _spec(name: str, arity: ir.opdef.Arity = "required", dtypes: Any = None, variable: str = "") -> ir.OperandSpec:
    return ir.OperandSpec(name, arity, dtypes, variable)


def _attributes(*specs: ir.AttributeSpec) -> dict[str, ir.AttributeSpec]:
    return {s.name: s for s in specs}


DEFINITIONS = [
    ir.OpDef(
        "toy.const",
        (),
        (_spec("out"),),
        _attributes(ir.AttributeSpec("value", "tensor", required=True)),
        constant="value",
    ),
    ir.OpDef(
        "toy.add", (_spec("a", variable="T"), _spec("b", variable="T")), (_spec("c", variable="T"),), commutative=True
    ),
    ir.OpDef("toy.relu", (_spec("x", dtypes=FLOATS),), (_spec("y", dtypes=FLOATS),)),
    ir.OpDef("toy.relu@3", (_spec("x"),), (_spec("y"),), _attributes(ir.AttributeSpec("axis", "int", default=1))),
    ir.OpDef(
        "toy.opt", (_spec("x"), _spec("w", "optional"), _spec("b", "optional")), (_spec("y"), _spec("mask", "optional"))
    ),
    ir.OpDef(
        "toy.scaled",
        (_spec("x"),),
        (_spec("y"),),
        _attributes(
            ir.AttributeSpec("alpha", "float", default=0.5),
            ir.AttributeSpec("axes", "ints", default=(0, 1)),
            ir.AttributeSpec("mode", "string", default="fast"),
            ir.AttributeSpec("to", "type"),
        ),
    ),
    ir.OpDef("toy.split", (_spec("xs", "variadic"),), (_spec("ys", "variadic"),)),
    ir.OpDef("toy.every", (), (_spec("y"),), _attributes(*(ir.AttributeSpec(k, k) for k in KINDS))),
    ir.OpDef("toy.sink", (_spec("x"),), pure=False),
    ir.OpDef("toy.loop", (_spec("xs", "variadic"),), (_spec("ys", "variadic"),), regions=("body",)),
    ir.OpDef("toy.if", (_spec("c"),), (_spec("ys", "variadic"),), regions=("then_branch", "else_branch")),
]


class Toy(ir.Dialect):
    name = "toy"

    def __init__(self) -> None:
        self._defs = {d.name.removeprefix("toy."): d for d in DEFINITIONS}

    def lookup(self, op: str) -> ir.OpDef | None:
        return self._defs.get(op)

    def op_names(self) -> Iterable[str]:
        return [n for n in self._defs if "@" not in n]

    def infer(
        self,
        defn: ir.OpDef,
        operands: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        regions: Sequence[ir.Block] = (),
        results: int | None = None,
    ) -> list[ir.Type]:
        if defn.constant:
            value = attributes["value"]
            return [ir.TensorType(ir.from_numpy(value.dtype), value.shape)]
        first = next((v.type for v in operands if v is not None), ir.TensorType(ir.F32, (1,)))
        return [first] * (len(defn.results) if results is None else results)

    def constant(self, value: np.ndarray[Any, Any]) -> tuple[str, dict[str, Any]]:
        return "toy.const", {"value": value}


ir.register_dialect(Toy())

names = st.one_of(
    st.sampled_from(
        ["", "x", "y", "0", "7", "x_1", "x_2", "_", "a/b.c", "s:0", "return", "func", "tensor", "nan", '"', "\\"]
    ),
    st.text(max_size=6),
)
dims = st.one_of(
    st.integers(0, 2**40), st.sampled_from(["?", "batch", "x", "N", "f32", "H/2", "a b", ""]), st.text(max_size=4)
)
dtypes = st.sampled_from(list(ir.DTYPES.values()))
tensor_types = st.builds(ir.TensorType, dtypes, st.one_of(st.none(), st.lists(dims, max_size=4)))
types = st.recursive(
    tensor_types,
    lambda inner: st.one_of(*(st.builds(c, inner) for c in (ir.SequenceType, ir.OptionalType, ir.StateType))),
    max_leaves=2,
)
floats = st.one_of(
    st.floats(),
    st.floats(width=32),
    st.floats(width=16),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e-5, 0.1, float(np.float32(0.1)), 1e300, 5e-324]),
).map(lambda f: math.nan if math.isnan(f) else f)


@st.composite
def arrays(draw: st.DrawFn, dtype: ir.DType | None = None) -> np.ndarray[Any, Any]:
    """Arrays of every element type; of floats, any bits."""
    dtype = draw(dtypes) if dtype is None else dtype
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    size = math.prod(shape)
    splat = draw(st.booleans())
    if dtype.kind == "string":
        texts = draw(st.lists(st.text(max_size=5), min_size=size, max_size=size))
        return np.array([texts[0]] * size if splat and texts else texts, object).reshape(shape)
    if dtype.kind == "bool":
        flat = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), np.bool_)
    elif dtype.is_integer:
        low = -(1 << (dtype.bits - 1)) if dtype.is_signed else 0
        numbers = draw(st.lists(st.integers(low, low + (1 << dtype.bits) - 1), min_size=size, max_size=size))
        flat = np.array(numbers, np.uint64 if dtype is ir.U64 else np.int64).astype(dtype.numpy)
    else:
        width = dtype.numpy.itemsize
        raw = draw(st.binary(min_size=size * width, max_size=size * width))
        if dtype is ir.F4E2M1:
            raw = bytes(b & 15 for b in raw)
        flat = np.frombuffer(raw, dtype.numpy)
    if splat and size:
        flat = np.repeat(flat[:1], size)
    return flat.reshape(shape)


scalars = st.one_of(st.integers(-(2**70), 2**70), floats, st.text(max_size=6), st.booleans(), dtypes, types)
_BY_KIND: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**63), 2**63),
    "float": floats,
    "string": st.text(max_size=8),
    "bool": st.booleans(),
    "ints": st.lists(st.integers(), max_size=3).map(tuple),
    "floats": st.lists(floats, max_size=3).map(tuple),
    "strings": st.lists(st.text(max_size=4), max_size=3).map(tuple),
    "bools": st.lists(st.booleans(), max_size=3).map(tuple),
    "tensor": arrays(),
    "type": st.one_of(dtypes, types),
    "any": st.one_of(scalars, st.lists(scalars, max_size=3).map(tuple), arrays()),
}
metadata = st.dictionaries(names, st.one_of(scalars, arrays()), max_size=2)


@st.composite
def _fill(draw: st.DrawFn, block: ir.Block, visible: list[ir.Value], depth: int) -> None:
    """Random operators at the end of a block, which may use what is visible, and a terminator."""
    visible = [*visible, *block.arguments]
    for _ in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(["const", "opt", "scaled", "split", "every", "sink", "relu@3", "loop", "if"]))
        defn = ir.lookup(f"toy.{name}")
        if not visible and name not in ("const", "every", "split", "loop"):
            continue
        value = st.sampled_from(visible) if visible else st.nothing()
        if name in ("const", "every"):
            operands: list[ir.Value | None] = []
        elif name in ("split", "loop"):
            operands = list(draw(st.lists(value, max_size=3))) if visible else []
        elif name == "opt":
            operands = [draw(value), draw(st.one_of(st.none(), value)), draw(value)]
        else:
            operands = [draw(value)]
        attributes = defn.defaults()
        result_types: list[ir.Type] = []
        if name == "const":
            array = draw(arrays())
            attributes["value"] = array
            result_types = [ir.TensorType(ir.from_numpy(array.dtype), array.shape)]
        else:
            for key, spec in defn.attributes.items():
                if draw(st.booleans()):
                    attributes[key] = draw(_BY_KIND[spec.kind])
            if name == "opt":
                result_types = draw(st.lists(types, min_size=1, max_size=2))
            elif defn.results:
                many = defn.results[0].arity == "variadic"
                result_types = draw(st.lists(types, min_size=0 if many else 1, max_size=3 if many else 1))
        regions = []
        for _ in defn.regions:
            args = draw(st.lists(st.tuples(types, names), max_size=2))
            region = ir.Block([t for t, _ in args], [n for _, n in args])
            draw(_fill(region, visible, depth - 1)) if depth else region.append(ir.Op("ir.return"))
            regions.append(region)
        loc = draw(st.sampled_from([ir.NOWHERE, ir.Location(("a/b", "c\nd"), ("fuse",))]))
        op = block.append(ir.Op(defn, operands, result_types, attributes, regions, loc))
        for r in op.results:
            r.name = draw(names)
        visible += op.results
    block.append(ir.Op("ir.return", draw(st.lists(st.sampled_from(visible), max_size=3)) if visible else ()))


@st.composite
def modules(draw: st.DrawFn) -> ir.Module:
    """Valid modules of up to two functions with regions two deep."""
    module = ir.Module(draw(names), draw(metadata))
    for name in draw(st.lists(names, max_size=2, unique=True)):
        inputs = draw(st.lists(st.tuples(names, types), max_size=3, unique_by=lambda p: p[0]))
        # An input without a name is numbered, and may not be called by a number.
        function = module.add(ir.Function(name, inputs, attributes=draw(metadata)))
        draw(_fill(function.block, [], 2))
        count = len(function.outputs)
        function.output_names = draw(st.lists(names, min_size=count, max_size=count, unique=True))
    return module


def isomorphic(a: ir.Module, b: ir.Module) -> bool:
    """Whether two modules are equal but for hints and locations."""
    if (a.name, list(a.functions)) != (b.name, list(b.functions)) or not _same_attributes(a.attributes, b.attributes):
        return False
    for f, g in zip(a.functions.values(), b.functions.values()):
        if f.output_names != g.output_names or not _same_attributes(f.attributes, g.attributes):
            return False
        if [i.name for i in f.inputs] != [i.name for i in g.inputs] or not _same_block(f.block, g.block, {}):
            return False
    return True


def _same_block(a: ir.Block, b: ir.Block, to: dict[ir.Value, ir.Value]) -> bool:
    if [v.type for v in a.arguments] != [v.type for v in b.arguments] or len(a) != len(b):
        return False
    to.update(zip(a.arguments, b.arguments))
    for x, y in zip(a.ops, b.ops):
        if x.defn is not y.defn or [v and to[v] for v in x.operands] != list(y.operands):
            return False
        if [r.type for r in x.results] != [r.type for r in y.results]:
            return False
        if not _same_attributes(x.attributes, y.attributes) or len(x.regions) != len(y.regions):
            return False
        if not all(_same_block(r, s, to) for r, s in zip(x.regions, y.regions)):
            return False
        to.update(zip(x.results, y.results))
    return True


def _same_attributes(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(ir.same_attribute(a[k], b[k]) for k in a)
