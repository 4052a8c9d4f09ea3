"""mil module → ML Program package: straight to Core ML's protobuf, weights streamed beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codegen.mil import package
from codegen.mil.blobs import WeightWriter
from codegen.mil.description import describe
from codegen.mil.function_writer import FunctionWriter
from codegen.mil.names import Names
from codegen.mil.proto import model_pb
from codegen.mil.types import TypeWriter
from compiler.dialects.mil_forms import Release, release
from compiler.errors import UnsupportedError, UserError
from compiler.ir import Function, Module, Op
from compiler.metadata import Metadata


@dataclass(frozen=True, slots=True)
class Written:
    """What :func:`write` has written.

    Attributes:
        path: the package.
        size: bytes of all its files.
        weight_size: bytes of its weight file.
        operators: operators in the program, constants not counted.
        renamed: inputs and outputs that Core ML could not take by their name, as ``{old: new}``.
    """

    path: Path
    size: int
    weight_size: int
    operators: int
    renamed: dict[str, str]


def write(
    module: Module,
    path: str | Path,
    *,
    os: str = "ios17",
    metadata: Metadata | None = None,
    progress: Callable[[float], None] | None = None,
) -> Written:
    """Writes ``module``, all of whose operators are ``mil.*``, as an ML Program package.

    The same module gives the same bytes. The package comes to stand at ``path`` whole, in place of one that stands
    there, or not at all.

    Args:
        os: the OS release that must be able to run it.
        metadata: what the package says of itself; that of the module's attributes when None.
        progress: is called now and then with the part that is done, from 0 to 1.

    Raises:
        UnsupportedError: an operator, a type or a parameter is not one that the release takes; names the operator.
        UserError: the package cannot be written there.
    """
    target = Path(path)
    at = release(os)
    with package.replacing(target) as folder:
        data = folder / "Data"
        model_path = data / package.MODEL
        model_path.parent.mkdir(parents=True)
        weights = WeightWriter(data / package.WEIGHTS / package.WEIGHT_FILE)
        model, operators, renamed = _model(module, at, weights, progress)
        said = metadata or Metadata.of(module)
        if said.attributes():
            _describe_package(model.description.metadata, said)
        content = model.SerializeToString(deterministic=True)
        model_path.write_bytes(content)
        package.write_manifest(folder, content + weights.close(), has_weights=weights.tensors > 0)
        files = [f for f in folder.rglob("*") if f.is_file()]
        size = sum(f.stat().st_size for f in files)
        weight_size = sum(f.stat().st_size for f in files if f.name == package.WEIGHT_FILE)
    if progress is not None:
        progress(1.0)
    return Written(target, size, weight_size, operators, renamed)


def _model(
    module: Module, at: Release, weights: WeightWriter, progress: Callable[[float], None] | None
) -> tuple[Any, int, dict[str, str]]:
    if not module.functions:
        raise UserError(f"module @{module.name} has no function to write")
    model = model_pb.Model(specificationVersion=at.specification)
    model.mlProgram.version = 1
    several = len(module.functions) > 1
    if several and at.specification < 9:
        raise UnsupportedError(f"module @{module.name} has several functions, which needs ios18", "--os ios18")
    total = sum(len(f.block) for f in module.functions.values())
    types = TypeWriter()
    operators = 0
    renamed: dict[str, str] = {}
    for function in module.functions.values():
        step = None if progress is None else _steps(progress, operators, total)
        writer = FunctionWriter(at, weights, types, step)
        inputs, outputs = _feature_names(function, writer.names, renamed)
        name = "main" if not several else function.name
        writer.write(function, inputs, outputs, model.mlProgram.functions[name])
        operators += writer.operators
        description = model.description.functions.add(name=name) if several else model.description
        describe(description, function, inputs, outputs, at.specification)
        _describe_classifier(description, function, outputs)
    if several:
        default = module.attributes.get("default_function", "main")
        if default not in module.functions:
            default = next(iter(module.functions))
        model.description.defaultFunctionName = default
    return model, operators, renamed


def _steps(progress: Callable[[float], None], before: int, total: int) -> Callable[[int], None]:
    return lambda done: progress(min((before + done) / max(total, 1), 1.0))


def _feature_names(function: Function, names: Names, renamed: dict[str, str]) -> tuple[list[str], list[str]]:
    """The names of inputs and outputs in the package. An input returned by its own name keeps it on both sides."""
    inputs = [names.take(a.name or "input") for a in function.inputs]
    through = {a.name: (a, n) for a, n in zip(function.inputs, inputs, strict=True)}
    outputs = []
    for value, own in zip(function.outputs, function.output_names, strict=True):
        argument, name = through.get(own, (None, ""))
        outputs.append(name if argument is value else names.take(own or "output"))
    wished = [*(a.name for a in function.inputs), *function.output_names]
    renamed.update({w: n for w, n in zip(wished, [*inputs, *outputs], strict=True) if w != n})
    return inputs, outputs


def _describe_classifier(description: Any, function: Function, outputs: list[str]) -> None:
    by_value = dict(zip(function.outputs, outputs, strict=True))
    for op in _producers(function):
        if op.name == "mil.classify" and all(r in by_value for r in op.results):
            description.predictedFeatureName = by_value[op.results[0]]
            description.predictedProbabilitiesName = by_value[op.results[1]]


def _producers(function: Function) -> list[Op]:
    return [v.op for v in function.outputs if v.op is not None]


def _describe_package(proto: Any, metadata: Metadata) -> None:
    proto.author = metadata.author
    proto.license = metadata.license
    proto.shortDescription = metadata.description
    proto.versionString = metadata.version
    for key, value in metadata.user.items():
        proto.userDefined[key] = value
