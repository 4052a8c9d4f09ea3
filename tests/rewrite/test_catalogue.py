"""The catalogue, drafted rules, and rules that packages bring."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import compiler.dialects.mil
import compiler.dialects.onnx  # noqa: F401 (registers the operators that rules name)
from compiler import frontend
from compiler.cli.rules import app
from compiler.errors import UserError
from compiler.execution import evaluate
from compiler.rewrite import load_library
from compiler.rewrite.catalogue import html, markdown
from compiler.rewrite.draft import draft
from tests.rewrite.engine import HEAD, library

DOCS = Path(__file__).parents[2] / "docs"


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


@pytest.fixture
def model(tmp_path: Path) -> Path:
    constants = {"three": 3.0, "zero": 0.0, "six": 6.0}
    nodes = [
        helper.make_node("Add", ["x", "three"], ["a"], "plus"),
        helper.make_node("Clip", ["a", "zero", "six"], ["b"], "clip"),
        helper.make_node("Mul", ["x", "b"], ["c"], "times"),
        helper.make_node("Div", ["c", "six"], ["y"], "over"),
    ]
    graph = helper.make_graph(
        nodes,
        "swish",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(np.float32(v), k) for k, v in constants.items()],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_draft_says_what_the_nodes_are(model: Path) -> None:
    text = draft(frontend.load(model), ["plus", "clip", "times", "over"], "mine", to="HardSwish")
    assert text == (
        "stage fuse\nuse onnx\n\n"
        'rule mine "what it does, in one line of algebra" {\n'
        "  match   { t1 = Add(x, 3.0)\n"
        "            t2 = Clip(t1, 0.0, 6.0)\n"
        "            t3 = Mul(x, t2)\n"
        "            y = Div(t3, 6.0) }\n"
        "  where   { uses(t1) == 1, uses(t2) == 1, uses(t3) == 1 }\n"
        "  rewrite { y = HardSwish(x) }\n"
        "  example { x: f32[2, 4] }\n"
        "}\n"
    )


def test_a_draft_without_a_result_must_be_edited(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.rules"
    arguments = ["new", "--from", str(model), "--nodes", "plus,clip", "-o", str(path)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert "for ever" in path.read_text()
    assert "without end" in CliRunner().invoke(app, ["check", str(path)]).stdout


def test_a_node_that_is_not_there(model: Path) -> None:
    with pytest.raises(UserError, match="no node called 'pluss'; did you mean 'plus'"):
        draft(frontend.load(model), ["pluss"], "mine")


def test_the_howto(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "rules-howto.md").read_text(encoding="utf-8")
    commands = re.findall(r"^planish rules (.*)$", text, re.MULTILINE)
    assert [c.split()[0] for c in commands] == ["new", "check", "fmt", "prove"]
    known = {command.name for command in app.registered_commands}
    for c in commands:
        if c.split()[0] not in known:
            continue
        result = CliRunner().invoke(app, c.split())
        assert result.exit_code == 0, (c, result.output, result.exception)

    module = frontend.load(model)
    feeds = {"x": np.linspace(-5, 5, 8, dtype=np.float32).reshape(2, 4)}
    before = evaluate.run(module, feeds)
    assert load_library(["my.rules"], builtin=False).rewrite(module, "fuse").fires == {"my_hard_swish": 1}
    np.testing.assert_allclose(evaluate.run(module, feeds)["y"], before["y"], rtol=1e-6, atol=1e-6)


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
    (info / "entry_points.txt").write_text("[planish.rules]\nbrought = missing_module\n")
    with pytest.raises(UserError, match="that package brought brings cannot be loaded"):
        load_library()
    sys.modules.pop("brought", None)
