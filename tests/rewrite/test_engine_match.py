"""What each construct of the rule language matches, and what it must not match."""

from __future__ import annotations

import numpy as np
import pytest

from compiler import ir
from compiler.rewrite import RuleError
from tests.rewrite.engine import Graph, fires, library, names, rewritten


def f32(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


class TestOperands:
    def test_nested_operators(self) -> None:
        g = Graph(x="3xf32")
        module = g.out(g("Relu", g("Neg", g("Abs", g.x))))
        assert fires("rule r { match { y = Relu(Neg(Abs(x))) } rewrite { y = Sigmoid(x) } }", module) == 1
        assert names(module) == ["Sigmoid"]

    def test_the_same_name_twice_is_the_same_value(self) -> None:
        rule = "rule r { match { y = Sub(Relu(x), x) } rewrite { y = Neg(x) } }"
        g = Graph(x="3xf32", z="3xf32")
        assert fires(rule, g.out(g("Sub", g("Relu", g.x), g.x))) == 1
        g = Graph(x="3xf32", z="3xf32")
        assert fires(rule, g.out(g("Sub", g("Relu", g.x), g.z))) == 0

    def test_a_named_value_in_the_middle_is_shared(self) -> None:
        rule = "rule r { match { r = Relu(x)\n y = Mul(r, Sigmoid(r)) } rewrite { y = Abs(x) } }"
        g = Graph(x="3xf32")
        r = g("Relu", g.x)
        assert fires(rule, g.out(g("Mul", r, g("Sigmoid", r)))) == 1
        g = Graph(x="3xf32")
        assert fires(rule, g.out(g("Mul", g("Relu", g.x), g("Sigmoid", g("Relu", g.x))))) == 0

    def test_what_is_used_elsewhere_stays(self) -> None:
        g = Graph(x="3xf32")
        r = g("Relu", g.x)
        module = g.out(g("Neg", r), g("Abs", r))
        assert fires("rule r { match { y = Neg(Relu(x)) } rewrite { y = Sigmoid(x) } }", module) == 1
        assert names(module) == ["Relu", "Sigmoid", "Abs"]

    @pytest.mark.parametrize(("name", "fired"), [("Relu", 1), ("Sigmoid", 1), ("Tanh", 0)])
    def test_operator_sets_and_alternatives(self, name: str, fired: int) -> None:
        for pattern in ("{Relu, Sigmoid}(x)", "a(x)"):
            g = Graph(x="3xf32")
            rule = (
                f"pattern a(x) = Relu(x) | Sigmoid(x)\nrule r {{ match {{ y = Neg({pattern}) }} rewrite {{ y = x }} }}"
            )
            assert fires(rule, g.out(g("Neg", g(name, g.x)))) == fired

    @pytest.mark.parametrize("flip", range(8))
    def test_commutative_operands_nested_in_each_other(self, flip: int) -> None:
        rule = "rule r { match { y = Mul(Mul(x, Add(Erf(x), 1.0)), 0.5) } rewrite { y = Neg(x) } }"
        g = Graph(x="3xf32")

        def both(name: str, a: ir.Value, b: float | ir.Value, bit: int) -> ir.Value:
            return g(name, b, a) if flip >> bit & 1 else g(name, a, b)

        inner = both("Add", g("Erf", g.x), 1.0, 0)
        assert fires(rule, g.out(both("Mul", both("Mul", g.x, inner, 1), 0.5, 2))) == 1

    def test_order_counts_where_the_operator_does_not_commute(self) -> None:
        rule = "rule r { match { y = Sub(x, k: const) } rewrite { y = Add(x, 0 - k) } }"
        g = Graph(x="3xf32")
        assert fires(rule, g.out(g("Sub", g.x, 1.0))) == 1
        g = Graph(x="3xf32")
        assert fires(rule, g.out(g("Sub", 1.0, g.x))) == 0

    def test_optional_operands(self) -> None:
        rule = (
            "rule r { match { y = Clip(x, lo?: const, hi?: const) } where { (lo ?? 0) == 0 } rewrite { y = Relu(x) } }"
        )
        for low, fired in ((None, 1), (0.0, 1), (2.0, 0)):
            g = Graph(x="3xf32")
            assert fires(rule, g.out(g("Clip", g.x, low))) == fired

    def test_an_operand_that_is_not_mentioned_must_be_absent(self) -> None:
        rule = "rule r { match { y = Clip(x, lo) } rewrite { y = Relu(x) } }"
        for operands, fired in (((0.0,), 1), ((0.0, 6.0), 0), ((None, 6.0), 0)):
            g = Graph(x="3xf32")
            assert fires(rule, g.out(g("Clip", g.x, *operands))) == fired
        rule = "rule r { match { y = Clip(x, max = hi) } rewrite { y = Relu(x) } }"
        for operands, fired in (((0.0, 6.0), 0), ((None, 6.0), 1)):
            g = Graph(x="3xf32")
            assert fires(rule, g.out(g("Clip", g.x, *operands))) == fired

    def test_variadic_tail(self) -> None:
        rule = (
            "rule r { match { y = Max(x, *xs) } where { len(xs) == 2 } rewrite { y = Sum(x, *[Neg(v) for v in xs]) } }"
        )
        g = Graph(x="3xf32", y="3xf32", z="3xf32")
        module = g.out(g("Max", g.x, g.y, g.z))
        assert fires(rule, module) == 1
        assert names(module) == ["Neg", "Neg", "Sum"]
        g = Graph(x="3xf32", y="3xf32")
        assert fires(rule, g.out(g("Max", g.x, g.y))) == 0


class TestConstants:
    @pytest.mark.parametrize(
        ("value", "exact", "near"),
        [
            (f32(2.0), 1, 1),
            (np.float32(2.0), 1, 1),
            (np.full((2, 3), 2, np.float32), 1, 1),
            (f32(2.0, 2.5), 0, 0),
            (np.float32(2.0005), 0, 1),
            (np.float32(2.1), 0, 0),
            (np.zeros(0, np.float32), 0, 0),
        ],
    )
    def test_literals(self, value: np.ndarray, exact: int, near: int) -> None:
        for literal, fired in (("2", exact), ("≈2.0", near)):
            g = Graph(x="2x3xf32") if np.size(value) in (1, 6) else Graph(x=f"{max(np.size(value), 1)}xf32")
            rule = f"rule r {{ match {{ y = Mul(x, {literal}) }} rewrite {{ y = Add(x, x) }} }}"
            assert fires(rule, g.out(g("Mul", g.x, np.asarray(value)))) == fired

    def test_a_literal_is_rounded_to_the_element_type(self) -> None:
        g = Graph(x="3xf16")
        rule = "rule r { match { y = Mul(x, 0.1) } rewrite { y = Neg(x) } }"
        assert fires(rule, g.out(g("Mul", g.x, np.array(0.1, np.float16)))) == 1

    def test_a_list_is_a_vector(self) -> None:
        rule = (
            "rule r { match { y = Reshape(x, [2, 3]) {allowzero = _} } rewrite { y = Transpose(x) {perm = [1, 0]} } }"
        )
        for to, fired in (([2, 3], 1), ([6], 0), ([1, 6], 0)):
            g = Graph(x="3x2xf32")
            assert fires(rule, g.out(g("Reshape", g.x, to))) == fired

    def test_a_broadcasting_literal_must_not_change_the_shape(self) -> None:
        rule = "rule r { match { y = Add(x, 0.0) } rewrite { y = x } }"
        g = Graph(x="3xf32")
        assert fires(rule, g.out(g("Add", g.x, np.zeros((2, 3), np.float32)))) == 0
        g = Graph(x="Nxf32")
        assert fires(rule, g.out(g("Add", g.x, np.zeros(3, np.float32)))) == 0

    def test_const_binds_the_array(self) -> None:
        rule = "rule r { match { y = Add(x, k: const) } let { n = 0 - k } rewrite { y = Sub(x, n) } }"
        g = Graph(x="2xf32", z="2xf32")
        module = g.out(g("Add", f32(1, 2), g.x))
        assert fires(rule, module) == 1
        sub = next(op for op in module.walk() if op.name == "onnx.Sub")
        assert sub.operands[1].constant.tolist() == [-1, -2]
        g = Graph(x="2xf32", z="2xf32")
        assert fires(rule, g.out(g("Add", g.z, g.x))) == 0


class TestAttributes:
    def test_what_is_not_mentioned_must_be_default(self) -> None:
        rule = "rule r { match { y = LeakyRelu(x) } rewrite { y = Relu(x) } }"
        g = Graph(x="3xf32")
        assert fires(rule, g.out(g("LeakyRelu", g.x))) == 1
        g = Graph(x="3xf32")
        assert fires(rule, g.out(g("LeakyRelu", g.x, alpha=0.5))) == 0

    @pytest.mark.parametrize(
        ("pattern", "fired"),
        [
            ("axis = 1", 1),
            ("axis = 0 | 1", 1),
            ("axis = 2", 0),
            ("axis = _", 1),
            ("axis = _?, keepdims = _?", 1),
            ("axis = _?, keepdims = _ ?? 7, ..rest", 1),
            ("axis = a", 1),
            ("..rest", 1),
            ("keepdims = 0 | 1, ..rest", 1),
        ],
    )
    def test_choices(self, pattern: str, fired: int) -> None:
        g = Graph(x="2x3xf32")
        keep = "" if "keepdims" in pattern or "rest" in pattern else "keepdims = 0, "
        made = "ArgMin(x) {axis = 1, keepdims = 0}"
        rule = f"rule r {{ match {{ y = ArgMax(x) {{{keep}{pattern}}} }} rewrite {{ y = {made} }} }}"
        assert fires(rule, g.out(g("ArgMax", g.x, axis=1, keepdims=0))) == fired

    @pytest.mark.parametrize(("pattern", "fired"), [("f16", 1), ("f16 | f32", 1), ("f32", 0), ("t", 1)])
    def test_element_types(self, pattern: str, fired: int) -> None:
        g = Graph(x="3xf32")
        module = g.out(g("Cast", g.x, to=ir.F16))
        rule = f"rule r {{ match {{ y = Cast(x) {{to = {pattern}}} }} rewrite {{ y = Cast(Neg(x)) {{to = f16}} }} }}"
        library_ = library(rule)
        matcher = library_.stage("fuse").entries[0].matcher
        assert (matcher.match(module.main.outputs[0].op, None) is not None) == fired

    def test_the_same_name_twice_is_the_same_value(self) -> None:
        rule = """rule r { match { y = Softmax(Softmax(x) {axis = a}) {axis = a} }
                 rewrite { y = Hardmax(x) {axis = a} } }"""
        for axis, fired in ((0, 1), (1, 0)):
            g = Graph(x="2x3xf32")
            assert fires(rule, g.out(g("Softmax", g("Softmax", g.x, axis=0), axis=axis))) == fired

    def test_optional_and_default(self) -> None:
        for given, fired in ({}, 1), ({"perm": (1, 0)}, 1), ({"perm": (0, 1)}, 0):
            g = Graph(x="2x2xf32")
            rule = """rule r { match { y = Transpose(x) {perm = p?} }
                     where { (p ?? [1, 0]) == [1, 0] } rewrite { y = Neg(x) } }"""
            assert fires(rule, g.out(g("Transpose", g.x, **given))) == fired
            g = Graph(x="2x2xf32")
            rule = """rule r { match { y = Transpose(x) {perm = p ?? [1, 0]} }
                     where { p == [1, 0] } rewrite { y = Neg(x) } }"""
            assert fires(rule, g.out(g("Transpose", g.x, **given))) == fired

    def test_old_forms_match_only_when_spelled(self) -> None:
        g = Graph(x="2x3xf32")
        module = g.out(g("Softmax@11", g.x, axis=1))
        assert fires("rule r { match { y = Softmax(x) {axis = _} } rewrite { y = x } }", module) == 0
        assert (
            fires("rule r { match { y = Softmax@11(x) {axis = a} } rewrite { y = Softmax(x) {axis = a} } }", module)
            == 1
        )
        assert names(module) == ["Softmax"]


class TestTypes:
    @pytest.mark.parametrize(
        ("constraint", "x", "fired"),
        [
            ("f32", "2x3xf32", 1),
            ("f16", "2x3xf32", 0),
            ("{f16, f32}", "2x3xf32", 1),
            ("float", "2x3xf32", 1),
            ("integer", "2x3xf32", 0),
            ("f32[2, 3]", "2x3xf32", 1),
            ("f32[_, 3]", "2x3xf32", 1),
            ("[N, N]", "2x3xf32", 0),
            ("[N, N]", "3x3xf32", 1),
            ("[N, *rest]", "2x3xf32", 1),
            ("[*rest, N]", "xf32", 0),
            ("[A, *rest, B]", "2x3xf32", 1),
            ("[A, *rest, B]", "2xf32", 0),
            ("[2]", "2x3xf32", 0),
            ("[B, B]", "bxbxf32", 1),
            ("[B, B]", "bxcxf32", 0),
            ("[B, B]", "?x?xf32", 0),
        ],
    )
    def test_constraints(self, constraint: str, x: str, fired: int) -> None:
        g = Graph(x=x.removeprefix("x") if x == "xf32" else x)
        assert (
            fires(f"rule r {{ match {{ y = Neg(x: {constraint}) }} rewrite {{ y = Abs(x) }} }}", g.out(g("Neg", g.x)))
            == fired
        )

    def test_dimensions_unify_across_operands(self) -> None:
        rule = """rule r { match { y = Concat(a: [N, *r], b: [N, *r]) {axis = 0} }
                 rewrite { y = Concat(b, a) {axis = 0} } where { uses(a) == 1 } }"""
        for b, fired in (("2x3xf32", True), ("4x3xf32", False)):
            g = Graph(a="2x3xf32", b=b)
            module = g.out(g("Concat", g.a, g.b, axis=0))
            entry = library(rule).stage("fuse").entries[0]
            assert (entry.matcher.match(module.main.outputs[0].op, None) is not None) == fired

    def test_a_dimension_that_is_computed_with_must_be_known(self) -> None:
        rule = "rule r { match { y = Flatten(x: [N, *rest]) {axis = 1} } rewrite { y = Reshape(x, [N, prod(rest)]) } }"
        for x, fired in (("2x3x4xf32", 1), ("Bx3x4xf32", 0), ("2x3xWxf32", 0)):
            g = Graph(x=x)
            assert fires(rule, g.out(g("Flatten", g.x, axis=1))) == fired

    def test_type_variables(self) -> None:
        rule = "rule r { match { y = Where(Equal(a: T, b), x: T, z) } rewrite { y = x } }"
        for x, fired in (("3xf32", 1), ("3xf16", 0)):
            g = Graph(a="3xf32", b="3xf32", x=x, z=x)
            assert fires(rule, g.out(g("Where", g("Equal", g.a, g.b), g.x, g.z))) == fired

    def test_unknown_facts_make_a_rule_not_apply(self) -> None:
        for condition in ("rank(x) == 2", "shape(x)[0] == 2", "dim(x, 5) == 2"):
            g = Graph(x="Nx3xf32")
            rule = f"rule r {{ match {{ y = Neg(x) }} where {{ {condition} }} rewrite {{ y = Abs(x) }} }}"
            assert fires(rule, g.out(g("Neg", g.x))) == ("rank" in condition)


class TestConditions:
    def test_variants_in_order(self) -> None:
        rule = """rule r {
          match { y = Transpose(Transpose(x) {perm = p}) {perm = q} }
          rewrite when compose(p, q) == iota(rank(x)) { y = x }
          else when q == [1, 0, 2] { y = Neg(Transpose(x) {perm = compose(p, q)}) }
          else { y = Transpose(x) {perm = compose(p, q)} } }"""
        for q, expected in (((2, 0, 1), []), ((1, 0, 2), ["Transpose", "Neg"]), ((1, 2, 0), ["Transpose"])):
            g = Graph(x="2x2x2xf32")
            module = g.out(g("Transpose", g("Transpose", g.x, perm=(1, 2, 0)), perm=q))
            assert fires(rule, module) == 1
            assert names(module) == expected

    def test_no_variant_applies(self) -> None:
        g = Graph(x="3xf32")
        rule = "rule r { match { y = LeakyRelu(x) {alpha = a} } rewrite when a > 1 { y = Abs(x) } }"
        assert fires(rule, g.out(g("LeakyRelu", g.x, alpha=0.5))) == 0

    def test_a_condition_sees_what_let_computes(self) -> None:
        rule = "rule r { match { y = Add(x, k: const) } where { n > 2 } let { n = size(k) } rewrite { y = Neg(x) } }"
        for k, fired in ((f32(1, 2, 3), 1), (f32(1), 0)):
            g = Graph(x="3xf32")
            assert fires(rule, g.out(g("Add", g.x, k))) == fired

    def test_uses(self) -> None:
        rule = "rule r { match { r = Relu(x)\n y = Neg(r) } where { uses(r) == 1 } rewrite { y = Abs(x) } }"
        g = Graph(x="3xf32")
        r = g("Relu", g.x)
        assert fires(rule, g.out(g("Neg", r), r)) == 0

    def test_a_function_of_the_language(self) -> None:
        rule = """fn halved(p) = [i div 2 for i in p]
        rule r { match { y = Transpose(x) {perm = p} } where { halved(p) == [0, 0, 1] } rewrite { y = Neg(x) } }"""
        g = Graph(x="2x2x2xf32")
        assert fires(rule, g.out(g("Transpose", g.x, perm=(1, 0, 2)))) == 1


class TestResults:
    def test_several_results(self) -> None:
        rule = """rule r { match { (a, b) = Split(x, [1, 2]) {axis = 0} }
                 rewrite { (a, b) = Split(Neg(x), [1, 2]) {axis = 0} } where { op_name(x) == "" } }"""
        g = Graph(x="3xf32")
        module = g.out(*g("Split", g.x, [1, 2], axis=0, results=2))
        assert fires(rule, module) == 1
        assert names(module) == ["Neg", "Split"]

    def test_more_results_than_the_operator_has(self) -> None:
        rule = """rule r { match { (a, b, c) = Split(x, k: const) {axis = 0} }
                 rewrite { (a, b, c) = Split(Neg(x), k) {axis = 0} } where { op_name(x) == "" } }"""
        g = Graph(x="3xf32")
        assert fires(rule, g.out(*g("Split", g.x, [1, 2], axis=0, results=2))) == 0

    def test_results_that_are_not_named_must_be_unused(self) -> None:
        rule = "rule r { match { v = TopK(x, k) } rewrite { v = Relu(x) } }"
        for used, fired in ((False, 1), (True, 0)):
            g = Graph(x="3xf32")
            v, i = g("TopK", g.x, [3], results=2)
            assert fires(rule, g.out(v, i) if used else g.out(v)) == fired

    def test_clone(self) -> None:
        rule = """rule r { match { y = {Relu, LeakyRelu}(Transpose(x) {perm = p}) {..a} }
                 rewrite { y = Transpose(clone(y, x)) {perm = p} } }"""
        g = Graph(x="2x3xf32")
        module = g.out(g("LeakyRelu", g("Transpose", g.x, perm=(1, 0)), alpha=0.5))
        assert fires(rule, module) == 1
        leaky, transpose = (op for op in module.main.block.ops if not op.defn.terminator)
        assert (leaky.attributes["alpha"], transpose.name) == (0.5, "onnx.Transpose")

    def test_data_becomes_a_constant_of_the_right_type(self) -> None:
        g = Graph(x="3xf16")
        module = g.out(g("Add", g.x, np.array(2, np.float16)))
        assert fires("rule r { match { y = Add(x, k: const) } rewrite { y = Mul(x, 1 + k / 2) } }", module) == 1
        assert {v.type.dtype for op in module.walk() for v in op.operands} == {ir.F16}

    def test_a_wrong_type_is_rejected(self) -> None:
        g = Graph(x="2x3xf32")
        module = g.out(g("Neg", g.x))
        report = rewritten("rule r { match { y = Neg(x) } rewrite { y = Transpose(x) {perm = [1, 0]} } }", module)
        assert report.rules["r"].rejected == 1
        assert names(module) == ["Neg"]

    def test_python_builder(self) -> None:
        rule = (
            "rule r { match { y = LeakyRelu(x) {alpha = a} } rewrite by tests.rewrite.test_engine_match.build_scaled }"
        )
        for alpha, fired in ((0.5, 1), (2.0, 0)):
            g = Graph(x="3xf32")
            module = g.out(g("LeakyRelu", g.x, alpha=alpha))
            assert fires(rule, module) == fired
            assert names(module) == (["Mul", "Max"] if fired else ["LeakyRelu"])


def build_scaled(b, m):
    if m.a > 1:
        return None
    return b.op("onnx.Max", [m.x, b.op("onnx.Mul", [m.x, m.a])])


class TestRegions:
    RULE = "rule r { match { y = If(Not(c)) with (t, e) } rewrite { y = If(c) with (e, t) } }"

    @staticmethod
    def conditional(g: Graph) -> ir.Value:
        branches = []
        for name in ("onnx.Neg", "onnx.Abs"):
            block = ir.Block()
            builder = ir.Builder(block)
            builder.ret([builder.op(name, [g.x]).result])
            branches.append(block)
        return g("If", g("Not", g.c), regions=branches)

    def test_regions_move(self) -> None:
        g = Graph(c="bool", x="3xf32")
        module = g.out(self.conditional(g))
        assert fires(self.RULE, module) == 1
        assert names(module) == ["If"]
        op = module.main.outputs[0].op
        assert [next(r.ops).name for r in op.regions] == ["onnx.Abs", "onnx.Neg"]

    def test_regions_come_back_when_a_result_is_turned_down(self) -> None:
        g = Graph(c="bool", x="3xf32")
        module = g.out(self.conditional(g))
        before = ir.print_module(module)
        rule = self.RULE.replace("y = If(c) with (e, t)", "y = Unsqueeze(If(c) with (e, t), [0])")
        assert rewritten(rule, module).rules["r"].rejected == 1
        assert ir.print_module(module) == before

    def test_rules_fire_inside_regions(self) -> None:
        g = Graph(c="bool", x="3xf32")
        assert fires("rule r { match { y = Neg(x) } rewrite { y = Relu(x) } }", g.out(self.conditional(g))) == 1


def test_a_matcher_with_too_many_loops_is_refused() -> None:
    pattern = "x"
    for _ in range(20):
        pattern = f"Add({pattern}, 1.0)"
    with pytest.raises(RuleError, match="commutative"):
        library(f"rule r {{ match {{ y = {pattern} }} rewrite {{ y = x }} }}").stage("fuse")


def build_half(b, m):
    """Builds a body that uses a constant made outside, and gives up."""
    c = b.constant(np.ones(3, np.float32), "onnx")
    inner = ir.Builder(ir.Block())
    inner.ret([inner.op("onnx.Add", [m.x, c]).result])
    raise ir.InferenceError("no operator for this body")


def test_what_a_builder_leaves_half_done_is_taken_back() -> None:
    g = Graph(x="3xf32")
    module = g.out(g("Neg", g.x))
    report = rewritten("rule r { match { y = Neg(x) } rewrite by tests.rewrite.test_engine_match.build_half }", module)
    assert (report.rules["r"].rejected, report.rules["r"].reason) == (1, "no operator for this body")
    assert names(module) == ["Neg"]
    assert module.main.inputs[0].use_count == 1
