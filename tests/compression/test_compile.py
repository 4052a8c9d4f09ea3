"""``compile(…, quantize=…)``: sizes, proofs, distances, and that a wrong package is found out."""

from __future__ import annotations

import json

import numpy as np
import pytest

import compiler
from compiler.compression import exact
from compiler.errors import UserError, VerificationError
from passes.compress import Linear
from passes.compress import run as compress_weights
from tests.compression.conftest import MODEL, SHAPE


def build(tmp_path, **options):
    return compiler.compile(MODEL, "ane", tmp_path / "out.mlpackage", shapes={"x": SHAPE}, verify="fast", **options)


def weights(done):
    return {w["name"]: w for w in done.report.compression["weights"]}


def test_int8_is_smaller_proven_and_says_how_far_it_is_off(tmp_path):
    done = build(tmp_path, quantize="int8")
    report = done.report
    assert report.verify.passed
    assert {w["scheme"] for w in weights(done).values()} == {"int8"}
    before, after = (sum(w[k] for w in weights(done).values()) for k in ("before", "after"))
    assert after < 0.53 * before  # of halves
    assert report.bytes["package"] < report.compression["package_before"] - 0.4 * before
    (distance,) = report.compression["distance"].values()
    assert 0 < distance["rel_l2"] < 1
    assert all(0 < w["error"] < 0.02 for w in weights(done).values())
    assert any(op.name == "mil.constexpr_affine_dequantize" for op in done.module.walk())


@pytest.mark.parametrize(
    ("quantize", "os", "operator"),
    [
        ("palette6", "ios16", "mil.constexpr_lut_to_dense"),
        ("int4-affine-block8", "ios18", "mil.constexpr_blockwise_shift_scale"),
        ("sparse50+int8", "ios18", "mil.constexpr_sparse_to_dense"),
    ],
)
def test_forms(tmp_path, quantize, os, operator):
    done = build(tmp_path, quantize=quantize, os=os)
    assert done.report.verify.passed
    assert any(op.name == operator for op in done.module.walk())


def test_calibration_makes_outputs_better(tmp_path, data):
    plain = build(tmp_path, quantize="palette4", inputs={"x": data["x"][:1]})
    better = build(tmp_path, quantize="palette4", inputs={"x": data["x"][:1]}, calibrate=data)
    off = [next(iter(d.report.compression["distance"].values()))["rel_l2"] for d in (plain, better)]
    assert better.report.verify.passed
    assert better.report.compression["samples"] == 4
    assert off[1] < off[0]


def test_biases_are_corrected_without_calibration_inputs(tmp_path):
    """By made-up pictures, which do not depend on what is proven."""

    def biases(quantize: str, verify: str = "off") -> list[np.ndarray]:
        path = tmp_path / "out.mlpackage"
        done = compiler.compile(MODEL, "ane", path, os="ios18", shapes={"x": SHAPE}, verify=verify, quantize=quantize)
        held = [op.operand("bias") for op in done.module.walk() if op.name == "mil.conv"]
        return [b.constant for b in held if b is not None]

    corrected, proven, exact = biases("int8"), biases("int8", "fast"), biases("palette8-unique")
    plain = biases("int8-nearest")
    np.testing.assert_equal(corrected, proven)
    np.testing.assert_equal(exact, plain)
    changed = [not np.array_equal(a, b) for a, b in zip(corrected, plain, strict=True)]
    assert sum(changed) > 10


def test_activations_and_the_file_of_their_ranges(tmp_path, data):
    file = tmp_path / "ranges.json"
    done = build(tmp_path, quantize="w8a8", calibrate=data, ranges=file)
    assert done.report.verify.passed
    assert done.report.verify.limit == 1e-4
    names = [op.name for op in done.module.walk()]
    assert names.count("mil.quantize") == names.count("mil.dequantize") > 10
    held = json.loads(file.read_text())
    assert held == {k: pytest.approx(v, rel=1e-6) for k, v in done.report.compression["activations"].items()}
    # A layer that is taken out stays as it is, and no data is needed any more.
    first = next(iter(held))
    del held[first]
    file.write_text(json.dumps(held))
    again = build(tmp_path, quantize="w8a8", ranges=file)
    assert first not in again.report.compression["activations"]
    held["conv_of_nowhere"] = [0, 1]
    file.write_text(json.dumps(held))
    with pytest.raises(UserError, match="the ranges name a layer 'conv_of_nowhere', which there is not"):
        build(tmp_path, quantize="w8a8", ranges=file)
    file.write_text('{"a": [2, 1]}')
    with pytest.raises(UserError, match=r"hold \[2, 1\] for 'a'"):
        build(tmp_path, quantize="w8a8", ranges=file)


def test_mixed_precision_keeps_its_limits(tmp_path, data):
    size = build(tmp_path, quantize="int8").report.bytes["package"]
    budget = size - 60_000
    done = build(tmp_path, quantize="mixed", budget=budget, calibrate=data)
    assert done.report.bytes["package"] <= budget
    assert len({w["scheme"] for w in weights(done).values()}) > 1
    done = build(tmp_path, quantize="mixed", max_error=0.05, calibrate=data)
    (distance,) = done.report.compression["distance"].values()
    assert distance["rel_l2"] <= 0.05
    assert sum(w["after"] for w in weights(done).values()) < sum(w["before"] for w in weights(done).values())
    with pytest.raises(UserError, match="which is over the budget"):
        build(tmp_path, quantize="mixed", budget=80_000, calibrate=data)


def test_outputs_too_far_off_are_an_error(tmp_path):
    with pytest.raises(VerificationError, match=r"once compressed, output '.*' is .* from the original's"):
        build(tmp_path, quantize="palette1", max_error=0.01)
    assert not (tmp_path / "out.mlpackage").exists()


