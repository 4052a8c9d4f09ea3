"""Types of results: ONNX's own inference, with what it lacks around it.

``onnx.shape_inference.infer_node_outputs`` knows every operator of ai.onnx and ai.onnx.ml. Around it stand: constants
and shape arithmetic passed as data, reshapes of symbolic dimensions, control flow (from what the regions return), and
the operators of com.microsoft (from onnxruntime's inference, see :mod:`onnx_msft`). Graphs repeat themselves, so
results are cached by everything that they depend on.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import defs, shape_inference

from compiler import ir
from compiler.dialects import onnx_msft, onnx_proto, onnx_regions, onnx_restrictions
from compiler.dialects.onnx_contents import LIMIT, Contents, Memo, contents, is_known, product
from compiler.dialects.onnx_schema import DOMAINS, make_node, versions

_CACHE: dict[Any, list[ir.Type]] = {}
#: Reading contents through a chain of operators is for these, which make a shape out of numbers.
_SHAPED_BY_CONTENTS = {"onnx.Reshape": 1, "onnx.Expand": 1, "onnx.Tile": 1, "onnx.ConstantOfShape": 0}

#: Operators of com.microsoft whose types onnxruntime does not infer, and ONNX's operators with the same operands.
_STANDARD = {"msft.Pad": "onnx.Pad"}


def infer(
    defn: ir.OpDef,
    operands: Sequence[ir.Value | None],
    attributes: Mapping[str, Any],
    regions: Sequence[ir.Block] = (),
    results: int | None = None,
    memo: Memo | None = None,
) -> list[ir.Type]:
    """The types of the results; see :meth:`compiler.ir.Dialect.infer`. ``memo`` holds known contents of operands."""
    if defn.constant is not None:
        return [type_of_array(attributes[defn.constant])]
    if regions:
        return onnx_regions.infer(defn, operands, attributes, regions)
    data = _data(defn, operands, memo)
    types = tuple([None if v is None else v.type for v in operands])
    key: Any = (defn, types, tuple(attributes.items()), data, results)
    try:
        found = _CACHE.get(key)
    except TypeError:  # an array among the attributes
        frozen = tuple(
            (k, (v.dtype, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v) for k, v in attributes.items()
        )
        key = (defn, types, frozen, data, results)
        found = _CACHE.get(key)
    if found is None:
        found = _CACHE[key] = _infer(defn, operands, attributes, data, results)
    return found


def type_of_array(array: np.ndarray[Any, Any]) -> ir.TensorType:
    """The type of a constant."""
    return ir.TensorType(ir.from_numpy(array.dtype), array.shape)


@functools.cache
def _data_operands(defn: ir.OpDef) -> frozenset[int]:
    """The operands whose contents inference may look at: those whose element type no result has, and Range's."""
    made = {s.type_variable for s in defn.results if s.type_variable}
    return frozenset(
        i for i, s in enumerate(defn.operands)
        if s.arity != "variadic" and (s.type_variable not in made or defn.name.startswith("onnx.Range"))
    )  # fmt: skip


def reads(defn: ir.OpDef, index: int) -> bool:
    """Whether the types of the results may depend on what operand ``index`` contains, not on its type alone."""
    return index in _data_operands(defn)


def _data(defn: ir.OpDef, operands: Sequence[ir.Value | None], memo: Memo | None) -> tuple[Any, ...]:
    """What is known of the contents of operands that inference looks at, as (index, elements) pairs."""
    at = _data_operands(defn)
    out: list[Any] = []
    for i, v in enumerate(operands):
        if v is None or i not in at:
            continue
        op = v.op
        if op is None:
            continue
        if op.defn.constant is not None:
            array = op.attributes[op.defn.constant]
            if array.ndim < 2 and array.size <= 4 * LIMIT and array.dtype.kind in "iufb":
                out.append((i, array.dtype, tuple(array.reshape(-1).tolist())))
        elif (i == 0 or defn.operands[i].type_variable == "") and isinstance(v.type, ir.TensorType):
            known = contents(v, memo)
            if known is not None and (is_known(known) or _SHAPED_BY_CONTENTS.get(defn.name.partition("@")[0]) == i):
                out.append((i, v.type.dtype.numpy, known))
    return tuple(out)


