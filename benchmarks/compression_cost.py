"""How the bits of compressed weights compare with coremltools', and the published cases in kind."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

import compiler
from benchmarks import compression_boxes as boxes
from benchmarks import compression_sentences as sentences
from benchmarks.compression_tasks import Once, original, weight_bytes
from codegen import mil
from compiler.driver import Options, load_library
from compiler.proof import MilSession
from passes import compress
from passes.compress import Linear, Palette, Scheme, Sparse

Array = np.ndarray[Any, Any]

YOLO = {"images": (1, 3, 320, 320)}


def bits(models: Path, pairs: Path, work: Path, once: Once) -> None:
    """yolov8n_320 compressed by coremltools and by the pass, from the same package: the same bits? Whose are sooner?"""
    print("### yolov8n_320: the same settings in coremltools and here\n")
    print("| | weights | with the same bits | coremltools s | here s |\n|---|--:|--:|--:|--:|")
    path = work / "plain.mlpackage"
    for name, scheme, function, config in _settings():

        def measure(scheme: Scheme = scheme, function: str = function, config: str = config) -> list[float]:
            if not path.exists():
                compiler.compile(
                    models / "yolov8n_320" / "model.onnx", "ane", path, os="ios18", shapes=YOLO, verify="off"
                )
            return _same(path, work, scheme, function, config)

        of, same, theirs, ours = once(f"bits: {name}", measure)
        print(f"| {name} | {of:.0f} | {same:.0f} | {theirs:.2f} | {ours:.2f} |", flush=True)
    print("\n### yolov8n_320, int4 for each channel: how far outputs are from the original's, on 12 photographs\n")
    there, here = once("bits: gptq", lambda: _gptq(models, path, work))
    print(f"coremltools {there:.4f}, here with calibration inputs {here:.4f} (relative L2)\n")


def _settings() -> list[tuple[str, Scheme, str, str]]:
    """Name, scheme, function of coremltools and its configuration."""
    linear = "linear_quantize_weights"
    return [
        ("int8, symmetric", Linear(), linear, "OpLinearQuantizerConfig(mode='linear_symmetric')"),
        ("uint8, affine", Linear("uint8", False), linear, "OpLinearQuantizerConfig(mode='linear', dtype='uint8')"),
        (
            "int4, blocks of 16",
            Linear("int4", True, "block", 16),
            linear,
            "OpLinearQuantizerConfig(mode='linear_symmetric', dtype='int4', granularity='per_block', block_size=16)",
        ),
        ("palette4", Palette(4), "palettize_weights", "OpPalettizerConfig(mode='kmeans', nbits=4)"),
        (
            "palette4-group16",
            Palette(4, 16),
            "palettize_weights",
            "OpPalettizerConfig(mode='kmeans', nbits=4, granularity='per_grouped_channel', group_size=16)",
        ),
        ("sparse50", Sparse(0.5), "prune_weights", "OpMagnitudePrunerConfig(target_sparsity=0.5)"),
        ("sparse2of4", Sparse(pattern=(2, 4)), "prune_weights", "OpMagnitudePrunerConfig(n_m_ratio=(2, 4))"),
    ]


def _same(path: Path, work: Path, scheme: Scheme, function: str, config: str) -> list[float]:
    """How many weights there are, how many have the same bits, and the seconds of both."""
    import coremltools as ct
    import coremltools.optimize.coreml as cto

    logging.disable(logging.WARNING)
    name, _, settings = config.partition("(")
    options = cto.OptimizationConfig(global_config=getattr(cto, name)(**eval(f"dict({settings}")))
    model = ct.models.MLModel(str(path), skip_model_load=True)
    start = time.perf_counter()
    theirs = getattr(cto, function)(model, options)
    there = time.perf_counter() - start
    theirs.save(str(work / "theirs.mlpackage"))
    module = mil.read(path)
    start = time.perf_counter()
    compress.run(module, scheme, 18, fit=False)
    here = time.perf_counter() - start
    mil.write(module, work / "ours.mlpackage", os="ios18")
    a, b = (_held(mil.read(work / f"{who}.mlpackage")) for who in ("theirs", "ours"))
    return [len(a), sum(x == y for x, y in zip(a, b, strict=True)), there, here]


def _held(module: Any) -> list[list[bytes | None]]:
    """What the compressed weights consist of."""
    ops = [op for op in module.walk() if op.name.startswith("mil.constexpr_")]
    return [[None if v is None or v.constant is None else v.constant.tobytes() for v in op.operands] for op in ops]


def _gptq(models: Path, plain: Path, work: Path) -> list[float]:
    """How far outputs are from the original's: of coremltools' package, and of one made with calibration inputs."""
    import coremltools as ct
    import coremltools.optimize.coreml as cto

    model = models / "yolov8n_320" / "model.onnx"
    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int4", granularity="per_channel")
    made = cto.linear_quantize_weights(
        ct.models.MLModel(str(plain), skip_model_load=True), cto.OptimizationConfig(global_config=config)
    )
    made.save(str(work / "theirs.mlpackage"))
    scale = np.float32(1 / 255)
    data, judged = boxes.photographs((320, 320), 8, 2) * scale, boxes.photographs((320, 320), 12, 1) * scale
    options: Any = {"os": "ios18", "shapes": YOLO, "verify": "off"}
    ours = work / "ours.mlpackage"
    compiler.compile(model, "ane", ours, quantize="int4-channel", calibrate={"images": data}, **options)
    library, run = load_library(Options()), original(model)
    wanted = np.stack([next(iter(run({"images": p}).values())) for p in judged])
    out = []
    for path in (work / "theirs.mlpackage", ours):
        session = MilSession(mil.read(path), library)
        out.append(compress.error(wanted, np.stack([session.run([p])[0] for p in judged])))
    return out


def _parts(package: Path, weights: list[dict[str, Any]]) -> list[int]:
    """Bytes of a package: compressed weights, those left, what else its file of weights holds, and all other files."""
    files = {f.name: f.stat().st_size for f in package.rglob("*") if f.is_file()}
    stored = files.pop("weight.bin")
    compressed = sum(w["after"] for w in weights if w["scheme"] is not None)
    left = sum(w["after"] for w in weights if w["scheme"] is None)
    return [compressed, left, stored - compressed - left, sum(files.values())]


def published(models: Path, pairs: Path, work: Path, once: Once) -> None:
    """The pairs that are built as the published cases, a detector of a usual size, and layers that share weights."""
    print("### Sizes and estimated memory\n")
    print("| | weights in f32 | half | int8 | of f32 | memory, f32 | half | int8 | of f32 |\n|---|" + "--:|" * 8)
    cases: dict[str, tuple[Path, Any]] = {name: (pairs / name / "model.onnx", {}) for name in ("yolov5_416", "bert")}
    cases["yolov8n_320"] = models / "yolov8n_320" / "model.onnx", YOLO
    parts = {}
    for name, (model, shapes) in cases.items():

        def measure(model: Path = model, shapes: Any = shapes) -> dict[str, Any]:
            out: list[float] = []
            for options in ({"precision": "fp32"}, {}, {"quantize": "int8"}):
                made = compiler.compile(
                    model, "cpu" if "precision" in options else "ane", work / "row.mlpackage", shapes=shapes,
                    verify="off", **options,
                )  # fmt: skip
                out += [made.report.bytes["package"] / 1e6, made.report.placement["estimates"]["memory_mb"]]
            return {"sizes": out, "parts": _parts(work / "row.mlpackage", made.report.compression["weights"])}

        whole = weight_bytes(model) / 1e6
        found = once(f"published: sizes of {name}", measure)
        _, m32, s16, m16, s8, m8 = found["sizes"]
        parts[name] = whole, found["parts"]
        print(
            f"| {name} | {whole:.2f} MB | {s16:.2f} | {s8:.2f} | {100 * (s8 / whole - 1):+.1f} % "
            f"| {m32:.2f} MB | {m16:.2f} | {m8:.2f} | {100 * (m8 / m32 - 1):+.0f} % |",
            flush=True,
        )
    print("\n### Where the bytes of the int8 packages are, in kB\n")
    print(
        "| | in integers | left as they are, element by element | biases and small weights | program | whole, of f32 |"
    )
    print("|---|" + "--:|" * 5)
    for name, (whole, each) in parts.items():
        print(f"| {name} | " + " | ".join(f"{n / 1e3:.0f}" for n in each), end="")
        print(f" | {sum(each) / whole / 1e4:.1f} % |", flush=True)
    print("\n### Layers that share weights: MiniLM's six, and its first one six times over\n")
    print("| | in the ONNX file | int8 package |\n|---|--:|--:|")
    for what, shared in (("six layers", None), ("one, named once", "once"), ("one, held six times", "copies")):

        def one(shared: str | None = shared) -> list[float]:
            path = work / "shared.onnx"
            sentences.model(path, shared)
            made = compiler.compile(path, "ane", work / "row.mlpackage", quantize="int8", verify="off")
            return [path.stat().st_size / 1e6, made.report.bytes["package"] / 1e6]

        before, after = once(f"published: {what}", one)
        print(f"| {what} | {before:.1f} MB | {after:.1f} MB |", flush=True)
    print()
