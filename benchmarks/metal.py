"""Whole models as Metal kernels: verdict, error, dispatches for each anchor, scratch against the least possible.

    python -m benchmarks.metal ../shared/models [NAME …] [--precision fp32|fp16]

An anchor is a convolution, product, normalization, softmax, pool, reduction, resize or recurrence of the fused graph.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.models import compile_one, shapes

#: The models whose proof under --target metal is promised.
PROMISED = [
    *("ppocr_cls", "mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet", "espcn", "ultraface", "wakeword_embedding", "dnsmos"),
    *("yolov8n_320", "minilm_l6_int8", "silero_vad_16k", "light_squeezenet"),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args()
    passed = 0
    names = arguments.names or PROMISED
    print(f"{'model':22} {'verdict':8} {'rel_l2':>8} {'disp.':>6} {'anchors':>7} {'ratio':>6} {'copies':>6} "
          f"{'kernels':>7} {'scratch':>8} {'÷ least':>7}")  # fmt: skip
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
        ratio = p["dispatches"] / max(p["anchors"], 1)
        print(
            f"{name:22} {'proven' if row['code'] == 0 else 'FAILED':8} {max(errors, default=0.0):8.1e} "
            f"{p['dispatches']:6} {p['anchors']:7} {ratio:6.2f} {p['layout_copies']:6} "
            f"{p['kernels']:7} {p['heap'] / 1e6:5.2f} MB {p['heap'] / max(p['heap_bound'], 1):7.3f}",
            flush=True,
        )
    print(f"{passed} of {len(names)} proven")
    return 0 if passed == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
