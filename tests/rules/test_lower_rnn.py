"""Recurrent layers: as Core ML's own where they compute the same, else written out or looped."""

from __future__ import annotations

import numpy as np
import pytest

from rules import natives_rnn
from tests.rules.harness import RELEASES, C, build, check, lower, rand, refuses

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
DIRECTIONS = ("forward", "reverse", "bidirectional")


def operands(
    op, direction="forward", constant=True, bias=True, initial=True, steps=4, batch=2, peephole=False, layout=0
):
    g, d, n = GATES[op], 2 if direction == "bidirectional" else 1, 3
    put = C if constant else (lambda a: a)
    x = rand(steps, batch, 5)
    h = [rand(d, batch, n, seed=4), rand(d, batch, n, seed=5)][: 2 if op == "LSTM" else 1]
    if layout:
        x, h = x.swapaxes(0, 1), [v.swapaxes(0, 1) for v in h]
    out = [x, put(rand(d, g * n, 5, seed=1)), put(rand(d, g * n, n, seed=2))]
    out += [put(rand(d, 2 * g * n, seed=3)) if bias else None, None]
    out += h if initial else [None] * len(h)
    if peephole:
        out.append(put(rand(d, 3 * n, seed=6)))
    while out[-1] is None:
        out.pop()
    return [np.ascontiguousarray(v) if isinstance(v, np.ndarray) else v for v in out]


def names(module):
    return [op.name for op in module.walk()]


def run(op, *, results=None, close=1e-4, **options):
    attributes = {"hidden_size": 3, "direction": options.get("direction", "forward")}
    attributes |= {k: tuple(v) if isinstance(v, list) else v for k, v in options.pop("attributes", {}).items()}
    if options.get("layout"):
        attributes["layout"] = 1
    shapes, releases = options.pop("shapes", None), options.pop("os", RELEASES)
    given = operands(op, **options)
    results = results or (3 if op == "LSTM" else 2)
    return check(op, given, attributes, results=results, os=releases, shapes=shapes, rtol=close, atol=close * 1e-1)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("op", GATES)
def test_layers_of_core_ml(op, direction):
    assert f"mil.{op.lower()}" in names(run(op, direction=direction))
    run(op, direction=direction, bias=False, initial=False)
    run(op, direction=direction, results=1)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("op", GATES)
def test_layers_with_computed_weights_are_written_out(op, direction):
    assert f"mil.{op.lower()}" not in names(run(op, direction=direction, constant=False))
    run(op, direction=direction, constant=False, bias=False, initial=False)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gru_with_the_reset_gate_after_the_product(direction):
    later = {"linear_before_reset": 1}
    assert "mil.gru" in names(run("GRU", direction=direction, attributes=later))
    assert "mil.while_loop" in names(run("GRU", direction=direction, attributes=later, os=["ios17"]))
    run("GRU", direction=direction, attributes=later, bias=False)
    run("GRU", direction=direction, attributes=later, constant=False, bias=False)


@pytest.mark.parametrize("op", GATES)
def test_layers_are_written_out_for_the_neural_engine_which_takes_no_loop(op):
    module, _ = build(op, operands(op, constant=False), {"hidden_size": 3}, results=2)
    assert "mil.while_loop" not in names(lower(module, unit="ane"))
    assert "mil.while_loop" in names(lower(module, unit="gpu"))


@pytest.mark.parametrize("op", GATES)
def test_long_layers_become_loops(op):
    for direction in DIRECTIONS:
        lowered = run(op, direction=direction, constant=False, steps=natives_rnn.MOST_UNROLLED_ELSEWHERE + 3)
        assert "mil.while_loop" in names(lowered)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_peepholes(direction):
    assert "mil.lstm" in names(run("LSTM", direction=direction, peephole=True))
    run("LSTM", direction=direction, peephole=True, constant=False)


@pytest.mark.parametrize("op", GATES)
def test_clipped_layers(op):
    run(op, attributes={"clip": 0.3})


def test_other_activations():
    for names_ in (["HardSigmoid", "Tanh", "Relu"], ["Sigmoid", "Softsign", "Tanh"], ["Elu", "LeakyRelu", "Tanh"]):
        run("LSTM", attributes={"activations": names_})
    run("GRU", attributes={"activations": ["HardSigmoid", "Relu"]})
    run("RNN", attributes={"activations": ["Relu"]})
    run("RNN", attributes={"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]})
    run("LSTM", direction="bidirectional", attributes={"activations": ["Sigmoid", "Tanh", "Tanh"] + ["Sigmoid"] * 3})


@pytest.mark.parametrize("op", GATES)
def test_open_lengths(op):
    later = {"linear_before_reset": 1} if op == "GRU" else {"clip": 5.0}
    for direction in DIRECTIONS:
        run(op, direction=direction, shapes={0: ("s", 2, 5)}, initial=False)
        run(op, direction=direction, shapes={0: ("s", "b", 5)}, initial=False)
        run(op, direction=direction, shapes={0: ("s", "b", 5)}, initial=False, attributes=later)


def test_what_core_ml_cannot_do():
    given = operands("LSTM")
    refuses("LSTM", given, {"hidden_size": 3, "input_forget": 1}, results=3)
    refuses("LSTM", [*given[:4], C(np.array([4, 3], np.int32)), *given[5:]], {"hidden_size": 3}, results=3)
    full = [*given[:4], C(np.array([4, 4], np.int32)), *given[5:]]
    check("LSTM", full, {"hidden_size": 3}, results=3, rtol=1e-4, atol=1e-5)
