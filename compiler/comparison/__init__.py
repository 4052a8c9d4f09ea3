"""A against B: size, estimates, a metric with its confidence, and where in the network they part.

>>> found = compare("half.mlpackage", "int8.mlpackage", "samples.npz", model="model.onnx", metric="agreement")
>>> found["metrics"]["agreement"]["difference"]
{'mean': -0.004, 'low': -0.011, 'high': 0.001, 'p': 0.31}
"""

from compiler.comparison.compare import compare
from compiler.comparison.metrics import BUILT_IN, Metric
from compiler.comparison.statistics import Paired, paired

__all__ = ["BUILT_IN", "Metric", "Paired", "compare", "paired"]
