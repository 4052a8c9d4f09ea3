"""Whether a compressed package is the program that it must compute, told without running it."""

from __future__ import annotations

import numpy as np
import pytest

import compiler
from compiler.compression import judging
from compiler.compression.alike import alike
from compiler.compression.road import Road
from compiler.ir import clone_module
from tests.compression.conftest import MODEL, SHAPE


@pytest.fixture
def asked(monkeypatch):
    """What the proofs of compiles asked, and were told: (package, wanted, dense, answer)."""
    seen = []

    def watched(package, wanted, dense):
        said = alike(package, wanted, dense)
        seen.append((package, wanted, dense, said))
        return said

    monkeypatch.setattr(judging, "alike", watched)
    return seen


def build(tmp_path, **options):
    return compiler.compile(MODEL, "ane", tmp_path / "out.mlpackage", shapes={"x": SHAPE}, verify="fast", **options)


@pytest.mark.parametrize(
    ("quantize", "os"),
    [
        ("int8", "ios16"),
        ("int8", "ios18"),
        ("uint8-affine", "ios16"),
        ("palette4", "ios18"),
        ("sparse50+int8", "ios18"),
    ],
)
def test_what_has_the_same_bits_is_not_run_twice(tmp_path, monkeypatch, asked, quantize, os):
    runs = []
    monkeypatch.setattr(Road, "run_stored", lambda *_: runs.append(1))
    assert build(tmp_path, quantize=quantize, os=os).report.verify.passed
    assert [said for *_, said in asked] == [True]
    assert not runs


def test_any_difference_is_seen(tmp_path, asked):
    build(tmp_path, quantize="int8")
    package, wanted, dense, _ = asked[0]
    convolutions = [op for op in wanted.walk() if op.name == "mil.conv"]
    bias = convolutions[3].operand("bias").op
    weight = convolutions[5].operand("weight").op
    for op, name, other in (
        (bias, "val", np.nextafter(bias.attributes["val"], np.float16(9))),
        (weight, "val", weight.attributes["val"] * np.float16(1.01)),
        (convolutions[4], "pad_type", "same_lower"),
    ):
        before = op.attributes[name]
        op.attributes[name] = other
        assert not alike(package, wanted, dense)
        op.attributes[name] = before
        assert alike(package, wanted, dense)
    # An operand that is another value of the same type, and one operator more.
    sums = [op for op in wanted.main.block.ops if op.name == "mil.add" and op.operands[0] is not op.operands[1]]
    first = sums[0]
    first.operands = (first.operands[0], first.operands[0], *first.operands[2:])
    assert not alike(package, wanted, dense)


def test_weights_of_which_nothing_is_known_are_not_taken_for_right(tmp_path, asked):
    build(tmp_path, quantize="int8")
    package, wanted, dense, _ = asked[0]
    left = dict(list(dense.items())[1:])
    assert not alike(package, wanted, left)
    last = next(reversed(dense))
    changed = dense[last].copy()
    changed.reshape(-1)[0] += 1
    assert not alike(package, wanted, {**dense, last: changed})
    assert not alike(clone_module(package), wanted, dense)  # which is of another package's values
