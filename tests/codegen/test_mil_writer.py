"""What the writer promises beyond equal programs: bytes, names, types, releases, and whole packages or none."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
import tracemalloc

import numpy as np
import pytest

from codegen import mil
from codegen.mil.blobs import goes_to_weight_file
from compiler import ir
from compiler.errors import UnsupportedError, UserError
from compiler.ir import F16, F32, F64, I8, I32, I64, U8, StateType, TensorType
from tests.codegen import canonical, programs
from tests.codegen.programs import module, relu, same


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write(m, tmp_path, **options):
    return mil.write(m, tmp_path / "m.mlpackage", **options).path


def round_trip(m, tmp_path, os="ios18"):
    again = mil.read(write(m, tmp_path, os=os))
    again.name, again.attributes = m.name, m.attributes
    return again


# Bytes


def test_the_same_module_gives_the_same_bytes(tmp_path):
    first = mil.write(programs.linear(3), tmp_path / "a.mlpackage").path
    second = mil.write(programs.linear(3), tmp_path / "b.mlpackage").path
    assert files(first) == files(second)


def test_other_weights_give_other_identifiers(tmp_path):
    first = mil.write(programs.linear(fill=1), tmp_path / "a.mlpackage").path
    second = mil.write(programs.linear(fill=2), tmp_path / "b.mlpackage").path
    manifests = [json.loads((p / "Manifest.json").read_text()) for p in (first, second)]
    assert not set(manifests[0]["itemInfoEntries"]) & set(manifests[1]["itemInfoEntries"])


def test_equal_weights_are_stored_once(tmp_path):
    once = mil.write(programs.linear(1, fill=0.5), tmp_path / "a.mlpackage").weight_size
    thrice = mil.write(programs.linear(3, fill=0.5), tmp_path / "b.mlpackage").weight_size
    different = mil.write(programs.linear(3), tmp_path / "c.mlpackage").weight_size
    assert once == thrice == 64 + 64 + 64 * 64 * 2
    assert different > 3 * 64 * 64 * 2


def test_weights_of_equal_bytes_and_other_types_are_not_shared(tmp_path):
    def build(b, x):
        zeros = [b.constant(np.zeros(16, t), "mil") for t in (np.float32, np.float16)]
        return [same(b, "add", x, zeros[0]), same(b, "identity", zeros[1])]

    again = round_trip(module({"x": TensorType(F32, (16,))}, build, ("y", "z")), tmp_path)
    assert [v.type.dtype for v in again.main.outputs] == [F32, F16]


def test_weights_are_not_copied(tmp_path):
    w = np.random.default_rng(0).normal(size=(1 << 22,)).astype(np.float32)
    m = module({"x": TensorType(F32, w.shape)}, lambda b, x: same(b, "add", x, b.constant(w, "mil")))
    tracemalloc.start()
    write(m, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < w.nbytes / 4


def test_ten_thousand_operators_take_well_under_a_second(tmp_path):
    m = programs.chain(10_000)
    start = time.process_time()
    written = mil.write(m, tmp_path / "m.mlpackage")
    assert written.operators == 10_000
    assert time.process_time() - start < 1.5  # 0.2 to 0.3 s when nothing else runs


def test_coremltools_is_not_imported_whole():
    code = "import sys, codegen.mil; print('coremltools' in sys.modules, 'coremltools.proto.MIL_pb2' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "True"]


def test_coremltools_can_be_imported_whole_afterwards():
    code = """
        import codegen.mil
        from codegen.mil.proto import mil_pb
        import coremltools
        print(coremltools.proto.MIL_pb2 is mil_pb, coremltools.__version__ is not None)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], text=True, capture_output=True, check=True)
    assert run.stdout.split() == ["True", "True"]


def test_what_is_written_reads_the_same(tmp_path):
    for m in (programs.linear(3), programs.chain(12), programs.nested()):
        assert programs.text(round_trip(m, tmp_path)) == programs.text(m)


# Names


def test_names_become_identifiers_and_renames_are_reported(tmp_path):
    m = module(
        {"a b": TensorType(F32, (2,)), "1": TensorType(F32, (2,)), "tensor": TensorType(F32, (2,))},
        lambda b, x, y, z: [same(b, "add", same(b, "add", x, y), z), same(b, "relu", x)],
        ("out:0", "a_b"),
    )
    written = mil.write(m, tmp_path / "m.mlpackage")
    assert written.renamed == {
        "a b": "a_b",
        "1": "var_1",
        "tensor": "tensor_",
        "out:0": "out_0",
        "a_b": "a_b_0",
    }
    again = mil.read(written.path).main
    assert [a.name for a in again.inputs] == ["a_b", "var_1", "tensor_"]
    assert again.output_names == ["out_0", "a_b_0"]


