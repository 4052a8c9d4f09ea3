"""The verifier: each way to break the IR is found and named."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from compiler import ir
from tests.ir import toy  # noqa: F401 (registers the dialect)

SOUND = """
module @m {
  func @main(%x: tensor<3xf32>) -> (%y: tensor<3xf32>) {
    %c = toy.const() {value = dense<[1, 2, 3]>} : tensor<3xf32>
    %a = toy.add(%x, %c) : tensor<3xf32>
    %l = toy.loop(%a) body { ^(%i: tensor<3xf32>)
      %b = toy.add(%i, %a) : tensor<3xf32>
      return %b
    } : tensor<3xf32>
    %s = toy.scaled(%l) : tensor<3xf32>
    return %s
  }
}
"""
T = ir.TensorType(ir.F32, (3,))


def sound() -> tuple[ir.Module, dict[str, ir.Op]]:
    module = ir.parse_module(SOUND)
    ops = {op.results[0].name: op for op in module.walk() if op.results}
    for name, op in ops.items():
        op.loc = ir.Location((f"node_{name}",))
    return module, ops


def test_sound() -> None:
    module, ops = sound()
    ir.verify(module)
    ir.verify(module.main)
    ir.verify(ops["l"])
    ir.verify_ops(ops.values())


def _move(op: ir.Op, before: ir.Op) -> None:
    op.block.remove(op)
    before.block.insert_before(before, op)


def _retype(value: ir.Value, type_: ir.Type) -> None:
    value.type = type_


def _stale(op: ir.Op) -> None:
    op.results[0]._uses[ir.Op("toy.sink")] = 1


def _miscounted(ops: dict[str, ir.Op]) -> None:
    ops["c"].result._uses[ops["a"]] = 2


def _forgotten(ops: dict[str, ir.Op]) -> None:
    del ops["c"].result._uses[ops["a"]]


BREAKS: dict[str, tuple[Callable[[ir.Module, dict[str, ir.Op]], object], str]] = {
    "use before definition": (
        lambda m, o: _move(o["c"], o["l"]),
        r"toy.add \(from node_a\): operand 'b' is a result of toy.const, which comes later",
    ),
    "use of an inner value outside": (
        lambda m, o: o["s"].set_operand(0, o["b"].result),
        "result of toy.add, which lies in another region",
    ),
    "use of an inner argument outside": (
        lambda m, o: o["s"].set_operand(0, o["l"].regions[0].arguments[0]),
        "an argument of a block that it does not lie in",
    ),
    "use of itself inside": (
        lambda m, o: o["b"].set_operand(0, o["l"].result),
        "operand 'a' is a result of toy.loop, which comes later",
    ),
    "detached operand": (
        lambda m, o: o["s"].set_operand(0, ir.Op("toy.split", (), [T]).result),
        "which stands in no block",
    ),
    "too few operands": (lambda m, o: setattr(o["a"], "operands", o["a"].operands[:1]), "has 1 operands, where 2 must"),
    "too many results": (
        lambda m, o: setattr(o["s"], "results", o["s"].results * 2),
        "has 2 results, where 1 must be",
    ),
    "regions": (lambda m, o: setattr(o["l"], "regions", ()), "has 0 regions, where 1 must be"),
    "absent operand": (lambda m, o: o["a"].set_operand(0, None), "operand 'a' is absent, but not optional"),
    "element types differ": (
        lambda m, o: _retype(m.main.inputs[0], ir.TensorType(ir.F16, (3,))),
        "operand 'b' is of type tensor<3xf32>, but T is f16",
    ),
    "result's element type differs": (
        lambda m, o: _retype(o["a"].result, ir.TensorType(ir.F64, (3,))),
        "result 'c' is of type tensor<3xf64>, but T is f32",
    ),
    "element type not allowed": (
        lambda m, o: ir.Builder(m.main.block).op("toy.relu", [m.main.inputs[0]], None, [ir.TensorType(ir.I32, (3,))]),
        "result 'y' is of type tensor<3xi32>, not one of f16 f32",
    ),
    "attribute's kind": (
        lambda m, o: o["s"].attributes.update(alpha=1),
        r"toy.scaled \(from node_s\): attribute 'alpha' is 1, not of kind float",
    ),
    "attribute's elements": (lambda m, o: o["s"].attributes.update(axes=(0, True)), "not of kind ints"),
    "attribute unknown": (
        lambda m, o: o["s"].attributes.update(alhpa=1.0),
        "no attribute 'alhpa'; did you mean 'alpha'",
    ),
    "default not filled in": (lambda m, o: o["s"].attributes.pop("alpha"), "its default 0.5 must be filled in"),
    "required attribute": (lambda m, o: o["c"].attributes.clear(), "attribute 'value' is missing"),
    "constant's shape": (
        lambda m, o: o["c"].attributes.update(value=np.zeros(4, np.float32)),
        r"its value has the shape \[4\]",
    ),
    "constant's type": (
        lambda m, o: o["c"].attributes.update(value=np.zeros(3, np.float64)),
        "its value is of NumPy's type float64",
    ),
    "no terminator": (lambda m, o: o["b"].block.last.erase(), "last in region 'body' of toy.loop, which must end in"),
    "empty block": (lambda m, o: o["l"].regions[0].clear(), "region 'body' of toy.loop is empty"),
    "terminator in the middle": (
        lambda m, o: m.main.block.append(ir.Op("toy.sink", [m.main.inputs[0]])),
        "it ends its block, but toy.sink follows",
    ),
    "user that is gone": (lambda m, o: _stale(o["a"]), "%a still counts it as a user"),
    "miscounted use": (lambda m, o: _miscounted(o), "operand 'b', %c, counts 2 uses by it"),
    "forgotten use": (lambda m, o: _forgotten(o), "operand 'b', %c, counts 0 uses by it"),
    "order keys": (lambda m, o: setattr(o["a"], "_order", 0), "its order key is not above that of toy.const"),
    "links": (lambda m, o: setattr(o["a"], "_prev", None), "links to its block and its neighbours disagree"),
    "size": (lambda m, o: setattr(m.main.block, "_size", 9), "says that it holds 9 operators, but holds 5"),
    "result's owner": (lambda m, o: setattr(o["s"].result, "index", 1), "result 0 belongs to"),
    "region's parent": (
        lambda m, o: setattr(o["l"].regions[0], "parent", o["a"]),
        "'body' belongs to another operator",
    ),
    "outputs": (lambda m, o: m.main.output_names.append("z"), "has 2 outputs, not 1"),
    "output names": (lambda m, o: m.main.output_names.append("y"), "two outputs called 'y'"),
    "input names": (lambda m, o: m.main.block.add_argument(T, "x"), "two inputs called 'x'"),
    "absent output": (lambda m, o: m.main.block.last.set_operand(0, None), "operand 'values' is absent"),
    "function's name": (lambda m, o: setattr(m.main, "name", "other"), "has function @other under the name @main"),
}


@pytest.mark.parametrize(
    ("name", "array", "fits"),
    [
        ("alpha", np.array(0.5, np.float16), True),
        ("alpha", np.array(1, np.int32), False),
        ("alpha", np.array([0.5], np.float16), False),
        ("axes", np.array([1, 2], np.int32), True),
        ("axes", np.array(1, np.int32), False),
        ("mode", np.array("fast", object), True),
    ],
)
def test_an_attribute_may_be_an_array_where_its_element_type_matters(name: str, array: np.ndarray, fits: bool) -> None:
    module, ops = sound()
    ops["s"].attributes[name] = array
    if fits:
        ir.verify(module)
        assert ir.same_array(ir.parse_module(ir.print_module(module)).main.block.last.prev.attributes[name], array)
    else:
        with pytest.raises(ir.VerifyError, match="not of kind"):
            ir.verify(module)


@pytest.mark.parametrize(("damage", "sentence"), BREAKS.values(), ids=BREAKS)
def test_what_is_broken_is_found(damage: Callable[[ir.Module, dict[str, ir.Op]], object], sentence: str) -> None:
    module, ops = sound()
    damage(module, ops)
    with pytest.raises(ir.VerifyError, match=sentence):
        ir.verify(module)


def test_the_scope_is_named() -> None:
    module, ops = sound()
    ops["s"].attributes.clear()
    with pytest.raises(ir.VerifyError, match=r"^after pass cse: toy.scaled \(from node_s\)") as caught:
        ir.verify(module, "pass cse")
    assert caught.value.op is ops["s"]


def test_verify_ops_looks_at_users_too() -> None:
    _, ops = sound()
    _retype(ops["c"].result, ir.TensorType(ir.F16, (3,)))
    ops["c"].attributes["value"] = np.zeros(3, np.float16)
    with pytest.raises(ir.VerifyError, match="'b' is of type tensor<3xf16>, but T is f32"):
        ir.verify_ops([ops["c"]])


def test_a_value_with_thousands_of_uses_is_checked_in_linear_time() -> None:
    f = ir.Function("main", {"x": T})
    b = ir.Builder(f.block)
    wide = b.op("toy.split", [b.op("toy.relu", [f.inputs[0]]).result for _ in range(20_000)], results=20_000)
    for r in wide.results:
        b.op("toy.add", [f.inputs[0], r])
    f.set_outputs([])
    start = time.process_time()
    ir.verify(f)
    assert time.process_time() - start < 3
