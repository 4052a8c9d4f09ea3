"""The worklist: termination, places, types, provenance, use counts, cost."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler import ir
from compiler.rewrite import RewriteError
from compiler.rewrite.driver import NO_TARGET
from tests.rewrite.engine import Graph, fires, library, names, rewritten

SHARED = """rule shared {
  match { q = MatMul(x, wq: const f32[D, Q])
          k = MatMul(x, wk: const f32[D, K]) }
  rewrite { t = MatMul(x, concat([wq, wk], axis = 1))
            (q, k) = Split(t, [Q, K]) {axis = -1} } }"""


def weight(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


class TestTermination:
    @pytest.mark.parametrize(
        ("rules", "cycle"),
        [
            ("rule swap { match { y = Add(a, b) } rewrite { y = Add(b, a) } }", "swap → swap"),
            (
                """rule ping { match { y = Relu(x) } rewrite { y = Abs(x) } }
                   rule pong { match { y = Abs(x) } rewrite { y = Relu(x) } }""",
                "ping → pong → ping|pong → ping → pong",
            ),
            ("rule grow { match { y = Relu(x) } rewrite { y = Relu(Relu(x)) } }", "grow"),
        ],
    )
    def test_what_does_not_end_is_stopped_and_named(self, rules: str, cycle: str) -> None:
        g = Graph(x="3xf32", z="3xf32")
        module = g.out(g("Relu", g("Add", g.x, g.z)))
        started = time.process_time()
        with pytest.raises(RewriteError, match=cycle):
            rewritten(rules, module)
        assert time.process_time() - started < 1.0

    def test_a_swap_in_a_large_graph_is_found_soon(self) -> None:
        g = Graph(x="3xf32", z="3xf32")
        v = g.x
        for _ in range(1000):
            v = g("Add", v, g.z)
        module = g.out(v)
        started = time.process_time()
        with pytest.raises(RewriteError, match="swap"):
            rewritten("rule swap { match { y = Add(a, b) } rewrite { y = Add(b, a) } }", module)
        assert time.process_time() - started < 5.0

    def test_a_long_descent_is_no_cycle(self) -> None:
        g = Graph(x="2x3xf32")
        v = g("Transpose", g.x, perm=(1, 0))
        for _ in range(3000):
            v = g("Relu", v)
        rule = "rule sink { match { y = Relu(Transpose(x) {perm = p}) } rewrite { y = Transpose(Relu(x)) {perm = p} } }"
        module = g.out(v)
        assert fires(rule, module) == 3000
        assert names(module)[-1] == "Transpose"


class TestPlace:
    def test_several_roots_become_one(self) -> None:
        g = Graph(x="2x3xf32")
        q, k = g("MatMul", g.x, weight(3, 4)), g("MatMul", g.x, weight(3, 5))
        module = g.out(q, k)
        assert fires(SHARED, module) == 1
        assert names(module) == ["MatMul", "Split"]

    def test_three_projections_become_one(self) -> None:
        g = Graph(x="2x3xf32")
        module = g.out(*(g("MatMul", g.x, weight(3, n)) for n in (4, 5, 6)))
        rule = """rule shared {
          match { q = MatMul(x, wq: const f32[D, Q])
                  k = MatMul(x, wk: const f32[D, K])
                  v = MatMul(x, wv: const f32[D, V]) }
          rewrite { (q, k, v) = Split(MatMul(x, concat([wq, wk, wv], axis = 1)), [Q, K, V]) {axis = -1} } }"""
        assert fires(rule, module) == 1
        assert names(module) == ["MatMul", "Split"]

    def test_operators_between_the_roots_move_up(self) -> None:
        """The second root's operand is defined behind the first root, whose user stands before the second."""
        rule = """rule pair { match { a = Neg(x)
                                      b = Add(x, z) }
                              rewrite { n = Sigmoid(x)
                                        b = Sub(z, n)
                                        a = Abs(n) } }"""
        g = Graph(x="3xf32", w="3xf32")
        a = g("Neg", g.x)
        used = g("Relu", a)
        z = g("Sigmoid", g("Exp", g.w))
        b = g("Add", g.x, z)
        module = g.out(used, b)
        assert fires(rule, module) == 1
        assert names(module)[:2] == ["Exp", "Sigmoid"]

    def test_a_result_that_feeds_the_other_stays(self) -> None:
        """b = x + a with a = x + u: what replaces both would need itself."""
        rule = """rule pair { match { a = Add(x, u: [N])
                                      b = Add(x, v: [N]) }
                              rewrite { (a, b) = Split(Add(Concat(x, x) {axis = 0}, Concat(u, v) {axis = 0}), [N, N])
                                        {axis = 0} } }"""
        g = Graph(x="3xf32", u="3xf32")
        a = g("Add", g.x, g.u)
        module = g.out(a, g("Add", g.x, a))
        assert fires(rule, module) == 0
        g = Graph(x="3xf32", u="3xf32")
        a = g("Add", g.x, g.u)
        module = g.out(a, g("Add", g.x, g("Relu", a)))
        assert fires(rule, module) == 0

    def test_a_result_inside_the_match_reaches_its_other_users(self) -> None:
        rule = """rule both { match { r = Relu(x)
                                      y = Neg(r) }
                              rewrite { r = Max(x, 0.0)
                                        y = Min(Neg(x), 0.0) } }"""
        g = Graph(x="3xf32")
        r = g("Relu", g.x)
        early = g("Abs", r)
        module = g.out(early, g("Neg", r))
        assert fires(rule, module) == 0
        g = Graph(x="3xf32")
        r = g("Relu", g.x)
        y = g("Neg", r)
        module = g.out(y, g("Abs", r))
        assert fires(rule, module) == 1
        assert "Relu" not in names(module)

    def test_a_match_may_reach_out_of_a_region(self) -> None:
        g = Graph(c="bool", x="3xf32")
        outer = g("Relu", g.x)
        branches = []
        for name in ("onnx.Neg", "onnx.Abs"):
            block = ir.Block()
            builder = ir.Builder(block)
            builder.ret([builder.op(name, [outer]).result])
            branches.append(block)
        module = g.out(g("If", g.c, regions=branches))
        assert fires("rule r { match { y = Neg(Relu(x)) } rewrite { y = Min(Neg(x), 0.0) } }", module) == 1
        assert fires("rule r { match { y = Abs(Relu(x)) } rewrite { y = Max(x, 0.0) } }", module) == 1
        assert names(module) == ["If"]


