"""The syntax tree of rule files: plain data, every node with its place in the source."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from compiler.rewrite.syntax_expressions import (
    Arg,
    AttrSpread,
    AttrValue,
    Binary,
    Call,
    Comprehension,
    Conditional,
    Expr,
    Index,
    Keyword,
    ListExpr,
    Literal,
    Member,
    Name,
    Optional,
    Pos,
    Region,
    Slice,
    Spread,
    Unary,
    mentioned,
    node,
)
from compiler.rewrite.syntax_patterns import (
    Alternatives,
    AttrChoice,
    AttrPattern,
    Constraint,
    Dim,
    ListPattern,
    LiteralPattern,
    NamedOperand,
    OpPattern,
    Pattern,
    ValuePattern,
    VariadicPattern,
)

__all__ = [
    "GRAMMAR",
    "Alternatives",
    "Arg",
    "AttrChoice",
    "AttrPattern",
    "AttrSpread",
    "AttrValue",
    "Binary",
    "BuildStmt",
    "Call",
    "Comprehension",
    "Conditional",
    "Constraint",
    "Dim",
    "Expr",
    "Extern",
    "FnDef",
    "Given",
    "Index",
    "Keyword",
    "LetStmt",
    "ListExpr",
    "ListPattern",
    "Literal",
    "LiteralPattern",
    "MatchStmt",
    "Member",
    "Name",
    "NamedOperand",
    "Numeric",
    "OpPattern",
    "Optional",
    "Pattern",
    "PatternDef",
    "Pos",
    "Region",
    "Rewrite",
    "Rule",
    "RuleFile",
    "Slice",
    "Spread",
    "Target",
    "Test",
    "Unary",
    "ValuePattern",
    "VariadicPattern",
    "mentioned",
]

#: The grammar that the tree follows.
GRAMMAR = Path(__file__).with_name("rules.lark")


@node
class Target:
    """What stands left of ``=``: a name for a result, perhaps with a constraint, or (``*ys``) for all results."""

    id: str
    constraint: Constraint | None
    pos: Pos
    variadic: bool = False


@node
class MatchStmt:
    targets: tuple[Target, ...]
    pattern: Pattern
    pos: Pos


@node
class BuildStmt:
    targets: tuple[Target, ...]
    value: Expr
    pos: Pos


@node
class LetStmt:
    id: str
    value: Expr
    pos: Pos


@node
class Rewrite:
    """One variant of the result; ``when`` None: always. ``builder``: a Python function, with no statements."""

    when: Expr | None
    statements: tuple[BuildStmt, ...]
    builder: str | None
    pos: Pos


@node
class Given:
    """``x: f32[2, 3]`` (constraint) or ``k = 3`` (value) in an example or a test."""

    id: str
    constraint: Constraint | None
    value: Expr | None
    pos: Pos


@node
class Test:
    """``after`` None: the rule must leave ``before`` as it is."""

    __test__ = False  # not a pytest class

    doc: str
    givens: tuple[Given, ...]
    before: tuple[BuildStmt, ...]
    after: tuple[BuildStmt, ...] | None
    because: str
    pos: Pos


@node
class Numeric:
    """The contract that `prove` holds a rule to: exact, rounding or approximate (with a relative tolerance)."""

    contract: str = "rounding"
    rtol: float | None = None


@node
class Rule:
    name: str
    doc: str
    stage: str
    use: tuple[str, ...]
    match: tuple[MatchStmt, ...]
    where: tuple[Expr, ...]
    let: tuple[LetStmt, ...]
    rewrites: tuple[Rewrite, ...]
    numeric: Numeric
    before: tuple[str, ...]
    after: tuple[str, ...]
    examples: tuple[tuple[Given, ...], ...]
    tests: tuple[Test, ...]
    pos: Pos
    name_pos: Pos
    file: str


@node
class PatternDef:
    name: str
    parameters: tuple[str, ...]
    body: Pattern
    use: tuple[str, ...]
    pos: Pos


@node
class FnDef:
    name: str
    parameters: tuple[str, ...]
    body: Expr
    pos: Pos


@node
class Extern:
    name: str
    module: str
    pos: Pos


@dataclass(slots=True)
class RuleFile:
    """One parsed file. ``source`` is kept for messages.

    ``builtin`` files come with the compiler, ``packaged`` ones with packages that are installed.
    """

    path: str
    source: str
    builtin: bool = False
    packaged: bool = False
    rules: list[Rule] = field(default_factory=list)
    patterns: dict[str, PatternDef] = field(default_factory=dict)
    fns: dict[str, FnDef] = field(default_factory=dict)
    externs: dict[str, Extern] = field(default_factory=dict)
