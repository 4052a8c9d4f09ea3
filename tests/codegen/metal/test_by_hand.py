"""Kernels that a user writes: stubs that work as they are, what takes their place, and what is refused of it."""

from __future__ import annotations

import json

import onnx.parser
import pytest

import compiler
from codegen.metal import lint
from compiler.errors import UnsupportedError, UserError, VerificationError

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
g (float[5,7] x) => (float[5,7] y) { a = Relu (x) b = Softmax (a) y = Mul (b, x) }"""

RULE = """stage metal
use onnx
rule by_hand {
  match   { y = Softmax(x) {axis = a} }
  rewrite { y = metal.by_hand(metal.softmax(x) {axis = axis(a, rank(x)), log = false}, x) {kernel = "rows"} }
  before metal_softmax
}
"""

#: A threadgroup for each row, in place of a thread.
OWN = """#include <metal_stdlib>
using namespace metal;

inline float weight(float x) { return exp(x); }

// dispatched as 5 threadgroups of 7 threads
kernel void rows_5x7(
    device const float* scores [[buffer(0)]],
    device float* y [[buffer(1)]],
    uint row [[threadgroup_position_in_grid]],
    uint t [[thread_position_in_threadgroup]]
) {
    threadgroup float all[7];
    all[t] = weight(scores[7 * row + t]);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float total = 0.0f;
    for (int j = 0; j < 7; ++j) { total += all[j]; }
    y[7 * row + t] = all[t] / total;
}
"""


@pytest.fixture
def made(tmp_path):
    """Compiles with the rule, and with a file of kernels if there is one."""
    (tmp_path / "own.rules").write_text(RULE)

    def made(kernels=None, **how):
        if kernels is not None:
            (tmp_path / "own.metal").write_text(kernels)
            how["kernels"] = tmp_path / "own.metal"
        how = {"output": tmp_path / "m.metalpackage", "rules": [tmp_path / "own.rules"], **how}
        return compiler.compile(onnx.parser.parse_model(TEXT), target="metal", **how)

    return made


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_stubs_are_checked_kernels_that_are_proven_as_they_are(made, tmp_path, precision):
    stubs = made(emit="stubs", output=tmp_path / "stubs.metal", precision=precision).path.read_text()
    assert stubs.count("kernel void ") == 1
    assert "softmax 5×7" in stubs
    assert ("half* x0" in stubs) == (precision == "fp16")
    assert lint.check(stubs) == []
    package = made(stubs, precision=precision)
    assert package.report.verify.passed
    assert list(package.report.ops.items()) == [("map", 2), ("softmax", 1)]  # nothing else joins it


def test_the_users_kernel_and_its_grid_take_the_place_of_ours(made):
    package = made(OWN)
    assert package.report.verify.passed
    assert (package.path / "kernels.metal").read_text().startswith(OWN.rstrip())
    plan = json.loads((package.path / "plan.json").read_text())
    assert [(d["groups"], d["threads"]) for d in plan["dispatches"] if d["kernel"] == "rows_5x7"] == [(5, 7)]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("float* scores", "half* scores", r"own.metal:7: kernel rows_5x7 takes 'device const half\*' at buffer\(0\)"),
        ("buffer(1)", "buffer(2)", r"takes nothing at buffer\(1\), where the plan binds 'device float\*'"),
        ("rows_5x7", "rows_5x8", "own.metal:7: no rule names a kernel rows_5x8"),
        ("exp(x)", "std::exp(x)", r"own.metal:4:.*no member named 'exp'"),
        ("uint t [[thread_position_in_threadgroup]]", "uint t", "has no attribute"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_line(made, tmp_path, old, new, said):
    with pytest.raises(UserError, match=said):
        made(OWN.replace(old, new))
    assert not (tmp_path / "m.metalpackage").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("/ total", "/ (total + 1.0f)", "kernel rows_5x7 is the first to depart"),
        ("threadgroup_barrier(mem_flags::mem_threadgroup);", "", "depends on the order in which threads run"),
        ("y[7 * row + t] =", "y[7 * row + t + 35] =", "rows_5x7: reads or writes outside its buffers"),
        ("threadgroup_barrier(", "if (t > 0) threadgroup_barrier(", "ended while others wait|different barriers"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_found_by_running_it(made, old, new, said):
    with pytest.raises(VerificationError, match=said):
        made(OWN.replace(old, new))


def test_what_cannot_be_written_by_hand_says_why(made, tmp_path):
    with pytest.raises(UserError, match="no rule names a kernel"):
        made(emit="stubs", rules=(), output=tmp_path / "stubs.metal")
    (tmp_path / "stubs.metal").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        made(emit="stubs", output=tmp_path / "stubs.metal")
    forgets = tmp_path / "forgets.rules"
    forgets.write_text(RULE.replace("log = false}, x)", "log = false})"))
    with pytest.raises(UnsupportedError, match="kernel 'rows' reads 'x', which its rule does not give it"):
        made(rules=[forgets])
    with pytest.raises(UserError, match="only Metal kernels are written by hand"):
        compiler.compile(onnx.parser.parse_model(TEXT), emit="stubs", output=tmp_path / "other.metal")
