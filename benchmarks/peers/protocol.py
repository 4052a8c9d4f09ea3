"""What the workers of all compilers share. It needs onnx and NumPy only, so that it runs in a peer's environment."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

Array = np.ndarray[Any, Any]
Runner = Callable[[list[Any]], "list[Any]"]

#: Takes a model and the request, gives what runs it on a set of inputs.
Prepare = Callable[[onnx.ModelProto, dict[str, Any]], Runner]


def serve(prepare: Prepare, refusals: tuple[type[Exception], ...], bugs: tuple[type[Exception], ...] = ()) -> None:
    """Answers requests from standard input until it ends.

    A request names a case's ``folder`` and where results go (``out``). Answers have a ``status``: ``done``, ``refused``
    (one of ``refusals`` was raised) or ``crash`` (anything else, or one of ``bugs``), and ``why``.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _answer(prepare, request)
        except bugs as e:
            answer = {"status": "crash", "why": f"{type(e).__name__}: {e}"}
        except refusals as e:
            answer = {"status": "refused", "why": str(e)}
        except Exception as e:
            last = traceback.extract_tb(e.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            answer = {"status": "crash", "why": f"{type(e).__name__} at {where}: {e}"}
        print(json.dumps(answer), file=answers, flush=True)


def _answer(prepare: Prepare, request: dict[str, Any]) -> dict[str, Any]:
    folder, out = Path(request["folder"]), Path(request["out"])
    run = prepare(onnx.load(folder / "model.onnx"), request)
    sets = sorted(d for d in folder.iterdir() if d.is_dir())
    for data in sets:
        results = run(read(data, "input"))
        place = out / data.name
        place.mkdir(parents=True)
        for i, result in enumerate(results):
            write(place, f"output_{i}", result)
    return {"status": "done", "why": ""}


def read(folder: Path, what: str) -> list[Any]:
    """The ``input`` or ``output`` messages of a folder of data, in order."""
    files = sorted(folder.glob(f"{what}_*.pb"), key=lambda p: int(p.name.split(".")[0].split("_")[1]))
    return [message(f.read_bytes(), f.name.split(".")[1]) for f in files]


def message(data: bytes, kind: str) -> Any:
    """What the bytes of a ``tensor``, ``sequence`` or ``optional`` message hold."""
    if kind == "sequence":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if kind == "optional":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def write(folder: Path, name: str, value: Any) -> None:
    """A message into a file whose name says its kind."""
    if value is None:
        kind, proto = "optional", numpy_helper.from_optional(None)
    elif isinstance(value, list):
        kind, proto = "sequence", numpy_helper.from_list(value)
    else:
        kind, proto = "tensor", numpy_helper.from_array(np.asarray(value))
    (folder / f"{name}.{kind}.pb").write_bytes(proto.SerializeToString())


def as_declared(array: Array, declared: onnx.ValueInfoProto) -> Array:
    """``array`` with the element type that the model declares: packages narrow int64 and float64."""
    element = declared.type.tensor_type.elem_type
    return array.astype(onnx.helper.tensor_dtype_to_np_dtype(element), copy=False) if element else array
