"""The strongest test of what belongs together: a pruned model computes what the *original file* computes in onnxruntime
once the channels that went are multiplied by zero in it, neither our import nor our fusing in between.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from compiler import driver
from compiler.execution import evaluate, samples
from compiler.options import Options
from passes import prune
from passes.prune.importance import magnitude
from passes.prune.run import choose

LIMIT = 1e-5


def removed(module, amount):
    """By the name of a value that operators take channels of: the axis of the channels, and which of them go."""
    classes = prune.analyse(module.main)
    gone, _ = choose(classes, amount, magnitude(classes))
    axes = dict(prune.mixing_inputs(classes))
    taken = [(c.op.operands[0], axes[c.op.operands[0]], c.ids) for c in classes.cuts if c.role == "in"]
    taken += [(op.operands[0], channels.axis, channels.ids) for op, channels in classes.sums]
    found = {}
    for value, axis, ids in taken:
        lost = np.isin(classes.roots(ids), list(gone))
        if lost.any():
            found[value.name] = (axis - len(value.shape), lost)
    return found


def masked(model: onnx.ModelProto, zeros) -> onnx.ModelProto:
    """The model with channels of values multiplied by zero before anything takes them."""
    graph = model.graph
    made = {name for node in graph.node for name in node.output}
    assert set(zeros) <= made, "these values have the names that the file gives them"
    nodes = list(graph.node)
    for number, (name, (axis, lost)) in enumerate(zeros.items()):
        mask = (~lost).astype(np.float32).reshape(-1, *[1] * (-axis - 1))
        graph.initializer.append(numpy_helper.from_array(mask, f"mask{number}"))
        for node in nodes:
            for i, taken in enumerate(node.input):
                if taken == name:
                    node.input[i] = f"masked{number}"
        at = next(i for i, node in enumerate(nodes) if name in node.output)
        nodes.insert(at + 1, helper.make_node("Mul", [name, f"mask{number}"], [f"masked{number}"]))
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def assert_equals_the_masked_original(path, amount=0.3, shapes=None):
    """Returns which values lost channels, and what was cut."""
    module = driver.at_stage(path, "fuse", Options(shapes=shapes or {}))
    zeros = removed(module, amount)
    inputs = samples.generate(module.main, 2)
    done = prune.run(module, amount)
    session = ort.InferenceSession(masked(onnx.load(path), zeros).SerializeToString())
    whole = ort.InferenceSession(str(path))
    pruned = evaluate.Session(module)
    names = [o.name for o in whole.get_outputs()]
    for x in inputs:
        wanted, original = session.run(names, x), whole.run(names, x)
        for got, want, other in zip(pruned.run(x), wanted, original, strict=True):
            assert np.linalg.norm(got - want) <= LIMIT * np.linalg.norm(want)
            assert np.linalg.norm(other - want) > 100 * LIMIT * np.linalg.norm(want), "the mask does something"
    return zeros, done


@pytest.mark.parametrize(("name", "macs"), [("bert", 0.75), ("vit", 0.76), ("gpt2_dy", 0.75), ("t5_encoder", 0.76)])
def test_heads_and_neurons(pairs_dir, name, macs):
    """Queries, keys and values apart (bert, t5_encoder) and from one product (vit, gpt2_dy)."""
    zeros, done = assert_equals_the_masked_original(pairs_dir / name / "model.onnx")
    assert done.macs[1] < macs * done.macs[0]
    heads, neurons = list(zeros.values())[::2], list(zeros.values())[1::2]
    for _, lost in heads:
        assert lost.reshape(4, -1).any(1).tolist() == lost.reshape(4, -1).all(1).tolist(), "heads go as a whole"
        assert lost.mean() == 0.25
    assert all(0.2 < lost.mean() < 0.3 for _, lost in neurons)


def test_hidden_size_through_sums_of_squares(pairs_dir):
    """A decoder whose keys and values each serve several heads, and whose norms have no mean."""
    zeros, done = assert_equals_the_masked_original(pairs_dir / "llama_block" / "model.onnx")
    assert sum(len(lost) == 96 for _, lost in zeros.values()) == 10, "the embedding, four sums and five norms"
    assert done.macs[1] < 0.65 * done.macs[0]
    assert done.parameters[1] < 0.65 * done.parameters[0]


@pytest.mark.parametrize("name", ["resnet_basic", "mobilenet_v3", "yolov5_416", "unet"])
def test_filters(pairs_dir, name):
    assert_equals_the_masked_original(pairs_dir / name / "model.onnx")
