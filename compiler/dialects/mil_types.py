"""Types that only Core ML has."""

from __future__ import annotations

from typing import ClassVar

from compiler.ir.types import Type


class DictType(Type):
    """``dict<tensor<string>, tensor<f32>>``: what ``mil.classify`` gives for its probabilities; interned."""

    __slots__ = ("key", "value")
    _interned: ClassVar[dict[tuple[Type, Type], DictType]] = {}
    key: Type
    value: Type

    def __new__(cls, key: Type, value: Type) -> DictType:
        self = cls._interned.get((key, value))
        if self is None:
            self = object.__new__(cls)
            self.key = key
            self.value = value
            cls._interned[key, value] = self
        return self

    def __repr__(self) -> str:
        return f"dict<{self.key}, {self.value}>"

    def __reduce__(self) -> tuple[type[DictType], tuple[Type, Type]]:
        return (DictType, (self.key, self.value))
