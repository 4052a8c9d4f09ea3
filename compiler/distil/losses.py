"""How far a student is from its teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from compiler.errors import UserError
from compiler.ir import Function

#: From the student's outputs, the teacher's (both by name) and the sample's arrays to a number to make small.
Loss = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], Any]

_LEAST = 1e-12


def softened(temperature: float, distributions: Mapping[str, int]) -> Loss:
    """The sum over outputs of T²·KL(teacher ‖ student) at temperature T (Hinton et al. 2015) for those that are
    distributions, and of the square error in units of the teacher's mean square for the others.

    A distribution p at temperature T is softmax(log p / T), which is softmax(logits / T).

    Args:
        distributions: outputs that a softmax makes, with its axis.
    """

    def loss(ours: Mapping[str, Any], theirs: Mapping[str, Any], sample: Mapping[str, Any]) -> Any:
        total: Any = 0.0
        for name, a in ours.items():
            b = theirs[name]
            if name in distributions:
                axis = distributions[name]
                q = jax.nn.log_softmax(jnp.log(a + _LEAST) / temperature, axis)
                p = jax.nn.log_softmax(jnp.log(b + _LEAST) / temperature, axis)
                total += temperature**2 * (jnp.exp(p) * (p - q)).sum(axis).mean()
            else:
                total += jnp.square(a - b).mean() / (jnp.square(b).mean() + _LEAST)
        return total

    return loss


def distributions(function: Function) -> dict[str, int]:
    """Outputs that a softmax makes, with its axis."""
    pairs = zip(function.output_names, function.outputs, strict=True)
    return {n: int(v.op.attributes["axis"]) for n, v in pairs if v.op is not None and v.op.name == "onnx.Softmax"}


def attention(ours: Sequence[Any], theirs: Sequence[Any]) -> Any:
    """How differently two networks attend to positions: the mean over layers of ‖Q/‖Q‖ − P/‖P‖‖², Q the sum of squares
    over channels (axis 1 of four, the last of three). It does not care how many channels there are (Zagoruyko and
    Komodakis 2017).
    """
    total: Any = 0.0
    for a, b in zip(ours, theirs, strict=True):
        q, p = (jnp.square(v).sum(1 if v.ndim == 4 else -1).ravel() for v in (a, b))
        # A layer that is silent has no slope of its norm.
        q, p = (v * jax.lax.rsqrt(jnp.square(v).sum() + _LEAST) for v in (q, p))
        total += jnp.square(q - p).sum()
    return total / max(len(ours), 1)


def of_user(text: str) -> Loss:
    """A loss of the user's, from ``FILE.py:FUNCTION``.

    It is a function of JAX that takes the student's outputs, the teacher's and the sample's arrays, each by name.

    Raises:
        UserError: there is no such function; and when it is called, it fails, or does not give one float.
    """
    from compiler.comparison.metrics import function_of

    file, _, name = text.rpartition(":")
    if not file:
        raise UserError(f"'{text}' is no loss", "FILE.py:FUNCTION")
    given = function_of(Path(file), name, "loss")

    def loss(ours: Mapping[str, Any], theirs: Mapping[str, Any], sample: Mapping[str, Any]) -> Any:
        try:
            found = jnp.asarray(given(dict(ours), dict(theirs), dict(sample)))
        except Exception as e:
            raise UserError(f"the loss {name} of {file} failed: {type(e).__name__}: {str(e).splitlines()[0]}") from e
        if found.shape != () or not jnp.issubdtype(found.dtype, jnp.floating):
            what = f"{found.dtype} of shape {found.shape}"
            raise UserError(f"the loss {name} of {file} gave {what}, where one float is needed", "the mean of it")
        return found

    return loss
