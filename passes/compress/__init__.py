"""Compressed weights and quantized activations: what they become, which ones, and the operators that hold them."""

from passes.compress.encode import Axes, NotCompressibleError, bits, encode, error
from passes.compress.run import Record, run
from passes.compress.schemes import Linear, Palette, Scheme, Sparse, parse
from passes.compress.select import Weight, weights

__all__ = [
    "Axes",
    "Linear",
    "NotCompressibleError",
    "Palette",
    "Record",
    "Scheme",
    "Sparse",
    "Weight",
    "bits",
    "encode",
    "error",
    "parse",
    "run",
    "weights",
]
