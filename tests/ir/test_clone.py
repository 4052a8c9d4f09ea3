"""Clones are equal, their own, and share arrays."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

from compiler import ir
from tests.ir import toy

T = ir.TensorType(ir.F32, (3,))


@given(toy.modules())
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_random_modules(module: ir.Module) -> None:
    text = ir.print_module(module, locations=True)
    clone = ir.clone_module(module)
    ir.verify(clone)
    assert ir.print_module(clone, locations=True) == text
    for function in clone.functions.values():
        function.block.clear()
    ir.verify(module)
    assert ir.print_module(module, locations=True) == text


def test_clones_share_arrays_but_not_attributes() -> None:
    f = ir.Function("main", {"x": T}, ["y"])
    c = ir.Builder(f.block).constant([1.0], "toy")
    f.set_outputs([c])
    values: dict[ir.Value, ir.Value] = {}
    g = ir.clone_function(f, "copy", values)
    assert (g.name, g.output_names, values[f.inputs[0]]) == ("copy", ["y"], g.inputs[0])
    assert values[c].constant is c.constant
    assert g.block.first.attributes is not c.op.attributes


def test_operators_go_where_they_are_told_with_values_replaced() -> None:
    f = ir.Function("main", {"x": T, "z": T})
    b = ir.Builder(f.block)
    first = b.op("toy.relu", [f.inputs[0]])
    second = b.op("toy.add", [first.result, f.inputs[0]])
    f.set_outputs([second.result], ["y"])
    values: dict[ir.Value, ir.Value] = {f.inputs[0]: f.inputs[1]}
    copies = ir.clone_ops([first, second], f.block, values, before=f.block.last)
    assert list(f.block.ops)[2:4] == copies
    assert copies[0].operands == (f.inputs[1],)
    assert copies[1].operands == (copies[0].result, f.inputs[1])
    assert values[second.result] is copies[1].result
    ir.verify(f)


def test_what_is_not_mapped_stays() -> None:
    f = ir.Function("main", {"x": T})
    first = ir.Builder(f.block).op("toy.relu", [f.inputs[0]])
    (copy,) = ir.clone_ops([first], f.block, {})
    assert copy.operands == first.operands
