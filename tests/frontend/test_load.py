"""Loading: what a file says, what it may not say, and what becomes of it."""

from __future__ import annotations

import contextlib
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler import frontend, ir, shapes
from compiler.errors import UserError
from compiler.execution import evaluate
from compiler.ir import print_module
from tests.frontend.models import model, reference

RNG = np.random.default_rng(5)
X = RNG.standard_normal((2, 3), np.float32)
node = helper.make_node


def names(module: ir.Module) -> list[str]:
    return [op.name for op in module.main.block.ops]


def test_a_model_becomes_a_module():
    proto = model([node("Relu", ["x"], ["h"], name="a"), node("Add", ["h", "w"], ["y"])], {"x": ["n", 3]}, ["y"],
                  initializers={"w": X[:1]})  # fmt: skip
    proto.producer_name = "pytest"
    helper.set_model_props(proto, {"author": "me"})
    module = frontend.load(proto)
    add = module.main.block.terminator.prev
    assert names(module) == ["onnx.Constant", "onnx.Relu", "onnx.Add", "ir.return"]
    assert str(add.result.type) == "tensor<n x 3xf32>"
    assert [op.loc.nodes for op in module.main.block.ops][1:3] == [("a",), ("y",)]
    assert module.main.output_names == ["y"]
    assert module.attributes["opset"] == 18
    assert module.attributes["producer"] == "pytest"
    assert module.attributes["metadata_props"] == (("author", "me"),)
    assert module.attributes["nodes"] == 2
    assert print_module(module)


def test_path_bytes_and_message_are_the_same(tmp_path):
    proto = model([node("Relu", ["x"], ["y"])], {"x": X}, ["y"])
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    texts = {print_module(frontend.load(s)) for s in (path, str(path), path.read_bytes())}
    assert len(texts) == 1
    assert names(frontend.load(proto)) == ["onnx.Relu", "ir.return"]


# ---- weights


@pytest.mark.parametrize("external", [False, True])
def test_large_weights_are_views_of_the_file(tmp_path, external):
    w = RNG.standard_normal((3, 4096), np.float32)
    proto = model([node("MatMul", ["x", "w"], ["y"])], {"x": X}, ["y"], initializers={"w": w})
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=external, location="m.bin" if external else None)
    module = frontend.load(path)
    array = module.main.block.first.attributes["value"]
    np.testing.assert_array_equal(array, w)
    assert not array.flags.owndata
    assert not array.flags.writeable
    np.testing.assert_array_equal(evaluate.run(module, {"x": X})["y"], reference(model(
        [node("MatMul", ["x", "w"], ["y"])], {"x": X}, ["y"], initializers={"w": w}), {"x": X})[0])  # fmt: skip


def _resident(path) -> int:
    """How many kB of a file are mapped into this process's memory (Linux)."""
    total, here = 0, False
    with open("/proc/self/smaps", encoding="utf-8") as lines:
        for line in lines:
            if "-" in line.split(" ", 1)[0]:
                here = line.rstrip().endswith(str(path))
            elif here and line.startswith("Rss:"):
                total += int(line.split()[1])
    return total


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/smaps")
def test_weights_that_have_been_read_take_no_memory_until_they_are_read_again(tmp_path):
    weights = np.arange(1 << 20, dtype=np.float32)
    path = tmp_path / "m.onnx"
    add = node("Add", ["x", "w"], ["y"])
    onnx.save(model([add], {"x": [1 << 20]}, ["y"], initializers={"w": weights}), path)
    module = frontend.load(path)
    array = next(op for op in module.main.block.ops if op.defn.constant).results[0].constant
    assert _resident(path) < 1000  # though all of it has been hashed
    assert np.array_equal(array, weights)
    assert _resident(path) > 4000
    frontend.let_go()
    assert _resident(path) < 1000
    assert np.array_equal(array, weights)


