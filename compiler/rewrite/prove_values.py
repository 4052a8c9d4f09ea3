"""Random contents, shapes and attributes for proofs."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir import AttributeSpec, DType, TensorType
from compiler.rewrite.prove_pools import Pools

Array = np.ndarray[Any, Any]

#: Element types by how often they are drawn; the others once.
WEIGHTS = {"f32": 60, "f16": 20, "i64": 12, "i32": 10, "bool": 6, "f64": 4, "u8": 3, "i8": 3}
#: Drawn only where nothing else is allowed: onnxruntime has few kernels for them.
RARE = {"bf16", "u1", "u2", "u3", "u6", "i2", "u4", "i4", "c64", "c128", "string"}
SIZES = (1, 1, 2, 2, 3, 3, 4, 5, 7)
#: Elements of the largest tensor for a proof.
_LARGEST = 4200
#: Scales of quantized tensors: positive, and such that 8 bits are neither all cut off nor all zero.
SCALES = (0.004, 0.5)
_SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, 1.125, 2.0, 3.0, 1e-3, -1e-3)
_WORDS = ("", "a", "ab", "Abc", "häuser", "12")
#: Texts that operators which read numbers can read.
_NUMERALS = ("0", "7", "12", "-3")


def dtype(rng: random.Random, allowed: Sequence[DType]) -> DType:
    """One of the element types, the common ones more often."""
    common = [d for d in allowed if d.name not in RARE and not d.name.startswith("f8") and not d.name.startswith("f4")]
    pool = sorted(common or allowed, key=lambda d: d.name)
    return rng.choices(pool, [WEIGHTS.get(d.name, 1) for d in pool])[0]


def size(rng: random.Random, extra: Sequence[int] = ()) -> int:
    """A size of a dimension; ``extra`` are sizes that the rule's text mentions."""
    if extra and rng.random() < 0.25:
        return rng.choice(list(extra))
    return rng.choice(SIZES) if rng.random() > 0.01 else 0


def small(dims: Sequence[int]) -> bool:
    """Whether a tensor of this shape is one for a proof: not large even if it is empty."""
    return all(d >= 0 for d in dims) and math.prod(max(d, 1) for d in dims) <= _LARGEST


def shape(rng: random.Random, rank: int | None = None, extra: Sequence[int] = ()) -> tuple[int, ...]:
    if rank is None:
        rank = rng.choices((0, 1, 2, 3, 4, 5), (1, 3, 5, 5, 5, 1))[0]
    return tuple(size(rng, extra) for _ in range(rank))


