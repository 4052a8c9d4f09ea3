"""What is computed from the boxes that a suppression finds: kept apart and run as kernels, or refused by name."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest

import compiler
from benchmarks.metal_families import cases
from codegen.metal import executor, package
from compiler.errors import UnsupportedError

HEAD = """<ir_version: 10, opset_import: ["" : 21]>
g (float[1,30,4] boxes, float[1,2,30] scores, int64 some) => (TYPE y)
  <int64[1] limit = {5}, float[1] iou = {0.4}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] last = {-1},
   int64[2] flat = {-1, 3}, int64[2] three = {1, -1}, int64 two = {2}, int64[2] keep = {0, 3}> {
  z = NonMaxSuppression (boxes, scores, limit, iou) """


@pytest.fixture(scope="module")
def given() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    low = rng.random((1, 30, 2))
    boxes = np.concatenate([low, low + 0.3 * rng.random((1, 30, 2))], 2).astype(np.float32)
    return {"boxes": boxes, "scores": rng.random((1, 2, 30)).astype(np.float32), "some": np.array(3)}


def model(text: str, type_: str = "int64[n,m]") -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD.replace("TYPE", type_) + text + " }")


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        ("a = Unsqueeze (z, one) b = Squeeze (a, one) y = Mul (b, b)", "int64[n,3]"),
        ("k = Gather <axis = 1> (z, two) t = Squeeze (boxes, zero) y = Gather (t, k)", "float[n,4]"),
        ("a = Unsqueeze (z, last) b = Reshape (a, flat) y = ReduceSum <keepdims = 0> (b, one)", "int64[n]"),
        ("a = Reshape (z, keep) y = ArgMax <axis = 1, keepdims = 0> (a)", "int64[n]"),
        ("a = Transpose <perm = [1, 0]> (z) b = Add (a, zero) y = Transpose <perm = [1, 0]> (b)", "int64[n,3]"),
        ("c = Cast <to = 1> (z) s = Softmax <axis = 1> (c) y = Slice (s, zero, two1, one)", "float[n,2]"),
        ("a, b, c = Split <axis = 1, num_outputs = 3> (z) y = Concat <axis = 1> (c, a)", "int64[n,2]"),
        ("e = Greater (z, one) y = Where (e, z, zero)", "int64[n,3]"),
    ],
)
def test_what_is_computed_box_by_box_is_what_onnxruntime_computes(text, type_, given, tmp_path):
    made = model(text.replace("two1", "ends"), type_)
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2]), "ends"))
    result = compiler.compile(made, target="metal", output=tmp_path / "m.metalpackage", inputs=given)
    assert result.report.verify.passed
    session = executor.Session(package.read(result.path))
    reference = ort.InferenceSession(made.SerializeToString())
    for scores in (given["scores"], np.full_like(given["scores"], 0.5), -given["scores"]):
        feeds = {**given, "scores": scores}
        (expected,) = reference.run(None, feeds)
        np.testing.assert_allclose(session.run(feeds)["y"], expected, rtol=1e-5, strict=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("y = ReduceMax (z, zero)", "onnx.ReduceMax at node 'y' does not keep apart the boxes"),
        ("y = Shape (z)", "onnx.Shape at node 'y' does not keep apart"),
        ("y = Concat <axis = 0> (z, z)", "onnx.Concat at node 'y' does not keep apart"),
        ("y = Reshape (z, three)", "onnx.Reshape at node 'y' does not keep apart"),
        ("y = Slice (z, zero, one, zero)", "onnx.Slice at node 'y' does not keep apart"),
        ("y = Gather <axis = 0> (z, zero)", "onnx.Gather at node 'y' does not keep apart"),
        ("c = Cast <to = 1> (z) y = Softmax <axis = 0> (c)", "onnx.Softmax at node 'y' does not keep apart"),
        ("o = NonMaxSuppression (boxes, scores, one, iou) y = Add (z, o)", "onnx.Add at node 'y' does not keep apart"),
        ("y = Transpose <perm = [1, 0]> (z)", "lie along axis 1 of output 'y'"),
        ("y = NonMaxSuppression (boxes, scores, some, iou)", "onnx.NonMaxSuppression at node 'y' has no limit"),
        ("y = NonMaxSuppression (boxes, scores)", "onnx.NonMaxSuppression at node 'y' has no limit"),
    ],
)
def test_what_mixes_boxes_is_refused_by_name(text, said, given, tmp_path):
    type_ = "float[n,m]" if "Softmax" in text else "int64[n]" if "Shape (" in text else "int64[n,m]"
    with pytest.raises(UnsupportedError, match=said):
        compiler.compile(model(text, type_), target="metal", output=tmp_path / "m.metalpackage", inputs=given)
    assert list(tmp_path.iterdir()) == []


def test_two_outputs_of_one_suppression_share_its_count(tmp_path):
    case = next(cases("detection"))
    made = compiler.compile(case.model(), target="metal", output=tmp_path / "m.metalpackage", inputs=dict(case.inputs))
    program = package.read(made.path)
    assert len(program.of_kind("count")) == 1
    assert {b.rows for b in (program.buffers[i] for i in program.of_kind("output"))} == set(program.of_kind("count"))
    found = executor.Session(program).run(case.inputs)
    assert 0 < len(found["y"]) == len(found["which"])
