"""``--image NAME[:rgb|bgr|gray][:scale=…][:mean=…][:std=…]``: an input that takes pictures, an output that gives them.

A model that was trained on ``(pixel · scale − mean) / std`` gets that from pixels of 0 to 255, by operators in front
that fusion folds into the first convolution where that is exact (rules conv_scaled_input and conv_shifted_input). An
output is turned back: ``(y · std + mean) / scale``, cut to 0 … 255.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.errors import UserError
from compiler.features.base import Array, Arrays, Feature, Run
from compiler.ir import F32, Builder, Module, TensorType, Value, suggest

#: How ``--image`` names the colour spaces of Core ML's ImageFeatureType, and how many planes each has.
COLORS = {"rgb": ("RGB", 3), "bgr": ("BGR", 3), "gray": ("GRAYSCALE", 1)}

_SPELLING = "NAME[:rgb|bgr|gray][:scale=1/255][:mean=a,b,c][:std=a,b,c]"


def parse(text: str) -> Image:
    """The feature that one ``--image`` asks for. A name may hold colons.

    Raises:
        UserError: it is not spelled so, or a number is none.
    """
    parts = text.split(":")
    color = ""
    numbers: dict[str, tuple[float, ...]] = {"scale": (1.0,), "mean": (0.0,), "std": (1.0,)}
    while len(parts) > 1:
        key, equals, value = parts[-1].partition("=")
        if equals and key in numbers:
            numbers[key] = _numbers(value, text)
        elif not equals and key in COLORS and not color:
            color = key
        elif equals or key.lower() in ("grey", "rgba", "bgra", "grayscale"):
            raise UserError(f"--image {text} has '{parts[-1]}', which is no part of it", f"--image {_SPELLING}")
        else:
            break
        parts.pop()
    name = ":".join(parts)
    if not name:
        raise UserError(f"--image {text} does not say which input or output it is for", f"--image {_SPELLING}")
    if len(numbers["scale"]) != 1 or 0.0 in (*numbers["scale"], *numbers["std"]):
        raise UserError(f"--image {text} needs one scale, and neither scale nor std may be 0", f"--image {_SPELLING}")
    return Image(name, color, numbers["scale"][0], numbers["mean"], numbers["std"])


def _numbers(text: str, whole: str) -> tuple[float, ...]:
    try:
        out = []
        for part in text.split(","):
            over, slash, under = part.partition("/")
            out.append(float(over) / float(under) if slash else float(part))
        if not all(map(math.isfinite, out)):
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise UserError(f"'{text}' in --image {whole} is no number", f"--image {_SPELLING}") from None
    return tuple(out)


@dataclass(slots=True)
class Image(Feature):
    """One input or output as pictures.

    Attributes:
        name: of the input or output.
        color: a key of :data:`COLORS`; what the model's planes are; empty for rgb or gray, as there are three or one.
        scale, mean, std: see the module; one number, or one for each plane.
    """

    name: str
    color: str = ""
    scale: float = 1.0
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    _last: bool = False  # the model has its planes last
    _is_input: bool = True
    _dtype: str = "float32"

    def prepare(self, module: Module) -> None:
        main = module.main
        inputs = [a.name for a in main.inputs]
        if self.name in inputs:
            self._input(module, inputs.index(self.name))
        elif self.name in main.output_names:
            self._output(module, list(main.output_names).index(self.name))
        else:
            names = [*inputs, *main.output_names]
            near = suggest(self.name, names)
            raise UserError(
                f"--image names '{self.name}', which is no input or output{near}", f"one of {', '.join(names)}"
            )

    def _planes(self, type_: object) -> tuple[TensorType, int]:
        """The type of the value with planes in front of height and width, and how many there are."""
        shape = type_.shape if isinstance(type_, TensorType) else None
        counts = (1, 3) if not self.color else (COLORS[self.color][1],)
        spelled = ", ".join(map(str, shape if shape is not None else ("?",)))
        if not isinstance(type_, TensorType) or shape is None or len(shape) != 4 or shape[0] != 1:
            raise UserError(
                f"'{self.name}' has shape ({spelled}), and an image is 1 × planes × height × width, or planes last",
                f"--shape {self.name}=1,3,224,224 if its sizes are open",
            )
        if shape[1] in counts:
            self._last = False
        elif shape[3] in counts:
            self._last = True
        else:
            planes = " or ".join(map(str, counts))
            raise UserError(
                f"'{self.name}' has shape ({spelled}), which has no axis of {planes} planes",
                f"--image {self.name}:rgb for three planes, :gray for one",
            )
        count = shape[3] if self._last else shape[1]
        assert isinstance(count, int)
        self.color = self.color or ("gray" if count == 1 else "rgb")
        for what, given in (("mean", self.mean), ("std", self.std)):
            if len(given) not in (1, count):
                raise UserError(
                    f"--image {self.name} gives {len(given)} numbers as {what}, and there are {count} planes",
                    "one for each",
                )
        self._dtype = type_.dtype.numpy.name
        return type_.with_shape((1, count, shape[1], shape[2]) if self._last else shape).with_dtype(F32), count

    def _affine(self) -> tuple[Array, Array]:
        """Factor and summand by plane, in f64: pixel · factor + summand is what the model takes."""
        mean, std = np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64)
        factor, summand = np.broadcast_arrays(self.scale / std, -mean / std)
        return factor.reshape(1, -1, 1, 1), summand.reshape(1, -1, 1, 1)

    def _input(self, module: Module, index: int) -> None:
        argument = module.main.inputs[index]
        declared = argument.type
        wanted, _ = self._planes(declared)
        assert isinstance(declared, TensorType)
        users = list(argument.users)
        argument.type = wanted
        b = Builder(module.main.block, module.main.block.first)
        factor, summand = self._affine()
        x: Value = argument
        if np.any(factor != 1.0):
            x = b.op("onnx.Mul", [x, b.constant(factor.astype(np.float32), "onnx")]).result
        if np.any(summand != 0.0):
            x = b.op("onnx.Add", [x, b.constant(summand.astype(np.float32), "onnx")]).result
        if declared.dtype is not F32:
            x = b.op("onnx.Cast", [x], {"to": declared.dtype}).result
        if self._last:
            x = b.op("onnx.Transpose", [x], {"perm": (0, 2, 3, 1)}).result
        if x is not argument:
            for user in users:
                user.operands = tuple(x if v is argument else v for v in user.operands)
        self._declare(module, index, wanted)

    def _declare(self, module: Module, index: int, type_: TensorType) -> None:
        main = module.main
        main.attributes[f"image.{self.name}"] = COLORS[self.color][0]
        if not self._last:
            return
        # What was said of the shapes has the planes last.
        for what in ("range", "shapes"):
            said = main.attributes.get(f"{what}.{self.name}")
            if said is not None:
                turned = [said] if what == "range" else list(said)
                turned = [(s[0], s[3], s[1], s[2]) for s in turned]
                main.attributes[f"{what}.{self.name}"] = turned[0] if what == "range" else tuple(turned)

    def _output(self, module: Module, index: int) -> None:
        main = module.main
        value = main.outputs[index]
        self._is_input = False
        self._planes(value.type)
        end = main.block.terminator
        assert end is not None
        b = Builder(main.block, end)
        factor, summand = self._affine()
        y: Value = value
        if isinstance(value.type, TensorType) and value.type.dtype is not F32:
            y = b.op("onnx.Cast", [y], {"to": F32}).result
        if self._last:
            y = b.op("onnx.Transpose", [y], {"perm": (0, 3, 1, 2)}).result
        if np.any(factor != 1.0):
            y = b.op("onnx.Mul", [y, b.constant((1.0 / factor).astype(np.float32), "onnx")]).result
        if np.any(summand != 0.0):
            y = b.op("onnx.Add", [y, b.constant((-summand / factor).astype(np.float32), "onnx")]).result
        low, high = (b.constant(np.float32(v), "onnx") for v in (0, 255))
        y = b.op("onnx.Clip", [y, low, high]).result
        end.operands = tuple(y if i == index else v for i, v in enumerate(end.operands))
        main.attributes[f"image.{self.name}"] = COLORS[self.color][0]

    # What it does to values

    def draw(self, sets: list[Arrays], run: Run) -> list[Arrays]:
        if self._is_input:
            for one in sets:
                one[self.name] = _picture(one[self.name])
        return sets

    def to_model(self, inputs: Arrays) -> Arrays:
        if not self._is_input:
            return inputs
        planes = inputs[self.name].astype(np.float64)
        mean, std = (np.asarray(v, np.float64).reshape(1, -1, 1, 1) for v in (self.mean, self.std))
        value = (planes * self.scale - mean) / std
        value = value.transpose(0, 2, 3, 1) if self._last else value
        return {**inputs, self.name: value.astype(self._dtype)}

    def from_model(self, outputs: Arrays) -> Arrays:
        if self._is_input:
            return outputs
        value = outputs[self.name].astype(np.float64)
        value = value.transpose(0, 3, 1, 2) if self._last else value
        mean, std = (np.asarray(v, np.float64).reshape(1, -1, 1, 1) for v in (self.mean, self.std))
        pixels = np.clip((value * std + mean) / self.scale, 0.0, 255.0)
        return {**outputs, self.name: pixels.astype(np.float32)}


def _picture(array: Array) -> Array:
    """Made-up numbers as pixels: whole, from 0 to 255."""
    low, high = float(array.min(initial=0.0)), float(array.max(initial=1.0))
    return np.rint((array - low) / (high - low) * 255.0).astype(np.float32)
