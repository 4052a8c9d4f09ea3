"""Bytes that are no frames: one error each, and the next good frame is answered as if nothing had been."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compiler.serving import frames
from tests.serving.client import Client

X = np.array([[1, 2, 3, 4]], np.float32)


def frame(header: bytes, data: bytes = b"", claimed: int | None = None) -> bytes:
    payload = struct.pack("<I", len(header) if claimed is None else claimed) + header + data
    return struct.pack("<I", len(payload)) + payload


@pytest.fixture(scope="module")
def client(rows_package: Path) -> Iterator[Client]:
    """One server for all bad frames of this module; it must outlive them."""
    with Client(rows_package, "--max-frame", "1") as client:
        yield client
        assert client.end() == (0, b"", "")


def answered(client: Client) -> np.ndarray:
    header, out = client.ask({"id": "good"}, x=X)
    assert header["id"] == "good"
    return out["y"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y", ""]) | json_values,
        "dtype": st.sampled_from(["f32", "f16", "i64", "bool", "string"]) | json_values,
        "shape": st.lists(st.integers(-2, 9) | st.just(2**62), max_size=4) | json_values,
    },
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "id": json_values,
        "op": st.sampled_from(["predict", "open_state", "close_state"]) | json_values,
        "state": json_values,
        "tensors": st.lists(entries | json_values, max_size=3) | json_values,
    },
)
payloads = st.one_of(
    st.binary(max_size=64).map(lambda b: struct.pack("<I", len(b)) + b),
    st.builds(frame, st.binary(max_size=40), st.binary(max_size=40), st.none() | st.integers(0, 2**32 - 1)),
    st.builds(lambda h, data: frame(json.dumps(h).encode(), data), headers | json_values, st.binary(max_size=64)),
)


@given(payloads)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_frame_gets_one_reply(client: Client, data: bytes) -> None:
    client.send_bytes(data)
    header, _ = client.receive()
    if "error" in header:
        error = header["error"]
        assert error["kind"] in ("frame", "request")
        assert error["message"]
        assert "\n" not in error["message"].rstrip()
    assert np.allclose(answered(client), np.tanh(X @ np.linspace(-1, 1, 12).reshape(4, 3)), atol=1e-5)


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (frame(b""), "not JSON"),
        (frame(b"[" * 100_000), "not JSON"),
        (frame(b"\xff\xfe{}"), "not JSON"),
        (frame(b"{}", claimed=3), "does not fit"),
        (struct.pack("<I", 2) + b"ab", "no room"),
        (struct.pack("<I", 0), "no room"),
        (frame(b"null"), "JSON null"),
        (frame(b'{"tensors": [{"name": "x", "dtype": "f32", "shape": [1, 4]}]}', bytes(15)), "15 are left"),
        (frame(b'{"tensors": [{"name": "x", "dtype": "f32", "shape": [1, 4]}]}', bytes(17)), "1 bytes are left"),
        (frame(b'{"tensors": [{"name": "x", "dtype": "f32", "shape": [1099511627775, 1099511627775]}]}'), "left"),
        (frame(b'{"tensors": [{"name": "x", "dtype": "f32", "shape": [true, 4]}]}', bytes(16)), "sizes"),
        (frame(b'{"id": 1.5}'), "'id'"),
        (struct.pack("<I", (1 << 20) + 1) + bytes((1 << 20) + 1), "longer than the 1,048,576"),
    ],
)
def test_what_is_wrong_is_said(client: Client, data: bytes, part: str) -> None:
    client.send_bytes(data)
    header, _ = client.receive()
    assert header["error"]["kind"] == "frame"
    assert part in header["error"]["message"]
    answered(client)


def test_a_stream_that_ends_within_a_frame(rows_package: Path) -> None:
    for cut in (b"\x10", struct.pack("<I", 100) + b"abc", struct.pack("<I", 2**32 - 1) + b"abc"):
        with Client(rows_package, "--max-frame", "1") as client:
            client.send_bytes(cut)
            code, out, err = client.end()
            assert code == 2
            assert err.count("error:") == 1
            (total,) = struct.unpack("<I", out[:4])
            assert len(out) == 4 + total  # one reply
            assert b"the stream ends" in out


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.tuples(st.sampled_from(sorted(frames.DTYPES)), st.lists(st.integers(0, 3), max_size=3)),
        max_size=4,
    )
)
@settings(max_examples=100)
def test_tensors_come_back_as_they_went(kinds: dict[str, tuple[str, list[int]]]) -> None:
    rng = np.random.default_rng(0)
    tensors = {n: rng.integers(0, 2, s).astype(frames.DTYPES[d]) for n, (d, s) in kinds.items()}
    data = b"".join(map(bytes, frames.encode({"id": 1}, tensors)))
    header, rest = frames.header_of(memoryview(data)[4:])
    back = frames.tensors_of(header, rest)
    assert list(back) == list(tensors)
    for name, array in tensors.items():
        assert back[name].dtype == array.dtype
        assert np.array_equal(back[name], array)
