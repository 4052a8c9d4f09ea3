"""Planish: a compiler from ONNX to Core ML, shaped for the Neural Engine, with rules you can read, prove and write.

>>> import compiler
>>> compilation = compiler.compile("model.onnx", target="ane")
>>> compilation.path, compilation.report.verify.status
(PosixPath('model.mlpackage'), 'passed')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from compiler import onnx_backend
    from compiler.compression.settings import Data
    from compiler.driver import Compilation, Emitted, Verify
    from compiler.features.wishes import Wishes
    from compiler.multifunction import Bundle
    from compiler.report import Progress
    from compiler.shapes import Size
    from compiler.target import Precision, Unit

    Model = str | Path | onnx.ModelProto

__all__ = ["Wishes", "bundle", "compile", "onnx_backend"]


def compile(
    model: str | Path | onnx.ModelProto,
    target: Unit | str = "ane",
    output: str | Path | None = None,
    *,
    os: str = "ios17",
    precision: Precision | str | None = None,
    chip: str = "A17",
    shapes: Mapping[str, Sequence[Size]] | None = None,
    rules: Sequence[str | Path] = (),
    disable_rules: Sequence[str] = (),
    verify: Verify | str = "full",
    inputs: Mapping[str, np.ndarray[Any, Any]] | str | Path | None = None,
    wishes: Wishes | None = None,
    report: str | Path | None = None,
    quantize: str | None = None,
    calibrate: Data | None = None,
    budget: str | int | None = None,
    max_error: float | None = None,
    ranges: str | Path | None = None,
    range_method: str = "mse",
    prune: float | None = None,
    importance: str | None = None,
    hybrid: bool = False,
    emit: Emitted | str = "package",
    kernels: str | Path | None = None,
    progress: Progress | None = None,
) -> Compilation:
    """Compiles an ONNX model into a Core ML package on disk and proves it against onnxruntime.

    Args:
        model: a file, or a model in memory.
        target: the compute unit to shape the package for: ``ane``, ``gpu``, ``cpu`` or ``metal``.
        output: where the package goes; the model's name with ``.mlpackage`` in the current folder when None.
        os: the oldest release it must run on: ``ios16``, ``ios17``, ``ios18`` or ``ios26`` and their macOS twins.
        precision: ``fp16`` or ``fp32``; None for fp16 on ane and gpu, fp32 on cpu and metal.
        chip: A12 to A18 or M1 to M5: the chip that placement is predicted and time estimated for.
        shapes: shapes of inputs by name; needed for inputs with open dimensions other than the batch.
        rules: files of rules besides the library's own.
        disable_rules: names of rules that must not fire.
        verify: ``full`` proves on several sets of inputs, ``fast`` on one, ``off`` not at all.
        inputs: what to prove on in place of made-up inputs: arrays by input name, or an .npz file of them.
        wishes: what an app wants of inputs and outputs: ``compiler.Wishes(images=["x:rgb:scale=1/255"], io="fp16")``.
        report: where an HTML page with graph, placement, sizes and errors goes, if one is wanted.
        quantize: what weights become: ``int8``, ``int4``, ``palette6``, ``palette4-group16`` and so on, ``w8a8`` for
            quantized activations too, ``mixed`` for a choice for each weight.
        calibrate: inputs by name, several sets of them, or an .npz file, to compress by.
        budget: the most bytes that the package may have, with ``mixed``: a number, or text such as ``4MB``.
        max_error: the most that an output may be from the original's once compressed, as relative L2 error.
        ranges: a file that keeps the ranges of activations: read if it is there, written if not.
        range_method: ``minmax``, ``percentile`` or ``mse``: how ranges are found.
        prune: the share of channels to cut out of each layer whose channels can go, as 0.3.
        importance: which go: those of the least ``magnitude``, ``activation`` on inputs to calibrate by (the default
            with these), or effect on outputs to first order (``taylor``, which needs the extra ``distill``).
        emit: ``package``, or ``stubs`` for a file of the Metal kernels that rules name, to be written by hand.
        kernels: a Metal file of such kernels.
        hybrid: make operators that Core ML cannot express Metal kernels, and the package a folder of parts.
        progress: who is told how far it is, as the command line is.

    Returns:
        The package's path, its module, and the report.

    Raises:
        compiler.errors.UserError: the model, an option or the output cannot be used.
        compiler.errors.UnsupportedError: the target or this compiler cannot do what the model needs.
        compiler.errors.VerificationError: the package does not compute what the model computes.
    """
    from compiler.compression.settings import Settings
    from compiler.driver import Options, compile_model
    from compiler.features import Interface
    from compiler.target import Target, known

    chosen = Target.of(target, os, precision, chip)
    compression = Settings.of(
        quantize,
        chosen.ios,
        data=calibrate,
        budget=budget,
        max_error=max_error,
        ranges=ranges,
        method=range_method,
        prune=prune,
        importance=importance,
    )
    options = Options(
        chosen,
        {name: tuple(shape) for name, shape in (shapes or {}).items()},
        rules,
        disable_rules,
        known("verification", verify, ("full", "fast", "off")),  # type: ignore[arg-type]  # it has just been checked
        inputs,
        interface=wishes.interface() if wishes is not None else Interface(),
        metadata=wishes.said() if wishes is not None else None,
        page=report,
        compression=compression,
        hybrid=hybrid,
        emit=known("what to emit", emit, ("package", "stubs")),  # type: ignore[arg-type]  # it has just been checked
        kernels=kernels,
    )
    return compile_model(model, output, options, progress)


def bundle(
    output: str | Path,
    functions: Mapping[str, Model | tuple[Model, Mapping[str, Sequence[Size]]]],
    target: Unit = "ane",
    *,
    os: str = "ios18",
    precision: Precision | None = None,
    default: str | None = None,
    verify: Verify = "full",
) -> Bundle:
    """Puts several models, or one at several shapes, into one package as functions that share their weights.

    Args:
        functions: by name a model, a model and the shapes of its inputs, or a package with one function.
        target, os, precision, verify: as for :func:`compile`, for each model.
        default: the function that runs when none is named; the first when None.

    Returns:
        The package's path, how each function was compiled, and sizes.

    Raises:
        compiler.errors.UserError: a function or an option cannot be used.
        compiler.errors.UnsupportedError: the target or this compiler cannot do what a model needs.
        compiler.errors.VerificationError: a function does not compute what its model computes.
    """
    from compiler.driver import Options
    from compiler.multifunction import Part
    from compiler.multifunction import bundle as make
    from compiler.target import Target

    parts = []
    for name, given in functions.items():
        source, shapes = given if isinstance(given, tuple) else (given, {})
        parts.append(Part(name, source, {n: tuple(shape) for n, shape in shapes.items()}))
    return make(output, parts, Options(Target.of(target, os, precision), verify=verify), default)


def __getattr__(name: str) -> object:
    # Importing the package must stay cheap: the command line's --help does it.
    import importlib

    if name == "onnx_backend":
        return importlib.import_module("compiler.onnx_backend")
    if name == "Wishes":
        return importlib.import_module("compiler.features.wishes").Wishes
    raise AttributeError(f"module {__name__} has no attribute '{name}'")
