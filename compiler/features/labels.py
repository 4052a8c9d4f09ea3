"""``--labels FILE``: a model that scores classes becomes a classifier, which gives a label and the score of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from compiler.dialects.mil_types import DictType
from compiler.errors import UserError
from compiler.features.base import Arrays, Feature, output_index
from compiler.ir import F32, STRING, Module, Op, TensorType, Value, dtype
from compiler.proof import LIMITS

#: What coremltools calls the outputs of a classifier.
LABEL, SCORES = OUTPUTS = ("classLabel", "classLabel_probs")


def parse(text: str) -> Labels:
    """The feature that ``--labels FILE`` or ``FILE:OUTPUT`` asks for; the file has a label a line.

    Raises:
        UserError: the file cannot be read, is empty, or has a label twice.
    """
    path, output = text, ""
    if not Path(text).is_file():
        # The output may hold colons, and so may the file.
        cuts = [i for i, c in enumerate(text) if c == ":"]
        cut = next((i for i in cuts if Path(text[:i]).is_file()), None)
        if cut is None:
            raise UserError(f"there is no file of labels at '{text}'", "--labels FILE or FILE:OUTPUT, one label a line")
        path, output = text[:cut], text[cut + 1 :]
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"cannot read the labels {path}: {e}", "a text file in UTF-8, one label a line") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise UserError(f"{path} has no labels", "one label a line")
    seen: dict[str, int] = {}
    for i, line in enumerate(lines, 1):
        if line in seen:
            raise UserError(
                f"{path} has the label '{line}' in lines {seen[line]} and {i}", "a label of its own for each"
            )
        seen[line] = i
    return Labels(lines, output)


@dataclass(slots=True)
class Labels(Feature):
    """Labels for the elements of one output.

    Attributes:
        labels: in the order of the scores.
        output: whose scores; empty for the only one that has as many elements as there are labels.
    """

    labels: Sequence[str]
    output: str = ""

    def prepare(self, module: Module) -> None:
        main = module.main
        sizes = {}
        for name, value in zip(main.output_names, main.outputs, strict=True):
            type_ = value.type
            if isinstance(type_, TensorType) and type_.dtype.is_float and type_.shape is not None:
                # Types that are not inferred to the end yet: what is open counts as one row.
                sizes[name] = int(np.prod([d if isinstance(d, int) else 1 for d in type_.shape], dtype=np.int64))
        if self.output:
            output_index(main, self.output, "--labels")
            if self.output not in sizes:
                raise UserError(f"output '{self.output}' has no scores: it is no tensor of floats", "another output")
            fitting = [self.output] if sizes[self.output] == len(self.labels) else []
        else:
            fitting = [n for n, size in sizes.items() if size == len(self.labels)]
        if len(fitting) != 1:
            have = ", ".join(f"'{n}' has {size}" for n, size in sizes.items()) or "there is none of floats"
            many = "several outputs have" if fitting else "no output has"
            raise UserError(
                f"there are {len(self.labels)} labels, and {many} as many scores ({have})", "--labels FILE:OUTPUT"
            )
        self.output = fitting[0]
        taken = {*main.output_names, *(a.name for a in main.inputs)} & {LABEL, SCORES}
        if taken:
            raise UserError(
                f"the model has a '{taken.pop()}' already, as a classifier calls its outputs", "--rename it"
            )

    def _refuse(self, what: str) -> NoReturn:
        raise UserError(f"output '{self.output}' is {what}; a classifier needs one row of scores", "--shape …=1,…")

    def package_outputs(self, outputs: Arrays) -> Arrays:
        """The label: any whose score comes as near to the best as the proof lets scores be off."""
        scores = outputs[self.output].reshape(-1).astype(np.float64)
        if scores.size != len(self.labels):
            self._refuse(" × ".join(map(str, outputs[self.output].shape)))
        near = scores >= scores.max() - LIMITS["fp16"] * np.linalg.norm(scores)
        label = np.array(self.labels)[near]
        rest = {n: a for n, a in outputs.items() if n != self.output}
        return {LABEL: label, SCORES: outputs[self.output].reshape(-1), **rest}

    def seal(self, module: Module) -> None:
        main = module.main
        index = output_index(main, self.output, "--labels")
        scores: Value = main.outputs[index]
        end = main.block.terminator
        assert end is not None
        type_ = scores.type
        if not isinstance(type_, TensorType) or not type_.is_static or type_.size != len(self.labels):
            self._refuse(f"a {type_}")
        if type_.dtype is not F32:
            cast = Op("mil.cast", [scores], [type_.with_dtype(F32)], {"dtype": "fp32"})
            main.block.insert_before(end, cast)
            scores = cast.result
        text = TensorType(STRING, ())
        types = [text, DictType(text, TensorType(dtype("f64"), ()))]
        op = Op("mil.classify", [scores], types, {"classes": tuple(self.labels)})
        main.block.insert_before(end, op)
        pairs = [(n, v) for n, v in zip(main.output_names, main.outputs, strict=True) if n != self.output]
        main.set_outputs([*op.results, *(v for _, v in pairs)], [LABEL, SCORES, *(n for n, _ in pairs)])
