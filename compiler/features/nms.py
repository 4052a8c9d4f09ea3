"""``--nms boxes=NAME,scores=NAME[,iou=…,score=…,max=…]``: decoded boxes through Core ML's own non-maximum suppression.

The proof has two halves, as suppression turns the least difference of two scores into another choice. Boxes and scores
on the way into it, probed in the package, must be those of the original model; and what comes out must be what ONNX's
NonMaxSuppression, in onnxruntime, makes of just these boxes and scores.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from compiler.errors import UserError
from compiler.features.base import Array, Arrays, Feature, output_index
from compiler.ir import F32, I32, Builder, Module, TensorType, Value
from compiler.target import known

if TYPE_CHECKING:
    from compiler.rewrite import Library
    from compiler.target import Target

OUTPUTS = ("coordinates", "confidence", "index", "count")

_SPELLING = "--nms boxes=NAME[0:4],scores=NAME[4:],iou=0.45,score=0.25,max=100,format=corners|center,class=1"
#: Values of the package that the proof looks at, by name.
_BOXES, _SCORES = "nms_boxes", "nms_scores"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of an output along its axis of features; all of it where ``start`` and ``stop`` are None."""

    name: str
    start: int | None = None
    stop: int | None = None

    def of(self, array: Array) -> Array:
        """Features × boxes of an array of 1 × boxes × features, or the other way round: features are fewer."""
        rows = array[0] if array.shape[1] < array.shape[2] else array[0].T
        _inside(self.start or 0, len(rows) if self.stop is None else self.stop, len(rows), self.name)
        return np.asarray(rows[self.start : self.stop])


def parse(text: str) -> Suppression:
    """The feature that ``--nms`` asks for.

    Raises:
        UserError: it is not spelled so, or a number is out of its range.
    """
    given: dict[str, str] = {}
    for piece in text.split(","):
        key, equals, value = piece.partition("=")
        if not equals or key not in ("boxes", "scores", "iou", "score", "max", "format", "class") or key in given:
            raise UserError(f"--nms {text} has '{piece}', which is no part of it", _SPELLING)
        given[key] = value
    if not {"boxes", "scores"} <= given.keys():
        raise UserError(f"--nms {text} does not say boxes and scores", _SPELLING)
    iou, score = (_number(given.get(k, d), text) for k, d in (("iou", "0.45"), ("score", "0.25")))
    most = int(_number(given.get("max", "100"), text))
    if not 0.0 < iou <= 1.0 or most < 1:
        raise UserError(f"--nms {text} needs an iou above 0 and up to 1, and a max of 1 or more", _SPELLING)
    form = known("format of boxes", given.get("format", "corners"), ("corners", "center"))
    chosen = int(_number(given["class"], text)) if "class" in given else None
    return Suppression(
        _part(given["boxes"]),
        _part(given["scores"]),
        iou,
        score,
        most,
        form,  # type: ignore[arg-type]  # known() has checked it
        chosen,
    )


def _number(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"'{text}' in --nms {whole} is no number", _SPELLING) from None


def _part(text: str) -> Part:
    match = re.fullmatch(r"(.+)\[(\d*):(\d*)\]", text)
    if match is None:
        return Part(text)
    return Part(match[1], *(int(m) if m else None for m in match.groups()[1:]))


