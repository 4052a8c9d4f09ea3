"""Random Resize operators, every mode by every transformation of coordinates, against onnxruntime.

    python -m benchmarks.resize [--count 2000] [--seed 0]

Each case is a model of one operator: nearest, linear or cubic, with scales or sizes, of all or of some axes, with
regions, antialiasing and policies of the aspect ratio. Its package, written and read back, gives what onnxruntime
gives, or the compiler refuses it with a sentence. What onnxruntime refuses, or makes empty, is drawn again.
"""

from __future__ import annotations

import argparse
import collections
from typing import Any

import numpy as np
import onnx
import onnx.printer
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from compiler.errors import PlanishError
from compiler.onnx_backend import prepare

COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
)  # fmt: skip
NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
SCALES = (0.3, 0.5, 0.6, 0.7, 0.8, 1.0, 1.3, 1.5, 1.7, 2.0, 2.5, 3.0)
OPSETS = (11, 13, 18, 19)


def _attributes(rng: np.random.Generator, opset: int) -> dict[str, Any]:
    mode = str(rng.choice(["nearest", "linear", "cubic"]))
    out: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": str(rng.choice(COORDINATES))}
    if mode == "nearest":
        out["nearest_mode"] = str(rng.choice(NEAREST))
    elif opset >= 18 and rng.random() < 0.2:
        out["antialias"] = 1
    if mode == "cubic":
        out |= {"cubic_coeff_a": float(rng.choice([-0.75, -0.5])), "exclude_outside": int(rng.integers(2))}
    if out["coordinate_transformation_mode"] == "tf_crop_and_resize":
        out["extrapolation_value"] = float(rng.choice([0.0, -3.5]))
    return out


def draw(rng: np.random.Generator) -> onnx.ModelProto:
    """A model of one Resize, whose output has no shape yet."""
    opset, rank = int(rng.choice(OPSETS)), int(rng.choice([1, 2, 3, 4, 5], p=[0.1, 0.2, 0.1, 0.45, 0.15]))
    shape = [int(s) for s in rng.integers(1, 9, rank)]
    attributes = _attributes(rng, opset)
    count = min(int(rng.choice([1, 2, 3])), rank)
    resized = range(rank - count, rank) if rng.random() < 0.7 else sorted(rng.choice(rank, count, replace=False))
    factors = {int(a): float(rng.choice(SCALES)) for a in resized}
    axes = list(range(rank))
    if opset >= 18 and rng.random() < 0.5:
        axes = attributes["axes"] = list(factors)
    constants: dict[str, np.ndarray] = {}
    if "extrapolation_value" in attributes:
        starts = [float(rng.uniform(-0.3, 0.6)) if a in factors else 0.0 for a in axes]
        ends = [float(rng.uniform(0.4, 1.3)) if a in factors else 1.0 for a in axes]
        constants["roi"] = np.round(np.array(starts + ends, np.float32), 2)
    elif opset < 13:
        constants["roi"] = np.zeros(0, np.float32)
    scales = np.array([factors.get(a, 1.0) for a in axes], np.float32)
    if rng.random() < 0.4:
        constants["sizes"] = np.array([max(1, int(shape[a] * s)) for a, s in zip(axes, scales)], np.int64)
        if opset < 13:
            constants["scales"] = np.zeros(0, np.float32)
        if opset >= 18 and rng.random() < 0.3:
            attributes["keep_aspect_ratio_policy"] = str(rng.choice(["not_larger", "not_smaller"]))
    else:
        constants["scales"] = scales
    inputs = ["x", *(name if name in constants else "" for name in ("roi", "scales", "sizes"))]
    graph = helper.make_graph(
        [helper.make_node("Resize", inputs, ["y"], **attributes)],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def judge(model: onnx.ModelProto, rng: np.random.Generator) -> tuple[str, str] | None:
    """``right``, ``refused`` or ``wrong``, and why; None where onnxruntime refuses the model, or gives nothing."""
    x = rng.standard_normal([d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]).astype(np.float32)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        (want,) = session.run(None, {"x": x})
    except Exception:  # onnxruntime's errors have no common base
        return None
    if not want.size:
        return None
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, want.shape))
    try:
        (got,) = prepare(model).run([x])
    except PlanishError as e:
        return "refused", str(e).splitlines()[0].partition("cannot be compiled: ")[2]
    same = got.shape == want.shape and np.allclose(got, want, rtol=1e-4, atol=1e-5, equal_nan=True)
    return ("right", "") if same else ("wrong", onnx.printer.to_text(model.graph))


def sweep(count: int, seed: int) -> collections.Counter[tuple[str, str]]:
    """How often each verdict was given, by verdict and reason."""
    rng = np.random.default_rng(seed)
    found: collections.Counter[tuple[str, str]] = collections.Counter()
    while found.total() < count:
        verdict = judge(draw(rng), rng)
        if verdict is not None:
            found[verdict] += 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    ort.set_default_logger_severity(4)
    found = sweep(arguments.count, arguments.seed)
    for (verdict, why), n in found.most_common():
        print(f"{n:6} {verdict:8} {why}")
    return 1 if any(verdict == "wrong" for verdict, _ in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
