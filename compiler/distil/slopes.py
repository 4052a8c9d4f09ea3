"""How far outputs move, to first order, as what layers take of their channels is turned down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from compiler.distil.differentiable import Differentiable
from compiler.distil.losses import distributions
from compiler.ir import Function
from passes.prune.channels import Cut

Array = np.ndarray[Any, Any]

#: Random directions of the outputs for each sample.
DRAWS = 2
SEED = 6
#: Of what a softmax makes: sure as a model is of most samples, the few others would decide alone.
TEMPERATURE = 2.0
_LEAST = 1e-6


def slopes(function: Function, takers: Sequence[Cut], data: Sequence[Mapping[str, Array]]) -> list[Array]:
    """The slope, at 1, of outputs along random directions by a factor on each channel that constants take.

    Directions are signs (Hutchinson's estimator), in units in which the mean square slope is what the losses of
    :func:`compiler.distil.losses.softened` grow by, up to a factor: an output's relative square error, and for what a
    softmax makes Fisher's information of its distributions p at :data:`TEMPERATURE`, Σ (∂p)²/p, to which the
    Kullback-Leibler divergence comes down nearby.

    Args:
        takers: constants with the axis of the channels.
        data: inputs by name.

    Returns:
        For each of ``takers``, draws × channels.

    Raises:
        UnsupportedError: the function holds an operator that is not differentiated.
    """
    net = Differentiable(function)
    named = distributions(function)
    axes = [named.get(name) for name in function.output_names]
    places = [(net.name_of(c.op.operands[c.operand]), c.axis) for c in takers]

    @jax.jit
    def drawn(parameters: Mapping[str, Any], inputs: Mapping[str, Any], key: Any) -> Any:
        def outputs(gates: Sequence[Any]) -> list[Any]:
            turned = dict(parameters)
            for (name, axis), gate in zip(places, gates, strict=True):
                along = [1] * turned[name].ndim
                along[axis] = -1
                turned[name] = turned[name] * gate.reshape(along)
            found = net(turned, inputs)
            return [_measured(y, a) for y, a in zip(found, axes, strict=True) if jnp.issubdtype(y.dtype, jnp.floating)]

        open_ = [jnp.ones(parameters[name].shape[axis], jnp.float32) for name, axis in places]
        made, back = jax.vjp(outputs, open_)
        keys = jax.random.split(key, len(made))
        return back([jax.random.rademacher(k, y.shape, y.dtype) for k, y in zip(keys, made, strict=True)])[0]

    key = jax.random.key(SEED)
    rows = [drawn(net.parameters, dict(s), jax.random.fold_in(key, i)) for i, s in enumerate([*data] * DRAWS)]
    return [np.stack([np.asarray(r[i]) for r in rows]) for i in range(len(places))]


def _measured(y: Any, axis: int | None) -> Any:
    """An output in what its slopes are measured in, which has no slope itself."""
    if axis is None:
        return y / jax.lax.stop_gradient(jnp.sqrt(jnp.square(y).sum()) + _LEAST)
    soft = jax.nn.softmax(jnp.log(y + _LEAST) / TEMPERATURE, axis)
    return soft / jax.lax.stop_gradient(jnp.sqrt(soft * (y.size / y.shape[axis])))
