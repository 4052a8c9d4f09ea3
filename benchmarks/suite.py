"""ONNX's own backend tests as cases on disk, and the judgement on what a compiler makes of them.

A case is a folder: ``model.onnx`` and for each set of data ``DATA/input_0.KIND.pb …`` and ``DATA/output_0.KIND.pb …``,
where KIND is that of the message: tensor, sequence, optional. So a process of any Python can read it.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.peers import protocol

Array = np.ndarray[Any, Any]

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")

#: Domains that are out of scope; ai.onnx is what counts.
_OUTSIDE = ("ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training", "ai.onnx.training")

#: An input of no more numbers may be a parameter (axes, bounds, a scale) that real models hold as a constant.
_FEW = 8


@dataclass(slots=True)
class Case:
    """A test.

    Attributes:
        sets: inputs and outputs of each set of data; arrays, lists of them for sequences, or None for nothing.
        operators: what the model's nodes, those of its functions and subgraphs included, are.
        constants: how many inputs were made constants; 0 for the test as it ships.
    """

    name: str
    kind: str
    model: onnx.ModelProto
    sets: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float
    constants: int = 0
    operators: list[str] = field(default_factory=list)

    @property
    def opset(self) -> int:
        return max((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), default=1)


def cases(parts: Sequence[str] = (), kinds: Sequence[str] = KINDS) -> Iterator[Case]:
    """The cases in scope whose name holds one of ``parts`` (all without any)."""
    from onnx.backend.test import loader

    for kind in kinds:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tests = loader.load_model_tests(kind=kind)
        for test in sorted(tests, key=lambda t: t.name):
            if parts and not any(p in test.name for p in parts):
                continue
            case = _case(test, kind)
            if case is not None:
                yield case


def _case(test: Any, kind: str) -> Case | None:
    if test.model is not None:
        model = test.model
        sets = [([_array(a) for a in i], [_array(a) for a in o]) for i, o in test.data_sets or ()]
    elif test.model_dir is not None:
        folder = Path(test.model_dir)
        model = onnx.load(folder / "model.onnx")
        sets = [_read_set(d, model) for d in sorted(folder.glob("test_data_set_*"))]
    else:
        model, sets = _light(test)
    nodes = list(_nodes(model.graph))
    if any(n.domain in _OUTSIDE for n in nodes):
        return None
    operators = [n.op_type if n.domain in ("", "ai.onnx") else f"{n.domain}.{n.op_type}" for n in nodes]
    return Case(test.name, kind, model, sets, test.rtol, test.atol, 0, sorted(set(operators)))


def _light(test: Any) -> tuple[onnx.ModelProto, list[tuple[list[Any], list[Any]]]]:
    """A network whose weights were taken out of the package; its input is the ramp that the suite's runner makes."""
    file = Path(onnx.__file__).parents[1] / test.url
    model = onnx.load(file)
    initialized = {t.name for t in model.graph.initializer}
    inputs = []
    for info in model.graph.input:
        if info.name not in initialized:
            shape = [d.dim_value if d.HasField("dim_value") else 1 for d in info.type.tensor_type.shape.dim]
            inputs.append((np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32))
    files = [file.with_name(f"{file.stem}_output_{i}.pb") for i in range(len(model.graph.output))]
    return model, [(inputs, [numpy_helper.to_array(onnx.load_tensor(f)) for f in files])]


def _read_set(folder: Path, model: onnx.ModelProto) -> tuple[list[Any], list[Any]]:
    def of(what: str, infos: Any) -> list[Any]:
        files = sorted(folder.glob(f"{what}_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
        kinds = [(i.type.WhichOneof("value") or "tensor_type").removesuffix("_type") for i in infos]
        return [protocol.message(f.read_bytes(), k) for f, k in zip(files, kinds)]

    return of("input", model.graph.input), of("output", model.graph.output)


def _array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _nodes(inner)


def with_constants(case: Case) -> Case | None:
    """The case with those inputs as constants that look like parameters; None if there are none, or all would be.

    A parameter is an input behind the first that holds integers or bools or few numbers.
    """
    if len(case.sets) != 1 or not all(isinstance(a, np.ndarray) for a in case.sets[0][0]):
        return None
    inputs, outputs = case.sets[0]
    initialized = {t.name for t in case.model.graph.initializer}
    infos = [i for i in case.model.graph.input if i.name not in initialized]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    model.ir_version = max(model.ir_version, 4)  # initializers that are no inputs
    left, names = [], []
    for i, (info, array) in enumerate(zip(infos, inputs)):
        if i > 0 and (array.dtype.kind in "iub" or array.size <= _FEW):
            model.graph.initializer.append(numpy_helper.from_array(array, info.name))
        else:
            left.append(array)
            names.append(info)
    if len(left) == len(inputs):
        return None
    del model.graph.input[:]
    model.graph.input.extend(names)
    constants = len(inputs) - len(left)
    return Case(case.name, case.kind, model, [(left, outputs)], case.rtol, case.atol, constants, case.operators)


def write(case: Case, folder: Path) -> Path:
    """The case on disk, below ``folder``."""
    place = folder / (f"{case.name}+constants" if case.constants else case.name)
    place.mkdir(parents=True)
    (place / "model.onnx").write_bytes(case.model.SerializeToString())
    for i, (inputs, outputs) in enumerate(case.sets):
        data = place / str(i)
        data.mkdir()
        for what, values in (("input", inputs), ("output", outputs)):
            for j, value in enumerate(values):
                protocol.write(data, f"{what}_{j}", value)
    return place


def differs(got: Sequence[Any], want: Sequence[Any], case: Case) -> str | None:
    """How results differ from the test's, by the suite's own comparison and tolerances; None if they do not."""
    from onnx.backend.test.runner import Runner

    try:
        Runner.assert_similar_outputs(list(want), list(got), rtol=case.rtol, atol=case.atol, model_dir=case.name)
    except (AssertionError, TypeError, AttributeError) as e:
        return " ".join(str(e).split())[:300]
    return None


class Folder:
    """A temporary folder of cases."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="planish-suite-"))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
