"""From a file, bytes or a message to a module: the whole road on one page."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

import compiler.dialects.onnx  # noqa: F401  (registers the dialects)
from compiler import ir, shapes
from compiler.errors import UserError
from compiler.frontend import declared
from compiler.frontend.graph import GraphImporter, Scope
from compiler.frontend.upgraded import upgraded_forms
from compiler.frontend.weights import Weights, let_go, map_file
from compiler.frontend.wire import WireError, strip

if TYPE_CHECKING:
    from compiler.features.batch import Batch

Source = str | os.PathLike[str] | bytes | ModelProto

#: A model whose local functions make more nodes than that is a mistake, or malice: each may call another one twice.
MOST_NODES = 2_000_000

#: The oldest opset whose operators broadcast as today's do.
OLDEST_OPSET = 7


def load(
    source: Source,
    given_shapes: Mapping[str, shapes.Shape] | None = None,
    upgraded: Collection[str] | None = None,
    batch: Batch | None = None,
) -> ir.Module:
    """Reads an ONNX model into a module of one function ``main``.

    Operators have their newest form, or a form that a rule upgrades (``onnx.Softmax@11``). Types are inferred; shape
    arithmetic is computed where its inputs are known. Large weights are views of the memory-mapped file.

    Args:
        source: a path, the bytes of a file, or a message.
        given_shapes: the shapes of inputs by name, as :func:`compiler.shapes.parse` reads them. An empty mapping fixes
            open batch dimensions at 1 and refuses others; None leaves all open dimensions symbolic.
        batch: opens the first axis of inputs that have one row; shapes that the file declares are then not believed.
        upgraded: the forms that rules upgrade, as ``Softmax@11``; those of rules/upgrade.rules when None.

    Returns:
        A module whose attributes are ``opset`` (of ai.onnx), ``opsets``, ``ir_version``, ``producer``,
        ``metadata_props`` (pairs), ``sha256`` (of the source's bytes), ``nodes`` (how many the file has), ``notes``
        (decisions made unasked, one sentence each) and ``flexible`` (pairs of a symbol and its sizes, ``1..8``).

    Raises:
        UserError: the source is no ONNX model, is broken, or uses what is not supported; or shapes do not fit it.
    """
    model, name, weights, digest = _read(source)
    opsets = _opsets(model, name)
    model = _inlined(model, name)
    if not all(isinstance(s, str) for s in _texts(model)):
        raise UserError(f"{name} is damaged: it holds text that is not UTF-8", "export or download the model again")
    initialized = {t.name for t in model.graph.initializer} | {t.values.name for t in model.graph.sparse_initializer}
    inputs = [i for i in model.graph.input if i.name not in initialized]
    types = _input_types(inputs, name)
    if batch is not None:
        model, given_shapes = _opened(model, types, batch, given_shapes or {})
    resolved = shapes.Resolved({}, {}, [])
    bound: dict[str, ir.Dim] = {}
    if given_shapes is not None:
        tensors = [(n, t.shape) for n, t in types.items() if isinstance(t, ir.TensorType)]
        resolved = shapes.resolve(tensors, given_shapes, f"compile {name}")
        for n, dims in resolved.shapes.items():
            type_ = types[n]
            assert isinstance(type_, ir.TensorType)
            bound.update({d: fixed for d, fixed in zip(type_.shape or (), dims) if isinstance(d, str)})
            types[n] = type_.with_shape(dims)
    bound.pop(ir.UNKNOWN, None)
    chosen = upgraded_forms() if upgraded is None else frozenset(upgraded)
    importer = GraphImporter(name, opsets, weights, chosen, lambda d: bound.get(d, d))
    function = ir.Function("main", types, [o.name for o in model.graph.output])
    scope = Scope()
    for argument in function.inputs:
        scope.values[argument.name] = argument
    function.set_outputs(importer.fill(model.graph, function.block, scope))
    declared.told_by_results(function.block)
    if importer.contradictions and not given_shapes:  # with shapes of their own, users expect other types
        resolved.notes.append(_contradicted(importer.contradictions))
    for output in importer.believed:
        resolved.notes.append(f"nothing but the model's own declaration tells the sizes of output '{output}'")
    module = ir.Module(_module_name(model, name), _attributes(model, opsets, digest, importer.nodes, resolved))
    module.add(function)
    return module


def _opened(
    model: ModelProto, types: dict[str, ir.Type], batch: Batch, given: Mapping[str, shapes.Shape]
) -> tuple[ModelProto, Mapping[str, shapes.Shape]]:
    """The model without what it declares of shapes, and the shapes to give it, after inputs lost their one row."""
    shaped = batch.open({n: t for n, t in types.items() if isinstance(t, ir.TensorType)}, given)
    for name in shaped:
        type_ = types.get(name)
        if isinstance(type_, ir.TensorType) and type_.shape and shaped[name] != given.get(name):
            types[name] = type_.with_shape((batch.symbol, *type_.shape[1:]))
    plain = ModelProto()
    plain.CopyFrom(model)
    del plain.graph.value_info[:]
    for output in plain.graph.output:
        output.type.tensor_type.ClearField("shape")
    return plain, shaped


def read_header(path: Path) -> ModelProto:
    """The message of a model file without its large weights.

    Raises:
        UserError: the file cannot be read, or is no ONNX model.
    """
    return _read(path)[0]


def open_dimensions(module: ir.Module) -> dict[str, tuple[ir.Dim, ...] | None]:
    """The inputs of ``main`` that have dimensions without a size, with their shapes; None for an unknown rank."""
    out: dict[str, tuple[ir.Dim, ...] | None] = {}
    for argument in module.main.inputs:
        if isinstance(argument.type, ir.TensorType) and not argument.type.is_static:
            out[argument.name] = argument.type.shape
    return out


def _read(source: Source) -> tuple[ModelProto, str, Weights, str]:
    """The message without its large weights, the source's name for errors, the weights, the source's hash."""
    if isinstance(source, ModelProto):
        name = source.graph.name or "the model"
        digest = hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()
        return source, name, Weights(name, None, []), digest
    folder: Path | None = None
    if isinstance(source, bytes):
        name, data = "the model", memoryview(source)
    else:
        path = Path(source)
        name, folder = path.name, path.parent
        try:
            data = map_file(path)
        except OSError as e:
            raise UserError(f"cannot read {source}: {(e.strerror or str(e)).lower()}") from None
    again = "export or download the model again"
    if not data:
        raise UserError(f"{name} is empty", again)
    try:
        stripped, slices = strip(data)
        model = ModelProto.FromString(stripped)
    except WireError as e:
        raise UserError(f"{name} is not an ONNX model, or is damaged: {e}", again) from None
    except DecodeError:
        raise UserError(f"{name} is not an ONNX model, or is damaged", again) from None
    if not model.HasField("graph") or not (model.opset_import or model.ir_version):
        raise UserError(f"{name} is not an ONNX model: it has no graph", again)
    digest = hashlib.sha256(data).hexdigest()
    let_go()
    return model, name, Weights(name, folder, slices), digest


def _opsets(model: ModelProto, name: str) -> dict[str, int]:
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    newest = onnx.defs.onnx_opset_version()
    version = opsets.get("", OLDEST_OPSET if opsets else 1)
    if version < OLDEST_OPSET:
        raise UserError(
            f"{name} has opset {version}; {OLDEST_OPSET} is the oldest that is supported",
            f"export it with opset {OLDEST_OPSET} or newer, or convert it with onnx.version_converter",
        )
    if version > newest:
        raise UserError(
            f"{name} has opset {version}, newer than the installed onnx package knows ({newest})",
            "pip install --upgrade onnx onnxruntime",
        )
    return opsets


def _inlined(model: ModelProto, name: str) -> ModelProto:
    """The model without local functions."""
    if not model.functions:
        return model
    from onnx import inliner

    try:
        nodes = _expanded(model)
    except RecursionError:
        raise UserError(f"{name}: its local functions call each other too deep", "fewer levels of functions") from None
    if nodes > MOST_NODES:
        raise UserError(f"{name}: its local functions, inlined, make more than {MOST_NODES:,} nodes", "a smaller model")
    try:
        return inliner.inline_local_functions(model, convert_version=True)
    except Exception as e:  # the binding raises RuntimeError or a class of its own
        reason = (str(e).strip().splitlines() or ["no reason given"])[0]
        raise UserError(f"{name}: its local functions cannot be inlined: {reason}") from None


def _expanded(model: ModelProto) -> int:
    """How many nodes a model has once its local functions are inlined; functions that call themselves count once."""
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in bodies and key not in sizes:
                sizes[key] = 1  # while it is not known
                sizes[key] = size(bodies[key])
            total += sizes.get(key, 1)
            for a in node.attribute:
                for graph in [a.g] if a.type == onnx.AttributeProto.GRAPH else a.graphs:
                    total += size(graph.node)
        return total

    return size(model.graph.node)


def _texts(model: ModelProto) -> list[object]:
    """What the message says of itself, which protobuf hands out as bytes where it is not UTF-8."""
    pairs = [text for p in model.metadata_props for text in (p.key, p.value)]
    domains = [o.domain for o in model.opset_import]
    return [model.producer_name, model.producer_version, model.graph.name, *domains, *pairs]


def _input_types(inputs: list[onnx.ValueInfoProto], name: str) -> dict[str, ir.Type]:
    from compiler.dialects.onnx_proto import ProtoError, type_from_proto

    types: dict[str, ir.Type] = {}
    for info in inputs:
        try:
            type_ = type_from_proto(info.type)
        except ProtoError as e:
            raise UserError(f"{name}: the input '{info.name}' {e}") from None
        if not isinstance(info.name, str):
            raise UserError(f"{name}: the name of an input, {info.name!r}, is not UTF-8")
        if type_ is None:
            raise UserError(f"{name}: the input '{info.name}' has no type", "export the model again")
        if info.name in types:
            raise UserError(f"{name}: there are two inputs '{info.name}'", "give each input a name of its own")
        types[info.name] = type_
    return types


def _contradicted(values: list[str]) -> str:
    others = f", and {len(values) - 1} more" if len(values) > 1 else ""
    return f"the model's own types are not what it computes, which counts: {values[0]}{others}"


def _module_name(model: ModelProto, name: str) -> str:
    return model.graph.name or Path(name).stem or "module"


def _attributes(
    model: ModelProto, opsets: Mapping[str, int], digest: str, nodes: int, resolved: shapes.Resolved
) -> dict[str, str | int | tuple[object, ...]]:
    attributes: dict[str, str | int | tuple[object, ...]] = {
        "opset": opsets.get("", OLDEST_OPSET),
        "ir_version": model.ir_version,
        "sha256": digest,
        "nodes": nodes,
    }
    if producer := f"{model.producer_name} {model.producer_version}".strip():
        attributes["producer"] = producer
    if others := tuple((d, v) for d, v in opsets.items() if d):
        attributes["opsets"] = others
    if model.metadata_props:
        attributes["metadata_props"] = tuple((p.key, p.value) for p in model.metadata_props)
    if resolved.notes:
        attributes["notes"] = tuple(resolved.notes)
    if resolved.flexible:
        attributes["flexible"] = tuple((d, str(s)) for d, s in resolved.flexible.items())
    return attributes