def test_weights_in_constants_subgraphs_and_typed_fields_are_found(tmp_path):
    w = RNG.standard_normal(2000, np.float32)
    big = numpy_helper.from_array(w, "t")
    typed = helper.make_tensor("u", TensorProto.FLOAT, [2000], w)
    assert not typed.HasField("raw_data")
    branch = [
        helper.make_graph([node("Constant", [], [o], value=t)], o, [], [onnx.ValueInfoProto(name=o)])
        for o, t in (("p", big), ("q", typed))
    ]
    proto = model(
        [node("If", ["c"], ["y"], then_branch=branch[0], else_branch=branch[1])], {"c": np.array(True)}, ["y"]
    )
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    module = frontend.load(path)
    arrays = [op.attributes["value"] for op in module.walk() if op.name == "onnx.Constant"]
    assert len(arrays) == 2
    for array in arrays:
        np.testing.assert_array_equal(array, w)
        assert not array.flags.owndata


@pytest.mark.parametrize("location", ["../w.bin", "/etc/hostname", "a/../../w.bin", "link.bin", ""])
def test_weights_outside_the_folder_are_refused(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(24))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    proto = model([node("Add", ["x", "w"], ["y"])], {"x": X}, ["y"])
    proto.graph.initializer.append(tensor)
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(UserError, match=r"m\.onnx: the weight 'w' lies in .* outside the model's folder"):
        frontend.load(folder / "m.onnx")


@pytest.mark.parametrize(
    ("size", "entries", "message"),
    [
        (None, {}, "cannot be read"),
        (10, {}, "at bytes 0 to 24 of 'w.bin', which has 10"),
        (24, {"offset": "-4"}, "at bytes -4"),
        (24, {"length": "12"}, "holds 12 bytes where its shape"),
        (24, {"length": "99999999999999999999"}, "which has 24"),
        (24, {"offset": "x"}, "no number"),
    ],
)
def test_broken_external_data_is_refused(tmp_path, size, entries, message):
    if size is not None:
        (tmp_path / "w.bin").write_bytes(bytes(size))
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "w.bin", **entries}.items():
        tensor.external_data.add(key=key, value=value)
    proto = model([node("Add", ["x", "w"], ["y"])], {"x": X}, ["y"])
    proto.graph.initializer.append(tensor)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(UserError, match=message):
        frontend.load(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    "dtype", "f16 f32 f64 bf16 f8e4m3fn f8e5m2 f8e4m3fnuz f4e2m1 i2 u2 i4 u4 i8 u8 i16 u16 i32 u32 i64 u64 bool".split()  # noqa: SIM905
)  # fmt: skip
@pytest.mark.parametrize("raw", [True, False])
def test_all_element_types_are_read(dtype, raw):
    numpy = ir.dtype(dtype).numpy
    array = np.array([[0, 1, 0], [1, 1, 0]]).astype(numpy)
    tensor = numpy_helper.from_array(array, "w")
    if not raw:
        number = tensor.data_type
        values = array.astype(np.float32) if ir.dtype(dtype).is_float else array.astype(np.int64)
        tensor = helper.make_tensor("w", number, array.shape, values.ravel().tolist())
        assert not tensor.HasField("raw_data")
    proto = model([node("Identity", ["w"], ["y"])], {}, ["y"])
    proto.graph.initializer.append(tensor)
    read = frontend.load(proto).main.block.first.attributes["value"]
    assert read.dtype == numpy
    np.testing.assert_array_equal(read.astype(np.float32), array.astype(np.float32))


def test_strings_and_sparse_tensors_are_read():
    words = np.array(["a", "ü"], object)
    values = numpy_helper.from_array(np.array([5, 6], np.float32), "s")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1, 4])), [2, 3])
    pairs = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([[0, 1], [1, 1]])), [2, 3])
    proto = model([node("Constant", [], ["p"], sparse_value=pairs)], {}, ["w", "s", "p"], initializers={"w": words})
    proto.graph.sparse_initializer.append(sparse)
    found = [v.constant.tolist() for v in frontend.load(proto).main.outputs]
    assert found == [["a", "ü"], [[0, 5, 0], [0, 6, 0]], [[0, 5, 0], [0, 6, 0]]]