@dataclass(frozen=True, slots=True)
class Suppression(Feature):
    """Boxes and scores of one picture, suppressed.

    Attributes:
        iou: boxes that overlap a better one by more are dropped, whatever their class.
        score: boxes whose best score is not above it are dropped.
        most: how many boxes come out, rows of zeros behind those found.
        form: ``corners`` (x₁, y₁, x₂, y₂) or ``center`` (x, y, width, height), in and out.
        chosen: the only class whose score counts; all when None.
    """

    boxes: Part
    scores: Part
    iou: float = 0.45
    score: float = 0.25
    most: int = 100
    form: Literal["corners", "center"] = "corners"
    chosen: int | None = None

    def check(self, target: Target) -> None:
        if target.ios < 17:
            raise UserError(f"--nms needs iOS 17, and the package is for iOS {target.ios}", "--os ios17")

    def prepare(self, module: Module) -> None:
        main = module.main
        for part in (self.boxes, self.scores):
            output_index(main, part.name, "--nms")
        taken = sorted({*main.output_names, *(a.name for a in main.inputs)} & {*OUTPUTS} - self._used())
        if taken:
            raise UserError(f"the model has a '{taken[0]}', as --nms calls one of its outputs", "another name for it")

    def _used(self) -> set[str]:
        return {self.boxes.name, self.scores.name}

    def seal(self, module: Module) -> None:
        main = module.main
        end = main.block.terminator
        assert end is not None
        b = Builder(main.block, end)
        raw = dict(zip(main.output_names, main.outputs, strict=True))
        boxes = _rows(b, raw[self.boxes.name], self.boxes)
        scores = _rows(b, raw[self.scores.name], self.scores)
        if self.chosen is not None:
            scores = _stretch(b, scores, 1, self.chosen, self.chosen + 1, self.scores.name)
        count, classes = _dims(boxes)[2], _dims(scores)[1]
        _fit(_dims(boxes)[1:], _dims(scores)[1:])
        boxes, scores = (b.op("mil.identity", [v]).result if v in raw.values() else v for v in (boxes, scores))
        boxes.name, scores.name = _BOXES, _SCORES
        best = scores if classes == 1 else b.op("mil.reduce_max", [scores], {"axes": (1,), "keep_dims": True}).result
        most = min(self.most, count)
        center = boxes if self.form == "center" else _center(b, boxes)
        types = [TensorType(F32, (1, 4, most)), TensorType(F32, (1, 1, most)), TensorType(I32, (1, most))]
        iou = b.constant(np.float32(self.iou), "mil")
        made = b.op("mil.non_maximum_suppression", [center, best, iou], {"max_boxes": most}, types)
        index = made.results[2]
        zero = b.constant(np.int32(0), "mil")
        # Only the indices of the operator are used: what stands behind the last box is -1 there, and unsaid elsewhere.
        found = b.op("mil.greater_equal", [index, zero]).result
        flat = b.op("mil.squeeze", [b.op("mil.maximum", [index, zero]).result], {"axes": (0,)}).result
        score = b.op("mil.gather", [best, flat], {"axis": 2}).result
        above = b.op("mil.greater", [score, b.constant(np.float32(self.score), "mil")]).result
        good = b.op("mil.logical_and", [found, b.op("mil.squeeze", [above], {"axes": (1,)}).result]).result
        column = b.op("mil.expand_dims", [good], {"axes": (2,)}).result
        outputs = []
        for source in (boxes, scores):
            picked = b.op("mil.gather", [source, flat], {"axis": 2}).result
            turned = b.op("mil.transpose", [picked], {"perm": (0, 2, 1)}).result
            outputs.append(b.op("mil.select", [column, turned, b.constant(np.float32(0), "mil")]).result)
        outputs.append(b.op("mil.select", [good, index, b.constant(np.int32(-1), "mil")]).result)
        whole = b.op("mil.cast", [good], {"dtype": "int32"}).result
        outputs.append(b.op("mil.reduce_sum", [whole], {"axes": (1,), "keep_dims": False}).result)
        rest = [(n, v) for n, v in raw.items() if n not in self._used()]
        main.set_outputs([*outputs, *(v for _, v in rest)], [*OUTPUTS, *(n for n, _ in rest)])

    def package_outputs(self, outputs: Arrays) -> Arrays:
        boxes, scores = self._decoded(outputs)
        rest = {n: a for n, a in outputs.items() if n not in self._used()}
        return {**self._suppressed(boxes, scores), **rest}

    def _decoded(self, outputs: Arrays) -> tuple[Array, Array]:
        """4 × boxes and classes × boxes of the model's outputs."""
        for part in (self.boxes, self.scores):
            if outputs[part.name].ndim != 3 or len(outputs[part.name]) != 1:
                shape = " × ".join(map(str, outputs[part.name].shape))
                raise UserError(f"--nms needs '{part.name}' as 1 × boxes × numbers, and it is {shape}", _SPELLING)
        boxes, scores = (part.of(outputs[part.name]) for part in (self.boxes, self.scores))
        if self.chosen is not None:
            _inside(self.chosen, self.chosen + 1, len(scores), self.scores.name)
            scores = scores[self.chosen : self.chosen + 1]
        _fit(boxes.shape, scores.shape)
        return boxes, scores

    def _suppressed(self, boxes: Array, scores: Array) -> Arrays:
        """What the package should make of 4 × boxes and classes × boxes, by ONNX's operator."""
        if self.form == "corners":
            x1, y1, x2, y2 = boxes
            center = np.stack([x1 + (x2 - x1) / 2, y1 + (y2 - y1) / 2, x2 - x1, y2 - y1])
        else:
            center = boxes
        most = min(self.most, boxes.shape[1])
        feeds = {
            "boxes": np.ascontiguousarray(center.T[None], dtype=np.float32),
            "scores": np.ascontiguousarray(scores.max(0)[None, None], dtype=np.float32),
            "most": np.array([most], np.int64),
            "iou": np.array([self.iou], np.float32),
            "score": np.array([self.score], np.float32),
        }
        index = _onnx_nms().run(None, feeds)[0][:, 2]
        room = most - len(index)
        return {
            "coordinates": np.pad(boxes[:, index].T, ((0, room), (0, 0)))[None].astype(np.float32),
            "confidence": np.pad(scores[:, index].T, ((0, room), (0, 0)))[None].astype(np.float32),
            "index": np.pad(index, (0, room), constant_values=-1)[None].astype(np.int32),
            "count": np.array([len(index)], np.int32),
        }

    def compared(
        self,
        draft: Path,
        given: list[Arrays],
        ours: list[Arrays],
        wanted: list[Arrays],
        due: list[Arrays],
        library: Library,
    ) -> tuple[list[Arrays], list[Arrays]]:
        """What goes into suppression beside the original's, and what comes out beside what ONNX makes of that."""
        from compiler.proof import read_package, run_mil

        module = read_package(draft)
        named = {r.name: r for op in module.main.block.ops for r in op.results}
        fed = [list(one.values()) for one in given]
        raw = run_mil(module, fed, library, [named[_BOXES], named[_SCORES]])
        for mine, theirs, original, (boxes, scores) in zip(ours, wanted, due, raw, strict=True):
            mine.update({_BOXES: boxes, _SCORES: scores})
            right_boxes, right_scores = self._decoded(original)
            theirs.update(self._suppressed(boxes[0], scores[0]))
            theirs.update({_BOXES: right_boxes[None], _SCORES: right_scores[None]})
        return ours, wanted