def test_operators_carry_the_names_of_their_results(tmp_path):
    def build(b, x):
        y = same(b, "relu", x)
        y.name = "layer.1/Relu:0"
        return same(b, "tanh", y)

    again = mil.read(write(module({"x": TensorType(F32, (2,))}, build), tmp_path))
    assert [op.loc.nodes for op in again.walk() if op.operands and op.results] == [("layer_1_Relu_0",), ("y",)]


def test_an_input_may_be_given_out_and_a_value_twice(tmp_path):
    def build(b, x):
        y = same(b, "relu", x)
        return [x, y, y, x]

    m = module({"x": TensorType(F32, (2,))}, build, ("x", "y", "z", "w"))
    again = mil.read(write(m, tmp_path)).main
    assert again.output_names == ["x", "y", "z", "w"]
    assert again.outputs[0] is again.inputs[0]
    assert [v.op.name for v in again.outputs[1:]] == ["mil.relu", "mil.identity", "mil.identity"]


def test_a_constant_may_be_given_out(tmp_path):
    m = module({"x": TensorType(F32, (2,))}, lambda b, x: b.constant(np.float32([1, 2]), "mil"))
    assert mil.read(write(m, tmp_path)).main.outputs[0].constant.tolist() == [1, 2]


# Attributes


def test_equal_attributes_share_a_constant(tmp_path):
    model = canonical.load(write(programs.chain(40), tmp_path))
    consts = model.mlProgram.functions["main"].block_specializations["CoreML7"].operations
    # The weight, and strides (which dilations equal), pad_type, pad, groups, axes (which groups do not), epsilon.
    assert sum(op.type == "const" for op in consts) == 7


def test_zeros_of_different_sign_and_one_and_true_are_different_constants(tmp_path):
    def build(b, x):
        one = [same(b, "pad", x, b.constant(np.int32([1, 1]), "mil"), constant_val=v) for v in (0.0, -0.0)]
        return [*one, same(b, "softmax", x, axis=0), same(b, "reduce_sum", x, axes=(0,), keep_dims=False)]

    m = module({"x": TensorType(F32, (2,))}, build, ("a", "b", "c", "d"))
    pads = [op.attributes["constant_val"] for op in round_trip(m, tmp_path).walk() if op.name == "mil.pad"]
    assert [np.signbit(v) for v in pads] == [False, True]


def test_an_attribute_takes_the_type_of_what_it_stands_beside(tmp_path):
    for dtype in (F16, F32):
        m = module({"x": TensorType(dtype, (2, 4))}, lambda b, x: same(b, "layer_norm", x, axes=(1,), epsilon=1e-5))
        (op,) = canonical.program(write(m, tmp_path))["main"][2][0]
        assert ("FLOAT16" if dtype is F16 else "FLOAT32") in op[1]["epsilon"][0][0]


def test_what_a_release_does_not_know_is_left_out_at_its_default(tmp_path):
    def build(b, x, i):
        return b.op("mil.gather", [x, i], {"axis": 1}, [TensorType(F32, (2, 3))]).result

    m = module({"x": TensorType(F32, (2, 4)), "i": TensorType(I32, (3,))}, build)
    for os, inputs in [
        ("ios15", {"x", "indices", "axis"}),
        ("ios16", {"x", "indices", "axis", "batch_dims"}),
        ("ios17", {"x", "indices", "axis", "batch_dims", "validate_indices"}),
    ]:
        (op,) = canonical.program(write(m, tmp_path, os=os))["main"][2][0]
        assert set(op[1]) == inputs


# Constants


@pytest.mark.parametrize("count", [0, 1, 9, 10, 100])
@pytest.mark.parametrize("dtype", [d for d in ir.DTYPES.values() if goes_to_weight_file(d, 100, 9)], ids=str)
@pytest.mark.parametrize("os", ["ios17", "ios18"])
def test_constants_of_every_type_and_size_come_back(dtype, count, os, tmp_path):
    rng = np.random.default_rng(count)
    if dtype.is_float:
        value = rng.normal(size=count).astype(dtype.numpy)
    else:
        least = -(1 << (dtype.bits - 1)) if dtype.is_signed else 0
        value = rng.integers(least, least + (1 << dtype.bits), size=count).astype(dtype.numpy)
    f = ir.Function("main", {"x": TensorType(F32, (1,))}, ["y"])
    const = f.block.append(ir.Op("mil.const", (), [TensorType(dtype, (count,))], {"val": value}))
    type_ = const.result.type
    identity = f.block.append(ir.Op("mil.identity", [const.result], [type_], {}))
    list_ = f.block.append(ir.Op("mil.shape", [f.inputs[0]], [TensorType(I32, (1,))], {}))
    f.set_outputs([list_.result])
    # Kept alive by an operator that takes anything.
    f.block.insert_before(list_, ir.Op("mil.identity", [identity.result], [type_], {}))
    m = ir.Module("test")
    m.add(f)
    again = next(op for op in round_trip(m, tmp_path, os).walk() if op.name == "mil.const")
    assert again.result.type is type_
    assert again.attributes["val"].dtype == dtype.numpy
    assert np.array_equal(again.attributes["val"].view(np.uint8), value.view(np.uint8))


