"""Random valid ONNX models of all operators that the conformance suite knows.

An operator, its attributes and parameters come from a case of the suite, chosen at random; its operands from what the
model holds already: as they are where that is valid, else brought to the case's shape and element type by Cast, Tile,
Slice and Reshape, or new constants. onnxruntime computes every node as it is added, so that what is built is valid, and
its values are finite and of moderate size.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import compiler.dialects.onnx  # noqa: F401 (registers the operators that cases name)
from compiler.dialects.onnx_schema import make_node
from compiler.ir import lookup
from compiler.rewrite.prove_seeds import Seed, SeedOperand, suite

Array = np.ndarray[Any, Any]

#: Sizes are kept small: what is wrong shows on few numbers.
_MOST_ELEMENTS = 2048
_MOST_AXES = 5
_LARGEST = 1e3

#: What is nowhere larger is what rounding left of numbers that cancel, in which nothing can be compared.
_SMALLEST = 1e-5

#: Element types that inputs may have; others come from casts and comparisons.
_INPUTS = (np.float32, np.float32, np.float32, np.float32, np.int32, np.int64, np.bool_)

#: What a model may compute with: narrower floats would prove rounding, not rules.
_COMPUTED = "f4", "i4", "i8", "b1", "u1", "i1"

#: What is random itself cannot be compared.
_RANDOM = ("Random", "Bernoulli", "Multinomial", "Dropout")

OPSET = 23


@dataclass(slots=True)
class Drawn:
    """A model and inputs on which all its values are finite."""

    model: onnx.ModelProto
    inputs: dict[str, Array]


@dataclass(slots=True)
class Growing:
    """A graph that grows node by node.

    Attributes:
        values: arrays by name, in the order in which they came.
        used: names that a node uses.
    """

    draw: random.Random
    values: dict[str, Array] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)
    inputs: dict[str, Array] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    serial: int = 0

    def name(self, prefix: str) -> str:
        self.serial += 1
        return f"{prefix}{self.serial}"

    def constant(self, array: Array) -> str:
        name = self.name("c")
        self.constants[name] = array
        return name

    def array(self, name: str) -> Array:
        return self.constants[name] if name in self.constants else self.values[name]

    def add(self, node: onnx.NodeProto) -> list[str] | None:
        """Computes a node and adds it; None if it is not valid, or gives what is not wanted."""
        names = [self.name("v") if o else "" for o in node.output]
        del node.output[:]
        node.output.extend(names)
        node.name = f"n{self.serial}"
        given = {n: self.array(n) for n in node.input if n}
        results = computed(node, given)
        if results is None or not all(map(_moderate, results)):
            return None
        self.nodes.append(node)
        self.used.update(n for n in node.input if n)
        kept = [n for n in names if n]
        self.values.update(zip(kept, results, strict=True))
        return kept


def computed(node: onnx.NodeProto, given: dict[str, Array]) -> list[Array] | None:
    """What onnxruntime gives for one node; None if it does not take it, or ONNX's own inference calls it invalid."""
    import onnxruntime as ort

    infos = [_info(n, a) for n, a in given.items()]
    outputs = [onnx.ValueInfoProto(name=n) for n in node.output if n]
    graph = helper.make_graph([node], "node", infos, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    try:  # onnxruntime takes, for example, a MeanVarianceNormalization over axes that there are not
        onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except Exception:  # the binding raises InferenceError, but RuntimeError and others where a check is missing
        return None
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, given))
    except Exception:  # onnxruntime has no common base for its errors
        return None


def _info(name: str, array: Array) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def _moderate(result: Any) -> bool:
    if not isinstance(result, np.ndarray) or result.dtype.str[1:] not in _COMPUTED:
        return False
    if not 0 < result.size <= _MOST_ELEMENTS or result.ndim > _MOST_AXES:
        return False
    if result.dtype.kind == "b":
        return True
    top = np.max(np.abs(result.astype(np.float64)))  # NaN is not at most anything
    return bool(top <= _LARGEST and (top == 0 or top >= _SMALLEST))