class TestTypes:
    def test_what_is_known_of_a_value_stays_known(self) -> None:
        g = Graph(x="Nx3xf32", s="2xi64")
        y = g("Reshape", g.x, g.s)
        y.type = ir.TensorType(ir.F32, (4, "M"))
        module = g.out(y)
        assert (
            fires(
                'rule r { match { y = Reshape(x, s) } rewrite { y = Reshape(Neg(x), s) } where { op_name(x) == "" } }',
                module,
            )
            == 1
        )
        assert module.main.outputs[0].type is ir.TensorType(ir.F32, (4, "M"))

    def test_a_value_of_unknown_shape_does_not_stand_for_another(self) -> None:
        g = Graph(x="?x3xf32")
        y = g("Relu", g.x)
        y.type = ir.TensorType(ir.F32, (2, 3))
        assert fires("rule r { match { y = Relu(x) } rewrite { y = x } }", g.out(y)) == 0


class TestProvenance:
    def test_nodes_and_chain_of_rules(self) -> None:
        g = Graph(x="3xf32")
        module = g.out(g("Neg", g("Relu", g.x)))
        for i, op in enumerate(module.main.block.ops):
            op.loc = ir.Location((f"node{i}",))
        rules = """rule one { match { y = Neg(Relu(x)) } rewrite { y = Abs(x) } }
                   rule two { match { y = Abs(x) } rewrite { y = Sigmoid(x) } }"""
        report = rewritten(rules, module)
        assert report.fires == {"one": 1, "two": 1}
        loc = module.main.outputs[0].op.loc
        assert (set(loc.nodes), loc.rules) == ({"node0", "node1"}, ("one", "two"))

    def test_names_of_values_stay(self) -> None:
        g = Graph(x="3xf32")
        y = g("Neg", g.x)
        y.name = "result"
        module = g.out(y)
        fires("rule r { match { y = Neg(x) } rewrite { y = Abs(x) } }", module)
        assert module.main.outputs[0].name == "result"


