"""The front end: ONNX models become modules of ``onnx.*`` operators."""

from compiler.frontend.load import OLDEST_OPSET, load, open_dimensions
from compiler.frontend.upgraded import forms_in, upgraded_forms

__all__ = ["OLDEST_OPSET", "forms_in", "load", "open_dimensions", "upgraded_forms"]
