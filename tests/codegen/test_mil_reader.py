"""What the reader says of packages that are broken, hostile or of another kind, and of unusual ones."""

from __future__ import annotations

import json
import random
import shutil
from contextlib import suppress

import numpy as np
import pytest

from codegen import mil
from codegen.mil.blobs import WeightFile
from codegen.mil.proto import DTYPE_OF, mil_pb
from codegen.mil.values import pack, unpack
from compiler import ir
from compiler.errors import PlanishError, UnsupportedError, UserError
from compiler.ir import F32, I32, TensorType
from tests.codegen import canonical, programs

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


@pytest.fixture
def package(tmp_path):
    return mil.write(programs.linear(2), tmp_path / "m.mlpackage").path


def edit(package, change):
    """Rewrites the model of a package after ``change`` has had its way with the main block."""
    model = canonical.load(package)
    function = model.mlProgram.functions["main"]
    change(function.block_specializations[function.opset])
    (package / MODEL).write_bytes(model.SerializeToString())
    return package


def operation(block, kind):
    return next(op for op in block.operations if op.type == kind)


def first(block):
    return operation(block, "linear")


def test_no_package(tmp_path):
    with pytest.raises(UserError, match="there is no model package at"):
        mil.read(tmp_path / "nothing.mlpackage")


def test_a_folder_that_is_no_package(tmp_path):
    with pytest.raises(UserError, match=r"its Manifest\.json names no model"):
        mil.read(tmp_path)


def test_a_manifest_that_leads_out(package):
    path = package / "Manifest.json"
    manifest = json.loads(path.read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = "../../../etc/passwd"
    path.write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="names a model that is not in it"):
        mil.read(package)


def test_a_bare_model_file(package, tmp_path):
    shutil.copy(package / MODEL, tmp_path / "bare.mlmodel")
    shutil.copytree(package / "Data/com.apple.CoreML/weights", tmp_path / "weights")
    module = mil.read(tmp_path / "bare.mlmodel")
    assert module.name == "bare"
    assert [op.name for op in module.walk()] == [op.name for op in mil.read(package).walk()]


def test_a_model_of_another_kind(package):
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model(specificationVersion=4)
    model.neuralNetwork.layers.add(name="relu")
    (package / MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedError, match="holds a neuralNetwork, not an ML Program"):
        mil.read(package)


def test_weights_are_views_into_the_file(package):
    const = next(op for op in mil.read(package).walk() if op.name == "mil.const")
    assert not const.attributes["val"].flags.writeable
    assert not const.attributes["val"].flags.owndata


def test_missing_weights(package):
    (package / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"cannot read the weights 'weight\.bin' of the package"):
        mil.read(package)


@pytest.mark.parametrize(("size", "message"), [(100, "behind the end of the file"), (0, "behind the end")])
def test_cut_off_weights(package, size, message):
    with (package / WEIGHTS).open("r+b") as f:
        f.truncate(size)
    with pytest.raises(UserError, match=message):
        mil.read(package)


def weight(block):
    return operation(block, "const").attributes["val"]


def test_weights_outside_of_the_package(package):
    edit(package, lambda b: setattr(weight(b).blobFileValue, "fileName", "@model_path/../../../../secret.bin"))
    with pytest.raises(UserError, match="its weights lie outside of it"):
        mil.read(package)


@pytest.mark.parametrize("offset", [0, 65, 1 << 40, (1 << 64) - 1])
def test_wrong_offset_of_weights(package, offset):
    edit(package, lambda b: setattr(weight(b).blobFileValue, "offset", offset))
    with pytest.raises(UserError, match=r"the package is broken: tensor '.*' in weight\.bin"):
        mil.read(package)


def test_weights_of_another_size(package):
    def change(b):
        weight(b).type.tensorType.dimensions[0].constant.size = 1 << 40

    with pytest.raises(UserError, match="but 8192 are stored"):
        mil.read(edit(package, change))


def test_immediate_values_of_another_size(tmp_path):
    package = mil.write(programs.chain(4), tmp_path / "m.mlpackage").path

    def change(b):
        const = next(op for op in b.operations if op.outputs[0].name.endswith("_strides_0"))
        const.attributes["val"].type.tensorType.dimensions[0].constant.size = 3

    with pytest.raises(UserError, match=r"constant '.*strides_0' of tensor<3xi32> has 2 elements"):
        mil.read(edit(package, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: setattr(first(b), "type", "fancy"), "has an operator 'fancy'"),
        (lambda b: setattr(first(b), "type", "coreml_update_state"), "has an operator 'coreml_update"),
        (
            lambda b: setattr(first(b).inputs["x"].arguments[0], "name", "zz"),
            "uses 'zz', which nothing",
        ),
        (lambda b: first(b).inputs.pop("x"), "linear 'linear' has no 'x'"),
        (
            lambda b: first(b).inputs["k"].arguments.add(name="x"),
            "an input 'k' that coremltools does not",
        ),
        (lambda b: first(b).inputs["x"].arguments.add(name="x"), "has 2 values for 'x'"),
        (lambda b: first(b).blocks.add(), "has 1 blocks, not 0"),
        (lambda b: setattr(first(b).outputs[0], "name", "x"), "two values are called 'x'"),
        (lambda b: operation(b, "const").ClearField("attributes"), "a const needs one result and a value"),
        (
            lambda b: operation(b, "const").attributes["val"].type.tensorType.ClearField("dimensions"),
            "a tensor of rank",
        ),
        (lambda b: setattr(weight(b).type.tensorType, "dataType", 99), "not known"),
        (lambda b: b.outputs.append("x"), "disagree on output 'x'"),
        (lambda b: b.ClearField("operations"), "the outputs uses 'y', which nothing before gives"),
    ],
)
def test_broken_programs(package, change, message):
    with pytest.raises(PlanishError, match=message):
        mil.read(edit(package, change))


