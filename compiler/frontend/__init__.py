"""The front end: ONNX models become modules of ``onnx.*`` operators."""

from compiler.frontend.load import OLDEST_OPSET, load, open_dimensions
from compiler.frontend.upgraded import forms_in, upgraded_forms
from compiler.frontend.weights import let_go

__all__ = ["OLDEST_OPSET", "forms_in", "let_go", "load", "open_dimensions", "upgraded_forms"]
