"""The formatter: it keeps what is said, keeps comments, and changes nothing the second time."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from compiler.rewrite import RuleError
from compiler.rewrite import syntax as s
from compiler.rewrite.format import format_rules
from compiler.rewrite.load import LIBRARY
from compiler.rewrite.parse import parse

FILES = sorted(LIBRARY.glob("*.rules"))
COMMENT = re.compile(r'"(?:[^"\\\n]|\\.)*"|(//[^\n]*)')


def said(node: Any) -> Any:
    """A syntax tree without positions."""
    if isinstance(node, s.Pos):
        return None
    if isinstance(node, (tuple, list)):
        return [said(x) for x in node]
    if isinstance(node, dict):
        return {k: said(v) for k, v in node.items()}
    if is_dataclass(node):
        return (type(node).__name__, *(said(getattr(node, f.name)) for f in fields(node) if f.name != "source"))
    return repr(node)


def comments(text: str) -> list[str]:
    return [m[1].rstrip() for m in COMMENT.finditer(text) if m[1]]


def holds(source: str) -> str:
    once = format_rules(source)
    assert said(parse(once)) == said(parse(source))
    assert comments(once) == comments(source)
    assert format_rules(once) == once
    return once


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_the_library_keeps_its_meaning(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    holds(source)
    holds(re.sub(r"(?<=\S) +", " ", source))
    holds(re.sub(r"^ +", "", source, flags=re.MULTILINE))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_the_library_is_formatted(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert format_rules(source) == source, f"planish rules fmt rules/{path.name}"


def test_slices_are_written_close() -> None:
    assert "dims(x)[2:]" in holds(SLICED)
    assert "dims(x)[:2]" in holds(SLICED)


SLICED = """stage fuse
use onnx

rule sliced {
  match { y = Relu(x) }
  where { dims(x)[2: ] == dims(x)[ :2] }
  rewrite { y = x }
}
"""

MESSY = """stage   fuse
use onnx


// pairs
rule   pair"p ∘ q"{
match{ a=Transpose( x:{f16,f32}[ N,*rest ] ){perm=p}   // inner
y = Transpose(a){ perm =q ,..r}
}
      where { uses( a )==1,H in 2 .. 64 and not(x-1<- 2),  p[1 :-1]==[ 0 ] }
let { k=-1*2 }
rewrite when p==q{ y=x }
else { y = If(x)with({ z=Neg(x) },t) }
  numeric exact
}
rule a { match { y = {Add,Sub}( x,*xs ) } rewrite { y = clone(y,*[Relu(v) for v in xs]) } }
rule longer { match { y = Softmax@11(x,≈ 0.5±0.01,-1) } rewrite { y = x } }
"""
NEAT = """stage fuse
use onnx

// pairs
rule pair "p ∘ q" {
  match   { a = Transpose(x: {f16, f32}[N, *rest]) {perm = p}  // inner
            y = Transpose(a) {perm = q, ..r}
  }
  where   { uses(a) == 1, H in 2..64 and not (x - 1 < -2), p[1:-1] == [0] }
  let     { k = -1 * 2 }
  rewrite when p == q { y = x }
  else    { y = If(x) with ({ z = Neg(x) }, t) }
  numeric exact
}
rule a {      match { y = {Add, Sub}(x, *xs) }           rewrite { y = clone(y, *[Relu(v) for v in xs]) } }
rule longer { match { y = Softmax@11(x, ≈0.5±0.01, -1) } rewrite { y = x } }
"""


def test_layout() -> None:
    assert holds(MESSY) == NEAT


def test_what_does_not_parse_is_left_alone() -> None:
    with pytest.raises(RuleError):
        format_rules("rule x {")


def test_nothing_stays_nothing() -> None:
    assert format_rules("") == ""
    assert format_rules("\n\n// only this\n") == "// only this\n"
