"""Structured pruning: channels, filters, heads and neurons that are cut out of a whole graph."""

from passes.prune.analysis import analyse, obstacle
from passes.prune.run import Pruned, masked, mixing_inputs, run

__all__ = ["Pruned", "analyse", "masked", "mixing_inputs", "obstacle", "run"]
