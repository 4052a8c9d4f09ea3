"""coreai-onnx as a worker: it converts to an ``.aimodel``, which coreai-core's runtime runs, on Linux on the CPU."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.peers import protocol


def prepare(model: onnx.ModelProto, request: dict[str, Any]) -> protocol.Runner:
    import coreai_onnx
    from coreai_onnx._verify import _execute_asset

    asset = f"{request['out']}.aimodel"
    coreai_onnx.convert(model).save_asset(Path(asset))
    initialized = {t.name for t in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in initialized]
    outputs = list(model.graph.output)

    def run(inputs: list[Any]) -> list[Any]:
        feed = {n: np.asarray(a) for n, a in zip(names, inputs, strict=True)}
        wanted = [o.name for o in outputs]
        got = asyncio.run(_execute_asset(asset, feed, wanted, "main", None))
        return [protocol.as_declared(got[o.name], o) for o in outputs]

    return run


if __name__ == "__main__":
    from coreai_onnx.errors import CoreaiOnnxError

    protocol.serve(prepare, (CoreaiOnnxError,))