def test_all_forms_of_constant_are_one():
    nodes = [
        node("Constant", [], ["a"], value_float=1.5),
        node("Constant", [], ["b"], value_ints=[1, 2]),
        node("Constant", [], ["c"], value_string="s"),
        node("Constant", [], ["d"], value_floats=[0.5]),
    ]
    values = [v.constant for v in frontend.load(model(nodes, {}, ["a", "b", "c", "d"])).main.outputs]
    assert [v.tolist() for v in values] == [1.5, [1, 2], "s", [0.5]]
    assert [v.dtype for v in values] == [np.float32, np.int64, object, np.float32]


# ---- graphs


def test_nodes_are_put_in_order():
    proto = model(
        [node("Add", ["h", "x"], ["y"]), node("Relu", ["x"], ["h"]), node("Neg", ["x"], ["z"])], {"x": X}, ["y", "z"]
    )
    assert names(frontend.load(proto))[:3] == ["onnx.Relu", "onnx.Add", "onnx.Neg"]


def test_a_subgraph_waits_for_what_it_captures():
    branch = [
        helper.make_graph([node(op, ["h"], [o])], o, [], [onnx.ValueInfoProto(name=o)])
        for op, o in (("Neg", "p"), ("Abs", "q"))
    ]
    nodes = [node("If", ["c"], ["y"], then_branch=branch[0], else_branch=branch[1]), node("Relu", ["x"], ["h"])]
    module = frontend.load(model(nodes, {"c": np.array(True), "x": X}, ["y"]))
    relu, branching = list(module.main.block.ops)[:2]
    assert branching.regions[0].first.operands == (relu.result,)
    for c in (True, False):
        expected = -np.maximum(X, 0) if c else np.maximum(X, 0)
        np.testing.assert_array_equal(evaluate.run(module, {"c": np.array(c), "x": X})["y"], expected)


def test_a_cycle_is_named():
    nodes = [node("Add", ["x", "b"], ["a"], name="first"), node("Relu", ["a"], ["b"], name="second")]
    with pytest.raises(UserError, match=r"'first' → 'second'|'second' → 'first'"):
        frontend.load(model(nodes, {"x": X}, ["b"]))


def test_initializers_that_are_inputs_are_constants():
    module = frontend.load(model([node("Add", ["x", "w"], ["y"])], {"x": X, "w": X}, ["y"], initializers={"w": X}))
    assert [a.name for a in module.main.inputs] == ["x"]


