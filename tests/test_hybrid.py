"""Models in parts: Core ML, Metal kernels, Core ML; proven together, run from the command line, refused by name."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest

import compiler
from compiler import hybrid
from compiler.errors import UnsupportedError

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
g (float[1,2,6,7] x, float[1,5,4,2] grid) => (float[1,3,5,4] y, float[1,2,5,4] s) {
  a = Conv <pads = [1,1,1,1]> (x, w) b = Relu (a)
  s = GridSample <mode = "cubic", padding_mode = "border"> (b, grid)
  c = Conv (s, v) d = Sigmoid (grid) two = Constant <value_ints = [1, 1, 5, 8]> () e = Reshape (d, two)
  m = ReduceMean (e) f = Mul (c, m) y = Tanh (f)
}"""

#: Core ML has no cubic GridSample; without this rule, which weights elements that it picks, kernels must compute it.
LACKING = "lower_grid_sample_by_taps"


def model() -> onnx.ModelProto:
    made = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (2, 2, 3, 3)), ("v", (3, 2, 1, 1))):
        made.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    return made


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "x": rng.standard_normal((1, 2, 6, 7)).astype(np.float32),
        "grid": rng.uniform(-1, 1, (1, 5, 4, 2)).astype(np.float32),
    }


def test_without_it_the_operator_is_refused(tmp_path):
    with pytest.raises(UnsupportedError, match="GridSample"):
        compiler.compile(model(), output=tmp_path / "m.mlpackage", disable_rules=[LACKING])


def test_a_model_in_three_parts_computes_what_it_should(tmp_path):
    path = tmp_path / "m.hybridpackage"
    made = compiler.compile(model(), output=path, hybrid=True, inputs=inputs(), disable_rules=[LACKING])
    plan = json.loads((path / "plan.json").read_text())
    assert [p["kind"] for p in plan["parts"]] == ["coreml", "metal", "coreml"]
    assert plan["parts"][1]["outputs"] == ["s"]
    assert made.report.verify.passed
    np.savez(tmp_path / "in.npz", **inputs())
    onnx.save(model(), tmp_path / "m.onnx")
    command = ["run", str(path), "--inputs", str(tmp_path / "in.npz"), "--outputs", str(tmp_path / "out.npz")]
    subprocess.run(
        [sys.executable, "-c", "from compiler.cli import planish_main; planish_main()", *command], check=True
    )
    shown = subprocess.run(
        [sys.executable, "-c", "from compiler.cli import planish_main; planish_main()", "show", str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    heads = [f"// {p['package']}: takes {', '.join(p['inputs'])}" for p in plan["parts"]]
    assert [line for line in shown.splitlines() if line in heads] == heads
    assert shown.count("mil.conv(") == 2
    assert shown.count("kernel void ") == 1
    theirs = dict(zip(["y", "s"], ort.InferenceSession(tmp_path / "m.onnx").run(["y", "s"], inputs()), strict=True))
    with np.load(tmp_path / "out.npz") as ours:
        for name, expected in theirs.items():
            assert np.linalg.norm(ours[name] - expected) <= 2e-2 * np.linalg.norm(expected)


def test_boxes_are_chosen_by_kernels_behind_core_ml(tmp_path):
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[1,2,6,7] x) => (float[n,4] y)
      <int64[1] limit = {5}, float[1] iou = {0.4}, float[1] least = {0.6}, int64 two = {2}, int64[1] zero = {0},
       int64[3] rows = {1, 42, 4}, int64[3] columns = {1, 1, 42}> {
      c = Conv <pads = [1,1,1,1]> (x, w) s = Sigmoid (c) t = Transpose <perm = [0,2,3,1]> (s)
      m = ReduceMax <keepdims = 1> (s, one) boxes = Reshape (t, rows) scores = Reshape (m, columns)
      z = NonMaxSuppression (boxes, scores, limit, iou, least) k = Gather <axis = 1> (z, two)
      flat = Squeeze (boxes, zero) y = Gather (flat, k)
    }"""
    made = onnx.parser.parse_model(text)
    w = np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype(np.float32)
    made.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "one"))
    given = {"x": inputs()["x"]}
    settings = {"target": "cpu", "os": "ios16", "precision": "fp32", "hybrid": True, "inputs": given}
    result = compiler.compile(made, output=tmp_path / "m", **settings)
    plan = json.loads((result.path / "plan.json").read_text())
    assert [p["kind"] for p in plan["parts"]] == ["coreml", "metal"]
    assert result.report.verify.passed


def test_a_model_that_core_ml_can_express_stays_whole(tmp_path):
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[3] x) => (float[3] y) { y = Relu (x) }'
    made = compiler.compile(onnx.parser.parse_model(text), output=tmp_path / "m.mlpackage", hybrid=True)
    assert (made.path / "Manifest.json").exists()


def test_parts_are_as_few_as_the_order_leaves():
    from compiler.options import Options
    from compiler.report import Report, Silent
    from compiler.stages import import_model, load_library, optimize

    options = Options(disabled=[LACKING])
    report = Report("m", options.target, "fp16", Silent())
    library = load_library(options)
    module = import_model(model(), options, library, report)
    optimize(module, library, report)
    left = hybrid.refused(module, library, report)
    assert {op.name for op in left} == {"onnx.GridSample"}
    first, second, third = hybrid.cut(module.main, left)
    assert (second.kind, second.inputs, second.outputs) == ("metal", [first.outputs[0], "grid"], ["s"])
    assert third.outputs == ["y"]
