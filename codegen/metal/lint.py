"""What clang accepts as C++ for OpenCL and Metal does not: found by libclang, in process, without running anything.

Diagnostics are clang's own; the rest is a walk over its syntax tree for address spaces left out, statics, recursion,
lambdas, goto, asm, and ``?:`` on vectors.
"""

from __future__ import annotations

import re
from typing import Any

from codegen.metal import toolchain
from codegen.metal.signature import SignatureError, function_constants, signatures, strip_comments, to_check
from compiler.errors import UnsupportedError

_FILE = "kernels.metal"
_SPACES = re.compile(r"__(global|local|constant|private)\b")


def check(source: str) -> list[str]:
    """What is wrong with a Metal source, as ``line:column: message``; an empty list if nothing is.

    Raises:
        UnsupportedError: libclang is not installed.
    """
    try:
        from clang import cindex
    except ImportError:
        raise UnsupportedError(
            "Metal kernels cannot be checked here: libclang is not installed", "pip install 'planish[metal]'"
        ) from None
    plain = strip_comments(source)
    text = to_check(plain)
    try:
        signatures(text)
        function_constants(plain)
    except SignatureError as e:
        return [str(e)]
    unit = cindex.Index.create().parse(_FILE, args=list(toolchain.LANGUAGE_FLAGS), unsaved_files=[(_FILE, text)])
    warning = cindex.Diagnostic.Warning
    found = [f"{_at(d)}{d.spelling}" for d in unit.diagnostics if d.severity >= warning]
    walk = _Walk(cindex)
    walk.visit(unit.cursor, "")
    return [*found, *walk.found, *walk.recursions()]


def _at(thing: Any) -> str:
    return f"{thing.location.line}:{thing.location.column}: "


class _Walk:
    def __init__(self, cindex: Any) -> None:
        self.cindex = cindex
        self.kinds = cindex.CursorKind
        self.found: list[str] = []
        self.calls: dict[str, set[str]] = {}
        self.functions = (self.kinds.FUNCTION_DECL, self.kinds.CXX_METHOD, self.kinds.FUNCTION_TEMPLATE)
        self.banned = {
            self.kinds.LAMBDA_EXPR: "a lambda",
            self.kinds.GOTO_STMT: "a goto",
            self.kinds.INDIRECT_GOTO_STMT: "a goto",
            self.kinds.ASM_STMT: "inline assembly",
            self.kinds.MS_ASM_STMT: "inline assembly",
        }

    def visit(self, node: Any, function: str) -> None:
        """Visits what is below ``node``, inside the function of that name."""
        for child in node.get_children():
            if child.location.file and child.location.file.name != _FILE:
                continue
            self.look(child, function)
            self.visit(child, child.get_usr() if child.kind in self.functions else function)

    def look(self, node: Any, function: str) -> None:
        kinds = self.kinds
        if node.kind in (kinds.PARM_DECL, kinds.VAR_DECL, kinds.FIELD_DECL):
            self.declaration(node, function)
        elif node.kind in self.banned:
            self.found.append(f"{_at(node)}MSL has no such thing as {self.banned[node.kind]}")
        elif node.kind == kinds.CONDITIONAL_OPERATOR:
            condition = next(iter(node.get_children())).type.get_canonical().kind
            if "vector" in str(condition).lower():
                self.found.append(f"{_at(node)}?: with a vector as its condition; use select")
        elif node.kind == kinds.CALL_EXPR and function and node.referenced:
            self.calls.setdefault(function, set()).add(node.referenced.get_usr())

    def declaration(self, node: Any, function: str) -> None:
        if self.lacks_space(node.type):
            self.found.append(f"{_at(node)}the pointer or reference '{node.spelling}' names no address space")
        if node.kind != self.kinds.VAR_DECL:
            return
        if node.storage_class == self.cindex.StorageClass.STATIC and function:
            self.found.append(f"{_at(node)}a static variable in a function")
        constant = "__constant" in node.type.spelling or "constexpr" in [t.spelling for t in node.get_tokens()]
        if not function and not constant:
            self.found.append(f"{_at(node)}the variable '{node.spelling}' outside functions is not constant")

    def lacks_space(self, type_: Any) -> bool:
        """Whether a pointer or reference leaves its address space to clang's generic one, which MSL has not."""
        kinds = self.cindex.TypeKind
        at = type_.get_canonical()
        while at.kind in (kinds.POINTER, kinds.LVALUEREFERENCE):
            to = at.get_pointee()
            spelling = to.spelling.rsplit("*", 1)[-1] if to.kind == kinds.POINTER else to.spelling
            if not _SPACES.search(spelling):
                return True
            at = to
        return False

    def recursions(self) -> list[str]:
        def reaches(name: str, seen: frozenset[str]) -> bool:
            return any(c in seen or reaches(c, seen | {c}) for c in self.calls.get(name, ()))

        return [f"recursion in {name}" for name in self.calls if reaches(name, frozenset({name}))]
