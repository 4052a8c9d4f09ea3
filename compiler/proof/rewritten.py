"""Models that onnxruntime does not run, written as ones that it does and that compute the same.

Recurrent layers with the batch first (``layout=1``), of which onnxruntime has no kernels, get transposes around the
same layers with time first. Numbers of bfloat16, which onnxruntime's kernels and NumPy lack, become f32, as they do in
a package (docs/element-types.md): what is computed is then not rounded to 8 bits of precision on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, helper, load, numpy_helper
from onnx.external_data_helper import load_external_data_for_model

_RECURRENT = ("RNN", "GRU", "LSTM")
#: Inputs of such a layer that have the batch first, X and the initial states, with the permutation that puts time, or
#: directions, first.
_INPUTS: dict[int, tuple[int, ...]] = {0: (1, 0, 2), 5: (1, 0, 2), 6: (1, 0, 2)}
#: Its outputs, with the permutation that puts the batch first again.
_OUTPUTS: dict[int, tuple[int, ...]] = {0: (2, 0, 1, 3), 1: (1, 0, 2), 2: (1, 0, 2)}


def rewritten(source: str | Path | ModelProto) -> tuple[ModelProto, str] | None:
    """The model in such a form, and what was done in a sentence; None where none of this is in it."""
    if isinstance(source, (str, Path)):
        model = load(str(source), load_external_data=False)
        if not _is_concerned(model):
            return None
        load_external_data_for_model(model, str(Path(source).parent))
    else:
        model = ModelProto()
        model.CopyFrom(source)
    done = []
    turned = sum(map(_time_first, _bodies(model)))
    widened = sum(map(_widened, _graphs(model.graph))) + sum(_widened_nodes(f.node) for f in model.functions)
    if turned:
        done.append("recurrent layers have time first, between transposes")
    if widened:
        done.append("bf16 is f32, to which nothing is rounded on the way")
    return (model, f"proven beside a form of the model that onnxruntime runs: {'; '.join(done)}") if done else None


def _is_concerned(model: ModelProto) -> bool:
    """Whether anything is to be done, which is seen without the weights in files beside the model."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for graph in _graphs(copy.graph):
        if any(t.data_type == TensorProto.BFLOAT16 for t in graph.initializer):
            return True
        del graph.initializer[:]
    return any(map(_time_first, _bodies(copy))) or any(map(_widened, _graphs(copy.graph)))


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs:
                yield from _graphs(inner)


def _bodies(model: ModelProto) -> Iterator[list[NodeProto]]:
    for graph in _graphs(model.graph):
        yield graph.node
    for function in model.functions:
        yield function.node


def _time_first(nodes: list[NodeProto]) -> bool:
    """Whether there are layers with the batch first; they have it no more."""
    out: list[NodeProto] = []
    for node in nodes:
        batch_first = node.op_type in _RECURRENT and node.domain in ("", "ai.onnx")
        layout = [a for a in node.attribute if a.name == "layout" and a.i == 1]
        if not batch_first or not layout:
            out.append(node)
            continue
        turned = NodeProto()
        turned.CopyFrom(node)
        turned.attribute.remove(layout[0])
        behind = []
        for i, perm in _INPUTS.items():
            if i < len(node.input) and node.input[i]:
                name = f"{node.output[0] or node.output[-1]}/in{i}/time_first"
                out.append(helper.make_node("Transpose", [node.input[i]], [name], perm=perm))
                turned.input[i] = name
        for i, perm in _OUTPUTS.items():
            if i < len(node.output) and node.output[i]:
                name = f"{node.output[i]}/time_first"
                behind.append(helper.make_node("Transpose", [name], [node.output[i]], perm=perm))
                turned.output[i] = name
        out += [turned, *behind]
    changed = len(out) != len(nodes)
    if changed:
        kept = [NodeProto.FromString(n.SerializeToString()) for n in out]
        del nodes[:]
        nodes.extend(kept)
    return changed


def _widened(graph: GraphProto) -> bool:
    """Whether a graph has bfloat16; it has it no more."""
    infos = [*graph.input, *graph.output, *graph.value_info]
    found = [_widened_type(info.type) for info in infos]
    found += [_widened_tensor(t) for t in graph.initializer]
    found.append(_widened_nodes(graph.node))
    return any(found)


def _widened_nodes(nodes: list[NodeProto]) -> bool:
    found = False
    for node in nodes:
        for a in node.attribute:
            if a.type == AttributeProto.TENSOR:
                found |= _widened_tensor(a.t)
            if a.name in ("to", "dtype", "output_dtype", "stash_type") and a.i == TensorProto.BFLOAT16:
                a.i, found = TensorProto.FLOAT, True
    return found


def _widened_type(type_: TypeProto) -> bool:
    if type_.tensor_type.elem_type != TensorProto.BFLOAT16:
        return False
    type_.tensor_type.elem_type = TensorProto.FLOAT
    return True


def _widened_tensor(tensor: TensorProto) -> bool:
    if tensor.data_type != TensorProto.BFLOAT16:
        return False
    wide = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
    tensor.CopyFrom(wide)
    return True