@pytest.mark.parametrize("quantize", ["int8", "palette6"])
def test_wrong_integers_are_found_out(tmp_path, monkeypatch, quantize):
    """One element of one weight, wrong on disk, and the proof fails."""
    from compiler.compression import stage

    def wrong(module, *args, **options):
        records = compress_weights(module, *args, **options)
        ops = [op for op in module.walk() if op.name.startswith("mil.constexpr_")]
        data = ops[-1].operands[0].op
        changed = data.attributes["val"].copy()
        changed.reshape(-1)[:64] ^= 0x55
        data.attributes["val"] = changed
        return records

    monkeypatch.setattr(stage, "compress_weights", wrong)
    with pytest.raises(VerificationError, match="does not compute the model with its own weights"):
        build(tmp_path, quantize=quantize)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int7"}, "--quantize knows no 'int7'; did you mean 'int"),
        ({"quantize": "int4"}, "int4 in blocks of 32 weights need iOS 18 or later"),
        ({"quantize": "mixed"}, "--quantize mixed needs to know when to stop"),
        ({"quantize": "mixed", "budget": "4 cats"}, "--budget 4 cats is no size"),
        ({"quantize": "int8", "budget": "4MB"}, "--budget chooses between schemes, and --quantize int8 is one"),
        ({"max_error": 0.1}, "--max-error says how to compress, but not what"),
        ({"prune": 0.3, "max_error": 7.0}, "--max-error 7 is no relative error between 0 and 1"),
        ({"quantize": "int8", "calibrate": {"x": np.full(SHAPE, np.nan, np.float32)}}, "input 'x' holds NaN"),
        ({"quantize": "int8", "calibrate": {"x": np.full(SHAPE, "a")}}, "which are no numbers"),
        ({"quantize": "int8", "max_error": 2.0}, "--max-error 2 is no relative error between 0 and 1"),
        ({"quantize": "w8a8"}, "--quantize w8a8 needs inputs to find the ranges of activations on"),
        ({"quantize": "w8a8", "os": "ios16"}, "quantized activations need iOS 17 or later"),
        ({"quantize": "int8", "ranges": "r.json"}, "--ranges holds the ranges of activations, which stay floats"),
        ({"budget": "4MB"}, "--budget says how to compress, but not what"),
        (
            {"quantize": "w8a8", "calibrate": {}, "ranges": "none/r.json"},
            "is no file that the ranges could be written to",
        ),
        ({"quantize": "w8a8", "calibrate": {}, "range_method": "median"}, "no way to find ranges is called 'median'"),
        ({"quantize": "int8", "calibrate": {}}, "there is no array for input 'x' in the calibration inputs"),
        ({"quantize": "int8", "calibrate": []}, "there are no calibration inputs"),
        ({"quantize": "int8", "calibrate": {"x": np.zeros((3, 48))}}, "input 'x' has shape"),
        ({"quantize": "int8", "calibrate": "absent.npz"}, "cannot read the inputs absent.npz"),
    ],
)
def test_errors(tmp_path, options, message):
    with pytest.raises(UserError) as e:
        build(tmp_path, **options)
    assert message in e.value.message
    assert e.value.remedy or "input" in e.value.message


def test_a_shared_weight_is_compressed_and_stored_once(tmp_path):
    """As in ALBERT: two layers with equal weights, which the file holds twice."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    w = rng.standard_normal((96, 96)).astype(np.float32) / 10
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w1"], ["y"]),
    ]
    type_ = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 96]) for n in ("x", "y")]
    held = [numpy_helper.from_array(w, n) for n in ("w0", "w1")]
    graph = helper.make_graph(nodes, "g", type_[:1], type_[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    done = compiler.compile(model, "cpu", tmp_path / "out.mlpackage", quantize="int8")
    assert len(done.report.compression["weights"]) == 1
    assert done.report.bytes["package"] < 1.6 * w.size
    assert sum(op.name.startswith("mil.constexpr_") for op in done.module.walk()) == 1


def test_calibration_inputs_may_hold_several_samples():
    from compiler import ir
    from compiler.compression import calibration

    main = ir.Function("main", {"a": ir.TensorType(ir.F32, (1, 3)), "n": ir.TensorType(ir.I32, ())}, [])
    several = calibration.samples({"a": np.ones((5, 3)), "n": np.arange(5)}, main)
    assert [(s[0].shape, int(s[1])) for s in several] == [((1, 3), i) for i in range(5)]
    assert several[0][0].dtype == np.float32
    assert all(isinstance(a, np.ndarray) for s in several for a in s)  # onnxruntime takes no NumPy scalars
    one = calibration.samples([{"a": np.ones((1, 3)), "n": np.int64(7)}], main)
    assert len(one) == 1
    with pytest.raises(UserError, match="different numbers of samples"):
        calibration.samples({"a": np.ones((5, 1, 3)), "n": np.arange(4)}, main)


def test_widening_rounds_nothing_but_compressed_weights():
    from compiler import ir

    module = ir.parse_module("""
module @m {
  func @main(%x: tensor<1x64xf16>) -> (%y: tensor<1x64xf16>) {
    %w = mil.const() {val = dense<0.1>} : tensor<64x64xf16>
    %y = mil.linear(%x, %w) : tensor<1x64xf16>
    return %y
  }
}
""")
    compress_weights(module, Linear(), 17)
    exact.widen(module)
    ir.verify(module)
    kinds = [(op.name, str(op.results[0].type)) for op in module.walk() if op.results and op.defn.constant is None]
    assert kinds == [
        ("mil.constexpr_affine_dequantize", "tensor<64x64xf16>"),
        ("mil.cast", "tensor<64x64xf32>"),
        ("mil.linear", "tensor<1x64xf32>"),
    ]
