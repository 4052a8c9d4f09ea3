"""The truth about mil operators, from others than the rules: what meaning rules are held to.

In this order:

1. coremltools computes the results of many operators itself where all inputs are known (``value_inference``, and
   ``materialized_val_inference`` of compressed weights), with NumPy.
2. :mod:`compiler.reference` says in NumPy what coremltools documents of the others.
3. Control flow is followed here, its regions operator by operator.

coremltools also infers the types of all results. What has no truth of its own is not proved.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler import reference
from compiler.ir import Block, Op, TensorType, Value

Array = np.ndarray[Any, Any]

#: The releases by whose operators coremltools is asked, after that of the target.
RELEASES = ("ios18", "ios17", "ios16")
#: The names of element types in coremltools.
_TYPES = {
    "f16": "fp16", "f32": "fp32", "bool": "bool", "i8": "int8", "u8": "uint8", "i16": "int16", "u16": "uint16",
    "i32": "int32", "u32": "uint32", "i4": "int4", "u4": "uint4", "u1": "uint1", "u2": "uint2", "u3": "uint3",
    "u6": "uint6",
}  # fmt: skip
#: Steps that a loop is followed.
_STEPS = 200


class NotTakenError(Exception):
    """coremltools does not take the operator with these inputs: it is none."""


class UnknownError(Exception):
    """Nobody says what the operator computes."""


@dataclass(slots=True)
class Truth:
    """What an operator gives.

    Attributes:
        shapes: what coremltools infers, None where it does not; it may leave dimensions open.
        values: the results.
        source: who computed them.
    """

    shapes: list[tuple[Any, ...] | None]
    values: list[Array]
    source: str


def truth(op: Op, arrays: Mapping[Value, Array], os: str | None = None) -> Truth:
    """What an operator gives.

    Args:
        arrays: what its operands hold, and values of outer blocks that its regions use.
        os: the release to ask for first.

    Raises:
        NotTakenError, UnknownError: see there.
    """
    if op.regions:
        followed = _flow(op, arrays, os)
        return Truth([v.shape for v in followed], followed, "control flow")
    name = op.name.partition(".")[2]
    with _quiet():
        made = _built(op, name, arrays, os)
        if len(made) != len(op.results):
            raise NotTakenError(f"coremltools says that it has {len(made)} results")
        shapes = [tuple(v.shape) if v.shape is not None else None for v in made]
        if any(isinstance(d, (int, np.integer)) and d < 0 for dims in shapes for d in dims or ()):
            raise NotTakenError("coremltools infers a negative size")
        values: list[Any] | None = None
        if name not in reference.PREFERRED:
            values = [v.val for v in made]
            if any(v is None for v in values) and made[0].op is not None:
                found = _materialized(made[0].op)
                values = found if found is not None else values
    if values is not None and all(v is not None for v in values):
        own = [np.asarray(v) for v in values]
        if any(dims is not None and not fits(a.shape, dims) for a, dims in zip(own, shapes)):
            raise NotTakenError("coremltools computes another shape than it infers: it does not take such operands")
        return Truth(shapes, own, "coremltools")
    try:
        with _quiet():
            documented = reference.compute(name, _inputs(op, arrays))
    except (ValueError, TypeError, IndexError, AssertionError, KeyError, ZeroDivisionError) as e:
        raise NotTakenError(f"not as documented: {e}") from None
    if documented is None:
        raise UnknownError(f"nobody says what {op.name} computes")
    return Truth(shapes, documented, "documentation")


def fits(ours: tuple[int, ...], theirs: tuple[Any, ...]) -> bool:
    """Whether a shape is one that coremltools infers, which may leave dimensions open."""
    if len(ours) != len(theirs):
        # coremltools has no scalars: what is one for ONNX has one element there.
        return int(np.prod(ours)) == 1 and all(d == 1 for d in theirs if isinstance(d, (int, np.integer)))
    return all(not isinstance(b, (int, np.integer)) or a == int(b) for a, b in zip(ours, theirs))


# ---- coremltools


@contextlib.contextmanager
def _quiet() -> Any:
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        logging.getLogger("coremltools").setLevel(logging.ERROR)
        yield


def _built(op: Op, name: str, arrays: Mapping[Value, Array], os: str | None) -> list[Any]:
    """The operator in coremltools, all its inputs constant; its results."""
    import coremltools
    from coremltools.converters.mil import Builder, Function
    from coremltools.converters.mil.mil import types
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    given: dict[str, Any] = {}
    for key, value in _inputs(op, arrays).items():
        if value is not None:
            many = isinstance(value, list)
            made = [_in_theirs(v, types) for v in (value if many else [value])]
            given[key] = made if many else made[0]
    reason = f"there is no {name}"
    for release in dict.fromkeys([os, *RELEASES] if os else RELEASES):
        target = getattr(coremltools.target, release.replace("ios", "iOS"))
        forms = [form for since, form in SSAOpRegistry.core_ops[name].items() if since.value <= target.value]
        if not forms:
            continue
        try:
            inputs = {k: _typed(v, forms[-1], k, types) for k, v in given.items()}
            with Function({}, opset_version=target):
                results = getattr(Builder, name)(**inputs)
            return list(results) if isinstance(results, (tuple, list)) else [results]
        except Exception as e:  # whatever coremltools raises, it does not take the operator
            reason = str(e).strip() or type(e).__name__
    raise NotTakenError(f"coremltools does not take it: {reason.splitlines()[0]}")


def _in_theirs(value: Any, types: Any) -> Any:
    """An array in the element type that coremltools has for it; attributes as they are."""
    if not isinstance(value, np.ndarray):
        return list(value) if isinstance(value, tuple) else value
    from compiler.ir import from_numpy

    name = from_numpy(value.dtype).name
    if name not in _TYPES:
        raise NotTakenError(f"coremltools has no tensors of {name}")
    theirs = types.nptype_from_builtin(getattr(types, _TYPES[name]))
    if value.dtype.isbuiltin != 1:
        value = value.astype(np.int8 if name.startswith("i") else np.uint8).astype(theirs)
    return value[()]


def _typed(value: Any, form: Any, key: str, types: Any) -> Any:
    """Whole numbers in a type that the operator takes, where it does not take Python's or that of a byte."""
    spec = form.input_spec.input_types.get(key)
    domain = getattr(spec, "type_domain", None) or ()
    if not domain or not all(types.is_int(t) for t in domain):
        return value
    narrowest = types.nptype_from_builtin(min(domain, key=lambda t: t.get_bitwidth()))
    if isinstance(value, (np.ndarray, np.generic)):
        bits = value.dtype == np.uint8 and value.dtype.metadata is None and types.uint8 not in domain
        return value.astype(narrowest) if bits else value
    numbers = value if isinstance(value, list) else [value]
    if types.int32 in domain or not all(type(v) is int for v in numbers):
        return value
    if min(numbers, default=0) < 0:
        raise ValueError(f"{key} is negative")
    made = np.array(value, narrowest)
    return made[()]


