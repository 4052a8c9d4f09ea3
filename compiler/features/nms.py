"""``--nms boxes=NAME,scores=NAME[,iou=…,score=…,max=…]``: decoded boxes through Core ML's own non-maximum suppression.

The proof has two halves, as suppression turns the least difference of two scores into another choice. Boxes and scores
on the way into it, probed in the package, must be those of the original model; and what comes out must be what ONNX's
NonMaxSuppression, in onnxruntime, makes of just these boxes and scores.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from compiler.errors import UserError
from compiler.features import nms_program as program
from compiler.features.base import Array, Arrays, Draft, Feature, Sets, output_index
from compiler.ir import F32, I32, Builder, Module, TensorType
from compiler.target import known

if TYPE_CHECKING:
    from compiler.target import Target

OUTPUTS = ("coordinates", "confidence", "index", "count")

#: Values of the package that the proof looks at, by name.
_BOXES, _SCORES = "nms_boxes", "nms_scores"


def parse(text: str) -> Suppression:
    """The feature that ``--nms`` asks for.

    Raises:
        UserError: it is not spelled so, or a number is out of its range.
    """
    given: dict[str, str] = {}
    for piece in text.split(","):
        key, equals, value = piece.partition("=")
        if not equals or key not in ("boxes", "scores", "iou", "score", "max", "format", "class") or key in given:
            raise UserError(f"--nms {text} has '{piece}', which is no part of it", program.SPELLING)
        given[key] = value
    if not {"boxes", "scores"} <= given.keys():
        raise UserError(f"--nms {text} does not say boxes and scores", program.SPELLING)
    iou, score = (_number(given.get(k, d), text) for k, d in (("iou", "0.45"), ("score", "0.25")))
    most = _whole(given.get("max", "100"), text)
    if not 0.0 < iou <= 1.0 or most < 1:
        raise UserError(f"--nms {text} needs an iou above 0 and up to 1, and a max of 1 or more", program.SPELLING)
    form = known("format of boxes", given.get("format", "corners"), ("corners", "center"))
    chosen = _whole(given["class"], text) if "class" in given else None
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
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"'{text}' in --nms {whole} is no number", program.SPELLING)
    return number


def _whole(text: str, whole: str) -> int:
    if not re.fullmatch(r"\d+", text):
        raise UserError(f"'{text}' in --nms {whole} is no whole number", program.SPELLING)
    return int(text)


def _part(text: str) -> program.Part:
    match = re.fullmatch(r"(.+)\[(\d*):(\d*)\]", text)
    if match is None:
        return program.Part(text)
    return program.Part(match[1], *(int(m) if m else None for m in match.groups()[1:]))


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

    boxes: program.Part
    scores: program.Part
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
        boxes = program.rows(b, raw[self.boxes.name], self.boxes)
        scores = program.rows(b, raw[self.scores.name], self.scores)
        if self.chosen is not None:
            scores = program.stretch(b, scores, 1, self.chosen, self.chosen + 1, self.scores.name)
        count, classes = program.dims(boxes)[2], program.dims(scores)[1]
        program.fit(program.dims(boxes)[1:], program.dims(scores)[1:])
        boxes, scores = (b.op("mil.identity", [v]).result if v in raw.values() else v for v in (boxes, scores))
        boxes.name, scores.name = _BOXES, _SCORES
        best = scores if classes == 1 else b.op("mil.reduce_max", [scores], {"axes": (1,), "keep_dims": True}).result
        most = min(self.most, count)
        center = boxes if self.form == "center" else program.center(b, boxes)
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
                raise UserError(
                    f"--nms needs '{part.name}' as 1 × boxes × numbers, and it is {shape}", program.SPELLING
                )
        boxes, scores = (part.of(outputs[part.name]) for part in (self.boxes, self.scores))
        if self.chosen is not None:
            program.inside(self.chosen, self.chosen + 1, len(scores), self.scores.name)
            scores = scores[self.chosen : self.chosen + 1]
        program.fit(boxes.shape, scores.shape)
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

    def compared(self, ours: Sets, wanted: Sets, proof: Draft) -> tuple[Sets, Sets]:
        """What goes into suppression beside the original's, and what comes out beside what ONNX makes of that."""
        from compiler.proof import read_package, run_mil

        module = read_package(proof.package)
        named = {r.name: r for op in module.main.block.ops for r in op.results}
        fed = [list(one.values()) for one in proof.given]
        raw = run_mil(module, fed, proof.library, [named[_BOXES], named[_SCORES]])
        for mine, theirs, original, (boxes, scores) in zip(ours, wanted, proof.due, raw, strict=True):
            mine.update({_BOXES: boxes, _SCORES: scores})
            right_boxes, right_scores = self._decoded(original)
            theirs.update(proof.finish(self._suppressed(boxes[0], scores[0])))
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
