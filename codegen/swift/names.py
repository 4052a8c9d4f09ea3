"""Names of a model's parts as Swift identifiers."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Words that cannot be the name of a property, case or type without backticks (The Swift Programming Language,
#: "Keywords and Punctuation").
_RESERVED = frozenset(
    re.findall(
        r"\w+",
        """
        associatedtype class deinit enum extension fileprivate func import init inout internal let open
        operator private precedencegroup protocol public rethrows static struct subscript typealias var
        break case catch continue default defer do else fallthrough for guard if in repeat return throw
        switch where while Any as await false is nil self Self super throws true try
        """,
    )
)

#: What a generated type has already, so that no property may be called so.
_TAKEN = frozenset({"Type", "Protocol"})


def type_name(text: str) -> str:
    """``silero-vad_16k`` → ``SileroVad16k``; always a valid identifier."""
    joined = "".join(p[:1].upper() + p[1:] for p in _parts(text))
    joined = joined or "Model"
    name = joined if not joined[0].isdigit() else f"Model{joined}"
    return f"{name}Model" if name in _RESERVED | _TAKEN else name


def member_names(texts: Iterable[str], fallback: str = "value") -> list[str]:
    """``x.1`` → ``x1``; every name differs, and is free of what Swift reserves."""
    out: list[str] = []
    for text in texts:
        parts = _parts(text)
        name = "".join(
            [parts[0][:1].lower() + parts[0][1:], *(p[:1].upper() + p[1:] for p in parts[1:])] if parts else []
        )
        if not name or not (name[0].isalpha() or name[0] == "_"):
            name = f"{fallback}{name[:1].upper()}{name[1:]}"
        unique, number = name, 2
        while unique in out:
            unique, number = f"{name}_{number}", number + 1
        out.append(unique)
    return [f"`{n}`" if n in _RESERVED else n for n in out]


def _parts(text: str) -> list[str]:
    """The runs of letters and digits; letters beyond ASCII stay, as Swift takes them."""
    return [p for p in re.split(r"[\W_]+", text) if p]


def literal(text: str) -> str:
    """A Swift string literal."""
    out = []
    for c in text:
        if c in '"\\':
            out.append("\\" + c)
        elif c == "\n":
            out.append("\\n")
        elif ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u2028\u2029":
            out.append(f"\\u{{{ord(c):x}}}")
        else:
            out.append(c)
    return f'"{"".join(out)}"'


def comment(text: str) -> str:
    """One line for a documentation comment."""
    return " ".join(text.split())


def raw_block(text: str) -> tuple[str, str]:
    """The delimiters of a raw multi-line string that ``text`` cannot end."""
    fences = 1 + max((len(m) for m in re.findall(r'"""(#*)', text)), default=0)
    escapes = 1 + max((len(m) for m in re.findall(r"\\(#*)", text)), default=0)
    fence = "#" * max(fences, escapes)
    return f'{fence}"""', f'"""{fence}'
