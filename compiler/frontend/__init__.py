"""The front end: ONNX models become modules of ``onnx.*`` operators."""

from compiler.frontend.load import load, open_dimensions
from compiler.frontend.upgraded import forms_in, upgraded_forms

__all__ = ["forms_in", "load", "open_dimensions", "upgraded_forms"]
