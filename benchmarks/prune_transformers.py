"""What pruning makes of transformers: packages before and after, each proven.

    python -m benchmarks.prune_transformers [NAME]… [--pairs DIR] [--amount 0.3]

prints sizes of packages in half precision, multiplications and parameters of the original and of what is left of it,
and how far the package is from the pruned model. ``minilm`` needs what ``benchmarks.compression minilm`` needs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import compiler

NAMES = ("bert", "vit", "t5_encoder", "gpt2_dy", "llama_block", "minilm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=NAMES)
    parser.add_argument("--pairs", type=Path, default=Path("../shared/pairs"))
    parser.add_argument("--amount", type=float, default=0.3)
    asked = parser.parse_args()
    print("| | package MB | pruned | MACs M | pruned | parameters M | pruned | off the pruned model |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.names:
            model = asked.pairs / name / "model.onnx"
            if name == "minilm":
                from benchmarks import compression_sentences

                model = Path(folder) / "minilm.onnx"
                compression_sentences.model(model)
            out = Path(folder) / "out.mlpackage"
            whole = compiler.compile(model, "ane", out, verify="off").report.bytes["package"]
            report = compiler.compile(model, "ane", out, verify="fast", prune=asked.amount).report
            held = report.compression["pruning"]
            counts = [held[k] / 1e6 for k in ("macs_before", "macs", "parameters_before", "parameters")]
            sizes = [n / 1e6 for n in (whole, report.bytes["package"])]
            assert report.verify is not None
            assert report.verify.worst is not None
            print(
                f"| {name} | {' | '.join(f'{n:.3g}' for n in (*sizes, *counts))} | "
                f"{report.verify.worst[1].badness:.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
