"""Why an operator has no lowering: the sentence and the remedy that a user is given.

First comes what is known of Core ML itself (rules/limits.py). Else the rules of stage lower are tried once more on the
operator, in their traced form, and say themselves what they miss: so a sentence cannot disagree with the rules.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.errors import UnsupportedError
from compiler.ir import InferenceError, Location, Op, TensorType, Value
from compiler.rewrite import Decline
from compiler.rewrite.build import RuleBuilder
from compiler.rewrite.driver import expand
from compiler.rewrite.syntax import AttrPattern, OpPattern, ValuePattern
from compiler.target import RELEASES, Target

if TYPE_CHECKING:
    from compiler.rewrite import Library
    from compiler.rewrite.stage import Entry

_SHAPES = "what follows from shapes is computed if these are fixed (--shape)"
_OTHERWISE = "a model without it, or a rule of your own in a file given with --rules"


@dataclass(frozen=True, slots=True)
class _Miss:
    """Why one rule does not lower the operator.

    Attributes:
        near: how near the rule came; the nearest reason is told.
    """

    near: float
    why: str
    remedy: str = _OTHERWISE


def unsupported(op: Op, library: Library, target: Target) -> UnsupportedError:
    """The error for ``op``, which the rules of stage lower left over."""
    from rules import limits

    at = f" at node '{op.loc.nodes[0]}'" if op.loc.nodes else ""
    why, remedy = limits.reason(op) or _by_release(op, library, target) or _by_rules(op, library, target)
    return UnsupportedError(f"{op.name}{at} cannot be compiled: {why}", remedy)


def _by_release(op: Op, library: Library, target: Target) -> tuple[str, str] | None:
    """A later release for which a rule lowers the operator."""
    if _lowers(op, library, target):  # it is something else than the release
        return None
    for release in list(RELEASES)[list(RELEASES).index(target.os) + 1 :]:
        if _lowers(op, library, Target(target.unit, release, target.precision)):
            return f"it needs {release.replace('ios', 'iOS ')}", f"--os {release}"
    return None


def _lowers(op: Op, library: Library, target: Target) -> bool:
    try:
        made = expand(op, library.stage("lower"), target)
    except InferenceError:
        return False
    if made is None:
        return False
    made[1].undo()
    return True


def _by_rules(op: Op, library: Library, target: Target) -> tuple[str, str]:
    traced = _traced(library)
    entries = [e for e in traced.stage("lower").entries if op.name in e.keys and len(e.variant.statements) == 1]
    misses = [m for m in (_miss(e, op, target) for e in entries) if m is not None]
    if not misses and op.defn.dialect == "msft":
        return (
            "it is an operator of onnxruntime's own, which Core ML does not have, and no rule composes it of others",
            "the model as it was exported, before onnxruntime's optimizer wrote such operators; or a rule of "
            "your own in a file given with --rules",
        )
    if not misses:
        return "Core ML has no operator for it, and no rule composes it of others", _OTHERWISE
    nearest = max(misses, key=lambda m: m.near)
    return nearest.why, nearest.remedy


@functools.lru_cache(maxsize=1)
def _traced(library: Library) -> Library:
    from compiler.rewrite.library import Library

    return Library(library.files, library.disabled, traced=True)  # whatever kind of library the given one is


def _miss(entry: Entry, op: Op, target: Target) -> _Miss | None:
    deepest: tuple[int, dict[str, Any]] | None = None

    def failed(step: int, found: dict[str, Any]) -> None:
        nonlocal deepest
        if deepest is None or step >= deepest[0]:
            deepest = (step, found)

    matcher = entry.matcher
    matcher.trace.hook = failed
    try:
        match = matcher.match(op, target)
    finally:
        matcher.trace.hook = None
    if match is not None:
        return _built(entry, op, target, match)
    if deepest is None:
        return None
    step, found = deepest
    text, pos = matcher.steps[step].text, matcher.steps[step].pos
    near = step / max(len(matcher.steps), 1)
    if "_why" in found:
        return _Miss(near, _unknown(str(found["_why"])), _remedy(str(found["_why"])))
    said = _said(text, op, entry)
    if said is None:
        lines = entry.library.sources[entry.rule.file].splitlines()
        clause = lines[pos.line - 1][pos.column - 1 : pos.end_column - 1] if pos.line == pos.end_line else text
        said = f"rule {entry.rule.name} asks for {clause}, which does not hold here", _OTHERWISE
    return _Miss(near, *said)


def _built(entry: Entry, op: Op, target: Target, match: tuple[Any, ...]) -> _Miss | None:
    """Why the result of a rule that matches cannot be used."""
    variant, matched, bound = match
    builder = RuleBuilder(op, Location.fuse((m.loc for m in matched), entry.rule.name), target)
    try:
        pairs = entry.builds[variant](builder, target, bound)
    except (Decline, InferenceError) as e:
        return _Miss(1.0, _unknown(str(e)), _remedy(str(e)))
    else:
        types = [(old.type, new.type) for old, new in pairs if isinstance(new, Value) and old.type is not new.type]
        if not types:
            return None
        old, new = types[0]
        return _Miss(0.95, f"its result is {old} as the model says, and {new} as Core ML would give it")
    finally:
        builder.undo()


def _said(text: str, op: Op, entry: Entry) -> tuple[str, str] | None:
    """A failed test of a pattern in words; None for a test that has no words of its own."""
    words = text.split("'")
    if text.endswith("is a constant"):
        name = _operand(op, words[1], entry)
        return (
            f"its '{name}' is computed at run time, and Core ML must know it when the model is compiled",
            f"a model that holds '{name}' as a constant; {_SHAPES}",
        )
    if text.startswith("element type"):
        have = ", ".join(
            dict.fromkeys(str(v.type.dtype) for v in op.operands if v is not None and isinstance(v.type, TensorType))
        )
        return (
            f"Core ML does it on {text.removeprefix('element type ')} only, and here it is on {have}",
            "a Cast before it",
        )
    if text.startswith("attribute ") and text.split()[1] in op.attributes:
        name = text.split()[1]
        return f"there is no lowering for its attribute {name} = {_shown(op.attributes[name])}", _OTHERWISE
    if text.startswith("attributes that the pattern"):
        defaults = op.defn.defaults()
        named = {a.name for a in _pattern(entry).attrs if isinstance(a, AttrPattern)}
        odd = [k for k, v in op.attributes.items() if k not in named and not _equal(v, defaults.get(k))]
        given = ", ".join(f"{k} = {_shown(op.attributes[k])}" for k in odd)
        return f"there is no lowering for its {given}", _OTHERWISE
    if text.startswith("results that"):
        return "some of its results cannot be had from Core ML", "a model that does not use them"
    return None


def _pattern(entry: Entry) -> OpPattern:
    pattern = entry.variant.statements[0].pattern
    assert isinstance(pattern, OpPattern)
    return pattern


def _operand(op: Op, name: str, entry: Entry) -> str:
    """What ONNX calls the operand that a rule calls ``name``."""
    for i, a in enumerate(_pattern(entry).args):
        if isinstance(a, ValuePattern) and a.id == name and i < len(op.defn.operands):
            return op.defn.operands[i].name
    return name


def _unknown(why: str) -> str:
    return f"{why.removesuffix(' at compile time')} when the model is compiled" if "not known" in why else why


def _remedy(why: str) -> str:
    if "not known" in why or "run time" in why or "not a constant" in why:
        return f"a model that holds it as a constant; {_SHAPES}"
    return _OTHERWISE


def _shown(value: Any) -> str:
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= 40 else text[:39] + "…"


def _equal(a: Any, b: Any) -> bool:
    return bool(np.array_equal(a, b)) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else bool(a == b)
