"""Packages of models that round activations, on the original's own integers; where a stretch is wrong, it shows."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

import compiler
from compiler.options import Options
from compiler.proof import Reference
from compiler.proof.roundings import stretches
from compiler.stages import load_library

TEXT = """<ir_version: 10, opset_import: ["" : 17]>
g (float[8,16] x) => (float[8,4] y)
<float[16,16] w, float[16,4] v, float s = {0.02}, float t = {0.03}, uint8 z = {128}> {
  a = QuantizeLinear (x, s, z)
  b = DequantizeLinear (a, s, z)
  c = MatMul (b, w)
  d = Tanh (c)
  e = QuantizeLinear (d, t, z)
  f = DequantizeLinear (e, t, z)
  y = MatMul (f, v)
}"""


def model(**changed: np.ndarray) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(TEXT)
    weights = {"w": rng.standard_normal((16, 16)) / 4, "v": rng.standard_normal((16, 4)) / 4}
    weights.update(changed)
    kept = [t for t in proto.graph.initializer if t.name not in weights]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items())
    return proto


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    path = tmp_path_factory.mktemp("roundings") / "m.mlpackage"
    compiler.compile(model(), target="cpu", output=path, verify="off")
    return path


def tried(package, original: onnx.ModelProto):
    x = np.random.default_rng(1).standard_normal((8, 16)).astype(np.float32)
    return stretches(package, load_library(Options()), Reference(original), [{"x": x}])


def test_every_stretch_of_a_right_package_holds(package) -> None:
    found = tried(package, model())
    assert found.hold
    assert (found.roundings, found.integers) == (2, 256)
    assert found.differ <= 1
    assert found.error < 1e-6


def test_an_error_before_a_rounding_shows_in_its_integers(package) -> None:
    rng = np.random.default_rng(0)
    w = rng.standard_normal((16, 16)) / 4
    found = tried(package, model(w=w * 1.05))
    assert not found.hold
    assert found.differ > 1
    assert found.error < 1e-6  # what follows is fed the original's integers


def test_an_error_behind_the_last_rounding_shows_in_the_output(package) -> None:
    rng = np.random.default_rng(0)
    rng.standard_normal((16, 16))
    found = tried(package, model(v=rng.standard_normal((16, 4)) / 4 * 1.001))
    assert not found.hold
    assert found.differ <= 1
    assert found.error == pytest.approx(1e-3, rel=0.1)


def test_without_roundings_nothing_holds(tmp_path) -> None:
    plain = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 17]> g (float[8,16] x) => (float[8,16] y) { y = Tanh (x) }'
    )
    path = tmp_path / "plain.mlpackage"
    compiler.compile(plain, target="cpu", output=path, verify="off")
    assert not tried(path, plain).hold
