"""Real models behind upgrade, canonicalize and fuse: fewer operators, and what onnxruntime computes on the original."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks import synthetic
from compiler import frontend, ir
from compiler.execution import evaluate
from passes import cse, dce, fold
from tests.conftest import ROOT
from tests.rules.onnx_graph import library, operators

FOLDERS = {"models": "PLANISH_MODELS", "pairs": "PLANISH_PAIRS"}
NAMES = {
    name: sorted(p.parent.name for p in Path(os.environ.get(variable, ROOT / "../shared" / name)).glob("*/model.onnx"))
    for name, variable in FOLDERS.items()
}
#: Activations are rounded to 8 bits, and onnxruntime's own optimizer moves the output as far.
LOOSE = {"whisper_encoder_qdq": 2e-3}
#: Weights of one value everywhere give logits near 2e10 that are equal but for rounding, and Softmax picks one of them:
#: the logits are compared.
WITHOUT_SOFTMAX = {"light_squeezenet"}


def fuse(module: ir.Module) -> Counter[str]:
    """What the driver does between import and lowering; gives how often each rule fired."""
    fires: Counter[str] = Counter()
    fires.update(library().rewrite(module, "upgrade").fires)
    fold.run(module)
    cse.run(module)
    for stage in ("canonicalize", "fuse"):
        fires.update(library().rewrite(module, stage).fires)
    fold.run(module)
    cse.run(module)
    dce.run(module)
    return fires


def inputs_of(path: Path) -> dict[str, np.ndarray]:
    """The recorded inputs of a model, by name."""
    recorded = np.load(path.with_name("io.npz"))
    model = onnx.load(path, load_external_data=False)
    initialized = {t.name for t in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in initialized]
    if all(f"in:{n}" in recorded.files for n in names):
        return {n: recorded[f"in:{n}"] for n in names}
    given = sorted(k for k in recorded.files if k.startswith("in"))
    return {n: recorded[n if n in recorded.files else k] for n, k in zip(names, given, strict=True)}


def without_softmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model that gives out what its last operator, a Softmax, takes."""
    last = model.graph.node.pop()
    assert last.op_type == "Softmax"
    assert [o.name for o in model.graph.output] == list(last.output)
    model.graph.output[0].name = last.input[0]
    return model


def check(path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    inputs = inputs_of(path)
    source: str | bytes = str(path)
    if path.parent.name in WITHOUT_SOFTMAX:
        source = without_softmax(onnx.load(path)).SerializeToString()
    want = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"]).run(None, inputs)
    module = frontend.load(source)
    fuse(module)
    ir.verify(module)
    got = list(evaluate.run(module, inputs).values())
    for a, b in zip(want, got, strict=True):
        if a.dtype.kind != "f":
            np.testing.assert_array_equal(b, a)
            continue
        finite = np.isfinite(a)
        np.testing.assert_array_equal(b[~finite], a[~finite])
        scale = float(np.abs(a[finite]).max(initial=1e-30))
        error = float(np.abs(a[finite].astype(np.float64) - b[finite]).max(initial=0)) / scale
        assert error <= LOOSE.get(path.parent.name, 1e-4)


@pytest.mark.parametrize("name", NAMES["models"])
def test_models(name: str, models_dir: Path) -> None:
    check(models_dir / name / "model.onnx")


@pytest.mark.parametrize("name", NAMES["pairs"])
def test_pairs(name: str, pairs_dir: Path) -> None:
    check(pairs_dir / name / "model.onnx")


def test_every_normalization_and_activation_of_a_transformer_is_fused() -> None:
    module = frontend.load(synthetic.transformer(1_000))
    layers = 22
    fires = fuse(module)
    count = Counter(op.name.removeprefix("onnx.") for op in operators(module))
    assert count == {
        "MatMul": 8 * layers,
        "Add": 8 * layers,
        "LayerNormalization": 2 * layers,
        "Gelu": layers,
        "Softmax": layers,
        "Transpose": layers,
    }
    assert fires["identity"] == fires["transpose_twice"] == layers
