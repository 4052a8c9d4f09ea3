"""What a model itself lets a proof ask: measured in onnxruntime, bounded, and no excuse for what is wrong."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import compiler
from compiler import emit, frontend
from compiler.errors import UnsupportedError, VerificationError
from compiler.proof import noise
from compiler.report import Report
from compiler.target import Target

HEADER = '<ir_version: 10, opset_import: ["" : 17]>\n'

HALF = """g (float16[1,4] x) => (float16[1,4] y) {
  k = Constant <value = float16[4] {1, 2, 3, 4}> ()
  a = Mul (x, k)
  y = Softmax (a)
}"""

CONVERTS = """g (float16[1,4] x) => (float[1,4] y) {
  a = Cast <to = 1> (x)
  y = Relu (a)
}"""

ROUNDS = """g (float[1,4] x) => (float[1,4] y) {
  s = Constant <value = float {0.1}> ()
  q = QuantizeLinear (x, s)
  y = DequantizeLinear (q, s)
}"""


def model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEADER + text)


def test_what_a_model_computes_in() -> None:
    assert noise.computes_in_half(frontend.load(model(HALF)))
    assert not noise.computes_in_half(frontend.load(model(CONVERTS)))


def test_a_value_beside_a_tie_moves_by_a_step_and_others_do_not() -> None:
    proto = model(ROUNDS)
    for start, moves in ((np.float32(0.25), True), (np.float32(0.22), False)):
        x = {"x": np.full((1, 4), start, np.float32)}
        expected = [[np.full((1, 4), 0.2, np.float32)]]
        assert (noise.own_noise(proto, [x], expected) > 1e-3) == moves


def test_a_half_model_in_f32_computes_in_f32_and_keeps_its_interface(tmp_path) -> None:
    made = compiler.compile(model(HALF), target="cpu", output=tmp_path / "h.mlpackage")
    assert made.report.verify.limit == noise.HIGHEST
    assert made.report.verify.passed
    types = {str(r.type.dtype) for op in made.module.walk() for r in op.results if op.name != "mil.cast"}
    assert types == {"f32"}
    assert [str(v.type.dtype) for v in (*made.module.main.inputs, *made.module.main.outputs)] == ["f16", "f16"]


def test_no_noise_lifts_the_limit_beyond_the_highest(monkeypatch) -> None:
    report = Report("m", Target("cpu", "ios17", "fp32"))
    monkeypatch.setattr(noise, "own_noise", lambda *_: 0.5)
    emit._measure_own_noise(None, [], [], report)  # type: ignore[arg-type]
    assert report.limit == noise.HIGHEST == 1e-3


def test_own_noise_does_not_excuse_a_wrong_rule(tmp_path) -> None:
    wrong = tmp_path / "wrong.rules"
    wrong.write_text(
        "stage fuse\nuse onnx\nrule wrong { match { y = Relu(x) } rewrite { y = Max(Mul(x, 1.01), 0.0) } }\n"
    )
    text = "g (float[1,64] x) => (float[1,64] y) { y = Relu (x) }"
    with pytest.raises((VerificationError, UnsupportedError)) as caught:
        compiler.compile(model(text), target="cpu", output=tmp_path / "w.mlpackage", rules=[wrong])
    assert "wrong" in str(caught.value)