def _materialized(op: Any) -> list[Any] | None:
    compute = getattr(op, "materialized_val_inference", None)
    if compute is None:
        return None
    found = compute()
    return list(found) if isinstance(found, tuple) else [found]


def _inputs(op: Op, arrays: Mapping[Value, Array]) -> dict[str, Any]:
    """Operands and attributes by MIL's names; absent ones None, variadic ones a list."""
    out: dict[str, Any] = {}
    last = len(op.defn.operands) - 1
    for i, v in enumerate(op.operands):
        spec = op.defn.operands[min(i, last)]
        if spec.arity == "variadic":
            out.setdefault(spec.name, []).append(None if v is None else arrays[v])
        else:
            out[spec.name] = None if v is None else arrays[v]
    return {**out, **op.attributes}


# ---- control flow


def _flow(op: Op, arrays: Mapping[Value, Array], os: str | None) -> list[Array]:
    if op.name == "mil.cond":
        chosen = op.regions[0 if bool(np.all(arrays[op.operands[0]])) else 1]  # type: ignore[index]
        return _region(chosen, [], arrays, os)
    if op.name == "mil.while_loop":
        cond, body = op.regions
        state = [arrays[v] for v in op.operands if v is not None]
        for _ in range(_STEPS):
            if not bool(np.all(_region(cond, state, arrays, os)[0])):
                return state
            state = _region(body, state, arrays, os)
        raise NotTakenError("the loop goes on and on")
    raise UnknownError(f"nobody says what {op.name} computes")


def _region(block: Block, arguments: Sequence[Array], outer: Mapping[Value, Array], os: str | None) -> list[Array]:
    known: dict[Value, Array] = {**outer, **dict(zip(block.arguments, arguments))}
    for inner in block.ops:
        if inner.defn.terminator:
            return [known[v] for v in inner.operands if v is not None]
        if inner.defn.constant is not None:
            known[inner.result] = inner.attributes[inner.defn.constant]
            continue
        for v, a in zip(inner.results, truth(inner, known, os).values):
            dtype = v.type.dtype.numpy if isinstance(v.type, TensorType) else a.dtype
            known[v] = a.astype(dtype)
    raise UnknownError("a region without an end")
