"""Packages of kernels: what is written is read back, checked by libclang, shown, run, and refused when it is broken."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx.parser
import pytest

import compiler
from benchmarks.metal_families import cases
from codegen.metal import executor, lint, package
from compiler.errors import UnsupportedError, UserError

TEXT = """<ir_version: 10, opset_import: ["" : 21]>
g (float[1,4,16,16] x) => (float[1,8,16,16] y, float[1,1000] z) {
  a = Sigmoid (x)
  b = Mul (a, x)
  y = Concat <axis = 1> (a, b)
  shape = Constant <value_ints = [1, 1024]> ()
  r = Reshape (b, shape)
  s = Softmax (r)
  zero = Constant <value_ints = [0]> () end = Constant <value_ints = [1000]> () axis = Constant <value_ints = [1]> ()
  z = Slice (s, zero, end, axis)
}"""


@pytest.fixture
def made(tmp_path):
    return compiler.compile(onnx.parser.parse_model(TEXT), target="metal", output=tmp_path / "m.metalpackage")


def test_source_passes_the_checker_and_names_its_operators(made):
    source = (made.path / package.SOURCE).read_text()
    assert lint.check(source) == []
    assert "softmax 1×1024" in source
    assert "simd_sum" in source  # a long row belongs to a simdgroup


def test_plan_is_consistent(made):
    plan = json.loads((made.path / package.PLAN).read_text())
    assert plan["heap"] >= plan["bound"] > 0
    for d in plan["dispatches"]:
        assert d["threads"] <= 1024
        assert (
            f"kernel void {(d['variant'] or {}).get('function', d['kernel'])}("
            in (made.path / package.SOURCE).read_text()
        )
        for b in d["bindings"]:
            assert not b["writes"] or plan["buffers"][b["buffer"]]["kind"] in ("scratch", "output")


def test_concatenation_is_written_in_place(made):
    assert "concat" not in made.report.ops
    x = np.random.default_rng(0).standard_normal((1, 4, 16, 16)).astype(np.float32)
    y = executor.Session(package.read(made.path)).run({"x": x})["y"]
    sigmoid = 1 / (1 + np.exp(-x.astype(np.float64)))
    np.testing.assert_allclose(y, np.concatenate([sigmoid, sigmoid * x], 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("broken", [package.PLAN, package.SOURCE, package.WEIGHTS])
def test_a_missing_file_is_named(made, broken):
    (made.path / broken).unlink()
    with pytest.raises(UserError, match="is not a package of Metal kernels"):
        package.read(made.path)


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (package.SOURCE, "kernel void map_", "kernel void other_", "has no kernel 'map_"),
        (package.SOURCE, "[[buffer(0)]]", "[[buffer(31)]]", r"buffer\(31\) of x0 is not in"),
        (package.SOURCE, ") {", ", device float* more [[buffer(9)]]) {", "takes 3 buffers, and plan.json binds 2"),
        (package.PLAN, '"buffer": 1', '"buffer": 99', "is bound to a buffer that plan.json has not"),
    ],
)
def test_a_plan_and_a_source_that_do_not_fit_are_told_apart(made, file, old, new, said):
    text = (made.path / file).read_text()
    assert old in text
    (made.path / file).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=f"is not a package of Metal kernels: .*{said}"):
        package.read(made.path)


def test_a_package_of_kernels_is_replaced_and_says_where_it_comes_from(made):
    wishes = compiler.Wishes(author="somebody")
    again = compiler.compile(onnx.parser.parse_model(TEXT), target="metal", output=made.path, wishes=wishes)
    said = package.read(again.path).metadata
    assert said["author"] == "somebody"
    assert {"planish.version", "planish.source", "planish.source.sha256", "planish.rules.sha256"} <= set(said)


def test_what_only_moves_is_counted(made):
    facts = made.report.placement
    assert (facts["dispatches"], facts["anchors"], facts["layout_copies"]) == (4, 1, 1)  # the slice behind the softmax


def test_wrong_inputs_are_named(made):
    session = executor.Session(package.read(made.path))
    with pytest.raises(UserError, match="no array for input 'x'"):
        session.run({})
    with pytest.raises(UserError, match=r"has shape \(1, 4, 16, 16\)"):
        session.run({"x": np.zeros((1, 4, 16, 15), np.float32)})


def test_what_has_no_kernel_is_refused_by_name(tmp_path):
    text = '<ir_version: 10, opset_import: ["" : 21]> g (float[3,3] x) => (float y) { y = Det (x) }'
    with pytest.raises(UnsupportedError, match=r"onnx.Det at node 'y' has no Metal kernel"):
        compiler.compile(onnx.parser.parse_model(text), target="metal", output=tmp_path / "m.metalpackage")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_kernel_fails_the_proof(tmp_path):
    rules = tmp_path / "wrong.rules"
    rules.write_text(
        "stage metal\nuse onnx\n"
        "rule wrong { match { y = Sigmoid(x) } rewrite { y = metal.tanh(x) }\n before metal_sigmoid }\n"
    )
    with pytest.raises(compiler.errors.VerificationError, match="is the first to depart"):
        compiler.compile(
            onnx.parser.parse_model(TEXT), target="metal", output=tmp_path / "m.metalpackage", rules=[rules]
        )


def test_a_picture_is_a_texture_that_kernels_read(tmp_path):
    case = next(cases("picture"))
    wishes = compiler.Wishes(images=case.images)
    made = compiler.compile(case.model(), target="metal", output=tmp_path / "m.metalpackage", wishes=wishes)
    assert made.report.verify.passed
    source = (made.path / package.SOURCE).read_text()
    assert source.count("texture2d<float, access::read>") == 1
    assert lint.check(source) == []
    program = package.read(made.path)
    (x,) = (program.buffers[i] for i in program.of_kind("input"))
    assert x.pixels == "RGB"
    session = executor.Session(program)
    pixels = case.inputs["x"]
    assert not np.array_equal(session.run({"x": pixels})["z"], session.run({"x": pixels[:, ::-1]})["z"])


@pytest.mark.parametrize(("color", "order"), [("rgb", [0, 1, 2]), ("bgr", [2, 1, 0])])
def test_an_output_that_is_a_picture_is_a_texture_that_the_last_kernel_writes(tmp_path, color, order):
    text = """<ir_version: 10, opset_import: ["" : 21]>
    g (float[1,3,6,5] x) => (float[1,3,6,5] y) { y = Sigmoid (x) }"""
    wishes = compiler.Wishes(images=[f"y:{color}:scale=1/255"])
    made = compiler.compile(onnx.parser.parse_model(text), target="metal", output=tmp_path / "m", wishes=wishes)
    assert made.report.verify.passed
    source = (made.path / package.SOURCE).read_text()
    assert source.count("kernel void ") == 1  # arithmetic and pixels at once
    assert "texture2d<float, access::write> y [[texture(0)]]" in source
    assert lint.check(source) == []
    pixel = re.search(r"const float3 pixel = float3\((\w+), (\w+), (\w+)\)", source)
    assert [sorted(pixel.groups(), key=lambda n: int(n[3:])).index(n) for n in pixel.groups()] == order  # red first
    session = executor.Session(package.read(made.path))
    x = np.random.default_rng(0).standard_normal((1, 3, 6, 5)).astype(np.float32)
    for run in session.run_orders({"x": x}, (0, 1)):
        np.testing.assert_allclose(run["y"], 255 / (1 + np.exp(-x.astype(np.float64))), rtol=1e-5)


def test_as_many_rows_are_given_as_a_suppression_finds(tmp_path):
    case = next(cases("suppression"))
    made = compiler.compile(case.model(), target="metal", output=tmp_path / "m.metalpackage", inputs=dict(case.inputs))
    program = package.read(made.path)
    (y,) = (program.buffers[i] for i in program.of_kind("output"))
    assert (y.shape, program.buffers[y.rows].kind) == ((80, 3), "count")
    session = executor.Session(program)
    nothing = {**case.inputs, "scores": np.zeros_like(case.inputs["scores"])}
    assert session.run(nothing)["y"].shape == (0, 3)
    assert 0 < len(session.run(case.inputs)["y"]) <= 80
