"""docs/ir.md is true: its modules round-trip, its programs print what it says, its error is the one that comes."""

from __future__ import annotations

import re

import pytest

import compiler.dialects.onnx  # noqa: F401
from compiler import ir
from tests.conftest import ROOT
from tests.golden import pipeline

TEXT = (ROOT / "docs" / "ir.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
MODULES = [code for kind, code in BLOCKS if not kind and code.startswith("module")]
PROGRAMS = [code for kind, code in BLOCKS if kind == "python"]


@pytest.mark.parametrize("text", MODULES, ids=lambda t: t.split()[1])
def test_modules_print_as_they_stand(text: str) -> None:
    module = ir.parse_module(text)
    ir.verify(module)
    assert ir.print_module(module) == text


def test_programs_run(capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, object] = {}
    for program in PROGRAMS:
        exec(program, scope)
    assert capsys.readouterr().out == MODULES[0]
    assert [op.name for op in scope["f"].walk()] == ["onnx.Relu", "ir.return"]
    ir.verify(scope["module"])


def test_the_golden_file_is_one() -> None:
    (golden,) = (code for _, code in BLOCKS if code.startswith("// RUN"))
    assert pipeline.run(golden, "case.ir") == golden


def test_the_error_is_the_one_that_comes() -> None:
    (message,) = (code for _, code in BLOCKS if code.startswith("model.ir"))
    line = re.search(r"^ +4 \| (.*)$", message, re.MULTILINE).group(1)
    text = f"module @m {{\n  func @main(%x: tensor<3xf32>) -> () {{\n\n{line}\n    return\n  }}\n}}\n"
    with pytest.raises(ir.ParseError) as caught:
        ir.parse_module(text, file="model.ir")
    assert str(caught.value) + "\n" == message


def test_types_are_spelled_right() -> None:
    for line in re.findall(r"^    (tensor<.*?>)(?:  .*)?$", TEXT, re.MULTILINE):
        assert str(ir.parse_type(line)) == line
    listed = re.search(r"Element types: (.*?)\n\n", TEXT, re.DOTALL).group(1)
    assert set(" ".join(re.findall(r"`(.*?)`", listed)).split()) == set(ir.DTYPES)
