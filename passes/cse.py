"""Common subexpression elimination: what is computed twice is computed once.

Operators are the same when name, operands, attributes and the number of results are; operands of commutative operators
in any order. Constants are the same when their bits are. One pass over each block suffices, since an operator comes
after those it uses; a region sees what the blocks around it have computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any

import numpy as np

from compiler import ir

Array = np.ndarray[Any, Any]

#: Arrays up to this many bytes are their own key; of larger ones a sample is, and the digest of all if samples agree.
_SMALL = 128
_SAMPLE = 64


def run(module: ir.Module) -> int:
    """Merges equal operators.

    Returns:
        How many operators were dropped.
    """
    arrays = _Arrays()
    return sum(_sweep(function.block, [], arrays) for function in module.functions.values())


class _Arrays:
    """Equal arrays get equal keys, without reading those whose type, shape or sample no other array has."""

    def __init__(self) -> None:
        self._samples: dict[Hashable, list[tuple[Array, int]]] = {}
        self._digests: dict[int, bytes] = {}
        self._by_id: dict[int, tuple[Array, Hashable]] = {}

    def key(self, array: Array) -> Hashable:
        known = self._by_id.get(id(array))
        if known is not None:
            return known[1]
        head = (array.dtype.num, array.shape)  # a dtype itself is slow to hash
        key: Hashable
        if array.dtype.kind in "OUS":
            key = (*head, tuple(array.reshape(-1).tolist()))
        elif array.nbytes <= _SMALL:
            key = (*head, array.tobytes())
        else:
            sample = array.flat[:: max(1, array.size // _SAMPLE)].tobytes()  # reshape would copy a view of columns
            alike = self._samples.setdefault((*head, sample), [])
            # The index of the first array with the same bits stands for them.
            index = next((i for other, i in alike if self._digest(other) == self._digest(array)), len(alike))
            alike.append((array, index))
            key = (*head, sample, index)
        self._by_id[id(array)] = (array, key)  # holding the array keeps its id its own
        return key

    def _digest(self, array: Array) -> bytes:
        digest = self._digests.get(id(array))
        if digest is None:
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            digest = self._digests[id(array)] = hashlib.blake2b(data.data, digest_size=16).digest()
        return digest


def _freeze(value: Any, arrays: _Arrays) -> Hashable:
    """A key for an attribute under which 1, 1.0 and true differ, as 0.0 and -0.0 do."""
    if isinstance(value, np.ndarray):
        return arrays.key(value)
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, tuple):
        return tuple(_freeze(v, arrays) for v in value)
    return (type(value), value) if isinstance(value, bool) else value


def _key(op: ir.Op, arrays: _Arrays) -> Hashable:
    operands: tuple[Any, ...] = op.operands
    if op.defn.commutative:
        swappable = len(operands) if op.defn.operands[-1].arity == "variadic" else 2
        operands = (*sorted(operands[:swappable], key=id), *operands[swappable:])
    attributes = op.attributes
    frozen = tuple([(k, _freeze(v, arrays)) for k, v in sorted(attributes.items())]) if attributes else ()
    # Values hash by identity.
    return op.defn, operands, frozen, len(op.results)


def _sweep(block: ir.Block, outer: list[dict[Hashable, ir.Op]], arrays: _Arrays) -> int:
    seen: dict[Hashable, ir.Op] = {}
    dropped = 0
    for op in block.ops:
        if op.regions:
            dropped += sum(_sweep(region, [seen, *outer], arrays) for region in op.regions)
            continue
        if not op.defn.pure or op.defn.terminator:
            continue
        key = _key(op, arrays)
        twin = seen.get(key)
        if twin is None and outer:
            twin = next((scope[key] for scope in outer if key in scope), None)
        if twin is None:
            seen[key] = op
            continue
        if any(ir.type_meet(a.type, b.type) is None for a, b in zip(op.results, twin.results)):
            continue  # not all that a window operator of a target gives follows from its attributes
        for mine, theirs in zip(op.results, twin.results):
            known = ir.type_meet(theirs.type, mine.type)
            if known is not None:
                theirs.type = known
            mine.replace_all_uses_with(theirs)
        op.erase()
        dropped += 1
    return dropped
