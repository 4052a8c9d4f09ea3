"""Types of values: tensors with named symbolic dimensions, sequences, optionals and state.

Types are interned: two equal types are one object, so ``is`` compares them and a dict finds them in constant time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, cast

from compiler.ir.dtypes import DType
from compiler.ir.spelling import spell_dim

#: A dimension: a known size, a name that stands for one unknown size wherever it appears, or ``"?"``, of which nothing
#: is known (two ``"?"`` need not be equal).
Dim = int | str
UNKNOWN = "?"


class Type:
    """Base of all types. Subclasses are interned and immutable."""

    __slots__ = ()


class TensorType(Type):
    """``tensor<2x3xf32>``; ``shape`` is None for a tensor of unknown rank, ``tensor<*xf32>``.

    Attributes:
        is_static: whether every dimension is a number.
    """

    __slots__ = ("dtype", "is_static", "shape")
    _interned: ClassVar[dict[tuple[DType, tuple[Dim, ...] | None], TensorType]] = {}
    dtype: DType
    shape: tuple[Dim, ...] | None
    is_static: bool

    def __new__(cls, dtype: DType, shape: Iterable[Dim] | None) -> TensorType:
        dims = None if shape is None else tuple(shape)
        key = (dtype, dims)
        self = cls._interned.get(key)
        if self is None:
            self = object.__new__(cls)
            object.__setattr__(self, "dtype", dtype)
            object.__setattr__(self, "shape", dims)
            object.__setattr__(self, "is_static", dims is not None and all(type(d) is int for d in dims))
            cls._interned[key] = self
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("types are immutable")

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape, all of it known.

        Raises:
            ValueError: the rank or a dimension is not known.
        """
        if not self.is_static:
            raise ValueError(f"{self} has unknown dimensions")
        return cast("tuple[int, ...]", self.shape)

    @property
    def size(self) -> int | None:
        """The number of elements, or None if a dimension is not known."""
        if not self.is_static:
            return None
        n = 1
        for d in cast("tuple[int, ...]", self.shape):
            n *= d
        return n

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def with_shape(self, shape: Iterable[Dim] | None) -> TensorType:
        return TensorType(self.dtype, shape)

    def __repr__(self) -> str:
        if self.shape is None:
            return f"tensor<*x{self.dtype}>"
        out = "tensor<"
        for d in self.shape:
            # A name would run into the "x" that follows; a space keeps "batch x 3" apart.
            out += f"{d}x" if type(d) is int or d == UNKNOWN else f"{spell_dim(str(d))} x "
        return f"{out}{self.dtype}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (TensorType, (self.dtype, self.shape))


class _ContainerType(Type):
    """A type that wraps one element type, interned per class."""

    __slots__ = ("element",)
    element: Type
    _interned: ClassVar[dict[tuple[type, Type], _ContainerType]] = {}
    _keyword: ClassVar[str] = ""

    def __new__(cls, element: Type) -> Any:
        key = (cls, element)
        self = _ContainerType._interned.get(key)
        if self is None:
            self = object.__new__(cls)
            self.element = element
            _ContainerType._interned[key] = self
        return self

    def __repr__(self) -> str:
        return f"{self._keyword}<{self.element}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.element,))


class SequenceType(_ContainerType):
    """``sequence<tensor<3xf32>>``: ONNX's sequence and MIL's list."""

    __slots__ = ()
    _keyword = "sequence"


class OptionalType(_ContainerType):
    """``optional<tensor<3xf32>>``: ONNX's optional."""

    __slots__ = ()
    _keyword = "optional"


class StateType(_ContainerType):
    """``state<tensor<3xf16>>``: a Core ML state buffer (iOS 18)."""

    __slots__ = ()
    _keyword = "state"


def element_dtype(type_: Type) -> DType:
    """The element type of a tensor, or of the tensors that a container holds."""
    while isinstance(type_, _ContainerType):
        type_ = type_.element
    return cast(TensorType, type_).dtype


def dim_meet(a: Dim, b: Dim) -> Dim | None:
    """What is known of a dimension of which both ``a`` and ``b`` are true; None if they contradict each other."""
    if a == b or b == UNKNOWN:
        return a
    if a == UNKNOWN:
        return b
    if type(a) is int:
        return a if type(b) is str else None
    return b if type(b) is int else a


def shape_meet(a: Sequence[Dim] | None, b: Sequence[Dim] | None) -> tuple[tuple[Dim, ...] | None, bool]:
    """The most that two true descriptions of one shape say together, and whether they agree."""
    if a is None or b is None:
        known = b if a is None else a
        return (None if known is None else tuple(known)), True
    if len(a) != len(b):
        return None, False
    out: list[Dim] = []
    for x, y in zip(a, b, strict=True):
        d = dim_meet(x, y)
        if d is None:
            return None, False
        out.append(d)
    return tuple(out), True


def type_meet(a: Type, b: Type) -> Type | None:
    """The more specific of two compatible types, or None if no value can have both.

    Named dimensions and sizes meet in the size; two different names meet in the first.
    """
    if a is b:
        return a
    if isinstance(a, TensorType) and isinstance(b, TensorType):
        if a.dtype is not b.dtype:
            return None
        shape, agree = shape_meet(a.shape, b.shape)
        return TensorType(a.dtype, shape) if agree else None
    if isinstance(a, _ContainerType) and isinstance(b, _ContainerType) and type(a) is type(b):
        element = type_meet(a.element, b.element)
        return None if element is None else type(a)(element)
    return None
