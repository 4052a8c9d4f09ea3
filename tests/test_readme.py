"""The README's rule: the text stands in examples/, holds, and fires on a model in which no rule of the library does."""

from __future__ import annotations

import re
from pathlib import Path

from onnx import TensorProto, helper

import compiler
from compiler.proving.library import library_of, prover_of

ROOT = Path(__file__).parents[1]
RULE = ROOT / "examples" / "abs_of_max.rules"


def test_the_readme_shows_the_example() -> None:
    shown = re.search(r"    stage fuse\n.*?\n    }\n", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown is not None
    text = "\n".join(line.removeprefix("    ") for line in shown[0].splitlines())
    assert RULE.read_text().strip().endswith(text.strip())


def test_the_rule_holds() -> None:
    prover = prover_of(library_of((RULE,)))
    rule = prover.library.rules["abs_of_max"]
    prover.warm([rule])
    proof = prover.prove(rule, 50)
    assert proof.holds, (proof.wrong, proof.stuck)


def test_the_rule_fires(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8]) for n in "xy")
    nodes = [helper.make_node("Neg", ["x"], ["a"]), helper.make_node("Max", ["a", "x"], ["y"])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    done = compiler.compile(model, "cpu", tmp_path / "m.mlpackage", rules=[RULE])
    assert done.report.rules["abs_of_max"] == 1
    assert done.report.verify.passed