class TestRequeue:
    def test_use_counts_are_looked_at_again(self) -> None:
        """Once the first rule has removed one user of r, the second may fire on the other, which stands before."""
        rules = """rule once { match { r = Relu(x)
                                      y = Neg(r) } where { uses(r) == 1 } rewrite { y = Min(Neg(x), 0.0) } }
                   rule drop { match { y = Abs(Relu(x)) } rewrite { y = Max(x, 0.0) } }"""
        g = Graph(x="3xf32")
        r = g("Relu", g.x)
        module = g.out(g("Neg", r), g("Abs", r))
        assert rewritten(rules, module).fires == {"once": 1, "drop": 1}

    def test_a_new_operand_is_looked_at_from_above(self) -> None:
        rules = """rule deep { match { y = Neg(Exp(Sigmoid(Relu(x)))) } rewrite { y = x } }
                   rule base { match { y = Abs(x) } rewrite { y = Relu(x) } }"""
        g = Graph(x="3xf32")
        module = g.out(g("Neg", g("Exp", g("Sigmoid", g("Abs", g.x)))))
        assert rewritten(rules, module).fires == {"base": 1, "deep": 1}
        assert names(module) == []

    def test_another_root_is_found_when_the_shared_operand_changes(self) -> None:
        g = Graph(x="2x3xf32")
        q, k = g("MatMul", g("Identity", g.x), weight(3, 4)), g("MatMul", g.x, weight(3, 5))
        module = g.out(q, k)
        report = rewritten(SHARED + "\nrule drop { match { y = Identity(x) } rewrite { y = x } }", module)
        assert report.fires == {"drop": 1, "shared": 1}


class TestCost:
    @pytest.mark.parametrize("n", [200, 2000])
    def test_visits_are_linear(self, n: int) -> None:
        g = Graph(x="3xf32")
        v = g.x
        for _ in range(n):
            v = g("Relu", g("Neg", g("Identity", v)))
        module = g.out(v)
        rules = """rule a { match { y = Identity(x) } rewrite { y = x } }
                   rule b { match { y = Relu(Neg(x)) } rewrite { y = Neg(Min(x, 0.0)) } }"""
        report = rewritten(rules, module)
        assert report.fires == {"a": n, "b": n}
        assert report.visits <= 8 * n

    def test_a_value_with_many_users_does_not_cost_its_square(self) -> None:
        g = Graph(x="3xf32")
        module = g.out(*(g("Neg", g("Relu", g.x)) for _ in range(500)))
        report = rewritten("rule r { match { y = Neg(Relu(x)) } rewrite { y = Min(Neg(x), 0.0) } }", module)
        assert report.fires == {"r": 500}
        assert report.visits <= 8 * 500


RULES = """
rule a { match { y = Neg(Neg(x)) } rewrite { y = x } }
rule b { match { y = Relu(Relu(x)) } rewrite { y = Relu(x) } }
rule c { match { y = Add(Neg(x), z) } rewrite { y = Sub(z, x) } }
rule d { match { r = Abs(x)
                 y = Neg(r) } where { uses(r) == 1 } rewrite { y = Min(x, Neg(x)) } }
rule e { match { p = Sub(x, z)
                 q = Sub(z, x) } rewrite { n = Sub(z, x)
 q = n
 p = Neg(n) } }
"""
UNARY = ("Neg", "Relu", "Abs", "Identity")
BINARY = ("Add", "Sub", "Max")


@settings(max_examples=60)
@given(st.data())
def test_random_graphs_stay_valid_and_reach_a_fixpoint(data: st.DataObject) -> None:
    g = Graph(x="3xf32", z="3xf32")
    values = [g.x, g.z]
    for _ in range(data.draw(st.integers(1, 25))):
        name = data.draw(st.sampled_from(UNARY + BINARY))
        operands = [data.draw(st.sampled_from(values)) for _ in range(1 + (name in BINARY))]
        values.append(g(name, *operands))
    outputs = data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=4))
    module = g.out(*outputs)
    rewritten(RULES, module)
    stage = library(RULES).stage("fuse")
    for op in module.main.block.ops:
        assert all(entry.matcher.match(op, NO_TARGET) is None for entry in stage.candidates(op))
