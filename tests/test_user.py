"""A user's first hour, each command a process of its own: compile a network of one's own, read the summary, find the
rule that fused a layer by its name, read it, and switch it off."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[1]


def own_cnn() -> onnx.ModelProto:
    """Two convolutions with batch norms, the second's activation a SiLU as exporters write it; means, a classifier."""
    rng = np.random.default_rng(3)
    weights: list[onnx.TensorProto] = []

    def w(name: str, *shape: int, positive: bool = False) -> str:
        values = rng.standard_normal(shape).astype(np.float32) * 0.3
        weights.append(numpy_helper.from_array(np.abs(values) + 0.5 if positive else values, name))
        return name

    def norm(x: str, y: str, name: str, channels: int) -> onnx.NodeProto:
        parts = [w(f"{name}.{p}", channels, positive=p == "var") for p in ("scale", "bias", "mean", "var")]
        return helper.make_node("BatchNormalization", [x, *parts], [y], name)

    nodes = [
        helper.make_node("Conv", ["x", w("stem.w", 8, 3, 3, 3)], ["a"], "stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        norm("a", "b", "stem_norm", 8),
        helper.make_node("Relu", ["b"], ["c"], "stem_relu"),
        helper.make_node("Conv", ["c", w("body.w", 8, 8, 3, 3)], ["d"], "body", pads=[1, 1, 1, 1]),
        norm("d", "e", "body_norm", 8),
        helper.make_node("Sigmoid", ["e"], ["f"], "gate"),
        helper.make_node("Mul", ["e", "f"], ["g"], "silu"),
        helper.make_node("GlobalAveragePool", ["g"], ["h"], "pool"),
        helper.make_node("Flatten", ["h"], ["i"], "flat"),
        helper.make_node("Gemm", ["i", w("head.w", 8, 5), w("head.b", 5)], ["y"], "head"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])
    graph = helper.make_graph(nodes, "own", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    onnx.save(own_cnn(), str(folder / "own.onnx"))
    return folder


def say(folder: Path, command: str) -> str:
    """What a command prints; it must succeed."""
    name, *words = command.split()
    start = f"from compiler.cli import {name}_main as main; main()"
    done = subprocess.run(
        [sys.executable, "-c", start, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_the_summary_to_the_rule_that_fused_a_layer(folder: Path) -> None:
    summary = say(folder, "compile own.onnx --target ane")
    assert "mil.batch_norm" not in say(folder, "planish show own.mlpackage")
    assert re.search(r"^  prove .* rel\. L2 \S+ \(limit 2e-2\), same argmax +proven$", summary, re.MULTILINE)
    assert re.search(r"^  fuse +.*\bconv_batch_norm ×2\b", summary, re.MULTILINE)
    assert "batch" in summary  # the open dimension became 1, and the summary says so
    # The summary says which command shows a rule.
    (hint,) = re.findall(r"^  rules .*?(planish rules explain) NAME", summary, re.MULTILINE)
    shown = say(folder, f"{hint} conv_batch_norm")
    path, line = re.match(r"(.*?\.rules):(\d+): stage fuse", shown).groups()
    assert Path(path).read_text(encoding="utf-8").splitlines()[int(line) - 1].startswith("rule conv_batch_norm ")
    for part in ("match", "where", "rewrite", "--disable-rule conv_batch_norm", str(ROOT / "docs" / "rules.md")):
        assert part in shown
    # Which layers it fused, and from a layer to its rules.
    fired = say(folder, f"{hint} conv_batch_norm --model own.onnx")
    assert "fires 2 times" in fired
    assert "  body, body_norm: onnx.Conv, onnx.BatchNormalization\n" in fired
    layers = say(folder, "planish show own.onnx --stage fuse --locations")
    (conv,) = (text for text in layers.splitlines() if "onnx.Conv(" in text and "stem" in text)
    assert re.search(r"// .*\bstem\b.*\bstem_norm\b|// .*\bstem_norm\b.*\bstem\b", conv)
    assert conv.endswith(" < conv_batch_norm")


def test_the_rule_can_be_switched_off(folder: Path) -> None:
    summary = say(folder, "compile own.onnx --target ane -o off.mlpackage --disable-rule conv_batch_norm")
    assert "conv_batch_norm" not in summary
    assert "mil.batch_norm" in say(folder, "planish show off.mlpackage")
