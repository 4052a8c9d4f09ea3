"""The real tasks that compressed packages are judged by, in one form: samples, what is kept of each, and a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks import compression_boxes as boxes
from benchmarks import compression_sentences as sentences
from benchmarks import compression_speech as speech
from benchmarks import compression_text as text
from compiler.execution import runnable

Array = np.ndarray[Any, Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]
#: What was measured under a key before, or is now.
Once = Callable[[str, Callable[[], Any]], Any]
#: What is kept of one sample: anything that JSON holds.
Kept = Any


@dataclass(frozen=True)
class Task:
    """A model and what it is for.

    Attributes:
        title: what is measured, for the head of the table.
        calibrate: inputs to compress by; others than those that judge.
        run: what is kept of each sample of what a model gives, of the first so many or of all.
        score: of what a package gave and what the original did, sample by sample.
        rows: names of rows of the table, and on how many samples they are judged; None for all.
    """

    title: str
    model: Path
    shapes: Mapping[str, tuple[int, ...]]
    calibrate: Mapping[str, Array]
    run: Callable[[Run, int | None], list[Kept]]
    score: Callable[[Sequence[Kept], Sequence[Kept]], float]
    rows: Mapping[str, int | None]


FEW: Mapping[str, int | None] = dict.fromkeys(
    ("fp16", "int8", "int8, calibrated", "palette6", "palette4-group16", "palette4-group16, calibrated")
)


def original(model: Path) -> Run:
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(None, dict(inputs)), strict=True))


def package(path: Path, model: Path, library: Any) -> Run:
    """A package with inputs and outputs called as the model's are: some names are not free in Core ML."""
    loaded = runnable.load(path, library)
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    taken = [i.name for i in loaded.signature.inputs]
    given = [i.name for i in session.get_inputs()]
    names = [o.name for o in session.get_outputs()]

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        found = loaded.run({t: inputs[g] for t, g in zip(taken, given, strict=True)})
        return dict(zip(names, found.values(), strict=True))

    return run


def weight_bytes(model: Path) -> int:
    """What the float weights of a model take in f32, whether they are initializers or constants."""
    graph = onnx.load(model).graph
    tensors = [*graph.initializer, *(a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute)]
    return sum(4 * int(np.prod(t.dims)) for t in tensors if t.data_type == onnx.TensorProto.FLOAT)


def ocr(models: Path, work: Path) -> Task:
    model = models / "ppocrv4_rec" / "model.onnx"
    keys = text.keys(model)
    pictures, texts = text.lines(1200, seed=1)

    def run(model: Run, count: int | None) -> list[Kept]:
        read = [text.read(next(iter(model({"x": p}).values())), keys) for p in pictures[:count]]
        return [[text.edits(t, r), len(t)] for t, r in zip(texts[:count], read, strict=True)]

    def score(ours: Sequence[Kept], _: Sequence[Kept]) -> float:
        wrong, of = np.sum(ours, axis=0)
        return float(1 - wrong / of)

    # What may cost 0.3 points is judged on more lines than what may cost one, or any number.
    few = ("palette6", "palette4-group16", "palette4-group16, calibrated", "mixed, 16 % of f32", "w8a8")
    rows = {"fp32": 400, **FEW, **dict.fromkeys((*few, "pruned 30 %", "pruned 30 %, int8"), 400), "fp16": 400}
    calibrate = {"x": text.lines(16, seed=2)[0]}
    return Task(
        "characters read right, of 1200 lines, or of the first 400 of them",
        model,
        {"x": (1, 3, 48, 320)},
        calibrate,
        run,
        score,
        rows,
    )


def yolo(models: Path, work: Path) -> Task:
    model = models / "yolov8n_320" / "model.onnx"
    return _detector(model, "images", (320, 320), 1 / 255, 0.0, boxes.yolo_boxes)


def faces(models: Path, work: Path) -> Task:
    model = models / "ultraface" / "model.onnx"
    return _detector(model, "input", (240, 320), 1 / 128, 127.0, boxes.face_boxes)


