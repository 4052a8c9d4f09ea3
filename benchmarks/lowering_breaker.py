"""One mistake in what a rule is given or builds, made while it is applied.

A rule's builders are wrapped: an argument (an attribute or an operand that the pattern bound) may arrive changed, and
each operator that is built, by the rule's text or by a Python function, may be another, have other attributes or
operands, or be left out. A place is where in the rule or the function that is, with the calls that led there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from benchmarks.lowering_mistakes import OTHERS, changes
from compiler.ir import TensorType, UnknownOperatorError, Value, lookup
from compiler.rewrite import syntax as s
from compiler.rewrite.build import Build, RuleBuilder
from compiler.rewrite.library import Entry, Library

#: Constants of more elements are data, not parameters.
_FEW = 64


@dataclass(frozen=True, slots=True)
class Mistake:
    """Where in a rule (``place``, by offsets into the code), in which part, and what is wrong there."""

    rule: str
    place: tuple[Any, ...]
    part: str
    kind: str

    @property
    def text(self) -> str:
        where = "".join(f" {name}:{line}" for name, line, _ in self.place)
        return f"{self.rule}{where}, {self.part}: {self.kind}"

    @property
    def category(self) -> str:
        return self.kind.partition(":")[0]


class State:
    """What is being done to the rules that are wrapped: mistakes are noted, or one is made."""

    rule = ""
    noted: dict[Mistake, None] | None = None
    made: Mistake | None = None


def watch(library: Library, rule: str) -> None:
    """Wraps the builders of a rule of a library, for good."""
    stage = library.rules[rule].stage
    for entry in library.stage(stage).entries:
        if entry.rule.name == rule:
            entry.builds = tuple(_watched(entry, build) for build in entry.builds)


def _watched(entry: Entry, build: Build) -> Build:
    names, origins = entry.matcher.names, dict(_origins(entry))

    def watched(b: RuleBuilder, target: Any, m: tuple[Any, ...]) -> Sequence[tuple[Value, Any]]:
        b.__class__ = Breaking
        State.rule = entry.rule.name
        return build(b, target, tuple(_arguments(b, dict(zip(names, m)), origins, entry).values()))

    return watched


class Breaking(RuleBuilder):
    """A builder that makes the mistake, or notes which there are to be made."""

    __slots__ = ()

    def op(
        self,
        name: str,
        operands: Sequence[Any],
        attributes: Mapping[str, Any] | None = None,
        results: int = 1,
        replaced: tuple[Value, ...] | None = None,
        regions: Sequence[Any] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        place = _place(sys._getframe(1))
        args, attrs, short = list(operands), dict(attributes or {}), name.partition(".")[2]
        given = next((a for a in args if isinstance(a, Value)), None)
        rank = given.type.rank if given is not None and isinstance(given.type, TensorType) else None
        if short == "expand_dims" and rank is not None:
            rank += len(attrs.get("axes") or ())
        if name in OTHERS and _here(place, short, "wrong operator"):
            name = OTHERS[name]
        for key, value in list(attrs.items()):
            for kind, other in changes(key, value, rank):
                if _here(place, f"{short}.{key}", kind):
                    attrs[key] = other
        first, second = attrs.get("strides"), attrs.get("dilations")
        differ = first is not None and second is not None and tuple(first) != tuple(second)
        if differ and _here(place, short, "strides for dilations"):
            attrs["strides"], attrs["dilations"] = second, first
        self._operands(place, name, short, args)
        if short == "cond" and _here(place, short, "branches exchanged"):
            regions = tuple(reversed(regions))
        made = super().op(name, args, attrs, results, replaced, regions, named)
        alike = given is not None and results == 1 and isinstance(made, Value) and made.type is given.type
        return given if alike and _here(place, short, "left out") else made

    def _operands(self, place: tuple[Any, ...], name: str, short: str, args: list[Any]) -> None:
        defn = lookup(name)
        variadic = bool(defn.operands) and defn.operands[-1].arity == "variadic"
        if len(args) > 1 and (variadic or not defn.commutative):
            a, b = args[0], args[-1] if variadic else args[1]
            if _alike(a, b) and _here(place, short, "operands exchanged"):
                args[0], args[-1 if variadic else 1] = b, a
        for i, a in enumerate(args):
            spec = defn.operands[min(i, len(defn.operands) - 1)]
            if a is None:
                continue
            if not isinstance(a, Value):
                for kind, other in changes(spec.name, np.asarray(a) if isinstance(a, np.ndarray) else a, None):
                    if _here(place, f"{short}.{spec.name}", kind):
                        args[i] = other
            if spec.arity == "optional" and _here(place, f"{short}.{spec.name}", "operand forgotten"):
                args[i] = None

    def constant(self, value: Any, dialect: str) -> Any:
        place = _place(sys._getframe(1))
        if place:
            for kind, other in changes("constant", np.asarray(value), None):
                if _here(place, "constant", kind):
                    value = other
        return super().constant(value, dialect)


def _arguments(b: RuleBuilder, bound: dict[str, Any], origins: dict[str, Any], entry: Entry) -> dict[str, Any]:
    """What the match bound, with the mistake if it is one here."""
    out = dict(bound)
    results = {t.id for stmt in entry.variant.statements for t in stmt.targets}
    matched = [v for n, v in bound.items() if isinstance(v, Value) and n not in results]
    first = matched[0] if matched else None  # the data, to which what is said of axes refers
    rank = first.type.rank if first is not None and isinstance(first.type, TensorType) else None
    optional = {n for n, binding in entry.variant.bindings.items() if binding.optional}
    for name, value in bound.items():
        operator, part = origins.get(name, (None, name))
        if isinstance(value, dict):
            for key, inner in value.items():
                for kind, other in _parameter(operator, key, inner, rank):
                    if _here((), f"{name}.{key}", kind):
                        out[name] = {**value, key: other}
        elif isinstance(value, Value):
            if name in results:
                continue
            array = value.constant
            if array is not None and array.size <= _FEW and value.op is not None and value is not first:
                for kind, other in changes(part, np.asarray(array), rank):
                    if _here((), f"argument {name}", kind):
                        out[name] = b.constant(np.asarray(other), value.op.defn.dialect)
            if name in optional and _here((), f"argument {name}", "operand forgotten"):
                out[name] = None
            following = matched[matched.index(value) + 1 :]
            if following and _alike(value, following[0]):
                swap = next(n for n, v in bound.items() if v is following[0])
                if swap not in results and not _commutes(operator) and _here((), f"argument {name}", "exchanged"):
                    out[name], out[swap] = bound[swap], bound[name]
        elif part is not None:
            for kind, other in _parameter(operator, part, value, rank):
                if _here((), f"argument {name}", kind):
                    out[name] = other
    return out


def _parameter(operator: str | None, name: str, value: Any, rank: int | None) -> Iterator[tuple[str, Any]]:
    yield from changes(name, value, rank)
    try:
        spec = lookup(operator).attributes.get(name) if operator else None
    except UnknownOperatorError:
        spec = None
    if spec is not None and spec.default is not None and value is not None and spec.default != value:
        yield "attribute ignored", spec.default


def _commutes(operator: str | None) -> bool:
    try:
        return operator is not None and lookup(operator).commutative
    except UnknownOperatorError:
        return False


def _alike(a: Any, b: Any) -> bool:
    """Whether two operands are different values that might stand for each other."""
    if not isinstance(a, Value) or not isinstance(b, Value) or a is b:
        return False
    x, y = a.type, b.type
    return isinstance(x, TensorType) and isinstance(y, TensorType) and x.dtype is y.dtype and x.rank == y.rank


def _here(place: tuple[Any, ...], part: str, kind: str) -> bool:
    """Notes a mistake that could be made; whether it is the one that is."""
    if State.noted is not None:
        State.noted[Mistake(State.rule, place, part, kind)] = None
        return False
    made = State.made
    return made is not None and made == Mistake(State.rule, place, part, kind)


def _place(frame: FrameType | None) -> tuple[Any, ...]:
    """The calls from a rule to an operator that it makes; empty where the compiler itself makes it."""
    found: list[tuple[str, int, int]] = []
    while frame is not None and frame.f_code.co_name != "watched":
        file = frame.f_code.co_filename
        if file.startswith("<rewrite") or Path(file).parent.name == "rules":
            found.append((Path(file).stem if not file.startswith("<") else "text", frame.f_lineno, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def _origins(entry: Entry) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """For each name that the pattern binds: the operator, and which of its attributes or operands it is."""
    stack: list[Any] = [stmt.pattern for stmt in entry.variant.statements]
    while stack:
        p = stack.pop()
        if isinstance(p, s.Alternatives):
            stack.extend(p.choices)
        if not isinstance(p, s.OpPattern):
            continue
        operator = p.names[0]
        specs = lookup(operator).operands
        for a in p.attrs:
            if isinstance(a, s.AttrPattern):
                for c in a.choices:
                    if c.kind in ("bind", "optional", "default"):
                        yield (c.value[0] if c.kind == "default" else c.value), (operator, a.name)
            else:
                yield a.id, (operator, None)
        for i, arg in enumerate(p.args):
            inner = arg.pattern if isinstance(arg, s.NamedOperand) else arg
            if isinstance(inner, s.ValuePattern):
                spec = specs[min(i, len(specs) - 1)].name if specs else None
                yield inner.id, (operator, arg.name if isinstance(arg, s.NamedOperand) else spec)
            stack.append(inner)
