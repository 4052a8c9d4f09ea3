"""A Core ML package as an ONNX model, whoever wrote it: ``planish export``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compiler.errors import UnsupportedError, UserError
from compiler.ir import STRING, Builder, Function, Location, Module, Op, TensorType, suggest

if TYPE_CHECKING:
    import onnx

    from compiler.rewrite import Library
    from passes.unclassify import Classifier

#: A message above this is written with its weights beside it: protobuf ends at 2 GiB.
_LARGE = 1 << 30

#: What coremltools appends to the name of a value that it computes in half precision.
_SUFFIXES = ("_cast_fp16", "_to_fp16")


def package_to_onnx(
    module: Module, library: Library, shapes: Mapping[str, tuple[int, ...]] | None = None, rounding: bool = False
) -> onnx.ModelProto:
    """The main function of a package, read as a mil module that is consumed, as an ONNX model that onnxruntime runs.

    Args:
        shapes: sizes for inputs whose dimensions are open, by input name; without, they stay open.
        rounding: keep what half precision does, by a pair of casts behind every operator; else the model is plain f32.

    Raises:
        UserError: a shape does not fit the input that it names.
        UnsupportedError: an operator has no meaning in ONNX, or none while sizes are open.
    """
    from compiler.execution.running import give_meaning
    from compiler.export import to_onnx
    from passes import cse, dce, emulate, fold, unclassify, unstate, widen

    function = module.main
    classifiers = unclassify.run(function)
    unstate.run(function)
    _fix(function, shapes or {})
    (emulate if rounding else widen).run(module)
    give_meaning(module, library)
    fold.run(module)
    cse.run(module)
    dce.run(module)
    for op in function.walk():
        if op.defn.dialect == "mil":
            at = f" at '{op.loc.nodes[0]}'" if op.loc.nodes else ""
            is_open = any(isinstance(a.type, TensorType) and not a.type.is_static for a in function.inputs)
            remedy = "--shape NAME=… with a size for every open dimension" if is_open else None
            raise UnsupportedError(f"{op.name}{at} {_why(op.name)}", remedy)
    for classifier in classifiers:
        _classify(function, classifier)
    _name(function)
    model = to_onnx(function)
    model.graph.name = module.name
    for key in ("author", "license", "description", "version"):
        if value := module.attributes.get(key):
            model.metadata_props.add(key=key, value=str(value))
    return model


def _why(name: str) -> str:
    """Why an operator is not said in ONNX, for a sentence that names it."""
    kind = name.removeprefix("mil.")
    if kind.startswith("random_"):
        return "draws numbers that no other machine draws: there is nothing to hold a result to"
    if kind.startswith(("list_", "make_list")):
        return "works on a list of tensors, which is not read; a tensor with one more axis is"
    if kind == "conv_quantized":
        return "is none that coremltools says the meaning of"
    return "has no meaning in ONNX with these parameters"


def save(model: onnx.ModelProto, path: Path) -> None:
    """Writes a model after onnx's checker has passed it; weights of large ones go beside it.

    Raises:
        UserError: it cannot be written there.
    """
    import onnx

    large = model.ByteSize() > _LARGE
    if not large:
        onnx.checker.check_model(model, full_check=True)
    try:
        onnx.save(model, str(path), save_as_external_data=large, location=f"{path.name}.data")
    except OSError as e:
        raise UserError(f"cannot write '{path}': {e.strerror}", "another file") from e


def _fix(function: Function, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Gives open dimensions their sizes, or names."""
    names = [a.name for a in function.inputs]
    for name in shapes:
        if name not in names:
            raise UserError(f"the package has no input '{name}'{suggest(name, names)}")
    for argument in function.inputs:
        type_ = argument.type
        if not isinstance(type_, TensorType) or type_.shape is None or type_.is_static:
            continue
        given = shapes.get(argument.name)
        if given is None:
            dims = [d if isinstance(d, int) else f"{argument.name}_{i}" for i, d in enumerate(type_.shape)]
            argument.type = type_.with_shape(dims)
            continue
        if len(given) != len(type_.shape) or any(isinstance(d, int) and d != g for d, g in zip(type_.shape, given)):
            want = ", ".join(map(str, type_.shape))
            raise UserError(f"--shape gives input '{argument.name}' the shape {given}, the package has ({want})")
        argument.type = type_.with_shape(given)


def _classify(function: Function, classifier: Classifier) -> None:
    """Gives the label as text, or a number, and the probabilities as a vector."""
    values = list(function.outputs)
    b = Builder(function.block, function.block.terminator)
    for place in (classifier.label, classifier.table):
        if place is not None:
            flat = b.op("onnx.Reshape", [values[place], b.constant(np.array([-1], np.int64), "onnx")])
            values[place] = flat.result
    if classifier.label is not None:
        best = b.op("onnx.ArgMax", [values[classifier.label]], {"axis": 0, "keepdims": 0}).result
        text = isinstance(classifier.classes[0], str)
        classes = np.array(classifier.classes, STRING.numpy if text else np.int64)
        values[classifier.label] = b.op("onnx.Gather", [b.constant(classes, "onnx"), best], {"axis": 0}).result
    function.set_outputs(values)


def _name(function: Function) -> None:
    """Gives every value a name that says where it comes from, and rids those that are there of noise."""
    taken = {a.name for a in function.inputs} | set(function.output_names)
    outputs = set(function.outputs)
    for op in function.walk():
        if op.defn.terminator:
            continue
        op.loc = Location(tuple(map(_plain, op.loc.nodes)), op.loc.rules)
        for i, result in enumerate(op.results):
            if result in outputs:
                continue
            hint = _plain(result.name) or _hint(op) + (f"_{i}" if i else "")
            result.name = _unique(hint, taken)


def _hint(op: Op) -> str:
    """A name for what has none: a constant's is that of what it is for, another's that of the node it comes from."""
    if op.defn.constant is not None:
        user = next(iter(op.results[0].users), None)
        if user is not None and not user.defn.terminator:
            index = user.operands.index(op.results[0])
            specs = user.defn.operands
            part = specs[min(index, len(specs) - 1)].name
            owner = user.results[0].name or (user.loc.nodes[0] if user.loc.nodes else _kind(user))
            return f"{_plain(owner)}.{part}"
        return "constant"
    node = op.loc.nodes[0] if op.loc.nodes else ""
    return f"{node}/{_kind(op)}" if node else _kind(op)


def _plain(name: str) -> str:
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _kind(op: Op) -> str:
    return op.name.partition(".")[2].partition("@")[0].lower()


def _unique(hint: str, taken: set[str]) -> str:
    name, count = hint, 1
    while name in taken:
        count += 1
        name = f"{hint}_{count}"
    taken.add(name)
    return name
