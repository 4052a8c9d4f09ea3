"""Rules that ask what an operator costs."""

from __future__ import annotations

import pytest

import compiler.dialects.mil  # noqa: F401  (registers the dialect)
from compiler import ir
from compiler.rewrite import Library
from compiler.rewrite.parse import parse
from compiler.target import Target

RULE = """
stage fuse
use mil
rule large_relu {
  match { y = relu(x) }
  where { milliseconds(y, target) > 0.001 }
  rewrite { y = relu6(x) }
}
"""


@pytest.mark.parametrize(("size", "target", "fired"), [(10, "ane", 0), (1000, "ane", 1), (1000, None, 0)])
def test_a_condition_on_time(size: int, target: str | None, fired: int) -> None:
    shape = f"tensor<{size}x{size}xf16>"
    text = f"module @m {{ func @main(%x: {shape}) -> (%o: {shape}) {{\n%y = mil.relu(%x) : {shape}\nreturn %y\n}} }}"
    library = Library([parse(RULE, "t.rules")])
    report = library.rewrite(ir.parse_module(text), "fuse", Target.of(target) if target else None)
    assert sum(report.fires.values()) == fired


def test_a_target_estimates_and_a_faster_chip_takes_less() -> None:
    function = ir.Function("main", {"x": ir.TensorType(ir.dtype("f16"), (64, 64))})
    relu = ir.Builder(function.block).op("mil.relu", function.inputs, {}, [function.inputs[0].type])
    assert Target.of("ane", chip="m4").milliseconds(relu) < Target.of("ane", chip="M1").milliseconds(relu)
    assert Target.of("metal").milliseconds(relu) == Target.of("gpu").milliseconds(relu)
