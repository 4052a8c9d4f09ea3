"""What channels are judged by: energies, and slopes that are what onnxruntime sees when a channel is shut."""

from __future__ import annotations

import numpy as np
import pytest

from compiler import ir
from compiler.compression import importance
from compiler.execution import evaluate
from passes import prune
from passes.prune.importance import activation
from tests.passes.prune.test_prune import conv, graph


def test_energy_decides_where_it_is_known():
    module = graph(lambda b, x: conv(b, conv(b, x, 10), 3))
    first, last = (op for op in module.walk() if op.name == "onnx.Conv")
    weight = first.operands[1].constant
    energy = np.ones(10)
    energy[[0, 4, 9]] = 1e-9
    prune.run(module, 0.3, activation(prune.analyse(module.main), {first.result: energy}))
    kept = next(op for op in module.walk() if op.name == "onnx.Conv").operands[1].constant
    np.testing.assert_array_equal(kept, np.delete(weight, [0, 4, 9], axis=0))
    assert last.operands[1].constant.shape == (3, 7, 1, 1)


def test_a_slope_is_what_shutting_a_channel_changes():
    """Behind a Relu all is linear here and the output is one number, so that the first order is all there is."""
    pytest.importorskip("jax")

    def body(b, x):
        mean = b.op("onnx.GlobalAveragePool", [b.op("onnx.Relu", [conv(b, x, 6)]).result]).result
        return conv(b, mean, 1)

    module = graph(body)
    rng = np.random.default_rng(3)
    data = [[rng.standard_normal((1, 8, 6, 6)).astype(np.float32)] for _ in range(4)]
    classes = prune.analyse(module.main)
    (taken,) = (c for c in classes.cuts if c.role == "in" and not classes.is_fixed(int(c.ids[0])))
    last = [op for op in module.walk() if op.name == "onnx.Conv"][-1]
    found = importance.scores("taylor", module, data)
    for number, channel in zip(taken.ids.tolist(), range(6), strict=True):
        shut = ir.clone_module(module)
        weight = [op for op in shut.walk() if op.name == "onnx.Conv"][-1].operands[1].op
        weight.attributes["value"] = last.operands[1].constant.copy()
        weight.attributes["value"][:, channel] = 0
        changes = [_run(module, d) - _run(shut, d) for d in data]
        relative = [float(np.square(c / _run(module, d)).mean()) for c, d in zip(changes, data, strict=True)]
        assert found[number] == pytest.approx(np.mean(relative), rel=1e-3)


def _run(module, given):
    return next(iter(evaluate.run(module, {"x": given[0]}).values()))
