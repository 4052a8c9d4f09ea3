"""Valid operators to start from, so that nobody has to type in how the shapes of operands hang together.

The conformance suite inside the onnx package holds some 1,900 single-operator models with inputs: for each operator
which ranks, sizes and attributes go together. :mod:`instantiate` takes them as seeds, renames the sizes and draws
contents anew. Operators of mil get their seeds by lowering those. Collecting the suite takes nine seconds; it is kept
in the user's cache by the version of onnx.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.ir import Block, Function, Module, Op, OpDef, TensorType, clone_block, dialects, lookup
from compiler.rewrite.cache import kept
from compiler.rewrite.prove_flow import written

if TYPE_CHECKING:
    from compiler.rewrite.library import Library

#: Contents of integer operands up to this size are kept: axes, shapes, indices.
_KEPT = 64
#: Seeds of more elements than this are left out: a proof's tensors are small.
_MOST_ELEMENTS = 4096


@dataclass(frozen=True, slots=True)
class SeedOperand:
    """An operand as it was: its type, the range of its elements, and, for few integers, its contents."""

    type: TensorType
    low: float = -1.0
    high: float = 1.0
    contents: np.ndarray[Any, Any] | None = None


@dataclass(frozen=True, slots=True)
class Seed:
    """An operator that is known to be valid."""

    op: str
    operands: tuple[SeedOperand | None, ...]
    attributes: Mapping[str, Any]
    results: int
    regions: tuple[Block, ...] = ()


class Seeds:
    """Seeds by the name of the operator."""

    def __init__(self, library: Library | None = None) -> None:
        self.library = library

    @functools.cache  # noqa: B019 (one object lives as long as the process)
    def of(self, name: str) -> tuple[Seed, ...]:
        """The seeds for an operator; those of its newest form, put into the terms of an older one; often none."""
        own = suite().get(name)
        if own is not None:
            return tuple(self._renewed(s) for s in own) if own[0].regions else own
        plain, _, version = name.partition("@")
        if version:
            defn = lookup(name)
            return tuple(_older(s, defn) for s in suite().get(plain, ()))
        if self.library is not None and "lower" in self.library.stages and name not in suite():
            return self.lowered.get(name, ())
        return ()

    @functools.cache  # noqa: B019 (one object lives as long as the process)
    def seen(self, name: str, key: str) -> tuple[Any, ...]:
        """Values of an operator's attribute: those that it has in seeds. Of texts and numbers each once, since modes
        and flags that are rare matter as much as others. Where there is one text only, those that attributes of the
        same name have elsewhere too."""
        own = tuple(x.attributes[key] for x in self.of(name)[:60] if key in x.attributes)
        kind = lookup(name).attributes[key].kind
        if kind not in ("string", "int", "bool"):
            return own
        distinct = tuple(dict.fromkeys(own))
        if kind == "string" and len(distinct) < 2:
            return tuple(dict.fromkeys([*distinct, *texts().get(key, ())]))
        return distinct

    def _renewed(self, seed: Seed) -> Seed:
        """The seed with the older forms in its regions put into new ones, beside which other operators can stand."""
        module = as_module(seed)
        if module is None or self.library is None or "upgrade" not in self.library.stages:
            return seed
        self.library.rewrite(module, "upgrade")
        ops = [op for op in module.main.block.ops if op.name == seed.op]
        return replace(seed, regions=tuple(_detached(ops[0])))

    @functools.cached_property
    def lowered(self) -> dict[str, tuple[Seed, ...]]:
        """The operators that the suite's become by stage ``lower``, where that is not their own dialect's."""
        out: dict[str, list[Seed]] = {}
        assert self.library is not None
        for seeds in suite().values():
            for seed in seeds[:8]:
                for made in self._lower(seed):
                    out.setdefault(made.op, []).append(made)
        for name, ops in written().items():
            out[name] = [*filter(None, (_seed_of(op, {}) for op in ops)), *out.get(name, [])]
        return {name: tuple(found[:40]) for name, found in out.items()}

    def _lower(self, seed: Seed) -> Iterator[Seed]:
        module = as_module(seed)
        if module is None or self.library is None:
            return
        known = dict(zip(module.main.inputs, [s for s in seed.operands if s is not None]))
        try:
            self.library.rewrite(module, "lower")
        except Exception:  # a lowering rule that is wrong is found by its own proof
            return
        own = module.main.block.first
        for op in module.main.block.ops:
            if op.defn.constant is not None or op.defn.terminator or not all(map(_is_closed, op.regions)):
                continue
            if own is not None and op.defn.dialect != seed.op.partition(".")[0]:
                found = _seed_of(op, {v: known[v].high for v in op.operands if v in known})
                if found is not None:
                    yield found


def as_module(seed: Seed) -> Module | None:
    """A module of the one operator, its small integer operands constant; None if it cannot be made."""
    from compiler.ir import Builder, InferenceError

    dialect = seed.op.partition(".")[0]
    const = [s is not None and s.contents is not None for s in seed.operands]
    types = {f"x{i}": s.type for i, s in enumerate(seed.operands) if s is not None and not const[i]}
    function = Function("main", types)
    inputs = {a.name: a for a in function.inputs}
    builder = Builder(function.block)
    operands = [
        None if s is None else builder.constant(s.contents, dialect) if s.contents is not None else inputs[f"x{i}"]
        for i, s in enumerate(seed.operands)
    ]
    try:
        regions = [clone_block(r, {}) for r in seed.regions]
        op = builder.op(seed.op, operands, seed.attributes, results=seed.results, regions=regions)
    except InferenceError:
        return None
    function.set_outputs(op.results, [f"y{i}" for i in range(len(op.results))])
    module = Module("seed")
    module.add(function)
    return module


def _seed_of(op: Op, arrays: Mapping[Any, Any]) -> Seed | None:
    operands: list[SeedOperand | None] = []
    for v in op.operands:
        if v is None:
            operands.append(None)
            continue
        if not isinstance(v.type, TensorType) or not v.type.is_static or (v.type.size or 0) > _MOST_ELEMENTS:
            return None
        array = v.constant if v.constant is not None else arrays.get(v)
        operands.append(_operand(v.type, array if isinstance(array, np.ndarray) else None))
    return Seed(op.name, tuple(operands), dict(op.attributes), len(op.results), tuple(_detached(op)))


def _is_closed(block: Block) -> bool:
    """Whether a region uses nothing from outside."""
    own = {*block.arguments, *(r for op in block.ops for r in op.results)}
    return all(v is None or v in own for op in block.ops for v in op.operands) and not any(
        op.regions for op in block.ops
    )


def _detached(op: Op) -> list[Block]:
    return [clone_block(r, {}) for r in op.regions]


def _operand(type_: TensorType, array: np.ndarray[Any, Any] | None) -> SeedOperand:
    if array is None or array.size == 0 or array.dtype.kind not in "iufb":
        return SeedOperand(type_)
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        low, high = -1.0, 1.0
    kept = array.dtype.kind in "iu" and array.size <= _KEPT
    return SeedOperand(type_, low, high, array.copy() if kept else None)


def _older(seed: Seed, defn: OpDef) -> Seed:
    """A seed of the newest form as one of an older: operands that it does not have become attributes of that name."""
    newest = lookup(seed.op)
    attributes = {k: v for k, v in seed.attributes.items() if k in defn.attributes}
    for spec, operand in zip(newest.operands, seed.operands):
        if operand is not None and operand.contents is not None and spec.name in defn.attributes:
            values = operand.contents.reshape(-1).tolist()
            wants_list = defn.attributes[spec.name].kind == "ints"
            attributes[spec.name] = tuple(values) if wants_list else values[0]
    return Seed(defn.name, seed.operands[: len(defn.operands)], attributes, min(seed.results, len(defn.results)))


# ---- the suite


@functools.cache
def texts() -> dict[str, tuple[str, ...]]:
    """The texts that attributes have in the suite, by the attribute's name."""
    out: dict[str, dict[str, None]] = {}
    for seeds in suite().values():
        for seed in seeds:
            for key, value in seed.attributes.items():
                if isinstance(value, str):
                    out.setdefault(key, {})[value] = None
    return {key: tuple(values) for key, values in out.items()}


