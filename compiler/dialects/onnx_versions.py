"""Which form of an operator stands for which: a form is taken as its successor where that accepts the same operator.

ONNX gives an operator a new version whenever anything about it changes, most often only the element types it takes.
So that rules need to know one form, an operator enters the IR in the newest form that it fits, step by step. Where a
step does not fit, or where its *meaning* changed, the operator stays in the form it has reached and carries that
version in its name (``Softmax@11``); rules/upgrade.rules takes it from there.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from compiler import ir
from compiler.dialects.onnx_schema import schema, versions

#: Forms whose successor means something else though its signature says the same (ONNX's changelog): the scale of
#: GroupNormalization became one per channel, and RoiAlign's new attribute has another default than what had been.
#: Where a default changed, the signature shows it; Softmax and GridSample are found that way.
CHANGED_MEANING = frozenset({"GroupNormalization@18", "RoiAlign@10"})


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that a form has and its successor does not take. ``at`` says where, for what may be absent."""

    what: Literal["operand absent", "operand present", "operand type", "result present", "attribute present", "always"]
    at: int | str = 0
    dtypes: frozenset[ir.DType] | None = None


@dataclass(frozen=True, slots=True)
class Ladder:
    """The forms of an operator from one version on, and what hinders each step to the next."""

    forms: tuple[ir.OpDef, ...]
    steps: tuple[tuple[Difference, ...], ...]

    @property
    def is_free(self) -> bool:
        """Whether every operator of the first form is one of the last."""
        return not any(self.steps)

    def newest(
        self, dtypes: Sequence[ir.DType | None], attributes: Mapping[str, Any], results: int, present: Sequence[bool]
    ) -> ir.OpDef:
        """The newest form that an operator fits.

        Args:
            dtypes: the element types of the operands, None for absent operands and what is no tensor.
            attributes: the attributes, with the first form's defaults.
            present: which operands are there.
        """
        for form, step in zip(self.forms, self.steps):
            if any(_matters(d, dtypes, attributes, results, present) for d in step):
                return form
        return self.forms[-1]


def _matters(
    d: Difference,
    dtypes: Sequence[ir.DType | None],
    attributes: Mapping[str, Any],
    results: int,
    present: Sequence[bool],
) -> bool:
    if d.what == "attribute present":
        return d.at in attributes
    if d.what == "always":
        return True
    at = int(d.at)
    if d.what == "result present":
        return at < results
    there = at < len(present) and present[at]
    if d.what == "operand absent":
        return not there
    if d.what == "operand present":
        return there
    dtype = dtypes[at] if there else None
    return dtype is not None and d.dtypes is not None and dtype not in d.dtypes


@functools.lru_cache(maxsize=4096)
def ladder(dialect: str, name: str, version: int, upgraded: frozenset[str] = frozenset()) -> Ladder | None:
    """The forms that an operator of opset ``version`` may take, oldest first; None if there is no such operator then.

    Args:
        upgraded: forms that rules upgrade, as ``Softmax@11``; see :func:`changes_meaning`.
    """
    known = versions(dialect).get(name, ())
    at = [i for i, v in enumerate(known) if v <= version]
    if not at or is_deprecated(dialect, name, known[at[-1]]):
        return None
    i = at[-1]
    forms, steps = [ir.lookup(spelled(dialect, name, known[i]))], []
    while i + 1 < len(known) and not is_deprecated(dialect, name, known[i + 1]):
        newer = ir.lookup(spelled(dialect, name, known[i + 1]))
        step = differences(forms[-1], newer)
        if changes_meaning(f"{name}@{known[i]}", step, upgraded):
            break
        forms.append(newer)
        steps.append(step)
        i += 1
    return Ladder(tuple(forms), tuple(steps))


def changes_meaning(form: str, step: tuple[Difference, ...], upgraded: frozenset[str]) -> bool:
    """Whether the next form means something else.

    A rule that upgrades a form whose signature is as the next one's must be there for that. Where the signature differs
    the rule is there for those operators that make use of the difference.
    """
    return form in CHANGED_MEANING or (form in upgraded and not step)


def is_deprecated(dialect: str, name: str, version: int) -> bool:
    """Whether the operator has been taken out of ONNX at ``version``, for good.

    GroupNormalization was taken out at 18, the version that brought it, and came back at 21; models have it.
    """
    return dialect != "msft" and all(
        schema(dialect, name, v).deprecated
        for v in versions(dialect)[name]
        if v >= min(version, versions(dialect)[name][-1])
    )


