"""Names that Core ML takes: identifiers, unique in sight of each other, none of them a word of MIL's textual form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

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
    """Hands out names, none of which stands for two things in sight of each other."""

    def __init__(self) -> None:
        self._taken: dict[str, None] = {}  # in the order of taking
        self._next: dict[str, int] = {}

    def take(self, wish: str) -> str:
        """A free name as near to ``wish`` as can be."""
        taken = self._taken
        if wish not in taken and wish.isascii() and wish.isidentifier() and wish not in _RESERVED:
            taken[wish] = None
            return wish
        name = base = identifier(wish)
        while name in taken:
            n = self._next.get(base, 0)
            self._next[base] = n + 1
            name = f"{base}_{n}"
        taken[name] = None
        return name

    @contextmanager
    def inner(self) -> Iterator[None]:
        """Inside a block: what is taken there is free again after it."""
        before, counters = len(self._taken), dict(self._next)
        yield
        while len(self._taken) > before:
            self._taken.popitem()
        self._next = counters