def _detector(model: Path, name: str, size: tuple[int, int], scale: float, shift: float, find: Any) -> Task:
    """Agreement with the boxes that the original finds (score 0.25 and up)."""

    def pictures(count: int, seed: int) -> Array:
        return (boxes.photographs(size, count, seed) - np.float32(shift)) * np.float32(scale)

    judged = pictures(36, 1)

    def run(model: Run, count: int | None) -> list[Kept]:
        found = [find(list(model({name: p}).values()), 0.05) for p in judged[:count]]
        return [[[c, s, *map(float, b)] for c, s, b in one] for one in found]

    def score(ours: Sequence[Kept], theirs: Sequence[Kept]) -> float:
        truth = [[(c, s, np.array(b)) for c, s, *b in one if s >= 0.25] for one in theirs]
        return boxes.mean_average_precision(truth, [[(c, s, np.array(b)) for c, s, *b in one] for one in ours])

    title = "mAP against the original's boxes, on 36 photographs"
    return Task(title, model, {name: (1, 3, *size)}, {name: pictures(8, 2)}, run, score, {**FEW, "w8a8": None})


def minilm(models: Path, work: Path) -> Task:
    model = work / "minilm.onnx"
    sentences.model(model)
    given = sentences.tokens(sentences.sentences())
    others = sentences.tokens([" ".join(text.WORDS[i : i + 9]) for i in range(0, 45, 5)])

    def run(model: Run, count: int | None) -> list[Kept]:
        return [np.round(model(g)["embedding"].ravel(), 6).tolist() for g in given[:count]]

    def score(ours: Sequence[Kept], theirs: Sequence[Kept]) -> float:
        return sentences.ranking_agreement(np.array(ours), np.array(theirs))

    calibrate = {name: np.stack([o[name] for o in others]) for name in others[0]}
    title = f"rank correlation of likeness with the original's, of {len(given)} sentences"
    rows = {name: None for name in FEW if name != "int8, calibrated"}
    return Task(title, model, {}, calibrate, run, score, rows)


def silero(models: Path, work: Path) -> Task:
    model = models / "silero_vad_16k" / "model.onnx"
    clips = speech.clips(12, 4.0, seed=1)
    states: list[Array] = []
    clip = speech.clips(1, 1.0, seed=2)[0]
    speech.heard(original(model), clip, states)
    frames = np.stack(speech.frames(clip))
    calibrate = {"input": frames, "sr": np.full(len(frames), speech.RATE, np.int64), "state": np.stack(states)}

    def run(model: Run, count: int | None) -> list[Kept]:
        return [speech.heard(model, c) for c in clips[:count]]

    def score(ours: Sequence[Kept], theirs: Sequence[Kept]) -> float:
        return float(np.mean([np.mean((np.array(a) > 0.5) == (np.array(b) > 0.5)) for a, b in zip(ours, theirs)]))

    title = "frames of 32 ms in which a voice is heard as by the original, of 12 clips"
    return Task(title, model, {"input": (1, 576), "state": (2, 1, 128)}, calibrate, run, score, FEW)


def dnsmos(models: Path, work: Path) -> Task:
    model = models / "dnsmos" / "model.onnx"
    length = 144160
    clips = [c[None, :length] for c in speech.clips(16, 9.1, seed=1)]
    calibrate = {"input_1": np.stack([c[None, :length] for c in speech.clips(4, 9.1, seed=2)])}

    def run(model: Run, count: int | None) -> list[Kept]:
        return [next(iter(model({"input_1": c}).values())).ravel().tolist() for c in clips[:count]]

    def score(ours: Sequence[Kept], theirs: Sequence[Kept]) -> float:
        return float(np.mean(np.abs(np.array(ours) - np.array(theirs)) <= 0.1))

    title = "opinions (speech, noise, both) within 0.1 of the original's 1 to 5, of 16 clips"
    return Task(title, model, {"input_1": (1, length)}, calibrate, run, score, {**FEW, "w8a8": None})


TASKS: dict[str, Callable[[Path, Path], Task]] = {
    "ocr": ocr,
    "yolo": yolo,
    "faces": faces,
    "minilm": minilm,
    "silero": silero,
    "dnsmos": dnsmos,
}
