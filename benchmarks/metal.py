"""Whole models as Metal kernels: verdict, error, dispatches for each anchor, scratch against the least possible.

    python -m benchmarks.metal ../shared/models [NAME …] [--precision fp32|fp16] [--tinygrad]

An anchor is a convolution, product, normalization, softmax, pool, reduction, resize or recurrence of the fused graph.

With ``--tinygrad`` (``pip install tinygrad==0.14.0``) the same model is scheduled for METAL by tinygrad, and its
kernels are counted beside ours; onnxruntime has fixed its shapes and folded its constants before, which tinygrad would
ask a GPU to compute. Where it would ask all the same, and there is no GPU, the schedule is for its CPU, which is the
same wherever both could be made: scheduling knows no device.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.models import compile_one, shapes

#: The models whose proof under --target metal is promised.
PROMISED = [
    *("ppocr_cls", "mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet", "espcn", "ultraface", "wakeword_embedding", "dnsmos"),
    *("yolov8n_320", "minilm_l6_int8", "silero_vad_16k", "light_squeezenet"),
]


def tinygrad_kernels(model: Path, sizes: list[str]) -> str:
    """How many kernels tinygrad's schedule of a model has; a word where it has none."""
    import onnx
    import onnxruntime as ort

    script = Path(__file__).with_name("tinygrad_kernels.py")
    with tempfile.TemporaryDirectory() as folder:
        proto = onnx.load(model)
        given = dict(word.split("=") for word in sizes)
        for value in proto.graph.input:
            known = given[value.name].split(",") if value.name in given else []
            for dim, size in zip(value.type.tensor_type.shape.dim, known, strict=False):
                dim.dim_value = int(size)
        constants = {tensor.name for tensor in proto.graph.initializer}
        for value in [v for v in proto.graph.input if v.name in constants]:
            proto.graph.input.remove(value)
        fixed, folded = f"{folder}/fixed.onnx", f"{folder}/folded.onnx"
        onnx.save(proto, fixed)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = folded
        ort.InferenceSession(fixed, options, providers=["CPUExecutionProvider"])
        plain = onnx.load(folded)
        used = {node.domain for node in plain.graph.node}
        for opset in [o for o in plain.opset_import if o.domain and o.domain not in used]:
            plain.opset_import.remove(opset)  # tinygrad refuses domains that it does not know, used or not
        onnx.save(plain, folded)
        options.log_severity_level = 3
        said = ""
        for device in ("METAL", "CPU"):
            done = subprocess.run(
                [sys.executable, str(script), folded, *sizes],
                capture_output=True,
                text=True,
                check=False,
                timeout=900,
                env={"DEV": device, "PATH": os.environ["PATH"]},
            )
            lines = done.stdout.strip().splitlines()
            if done.returncode == 0 and lines:
                return lines[-1] + (" (scheduled for CPU)" if device == "CPU" else "")
            said = (done.stderr.strip().splitlines() or ["failed"])[-1][:60]
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--tinygrad", action="store_true", help="count tinygrad's kernels for the same models")
    arguments = parser.parse_args()
    passed = 0
    names = arguments.names or PROMISED
    print(f"{'model':22} {'verdict':8} {'rel_l2':>8} {'disp.':>6} {'anchors':>7} {'ratio':>6} {'copies':>6} "
          f"{'kernels':>7} {'functions':>9} {'scratch':>8} {'÷ least':>7}"
          f"{'  tinygrad' if arguments.tinygrad else ''}")  # fmt: skip
    for name in names:
        folder = arguments.folder / name
        row = compile_one(folder / "model.onnx", "metal", [*shapes(folder), "--precision", arguments.precision])
        report = row["report"]
        if row["code"] not in (0, 1) or not report:
            print(f"{name:22} exit {row['code']} {row['said']}", flush=True)
            continue
        passed += row["code"] == 0
        p = report["placement"]
        errors = [o["rel_l2"] for o in report["verify"]["outputs"].values() if o["rel_l2"] is not None]
        theirs = ""
        if arguments.tinygrad:
            theirs = "  " + tinygrad_kernels(folder / "model.onnx", shapes(folder)[1::2])
        ratio = p["dispatches"] / max(p["anchors"], 1)
        print(
            f"{name:22} {'proven' if row['code'] == 0 else 'FAILED':8} {max(errors, default=0.0):8.1e} "
            f"{p['dispatches']:6} {p['anchors']:7} {ratio:6.2f} {p['layout_copies']:6} "
            f"{p['kernels']:7} {p['functions']:9} "
            f"{p['heap'] / 1e6:5.2f} MB {p['heap'] / max(p['heap_bound'], 1):7.3f}{theirs}",
            flush=True,
        )
    print(f"{passed} of {len(names)} proven")
    return 0 if passed == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
