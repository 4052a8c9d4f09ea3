"""Normalizations of ONNX as differentiable functions of JAX; see :mod:`compiler.distil.operators`."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from compiler.distil.operators import register
from compiler.ir import Op

Value = Any


@register("LayerNormalization")
def _layer_norm(op: Op, x: Value, scale: Value, bias: Value = None) -> Value:
    axes = tuple(range(op.attributes["axis"] % x.ndim, x.ndim))
    centred = x - x.mean(axes, keepdims=True)
    y = centred * lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + op.attributes["epsilon"]) * scale
    return y if bias is None else y + bias


@register("RMSNormalization")
def _rms_norm(op: Op, x: Value, scale: Value) -> Value:
    axes = tuple(range(op.attributes["axis"] % x.ndim, x.ndim))
    return x * lax.rsqrt(jnp.square(x).mean(axes, keepdims=True) + op.attributes["epsilon"]) * scale


@register("BatchNormalization")
def _batch_norm(op: Op, x: Value, scale: Value, bias: Value, mean: Value, var: Value) -> Value:
    along = (-1, *[1] * (x.ndim - 2))
    factor = scale * lax.rsqrt(var + op.attributes["epsilon"])
    return x * factor.reshape(along) + (bias - mean * factor).reshape(along)


@register("InstanceNormalization")
def _instance_norm(op: Op, x: Value, scale: Value, bias: Value) -> Value:
    axes, along = tuple(range(2, x.ndim)), (-1, *[1] * (x.ndim - 2))
    centred = x - x.mean(axes, keepdims=True)
    y = centred * lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + op.attributes["epsilon"])
    return y * scale.reshape(along) + bias.reshape(along)


@register("GroupNormalization")
def _group_norm(op: Op, x: Value, scale: Value, bias: Value) -> Value:
    groups = x.reshape(x.shape[0], op.attributes["num_groups"], -1)
    centred = groups - groups.mean(-1, keepdims=True)
    y = centred * lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + op.attributes["epsilon"])
    along = (-1, *[1] * (x.ndim - 2))
    return y.reshape(x.shape) * scale.reshape(along) + bias.reshape(along)