def result_count(defn: ir.OpDef, operands: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> int:
    """How many results an operator has if nobody says: the required ones, and as many as it is told to make."""
    count = sum(s.arity == "required" for s in defn.results)
    if defn.results and defn.results[-1].arity == "variadic":
        told = attributes.get("num_outputs") or len(attributes.get("split", ()))
        if not told and len(operands) > 1 and operands[1] is not None:
            lengths = operands[1].shape
            told = lengths[0] if lengths and type(lengths[0]) is int else 0
        count += int(told) or 1
    return count


def _infer(
    defn: ir.OpDef,
    operands: Sequence[ir.Value | None],
    attributes: Mapping[str, Any],
    data: tuple[Any, ...],
    results: int | None,
) -> list[ir.Type]:
    if results is None:
        results = result_count(defn, operands, attributes)
    onnx_restrictions.check(defn, operands, attributes)
    if (
        attributes.get("num_outputs", results) != results
    ):  # onnx's inference would run past the end, and the process down
        raise ir.InferenceError(f"{defn.name}: num_outputs is {attributes['num_outputs']}, not {results}")
    shaped = _SHAPED_BY_CONTENTS.get(defn.name.partition("@")[0])
    if shaped is not None:
        target = next((known for i, _, known in data if i == shaped), None)
        if target is not None:
            found = _shape_from(defn, operands, attributes, target)
            if found is not None:
                return [found]
    given = [(i, dtype, known) for i, dtype, known in data if is_known(known)]
    if defn.name == "onnx.Slice" and not {1, 2} <= {i for i, _, _ in given}:
        return [_sliced(operands, given)]
    if defn.name == "onnx.GroupNormalization" and operands[0] is not None:
        return [operands[0].type]  # of what it is composed of, ONNX's inference knows no shape
    if defn.name in _STANDARD:
        types = _ask_onnx(ir.lookup(_STANDARD[defn.name]), operands, attributes, given, results)
    elif defn.dialect == "msft":
        types = onnx_msft.infer(defn, operands, attributes, given, results)
    else:
        types = _ask_onnx(defn, operands, attributes, given, results)
    return [t if t is not None else _fallback(defn, operands, i) for i, t in enumerate(types)]


def _ask_onnx(
    defn: ir.OpDef,
    operands: Sequence[ir.Value | None],
    attributes: Mapping[str, Any],
    data: Sequence[tuple[int, Any, Contents]],
    results: int,
) -> list[ir.Type | None]:
    name = defn.name.partition(".")[2].partition("@")[0]
    domain = DOMAINS[defn.dialect]
    node = make_node(defn, attributes, ["" if v is None else f"i{k}" for k, v in enumerate(operands)], results)
    types = {f"i{k}": onnx_proto.type_to_proto(v.type) for k, v in enumerate(operands) if v is not None}
    tensors = {}
    for i, dtype, known in data:
        shape = operands[i].shape  # type: ignore[union-attr]
        array = np.array(known, dtype).reshape(() if shape == () else (len(known),))
        if name == "Range" and array.size == 1:  # onnxruntime takes vectors of one element too, ONNX's inference none
            array = array.reshape(())
            types[f"i{i}"] = onnx_proto.type_to_proto(type_of_array(array))
        tensors[f"i{i}"] = onnx_proto.array_to_proto(array, f"i{i}")
    # An older form is inferred among its contemporaries: its definition may be a function of other operators.
    opset = onnx.OperatorSetIdProto(domain=domain, version=_opset(defn))
    schema = defs.get_schema(name, defn.since, domain)
    if schema.deprecated:  # refuses to infer; the form that brought the operator back does not
        schema = defs.get_schema(name, domain=domain)
    try:
        found = shape_inference.infer_node_outputs(schema, node, types, tensors, opset_imports=[opset])
    except Exception as e:  # the binding raises InferenceError, but RuntimeError and others where a check is missing
        raise ir.InferenceError(f"{defn.name}: {_first_line(e)}") from None
    out: list[ir.Type | None] = []
    for k in range(results):
        proto = found.get(f"o{k}")
        out.append(None if proto is None else onnx_proto.type_from_proto(proto))
    return out


@functools.cache
def _opset(defn: ir.OpDef) -> int:
    """The newest opset in which this form is in force."""
    name = defn.name.partition(".")[2].partition("@")[0]
    later = [v for v in versions(defn.dialect)[name] if v > defn.since]
    return later[0] - 1 if later else max(defn.since, defs.onnx_opset_version() if defn.dialect == "onnx" else 1)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0].removeprefix("[ShapeInferenceError] ").removeprefix("[TypeInferenceError] ")


def _fallback(defn: ir.OpDef, operands: Sequence[ir.Value | None], index: int) -> ir.Type:
    """A tensor of unknown rank, with the element type that the definition's type variables tell.

    Raises:
        InferenceError: they do not tell any.
    """
    spec = defn.results[min(index, len(defn.results) - 1)]
    for s, v in zip(defn.operands, operands):
        if s.type_variable and s.type_variable == spec.type_variable and v is not None:
            return v.type if not isinstance(v.type, ir.TensorType) else ir.TensorType(v.type.dtype, None)
    if spec.dtypes is not None and len(spec.dtypes) == 1:
        return ir.TensorType(next(iter(spec.dtypes)), None)
    first = next((v.type for v in operands if v is not None and isinstance(v.type, ir.TensorType)), None)
    if first is not None and (spec.dtypes is None or first.dtype in spec.dtypes):
        return ir.TensorType(first.dtype, None)
    raise ir.InferenceError(f"{defn.name}: the type of its result {index} is not known")


