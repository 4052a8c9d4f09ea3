"""How names and literals are spelled in the textual IR, so that reading them gives back the same bits.

Everything here is exact: a float is written with the fewest digits that read back to it, and what no number spells (a
NaN with a payload, a complex number) is written as bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from compiler.ir.dtypes import DType, from_numpy

Array = np.ndarray[Any, Any]

_BARE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KEYWORDS = frozenset({"func", "module", "return", "_"})

#: A constant that the text leaves out is written as a string of this form; its blob table holds the array.
BLOB_REFERENCE = re.compile(r"sha256:[0-9a-f]{16}\Z")


_LARGEST_SINGLE = float(np.finfo(np.float32).max)


def quote(text: str) -> str:
    """``text`` as a JSON string; what does not print (line separators, lone surrogates) is escaped."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def spell_name(name: str) -> str:
    """The name of a value or symbol after its sigil: bare if it can be, quoted if not."""
    return name if _BARE_NAME.match(name) and name != "_" else quote(name)


def spell_key(name: str) -> str:
    """The name of an attribute."""
    return name if _IDENTIFIER.match(name) and name not in _KEYWORDS else quote(name)


def spell_dim(name: str) -> str:
    """The name of a symbolic dimension."""
    return name if _IDENTIFIER.match(name) else quote(name)


def spell_float(value: float) -> str:
    """The shortest spelling of a float.

    A value that single precision holds is often far shorter there: ``1e-05f`` is the double nearest to the single
    nearest to 1e-05, which is what an ONNX attribute of 1e-05 reads as.
    """
    text = float.__repr__(value)
    if len(text) > 9 and abs(value) <= _LARGEST_SINGLE:
        single = np.float32(value)
        if float(single) == value:
            short = str(single)
            if len(short) + 1 < len(text):
                return short + "f"
    return text


