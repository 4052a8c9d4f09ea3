"""Estimated latencies of whole models against published ones, each with its source (compiler/hardware/sources.toml)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import architectures
import onnx

from compiler import driver, hardware
from compiler.ir import Module
from compiler.report import Report
from compiler.target import Target
from passes import place


@dataclass(frozen=True)
class Published:
    """One measured latency in milliseconds: on which chip and unit, and who says so."""

    model: str
    chip: str
    unit: str
    ms: float
    source: str


MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "resnet50, W8A8": partial(architectures.resnet, 50, True),
    "mobilenet_v2, W8A8": partial(architectures.mobilenet_v2, True),
    "mobilevit_v2, W8A8": partial(architectures.mobilevit_v2, True),
    "resnet18": partial(architectures.resnet, 18),
    "resnet50": partial(architectures.resnet, 50),
    "mobilenet_v2": architectures.mobilenet_v2,
    "mobilevit_v2": architectures.mobilevit_v2,
    "distilbert, 128 tokens": partial(architectures.encoder, "distilbert", 128, 6, 768, 12, 3072),
    "minilm_l6, 128 tokens": partial(architectures.encoder, "minilm", 128, 6, 384, 12, 1536),
    "vit_b16": partial(architectures.encoder, "vit", 197, 12, 768, 12, 3072, patch=16),
}

#: Latencies with compressed weights alone. The model's constants know no such weights but by their bytes, and in these
#: networks bytes of weights bind nowhere: the estimate is that of half precision.
COMPRESSED = {
    ("mobilenet_v2", "A16"): {"W8": 0.45, "2 bits": 0.47, "4 bits": 0.45, "6 bits": 0.48, "8 bits": 0.45},
    ("mobilenet_v2", "A17"): {"W8": 0.44},
    ("resnet50", "A16"): {
        "W8": 1.49,
        "2 bits": 1.43,
        "4 bits": 1.41,
        "6 bits": 1.37,
        "8 bits": 1.40,
        "50 % sparse": 1.46,
        "75 % sparse": 1.28,
    },
    ("resnet50", "A17"): {
        "W8": 1.50,
        "6 bits": 1.25,
        "4 bits": 1.12,
        "4 bits, groups of 8": 1.34,
        "1 bit": 1.14,
        "90 % sparse": 0.86,
    },
    ("mobilevit_v2", "A16"): {"W8": 1.43},
    ("mobilevit_v2", "A17"): {"W8": 1.37},
}

PUBLISHED = [
    Published("mobilenet_v2", "A16", "ane", 0.48, "R"),
    Published("mobilenet_v2", "A17", "ane", 0.49, "R"),
    Published("resnet50", "A16", "ane", 1.52, "R"),
    Published("resnet50", "A17", "ane", 1.38, "R"),
    Published("resnet50", "A17", "ane", 1.63, "R: opt-resnet, iOS 18"),
    Published("mobilevit_v2", "A16", "ane", 1.38, "R"),
    Published("mobilevit_v2", "A17", "ane", 1.36, "R"),
    Published("mobilenet_v2, W8A8", "A16", "ane", 0.27, "R"),
    Published("mobilenet_v2, W8A8", "A17", "ane", 0.20, "R"),
    Published("resnet50, W8A8", "A16", "ane", 0.94, "R"),
    Published("resnet50, W8A8", "A17", "ane", 0.77, "R"),
    Published("resnet50, W8A8", "A17", "ane", 1.07, "R: opt-resnet, iOS 18"),
    Published("mobilevit_v2, W8A8", "A16", "ane", 1.18, "R"),
    Published("mobilevit_v2, W8A8", "A17", "ane", 1.03, "R"),
    *[
        Published(model, chip, "ane", ms, f"R: {how}")
        for (model, chip), table in COMPRESSED.items()
        for how, ms in table.items()
    ],
    Published("distilbert, 128 tokens", "A15", "ane", 3.47, "B"),
    Published("resnet18", "M5", "ane", 0.33, "C: M5 Pro, private route"),
    Published("minilm_l6, 128 tokens", "M5", "ane", 0.53, "C: M5 Pro, private route, length not stated"),
    Published("vit_b16", "M5", "ane", 18.3, "C: M5 Pro, private route"),
    Published("resnet18", "M5", "gpu", 2.03, "C: M5 Pro, MPS"),
    Published("minilm_l6, 128 tokens", "M5", "gpu", 1.92, "C: M5 Pro, MPS, length not stated"),
    Published("vit_b16", "M5", "gpu", 15.9, "C: M5 Pro, MPS"),
]


@cache
def package(name: str, unit: str) -> Module:
    """The half-precision module that is compiled of a network for a unit."""
    from compiler.precision import halved

    options = driver.Options(Target.of(unit))
    library = driver.load_library(options)
    report = Report(name, options.target)
    module = driver.import_model(MODELS[name](), options, library, report)
    driver.optimize(module, library, report)
    driver.lower(module, library, report)
    return halved(module, options.target.os, {})[0]


def estimate(row: Published) -> float:
    """The estimated latency of a published measurement in milliseconds."""
    chip = hardware.chip(row.chip)
    return place.run(package(row.model, row.unit), row.unit, chip, 17).total_ms


def compare() -> list[dict[str, object]]:
    """Prints and gives each published latency beside its estimate."""
    print(f"{'model':<24} {'chip':<4} {'unit':<4} {'published':>9} {'estimated':>9}  {'off':>6}  source")
    rows: list[dict[str, object]] = []
    for row in PUBLISHED:
        ms = estimate(row)
        off = ms / row.ms - 1
        miss = "" if abs(off) <= 0.3 else "  MISS"
        print(
            f"{row.model:<24} {row.chip:<4} {row.unit:<4} {row.ms:>9.2f} {ms:>9.2f}  {off:>+6.0%}  {row.source}{miss}"
        )
        rows.append({"model": row.model, "chip": row.chip, "unit": row.unit, "ms": row.ms, "estimated": ms})
    print(f"within 30 %: {sum(abs(r['estimated'] / r['ms'] - 1) <= 0.3 for r in rows)} of {len(rows)}")  # type: ignore[operator]
    return rows
