"""Old forms that are taken as the newest because their signature says so: the old model against the adopted one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper

from compiler import frontend
from compiler.execution import evaluate
from tests.frontend.models import model, reference

RNG = np.random.default_rng(3)
X = RNG.standard_normal((1, 4, 9, 11), np.float32)
W = RNG.standard_normal((4, 4, 3, 3), np.float32)
B = RNG.standard_normal(4, np.float32)
N = RNG.integers(-50, 50, (3, 4))
J = np.where(N % 7 == 0, 3, N % 7 - 3)
J[J == 0] = 2
POOL = {"kernel_shape": [3, 3], "strides": [2, 2]}
STEP = {"kernel_shape": [2, 3], "strides": [3, 4], "pads": [1, 1, 1, 2]}
SEQUENCE = RNG.standard_normal((5, 2, 3), np.float32)
RECURRENT = [RNG.standard_normal((1, 16, 3), np.float32), RNG.standard_normal((1, 16, 4), np.float32)]
SCALES = ("s", np.array([1, 1, 2.0, 0.7], np.float32))
NONE = ("r", np.zeros(0, np.float32))

# operator, opset, operands, attributes, number of results
CASES: list[tuple[str, int, list[Any], dict[str, Any], int]] = [
    *((f"{p}Pool", o, [X], POOL | a, 1)
      for p in ("Max", "Average")
      for o, a in ((7, {}), (7, {"auto_pad": "SAME_UPPER"}), (10, {"ceil_mode": 1}), (11, {"auto_pad": "SAME_LOWER"}))),
    *((f"{p}Pool", o, [X], STEP | {"ceil_mode": 1}, 1) for p in ("Max", "Average") for o in (10, 11)),
    ("AveragePool", 11, [X], STEP | {"count_include_pad": 1, "ceil_mode": 1}, 1),
    ("MaxPool", 10, [X], POOL | {"dilations": [2, 1], "ceil_mode": 1}, 2),
    ("LpPool", 7, [X], POOL | {"p": 1}, 1),
    *(("Conv", o, [X, W, B], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, 1) for o in (7, 11)),
    *(("ConvTranspose", o, [X, W], {"auto_pad": p, "strides": [2, 2]}, 1)
      for o in (7, 11) for p in ("SAME_LOWER", "SAME_UPPER")),
    ("ConvTranspose", 7, [X, W], {"output_shape": [18, 22], "strides": [2, 2]}, 1),
    ("Mod", 10, [N, J], {}, 1),
    ("Mod", 10, [X, X[:, ::-1].copy()], {"fmod": 1}, 1),
    ("Div", 7, [N, J], {}, 1),
    ("OneHot", 9, [np.array([1, -1, 7, 0]), ("d", np.array(4)), ("v", np.array([0.0, 1.0], np.float32))], {}, 1),
    ("DepthToSpace", 7, [X], {"blocksize": 2}, 1),
    ("DepthToSpace", 11, [X], {"blocksize": 2, "mode": "CRD"}, 1),
    ("SpaceToDepth", 7, [X[:, :, :8, :10]], {"blocksize": 2}, 1),
    ("Gather", 7, [X, np.array([[0, 2], [1, 3]])], {"axis": 1}, 1),
    ("Flatten", 9, [X], {"axis": 2}, 1),
    ("PRelu", 7, [X, B.reshape(4, 1, 1)], {}, 1),
    ("Cast", 9, [X * 1000], {"to": 7}, 1),
    ("BatchNormalization", 9, [X, B, B, B, np.abs(B)], {}, 1),
    ("InstanceNormalization", 7, [X, B, B], {}, 1),
    ("LRN", 7, [X], {"size": 3, "alpha": 0.1}, 1),
    ("LSTM", 7, [SEQUENCE, *RECURRENT], {"hidden_size": 4}, 3),
    ("Gemm", 7, [X[0, 0], X[0, 1], W[0, 0, 0, :1]], {"transB": 1, "alpha": 0.5, "beta": 2.0}, 1),
    ("ReduceSum", 7, [X], {"keepdims": 0}, 1),
    ("Squeeze", 11, [X[:, :1]], {}, 1),
    ("Split", 11, [X], {"axis": 1}, 2),
    ("Split", 13, [X], {"axis": 1}, 2),
    ("TopK", 10, [X, ("k", np.array([3]))], {"axis": 2}, 2),
    ("ArgMax", 7, [np.round(X)], {"axis": 2}, 1),
    ("Pad", 11, [X, ("p", np.array([0, 0, 1, 0, 0, 0, 2, 1]))], {"mode": "reflect"}, 1),
    ("ScatterElements", 11, [X, RNG.integers(0, 4, (1, 2, 3, 3)), W[:1, :2]], {"axis": 1}, 1),
    *(("Resize", o, [X, NONE, SCALES], {"mode": m, "coordinate_transformation_mode": c}, 1)
      for o in (11, 13) for m in ("nearest", "linear", "cubic")
      for c in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")),
    ("Resize", 11, [X, NONE, SCALES], {"mode": "nearest", "coordinate_transformation_mode": "tf_half_pixel_for_nn"}, 1),
    ("NonMaxSuppression", 10, [X[:, :, :4, 0], X[:, :1, 0, :4], ("n", np.array([2]))], {}, 1),
    ("QuantizeLinear", 10, [X, ("s", np.array(0.02, np.float32)), ("z", np.array(3, np.uint8))], {}, 1),
]  # fmt: skip


@pytest.mark.parametrize(("op", "opset", "operands", "attributes", "results"), CASES)
def test_adopted_form_computes_the_same(op, opset, operands, attributes, results):
    inputs, constants, names = {}, {}, []
    for i, operand in enumerate(operands):
        name, array = operand if isinstance(operand, tuple) else (f"x{i}", operand)
        (constants if isinstance(operand, tuple) else inputs)[name] = array
        names.append(name)
    outputs = [f"y{i}" for i in range(results)]
    proto = model(
        [helper.make_node(op, names, outputs, **attributes)], inputs, outputs, opset=opset, initializers=constants
    )
    module = frontend.load(proto)
    assert f"onnx.{op}" in {each.name for each in module.walk()}
    for found, expected in zip(evaluate.Session(module).run(inputs), reference(proto, inputs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
