"""Kernels that differ in sizes alone: one function, whose constants the plan gives, on a CPU as on a GPU."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

import compiler
from benchmarks.metal_families import cases
from codegen.metal import executor, lint, package, swift
from codegen.metal.library import DispatchError
from codegen.metal.program import Constant, Program, Variant
from codegen.metal.signature import SignatureError
from codegen.metal.variants import MOST, Kernel, merged, specialized
from compiler.proof import compare

HEAD = "#include <metal_stdlib>\nusing namespace metal;\nconstant int n [[function_constant(0)]];\n"
KERNEL = "kernel void k(device float* y [[buffer(0)]], uint i [[thread_position_in_grid]])"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    case = next(cases("conv variants"))
    return compiler.compile(case.model(), target="metal", output=tmp_path_factory.mktemp("m") / "m.metalpackage")


@pytest.fixture
def program(made) -> Program:
    return package.read(made.path)


def test_two_kernels_are_one_function_and_are_proven(made, program):
    assert made.report.verify.passed
    assert (made.report.placement["kernels"], made.report.placement["functions"]) == (2, 1)
    assert program.source.count("kernel void ") == 1
    assert lint.check(program.source) == []
    declared = {
        n: int(i) for n, i in re.findall(r"constant int (\w+) \[\[function_constant\((\d+)\)\]\];", program.source)
    }
    plan = json.loads((made.path / package.PLAN).read_text())
    first, second = (d["variant"] for d in plan["dispatches"])
    assert first["function"] == second["function"] == "conv_sized"
    assert {c["name"]: c["index"] for c in first["constants"]} == declared
    assert all(a["value"] != b["value"] for a, b in zip(first["constants"], second["constants"], strict=True))
    text = swift.source(program)
    for d in plan["dispatches"]:
        assert f"// as {d['kernel']}, where " in program.source
        given = ", ".join(f"{c['index']}: {c['value']}" for c in d["variant"]["constants"])
        assert f'function: "conv_sized", constants: [{given}])' in text


def _changed(program: Program, constants: tuple[Constant, ...]) -> Program:
    first, *others = program.dispatches
    assert first.variant is not None
    variant = replace(first.variant, constants=constants)
    return replace(program, dispatches=[replace(first, variant=variant), *others])


def test_another_value_gives_another_result_or_leaves_the_buffers(program):
    rng = np.random.default_rng(0)
    inputs = {b.name: rng.standard_normal(b.shape).astype(np.float32)
              for b in (program.buffers[i] for i in program.of_kind("input"))}  # fmt: skip
    right = executor.Session(program).run(inputs)["y"]
    constants = program.dispatches[0].variant.constants
    for i, c in enumerate(constants):
        wrong = _changed(program, (*constants[:i], replace(c, value=c.value + 1), *constants[i + 1 :]))
        try:
            found = executor.Session(wrong).run(inputs)["y"]
        except DispatchError:
            continue
        assert not compare(found, right).badness < 1e-5, c


def test_a_plan_that_does_not_fit_the_source_is_refused(program):
    constants = program.dispatches[0].variant.constants
    with pytest.raises(SignatureError, match="the plan gives no value for the function constant"):
        executor.Session(_changed(program, constants[1:]))
    with pytest.raises(SignatureError, match=r"there is no function constant \w+ of index 99"):
        executor.Session(_changed(program, (replace(constants[0], index=99), *constants[1:])))
    with pytest.raises(SignatureError, match="there is no function other"):
        specialized(program.source, {"k": Variant("other", ())})


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("float kept[n]; kept[0] = 1.0f; y[i] = kept[0];", "array size is not a constant expression"),
        ("simdgroup_matrix<float, n, 8> m; y[i] = m.e[0];", "non-type template argument is not a constant expression"),
        ("switch (i) { case n: y[i] = 0.0f; }", "not a constant expression|not an integral constant expression"),
    ],
)
def test_the_lint_knows_what_a_function_constant_cannot_be(body, said):
    assert lint.check(f"{HEAD}{KERNEL} {{ for (int j = 0; j < n; ++j) {{ y[i] = float(n); }} }}\n") == []
    assert re.search(said, "\n".join(lint.check(f"{HEAD}{KERNEL} {{ {body} }}\n")))


def test_the_lint_finds_an_index_that_two_constants_have():
    twice = f"{HEAD}constant int m [[function_constant(0)]];\n{KERNEL} {{ y[i] = float(n); }}\n"
    assert lint.check(twice) == ["function_constant(0) of m is there twice"]
    far = HEAD.replace("(0)", "(65536)") + f"{KERNEL} {{ y[i] = float(n); }}\n"
    assert lint.check(far) == ["function_constant(65536) of n is not in 0..65535"]


def _kernels(*bodies: str) -> list[Kernel]:
    return [Kernel(f"map_{i}", "// map", "device float* y [[buffer(0)]]", body) for i, body in enumerate(bodies)]


def test_kernels_that_differ_in_more_than_sizes_stay_apart():
    for one, other in (
        ("    float kept[4];", "    float kept[8];"),
        ("    y[0] = 1.5f;", "    y[0] = 2.5f;"),
        ("    y[0] = y[0] + 7;", "    y[0] = y[0] + 2147483648;"),
        ("    y[0] = max(y[0], y[3]);", "    y[0] = min(y[0], y[3]);"),
        *[("\n".join(f"    y[{i + k}] = y[{i * i + 3 * k}];" for i in range(MOST)) for k in (0, 50))],
    ):
        declarations, texts, variants = merged(_kernels(one, other))
        assert (declarations, len(texts), variants) == ("", 2, {})


def test_a_constant_has_the_name_of_what_it_bounds_and_no_name_that_is_taken():
    bodies = [
        f"    const int c_end = 3;\n    for (int c = 0; c < {n}; ++c) {{ y[{n} * c + {n + 1}] = 1.0f; }}"
        for n in (5, 9)
    ]
    declarations, (text,), variants = merged(_kernels(*bodies))
    assert "constant int c_end_2 [[function_constant(0)]];" in declarations
    assert "for (int c = 0; c < c_end_2; ++c) { y[c_end_2 * c + offset] = 1.0f; }" in text
    assert variants["map_1"].constants == (Constant("c_end_2", 0, 9), Constant("offset", 1, 10))
