"""Packages that Apple's converter made from real networks come back equal from our reader and writer."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import pytest

from codegen import mil
from compiler import ir
from tests.codegen import canonical
from tests.conftest import ROOT

FOLDER = Path(os.environ.get("PLANISH_PAIRS") or ROOT / "../shared/pairs")
PAIRS = sorted(p.parent.name for p in FOLDER.glob("*/apple.mlpackage"))


@pytest.fixture(params=PAIRS or [None])
def package(request, pairs_dir):
    return pairs_dir / str(request.param) / "apple.mlpackage"


def test_read_then_written_it_is_equal(package, tmp_path):
    module = mil.read(package)
    written = mil.write(module, tmp_path / "ours.mlpackage", os=module.attributes["os"])
    assert written.renamed == {}
    theirs, ours = canonical.load(package), canonical.load(written.path)
    assert ours.description == theirs.description
    assert canonical.program(written.path) == canonical.program(package)


def test_written_again_it_reads_the_same(package, tmp_path):
    module = mil.read(package)
    mil.write(module, tmp_path / "ours.mlpackage", os=module.attributes["os"])
    again = mil.read(tmp_path / "ours.mlpackage")
    again.name = module.name
    assert ir.print_module(again) == ir.print_module(module)


def test_what_is_read_passes_the_verifier(package):
    ir.verify(mil.read(package))


def test_coremltools_loads_what_we_write(package, tmp_path):
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools as ct
        from coremltools.converters.mil.frontend.milproto.load import load
    module = mil.read(package)
    written = mil.write(module, tmp_path / "ours.mlpackage", os=module.attributes["os"])
    model = ct.models.MLModel(str(written.path), skip_model_load=True).get_spec()
    program = load(model, model.specificationVersion, str(written.path / "Data/com.apple.CoreML/weights"))
    ours = [n for n, f in zip(program.functions, program.functions.values()) if f.outputs]
    assert ours == list(module.functions)
