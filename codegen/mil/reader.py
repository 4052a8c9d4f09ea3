"""ML Program package → mil module: any package, whoever wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codegen.mil.description import function_attributes
from codegen.mil.function_reader import FunctionReader, Weights
from codegen.mil.package import model_file
from codegen.mil.proto import model_pb
from codegen.mil.types import TypeReader
from compiler.dialects.mil_forms import releases
from compiler.errors import UnsupportedError, UserError
from compiler.ir import Function, Module
from compiler.metadata import Metadata


def read(path: str | Path) -> Module:
    """The program of a package (``.mlpackage``) or of a bare model file (``.mlmodel``) as a module of ``mil.*``.

    Weights are views into the mapped weight file. Functions have the inputs and outputs of the model's description, by
    its names and in its order. What the description says beyond types stands in attributes of the function (see
    :mod:`codegen.mil.description`). Attributes of the module hold ``os``, the metadata and, if there are several
    functions, ``default_function``.

    Raises:
        UserError: there is no package, or it is broken; says where.
        UnsupportedError: it is not an ML Program, or has an operator that coremltools' registry does not know.
    """
    source = Path(path)
    file = model_file(source)
    model = _parse(source, file)
    which = model.WhichOneof("Type")
    if which != "mlProgram":
        raise UnsupportedError(
            f"'{source}' holds a {which or 'model of no known type'}, not an ML Program",
            "convert it again with convert_to='mlprogram'",
        )
    metadata = model.description.metadata
    said = Metadata(
        metadata.author,
        metadata.license,
        metadata.shortDescription,
        metadata.versionString,
        dict(sorted(metadata.userDefined.items())),
    )
    os = {r.specification: r.name for r in releases().values()}.get(model.specificationVersion)
    if os is None:
        raise UnsupportedError(f"'{source}' has specification version {model.specificationVersion}, which is not known")
    module = Module(source.stem, {"os": os, **said.attributes()})
    weights = Weights(file)
    types = TypeReader()
    functions = model.mlProgram.functions
    descriptions = {d.name: d for d in model.description.functions if d.name in functions}
    for name in [*descriptions, *sorted(n for n in functions if n not in descriptions)]:
        description = descriptions.get(name, model.description)
        module.add(_function(name, functions[name], description, weights, types, os))
    if model.description.defaultFunctionName:
        module.attributes["default_function"] = model.description.defaultFunctionName
    if not module.functions:
        raise UserError(f"'{source}' is broken: its program has no function")
    return module


def _parse(source: Path, file: Path) -> Any:
    from google.protobuf.message import DecodeError

    model = model_pb.Model()
    try:
        model.ParseFromString(file.read_bytes())
    except OSError as e:
        raise UserError(f"cannot read '{source}': {e.strerror}") from e
    except DecodeError as e:
        raise UserError(f"'{source}' is broken: its {file.name} is cut off or not a Core ML model") from e
    return model


def _function(name: str, proto: Any, description: Any, weights: Weights, types: TypeReader, os: str) -> Function:
    block = proto.block_specializations.get(proto.opset)
    if block is None:
        raise UserError(f"the package is broken: function '{name}' has no body for its opset '{proto.opset}'")
    by_name = {i.name: i for i in proto.inputs}
    described = [f.name for f in [*description.input, *description.state]]
    order = [n for n in described if n in by_name] + [n for n in by_name if n not in described]
    function = Function(name, [(n, types(by_name[n].type)) for n in order])
    values = FunctionReader(weights, types, os).read(function, block)
    given = list(block.outputs)
    outputs = [f.name for f in description.output]
    if sorted(outputs) != sorted(given):
        missing = sorted(set(outputs).symmetric_difference(given))
        raise UserError(f"the package is broken: its description and its program disagree on output '{missing[0]}'")
    function.set_outputs([values[n] for n in outputs], outputs)
    function.attributes = function_attributes(description, function)
    return function
