"""Dialects: the operators of ONNX, of Core ML and of Metal kernels.

``onnx`` and ``mil`` register themselves when they are imported; ``metal`` is small and always there.
"""

import compiler.dialects.metal  # noqa: F401  (registers metal.*)
