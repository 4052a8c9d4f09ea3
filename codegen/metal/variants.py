"""Kernels that differ in nothing but sizes become one function with function constants (Metal Shading Language
Specification, 5.8), whose values a plan gives for each pipeline: no slower than numbers in the text, and read once.

What a function constant cannot be, the size of an array or an argument of a template, stays a number. CPUs get each
variant with its numbers: :func:`specialized`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from codegen.metal.program import Constant, Variant
from codegen.metal.signature import SignatureError, function_constants, kernel_span, without_function_constants

#: The numbers that stand in one place of kernels that are alike.
Column = tuple[str, ...]

#: How many function constants a kernel may have and still be read; a kernel of more keeps its numbers.
MOST = 8

#: The largest value of a function constant: it is an ``int``.
LARGEST = 2**31 - 1

_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.])")

#: A line in which a number may be the size of an array.
_ARRAY = re.compile(r"\s*(?:(?:threadgroup|thread|const) )*\w[\w<>, ]* \w+(?:\[\d+\])+(?: = .*)?[;,]")

#: What a number is called, by what stands before and behind it; the first that fits any place it stands in.
_ROLES: tuple[tuple[str, str, str], ...] = (
    (r"\bthread_index >= $", "", "threads"),
    (r"\b(\w+) (?:<|>=) $", "", "{}_end"),
    ("", r"^ \* (\w+)", "{}_stride"),
    (r"\b(\w+) [/%] $", "", "{}_period"),
    (r" \+ $", "", "offset"),
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel as it is written: ``parameters`` without parentheses, ``body`` without braces.

    ``alone`` says that it keeps its text and its name.
    """

    name: str
    comment: str
    parameters: str
    body: str
    alone: bool = False


def merged(kernels: Sequence[Kernel]) -> tuple[str, list[str], dict[str, Variant]]:
    """The declarations of function constants, the text of each function, and those kernels that are variants of one."""
    groups: dict[tuple[str, ...], list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        groups[(kernel.name,) if kernel.alone else (kernel.parameters, _skeleton(kernel.body))].append(kernel)
    indices: dict[str, int] = {}
    taken = {kernel.name for kernel in kernels}
    texts: list[str] = []
    found: dict[str, Variant] = {}
    for alike in groups.values():
        columns = list(zip(*(_numbers(k.body) for k in alike), strict=True))
        differing = dict.fromkeys(c for c in columns if len(set(c)) > 1)
        if not 0 < len(differing) <= MOST or any(int(n) > LARGEST for c in differing for n in c):
            texts += [f"\n{k.comment}\nkernel void {k.name}({k.parameters}) {{\n{k.body}\n}}\n" for k in alike]
            continue
        names = _names(alike[0].body, columns, list(differing))
        function = _function(alike[0].name, taken)
        heads: list[str] = []
        for i, kernel in enumerate(alike):
            constants = tuple(
                Constant(name, indices.setdefault(name, len(indices)), int(column[i])) for column, name in names.items()
            )
            found[kernel.name] = Variant(function, constants)
            values = ", ".join(f"{c.name} = {c.value}" for c in constants)
            heads.append(f"// as {kernel.name}, where {values}:\n{kernel.comment}")
        body = _with_names(alike[0].body, columns, names)
        joined = "\n".join(heads)
        texts.append(f"\n{joined}\nkernel void {function}({alike[0].parameters}) {{\n{body}\n}}\n")
    declared = "".join(f"constant int {name} [[function_constant({i})]];\n" for name, i in indices.items())
    return f"\n{declared}" if declared else "", texts, found


def specialized(source: str, wanted: Mapping[str, Variant]) -> str:
    """A source without comments in which every variant is a kernel of its own, with numbers for function constants.

    Raises:
        SignatureError: a variant is of no function there is, leaves out a constant that the function reads, or gives
            one that is not declared so.
    """
    declared = function_constants(source)
    source = without_function_constants(source)
    copies: dict[str, list[str]] = defaultdict(list)
    for name, variant in wanted.items():
        span = kernel_span(source, variant.function)
        if span is None:
            raise SignatureError(f"{name}: there is no function {variant.function}")
        start, brace, end = span
        given = {c.name: c for c in variant.constants}
        for c in given.values():
            if declared.get(c.name) != c.index:
                raise SignatureError(f"{name}: there is no function constant {c.name} of index {c.index}")
        for word in dict.fromkeys(re.findall(r"\b[A-Za-z_]\w*", source[brace:end])):
            if word in declared and word not in given:
                raise SignatureError(f"{name}: the plan gives no value for the function constant {word}")
        values = " ".join(f"const int {c.name} = {c.value};" for c in given.values())
        head = source[start:brace].replace(f"kernel void {variant.function}", f"kernel void {name}", 1)
        copies[variant.function].append(f"{head}{{ {values}{source[brace + 1 : end]}")
    for function, texts in copies.items():
        start, _, end = kernel_span(source, function) or (0, 0, 0)
        source = source[:start] + "\n".join(texts) + source[end:]
    return source


def _skeleton(body: str) -> str:
    """What kernels share that differ in numbers."""
    return _replaced(body, lambda m: "#")


def _numbers(body: str) -> list[str]:
    out: list[str] = []

    def note(match: re.Match[str]) -> str:
        out.append(match[0])
        return match[0]

    _replaced(body, note)
    return out


def _replaced(body: str, by: Callable[[re.Match[str]], str]) -> str:
    """A body with its numbers replaced, where function constants may stand."""
    return "\n".join(line if _ARRAY.match(line) else _NUMBER.sub(by, line) for line in body.split("\n"))


def _with_names(body: str, columns: Sequence[Column], names: Mapping[Column, str]) -> str:
    slots = iter(columns)
    return _replaced(body, lambda match: names.get(next(slots), match[0]))


def _names(body: str, columns: Sequence[Column], differing: Sequence[Column]) -> dict[Column, str]:
    """A name for each number that differs, which says what it is: one that the kernel has not got yet."""
    around: dict[Column, list[tuple[str, str]]] = {c: [] for c in differing}
    slots = iter(columns)
    for line in body.split("\n"):
        for match in () if _ARRAY.match(line) else _NUMBER.finditer(line):
            column = next(slots)
            if column in around:
                around[column].append((line[: match.start()], line[match.end() :]))
    words = set(re.findall(r"\w+", body))
    out: dict[Column, str] = {}
    for column, places in around.items():
        stem = _role(places)
        name, count = stem, 1
        while name in words:
            count += 1
            name = f"{stem}_{count}"
        words.add(name)
        out[column] = name
    return out


def _role(places: Sequence[tuple[str, str]]) -> str:
    for before, behind, name in _ROLES:
        for left, right in places:
            a, b = re.search(before, left), re.search(behind, right)
            if a and b:
                return name.format(*a.groups(), *b.groups())
    return "size"


def _function(name: str, taken: set[str]) -> str:
    """A name for what kernels of several shapes have in common, by that of the first of them."""
    stem = re.sub(r"_\d+(?:x\d+)*(?:_\d+)?$", "", name) + "_sized"
    out, count = stem, 1
    while out in taken:
        count += 1
        out = f"{stem}_{count}"
    taken.add(out)
    return out
