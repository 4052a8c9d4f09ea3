"""onnx2coreml as a worker: it converts to a package at fp32, for iOS 18, which is left at ``out``.

Core ML itself does not run on Linux; the package is judged by this project's reader and rules of meaning afterwards.
"""

from __future__ import annotations

from typing import Any

import onnx

from benchmarks.peers import protocol


def prepare(model: onnx.ModelProto, request: dict[str, Any]) -> protocol.Runner:
    import onnx2coreml

    package = onnx2coreml.convert(model, minimum_deployment_target="iOS18", compute_precision="fp32")
    package.save(f"{request['out']}.mlpackage")
    return lambda inputs: []


if __name__ == "__main__":
    from onnx2coreml.errors import Onnx2CoreMLError

    protocol.serve(prepare, (Onnx2CoreMLError,))
