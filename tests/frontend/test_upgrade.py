"""Every form that rules/upgrade.rules names: the model as it is in onnxruntime, against the model upgraded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from compiler import frontend
from compiler.execution import evaluate
from compiler.rewrite.library import Library
from compiler.rewrite.load import read_rules
from tests.frontend.models import model, reference

RULES = Path(__file__).parents[2] / "rules" / "upgrade.rules"
RNG = np.random.default_rng(7)
X = RNG.standard_normal((2, 3, 4, 5), np.float32)
V = RNG.standard_normal(3, np.float32)
INDICES = RNG.integers(0, 2, (2, 3, 4, 5))
GRID = RNG.uniform(-1, 1, (2, 6, 7, 2)).astype(np.float32)
ROIS = np.array([[0, 0, 3, 3], [1, 1, 4, 3.5]], np.float32)
SCALES = np.array([1, 1, 2, 1.5], np.float32)
POSITIVE = np.abs(X) + np.float32(0.5)
REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]

# form, opset, operands, attributes, number of results
CASES: list[tuple[str, int, list[Any], dict[str, Any], int]] = [
    *((f"{op}@11", 11, [X], {"axis": a}, 1) for op in ("Softmax", "LogSoftmax", "Hardmax") for a in (0, 1, -2, 3)),
    *((f"{op}@11", 9, [X[:, :, :1, :1]], {}, 1) for op in ("Softmax", "LogSoftmax", "Hardmax")),
    *(
        (f"Reduce{r}@{11 if r == 'Sum' else 13}", o, [POSITIVE], {"axes": a, "keepdims": k}, 1)
        for r in REDUCTIONS
        for o, a, k in ((7, [1, 3], 1), (11, [-1], 0))
    ),
    ("Squeeze@11", 9, [X[:, :1]], {"axes": [1]}, 1),
    ("Squeeze@11", 11, [X[:, :1]], {"axes": [-3]}, 1),
    ("Unsqueeze@11", 9, [X], {"axes": [0, 2]}, 1),
    ("Unsqueeze@11", 11, [X], {"axes": [-1]}, 1),
    ("Split@11", 9, [X], {"axis": 3, "split": [1, 3, 1]}, 3),
    ("Split@11", 11, [X], {"axis": -2, "split": [1, 3]}, 2),
    ("Slice@1", 9, [X], {"starts": [1, 0, -2], "ends": [3, 2, 100], "axes": [1, 2, 3]}, 1),
    ("Slice@1", 7, [X], {"starts": [0, 1], "ends": [2, 3]}, 1),
    ("TopK@1", 9, [X], {"k": 2, "axis": 1}, 2),
    ("Pad@2", 9, [X], {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "value": 1.5}, 1),
    ("Pad@2", 9, [X], {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "mode": "reflect"}, 1),
    ("Pad@2", 9, [X], {"pads": [0, 0, -1, 0, 0, 1, 0, -2], "mode": "edge"}, 1),
    ("Clip@6", 9, [X], {}, 1),
    ("Clip@6", 9, [X], {"min": 0.0}, 1),
    ("Clip@6", 9, [X], {"max": 0.25}, 1),
    ("Clip@6", 9, [X], {"min": -0.5, "max": 0.5}, 1),
    ("Dropout@10", 9, [X], {"ratio": 0.3}, 1),
    ("Dropout@10", 11, [X], {"ratio": 0.3}, 1),
    ("BatchNormalization@7", 7, [X, V, V, V, np.abs(V)], {"epsilon": 0.01}, 1),
    ("Scatter@9", 9, [X, INDICES, POSITIVE], {"axis": 0}, 1),
    ("Upsample@7", 7, [X], {"scales": [1.0, 1.0, 2.0, 3.0]}, 1),
    ("Upsample@7", 7, [X], {"scales": [1.0, 1.0, 2.0, 1.5], "mode": "linear"}, 1),
    ("Upsample@9", 9, [X, ("s", SCALES)], {}, 1),
    ("Upsample@9", 9, [X, ("s", SCALES)], {"mode": "linear"}, 1),
    ("Resize@10", 10, [X, ("s", SCALES)], {}, 1),
    ("Resize@10", 10, [X, ("s", SCALES)], {"mode": "linear"}, 1),
    ("Resize@10", 10, [X, ("s", np.array([1, 1, 0.6, 0.7], np.float32))], {"mode": "linear"}, 1),
    *(("GridSample@16", 16, [X, GRID], {"mode": m, "align_corners": 1}, 1) for m in ("bilinear", "nearest", "bicubic")),
    ("RoiAlign@10", 10, [X, ROIS, np.array([0, 1])], {"output_height": 2, "output_width": 3, "sampling_ratio": 2}, 1),
    ("RoiAlign@10", 10, [X, ROIS, np.array([1, 1])], {"mode": "max", "spatial_scale": 0.5}, 1),
    ("GroupNormalization@18", 18, [X.reshape(2, 4, 3, 5), V[:2], V[1:]], {"num_groups": 2}, 1),
    ("DFT@17", 17, [X[..., :1]], {"axis": 2}, 1),
    ("DFT@17", 18, [X[..., :2]], {"axis": 1, "inverse": 1}, 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def library() -> Library:
    return Library([read_rules(RULES)])


@pytest.mark.parametrize(("form", "opset", "operands", "attributes", "results"), CASES)
@pytest.mark.parametrize("static", [True, False])
def test_upgraded_form_computes_the_same(library, form, opset, operands, attributes, results, static):
    inputs, constants, names = {}, {}, []
    for i, operand in enumerate(operands):
        name, array = operand if isinstance(operand, tuple) else (f"x{i}", operand)
        (constants if isinstance(operand, tuple) else inputs)[name] = array
        names.append(name)
    outputs = [f"y{i}" for i in range(results)]
    node = helper.make_node(form.partition("@")[0], names, outputs, **attributes)
    proto = model([node], inputs, outputs, opset=opset, initializers=constants)
    if not static and form.partition("@")[0] not in ("GroupNormalization",):
        for info in proto.graph.input:
            info.type.tensor_type.shape.dim[0].dim_param = "n"
    module = frontend.load(proto)
    assert f"onnx.{form}" in {op.name for op in module.walk()}
    library.rewrite(module, "upgrade")
    assert not [op.name for op in module.walk() if "@" in op.name]
    for found, expected in zip(evaluate.Session(module).run(inputs), reference(proto, inputs), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_every_form_that_a_rule_names_is_tested():
    assert frontend.upgraded_forms() == {case[0] for case in CASES}


def test_forms_are_read_from_the_text_of_rules():
    text = "rule a { match { y = Softmax@11(x) } } // Relu@6(x)\nrule b { match { y = onnx.Pad@2 (x) } }"
    assert frontend.forms_in(text) == {"Softmax@11", "Pad@2"}
