"""What mil means, held against what Apple wrote: the value inference of coremltools' own definitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from compiler.ir import Builder, Function, Module, TensorType, from_numpy
from tests.rules.harness import rand, run_mil

OPSETS = ("iOS16", "iOS17", "iOS18")


def apple(op: str, inputs: Mapping[str, Any], opset: str) -> list[np.ndarray]:
    """What coremltools computes at compile time for the operator on constants."""
    import coremltools as ct
    from coremltools.converters.mil import Builder as mb

    found: list[np.ndarray] = []

    @mb.program(input_specs=[], opset_version=getattr(ct.target, opset))
    def program() -> Any:
        given = {
            k: [mb.const(val=x) for x in v]
            if isinstance(v, list)
            else mb.const(val=v)
            if isinstance(v, np.ndarray)
            else v
            for k, v in inputs.items()
        }
        made = getattr(mb, op)(**given)
        results = list(made) if isinstance(made, (tuple, list)) else [made]
        found.extend(np.asarray(r.val) for r in results)
        return results[0]

    assert all(f.dtype != object for f in found), f"coremltools has no value for {op}"
    return found


def ours(op: str, inputs: Mapping[str, Any], results: int) -> list[np.ndarray]:
    """What the operator means, on arrays given at run time where it takes operands, and on attributes."""
    from compiler.ir import lookup

    defn = lookup(f"mil.{op}")
    names = [s.name for s in defn.operands]
    arrays: dict[str, np.ndarray] = {}
    function = Function("main", {}, [f"y{i}" for i in range(results)])
    operands: list[Any] = []
    b = Builder(function.block)
    for spec in defn.operands:
        given = inputs.get(spec.name)
        for i, array in enumerate(given if isinstance(given, list) else [given]):
            if array is None:
                operands.append(None)
            elif spec.name in ("alpha", "beta", "pad") or (op == "slice_update" and array.dtype.kind == "i"):
                operands.append(b.constant(np.asarray(array), "mil"))
            else:
                name = f"in_{spec.name}{i}"
                arrays[name] = np.asarray(array)
                operands.append(
                    function.block.add_argument(TensorType(from_numpy(arrays[name].dtype), arrays[name].shape), name)
                )
    while operands and operands[-1] is None:
        operands.pop()
    attributes = {k: v for k, v in inputs.items() if k not in names}
    made = b.op(f"mil.{op}", operands, attributes, results=results)
    function.set_outputs(made.results)
    module = Module("m")
    module.add(function)
    return run_mil(module, arrays)


def i32(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


X, Y = rand(2, 3, 4), rand(3, 1, seed=1)
POSITIVE = np.abs(X) + 0.1
N = rand(2, 3, 4, dtype=np.int32)
D = np.where(rand(3, 4, seed=2, dtype=np.int32) == 0, 3, rand(3, 4, seed=2, dtype=np.int32)).astype(np.int32)
FLAGS = rand(3, 4, dtype=bool)
HALVES = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49999997], np.float32)

CASES: list[tuple[str, dict[str, Any]]] = [
    *[(op, {"x": X, "y": Y}) for op in ("add", "sub", "mul", "real_div", "maximum", "minimum", "mod", "floor_div")],
    *[(op, {"x": N, "y": D}) for op in ("add", "sub", "mul", "maximum", "minimum", "mod", "floor_div")],
    ("pow", {"x": POSITIVE, "y": Y}),
    ("pow", {"x": np.abs(N), "y": i32(0, 1, 2, 3)}),
    *[(op, {"x": N, "y": D}) for op in ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")],
    *[(op, {"x": FLAGS, "y": FLAGS[::-1].copy()}) for op in ("logical_and", "logical_or", "logical_xor")],
    ("logical_not", {"x": FLAGS}),
    *[
        (op, {"x": X})
        for op in (
            "abs",
            "atan",
            "ceil",
            "cos",
            "cosh",
            "erf",
            "exp",
            "exp2",
            "floor",
            "sign",
            "sin",
            "sinh",
            "square",
            "tan",
            "tanh",
        )
    ],
    *[(op, {"x": np.tanh(X)}) for op in ("acos", "asin", "atanh")],
    ("round", {"x": HALVES}),
    ("floor", {"x": HALVES}),
    ("exp2", {"x": N}),
    ("sign", {"x": N}),
    ("abs", {"x": N}),
    ("square", {"x": N}),
    ("sqrt", {"x": POSITIVE}),
    ("log", {"x": POSITIVE}),
    ("log", {"x": POSITIVE, "epsilon": 0.5}),
    ("rsqrt", {"x": POSITIVE}),
    ("rsqrt", {"x": POSITIVE, "epsilon": 0.25}),
    ("inverse", {"x": X}),
    ("inverse", {"x": X, "epsilon": 0.5}),
    ("clip", {"x": X, "alpha": np.float32(-0.5), "beta": np.float32(0.7)}),
    ("threshold", {"x": X, "alpha": np.float32(0.1)}),
    ("select", {"cond": FLAGS, "a": X[0], "b": X[1]}),
    *[("cast", {"x": X * 5, "dtype": d}) for d in ("int32", "bool", "fp16", "fp32")],
    *[("cast", {"x": N, "dtype": d}) for d in ("fp32", "bool", "fp16")],
    ("cast", {"x": FLAGS, "dtype": "int32"}),
    ("identity", {"x": X}),
    *[
        (f"reduce_{op}", {"x": x, "axes": axes, "keep_dims": keep})
        for op, x in [
            ("sum", X),
            ("mean", X),
            ("max", X),
            ("min", X),
            ("prod", X),
            ("l1_norm", X),
            ("l2_norm", X),
            ("sum_square", X),
            ("log_sum", POSITIVE),
            ("log_sum_exp", X),
            ("sum", N),
            ("max", N),
            ("prod", N),
        ]
        for axes, keep in [((1,), False), ((-1, 0), True)]
    ],
    ("reduce_sum", {"x": X}),
    *[
        (f"reduce_{op}", {"x": x, "axis": axis, "keep_dims": k})
        for op in ("argmax", "argmin")
        for x, axis, k in ((X, 1, True), (N, -1, False))
    ],
    ("cumsum", {"x": X, "axis": 1}),
    ("cumsum", {"x": N, "axis": 2, "reverse": True}),
    ("matmul", {"x": rand(2, 3, 4), "y": rand(4, 5)}),
    ("matmul", {"x": rand(5, 2, 4, 3), "y": rand(2, 5, 4), "transpose_x": True, "transpose_y": True}),
    ("matmul", {"x": rand(4), "y": rand(2, 4, 3)}),
    ("matmul", {"x": N[0], "y": D.T.copy()}),
    ("linear", {"x": rand(3, 4), "weight": rand(5, 4), "bias": rand(5)}),
    ("linear", {"x": rand(2, 3, 4), "weight": rand(5, 4)}),
    ("einsum", {"values": [rand(2, 3, 4, 5), rand(2, 5, 4, 6)], "equation": "nchw,nwhu->nchu"}),
    ("einsum", {"values": [rand(3, 1, 5), rand(5, 4, 6)], "equation": "chw,whr->chr"}),
    # ---- shapes
    ("transpose", {"x": X, "perm": (2, 0, 1)}),
    ("transpose", {"x": X, "perm": (-1, 0, -2)}),
    ("expand_dims", {"x": X, "axes": (0, -1)}),
    ("squeeze", {"x": rand(1, 3, 1, 2), "axes": (0, -2)}),
    ("squeeze", {"x": rand(1, 3, 1, 2)}),
    ("reshape", {"x": X, "shape": i32(4, -1)}),
    ("reshape", {"x": X, "shape": i32(0, 4, -1)}),
    ("flatten2d", {"x": X, "axis": 2}),
    ("flatten2d", {"x": X, "axis": -1}),
    ("reverse", {"x": X, "axes": (0, -1)}),
    ("reverse", {"x": X}),
    ("concat", {"values": [rand(2, 3), rand(2, 1)], "axis": -1}),
    ("stack", {"values": [rand(2, 3), rand(2, 3, seed=4)], "axis": 1}),
    ("stack", {"values": [rand(2, 3), rand(2, 3, seed=4)], "axis": -1}),
    ("split", {"x": X, "num_splits": 2, "axis": 2}),
    ("split", {"x": X, "split_sizes": (1, 2, 1), "axis": -1}),
    ("tile", {"x": X, "reps": i32(1, 2, 3)}),
    ("pad", {"x": X, "pad": i32(1, 0, 2, 1), "constant_val": 2.5}),
    ("pad", {"x": X, "pad": i32(1, 2, 3, 0), "mode": "reflect"}),
    ("pad", {"x": X, "pad": i32(0, 0, 1, 2, 3, 0), "mode": "replicate"}),
    ("slice_by_index", {"x": X, "begin": i32(0, -2, 1), "end": i32(2, -1, 4)}),
    (
        "slice_by_index",
        {"x": X, "begin": i32(1, 2, 3), "end": i32(0, 0, 0), "stride": (-1, -1, -2), "end_mask": (True, False, True)},
    ),
    (
        "slice_by_index",
        {
            "x": X,
            "begin": i32(0, 9, 9),
            "end": i32(9, 9, 2),
            "begin_mask": (False, True, True),
            "end_mask": (False, True, False),
            "stride": (1, 2, -1),
        },
    ),
    ("slice_by_index", {"x": X, "begin": i32(1, 0, -1), "end": i32(0, 3, 0), "squeeze_mask": (True, False, True)}),
    ("slice_by_size", {"x": X, "begin": i32(0, 1, 1), "size": i32(2, -1, 2)}),
    ("gather", {"x": X, "indices": i32(1, 0, 1), "axis": 1}),
    ("gather", {"x": X, "indices": np.int32(2), "axis": -1}),
    ("gather", {"x": X, "indices": i32([0, 2], [1, 0]), "axis": 1, "batch_dims": 1}),
    ("gather", {"x": rand(2, 3, 4, 5), "indices": i32([[0, 2]], [[3, 1]]), "axis": 2, "batch_dims": 1}),
    ("gather_along_axis", {"x": X, "indices": i32([[0, 1, 1, 0]], [[1, 0, 2, 2]]).repeat(1, 1), "axis": 1}),
    (
        "scatter_along_axis",
        {
            "data": X,
            "indices": i32([[0, 1, 1, 0]], [[1, 0, 2, 2]]),
            "updates": rand(2, 1, 4, seed=7),
            "axis": 1,
            "mode": "update",
        },
    ),
    ("band_part", {"x": rand(4, 5), "lower": 1, "upper": 0}),
    ("band_part", {"x": rand(4, 5), "lower": -1, "upper": 2}),
    ("topk", {"x": X, "k": 2, "axis": -1}),
    ("topk", {"x": X, "k": 2, "axis": 1, "ascending": True}),
    ("argsort", {"x": X, "axis": 1}),
    ("argsort", {"x": X, "ascending": True}),
    ("non_zero", {"x": FLAGS}),
    ("non_zero", {"x": N}),
    ("shape", {"x": X}),
    ("fill", {"shape": i32(2, 3), "value": 1.5}),
    ("fill", {"shape": i32(2, 3), "value": 7}),
    ("fill", {"shape": i32(2, 3), "value": True}),
    ("fill_like", {"ref_tensor": X, "value": 2.0}),
    ("range_1d", {"start": np.int32(1), "end": np.int32(9), "step": np.int32(3)}),
    ("range_1d", {"start": np.float32(0.5), "end": np.float32(3), "step": np.float32(0.75)}),
]


@pytest.mark.parametrize(("op", "inputs"), CASES, ids=[f"{i}-{op}" for i, (op, _) in enumerate(CASES)])
def test_against_coremltools(op: str, inputs: dict[str, Any]) -> None:
    want = apple(op, inputs, "iOS17")
    got = ours(op, inputs, len(want))
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), 1e-5, 1e-6)


def test_concat_interleaves() -> None:
    """The example of coremltools' documentation, whose value inference ignores the parameter."""
    a, b = np.array([[1, 2], [3, 4], [5, 6]], np.float32), np.array([[7, 8], [9, 10], [11, 12]], np.float32)
    (got,) = ours("concat", {"values": [a, b], "axis": 0, "interleave": True}, 1)
    np.testing.assert_array_equal(got, [[1, 2], [7, 8], [3, 4], [9, 10], [5, 6], [11, 12]])


