"""Wrong variants of a Metal kernel and of its dispatch: what benchmarks/metal_mutations.py has the checks find.

A mutant changes one place: a barrier gone, an index, a coefficient or a loop's bound off by one, a guard gone, a sum
that forgets, an exchange between lanes gone, an address space or a type that is wrong, a grid too small, a function
constant off by one or not given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from codegen.metal.program import Dispatch, Program


@dataclass(frozen=True)
class Mutant:
    """A program with one mistake: its kind, and the line it is in, before and after."""

    kind: str
    where: str
    program: Program


def _near(number: str) -> list[str]:
    n = int(number)
    return [str(n + 1), str(n - 1)] if n > 1 else [str(n + 1)]


def _steps(m: re.Match[str]) -> list[str]:
    """Other steps of a loop that has more than one turn."""
    return [f"{m[1]}{n}" for n in _near(m[3])] if int(m[2]) > int(m[3]) else []


#: Kinds of mistakes in the text: what to look for in a line, and what may stand there instead.
_TEXTUAL: list[tuple[str, str, Callable[[re.Match[str]], list[str]]]] = [
    ("barrier removed", r"threadgroup_barrier\(mem_flags::mem_threadgroup\);", lambda m: [";"]),
    (
        "barrier divergent",
        r"threadgroup_barrier\(mem_flags::mem_threadgroup\);",
        lambda m: [f"if (thread_index != 0) {{ {m[0]} }}"],
    ),
    ("index off by one", r"(\b\w+\[)([^\]\[]+)\]", lambda m: [f"{m[1]}{m[2]} + 1]", f"{m[1]}{m[2]} - 1]"]),
    ("coefficient", r"(?<=[*/%] )(\d+)\b", lambda m: _near(m[1])),
    ("coefficient", r"\b(\d+)(?= \* [a-z(])", lambda m: _near(m[1])),
    ("loop bound", r"(for \(int \w+ = [^;]+; \w+ < )(\d+);", lambda m: [f"{m[1]}{n};" for n in _near(m[2])]),
    ("loop start", r"(for \(int \w+ = )0;", lambda m: [f"{m[1]}1;"]),
    ("loop step", r"(for [^;]+; \w+ < (\d+); \w+ \+= )(\d+)", _steps),
    ("guard removed", r"if \([^{}]*\) \{ (?:return|continue); \}", lambda m: [""]),
    ("guard off by one", r"(>=|<) (\d+)(?= *(?:\)|\|\||&&))", lambda m: [f"{m[1]} {n}" for n in _near(m[2])]),
    ("sum forgets", r"\+= (?=[^;]*;$)", lambda m: ["= "]),
    ("lanes not joined", r"\bsimd_(?:sum|max|min|product)(\(\w+\))", lambda m: [m[1]]),
    ("address space", r"\bdevice (?=const)", lambda m: ["", "thread "]),
    ("binding", r"\[\[buffer\((\d+)\)\]\]", lambda m: [f"[[buffer({int(m[1]) ^ 1})]]", "[[buffer(31)]]"]),
    ("position", r"\[\[thread_position_in_grid\]\]", lambda m: ["[[thread_position_in_threadgroup]]"]),
    ("written constant", r"\bdevice (float|half|int)\* (?=y)", lambda m: [f"device const {m[1]}* "]),
]


def _declares(line: str) -> bool:
    """Whether a line declares an array, which may be larger than it must."""
    return bool(re.match(r"\s*(threadgroup )?(float|half|int|bool)\d? \w+\[\d+\]( = .*)?;", line))


def mutants(program: Program) -> Iterator[Mutant]:
    """Every mutant of a program of one dispatch."""
    lines = program.source.split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("kernel void"))
    seen = {program.source}
    (d,) = program.dispatches
    for i in range(first, len(lines)):
        for kind, pattern, others in _TEXTUAL:
            if _declares(lines[i]) or (kind == "position" and d.groups == 1):
                continue
            for match in re.finditer(pattern, lines[i]):
                for other in others(match):
                    line = lines[i][: match.start()] + other + lines[i][match.end() :]
                    source = "\n".join([*lines[:i], line, *lines[i + 1 :]])
                    if source not in seen:
                        seen.add(source)
                        yield Mutant(kind, f"{lines[i].strip()}  →  {line.strip()}", replace(program, source=source))
    for kind, changed in _launches(d):
        where = f"{changed.groups} × {changed.threads}, {changed.variant or 'no variant'}"
        yield Mutant(kind, where, replace(program, dispatches=[changed]))


def _launches(d: Dispatch) -> Iterator[tuple[str, Dispatch]]:
    if d.variant is not None:
        constants = d.variant.constants
        for i, c in enumerate(constants):
            for value in (c.value - 1, c.value + 1):
                other = (*constants[:i], replace(c, value=value), *constants[i + 1 :])
                yield "function constant", replace(d, variant=replace(d.variant, constants=other))
            left = (*constants[:i], *constants[i + 1 :])
            yield "function constant", replace(d, variant=replace(d.variant, constants=left))
    if d.groups > 1:
        yield "grid too small", replace(d, groups=d.groups - 1)
    if d.threads > 32:
        yield "grid too small", replace(d, threads=d.threads // 2)
    yield "threadgroup too large", replace(d, threads=d.threads + 1024)
    first, second = d.bindings[0], d.bindings[-1]
    if len(d.bindings) > 1:
        yield "buffers swapped", replace(d, bindings=(second, *d.bindings[1:-1], first))
