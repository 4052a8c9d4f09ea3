"""Whether the ANE takes an operator, and if not, why and what would help: the tables of this folder, asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from compiler.hardware.facts import Chip, Limit, advice, limits, operators
from compiler.hardware.values import activations, short_name
from compiler.hardware.work import contraction
from compiler.ir import Op, TensorType, Value


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an operator stays off the ANE.

    Attributes:
        rule: the row that says so: ``operator`` or the id of a limit.
        reason: in one sentence.
        remedy: the rule or change that would bring the computation on.
        source: the letters of :func:`compiler.hardware.sources`.
    """

    rule: str
    reason: str
    remedy: str
    source: str


def refusal(op: Op, chip: Chip, ios: int) -> Refusal | None:
    """The first reason why the ANE of ``chip`` does not take ``op`` under release ``ios``; None if it takes it."""
    name = short_name(op)
    fact = operators().get(name)
    if fact is None:
        return Refusal("operator", f"no public fact says that the ANE takes {name}", "another operator", "")
    if not fact.on(chip.tier):
        when = "on no chip" if fact.since == "never" else f"from the {fact.since} generation on"
        return Refusal("operator", f"the ANE takes {name} {when}", fact.remedy, fact.source)
    refused = _by_types(name, tuple(type_ for _, type_ in activations(op)), chip.tier)
    if refused is not None:
        return refused
    for limit in _limits_of(name):
        found = _CHECKS[limit.check](op, limit, chip.tier, ios) if limit.check in _CHECKS else None
        if found is not None:
            return Refusal(limit.id, limit.text.format(**found), limit.remedy, limit.source)
    return None


def hints(op: Op, chip: Chip, ios: int) -> Iterator[Refusal]:
    """What the ANE takes but does badly in ``op``."""
    name = short_name(op)
    for limit in _advice_on(name):
        found = _CHECKS[limit.check](op, limit, chip.tier, ios)
        if found is not None:
            yield Refusal(limit.id, limit.text.format(**found), limit.remedy, limit.source)


@lru_cache(maxsize=4096)  # layers repeat
def _by_types(name: str, types: tuple[TensorType, ...], tier: str) -> Refusal | None:
    """The first reason that the types of what flows through an operator are enough for."""
    for limit in _limits_of(name):
        found = _TYPE_CHECKS[limit.check](types, limit, tier) if limit.check in _TYPE_CHECKS else None
        if found is not None:
            return Refusal(limit.id, limit.text.format(**found), limit.remedy, limit.source)
    return None


@cache
def _limits_of(name: str) -> tuple[Limit, ...]:
    return tuple(limit for limit in limits() if not limit.operators or name in limit.operators)


@cache
def _advice_on(name: str) -> tuple[Limit, ...]:
    return tuple(limit for limit in advice() if not limit.operators or name in limit.operators)


_Check = Callable[[Op, Limit, str, int], dict[str, Any] | None]
_TypeCheck = Callable[[Sequence[TensorType], Limit, str], dict[str, Any] | None]


def _element_type(types: Sequence[TensorType], limit: Limit, tier: str) -> dict[str, Any] | None:
    for type_ in types:
        if type_.dtype.name in limit.facts["types"]:
            return {"type": {"f32": "fp32", "i32": "int32"}.get(type_.dtype.name, type_.dtype.name)}
    return None


def _rank(types: Sequence[TensorType], limit: Limit, tier: str) -> dict[str, Any] | None:
    most = limit.number("most", tier)
    rank = max((t.rank or 0 for t in types), default=0)
    return {"rank": rank, "most": most} if rank > most else None


def _static_shape(types: Sequence[TensorType], limit: Limit, tier: str) -> dict[str, Any] | None:
    for type_ in types:
        if not type_.is_static:
            return {"dim": next((str(d) for d in type_.shape or ("unknown rank",) if not isinstance(d, int)), "?")}
    return None


def _empty(types: Sequence[TensorType], limit: Limit, tier: str) -> dict[str, Any] | None:
    return {} if any(t.size == 0 for t in types) else None


