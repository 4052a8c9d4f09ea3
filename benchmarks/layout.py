"""Counts what only changes shape or order, ours beside Apple's converter's, and proves ours. Prints a table.

    python -m benchmarks.layout ../shared/pairs ../shared/models [NAME …] [--target ane] [--target gpu] [--json FILE]

A layout operator (transpose, reshape, expand_dims, squeeze and their like) is *inside* if some operator that computes
stands before it and some behind it; casts compute nothing. Operators are counted in the packages, casts included and
constants not. Ours is compiled for the release that Apple's package asks for. The limit of an error is 2e-2, or twice
what half precision costs Apple's own package of the pair. *Padding* is what the Neural Engine adds to the values of a
package, in percent of their bytes: their last axis is padded to 64 bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from compiler import driver, errors, hardware
from compiler.ir import Module, TensorType
from compiler.proof import read_package
from compiler.report import number_of_ops
from compiler.target import RELEASES, Target
from passes import layout

#: The pairs that the target for layout operators names.
TRANSFORMERS = [
    "vit",
    "bert",
    "gpt2_dy",
    "t5_encoder",
    "whisper_encoder",
    "llama_block",
    "einsum_attention",
    "swin_dy",
    "conformer",
]
NETWORKS = ["resnet_basic", "mobilenet_v3", "efficientnet", "convnext", "unet", "deeplab_aspp", "yolov5_416"]


def measure(folder: Path, unit: str, verify: str) -> dict[str, Any]:
    """One model for one unit: layout operators inside and operators in all, ours and Apple's, and our error."""
    meta = json.loads((folder / "meta.json").read_text())
    os = str(meta.get("target", "ios17")).lower()
    os = os if os in RELEASES else "ios17"
    shapes = {n: tuple(d) for n, (_, d) in meta["inputs"].items()} if isinstance(meta.get("inputs"), dict) else {}
    row: dict[str, Any] = {"model": folder.name, "target": unit, "os": os}
    if (folder / "apple.mlpackage").is_dir():
        apple = read_package(folder / "apple.mlpackage")
        row["apple"] = {"inside": layout.interior(apple), "ops": number_of_ops(apple), "padding": padding(apple)}
    floor = max(meta.get("mil_interp_fp16_rounded_rel_err_per_output") or [0.0])
    row["limit"] = max(2e-2, 2 * floor)
    with tempfile.TemporaryDirectory() as temporary:
        options = driver.Options(Target.of(unit, os), shapes, verify=verify)  # type: ignore[arg-type]  # checked by argparse
        try:
            done = driver.compile_model(folder / "model.onnx", Path(temporary) / "out.mlpackage", options)
        except errors.PlanishError as e:
            row["refused"] = str(e).splitlines()[0]
            return row
        package = read_package(done.path)
        row["ours"] = {"inside": layout.interior(package), "ops": number_of_ops(package), "padding": padding(package)}
        row["fp32"] = len(done.report.kept)
        row["seconds"] = done.report.seconds
        worst = done.report.verify.worst
        row["error"] = worst[1].badness if worst is not None else None
    return row


def padding(module: Module) -> tuple[int, int]:
    """The bytes of all values of a package that have known shapes, and what padding on the Neural Engine adds."""
    plain = full = 0
    for op in module.main.block.ops:
        for value in op.results if op.defn.constant is None else ():
            if isinstance(value.type, TensorType) and value.type.is_static:
                full += hardware.footprint(value, "ane")
                plain += hardware.footprint(value, "cpu")
    return plain, full - plain


def percent(padding: tuple[int, int]) -> str:
    plain, added = padding
    return f"{100 * added / plain:.0f} %" if plain else ""


def line(row: dict[str, Any]) -> str:
    head = f"| {row['model']} | {row['target']} {row['os']} "
    if "refused" in row:
        return f"{head}| | | | | | | | {row['refused'][:90]} |"
    ours, apple = row["ours"], row.get("apple", {"inside": "", "ops": "", "padding": (0, 0)})
    error = "" if row["error"] is None else f"{row['error']:.1e}"
    return (
        f"{head}| {ours['inside']} | {apple['inside']} | {ours['ops']} | {apple['ops']} "
        f"| {percent(ours['padding'])} | {percent(apple['padding'])} | {error} | {row['fp32'] or ''} |"
    )


def sums(rows: list[dict[str, Any]]) -> list[str]:
    """The targets: layout operators inside on the Neural Engine, operators on the GPU."""
    out = []
    pairs = [r for r in rows if "apple" in r and "ours" in r]
    for unit in dict.fromkeys(r["target"] for r in pairs):
        mine = [r for r in pairs if r["target"] == unit]
        named = [r for r in mine if r["model"] in TRANSFORMERS + NETWORKS]
        for title, some in (("the named pairs", named), ("all pairs", mine)):
            for key in ("inside", "ops"):
                ours, apple = sum(r["ours"][key] for r in some), sum(r["apple"][key] for r in some)
                if apple:
                    out.append(f"{unit}, {title}: {key} {ours} of {apple}, {ours / apple:.3f}")
        if unit == "ane":
            added = [sum(r[side]["padding"][1] for r in mine) / 1e6 for side in ("ours", "apple")]
            out.append(f"ane, all pairs: padding {added[0]:.1f} MB of {added[1]:.1f} MB")
        over = [r["model"] for r in mine if r["ours"]["ops"] > r["apple"]["ops"]]
        out.append(f"{unit}: more operators than Apple's on {', '.join(over) or 'none'}")
    off = [f"{r['model']} {r['target']}" for r in rows if r.get("error") is not None and r["error"] > r["limit"]]
    out.append(f"errors above their limit: {', '.join(off) or 'none'}")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", help="folders of models, and names if only some are wanted")
    parser.add_argument("--target", action="append", choices=["ane", "gpu", "cpu"])
    parser.add_argument("--verify", default="fast", choices=["full", "fast", "off"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_intermixed_args()
    folders = [Path(f) for f in arguments.folders if Path(f).is_dir()]
    names = {f for f in arguments.folders if not Path(f).is_dir()}
    rows = []
    print(
        "| model | for | inside | Apple | operators | Apple | padding | Apple | error | in fp32 |\n" + "|---" * 10 + "|"
    )
    for unit in arguments.target or ["ane"]:
        for folder in folders:
            for model in sorted(folder.glob("*/model.onnx")):
                if not names or model.parent.name in names:
                    rows.append(measure(model.parent, unit, arguments.verify))
                    print(line(rows[-1]), flush=True)
    print("\n" + "\n".join(sums(rows)))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
