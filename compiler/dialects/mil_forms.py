"""What each OS release takes of each MIL operator: ``mil_registry.json`` as Python objects.

A :class:`Form` is the definition that an operator has from some release on; most have one, those that took more element
types or parameters later have several. The mil dialect's OpDef is the union of the forms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from compiler.ir.dtypes import BOOL, F32, I32, STRING, U32, DType, dtype, from_numpy
from compiler.ir.opdef import suggest


@dataclass(frozen=True, slots=True)
class Release:
    """An OS release: its name (``ios17``), Core ML's specification version for it, and the name of its opset."""

    name: str
    specification: int
    opset: str


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a MIL operator in one form.

    Attributes:
        kind: ``tensor``, ``tuple`` (any number of tensors), ``list``, ``state`` or ``any``.
        const: its value must be known at compile time.
        variable: inputs of one operator with the same type variable have the same element type.
        dtypes: the element types it takes; None where the registry does not restrict them.
        rank: 0 for a scalar, 1 for a vector, None where the registry does not say.
        default: the value that its absence stands for, if that is the same whatever the other inputs are.
        computed: its absence stands for a value that depends on the other inputs.
    """

    name: str
    kind: str = "tensor"
    const: bool = False
    optional: bool = False
    variable: str = ""
    dtypes: frozenset[DType] | None = None
    rank: int | None = None
    default: Any = None
    computed: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """The definition of an operator from release ``since`` on, until its next form.

    Attributes:
        least, most: how many results it has; ``most`` None for any number.
        result_variables: the type variable of each result, ``""`` where it has none; empty where that is not known.
    """

    since: str
    inputs: Mapping[str, Input]
    least: int
    most: int | None
    result_variables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Registered:
    """An operator with all its forms, oldest first."""

    name: str
    forms: tuple[Form, ...]
    commutative: bool
    impure: bool
    regions: tuple[str, ...]


@cache
def _data() -> dict[str, Any]:
    text = resources.files("compiler.dialects").joinpath("mil_registry.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


@cache
def releases() -> dict[str, Release]:
    """The releases that take ML Programs, oldest first, by name."""
    return {n: Release(n, r["specification"], r["opset"]) for n, r in _data()["releases"].items()}


@cache
def release(os: str) -> Release:
    """The release called ``os``.

    Raises:
        ValueError: there is none; the message names those there are.
    """
    found = releases().get(os.lower())
    if found is None:
        raise ValueError(f"no OS release is called '{os}'{suggest(os, releases())} (known: {', '.join(releases())})")
    return found


def operator_names() -> list[str]:
    """The names of all operators that some release has, without ``mil.``."""
    return list(_data()["operators"])


@cache
def registered(name: str) -> Registered | None:
    """The operator called ``name`` (without ``mil.``), or None."""
    raw = _data()["operators"].get(name)
    if raw is None:
        return None
    return Registered(
        name,
        tuple(_form(f) for f in raw["forms"]),
        raw.get("commutative", False),
        raw.get("impure", False),
        tuple(raw.get("regions", ())),
    )


def _form(raw: dict[str, Any]) -> Form:
    inputs = {}
    for i in raw["inputs"]:
        fields = dict(i)
        if "dtypes" in fields:
            fields["dtypes"] = frozenset(map(dtype, fields["dtypes"]))
        if isinstance(fields.get("default"), list):
            fields["default"] = tuple(fields["default"])
        inputs[i["name"]] = Input(**fields)
    results = raw["results"]
    return Form(raw["since"], inputs, results["least"], results["most"], tuple(results["variables"]))


@cache
def form(name: str, os: str) -> Form | None:
    """The definition that release ``os`` has of operator ``name`` (with or without ``mil.``), or None if it has none.

    Raises:
        ValueError: no release is called ``os``.
    """
    op = registered(name.removeprefix("mil."))
    if op is None:
        return None
    at = release(os).specification
    fitting = [f for f in op.forms if releases()[f.since].specification <= at]
    return fitting[-1] if fitting else None


def parameter_dtype(spec: Input, value: Any, bound: Mapping[str, DType], result: DType | None) -> DType:
    """The element type with which an attribute's value is written.

    An array keeps its own. Anything else takes the type of the operands that share its type variable, else that of the
    operator's result, if its domain has that and the value fits; else the one that is natural for the value (i32, f32,
    bool, string), else the only one of its domain.

    Args:
        spec: the input that the attribute is.
        bound: the element type that each type variable has from the operands.
        result: the element type of the first result.
    """
    if isinstance(value, np.ndarray):
        return from_numpy(value.dtype)
    natural = _natural(value)
    domain = spec.dtypes
    if domain is None or natural is BOOL or natural is STRING:
        return natural
    if spec.variable:
        for candidate in (bound.get(spec.variable), result):
            if candidate is not None and candidate in domain and _fits(value, natural, candidate):
                return candidate
    if natural in domain:
        return natural
    if natural is I32 and U32 in domain:
        return U32
    if natural is I32 and F32 in domain:
        return F32
    return next(iter(domain)) if len(domain) == 1 else natural


def _natural(value: Any) -> DType:
    if isinstance(value, tuple):
        kinds = {_natural(v) for v in value}
        return F32 if F32 in kinds else next(iter(kinds)) if len(kinds) == 1 else I32
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, str):
        return STRING
    return F32 if isinstance(value, float) else I32


def _fits(value: Any, natural: DType, candidate: DType) -> bool:
    if candidate.is_float:
        return True
    if natural is F32:
        return all(float(v).is_integer() for v in (value if isinstance(value, tuple) else (value,)))
    return candidate.is_integer
