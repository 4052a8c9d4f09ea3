"""Rules drafted from nodes of a model, and the how-to that begins with one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import compiler
from compiler.cli import planish_app as app
from compiler.errors import UserError
from compiler.options import Options
from compiler.proving.library import library_of
from compiler.rewrite.draft import draft
from compiler.stages import seen_by
from compiler.target import Target

HOWTO = Path(__file__).parents[2] / "docs" / "rules-howto.md"
NODES = {
    "swish": [
        helper.make_node("Add", ["x", "three"], ["a"], "plus"),
        helper.make_node("Clip", ["a", "zero", "six"], ["b"], "clip"),
        helper.make_node("Mul", ["x", "b"], ["c"], "times"),
        helper.make_node("Div", ["c", "six"], ["y"], "over"),
    ],
    "sign": [
        helper.make_node("Abs", ["x"], ["a"], "size"),
        helper.make_node("Add", ["one", "a"], ["b"], "plus"),
        helper.make_node("Div", ["x", "b"], ["y"], "over"),
    ],
    "apart": [
        helper.make_node("Abs", ["x"], ["a"], "size"),
        helper.make_node("Exp", ["a"], ["b"], "between"),
        helper.make_node("Neg", ["b"], ["y"], "turned"),
    ],
}


@pytest.fixture
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model of the nodes that the test's parameter names."""
    constants = {"one": 1.0, "three": 3.0, "zero": 0.0, "six": 6.0}
    graph = helper.make_graph(
        NODES[request.param],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(np.float32(v), k) for k, v in constants.items()],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def drafted(model: Path, *nodes: str, stage: str = "fuse", to: str | None = None) -> str:
    seen = seen_by(stage, model, Options(Target.of("ane")), library_of())
    return draft(seen, nodes, "mine", stage, to)


@pytest.mark.parametrize("model", ["swish"], indirect=True)
@pytest.mark.parametrize(("stage", "last"), [("canonicalize", "Div(t3, 6.0)"), ("fuse", "Mul(t3, ≈0.166666672)")])
def test_a_draft_says_what_the_stage_finds_of_the_nodes(model: Path, stage: str, last: str) -> None:
    text = drafted(model, "plus", "clip", "times", "over", stage=stage, to="HardSwish")
    assert text == (
        f"stage {stage}\nuse onnx\n\n"
        'rule mine "what it does, in one line of algebra" {\n'
        "  match   { t1 = Add(x, 3.0)\n"
        "            t2 = Clip(t1, 0.0, 6.0)\n"
        "            t3 = Mul(x, t2)\n"
        f"            y = {last} }}\n"
        "  where   { uses(t1) == 1, uses(t2) == 1, uses(t3) == 1 }\n"
        "  rewrite { y = HardSwish(x) }\n"
        "  example { x: f32[2, 4] }\n"
        "}\n"
    )


@pytest.mark.parametrize("model", ["sign"], indirect=True)
def test_a_draft_without_a_result_must_be_edited(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "my.rules"
    arguments = ["rules", "new", "--from", str(model), "--nodes", "size,plus", "-o", str(path)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert "for ever" in path.read_text(encoding="utf-8")
    assert "without end" in CliRunner().invoke(app, ["rules", "check", str(path)]).stdout


@pytest.mark.parametrize(
    ("model", "nodes", "said"),
    [
        ("swish", ["pluss"], "no operator of a node 'pluss'; did you mean 'plus'"),
        ("swish", ["six"], "all constants"),
        ("apart", ["size", "turned"], "onnx.Neg of node 'turned' has nothing to do with the other operators"),
    ],
    indirect=["model"],
)
def test_nodes_of_which_no_rule_can_be_made(model: Path, nodes: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        drafted(model, *nodes)


@pytest.mark.parametrize("model", ["sign"], indirect=True)
def test_the_howto(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model.parent)
    blocks = re.findall(r"```console\n(.*?)```", HOWTO.read_text(encoding="utf-8"), re.DOTALL)
    commands = [line.removeprefix("planish ") for block in blocks for line in block.splitlines()]
    assert [c.split()[0 if c.startswith("compile") else 1] for c in commands] == [
        "new",
        "check",
        "fmt",
        "prove",
        "compile",
        "explain",
    ]
    for c in commands:
        result = CliRunner().invoke(app, c.split())
        assert result.exit_code == 0, (c, result.output, result.exception)
    assert "my_soft_sign fires 1 times" in result.output
    done = compiler.compile(model, rules=["my.rules"], verify="fast", output=model.parent / "again.mlpackage")
    assert done.report.rules["my_soft_sign"] == 1
