"""Kernels of a Metal source by their signatures, and the rules of signatures that clang does not know.

Reads the text: attributes such as ``[[buffer(0)]]`` mean nothing to clang in C++ for OpenCL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: Attributes of parameters by name: the field of the runtime's context, and how many components it has.
BUILTINS = {
    "thread_position_in_grid": ("gid", 3),
    "thread_position_in_threadgroup": ("tid", 3),
    "threadgroup_position_in_grid": ("tgid", 3),
    "threads_per_grid": ("tpg", 3),
    "threads_per_threadgroup": ("tptg", 3),
    "threadgroups_per_grid": ("tgpg", 3),
    "thread_index_in_threadgroup": ("lin", 1),
    "thread_index_in_simdgroup": ("lane", 1),
    "simdgroup_index_in_threadgroup": ("sg", 1),
    "simdgroups_per_threadgroup": ("nsg", 1),
    "threads_per_simdgroup": ("32u", 0),
}

#: How many bindings of a kind a kernel has (Metal feature set tables, all Apple families).
LIMITS = {"buffer": 31, "threadgroup": 8, "texture": 128}

#: Indices of function constants (Metal Shading Language Specification, 5.8.1).
MOST_CONSTANTS = 65536

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_KERNEL = re.compile(r"(?:\bkernel|\[\[\s*kernel\s*\]\])\s+void\s+(\w+)\s*\(")
_ATTRIBUTE = re.compile(r"\[\[\s*(\w+)\s*(?:\(\s*(\d+)\s*\))?\s*\]\]\s*$")
_CONSTANT = re.compile(r"constant\s+(\w+)\s+(\w+)\s*\[\[\s*function_constant\s*\(\s*(\d+)\s*\)\s*\]\]\s*;")


class SignatureError(Exception):
    """A kernel's parameters break a rule of MSL; the message names the kernel."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a kernel: ``type`` as written, the attribute that binds it, and its index if it has one."""

    type: str
    name: str
    attribute: str
    index: int | None


@dataclass(frozen=True, slots=True)
class Signature:
    """A kernel and its parameters; ``synchronises`` says whether its threads wait for one another."""

    name: str
    parameters: tuple[Parameter, ...]
    synchronises: bool


def strip_comments(source: str) -> str:
    """The source with blanks for comments, so that lines and columns stay."""
    return _COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), source)


def function_constants(source: str) -> dict[str, int]:
    """The indices of the function constants of a source without comments, by name.

    Raises:
        SignatureError: an index or a name is there twice, or one is too large.
    """
    out: dict[str, int] = {}
    for match in _CONSTANT.finditer(source):
        name, index = match[2], int(match[3])
        if index >= MOST_CONSTANTS:
            raise SignatureError(f"function_constant({index}) of {name} is not in 0..{MOST_CONSTANTS - 1}")
        if name in out or index in out.values():
            raise SignatureError(f"function_constant({index}) of {name} is there twice")
        out[name] = index
    return out


def without_function_constants(source: str) -> str:
    """The source without the declarations of its function constants."""
    return _CONSTANT.sub("", source)


def to_check(source: str) -> str:
    """The source as clang checks it: it knows no ``[[kernel]]``, and a function constant has no value it may use."""
    declared = r"extern constant bool __msl_fc_defined_\2; extern constant \1 \2;"
    return _CONSTANT.sub(declared, plain(source))


def plain(source: str) -> str:
    """The source with ``kernel`` for ``[[kernel]]``."""
    return re.sub(r"\[\[\s*kernel\s*\]\]", "kernel", source)


def kernel_span(source: str, name: str) -> tuple[int, int, int] | None:
    """Where a kernel of a source without comments starts, where the brace of its body stands, and where it ends."""
    match = re.search(rf"\bkernel\s+void\s+{name}\s*\(", source)
    if match is None:
        return None
    brace = source.index("{", _closing(source, match.end(), "(", ")"))
    return match.start(), brace, _closing(source, brace + 1, "{", "}") + 1


def signatures(source: str) -> list[Signature]:
    """The kernels of a source without comments.

    Raises:
        SignatureError: parameters break a rule that clang does not check.
    """
    out = []
    for match in _KERNEL.finditer(source):
        end = _closing(source, match.end(), "(", ")")
        parameters: list[Parameter] = []
        for text in _split(source[match.end() : end]):
            parameters.append(_parameter(match[1], text, parameters))
        vectors = {re.sub(r"[a-z]+", "", p.type) for p in parameters if BUILTINS.get(p.attribute, ("", 0))[1] == 3}
        if len(vectors) > 1:
            raise SignatureError(f"{match[1]}: positions in the grid and in the threadgroup differ in dimensions")
        brace = source.index("{", end)
        body = source[brace : _closing(source, brace + 1, "{", "}")]
        out.append(Signature(match[1], tuple(parameters), bool(re.search(r"barrier|\bsimd(group)?_\w+\s*\(", body))))
    return out


def _closing(source: str, start: int, opening: str, closing: str) -> int:
    depth, at = 1, start
    while depth:
        if at >= len(source):
            raise SignatureError(f"a '{opening}' is not closed")
        depth += (source[at] == opening) - (source[at] == closing)
        at += 1
    return at - 1


def _split(text: str) -> list[str]:
    parts, depth, at = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "([{<") - (c in ")]}>")
        if c == "," and depth == 0:
            parts.append(text[at:i])
            at = i + 1
    return [*parts, text[at:]] if text[at:].strip() else parts


def _parameter(kernel: str, text: str, before: list[Parameter]) -> Parameter:
    match = _ATTRIBUTE.search(text)
    if match is None:
        raise SignatureError(f"{kernel}: the parameter '{' '.join(text.split())}' has no attribute")
    declaration, attribute, index = text[: match.start()].strip(), match[1], match[2]
    name = re.search(r"(\w+)$", declaration)
    if name is None:
        raise SignatureError(f"{kernel}: the parameter '{' '.join(text.split())}' has no name")
    type_ = " ".join(declaration[: name.start()].split())
    if attribute in LIMITS:
        _check_binding(kernel, type_, name[1], attribute, index, before)
        return Parameter(type_, name[1], attribute, int(index))
    if attribute not in BUILTINS:
        raise SignatureError(f"{kernel}: there is no attribute [[{attribute}]]")
    plain = type_.replace("const", "").strip()
    allowed = ["uint", "ushort"]
    if BUILTINS[attribute][1] == 3:
        allowed += ["uint2", "uint3", "ushort2", "ushort3"]
    if plain not in allowed:
        raise SignatureError(f"{kernel}: [[{attribute}]] is one of {', '.join(allowed)}, not {type_}")
    return Parameter(plain, name[1], attribute, None)


def _check_binding(
    kernel: str, type_: str, name: str, attribute: str, index: str | None, before: list[Parameter]
) -> None:
    if index is None or int(index) >= LIMITS[attribute]:
        raise SignatureError(f"{kernel}: {attribute}({index}) of {name} is not in 0..{LIMITS[attribute] - 1}")
    if any(p.attribute == attribute and p.index == int(index) for p in before):
        raise SignatureError(f"{kernel}: {attribute}({index}) is there twice")
    spaces = {"buffer": r"\b(device|constant)\b", "threadgroup": r"\bthreadgroup\b", "texture": r"\btexture"}
    if not re.search(spaces[attribute], type_) or (attribute != "texture" and type_[-1] not in "*&"):
        raise SignatureError(f"{kernel}: {name} at {attribute}({index}) cannot be a {type_}")
