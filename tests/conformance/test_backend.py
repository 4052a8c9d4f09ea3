"""A slice of ONNX's backend tests through the backend; benchmarks/conformance.py runs them all.

The suite makes its cases as the modules of its operators are imported, and all of them take 15 s.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from onnx import numpy_helper

from compiler.errors import UserError
from compiler.onnx_backend import PlanishBackend


def cases(module, part):
    """The cases of one of the suite's modules whose names hold ``part``."""
    name = f"onnx.backend.test.case.node.{module}"
    importlib.import_module(name)
    node = importlib.import_module("onnx.backend.test.case.node")
    return [c for c in node._NodeTestCases if c.name.startswith(f"test_{part}")]


def array(value):
    return numpy_helper.to_array(value) if hasattr(value, "data_type") else np.asarray(value)


@pytest.mark.parametrize(
    ("module", "part"),
    [
        ("gemm", "gemm_a"),
        ("convtranspose", "convtranspose_output_shape"),
        ("gru", "gru_"),
        ("cumsum", "cumsum_2d_"),
        ("einsum", "einsum_"),
        ("qlinearmatmul", "qlinearmatmul_2D_uint8_float32"),
        ("scatterelements", "scatter_elements_with_"),
        ("logsoftmax", "logsoftmax_axis_1"),
    ],
)
def test_packages_give_what_the_suite_asks_for(module, part):
    found = cases(module, part)
    assert found
    for case in found:
        prepared = PlanishBackend.prepare(case.model)
        for inputs, outputs in case.data_sets:
            got = prepared.run([array(a) for a in inputs])
            for mine, theirs in zip(got, outputs, strict=True):
                want = array(theirs)
                assert mine.dtype == want.dtype
                np.testing.assert_allclose(mine, want, rtol=case.rtol, atol=case.atol, err_msg=case.name)


def test_what_core_ml_has_not_is_refused_with_a_sentence():
    for case in cases("stringnormalizer", "strnorm_model"):
        with pytest.raises(UserError, match="text"):
            PlanishBackend.prepare(case.model)
