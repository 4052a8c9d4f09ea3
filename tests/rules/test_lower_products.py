"""Lowering and back: reductions, products, transforms. See :mod:`tests.rules.harness`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler import ir
from tests.rules.harness import C, build, check, kinds, lower, rand, refuses, run_mil

X = rand(2, 3, 4)
N = rand(2, 3, 4, dtype=np.int64)


# ---- reductions

REDUCTIONS = [
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceSumSquare",
    "ReduceLogSumExp",
]


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reduce(op: str, keepdims: int) -> None:
    check(op, [X, C([1])], {"keepdims": keepdims})
    check(op, [X, C([-1, 0])], {"keepdims": keepdims})
    check(op, [X], {"keepdims": keepdims})


def test_reduce_log_sum() -> None:
    check("ReduceLogSum", [np.abs(X) + 0.1, C([2])])


def test_reduce_integers() -> None:
    for op in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceSumSquare"):
        check(op, [N.astype(np.int32), C([1])])
    check("ReduceMax", [N > 0, C([1])])
    refuses("ReduceMean", [N.astype(np.int32), C([1])])


def test_reduce_nothing() -> None:
    check("ReduceSum", [X], {"noop_with_empty_axes": 1})
    check("ReduceMax", [np.float32(3)])


def test_reduce_along_computed_axes() -> None:
    cube = rand(3, 2, 2)
    for axes in ([1], [2], [-1]):
        module, arrays = build("ReduceSum", [cube, np.array(axes)], {"keepdims": 0})
        module.main.outputs[0].type = ir.TensorType(ir.F32, (3, 2))
        got = run_mil(lower(module), arrays)[0]
        np.testing.assert_allclose(got, cube.sum(axis=axes[0]), 1e-5)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_arg(op: str) -> None:
    ties = np.array([[1, 5, 5, 2], [0, 0, -1, -1]], np.float32)
    for axis in (0, -1):
        for keepdims in (0, 1):
            for last in (0, 1):
                check(op, [ties], {"axis": axis, "keepdims": keepdims, "select_last_index": last})


def test_scans_and_sorts() -> None:
    check("CumSum", [X, C(np.int64(-1))], {"exclusive": 1, "reverse": 1})
    check("CumSum", [N, C(np.int64(1))])
    check("CumSum", [X, np.int64(1)])
    check("TopK", [X, C([2])], {"axis": 1}, results=2)
    check("TopK", [X, C([3])], {"largest": 0}, results=2)


# ---- products


def test_matmul() -> None:
    assert kinds(check("MatMul", [rand(2, 3, 4), C(rand(4, 5))])) == ["linear"]
    assert kinds(check("MatMul", [rand(2, 3, 4, 5), C(rand(5, 6))])) == ["linear"]
    assert kinds(check("MatMul", [rand(2, 1, 3, 4, 5), C(rand(5, 6))])) == ["matmul"]
    for a, b in [
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((3,), (3, 4)),
        ((2, 3), (3,)),
        ((3,), (3,)),
        ((2, 3, 4), (4,)),
    ]:
        check("MatMul", [rand(*a), rand(*b, seed=1)])
    check("MatMul", [rand(2, 3, dtype=np.int32), rand(3, 4, dtype=np.int32)])


@pytest.mark.parametrize(
    "attributes", [{}, {"transA": 1}, {"transB": 1}, {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}]
)
def test_gemm(attributes: dict[str, Any]) -> None:
    a = rand(4, 3) if attributes.get("transA") else rand(3, 4)
    b = rand(5, 4, seed=1) if attributes.get("transB") else rand(4, 5, seed=1)
    for bias in (None, C(rand(5)), C(rand(1, 5)), C(rand(3, 1)), C(1.5), rand(3, 5)):
        check("Gemm", [a, b, bias], attributes)
        check("Gemm", [a, C(b), bias], attributes)


def test_dense_layer_is_linear() -> None:
    module, arrays = build("MatMul", [rand(3, 4), C(rand(4, 5))])
    b = ir.Builder(module.main.block)
    module.main.set_outputs([b.op("onnx.Add", [b.constant(rand(1, 5), "onnx"), module.main.outputs[0]]).result])
    lowered = lower(module)
    assert kinds(lowered) == ["linear"]
    np.testing.assert_allclose(run_mil(lowered, arrays)[0], arrays["x0"] @ rand(4, 5) + rand(1, 5), 1e-5)
    assert kinds(check("Gemm", [rand(3, 4), C(rand(4, 5)), C(rand(5))])) == ["linear"]


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("nchw,nwhu->nchu", [(2, 3, 4, 5), (2, 5, 4, 6)]),
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bij,bjk->bik", [(5, 2, 3), (5, 3, 4)]),
        ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
        ("bqhd,bkhd->bhqk", [(2, 4, 3, 5), (2, 6, 3, 5)]),
        ("i,j->ij", [(3,), (4,)]),
        ("i,i->", [(3,), (3,)]),
        ("ij->ji", [(2, 3)]),
        ("ij->", [(2, 3)]),
        ("ii->i", [(3, 3)]),
        ("ii", [(3, 3)]),
        ("...ij,...jk->...ik", [(2, 5, 2, 3), (2, 1, 3, 4)]),
        ("...ij,jk", [(2, 5, 2, 3), (3, 4)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
        ("bc,bc->b", [(2, 3), (2, 3)]),
        ("ab,cd->acbd", [(2, 3), (4, 5)]),
        ("abc,c->ab", [(2, 3, 4), (4,)]),
        ("abc,cb->a", [(2, 1, 4), (4, 3)]),
        ("abcd,abcd->abc", [(2, 3, 4, 5), (2, 3, 4, 5)]),
        ("kij,jk->ik", [(4, 2, 3), (3, 4)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    check("Einsum", [rand(*s, seed=i) for i, s in enumerate(shapes)], {"equation": equation})


def test_einsum_with_weights_is_linear() -> None:
    made = check("Einsum", [rand(2, 3, 4), C(rand(2, 5, 4))], {"equation": "btd,hkd->bthk"})
    assert kinds(made) == ["linear", "reshape"]


# ---- Fourier transforms


@pytest.mark.parametrize("parts", [1, 2])
def test_dft(parts: int) -> None:
    x = rand(2, 7, 3, parts)
    for attributes in ({}, {"onesided": 1}, {"inverse": 1}):
        if not (attributes.get("onesided") and parts == 2):
            check("DFT", [x, None, C(np.int64(1))], attributes, rtol=1e-4, atol=1e-5)
    check("DFT", [x, C(np.int64(4)), C(np.int64(1))], rtol=1e-4, atol=1e-5)
    check("DFT", [x, C(np.int64(5))], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [6, 7])
def test_inverse_dft_of_half_a_spectrum(n: int) -> None:
    signal = rand(2, n)
    half = np.fft.rfft(signal)
    pairs = np.stack([half.real, half.imag], axis=-1).astype(np.float32)
    attributes = {"inverse": 1, "onesided": 1}
    module, arrays = build("DFT", [pairs, C(np.int64(n)), C(np.int64(1))], attributes)
    np.testing.assert_allclose(run_mil(lower(module), arrays)[0][..., 0], signal, 1e-4, 1e-5)


def test_stft() -> None:
    signal, window = rand(2, 64, 1), C(np.hanning(16).astype(np.float32))
    for onesided in (0, 1):
        check("STFT", [signal, C(np.int64(8)), window, C(np.int64(16))], {"onesided": onesided}, rtol=1e-4, atol=1e-4)
    check("STFT", [signal, C(np.int64(8)), None, C(np.int64(16))], rtol=1e-4, atol=1e-4)


# ---- operators that ONNX defines by others


def test_attention_by_its_definition() -> None:
    q, k, v = rand(1, 2, 3, 8), rand(1, 2, 5, 8, seed=1), rand(1, 2, 5, 8, seed=2)
    check("Attention", [q, k, v], {"is_causal": 1}, os="ios18")
