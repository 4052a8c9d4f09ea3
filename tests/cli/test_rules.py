"""``planish rules …`` and rules of one's own, as they are typed: what is printed, and the exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from compiler.cli import planish_app
from compiler.cli.console import run

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def planish(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``planish ARGUMENTS`` in a folder of its own: exit code, and all that was printed."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str]:
        code = run(planish_app, "planish", [str(a) for a in arguments])
        out = capsys.readouterr()
        return code, out.out + out.err

    return call


def written(path: Path, text: str) -> Path:
    """A rule file of stage fuse."""
    path.write_text(f"stage fuse\nuse onnx\n\n{text}\n", encoding="utf-8")
    return path


def sum_and_relu(path: Path) -> Path:
    """A model: relu(a + b)."""
    nodes = [helper.make_node("Add", ["a", "b"], ["c"], "sum"), helper.make_node("Relu", ["c"], ["y"], "act")]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in "aby"]
    graph = helper.make_graph(nodes, "sum", values[:2], values[2:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("rule swap { match { y = Add(a, b) } rewrite { y = Add(b, a) } }", "rule 'swap' builds what it matches"),
        (
            "rule ping { match { y = Add(a, b) } rewrite { y = Sub(a, Neg(b)) } }\n"
            "rule pong { match { y = Sub(a, Neg(b)) } rewrite { y = Add(a, b) } }",
            "ping → pong → ping",
        ),
    ],
)
def test_rules_without_end_are_refused_and_named(planish: Run, tmp_path: Path, rules: str, said: str) -> None:
    file = written(tmp_path / "my.rules", rules)
    model = sum_and_relu(tmp_path / "sum.onnx")
    for arguments in (("rules", "check", file), ("compile", model, "--rules", file)):
        code, text = planish(*arguments)
        assert code == 2, text
        assert said in text
        assert "my.rules:" in text
        assert "import" not in text  # refused before the model is read
    assert not (tmp_path / "sum.mlpackage").exists()


def test_compile_tells_all_that_is_wrong_with_rules_of_every_stage(planish: Run, tmp_path: Path) -> None:
    file = tmp_path / "my.rules"
    file.write_text(
        "stage fuse\nuse onnx\nrule one { match { y = Rellu(x) } rewrite { y = x } }\n"
        "stage metal\nrule two { match { y = Relu(x) } rewrite { y = metal.maxx(x, 0) } }\n",
        encoding="utf-8",
    )
    code, text = planish("compile", sum_and_relu(tmp_path / "sum.onnx"), "--target", "ane", "--rules", file)
    assert code == 2, text
    assert text.startswith(f"{file}:3:24: error: "), text
    assert "did you mean 'Relu'" in text
    assert "my.rules:5:48: error: " in text
    assert "did you mean 'max'" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("prove", "empty.rules"), "there is no rule to prove in empty.rules"),
        (("prove", "--count", "0"), "'--count'"),
        (("prove", "--replay", "broken.ir"), "broken.ir:1:1: expected 'module'"),
        (("stats", "missing.onnx"), "there is no missing.onnx"),
        (("stats", "broken.onnx"), "0 of 1 models"),
        (("check", "missing.rules"), "rule file missing.rules cannot be read"),
        (("explain", "gelo"), "no rule is called 'gelo'; did you mean 'gelu'?"),
        (("new", "--from", "broken.onnx", "--nodes", "a", "--stage", "fuze"), "did you mean 'fuse'?"),
    ],
)
def test_what_cannot_be_done_is_said_and_is_no_success(
    planish: Run, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    for name, content in (("empty.rules", "// nothing yet"), ("broken.ir", "?"), ("broken.onnx", "?")):
        (tmp_path / name).write_text(content, encoding="utf-8")
    code, text = planish("rules", *arguments)
    assert code == 2, text
    assert said in text


def test_a_rule_is_explained_on_a_model_that_is_refused(planish: Run, tmp_path: Path) -> None:
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[4,4] x) => (float y) { y = Det (x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "det.onnx")
    code, said = planish("rules", "explain", "lower_det", "--model", tmp_path / "det.onnx")
    assert code == 0
    assert "dim(x, -1) in 1..3" in said
