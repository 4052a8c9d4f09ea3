"""Core ML's own protobuf classes and weight-blob code, without the rest of coremltools.

``import coremltools`` runs for about a second, because its package imports every converter; the classes alone take
0.04 s.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types
from typing import Any

from compiler import ir
from compiler.ir import DType


def _import_light(*names: str) -> list[Any]:
    """Modules of coremltools by their name in it, its ``__init__`` not run.

    A stand-in package takes coremltools' place while they load, and leaves it again, so that a later ``import
    coremltools`` runs as usual and finds these very modules.
    """
    if "coremltools" in sys.modules:
        return [importlib.import_module(f"coremltools.{n}") for n in names]
    spec = importlib.machinery.PathFinder.find_spec("coremltools")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("No module named 'coremltools'", name="coremltools")
    stand_in = types.ModuleType("coremltools")
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules["coremltools"] = stand_in
    try:
        return [importlib.import_module(f"coremltools.{n}") for n in names]
    finally:
        del sys.modules["coremltools"]


mil_pb, model_pb, feature_pb, blob = _import_light(
    "proto.MIL_pb2", "proto.Model_pb2", "proto.FeatureTypes_pb2", "libmilstoragepython"
)


def _by_proto_name() -> dict[str, DType]:
    """MIL's enumeration spells FLOAT16, UINT4, FLOAT8E4M3FN where the IR spells f16, u4, f8e4m3fn."""
    out = {}
    for d in ir.DTYPES.values():
        word = {"float": "FLOAT", "int": "INT", "uint": "UINT", "bool": "BOOL", "string": "STRING"}.get(d.kind)
        if word is not None:
            out[word + d.name[1:].upper() if d.kind in ("float", "int", "uint") else word] = d
    out["BFLOAT16"] = ir.BF16
    return out


#: Element types by their number in MIL's enumeration, and back.
DTYPE_OF: dict[int, DType] = {
    number: d for name, d in _by_proto_name().items() if (number := dict(mil_pb.DataType.items()).get(name)) is not None
}
NUMBER_OF: dict[DType, int] = {d: n for n, d in DTYPE_OF.items()}