@functools.cache
def suite() -> dict[str, tuple[Seed, ...]]:
    """The suite's operators, each with its cases."""
    import onnx

    raw = kept(f"seeds-{onnx.__version__}-{'-'.join(sorted(dialects()))}-1", _collect)
    out: dict[str, list[Seed]] = {}
    for model, inputs in raw:
        seed = _read(model, inputs)
        if seed is not None:
            out.setdefault(seed.op, []).append(seed)
    return {name: tuple(found) for name, found in out.items()}


def _collect() -> list[tuple[bytes, list[Any]]]:
    """The models of one node, serialized, each with its inputs."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    out = []
    for case in cases:
        if case.model is None or len(case.model.graph.node) != 1 or not case.data_sets:
            continue
        arrays = [a if isinstance(a, np.ndarray) and a.size <= _MOST_ELEMENTS else None for a in case.data_sets[0][0]]
        out.append((case.model.SerializeToString(), arrays))
    return out


def _read(model: bytes, inputs: list[Any]) -> Seed | None:
    from compiler import frontend
    from compiler.errors import PlanishError
    from compiler.ir import InferenceError, UnknownOperatorError

    try:
        module = frontend.load(model)
    except (PlanishError, InferenceError, UnknownOperatorError):
        return None
    function = module.main
    ops = [op for op in function.block.ops if op.defn.constant is None and not op.defn.terminator]
    if len(ops) != 1:
        return None
    return _seed_of(ops[0], dict(zip(function.inputs, inputs)))