def _extent(types: Sequence[TensorType], limit: Limit, tier: str) -> dict[str, Any] | None:
    most, channels = limit.number("most", tier), limit.facts["channels"]
    for type_ in types:
        sizes = [d for d in type_.shape or () if isinstance(d, int)]
        # The channel axis is the third from behind in (B, C, H, W), which is how the ANE sees lower ranks too.
        for i, size in enumerate(sizes):
            allowed = channels if len(sizes) - i == 3 else most
            if size > allowed:
                return {"size": size, "most": allowed}
    return None


def _contraction(op: Op, limit: Limit, tier: str, ios: int) -> dict[str, Any] | None:
    size, most = contraction(op), limit.number("most", tier)
    return {"size": size, "most": most} if size > most else None


def _kernel_width(op: Op, limit: Limit, tier: str, ios: int) -> dict[str, Any] | None:
    shape = _static(op.operands[1])
    most = limit.number("most", tier)
    # A convolution along one axis runs along the width too.
    return {"size": shape[-1], "most": most} if len(shape) in (3, 4) and shape[-1] > most else None


def _conv_3d(op: Op, limit: Limit, tier: str, ios: int) -> dict[str, Any] | None:
    return {} if len(_static(op.operands[0])) == 5 else None


def _pool_window(op: Op, limit: Limit, tier: str, ios: int) -> dict[str, Any] | None:
    most = limit.number("most", tier)
    size = max(op.attributes.get("kernel_sizes") or (1,))
    return {"size": size, "most": most} if size > most else None


def _argument_axis(op: Op, limit: Limit, tier: str, ios: int) -> dict[str, Any] | None:
    shape, most = _static(op.operands[0]), limit.number("most", tier)
    size = shape[op.attributes["axis"]] if shape else 0
    return {"size": size, "most": most} if size > most else None


def _texture_pad(op: Op, limit: Limit, tier: str, ios: int) -> dict[str, Any] | None:
    mode = op.attributes["mode"]
    return {"mode": mode} if mode != "constant" and tier < limit.facts["from"] else None


def _release(op: Op, limit: Limit, tier: str, ios: int) -> dict[str, Any] | None:
    return {} if ios < limit.facts["ios"] else None


def _last_axis(op: Op, limit: Limit, tier: str, ios: int) -> dict[str, Any] | None:
    least = limit.facts["least_bytes"]
    for value in op.results:
        shape = _static(value)
        if len(shape) < 2 or not isinstance(value.type, TensorType):
            continue
        width = shape[-1] * max(1, value.type.dtype.bits // 8)
        # One row costs nothing much; a tall column of single elements does.
        if 0 < width <= least // 2 and (value.type.size or 0) >= 1024:
            return {"size": shape[-1], "bytes": least, "times": least // width}
    return None


def _stride(op: Op, limit: Limit, tier: str, ios: int) -> dict[str, Any] | None:
    free = limit.facts["free"]
    size = next((s for s in op.attributes.get("strides") or () if s not in free), None)
    return None if size is None else {"size": size, "free": ", ".join(map(str, free))}


def _mode(op: Op, limit: Limit, tier: str, ios: int) -> dict[str, Any] | None:
    return {} if tier in limit.facts["tiers"] else None


def _static(value: Value | None) -> tuple[int, ...]:
    """The shape of a value where all of it is known, else ()."""
    if value is None or not isinstance(value.type, TensorType) or not value.type.is_static:
        return ()
    return value.type.static_shape


_TYPE_CHECKS: dict[str, _TypeCheck] = {
    "element_type": _element_type,
    "rank": _rank,
    "static_shape": _static_shape,
    "empty": _empty,
    "extent": _extent,
}

_CHECKS: dict[str, _Check] = {
    "contraction": _contraction,
    "kernel_width": _kernel_width,
    "conv_3d": _conv_3d,
    "pool_window": _pool_window,
    "argument_axis": _argument_axis,
    "texture_pad": _texture_pad,
    "release": _release,
    "last_axis": _last_axis,
    "stride": _stride,
    "mode": _mode,
}