def test_local_functions_are_inlined():
    body = [node("Relu", ["a"], ["t"]), node("Add", ["t", "t"], ["b"])]
    function = helper.make_function("my", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    proto = model([node("Twice", ["x"], ["y"], domain="my")], {"x": X}, ["y"], domains={"my": 1})
    proto.functions.append(function)
    module = frontend.load(proto)
    assert names(module) == ["onnx.Relu", "onnx.Add", "ir.return"]
    np.testing.assert_array_equal(evaluate.run(module, {"x": X})["y"], 2 * np.maximum(X, 0))


def test_what_onnxruntime_calls_a_norm_is_onnxs():
    node = helper.make_node("SimplifiedLayerNormalization", ["x", "s"], ["y"], axis=-1, epsilon=1e-3)
    x, scale = np.linspace(-1, 2, 12, dtype=np.float32).reshape(3, 4), np.arange(4, dtype=np.float32)
    proto = model([node], {"x": x}, ["y"], opset=14, initializers={"s": scale})
    module = frontend.load(proto)
    assert [op.name for op in module.main.block.ops][-2] == "onnx.RMSNormalization"
    np.testing.assert_allclose(evaluate.run(module, {"x": x})["y"], reference(proto, {"x": x})[0], rtol=1e-6)


def test_outputs_may_be_inputs_constants_and_the_same_twice():
    proto = model(
        [node("Relu", ["x"], ["y"]), node("Identity", ["y"], ["z"])],
        {"x": X},
        ["x", "y", "w", "z"],
        initializers={"w": X},
    )
    assert [o.name for o in proto.graph.output] == frontend.load(proto).main.output_names
    found = evaluate.run(frontend.load(proto), {"x": X})
    np.testing.assert_array_equal(found["x"], X)
    np.testing.assert_array_equal(found["z"], np.maximum(X, 0))


def test_loop_carried_shapes_widen_until_they_hold():
    body = helper.make_graph(
        [node("Concat", ["v", "v"], ["w"], axis=0), node("Identity", ["c"], ["d"]), node("Shape", ["v"], ["s"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            onnx.ValueInfoProto(name="v"),
        ],
        [onnx.ValueInfoProto(name=n) for n in ("d", "w", "s")],
    )  # fmt: skip
    proto = model(
        [node("Loop", ["n", "", "x"], ["y", "s"], body=body)], {"x": X}, ["y", "s"], initializers={"n": np.array(3)}
    )
    module = frontend.load(proto)
    loop = module.main.block.terminator.prev
    assert [str(r.type) for r in loop.results] == ["tensor<?x3xf32>", "tensor<3x2xi64>"]
    found = evaluate.run(module, {"x": X})
    assert found["y"].shape == (16, 3)
    assert found["s"].tolist() == [[2, 3], [4, 3], [8, 3]]


def test_shape_arithmetic_is_computed():
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "zero"], ["n"]),
        node("Unsqueeze", ["n", "axis"], ["n1"]),
        node("Concat", ["n1", "rest"], ["t"], axis=0),
        node("Reshape", ["x", "t"], ["y"]),
    ]
    constants = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([-1])}
    static = frontend.load(model(nodes, {"x": [2, 3, 4]}, ["y"], initializers=constants))
    assert [n for n in names(static) if n not in ("onnx.Constant", "ir.return")] == ["onnx.Reshape"]
    assert static.main.outputs[0].shape == (2, 12)
    symbolic = frontend.load(model(nodes, {"x": ["n", 3, 4]}, ["y"], initializers=constants))
    assert symbolic.main.outputs[0].shape == ("n", 12)


# ---- shapes


def test_an_open_batch_becomes_one_with_a_note():
    proto = model([node("Add", ["x", "z"], ["y"])], {"x": ["n", 3], "z": ["n", 3]}, ["y"])
    module = frontend.load(proto, {})
    assert [a.shape for a in module.main.inputs] == [(1, 3), (1, 3)]
    assert len(module.attributes["notes"]) == 1
    assert frontend.open_dimensions(module) == {}
    assert frontend.open_dimensions(frontend.load(proto)) == {"x": ("n", 3), "z": ("n", 3)}


def test_a_size_is_given_to_a_symbol_wherever_it_stands():
    proto = model([node("Add", ["x", "z"], ["y"])], {"x": ["n", "k"], "z": ["n", "k"]}, ["y"])
    module = frontend.load(proto, dict([shapes.parse("x=4,7")]))
    assert [a.shape for a in module.main.inputs] == [(4, 7), (4, 7)]


