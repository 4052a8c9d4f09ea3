"""The TextMate grammar for editors, run over rules."""

from __future__ import annotations

from pathlib import Path

import pytest

GRAMMAR = Path(__file__).parents[2] / "editors" / "rules.tmLanguage.json"
TEXT = """stage fuse
use onnx
rule gelu "x · Φ(x)" {   // a comment
  match   { y = onnx.Mul(x: f32, 0.5) {axis = true} }
  where   { uses(y) == 1 and target.unit == "ane" }
}
"""


def test_words_have_their_scopes() -> None:
    import json

    models = pytest.importorskip("textmate_grammar.parsers.base", reason="it reads TextMate grammars")
    parser = models.LanguageParser(json.loads(GRAMMAR.read_text(encoding="utf-8")))
    parsed = parser.parse_string(TEXT)
    scopes = {}
    for (_, _), text, names in parsed.flatten():
        scopes.setdefault(text.strip(), names[-1])
    expected = {
        "rule": "keyword.declaration.rules",
        "gelu": "entity.name.type.rules",
        "stage": "keyword.declaration.rules",
        "match": "keyword.control.rules",
        "onnx.Mul": "entity.name.class.rules",
        "f32": "storage.type.rules",
        "0.5": "constant.numeric.rules",
        "true": "constant.language.rules",
        "uses": "support.function.rules",
        "and": "keyword.operator.word.rules",
    }
    assert {word: scopes.get(word) for word in expected} == expected
