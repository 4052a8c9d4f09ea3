"""Operators with regions to start from: the conformance suite, whence other seeds come, has hardly any that lower.

Regions that use nothing from outside: loops that count, that a computed condition ends, that never start; branches
that compute.
"""

from __future__ import annotations

import functools

from compiler.ir import Op, parse_module

_GRAPHS = """
module @seeds {
  func @counts(%n: tensor<i32>, %x: tensor<2x3xf32>) -> (%a: tensor<i32>, %b: tensor<2x3xf32>) {
    %0, %1 = mil.while_loop(%n, %x) cond { ^(%i: tensor<i32>, %v: tensor<2x3xf32>)
      %end = mil.const() {val = dense<4>} : tensor<i32>
      %go = mil.less(%i, %end) : tensor<bool>
      return %go
    } body { ^(%j: tensor<i32>, %w: tensor<2x3xf32>)
      %one = mil.const() {val = dense<1>} : tensor<i32>
      %next = mil.add(%j, %one) : tensor<i32>
      %half = mil.const() {val = dense<0.5>} : tensor<f32>
      %scaled = mil.mul(%w, %half) : tensor<2x3xf32>
      %back = mil.reverse(%scaled) {axes = [1]} : tensor<2x3xf32>
      return %next, %back
    } : (tensor<i32>, tensor<2x3xf32>)
    return %0, %1
  }
  func @grows(%x: tensor<3xf32>) -> (%a: tensor<3xf32>) {
    %0 = mil.while_loop(%x) cond { ^(%v: tensor<3xf32>)
      %sum = mil.reduce_sum(%v) {axes = [0], keep_dims = false} : tensor<f32>
      %most = mil.const() {val = dense<9.0>} : tensor<f32>
      %go = mil.less(%sum, %most) : tensor<bool>
      return %go
    } body { ^(%w: tensor<3xf32>)
      %by = mil.const() {val = dense<1.25>} : tensor<f32>
      %size = mil.abs(%w) : tensor<3xf32>
      %more = mil.add(%size, %by) : tensor<3xf32>
      return %more
    } : tensor<3xf32>
    return %0
  }
  func @swaps(%n: tensor<i32>, %x: tensor<4xf32>, %y: tensor<4xf32>)
      -> (%a: tensor<i32>, %b: tensor<4xf32>, %c: tensor<4xf32>) {
    %0, %1, %2 = mil.while_loop(%n, %x, %y) cond { ^(%i: tensor<i32>, %v: tensor<4xf32>, %u: tensor<4xf32>)
      %zero = mil.const() {val = dense<0>} : tensor<i32>
      %go = mil.greater(%i, %zero) : tensor<bool>
      return %go
    } body { ^(%j: tensor<i32>, %w: tensor<4xf32>, %z: tensor<4xf32>)
      %one = mil.const() {val = dense<1>} : tensor<i32>
      %next = mil.sub(%j, %one) : tensor<i32>
      %sum = mil.add(%w, %z) : tensor<4xf32>
      return %next, %z, %sum
    } : (tensor<i32>, tensor<4xf32>, tensor<4xf32>)
    return %0, %1, %2
  }
  func @branches(%p: tensor<bool>) -> (%a: tensor<2x2xf32>, %b: tensor<i32>) {
    %0, %1 = mil.cond(%p) true {
      %x = mil.const() {val = dense<[[1.0, 2.0], [3.0, 4.0]]>} : tensor<2x2xf32>
      %t = mil.transpose(%x) {perm = [1, 0]} : tensor<2x2xf32>
      %k = mil.const() {val = dense<7>} : tensor<i32>
      return %t, %k
    } false {
      %y = mil.const() {val = dense<[[0.5, -2.0], [0.25, 8.0]]>} : tensor<2x2xf32>
      %e = mil.exp(%y) : tensor<2x2xf32>
      %l = mil.const() {val = dense<-3>} : tensor<i32>
      return %e, %l
    } : (tensor<2x2xf32>, tensor<i32>)
    return %0, %1
  }
}
"""


@functools.cache
def written() -> dict[str, tuple[Op, ...]]:
    """The operators by name, each in a function of its own."""
    out: dict[str, tuple[Op, ...]] = {}
    for function in parse_module(_GRAPHS).functions.values():
        op = function.block.first
        assert op is not None
        out[op.name] = (*out.get(op.name, ()), op)
    return out
