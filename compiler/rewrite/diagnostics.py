"""What a rule file did wrong: place, sentence, source line and caret."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from compiler.errors import UserError
from compiler.rewrite.syntax import Pos


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding in a rule file. Lines and columns are 1-based; ``example`` is a graph that shows it, as text."""

    file: str
    pos: Pos
    message: str
    severity: Literal["error", "warning"] = "error"
    code: str = ""
    example: str = ""

    def render(self, source: str) -> str:
        """The message as ``file:line:column: error: …`` with the source line, a caret and the example below."""
        lines = source.splitlines()
        line = lines[self.pos.line - 1] if 0 < self.pos.line <= len(lines) else ""
        width = self.pos.end_column - self.pos.column if self.pos.end_line == self.pos.line else len(line)
        width = max(1, min(width, len(line) - self.pos.column + 1))
        head = f"{self.file}:{self.pos.line}:{self.pos.column}: {self.severity}: {self.message}"
        example = "".join(f"\n    {x}" for x in self.example.splitlines())
        return f"{head}\n  {line}\n  {' ' * (self.pos.column - 1)}{'^' * width}{example}"

    def as_json(self) -> dict[str, Any]:
        out = asdict(self)
        out["pos"] = self.pos._asdict()
        return out


class RuleError(UserError):
    """One or more rule files cannot be used. ``diagnostics`` has every finding, in source order."""

    located = True

    def __init__(self, diagnostics: Sequence[Diagnostic], sources: dict[str, str]) -> None:
        self.diagnostics = list(diagnostics)
        self.sources = sources
        super().__init__("\n".join(d.render(sources.get(d.file, "")) for d in diagnostics))


class RewriteError(UserError):
    """A rule went wrong while it was applied: it does not terminate, or built an operator that cannot be."""
