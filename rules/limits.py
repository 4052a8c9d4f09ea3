"""Why Core ML cannot compute an operator that no rule lowers: sentences for the person whose model has it."""

from __future__ import annotations

from compiler.ir import BOOL, STRING, DType, Op, OptionalType, SequenceType, TensorType, Value, element_dtype

_SEQUENCES = "Core ML has no sequences of tensors that a model could hold or give"
_OPTIONALS = "Core ML has no optional values"
_RANDOM = "what it gives is random, so that nothing could be proven about a package"
_DIFFERENT = "how many different elements there are is only known at run time, and Core ML cannot sort them out"
_TEXT = "Core ML computes with numbers, not with text"

_BEFORE = "its work done by the app, before the model"

#: By operator, where it is the operator itself that Core ML cannot do: why, and what to try.
REASONS: dict[str, tuple[str, str]] = {
    "msft.DynamicQuantizeLSTM": (
        "Core ML's LSTM computes with floats where this one rounds its input and state to 8 bits at every step, by the "
        "range of as many rows as a thread of onnxruntime gets, which is known for one row only",
        "a batch of 1, or --precision fp16, with weights that are constants",
    ),
    "onnx.Det": (
        "Core ML has no determinants, and rules write out those of one to three rows only",
        "a model that does without, or a rule of your own in a file given with --rules",
    ),
    "msft.Inverse": ("Core ML has no matrix inverses", "the inverse computed when the model is made, as a constant"),
    "msft.Unique": (_DIFFERENT, "its work done by the app"),
    **dict.fromkeys(
        ("msft.BeamSearch", "msft.GreedySearch", "msft.Sampling", "msft.WhisperBeamSearch"),
        (
            "it runs a model that it holds until a text ends, and Core ML calls no models",
            "the decoder alone, with its loop in the app (--state keeps the cache)",
        ),
    ),
    **dict.fromkeys(("msft.Tokenizer", "msft.WordConvEmbedding"), (_TEXT, _BEFORE)),
    "onnx.Unique": (_DIFFERENT, "its work done by the app"),
    "onnx.BitCast": ("Core ML cannot look at the bits of a number as another type", "a Cast, if the value is meant"),
    "onnx.ImageDecoder": ("Core ML cannot decode image files inside a model", "an image input (--image)"),
    "onnx.DeformConv": ("Core ML has no deformable convolution", "a model with GridSample and Conv in its place"),
    "onnx.MaxRoiPool": ("Core ML has no pooling over regions of any size", "a crop, Resize and MaxPool in its place"),
    "onnx.TfIdfVectorizer": (_TEXT, _BEFORE),
    **dict.fromkeys(
        ("onnx.StringNormalizer", "onnx.StringSplit", "onnx.StringConcat", "onnx.RegexFullMatch"), (_TEXT, _BEFORE)
    ),
    **dict.fromkeys(
        (
            "onnx.SequenceConstruct", "onnx.SequenceEmpty", "onnx.SequenceInsert", "onnx.SequenceErase",
            "onnx.SequenceAt", "onnx.SequenceLength", "onnx.SequenceMap", "onnx.SplitToSequence",
            "onnx.ConcatFromSequence",
        ),
        (_SEQUENCES, "tensors in place of the sequence: Split, Concat, or a Loop with scan outputs"),
    ),
    **dict.fromkeys(
        ("onnx.Optional", "onnx.OptionalHasElement", "onnx.OptionalGetElement"),
        (_OPTIONALS, "a model for each case"),
    ),
    **dict.fromkeys(
        (
            "onnx.RandomNormal", "onnx.RandomNormalLike", "onnx.RandomUniform", "onnx.RandomUniformLike",
            "onnx.Multinomial", "onnx.Bernoulli",
        ),
        (_RANDOM, "the random numbers as an input of the model"),
    ),
}  # fmt: skip

#: The highest rank that Core ML's tensors have.
_MOST_AXES = 5


def reason(op: Op) -> tuple[str, str] | None:
    """Why Core ML cannot compute ``op``, an onnx operator without a lowering, and what to try.

    Returns:
        None where nothing is known against it: the rules know better, or one is missing.
    """
    known = REASONS.get(op.name.partition("@")[0])
    if known is not None:
        return known
    values: list[Value] = [v for v in (*op.operands, *op.results) if v is not None]
    if any(isinstance(v.type, SequenceType) for v in values):
        return REASONS["onnx.SequenceAt"]
    if any(isinstance(v.type, OptionalType) for v in values):
        return REASONS["onnx.Optional"]
    dtypes = {element_dtype(v.type) for v in values}
    if STRING in dtypes:
        return _TEXT, _BEFORE
    if odd := next((d for d in dtypes if _is_foreign(d)), None):
        return (
            f"Core ML cannot round to {odd} at run time",
            "a model that computes in f16 or f32 there; weights may be stored as they are",
        )
    if odd := next(
        (d for v in op.results if (d := element_dtype(v.type)) is not None and d.bits < 8 and d is not BOOL), None
    ):
        return (
            f"Core ML cannot pack numbers into {odd} at run time",
            "a model that gives i8 or wider; weights may be packed",
        )
    for v in values:
        shape = v.type.shape if isinstance(v.type, TensorType) else None
        if shape is not None and len(shape) > _MOST_AXES:
            return (
                f"a tensor here has rank {len(shape)}, and Core ML's have at most {_MOST_AXES} axes",
                "a Reshape before it that joins axes which it treats alike",
            )
        if shape is not None and 0 in shape and v.constant is None:  # an empty constant says what is left out
            dims = " × ".join(map(str, shape))
            return (
                f"a tensor here has no elements ({dims}), and Core ML has no empty tensors",
                "a model, or shapes given with --shape, in which it is not empty",
            )
    if any(isinstance(v.type, TensorType) and v.type.shape is None for v in values):
        return (
            "the rank of a tensor here is only known at run time, and Core ML's tensors have a fixed one",
            "constants for what the rank depends on (axes, the shape of a Reshape, the condition of an If)",
        )
    return None


def _is_foreign(dtype: DType) -> bool:
    return dtype.kind == "complex" or (dtype.is_float and dtype.bits <= 8)
