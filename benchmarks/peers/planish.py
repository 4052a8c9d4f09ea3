"""This compiler as a worker: the standard ONNX backend, which runs the package that it reads back from disk.

A request may name the release (``os``), and instead of a model to compile a ``package`` that another compiler wrote.
"""

from __future__ import annotations

from typing import Any

import onnx

from benchmarks.peers import protocol
from compiler.errors import PlanishError, UserError
from compiler.execution import evaluate
from compiler.onnx_backend import PackageRep, PlanishBackend


class UnreadableError(Exception):
    """A package that cannot be read or run."""


def prepare(model: onnx.ModelProto, request: dict[str, Any]) -> protocol.Runner:
    if "package" in request:
        return _foreign(model, request["package"])
    rep = PlanishBackend.prepare(model, os=request.get("os", "ios18"))
    return lambda inputs: list(rep.run(inputs))


def _foreign(model: onnx.ModelProto, package: str) -> protocol.Runner:
    from compiler.driver import Options, load_library
    from compiler.proof import MilSession, read_package

    try:
        rep = PackageRep(model, MilSession(read_package(package), load_library(Options())))
    except PlanishError as e:
        raise UnreadableError(str(e)) from e

    def run(inputs: list[Any]) -> list[Any]:
        try:
            return list(rep.run(inputs))
        except PlanishError as e:
            raise UnreadableError(str(e)) from e

    return run


if __name__ == "__main__":
    protocol.serve(prepare, (PlanishError, UserError), (evaluate.EvaluationError, UnreadableError))
