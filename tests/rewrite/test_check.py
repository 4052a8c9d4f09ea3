"""The static checker: broken rule files give the findings that lie beside them; the library gives none."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import compiler.dialects.mil
import compiler.dialects.onnx  # noqa: F401 (registers the operators that rules name)
from compiler import meaning
from compiler.cli.rules import app
from compiler.rewrite import Library, RuleError, load_library
from compiler.rewrite.check import check
from compiler.rewrite.check_overlaps import overlapping
from compiler.rewrite.parse import parse
from tests.rewrite.engine import HEAD, library

GOLDEN = Path(__file__).parents[1] / "golden" / "rules_errors"
CASES = sorted(GOLDEN.glob("*.rules"))


def findings(path: Path) -> str:
    source = path.read_text(encoding="utf-8")
    try:
        found = check(Library([parse(source, path.name)]))
    except RuleError as e:
        found = e.diagnostics
    return "\n".join(d.render(source) for d in found) + "\n"


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_a_broken_file_is_told_where_and_what_to_do(path: Path) -> None:
    golden = path.with_suffix(".txt")
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(findings(path), encoding="utf-8")
    assert findings(path) == golden.read_text(encoding="utf-8")


def test_there_are_enough_broken_files() -> None:
    assert len(CASES) >= 20


def test_the_library_has_no_errors() -> None:
    rules = load_library()
    meaning.install(rules)  # graphs of test blocks have the types that operators' meanings give
    assert [d.render("") for d in check(rules) if d.severity == "error"] == []


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        ("rule swap { match { z = Add(x, y) } rewrite { z = Add(y, x) } }", ["swap"]),
        (
            "rule a { match { z = Add(x, Neg(y)) } rewrite { z = Sub(x, y) } }\n"
            "rule b { match { z = Sub(x, y) } rewrite { z = Add(x, Neg(y)) } }",
            ["a", "b"],
        ),
        ("rule grow { match { y = Relu(x) } rewrite { y = Relu(Relu(x)) } }", ["grow"]),
    ],
)
def test_what_has_no_end_is_refused_at_load(tmp_path: Path, rules: str, names: list[str]) -> None:
    path = tmp_path / "my.rules"
    path.write_text(HEAD + rules)
    loaded = load_library([path], builtin=False)
    started = time.perf_counter()
    with pytest.raises(RuleError) as caught:
        loaded.stage("fuse")
    assert time.perf_counter() - started < 1.0
    (found,) = caught.value.diagnostics
    assert found.code == "endless"
    assert all(f"'{n}'" in found.message or f"{n} →" in found.message for n in names)
    assert "onnx." in found.example


def test_a_name_of_the_library_cannot_be_given_another_meaning(tmp_path: Path) -> None:
    """The library's rules use it: x * 2 would become x."""
    path = tmp_path / "my.rules"
    path.write_text(HEAD + "fn neutral(k, x, e) = true\nrule r { match { y = Relu(Relu(x)) } rewrite { y = Relu(x) } }")
    with pytest.raises(RuleError) as caught:
        load_library([path])
    (found,) = caught.value.diagnostics
    assert found.file == str(path)
    assert "stands already in rules/canonicalize.rules:" in found.message


def test_what_comes_to_rest_is_not_refused() -> None:
    rules = library(
        """rule distribute { match { y = Mul(Add(a, b), c) } rewrite { y = Add(Mul(a, c), Mul(b, c)) } }
        rule twice { match { y = Neg(Neg(x)) } rewrite { y = x } }
        rule longer { match { y = Relu(x) } where { uses(x) == 7 } rewrite { y = Relu(Neg(Neg(x))) } }"""
    )
    assert check(rules) == []


def test_an_overlap_is_shown_with_both_outcomes() -> None:
    rules = library(
        """rule a { match { z = Relu(Neg(x)) } rewrite { z = Sigmoid(x) } }
        rule b { match { z = Neg(Neg(x)) } rewrite { z = x } }"""
    )
    stage = rules.stage("fuse")
    (found,) = overlapping(stage.entries, stage)
    assert found.severity == "warning"
    assert "a first:" in found.example
    assert "onnx.Sigmoid(%0)" in found.example
    assert "onnx.Relu(%x)" in found.example
    told = library(
        """rule a { match { z = Relu(Neg(x)) } rewrite { z = Sigmoid(x) } before b }
        rule b { match { z = Neg(Neg(x)) } rewrite { z = x } }"""
    ).stage("fuse")
    assert list(overlapping(told.entries, told)) == []


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "my.rules"
    path.write_text(HEAD + "rule r { match { y = Relu(Sofmax(x)) } rewrite { y = x } }\n")
    result = CliRunner().invoke(app, ["check", str(path), "--json"])
    assert result.exit_code == 2
    (found,) = json.loads(result.stdout)
    assert (found["pos"]["line"], found["pos"]["column"], found["code"]) == (3, 27, "unknown-operator")
    path.write_text(HEAD + "rule r   { match { y = Relu(Softmax(x)) } rewrite { y = Softmax(x) } }\n")
    assert CliRunner().invoke(app, ["check", str(path)]).stdout == "0 errors, 0 warnings\n"
    assert CliRunner().invoke(app, ["fmt", "--check", str(path)]).exit_code == 1
    assert CliRunner().invoke(app, ["fmt", str(path)]).exit_code == 0
    assert CliRunner().invoke(app, ["fmt", "--check", str(path)]).exit_code == 0


def test_no_overlap_is_seen_on_what_cannot_be() -> None:
    """Computed constants are folded before rules see them, and a matcher is asked for its own operators only."""
    stage = library(
        """rule a { match { z = Mul(Mul(x, k: const), 2.0) } rewrite { z = Sub(x, k) } }
        rule b { match { z = Mul(x: const, Sigmoid(x)) } rewrite { z = x } }
        rule c { match { m = {Add, Div}(x, 3.0); z = Relu(m) } where { op_name(m) == "onnx.Add" } rewrite { z = x } }
        rule d { match { z = Div(x, 3.0) } rewrite { z = Neg(x) } }"""
    ).stage("fuse")
    assert list(overlapping(stage.entries, stage)) == []


def test_the_order_of_fusions_is_settled_and_that_is_found_soon() -> None:
    """Patterns that name one value several times, unified with each other, once went round in a circle."""
    stage = load_library().stage("fuse")
    started = time.process_time()
    assert list(overlapping(stage.entries, stage)) == []
    assert time.process_time() - started < 60
