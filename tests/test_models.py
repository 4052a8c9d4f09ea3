"""Real models, compiled, proven, run: a slice of the folder of models. benchmarks/models.py does them all."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import compiler
from compiler.proof import LIMITS, MilSession, compare, read_package

#: Small ones, each there for what no other has: an embedding, a depthwise mobile net, a recurrence of caches, channels
#: last, a transposed convolution, half precision that overflows.
SLICE = ["attacut", "ppocr_cls", "fsmn_vad", "mtcnn_rnet", "espcn", "gesture_mlp", "magika", "light_squeezenet"]


@pytest.mark.parametrize("target", ["ane", "cpu"])
@pytest.mark.parametrize("name", SLICE)
def test_a_model_compiles_and_its_package_computes_the_same(
    models_dir: Path, tmp_path: Path, name: str, target: str
) -> None:
    folder = models_dir / name
    inputs = json.loads((folder / "meta.json").read_text())["inputs"]
    done = compiler.compile(
        folder / "model.onnx",
        target,  # type: ignore[arg-type]
        tmp_path / "out.mlpackage",
        shapes={n: shape for n, (_, shape) in inputs.items()},
        inputs=folder / "io.npz",
    )
    assert done.report.verify.passed
    assert_coremltools_loads(done.path)
    limit = LIMITS["fp16" if target == "ane" else "fp32"]
    # The outputs that were recorded with the model, not those that the proof computed.
    package = read_package(done.path)
    with np.load(folder / "io.npz") as io:
        fed = [io[f"in:{n}"] for n in inputs]
        from compiler.driver import Options, load_library

        results = MilSession(package, load_library(Options())).run(fed)
        recorded = json.loads((folder / "meta.json").read_text())["outputs"]
        # Outputs above 0.4 MB are not kept beside the model; onnxruntime gives them anew.
        missing = any(f"out:{output}" not in io for output in recorded)
        computed = original(folder / "model.onnx", inputs, io) if missing else {}
        for output, array in zip(recorded, results, strict=True):
            error = compare(array, io[f"out:{output}"] if f"out:{output}" in io else computed[output])
            assert error.badness <= limit, (output, error)


def assert_coremltools_loads(package: Path) -> None:
    """coremltools opens the package, and its own reader of programs takes every operator of it."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools as ct
        from coremltools.converters.mil.frontend.milproto.load import load
    spec = ct.models.MLModel(str(package), skip_model_load=True).get_spec()
    program = load(spec, spec.specificationVersion, str(package / "Data/com.apple.CoreML/weights"))
    theirs = [op.op_type for op in program.functions["main"].operations if op.op_type != "const"]
    ours = [op.name.removeprefix("mil.") for op in read_package(package).main.block.ops if op.defn.constant is None]
    assert theirs == [name for name in ours if name != "ir.return"]


def original(model: Path, inputs: Iterable[str], io: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What onnxruntime makes of the untouched model."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    results = session.run(None, {n: io[f"in:{n}"] for n in inputs})
    return dict(zip([o.name for o in session.get_outputs()], results, strict=True))