def like(rng: random.Random, other: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that often goes with ``other``: the same, or one that broadcasts with it."""
    kind = rng.random()
    if kind < 0.4:
        return other
    dims = list(other)
    if dims and kind < 0.47:
        return (rng.choice(dims),)
    if dims and kind < 0.62:  # along one axis: a number for each channel
        axis = rng.randrange(len(dims))
        lead = (1,) * rng.choice((0, 0, axis))
        return (*lead, dims[axis], *(1,) * (len(dims) - axis - 1))
    if kind < 0.85:
        dims = dims[rng.randint(0, len(dims)) :] if rng.random() < 0.4 else dims
        return tuple(1 if rng.random() < 0.35 else d for d in dims)
    if kind < 0.95 and dims:
        dims[rng.randrange(len(dims))] = size(rng)
        return tuple(dims)
    return (size(rng), *dims)


def contents(
    rng: random.Random, type_: TensorType, low: float | None = None, high: float | None = None, wild: bool = False,
    within: bool = False,
) -> Array:  # fmt: skip
    """Contents of a tensor.

    Args:
        low, high: a range that is known to make sense.
        wild: also infinities, NaN, and numbers of extreme size.
        within: nothing outside of the range.
    """
    dims, to = type_.static_shape, type_.dtype
    n = type_.size or 0
    gen = np.random.default_rng(rng.getrandbits(32))
    if to.kind == "string":
        words = _NUMERALS if rng.random() < 0.5 else _WORDS
        return np.array([rng.choice(words) for _ in range(n)], dtype=object).reshape(dims)
    if to.kind == "bool":
        return (
            np.asarray(gen.integers(0, 2, n) if rng.random() > 0.2 else np.full(n, rng.random() < 0.5))
            .astype(bool)
            .reshape(dims)
        )
    if to.is_integer:
        return _integers(rng, gen, to, n, low, high).reshape(dims)
    if within and low is not None and high is not None:
        return np.asarray(gen.uniform(low, high, n)).astype(to.numpy).reshape(dims)
    out = _floats(rng, gen, n, low, high)
    if rng.random() < 0.3 and n:
        for _ in range(rng.randint(1, 3)):
            out[rng.randrange(n)] = rng.choice(_SPECIAL)
    if wild and n and rng.random() < 0.4:
        out[rng.randrange(n)] = rng.choice((np.inf, -np.inf, np.nan, 1e30, -1e-30, 6e4))
    with np.errstate(over="ignore"):
        array: Array = out.astype(to.numpy).reshape(dims)
    if not wild and to.is_float:  # a range that was known to make sense in a wider type
        array[~np.isfinite(array.astype(np.float64))] = 1
    return array


def infinite(rng: random.Random, array: Array) -> Array:
    """Floats of which each may have become infinite, or no number."""
    out = array.copy()
    for i in range(out.size):
        if rng.random() < 0.3:
            out.flat[i] = rng.choice((np.inf, -np.inf, np.nan))
    return out


def _floats(rng: random.Random, gen: Any, n: int, low: float | None, high: float | None) -> Array:
    kind = rng.random()
    if low is not None and high is not None and kind < 0.35:
        return np.asarray(gen.uniform(low, high, n))
    if kind < 0.45:
        return np.full(n, rng.choice(_SPECIAL))
    if kind < 0.6:
        return np.asarray(gen.integers(-3, 4, n)).astype(np.float64)
    if kind < 0.75:
        return np.asarray(np.abs(gen.standard_normal(n)) + 0.1)
    return np.asarray(gen.standard_normal(n) * rng.choice((1.0, 1.0, 1.0, 0.1, 3.0, 8.0)))


def _integers(rng: random.Random, gen: Any, to: DType, n: int, low: float | None, high: float | None) -> Array:
    if to.bits < 8:
        least, most = (-(2 ** (to.bits - 1)) if to.kind == "int" else 0), 2 ** (to.bits - (to.kind == "int")) - 1
        return np.asarray(gen.integers(least, most + 1, n)).astype(to.numpy)
    if low is not None and high is not None and rng.random() < 0.5:
        return np.asarray(gen.integers(int(low), int(high) + 1, n)).astype(to.numpy)
    if rng.random() < 0.1:
        return np.full(n, rng.choice((0, 1, 2))).astype(to.numpy)
    least = 0 if to.kind == "uint" or rng.random() < 0.3 else -8
    most = 9
    if rng.random() < 0.1:
        info = np.iinfo(to.numpy)
        least, most = max(int(info.min), -(2**31)), min(int(info.max), 2**31 - 1)
    return np.asarray(gen.integers(least, most, n)).astype(to.numpy)


def small_ints(rng: random.Random, length: int, known: Sequence[tuple[int, ...]], extra: Sequence[int]) -> list[int]:
    """Numbers of the kind that axes, shapes, sizes and permutations are made of; ``known``: shapes around."""
    kind = rng.random()
    around = rng.choice(list(known)) if known else ()
    if around and length > 1 and rng.random() < 0.25:
        return factors(rng, around, length)
    if kind < 0.25:
        out = list(range(length))
        if rng.random() < 0.8:
            rng.shuffle(out)
        return out
    if kind < 0.45 and around:
        return [rng.choice(around) for _ in range(length)]
    if kind < 0.55 and len(around) == length:
        return list(around)
    if kind < 0.65 and extra:
        return [rng.choice(list(extra)) for _ in range(length)]
    if kind < 0.8:
        return [rng.choice((0, 1)) for _ in range(length)]
    rank = max((len(s) for s in known), default=3)
    if kind < 0.9:
        return sorted(rng.sample(range(-rank, rank), min(length, 2 * rank))) if rank else []
    return [rng.randint(-3, 4) for _ in range(length)]


def factors(rng: random.Random, dims: Sequence[int], length: int) -> list[int]:
    """Another shape with as many elements, near to ``dims``: neighbours merged, sizes split."""
    out = list(dims)
    while len(out) > length:
        at = rng.randrange(len(out) - 1)
        out[at : at + 2] = [out[at] * out[at + 1]]
    while len(out) < length:
        at = rng.randrange(len(out)) if out else 0
        n = out[at] if out else 1
        by = rng.choice([d for d in range(1, min(n, _LARGEST) + 1) if n % d == 0] or [1])
        out[at : at + 1] = rng.choice(([by, n // by], [n // by, by])) if n else [0, 1]
    if out and rng.random() < 0.3:
        out[rng.randrange(len(out))] = rng.choice((-1, -1, 0))
    return out


def attribute(
    rng: random.Random, spec: AttributeSpec, pools: Pools, known: Sequence[tuple[int, ...]], seen: Sequence[Any]
) -> Any:
    """A value for an attribute; ``seen``: values that it has in seeds. None leaves it out."""
    r = rng.random()
    if seen and r < 0.55:
        return rng.choice(list(seen))
    if r < 0.7 and not spec.required:
        return spec.default
    rank = max((len(s) for s in known), default=3)
    match spec.kind:
        case "int" if spec.default in (0, 1) and all(v in (0, 1) for v in seen):
            return rng.choice((0, 1))  # a flag
        case "int":
            choices = [rng.randint(-max(rank, 1), max(rank, 1)), rng.choice((0, 1)), *pools.ints[:8]]
            return rng.choice(choices)
        case "float":
            return rng.choice([0.0, 1.0, 0.5, 0.1, 2.0, 1e-5, -1.0, *(float(v) for v in pools.numbers[:8])])
        case "bool":
            return rng.random() < 0.5
        case "string":
            # Texts of the rule that belong to other attributes hardly ever make sense.
            texts = [t for t in pools.strings if len(seen) < 2 or t in seen or rng.random() < 0.2]
            return rng.choice([*texts, *seen, spec.default or ""])
        case "ints":
            if pools.lists and rng.random() < 0.2:
                return tuple(int(v) for v in rng.choice(pools.lists) if isinstance(v, int))
            length = rng.choice([rank, rank, rank - 2, 2 * (rank - 2), 2 * rank, 1, 2])
            if rng.random() < 0.3:  # steps of windows
                return tuple(rng.choice((1, 2)) for _ in range(max(length, 0)))
            return tuple(small_ints(rng, max(length, 0), known, pools.ints))
        case "floats":
            return tuple(rng.choice((0.0, 1.0, 0.5, 2.0, 1.5)) for _ in range(rng.randint(1, max(rank, 1))))
        case "bools":
            return tuple(rng.random() < 0.5 for _ in range(rng.randint(1, max(rank, 1))))
        case "tensor":
            from compiler.ir import F32, I64

            return contents(rng, TensorType(rng.choice((F32, F32, I64)), shape(rng, rng.randint(0, 2))))
        case "type":
            from compiler.ir import DTYPES

            return dtype(rng, list(DTYPES.values()))
        case "any":
            return spec.default if spec.default is not None else rng.choice([0, 1, 0.0, 1.0])
        case _:
            return spec.default
