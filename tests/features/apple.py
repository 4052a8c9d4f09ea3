"""What Apple's own tool makes of a package that we wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def spec_of(package: Path) -> Any:
    """The specification that coremltools loads, after its frontend has read the program and inferred every type."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = ct.models.MLModel(str(package), skip_model_load=True).get_spec()
    weights = package / "Data" / "com.apple.CoreML" / "weights"
    assert load(spec, spec.specificationVersion, str(weights)).functions
    return spec


def feature(spec: Any, name: str, where: str = "input") -> Any:
    """The type of the input, output or state called ``name``."""
    return next(f for f in getattr(spec.description, where) if f.name == name).type
