"""Real models pass the verifier and round-trip through text and a table of constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import compiler.dialects.onnx  # noqa: F401
from compiler import frontend, ir
from tests.ir import toy


def test_models(models_dir: Path) -> None:
    files = sorted(models_dir.glob("*/model.onnx"))
    assert files
    for file in files:
        module = frontend.load(file)
        ir.verify(module, f"loading {file.parent.name}")
        blobs: dict[str, np.ndarray] = {}
        text = ir.print_module(module, blobs=blobs, locations=True)
        back = ir.parse_module(text, blobs=blobs, file=file.parent.name)
        ir.verify(back)
        assert toy.isomorphic(module, back)
        assert ir.print_module(back) == ir.print_module(module)


def test_packages(pairs_dir: Path) -> None:
    from codegen import mil

    for name in ("mobilenet_v3", "bert", "gpt2_dy"):
        module = mil.read(pairs_dir / name / "apple.mlpackage")
        ir.verify(module, f"reading {name}")
        blobs: dict[str, np.ndarray] = {}
        back = ir.parse_module(ir.print_module(module, blobs=blobs), blobs=blobs, file=name)
        ir.verify(back)
        assert toy.isomorphic(module, back)