def test_exclusive_cumsum() -> None:
    """By the documentation: the first element is 0. (coremltools' value inference fails on it.)"""
    (got,) = ours("cumsum", {"x": np.array([1, 2, 3], np.float32), "axis": 0, "exclusive": True}, 1)
    np.testing.assert_array_equal(got, [0, 1, 3])


def test_one_hot() -> None:
    (got,) = ours(
        "one_hot", {"indices": i32(0, 2, 5), "one_hot_vector_size": np.int32(3), "on_value": 4, "off_value": 1}, 1
    )
    np.testing.assert_array_equal(got, [[4, 1, 1], [1, 1, 4], [1, 1, 1]])
    (got,) = ours("one_hot", {"indices": i32(0, 2), "one_hot_vector_size": np.int32(3), "axis": 0}, 1)
    np.testing.assert_array_equal(got, [[1, 0], [0, 0], [0, 1]])


def test_sliding_windows() -> None:
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    (got,) = ours("sliding_windows", {"x": x, "axis": 1, "size": 3, "stride": 2}, 1)
    np.testing.assert_array_equal(got, [[[0, 1, 2], [2, 3, 4]], [[6, 7, 8], [8, 9, 10]]])


def test_reverse_sequence() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    (got,) = ours("reverse_sequence", {"x": x, "lengths": i32(1, 3, 4), "seq_axis": 1, "batch_axis": 0}, 1)
    np.testing.assert_array_equal(got, [[0, 1, 2, 3], [6, 5, 4, 7], [11, 10, 9, 8]])