def draw(number: int, allowed: Callable[[Seed], bool], least: int = 5, most: int = 40) -> Drawn:
    """The model with this number: always the same for the same number, cases and version of onnx.

    Args:
        allowed: which cases may be used.
    """
    rng = random.Random(number)
    graph = Growing(rng)
    for _ in range(rng.randint(1, 3)):
        shape = [rng.choice((1, 2, 3, 4, 5, 6)) for _ in range(rng.choice((1, 2, 3, 3, 4, 4)))]
        array = _contents(rng, rng.choice(_INPUTS), shape, -1.0, 1.0)
        name = graph.name("x")
        graph.inputs[name] = graph.values[name] = array
    cases = suite()
    names = sorted(n for n in cases if n.startswith("onnx.") and not any(r in n for r in _RANDOM))
    size = rng.randint(least, most)
    for _ in range(4 * size):
        if len(graph.nodes) >= size:
            break
        seed = rng.choice(cases[rng.choice(names)])
        if not seed.regions and allowed(seed) and not _grow(graph, seed, direct=True):
            _grow(graph, seed, direct=False)
    return _finished(graph, number)


def _finished(graph: Growing, number: int) -> Drawn:
    leaves = [n for n in graph.values if n not in graph.used and n not in graph.inputs]
    outputs = [_info(n, graph.values[n]) for n in leaves]
    inputs = {n: a for n, a in graph.inputs.items() if n in graph.used}
    held = [numpy_helper.from_array(a, n) for n, a in graph.constants.items() if n in graph.used]
    proto = helper.make_graph(graph.nodes, f"random_{number}", [_info(n, a) for n, a in inputs.items()], outputs, held)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    _open(model)
    return Drawn(model, inputs)