def _sliced(operands: Sequence[ir.Value | None], known: Sequence[tuple[int, Any, Contents]]) -> ir.Type:
    """The result of a Slice whose bounds are computed: other axes keep their sizes. ONNX's inference gives up all."""
    source = operands[0].type if operands[0] is not None else None
    if not isinstance(source, ir.TensorType):
        raise ir.InferenceError("onnx.Slice: its data is no tensor")
    if source.shape is None:
        return source
    given = next((elements for i, _, elements in known if i == 3), None)
    lengths = operands[1].shape if operands[1] is not None else None
    if len(operands) > 3 and operands[3] is not None:
        axes = given
    else:
        count = lengths[0] if lengths else None
        axes = tuple(range(count)) if isinstance(count, int) else None
    rank = len(source.shape)
    if axes is None or not all(isinstance(a, int) and -rank <= a < rank for a in axes):
        return source.with_shape("?" for _ in source.shape)
    cut = {a % rank for a in axes if isinstance(a, int)}
    return source.with_shape("?" if i in cut else d for i, d in enumerate(source.shape))


def _shape_from(
    defn: ir.OpDef, operands: Sequence[ir.Value | None], attributes: Mapping[str, Any], target: Contents
) -> ir.Type | None:
    """The result of an operator that makes a tensor of the shape ``target``, some of which may be names."""
    if not all(type(d) is int or type(d) is str for d in target):
        return None
    dims: tuple[ir.Dim, ...] = target  # type: ignore[assignment]
    if defn.name == "onnx.ConstantOfShape":
        fill = attributes.get("value")
        dtype = ir.F32 if fill is None else ir.from_numpy(fill.dtype)
        return ir.TensorType(dtype, dims) if all(type(d) is str or d >= 0 for d in dims) else None  # type: ignore[operator]
    source = operands[0].type if operands[0] is not None else None
    if not isinstance(source, ir.TensorType):
        return None
    if defn.name.startswith("onnx.Reshape"):
        return source.with_shape(reshape(defn.name, source.shape, dims, bool(attributes.get("allowzero", 0))))
    if source.shape is None:
        return None
    if defn.name.startswith("onnx.Tile"):
        fits = len(dims) == len(source.shape)
        return source.with_shape(product(pair) for pair in zip(source.shape, dims)) if fits else None
    return source.with_shape(broadcast(source.shape, dims))


def broadcast(a: Sequence[ir.Dim], b: Sequence[ir.Dim]) -> tuple[ir.Dim, ...]:
    """NumPy's broadcasting of two shapes, where a name stands for an unknown number that may be 1.

    Raises:
        InferenceError: they cannot be broadcast.
    """
    n = max(len(a), len(b))
    out: list[ir.Dim] = []
    for x, y in zip((1,) * (n - len(a)) + tuple(a), (1,) * (n - len(b)) + tuple(b)):
        if x == 1 or x == y:
            out.append(y)
        elif y == 1:
            out.append(x)
        elif type(x) is int and type(y) is int:
            raise ir.InferenceError(f"the shapes {list(a)} and {list(b)} cannot be broadcast")
        else:
            out.append(x if type(x) is int else y if type(y) is int else ir.UNKNOWN)
    return tuple(out)


def reshape(
    name: str, source: Sequence[ir.Dim] | None, target: Sequence[ir.Dim], allowzero: bool = False
) -> tuple[ir.Dim, ...]:
    """The shape of ``source`` reshaped to ``target``, whose -1 takes what is left, names cancelling names.

    Raises:
        InferenceError: they hold different numbers of elements, or ``target`` has several -1.
    """
    out = list(target)
    for i, d in enumerate(out):
        if d == 0 and not allowzero:
            if source is not None and i >= len(source):
                raise ir.InferenceError(f"{name}: {list(target)} keeps dimension {i} of the shape {list(source)}")
            out[i] = ir.UNKNOWN if source is None else source[i]
    wild = [i for i, d in enumerate(out) if d == -1]
    if len(wild) > 1 or any(type(d) is int and d < -1 for d in out):
        raise ir.InferenceError(f"{name}: {list(target)} is no shape")
    if source is None:
        return tuple(ir.UNKNOWN if d == -1 else d for d in out)
    left: list[ir.Dim] = list(source)
    right: list[ir.Dim] = [d for d in out if d != -1]
    for d in [d for d in right if type(d) is str and d != ir.UNKNOWN]:
        if d in left:
            left.remove(d)
            right.remove(d)
    have, names = _split_product(left)
    need, others = _split_product(right)
    if not names and not others:
        if (need == 0 and have != 0) or (need and have % need) or (not wild and have != need):
            raise ir.InferenceError(f"{name}: a tensor of shape {list(source)} cannot become {list(target)}")
        if wild:
            out[wild[0]] = have // need if need else 0
    elif wild:
        exact = not others and need and have % need == 0
        rest = have // need if exact else 0
        out[wild[0]] = names[0] if exact and rest == 1 and len(names) == 1 else ir.UNKNOWN
    elif others == [ir.UNKNOWN] and not names and need and have % need == 0:
        out[out.index(ir.UNKNOWN)] = have // need  # the one dimension nobody named
    return tuple(out)


def _split_product(dims: Sequence[ir.Dim]) -> tuple[int, list[str]]:
    number, names = 1, []
    for d in dims:
        if type(d) is int:
            number *= d
        else:
            names.append(str(d))
    return number, names