def spelled(dialect: str, name: str, since: int) -> str:
    """The qualified name of a form."""
    return f"{dialect}.{name}" if since == versions(dialect)[name][-1] else f"{dialect}.{name}@{since}"


def differences(old: ir.OpDef, new: ir.OpDef) -> tuple[Difference, ...]:
    """What may keep an operator of the form ``old`` from being one of the form ``new``.

    Names of operands may change; they are positions. An attribute that is new is filled with its default, and one whose
    default changed keeps its value but counts as a change of meaning: such defaults changed with it.
    """
    if new.constant is not None:
        return ()  # all of Constant's attributes are one in the IR
    out: list[Difference] = []
    for i, a in enumerate(old.operands):
        if i >= len(new.operands):
            out.append(Difference("operand present", i))
            continue
        b = new.operands[i]
        if (a.arity == "variadic") != (b.arity == "variadic"):
            out.append(Difference("always"))
        elif b.arity == "required" and a.arity == "optional":
            out.append(Difference("operand absent", i))
        if b.dtypes is not None and (a.dtypes is None or not a.dtypes <= b.dtypes):
            out.append(Difference("operand type", i, b.dtypes))
    out += [Difference("always") for b in new.operands[len(old.operands) :] if b.arity == "required"]
    for i, a in enumerate(old.results):
        if i >= len(new.results):
            out.append(Difference("result present", i))
            continue
        b = new.results[i]
        narrower = b.dtypes is not None and (a.dtypes is None or not a.dtypes <= b.dtypes)
        if narrower and not _follows_operand(old, new, i):
            out.append(Difference("result present", i))
    out += [Difference("always") for b in new.results[len(old.results) :] if b.arity == "required"]
    for key, spec in old.attributes.items():
        newer = new.attributes.get(key)
        if newer is None:
            out.append(Difference("attribute present", key))
        elif (spec.kind, spec.default) != (newer.kind, newer.default) or (newer.required and not spec.required):
            out.append(Difference("always"))
    out += [Difference("always") for k, b in new.attributes.items() if b.required and k not in old.attributes]
    return tuple(out)


def _follows_operand(old: ir.OpDef, new: ir.OpDef, result: int) -> bool:
    """Whether a result has the element type of the same operand in both forms, so that only the operand need fit."""
    a, b = old.results[result].type_variable, new.results[result].type_variable
    pairs = zip(old.operands, new.operands)
    return bool(a and b) and any(x.type_variable == a and y.type_variable == b for x, y in pairs)


def fitting_versions(op: ir.Op, upgraded: frozenset[str]) -> tuple[int, int | None]:
    """The opset versions under which the operator, written as it is, means what it means in the IR.

    Returns:
        The first and the last; None for the last where it is in force today.
    """
    defn = op.defn
    name = defn.name.partition(".")[2].partition("@")[0]
    known = versions(defn.dialect)[name]
    i = known.index(defn.since)
    last = known[i + 1] - 1 if i + 1 < len(known) else None
    while i > 0:
        older, newer = (ir.lookup(spelled(defn.dialect, name, v)) for v in (known[i - 1], known[i]))
        if changes_meaning(f"{name}@{older.since}", differences(older, newer), upgraded) or not _could_be(op, older):
            break
        i -= 1
    return known[i], last


def _could_be(op: ir.Op, older: ir.OpDef) -> bool:
    """Whether an operator says nothing that the older form could not say, and would be taken back as it is."""
    if op.defn.constant is not None:
        return True
    dtypes = [v.type.dtype if v is not None and isinstance(v.type, ir.TensorType) else None for v in op.operands]
    present = [v is not None for v in op.operands]
    for back in (differences(older, op.defn), differences(op.defn, older)):
        for d in back:
            if d.what == "attribute present":
                # An attribute that the older form lacks must say what it always meant: its default.
                spec = op.defn.attributes.get(str(d.at))
                value = op.attributes.get(str(d.at))
                if value is not None and (spec is None or spec.default is None or value != spec.default):
                    return False
            elif d.what == "result present" and int(d.at) < len(older.results):
                continue  # a question of types, which are looked at below
            elif _matters(d, dtypes, op.attributes, len(op.results), present):
                return False
    for i, r in enumerate(op.results):
        spec_ = older.results[min(i, len(older.results) - 1)]
        if isinstance(r.type, ir.TensorType) and spec_.dtypes is not None and r.type.dtype not in spec_.dtypes:
            return False
    return True