@pytest.mark.parametrize(
    ("mode", "want"),
    [
        ("update", [7, 9, 3]),
        ("add", [8, 11, 3]),
        ("sub", [-6, -7, 3]),
        ("mul", [7, 18, 3]),
        ("div", [1 / 7, 2 / 9, 3]),
        ("max", [7, 9, 3]),
        ("min", [1, 2, 3]),
    ],
)
def test_scatters(mode: str, want: list[float]) -> None:
    data, updates = np.array([1, 2, 3], np.float32), np.array([9, 7], np.float32)
    (got,) = ours("scatter", {"data": data, "indices": i32(1, 0), "updates": updates, "mode": mode}, 1)
    np.testing.assert_allclose(got, want, 1e-6)
    (got,) = ours("scatter_nd", {"data": data, "indices": i32([1], [0]), "updates": updates, "mode": mode}, 1)
    np.testing.assert_allclose(got, want, 1e-6)


def test_scatter_along_inner_axis() -> None:
    """The example of coremltools' documentation, transposed."""
    data = np.array([[1, 4], [2, 5], [3, 6]], np.float32)
    updates = np.array([[5, 8], [6, 9], [7, 10]], np.float32)
    (got,) = ours("scatter", {"data": data, "indices": i32(1, 0), "updates": updates, "axis": 1, "mode": "add"}, 1)
    np.testing.assert_array_equal(got, np.array([[9, 11, 13], [9, 11, 13]]).T)


def test_slice_update() -> None:
    (got,) = ours(
        "slice_update",
        {"x": rand(3, 4), "update": rand(2, 2, seed=5), "begin": i32(1, 0), "end": i32(3, 4), "stride": (1, 2)},
        1,
    )
    want = rand(3, 4).copy()
    want[1:3, 0:4:2] = rand(2, 2, seed=5)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind", ["none", "added", "bool"])
def test_attention(kind: str) -> None:
    q, k, v = rand(2, 3, 4, 8), rand(2, 3, 5, 8, seed=1), rand(2, 3, 5, 8, seed=2)
    scores = q @ np.swapaxes(k, -1, -2) / np.sqrt(8)
    given: dict[str, Any] = {"query": q, "key": k, "value": v}
    if kind == "added":
        given["attn_mask"] = rand(4, 5)
        scores = scores + given["attn_mask"]
    elif kind == "bool":
        given["attn_mask"] = np.tril(np.ones((4, 5), bool))
        scores = np.where(given["attn_mask"], scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    want = weights / weights.sum(-1, keepdims=True) @ v
    (got,) = ours("scaled_dot_product_attention", given, 1)
    np.testing.assert_allclose(got, want, 1e-4, 1e-5)