@cache
def _onnx_nms() -> Any:
    """ONNX's NonMaxSuppression over centers and sizes, in onnxruntime."""
    import onnxruntime as ort
    from onnx import TensorProto, helper

    f, i = TensorProto.FLOAT, TensorProto.INT64
    inputs = [
        helper.make_tensor_value_info("boxes", f, [1, None, 4]),
        helper.make_tensor_value_info("scores", f, [1, 1, None]),
        helper.make_tensor_value_info("most", i, [1]),
        helper.make_tensor_value_info("iou", f, [1]),
        helper.make_tensor_value_info("score", f, [1]),
    ]
    node = helper.make_node("NonMaxSuppression", [one.name for one in inputs], ["found"], center_point_box=1)
    graph = helper.make_graph([node], "nms", inputs, [helper.make_tensor_value_info("found", i, [None, 3])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _dims(value: Value) -> tuple[int, ...]:
    assert isinstance(value.type, TensorType)
    return value.type.static_shape


def _rows(b: Builder, value: Value, part: Part) -> Value:
    """1 × features × boxes in f32.

    Raises:
        UserError: the output is no tensor of 1 × boxes × features, or has not that many features.
    """
    type_ = value.type
    fits = isinstance(type_, TensorType) and type_.is_static and type_.rank == 3 and type_.dtype.is_float
    if not isinstance(type_, TensorType) or not fits or type_.static_shape[0] != 1:
        raise UserError(f"--nms needs '{part.name}' as 1 × boxes × numbers, and it is a {type_}", _SPELLING)
    if type_.dtype is not F32:
        value = b.op("mil.cast", [value], {"dtype": "fp32"}).result
    if type_.static_shape[1] >= type_.static_shape[2]:
        value = b.op("mil.transpose", [value], {"perm": (0, 2, 1)}).result
    size = _dims(value)[1]
    whole = part.start is None and part.stop is None
    return (
        value if whole else _stretch(b, value, 1, part.start or 0, size if part.stop is None else part.stop, part.name)
    )


def _inside(start: int, stop: int, size: int, name: str) -> None:
    if not 0 <= start < stop <= size:
        raise UserError(f"--nms takes {start} to {stop} of '{name}', which has {size} numbers a box", _SPELLING)


def _fit(boxes: tuple[int, ...], scores: tuple[int, ...]) -> None:
    """Raises UserError unless numbers × boxes and classes × boxes go together."""
    if boxes[0] != 4 or boxes[1] != scores[1] or not scores[0]:
        raise UserError(
            f"--nms finds boxes of {boxes[0]} numbers × {boxes[1]} and scores of {scores[0]} × {scores[1]}",
            "outputs or stretches of outputs with 4 numbers a box, and as many scores as boxes",
        )


def _stretch(b: Builder, value: Value, axis: int, start: int, stop: int, name: str) -> Value:
    dims = _dims(value)
    _inside(start, stop, dims[axis], name)
    begin, end = [0] * len(dims), list(dims)
    begin[axis], end[axis] = start, stop
    ends = [b.constant(np.array(e, np.int32), "mil") for e in (begin, end)]
    return b.op("mil.slice_by_index", [value, *ends]).result


def _center(b: Builder, corners: Value) -> Value:
    """Centers and sizes of 1 × (x₁, y₁, x₂, y₂) × boxes."""
    low, high = (_stretch(b, corners, 1, i, i + 2, "boxes") for i in (0, 2))
    size = b.op("mil.sub", [high, low]).result
    half = b.op("mil.mul", [size, b.constant(np.float32(0.5), "mil")]).result
    middle = b.op("mil.add", [low, half]).result
    return b.op("mil.concat", [middle, size], {"axis": 1}).result
