"""The ladder: a model made smaller step by step, each step kept only if a metric of the user's allows it.

>>> found = climb("model.onnx", "samples.npz", metric="agreement", max_drop="1%", output="model.mlpackage")
>>> [(t.step.name, t.kept) for t in found.trials]
[('half', True), ('int8', True), ('palette6', True), ('palette4', False), ('prune 10 %', True)]
"""

from compiler.ladder.climb import Found, Ladder, climb
from compiler.ladder.steps import STEPS, Step
from compiler.ladder.trials import Trial, front

__all__ = ["STEPS", "Found", "Ladder", "Step", "Trial", "climb", "front"]
