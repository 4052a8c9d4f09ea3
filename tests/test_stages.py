"""The stages: who broke the IR is named, and canonicalization sees what fusion makes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest

from compiler import stages
from compiler.ir import Module, VerifyError
from compiler.options import Options
from compiler.report import Report
from compiler.target import Target

MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 4] x) => (float[1, 4] y) { a = Softplus(x)  y = Sin(a) }
"""
RULES = """
stage fuse
use onnx
"""


def through(tmp_path: Path, rule: str) -> tuple[Module, Report]:
    """The model after stages canonicalize and fuse, with one more rule."""
    file = tmp_path / "own.rules"
    file.write_text(RULES + rule)
    options = Options(Target.of("cpu"), rules=[file])
    report = Report("net", options.target)
    library = stages.load_library(options)
    module = stages.import_model(onnx.parser.parse_model(MODEL), options, library, report)
    stages.optimize(module, library, report)
    return module, report


def test_a_pass_that_breaks_the_ir_is_named(tmp_path: Path) -> None:
    module, _ = through(tmp_path, "rule unused { match { y = Elu(x) {alpha = _} } rewrite { y = Relu(x) } }")
    bad = ModuleType("passes.swap")
    bad.run = lambda m: m.main.block.first.attributes.update(nonsense=1)  # type: ignore[attr-defined]
    with pytest.raises(VerifyError, match=r"^after pass swap: onnx\.Softplus"):
        stages.run(bad, module)


def break_it(b: Any, m: Any) -> Any:
    y = b.op("onnx.Relu", [m.x])
    y.op.attributes["nonsense"] = 1
    return y


def test_a_rule_that_breaks_the_ir_is_named(tmp_path: Path) -> None:
    rule = "rule bad { match { y = Softplus(x) } rewrite by tests.test_stages.break_it }"
    with pytest.raises(VerifyError, match=r"^after rule bad: onnx\.Relu"):
        through(tmp_path, rule)


def test_nothing_is_verified_where_nobody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANISH_VERIFY_IR", "0")
    through(tmp_path, "rule bad { match { y = Softplus(x) } rewrite by tests.test_stages.break_it }")


def test_what_fusion_makes_is_canonicalized_and_fused_again(tmp_path: Path) -> None:
    rules = """
    rule to_product { match { y = Softplus(x) } rewrite { y = Mul(Sigmoid(x), 1) } }
    rule of_both { match { y = Sin(Sigmoid(x)) } rewrite { y = Sigmoid(x) } }
    """
    module, report = through(tmp_path, rules)
    assert report.rules["to_product"] == report.rules["of_both"] == 1
    assert [op.name for op in module.main.block.ops] == ["onnx.Sigmoid", "ir.return"]