def spell_scalar(value: Any) -> str | None:
    """The spelling of an attribute that is no array, or None if the value has no place in an attribute."""
    kind = type(value)
    if kind is int:
        return str(value)
    if kind is str:
        return quote(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is float:
        return spell_float(value)
    if kind is DType:
        return str(value)
    return None


def same_attribute(a: Any, b: Any) -> bool:
    """Whether two attribute values are the same to the bit: 0.0 is not -0.0, 1 is not 1.0 or true, NaN is NaN."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same_attribute, a, b))
    if isinstance(a, float):
        return float.hex(a) == float.hex(b)
    if isinstance(a, np.ndarray):
        return same_array(a, b)
    return bool(a == b)


def same_array(a: Array, b: Array) -> bool:
    """Whether two arrays have the same element type, shape and bits."""
    if a is b:
        return True
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind in "OUS":
        return bool(a.tolist() == b.tolist())
    return bool(np.array_equal(_bits(a), _bits(b)))


def _bits(array: Array) -> Array:
    """The elements of an array as unsigned integers of their width, flat."""
    flat = np.ascontiguousarray(array).reshape(-1)
    width = flat.dtype.itemsize
    return flat.view(f"u{width}") if width <= 8 else flat.view("u8")


def blob_key(array: Array) -> str:
    """A reference to an array by its content: element type, shape and bits."""
    digest = hashlib.sha256(f"{from_numpy(array.dtype)}{array.shape}".encode())
    if array.dtype.kind in "OUS":
        digest.update(json.dumps(array.tolist()).encode())
    else:
        digest.update(_bits(array).data)
    return f"sha256:{digest.hexdigest()[:16]}"


def spell_array(array: Array, inline: int | None) -> str | None:
    """What stands inside ``dense<…>``: one element for a splat, nested lists, or ``0x`` and the bytes.

    Args:
        array: of an element type that the IR has.
        inline: the most elements to write out; None for no limit.

    Returns:
        The text, or None if it would be longer than ``inline`` allows.
    """
    if array.size == 0:
        return "[]"
    if _is_splat(array):
        one = array.reshape(-1)[:1]
        texts = list(_spell_elements(one))
        if not _reads_back(one, texts):
            texts = []
        elif not (array.dtype.kind in "OUS" and BLOB_REFERENCE.match(str(one[0]))):
            return texts[0]
    if inline is not None and array.size > inline:
        return None
    texts = list(_spell_elements(array.reshape(-1)))
    if not _reads_back(array, texts):
        return "0x" + np.ascontiguousarray(array).tobytes().hex()
    return _nest(texts, array.shape or (1,))


def read_elements(elements: list[Any], dtype: DType) -> Array:
    """A flat array of ``dtype`` from numbers, strings or truth values.

    Raises:
        OverflowError: an integer does not fit.
        TypeError: an element is of another kind.
    """
    if dtype.kind == "string":
        _require(elements, str, dtype)
        return np.array(elements, object)
    if dtype.kind == "bool":
        _require(elements, bool, dtype)
        return np.array(elements, np.bool_)
    if dtype.is_integer:
        _require(elements, int, dtype)
        low = -(1 << (dtype.bits - 1)) if dtype.is_signed else 0
        high = low + (1 << dtype.bits) - 1
        for e in elements:
            if not low <= e <= high:
                raise OverflowError(f"{e} does not fit in {dtype} ({low} to {high})")
        wide = np.array(elements, np.uint64 if dtype.name == "u64" else np.int64)
        return wide.astype(dtype.numpy)
    if dtype.is_float:
        for e in elements:
            if isinstance(e, bool) or not isinstance(e, int | float):
                raise TypeError(f"{e!r} is not of type {dtype}")
        with np.errstate(over="ignore"):
            return np.array(elements, np.float64).astype(dtype.numpy)
    if elements:
        raise TypeError(f"elements of type {dtype} are written as bytes: dense<0x…>")
    return np.empty(0, dtype.numpy)


def _require(elements: list[Any], kind: type, dtype: DType) -> None:
    for e in elements:
        if type(e) is not kind:
            raise TypeError(f"{e!r} is not of type {dtype}")


def _is_splat(array: Array) -> bool:
    if array.dtype.kind in "OUS":
        first = array.reshape(-1)[0]
        return all(e == first for e in array.reshape(-1))
    if array.size == 1:
        return True
    # A look at the two ends settles nearly all arrays without a pass over them.
    if array.item(0) != array.item(-1) and array.item(0) == array.item(0):
        return False
    bits = _bits(array)
    return bool((bits[:16] == bits[0]).all() and (bits == bits[0]).all())


def _spell_elements(flat: Array) -> Iterator[str]:
    dtype = from_numpy(flat.dtype)
    if dtype.kind == "string":
        for e in flat:
            if not isinstance(e, str):
                raise TypeError(f"a string tensor holds {type(e).__name__}, not str")
            yield quote(str(e))
    elif dtype.kind == "bool":
        yield from ("true" if e else "false" for e in flat.tolist())
    elif dtype.is_integer:
        yield from map(str, (flat.astype(np.int64) if dtype.name != "u64" else flat).tolist())
    elif dtype.name == "f64":
        yield from map(repr, flat.tolist())
    elif dtype.name in ("f16", "f32"):
        yield from map(str, flat)
    elif dtype.is_float:
        # ml_dtypes prints too few digits for some values; as doubles they are exact.
        yield from (repr(float(f"{e:.4g}")) if _rounds_to(e, flat.dtype) else repr(e) for e in map(float, flat))


def _rounds_to(value: float, dtype: np.dtype[Any]) -> bool:
    short = np.array(float(f"{value:.4g}")).astype(dtype)
    return float(short) == value


def _reads_back(array: Array, texts: list[str]) -> bool:
    """Whether the elements' texts give the same bits; no text does for complex numbers and odd NaNs."""
    if not texts:
        return False
    dtype = from_numpy(array.dtype)
    if not dtype.is_float:
        return True
    back = np.array([float(t) for t in texts], np.float64).astype(array.dtype)
    return bool(np.array_equal(_bits(back), _bits(array)))


def _nest(texts: list[str], shape: tuple[int, ...]) -> str:
    for size in reversed(shape):
        texts = ["[" + ", ".join(texts[i : i + size]) + "]" for i in range(0, len(texts), size)]
    return texts[0]
