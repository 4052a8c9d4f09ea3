"""Names that Core ML takes: identifiers, unique in a function, none of them a word of MIL's textual form."""

from __future__ import annotations

import re

# The words that coremltools' NameSanitizer keeps clear of: MIL's text format, which Core ML compiles to, reserves them.
_RESERVED = frozenset(
    {"any", "bool", "program", "func", "tensor", "list", "dict", "tuple", "true", "false", "string", "state"}
    | {"bf16", "fp16", "fp32", "fp64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
)


def identifier(name: str) -> str:
    """``name`` as an identifier: other characters become ``_``, and a digit does not come first."""
    if not (name.isascii() and name.isidentifier()):
        name = re.sub(r"[^a-zA-Z0-9_]", "_", name)
        if not name or name[0].isdigit():
            name = f"var_{name}"
    return f"{name}_" if name in _RESERVED else name


class Names:
    """Hands out names, none of them twice."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def take(self, wish: str) -> str:
        """A free name as near to ``wish`` as can be."""
        taken = self._taken
        if wish not in taken and wish.isascii() and wish.isidentifier() and wish not in _RESERVED:
            taken.add(wish)
            return wish
        name = base = identifier(wish)
        while name in self._taken:
            n = self._next.get(base, 0)
            self._next[base] = n + 1
            name = f"{base}_{n}"
        self._taken.add(name)
        return name
