"""Why Core ML cannot compute an operator that no rule lowers: sentences for the person whose model has it."""

from __future__ import annotations

from compiler.ir import STRING, DType, Op, SequenceType, TensorType, Value, element_dtype

_SEQUENCES = "Core ML has no sequences of tensors that a model could hold or give"
_RANDOM = "what it gives is random, so that nothing could be proven about a package"
_TEXT = "Core ML computes with numbers, not with text"

#: By operator, where it is the operator itself that Core ML cannot do.
REASONS: dict[str, str] = {
    "msft.DynamicQuantizeLSTM": (
        "Core ML's LSTM computes with floats where this one rounds its input and state to 8 bits at every step, which "
        "is further off than fp32 allows; --precision fp16 takes it, if its weights are constants"
    ),
    "onnx.Det": "Core ML has no determinants",
    "onnx.Unique": "how many different elements there are is only known at run time, and Core ML cannot sort them out",
    "onnx.BitCast": "Core ML cannot look at the bits of a number as another type",
    "onnx.ImageDecoder": "Core ML cannot decode image files inside a model",
    "onnx.DeformConv": "Core ML has no deformable convolution",
    "onnx.MaxUnpool": "Core ML has no unpooling",
    "onnx.MaxRoiPool": "Core ML has no pooling over regions of any size",
    "onnx.TfIdfVectorizer": _TEXT,
    **dict.fromkeys(
        ("onnx.StringNormalizer", "onnx.StringSplit", "onnx.StringConcat", "onnx.RegexFullMatch"), _TEXT
    ),
    **dict.fromkeys(
        (
            "onnx.SequenceConstruct", "onnx.SequenceEmpty", "onnx.SequenceInsert", "onnx.SequenceErase",
            "onnx.SequenceAt", "onnx.SequenceLength", "onnx.SequenceMap", "onnx.SplitToSequence",
            "onnx.ConcatFromSequence",
        ),
        _SEQUENCES,
    ),
    **dict.fromkeys(
        ("onnx.Optional", "onnx.OptionalHasElement", "onnx.OptionalGetElement"), "Core ML has no optional values"
    ),
    **dict.fromkeys(
        (
            "onnx.RandomNormal", "onnx.RandomNormalLike", "onnx.RandomUniform", "onnx.RandomUniformLike",
            "onnx.Multinomial", "onnx.Bernoulli",
        ),
        _RANDOM,
    ),
}  # fmt: skip

#: The highest rank that Core ML's tensors have.
_MOST_AXES = 5


def reason(op: Op) -> str | None:
    """Why Core ML cannot compute ``op``, an onnx operator without a lowering, in one sentence without a full stop.

    Returns:
        None where nothing is known against it: a rule may just be missing.
    """
    known = REASONS.get(op.name.partition("@")[0])
    if known is not None:
        return known
    values: list[Value] = [v for v in (*op.operands, *op.results) if v is not None]
    if any(isinstance(v.type, SequenceType) for v in values):
        return _SEQUENCES
    dtypes = {element_dtype(v.type) for v in values}
    if STRING in dtypes:
        return _TEXT
    if odd := next((d for d in dtypes if _is_foreign(d)), None):
        return f"Core ML cannot round to {odd}"
    for v in values:
        shape = v.type.shape if isinstance(v.type, TensorType) else None
        if shape is not None and len(shape) > _MOST_AXES:
            return f"a tensor here has rank {len(shape)}, and Core ML's have at most {_MOST_AXES} axes"
        # An empty constant stands for an operand that is left out, as the region of a Resize.
        if shape is not None and 0 in shape and v.constant is None:
            return f"a tensor here has no elements ({' × '.join(map(str, shape))}), and Core ML has no empty tensors"
    if any(isinstance(v.type, TensorType) and v.type.shape is None for v in values):
        return "the rank of a tensor here is only known at run time"
    return None


def _is_foreign(dtype: DType) -> bool:
    return dtype.kind == "complex" or (dtype.is_float and dtype.bits <= 8)