def test_strings_booleans_and_scalars_stay_in_the_program(tmp_path):
    scalars = [np.float16(0.1).reshape(()), np.int64(7).reshape(())]
    values = [np.array(["a", "é"], object), np.arange(64) % 3 == 0, *scalars]

    def build(b, x):
        return [same(b, "identity", b.constant(v, "mil")) for v in values] and same(b, "relu", x)

    written = mil.write(module({"x": TensorType(F32, (1,))}, build), tmp_path / "m.mlpackage")
    assert written.weight_size == 0
    again = [op.attributes["val"] for op in mil.read(written.path).walk() if op.name == "mil.const"]
    for before, after in zip(values, again, strict=True):
        assert before.shape == after.shape
        assert before.tolist() == after.tolist()


def test_a_constant_that_is_no_contiguous_array(tmp_path):
    w = np.arange(4096, dtype=np.float32).reshape(64, 64).T
    m = module({"x": TensorType(F32, (64, 64))}, lambda b, x: same(b, "add", x, b.constant(w, "mil")))
    again = next(op for op in round_trip(m, tmp_path).walk() if op.name == "mil.const")
    assert np.array_equal(again.attributes["val"], w)


def test_what_core_ml_has_no_constant_for_is_refused(tmp_path):
    import ml_dtypes

    m = module(
        {"x": TensorType(ir.BF16, (2,))},
        lambda b, x: same(b, "add", x, b.constant(np.ones(2, ml_dtypes.bfloat16), "mil")),
    )
    with pytest.raises(UnsupportedError, match="bf16"):
        write(m, tmp_path)


# Features


@pytest.mark.parametrize(("dtype", "os"), [(F32, "ios15"), (I32, "ios15"), (F16, "ios16"), (I8, "ios26")])
def test_types_of_inputs_and_outputs(dtype, os, tmp_path):
    m = module({"x": TensorType(dtype, (2, 3))}, lambda b, x: same(b, "identity", x))
    assert mil.read(write(m, tmp_path, os=os)).main.outputs[0].type is TensorType(dtype, (2, 3))


@pytest.mark.parametrize(
    ("dtype", "os", "message"),
    [
        (F16, "ios15", "input 'x' of element type f16 needs ios16"),
        (I8, "ios18", "input 'x' of element type i8 needs ios26"),
        (I64, "ios18", "input 'x' has element type i64, which no feature"),
        (F64, "ios18", "input 'x' has element type f64, which no feature"),
        (U8, "ios18", "input 'x' has element type u8, which no feature"),
    ],
)
def test_types_that_no_feature_has(dtype, os, message, tmp_path):
    m = module({"x": TensorType(dtype, (2, 3))}, lambda b, x: same(b, "identity", x))
    with pytest.raises(UnsupportedError, match=message):
        write(m, tmp_path, os=os)
    assert list(tmp_path.iterdir()) == []


def test_open_dimensions_need_a_range(tmp_path):
    m = module({"x": TensorType(F32, ("N", 3))}, lambda b, x: same(b, "relu", x))
    with pytest.raises(UserError, match=r"input 'x' has open dimensions \(N, 3\)"):
        write(m, tmp_path)
    m.main.attributes["range.x"] = ((1, 8), (3, 3))
    m.main.attributes["doc.x"] = "one row for each item"
    again = mil.read(write(m, tmp_path)).main
    assert again.attributes == {**m.main.attributes, "default.x": (1, 3)}
    assert again.inputs[0].type is TensorType(F32, ("?", 3))


