"""Why a rule fires or does not, and what rules did."""

from __future__ import annotations

import pytest

from compiler.errors import UserError
from compiler.ir import Location, Module
from compiler.rewrite.explain import Watch
from compiler.rewrite.meter import Meter
from tests.rewrite.engine import Graph, library

RULES = """rule neg_twice {
  match { y = Neg(Neg(x)) }
  rewrite { y = x }
}
rule small_clip {
  match { y = Clip(x, low: const, high: const) }
  where { rank(x) == 2,
          high - low < 1 }
  rewrite { y = Max(x, low) }
}
rule gone { match { y = Abs(Relu(x)) } rewrite { y = Relu(x) } }
"""


def model() -> Module:
    g = Graph(x="2x3xf32", n="?x3xf32")
    module = g.out(g("Neg", g("Neg", g.x)), g("Clip", g.x, 0.0, 6.0), g("Clip", g("Relu", g.x), 0.0, g("Neg", 3.0)))
    for i, op in enumerate(module.walk()):
        op.loc = Location((f"node{i}",))
    return module


def watched(rule: str, node: str | None = None) -> Watch:
    watch = Watch(library(RULES), rule, node)
    watch.rewrite(model(), "fuse")
    return watch


def test_where_it_fires() -> None:
    found = watched("neg_twice").found
    assert [set(f.nodes) for f in found.fires] == [{"node0", "node1"}]


def test_the_clause_that_failed_and_what_it_saw() -> None:
    watch = watched("small_clip")
    nearest = watch.found.misses[0]
    assert watch.clause(nearest.pos) == "high - low < 1"
    seen = dict(nearest.seen)
    assert set(seen) == {"high", "low"}
    assert "6." in seen["high"]
    text = watch.render()
    assert "t.rules:10:11: this condition does not hold" in text
    assert "          ^^^^^^^^^^^^^^" in text


def test_structure_is_a_clause_too() -> None:
    watch = watched("small_clip")
    assert any("'high' is a constant" in m.text for m in watch.found.misses)


def test_one_node() -> None:
    everywhere, one = watched("small_clip").found.misses, None
    node = everywhere[0].nodes[0]
    one = watched("small_clip", node).found.misses
    assert len(one) == 1 < len(everywhere)
    assert one[0].nodes == (node,)


def test_a_node_that_does_not_exist() -> None:
    with pytest.raises(UserError, match="no operator comes from a node 'nod1'; did you mean 'node1'"):
        watched("small_clip", "nod1")


def test_the_rule_that_has_taken_where_another_could_start() -> None:
    """What a stage sees has gone through those before it: a division by a number is a product by then."""
    rules = """stage canonicalize
    use onnx
    rule by_product { match { y = Div(x, k: const) } rewrite { y = Mul(x, 1.0 / k) } }
    stage fuse
    rule relu_by_six { match { y = Div(Relu(x), 6.0) } rewrite { y = Relu(Div(x, 6.0)) } }"""
    g = Graph(x="2x3xf32")
    module = g.out(g("Div", g("Relu", g.x), 6.0))
    watch = Watch(library(rules), "relu_by_six")
    watch.rewrite(module, "canonicalize")
    watch.rewrite(module, "fuse")
    text = watch.render()
    assert "it starts at onnx.Div, and none is left" in text
    assert "by_product (stage canonicalize) has replaced 1" in text


def test_what_a_value_is_made_of_and_the_target_are_shown() -> None:
    rules = """rule r { match { y = Clip(x, a: const, b: const) } where { target.unit == "gpu" } rewrite { y = x } }
    rule s { match { y = Clip(Abs(x), 0.0, 6.0) } rewrite { y = x } }"""
    watch = Watch(library(rules), "r")
    watch.rewrite(model(), "fuse")
    assert ("target.unit", "None") in watch.found.misses[0].seen
    watch = Watch(library(rules), "s")
    watch.rewrite(model(), "fuse")
    assert "onnx.Clip(an input, constant, constant)" in watch.render()


def test_rewriting_goes_on_as_usual() -> None:
    a, b = model(), model()
    library(RULES).rewrite(a, "fuse")
    Watch(library(RULES), "small_clip").rewrite(b, "fuse")
    assert [op.name for op in a.walk()] == [op.name for op in b.walk()]


def test_a_stage_that_is_not_run() -> None:
    watch = Watch(library(RULES), "gone")
    assert "is not run" in watch.render()
    assert "it starts at onnx.Abs, and there is none" in watched("gone").render()


def test_an_unknown_rule() -> None:
    with pytest.raises(UserError, match="did you mean 'small_clip'"):
        Watch(library(RULES), "smal_clip")


def test_stats() -> None:
    meter = Meter(library(RULES))
    for _ in range(2):
        meter.rewrite(model(), "fuse")
    neg = meter.total["neg_twice"]
    assert (neg.fires, neg.ops) == (2, -4)
    assert neg.attempts >= 2
    assert neg.seconds > 0
    assert set(meter.silent) == {"small_clip", "gone"}
