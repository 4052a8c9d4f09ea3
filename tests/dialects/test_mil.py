"""The mil dialect against the installed coremltools, and what it answers about releases."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from compiler import ir
from compiler.dialects import mil, mil_forms, mil_snapshot
from compiler.ir import F16, F32, I8, I32, TensorType


@pytest.fixture(scope="module")
def registry():
    return mil_snapshot.snapshot()


def test_the_snapshot_is_what_the_installed_coremltools_says(registry):
    stored = json.loads(mil_snapshot.SNAPSHOT.read_text(encoding="utf-8"))
    for name, op in registry["operators"].items():
        assert stored["operators"].get(name) == op, f"run python -m compiler.dialects.mil_snapshot ({name} differs)"
    assert mil_snapshot.dump(stored) == mil_snapshot.dump(registry)


def test_every_operator_of_the_registry_has_a_definition(registry):
    for name in registry["operators"]:
        defn = ir.lookup(f"mil.{name}")
        assert all(o.arity != "variadic" for o in defn.operands[:-1]), name
        named = [o.name for o in defn.operands] + list(defn.attributes)
        inputs = {i["name"] for f in registry["operators"][name]["forms"] for i in f["inputs"]}
        assert sorted(named) == sorted(inputs), name


def test_definitions_come_without_importing_coremltools():
    code = "import sys, compiler.dialects.mil as m; m.DIALECT.lookup('conv'); print('coremltools' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@pytest.mark.parametrize(
    ("name", "operands", "attributes"),
    [
        ("conv", "x weight bias", "strides pad_type pad dilations groups"),
        ("layer_norm", "x gamma beta", "axes epsilon"),
        ("slice_by_index", "x begin end", "stride begin_mask end_mask squeeze_mask"),
        ("concat", "values", "axis interleave"),
        ("clip", "x alpha beta", ""),
        ("pad", "x pad", "mode constant_val"),
        ("constexpr_lut_to_dense", "indices lut", "shape vector_axis"),
        ("constexpr_affine_dequantize", "quantized_data zero_point scale", "axis"),
        ("quantize", "input zero_point scale", "axis output_dtype"),
        ("reshape_like", "x ref_tensors", "begins ends end_masks"),
        ("while_loop", "loop_vars", ""),
    ],
)
def test_parameters_are_attributes_and_data_are_operands(name, operands, attributes):
    defn = ir.lookup(f"mil.{name}")
    assert " ".join(o.name for o in defn.operands) == operands
    assert " ".join(defn.attributes) == attributes


def test_defaults_that_depend_on_operands_are_not_defaults():
    conv = ir.lookup("mil.conv")
    assert conv.defaults() == {"pad_type": "valid", "groups": 1}
    assert ir.lookup("mil.rsqrt").defaults() == {"epsilon": 1e-12}
    assert "output_indices_dtype" not in ir.lookup("mil.topk").defaults()


def test_traits():
    assert ir.lookup("mil.add").commutative
    assert not ir.lookup("mil.sub").commutative
    assert not ir.lookup("mil.random_normal").pure
    assert not ir.lookup("mil.read_state").pure
    assert ir.lookup("mil.const").constant == "val"
    assert ir.lookup("mil.cond").regions == ("true", "false")
    assert ir.lookup("mil.while_loop").regions == ("cond", "body")


def test_releases():
    assert not mil.supports("scaled_dot_product_attention", "ios17")
    assert mil.supports("mil.scaled_dot_product_attention", "ios26")
    assert mil.since("pixel_unshuffle") == "ios16"
    assert mil.dtypes("gather", "indices", "ios15") == {I32}
    assert I8 in mil.dtypes("gather", "indices", "ios17")
    assert mil.dtypes("concat", "values", "ios17") is None
    assert [r.specification for r in mil_forms.releases().values()] == [6, 7, 8, 9, 10]
    with pytest.raises(ValueError, match="did you mean 'ios17'"):
        mil.supports("conv", "ios177")
    with pytest.raises(KeyError):
        mil.dtypes("gather", "batch_dims", "ios15")


def conv(x=F16, w=F16, attributes=None, **other):
    f = ir.Function("main", {"x": TensorType(x, (1, 3, 8, 8))})
    b = ir.Builder(f.block)
    weight = b.constant(np.ones((4, 3, 1, 1), w.numpy), "mil")
    attributes = {"strides": (1, 1), "pad": (0, 0, 0, 0), "dilations": (1, 1)} if attributes is None else attributes
    return b.op("mil.conv", [f.inputs[0], weight], attributes, [TensorType(x, (1, 4, 8, 8))])


def test_legal_accepts_what_a_release_has():
    assert mil.legal(conv(), "ios15") is None


@pytest.mark.parametrize(
    ("op", "os", "reason"),
    [
        (
            lambda: conv(w=F32),
            "ios15",
            "mil.conv needs one element type for 'x' and 'weight' in ios15, got f16 and f32",
        ),
        (lambda: conv(x=I32), "ios17", "mil.conv does not take i32 for 'x' in ios17 (f16, f32)"),
        (lambda: conv(attributes={}), "ios17", "mil.conv needs 'strides' spelled out"),
        (lambda: gather(batch_dims=1), "ios15", "mil.gather has no parameter 'batch_dims' in ios15"),
        (lambda: unary("mil.pixel_unshuffle", downscale_factor=2), "ios15", "mil.pixel_unshuffle exists from ios16 on"),
        (lambda: unary("mil.transpose"), "ios17", "mil.transpose needs 'perm' in ios17"),
    ],
)
def test_legal_says_why_not(op, os, reason):
    assert mil.legal(op(), os).startswith(reason)


def unary(name, **attributes):
    f = ir.Function("main", {"x": TensorType(F16, (1, 3, 8, 8))})
    return ir.Builder(f.block).op(name, [f.inputs[0]], attributes, [f.inputs[0].type])


def gather(**attributes):
    f = ir.Function("main", {"x": TensorType(F16, (3, 8)), "i": TensorType(I32, (3, 1))})
    return ir.Builder(f.block).op("mil.gather", f.inputs, attributes, [TensorType(F16, (3, 1, 8))])


def test_what_must_be_const_must_come_from_a_constant():
    f = ir.Function("main", {"x": TensorType(F16, (1, 4)), "w": TensorType(F16, (8, 4))})
    op = ir.Builder(f.block).op("mil.linear", f.inputs, {}, [TensorType(F16, (1, 8))])
    assert mil.legal(op, "ios17") == "mil.linear needs a constant for 'weight' in ios17"


def test_an_attribute_at_its_default_is_legal_where_the_release_does_not_know_it():
    assert mil.legal(gather(), "ios15") is None


def test_attributes_take_the_element_type_of_what_they_stand_beside():
    spec = mil_forms.form("layer_norm", "ios17").inputs["epsilon"]
    assert mil_forms.parameter_dtype(spec, 1e-5, {"T": F16}, F16) is F16
    assert mil_forms.parameter_dtype(spec, 1e-5, {"U": F32}, F16) is F32
    assert mil_forms.parameter_dtype(spec, np.array(1e-5, np.float32), {"U": F16}, F16) is F32
    fill = mil_forms.form("fill", "ios17").inputs["value"]
    assert mil_forms.parameter_dtype(fill, 0.0, {}, I32) is I32
    assert mil_forms.parameter_dtype(fill, 0.5, {}, I32) is F32
    dims = mil_forms.form("resize", "ios17").inputs["resized_dims"]
    assert mil_forms.parameter_dtype(dims, 2, {}, F16).name == "u32"


def test_attributes_that_share_a_variable_are_of_one_type():
    at = mil_forms.form("upsample_nearest_neighbor", "ios17")
    op = unary("mil.upsample_nearest_neighbor", scale_factor_height=2.0)
    assert mil.written_dtype(op, "scale_factor_width", op.attributes["scale_factor_width"], at) is F32
    assert mil.legal(op, "ios17") is None
    op.attributes["scale_factor_width"] = np.array(1, np.int32)
    assert mil.legal(op, "ios17").startswith("mil.upsample_nearest_neighbor needs f32 for 'scale_factor_width'")


def test_types_of_constants_and_state_are_known_without_inference():
    f = ir.Function("main", {"s": ir.StateType(TensorType(F16, (2, 3)))})
    b = ir.Builder(f.block)
    assert b.constant(np.zeros((2,), np.int32), "mil").type is TensorType(I32, (2,))
    assert b.op("mil.read_state", f.inputs).result.type is TensorType(F16, (2, 3))


def test_other_types_need_an_inference(monkeypatch):
    f = ir.Function("main", {"x": TensorType(F16, (2, 3))})
    monkeypatch.setattr(mil.DIALECT, "inference", None)
    with pytest.raises(ir.InferenceError, match=r"mil\.relu are not known: no inference is set"):
        ir.Builder(f.block).op("mil.relu", f.inputs)
    mil.set_inference(lambda defn, operands, attributes, regions, results: [operands[0].type])
    assert ir.Builder(f.block).op("mil.relu", f.inputs).result.type is f.inputs[0].type


def test_signatures_read_well():
    first = mil.signature("conv").splitlines()[0]
    assert first == (
        "mil.conv(x, weight, bias?) {strides: ints?, pad_type: string = 'valid', pad: ints?, dilations: ints?, "
        "groups: int = 1} -> (result)"
    )
    with pytest.raises(ir.UnknownOperatorError, match=r"did you mean 'conv'"):
        mil.signature("convv")