def test_state_and_several_functions_need_ios18(tmp_path):
    def build(b, x, s):
        before = b.op("mil.read_state", [s]).result
        after = b.op("mil.coreml_update_state", [s, same(b, "add", x, before)]).result
        return same(b, "relu", after)

    type_ = TensorType(F16, (2, 3))
    m = module({"x": type_, "s": StateType(type_)}, build)
    with pytest.raises(UnsupportedError, match=r"mil\.read_state exists from ios18 on") as e:
        write(m, tmp_path, os="ios17")
    assert e.value.remedy == "--os ios18"
    assert programs.text(round_trip(m, tmp_path)) == programs.text(m)
    m = relu()
    m.add(relu().main.__class__("other", {"x": TensorType(F32, (1,))}, ["x"])).set_outputs(m.functions["other"].inputs)
    with pytest.raises(UnsupportedError, match="several functions"):
        write(m, tmp_path, os="ios17")
    again = round_trip(m, tmp_path)
    assert list(again.functions) == ["main", "other"]


def test_metadata(tmp_path):
    said = mil.Metadata("me", "MIT", "what it does", "1.2", {"source": "abc", "rules": "def"})
    again = mil.read(write(relu(), tmp_path, metadata=said))
    assert mil.Metadata.of(again) == said
    assert again.attributes["os"] == "ios17"
    assert canonical.load(write(again, tmp_path)).description.metadata.userDefined["rules"] == "def"


@pytest.mark.parametrize(("os", "version", "opset"), [("ios15", 6, "CoreML5"), ("ios26", 10, "CoreML9")])
def test_specification_of_a_release(os, version, opset, tmp_path):
    model = canonical.load(write(relu(), tmp_path, os=os))
    assert model.specificationVersion == version
    assert model.mlProgram.functions["main"].opset == opset


# Refusals, and whole packages or none


def test_operators_of_other_dialects_are_refused_by_name(tmp_path):
    import compiler.dialects.onnx  # noqa: F401

    m = relu()
    op = next(m.walk())
    new = ir.Op("onnx.Celu", op.operands, [op.result.type], {}, loc=ir.Location(("enc/Celu_3",)))
    m.main.block.insert_before(op, new)
    op.result.replace_all_uses_with(new.result)
    with pytest.raises(UnsupportedError, match=r"onnx\.Celu has no form in Core ML \(from enc/Celu_3\)"):
        write(m, tmp_path)


def test_what_the_release_does_not_take_is_refused_by_name(tmp_path):
    m = module({"x": TensorType(I32, (2,))}, lambda b, x: same(b, "relu", x))
    with pytest.raises(UnsupportedError, match=r"mil\.relu does not take i32 for 'x' in ios17"):
        write(m, tmp_path)


@pytest.mark.parametrize(
    ("name", "attributes", "message"),
    [
        (
            "layer_norm",
            {"axes": (0,), "epsilon": 1e6},
            "'epsilon' of mil.layer_norm is 1000000.0, which f16 cannot hold",
        ),
        ("softmax", {"axis": 2**40}, "'axis' of mil.softmax is 1099511627776, which i32 cannot hold"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(name, attributes, message, tmp_path):
    m = module({"x": TensorType(F16, (2,))}, lambda b, x: same(b, name, x, **attributes))
    with pytest.raises(UnsupportedError, match=message):
        write(m, tmp_path)


def test_a_package_is_replaced_and_anything_else_is_not(tmp_path):
    target = tmp_path / "m.mlpackage"
    mil.write(programs.linear(3), target)
    mil.write(relu(), target)
    assert not (target / "Data/com.apple.CoreML/weights").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["m.mlpackage"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").touch()
    for name in ("folder", "folder/file"):
        with pytest.raises(UserError, match="exists and is not a model package"):
            mil.write(relu(), tmp_path / name)
    with pytest.raises(UserError, match="No such file or directory"):
        mil.write(relu(), tmp_path / "nowhere/m.mlpackage")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_write_leaves_what_was_there(error, tmp_path):
    target = tmp_path / "m.mlpackage"
    mil.write(programs.linear(fill=1), target)
    before = files(target)

    def interrupt(part):
        raise error

    with pytest.raises(error):
        mil.write(programs.chain(2000), target, progress=interrupt)
    assert files(target) == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.mlpackage"]


def test_progress_goes_from_nothing_to_all(tmp_path):
    seen = []
    write(programs.chain(4000), tmp_path, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) == 5


@pytest.mark.parametrize("limit", [4_000, 30_000])
def test_a_full_disk_is_said_and_leaves_nothing(limit, tmp_path):
    """A limit on the size of files fails like a full disk: within the weights, or within the model file."""
    code = f"""
        import resource, signal
        from codegen import mil
        from compiler.errors import UserError
        from tests.codegen import programs
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        m = programs.linear(1) if {limit} < 10_000 else programs.chain(1000)
        try:
            mil.write(m, {str(tmp_path / "m.mlpackage")!r})
        except UserError as e:
            print(e.message)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], text=True, capture_output=True, check=True)
    assert run.stdout.startswith("cannot write")
    assert list(tmp_path.iterdir()) == []