def _open(model: onnx.ModelProto) -> None:
    """Leaves sizes of outputs open that ONNX's inference does not know: other inputs may give others (Compress)."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for output in bare.graph.output:
        output.type.tensor_type.ClearField("shape")
    known = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph.output
    for output, found in zip(model.graph.output, known, strict=True):
        dims = found.type.tensor_type.shape.dim
        for i, dim in enumerate(output.type.tensor_type.shape.dim):
            if i >= len(dims) or not dims[i].HasField("dim_value"):
                dim.Clear()


def _grow(graph: Growing, seed: Seed, direct: bool) -> bool:
    """Tries to add the operator of a case; what it needed besides goes again if it is not valid."""
    nodes, serial = len(graph.nodes), graph.serial
    before = dict(graph.values), set(graph.used), dict(graph.constants)
    names = _operands(graph, seed, direct)
    if names is not None and any(n in graph.values for n in names):
        node = make_node(lookup(seed.op), seed.attributes, names, seed.results)
        if graph.add(node) is not None:
            return True
    del graph.nodes[nodes:]
    graph.serial = serial
    graph.values, graph.used, graph.constants = before
    return False


def _operands(graph: Growing, seed: Seed, direct: bool) -> list[str] | None:
    """A name for each operand; None if one cannot be had.

    Args:
        direct: take a value of the first operand's element type as it is, and let others follow its sizes.
    """
    rng = graph.draw
    names: list[str] = []
    sizes: dict[int, int] = {}
    for operand in seed.operands:
        if operand is None:
            names.append("")
            continue
        shape = operand.type.static_shape
        if operand.contents is not None and (names or len(seed.operands) == 1):
            names.append(graph.constant(operand.contents))
            continue
        wanted = tuple(sizes.get(d, d) for d in shape)
        same = [n for n, a in graph.values.items() if a.dtype == operand.type.dtype.numpy]
        if direct and not names and same:
            name = rng.choice(same[-6:])
            have = graph.values[name].shape
            if len(have) == len(shape):
                sizes = dict(zip(shape, have))
            names.append(name)
            continue
        fitting = [n for n in same if graph.values[n].shape == wanted]
        quantizes = bool(names) and any(q in seed.op for q in ("Quant", "QLinear"))
        if fitting and not quantizes and rng.random() < 0.8:
            names.append(rng.choice(fitting))
        elif names and (quantizes or rng.random() < 0.6):  # a scale must be positive
            names.append(graph.constant(_contents(rng, operand.type.dtype.numpy, wanted, *_range(operand))))
        else:
            name = _adapted(graph, operand, wanted)
            if name is None:
                return None
            names.append(name)
    while names and not names[-1]:
        names.pop()
    # onnxruntime writes the new statistics of a BatchNormalization over the old, even if they are its bias as well.
    given = [n for n in names if n]
    return names if len(given) <= 2 or len(set(given)) == len(given) else None


def _range(operand: SeedOperand) -> tuple[float, float]:
    low, high = max(operand.low, -_LARGEST), min(operand.high, _LARGEST)
    if low < high:
        return low, high
    return (low / 2, low * 3 / 2) if low > 0 else (low - 1.0, low + 1.0)


def _contents(rng: random.Random, dtype: Any, shape: Sequence[int], low: float, high: float) -> Array:
    numbers = np.random.default_rng(rng.randrange(2**32))
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return numbers.random(tuple(shape)) < 0.5
    if dtype.kind in "iu":
        top = max(int(np.ceil(high)), int(np.floor(low)) + 1)
        return numbers.integers(int(np.floor(low)), top + 1, tuple(shape)).astype(dtype)
    return numbers.uniform(low, high, tuple(shape)).astype(dtype)


def _adapted(graph: Growing, operand: SeedOperand, shape: tuple[int, ...]) -> str | None:
    """A value brought to an element type and a shape."""
    rng = graph.draw
    dtype = operand.type.dtype.numpy
    if dtype.str[1:] not in _COMPUTED or not 0 < int(np.prod(shape)) <= _MOST_ELEMENTS:
        return None
    name = rng.choice(list(graph.values)[-8:])
    array = graph.values[name]

    def then(op: str, *more: str, **attributes: Any) -> str | None:
        nonlocal name
        made = graph.add(helper.make_node(op, [name, *more], ["y"], **attributes))
        name = made[0] if made else name
        return made[0] if made else None

    if array.dtype != dtype and then("Cast", to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype))) is None:
        return None
    if array.shape == shape:
        return name
    count, have = int(np.prod(shape)), array.size
    steps = [("Reshape", [graph.constant(np.array([-1]))])] if array.ndim != 1 else []
    if have < count:
        steps.append(("Tile", [graph.constant(np.array([-(-count // have)]))]))
        have *= -(-count // have)
    if have > count:
        bounds = [graph.constant(np.array([b])) for b in (0, count)]
        steps.append(("Slice", bounds))
    if len(shape) != 1:
        steps.append(("Reshape", [graph.constant(np.array(shape, np.int64))]))
    return name if all(then(op, *more) is not None for op, more in steps) else None


def run(model: onnx.ModelProto, inputs: dict[str, Array]) -> list[Array]:
    """What onnxruntime gives for a whole model."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def run_by_node(drawn: Drawn) -> list[Array]:
    """What onnxruntime gives for a model whose nodes are models of their own. In a whole it may write one value over
    another: the statistics of a BatchNormalization that trains over those that it was given."""
    values = {**drawn.inputs, **{t.name: numpy_helper.to_array(t) for t in drawn.model.graph.initializer}}
    for node in drawn.model.graph.node:
        results = computed(node, {n: values[n] for n in node.input if n})
        assert results is not None, f"{node.op_type} was valid when it was drawn"
        values.update(zip([n for n in node.output if n], results, strict=True))
    return [values[o.name] for o in drawn.model.graph.output]