def test_ranges_and_choices_stay_symbols():
    proto = model([node("Relu", ["x"], ["y"])], {"x": ["n", "k", 3]}, ["y"])
    module = frontend.load(proto, dict([shapes.parse("x=1..8,2|4,3")]))
    assert module.main.outputs[0].shape == ("n", "k", 3)
    assert module.attributes["flexible"] == (("n", "1..8"), ("k", "2|4"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("x=2,3,4", "rank 3"),
        ("y=2,3", "no input 'y'"),
        ("x=2,4", "fixes it at 3"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(option, message):
    proto = model([node("Relu", ["x"], ["y"])], {"x": ["n", 3]}, ["y"])
    with pytest.raises(UserError, match=message):
        frontend.load(proto, dict([shapes.parse(option)]))


# ---- what is no model


@pytest.mark.parametrize(
    "content", [b"", b"hello, world", bytes(200), b"\x00", b"\xff" * 64, b"PK\x03\x04" + bytes(64)]
)
def test_what_is_not_onnx_is_refused_by_name(tmp_path, content):
    path = tmp_path / "cat.onnx"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"^cat\.onnx is (empty|not an ONNX model)") as error:
        frontend.load(path)
    assert "\n" not in error.value.message


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "no.onnx", tmp_path):
        with pytest.raises(UserError, match="cannot read"):
            frontend.load(path)


def test_every_truncation_is_refused_or_loads(tmp_path):
    proto = model(
        [node("MatMul", ["x", "w"], ["y"])],
        {"x": X},
        ["y"],
        initializers={"w": RNG.standard_normal((3, 500), np.float32)},
    )
    whole = proto.SerializeToString()
    for size in [*range(1, 200), *range(200, len(whole), 97)]:
        with pytest.raises(UserError):
            frontend.load(whole[:size])


def test_flipped_bytes_never_crash():
    proto = model([node("MatMul", ["x", "w"], ["h"]), node("Softmax", ["h"], ["y"], axis=1)], {"x": X}, ["y"],
                  initializers={"w": RNG.standard_normal((3, 300), np.float32)})  # fmt: skip
    whole = bytearray(proto.SerializeToString())
    for _ in range(500):
        broken = bytearray(whole)
        for at in RNG.integers(0, len(whole), 3):
            broken[at if RNG.random() < 0.5 else at % 120] = RNG.integers(0, 256)
        with contextlib.suppress(UserError):
            frontend.load(bytes(broken))


def _broken(change):
    proto = model(
        [node("Conv", ["x", "w"], ["y"], name="c")],
        {"x": [1, 3, 8, 8]},
        ["y"],
        initializers={"w": np.zeros((4, 3, 3, 3), np.float32)},
    )
    change(proto)
    return proto


def _attribute(p, name, value):
    p.graph.node[0].attribute.append(helper.make_attribute(name, value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: setattr(p.graph.node[0], "op_type", "Konv"), r"node 'c' uses ai\.onnx\.Konv, .*did you mean 'Conv'"),
        (lambda p: setattr(p.graph.node[0], "domain", "acme"), "operators of the domain 'acme' are not known"),
        (lambda p: p.graph.node[0].input.append("z"), "node 'c' uses 'z', which nothing produces"),
        (lambda p: p.graph.node[0].input.pop(), "has 1 inputs where it takes 2 to 3"),
        (lambda p: _attribute(p, "stride", [1]), "no attribute 'stride'; did you mean 'strides'"),
        (lambda p: _attribute(p, "group", "x"), "'group' holds a value of kind string where int"),
        (lambda p: _attribute(p, "kernel_shape", [5]), r"node 'c' \(Conv\): "),
        (lambda p: p.graph.node.append(node("Relu", ["x"], ["y"])), "the name 'y' stands for two values"),
        (lambda p: p.graph.output.append(onnx.ValueInfoProto(name="q")), "nothing produces the output 'q'"),
        (lambda p: setattr(p.opset_import[0], "version", 6), "has opset 6; 7 is the oldest"),
        (lambda p: setattr(p.opset_import[0], "version", 999), "newer than the installed onnx"),
        (lambda p: p.graph.initializer[0].dims.append(7), "holds 432 bytes where its shape"),
        (lambda p: setattr(p.graph.initializer[0], "data_type", 77), "element type 77"),
        (lambda p: p.graph.input[0].ClearField("type"), "the input 'x' has no type"),
        (lambda p: setattr(p.graph.node[0], "op_type", "Upsample"), "Upsample, which exists no more"),
        (lambda p: setattr(p.graph.node[0], "op_type", "RotaryEmbedding"), "only since opset 23"),
    ],
)
def test_broken_models_are_refused_with_the_reason(change, message):
    with pytest.raises(UserError, match=message) as error:
        frontend.load(_broken(change))
    assert "\n" not in error.value.message


def test_an_unsupported_operator_of_onnxruntime_is_named():
    proto = model(
        [node("Gelou", ["x"], ["y"], domain="com.microsoft", name="g")], {"x": X}, ["y"], domains={"com.microsoft": 1}
    )
    with pytest.raises(UserError, match=r"com\.microsoft\.Gelou, .*did you mean 'Gelu'"):
        frontend.load(proto)