def test_a_parameter_that_is_computed(tmp_path):
    package = mil.write(programs.chain(4), tmp_path / "m.mlpackage").path

    def change(b):
        operation(b, "layer_norm").inputs["axes"].arguments[0].name = "relu"

    with pytest.raises(UnsupportedError, match="computes 'axes' at run time"):
        mil.read(edit(package, change))


def test_a_program_without_a_body(package):
    model = canonical.load(package)
    model.mlProgram.functions["main"].opset = "CoreML99"
    (package / MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match="function 'main' has no body for its opset 'CoreML99'"):
        mil.read(package)


def test_a_specification_of_the_future(package):
    model = canonical.load(package)
    model.specificationVersion = 99
    (package / MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedError, match="specification version 99"):
        mil.read(package)


def test_cut_off_models_are_refused(package):
    whole = (package / MODEL).read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // 60)):
        (package / MODEL).write_bytes(whole[:size])
        with pytest.raises(PlanishError):
            mil.read(package)


@pytest.mark.parametrize("make", [programs.nested, lambda: programs.chain(4), lambda: programs.linear(1)])
def test_damaged_models_never_crash(make, tmp_path):
    package = mil.write(make(), tmp_path / "m.mlpackage", os="ios18").path
    whole = (package / MODEL).read_bytes()
    random.seed(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(random.choice([1, 1, 3])):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        (package / MODEL).write_bytes(bytes(damaged))
        with suppress(PlanishError):
            mil.read(package)


def test_inputs_and_outputs_have_the_order_of_the_description(tmp_path):
    m = programs.module(
        {"a": TensorType(F32, (1,)), "b": TensorType(F32, (2,))},
        lambda b, x, y: [programs.same(b, "relu", x), programs.same(b, "relu", y)],
        ("c", "d"),
    )
    package = mil.write(m, tmp_path / "m.mlpackage").path
    model = canonical.load(package)
    for features in (model.description.input, model.description.output):
        features.reverse()
    (package / MODEL).write_bytes(model.SerializeToString())
    again = mil.read(package).main
    assert [(a.name, a.type.shape) for a in again.inputs] == [("b", (2,)), ("a", (1,))]
    assert list(zip(again.output_names, [v.shape for v in again.outputs])) == [("d", (2,)), ("c", (1,))]


def test_literals_where_names_are_usual(tmp_path):
    """Core ML takes literals for any input; coremltools writes names, other writers need not."""
    package = mil.write(programs.chain(4), tmp_path / "m.mlpackage").path

    def change(b):
        consts = {op.outputs[0].name: op.attributes["val"] for op in b.operations if op.type == "const"}
        for op in b.operations:
            for argument in op.inputs.values():
                for binding in argument.arguments:
                    if binding.name in consts:
                        binding.value.CopyFrom(consts[binding.name])
        kept = [op for op in b.operations if op.type != "const"]
        del b.operations[:]
        b.operations.extend(kept)

    before = programs.text(mil.read(package))
    assert programs.text(mil.read(edit(package, change))) == before


def test_a_parameter_of_another_type_than_we_would_write_keeps_it(tmp_path):
    m = programs.module(
        {"x": TensorType(ir.F16, (2, 4))}, lambda b, x: programs.same(b, "layer_norm", x, axes=(1,), epsilon=0.1)
    )
    m.walk().__next__().attributes["epsilon"] = np.array(0.1, np.float32)
    package = mil.write(m, tmp_path / "m.mlpackage").path
    (op,) = (op for op in mil.read(package).walk() if op.name == "mil.layer_norm")
    assert op.attributes["epsilon"].dtype == np.float32
    assert op.attributes["axes"] == (1,)


def test_unknown_dimensions(package, tmp_path):
    m = programs.module({"x": TensorType(F32, ("n", 4))}, lambda b, x: programs.same(b, "relu", x))
    m.main.attributes["shapes.x"] = ((1, 4), (2, 4))
    again = mil.read(mil.write(m, tmp_path / "n.mlpackage").path).main
    assert again.outputs[0].type is TensorType(F32, ("?", 4))
    assert again.attributes["shapes.x"] == ((1, 4), (2, 4))


def test_every_element_type_of_mil_is_known():
    names = {mil_pb.DataType.Name(n) for n in DTYPE_OF}
    assert names == set(mil_pb.DataType.keys()) - {"UNUSED_TYPE"}


@pytest.mark.parametrize("dtype", [d for d in DTYPE_OF.values() if d.bits and d.bits < 8], ids=str)
@pytest.mark.parametrize("count", [1, 7, 64, 300_001])
def test_packing_is_that_of_coremltools(dtype, count):
    from coremltools.optimize import _utils

    least = -(1 << (dtype.bits - 1)) if dtype.is_signed else 0
    value = np.random.default_rng(0).integers(least, least + (1 << dtype.bits), size=count)
    packed = pack(value.astype(dtype.numpy), dtype)
    theirs = _utils.pack_elements_into_bits(value.astype(np.int8 if dtype.is_signed else np.uint8), dtype.bits)
    assert np.array_equal(packed, theirs)
    assert np.array_equal(unpack(packed, dtype, count).astype(np.int64), value)


def test_an_empty_weight_file(tmp_path):
    (tmp_path / "weight.bin").touch()
    with pytest.raises(UserError, match="behind the end"):
        WeightFile(tmp_path / "weight.bin").read(64, TensorType(I32, (4,)), "w")
