"""The catalogue, and rules that packages bring."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import compiler.dialects.mil
import compiler.dialects.onnx  # noqa: F401 (registers the operators that rules name)
from compiler.errors import UserError
from compiler.rewrite import load_library
from compiler.rewrite.catalogue import card, html, markdown
from tests.rewrite.engine import HEAD, library


def test_the_catalogue_shows_each_rule_with_drawings() -> None:
    rules = library(
        """rule a "x + 0 < x" { match { y = Add(Relu(x), 0.0) } rewrite { y = Relu(x) } numeric exact }
        rule b { match { y = Neg(x) } rewrite by rules.natives.something }"""
    )
    page = html(rules)
    assert "x + 0 &lt; x" in page
    assert "exact: every bit is kept" in page
    assert "rules.natives.something" in page
    assert "http-equiv" not in page
    assert "src=" not in page
    drawings = re.findall(r"<svg.*?</svg>", page)
    assert len(drawings) == 3
    texts = [t.text for t in ElementTree.fromstring(drawings[0]).iter() if t.tag.endswith("text")]
    assert texts == ["x", "0.0", "Relu", "Add"]
    assert "#### a" in markdown(rules)


def test_the_whole_library_has_a_page() -> None:
    rules = load_library()
    page = html(rules)
    assert all(f'<section id="{name}">' in page for name in rules.rules)


def test_a_package_brings_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "brought"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "mine.rules").write_text(HEAD + "rule brought { match { y = Relu(Relu(x)) } rewrite { y = Relu(x) } }\n")
    info = tmp_path / "brought-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[planish.rules]\nbrought = brought\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rules = load_library()
    assert rules.rules["brought"].stage == "fuse"
    assert "brought" in rules.stage("fuse").rules
    assert "brought" not in load_library(builtin=False).rules
    assert "--rules" not in card(rules, "brought")
    own = load_library([package / "mine.rules"])  # its author is at work on it
    assert "brought" in own.rules
    assert "--rules" in card(own, "brought")
    (info / "entry_points.txt").write_text("[planish.rules]\nbrought = missing_module\n")
    with pytest.raises(UserError, match="that package brought brings cannot be loaded"):
        load_library()
    sys.modules.pop("brought", None)
