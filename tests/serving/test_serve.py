"""``planish serve`` as a process: the same values as ``planish run``, states side by side, and a clean end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from compiler.driver import Options, load_library
from compiler.execution import calls
from compiler.proof import read_package
from tests.serving.client import COMMAND, Client


def run(package: Path, **given: np.ndarray) -> dict[str, np.ndarray]:
    """What ``planish run`` computes."""
    return calls.run_calls(read_package(package), load_library(Options()), given)


def test_one_row_and_several_give_what_run_gives(rows_package: Path) -> None:
    x = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    with Client(rows_package) as client:
        described = client.ready["description"]
        assert described["rows"] == {"inputs": ["x"], "low": 1, "high": 8, "sizes": []}
        assert [f["name"] for f in described["outputs"]] == ["y"]
        for rows in (8, 1, 3):
            header, out = client.ask({"id": rows}, x=x[:rows])
            assert header["id"] == rows
            assert header["seconds"] > 0
            assert np.array_equal(out["y"], run(rows_package, x=x[:rows])["y"])
            assert np.allclose(out["y"], np.tanh(x[:rows] @ np.linspace(-1, 1, 12).reshape(4, 3)), atol=1e-5)
        assert client.end() == (0, b"", "")


def test_rows_are_only_offered_where_they_are_known_not_to_mix(tmp_path: Path) -> None:
    import compiler
    from compiler.serving.loaded import Loaded
    from compiler.shapes import Span
    from tests.serving.conftest import dense

    done = compiler.compile(dense(), "cpu", tmp_path / "m.mlpackage", shapes={"x": (Span(1, 8), 4)})
    assert Loaded(Path(done.path)).description.rows is None


def test_replies_come_in_the_order_of_requests(rows_package: Path) -> None:
    x = np.ones((1, 4), np.float32)
    with Client(rows_package) as client:
        for i in range(100):
            client.send({"id": f"n{i}"}, {"x": x * i} if i % 3 else {"z": x})
        for i in range(100):
            header, out = client.receive()
            assert header["id"] == f"n{i}"
            assert ("error" in header) == (i % 3 == 0)
            assert ("y" in out) == (i % 3 != 0)


def test_labels_and_scores(classifier_package: Path) -> None:
    x = np.array([[1, 0, 0, 0]], np.float32)
    with Client(classifier_package) as client:
        _, out = client.ask({"id": 1}, x=x)
        assert out["classLabel"] == ["Münster"]
        assert out["classLabel_probs"].shape == (3,)
        kinds = [f["kind"] for f in client.ready["description"]["outputs"]]
        assert kinds == ["label", "scores"]


def test_kernels_are_served_too(tmp_path: Path) -> None:
    import compiler
    from tests.serving.conftest import dense

    package = Path(compiler.compile(dense(2), "metal", tmp_path / "dense.metalpackage").path)
    x = np.arange(8, dtype=np.float32).reshape(2, 4) / 8
    with Client(package) as client:
        assert client.ready["description"]["kind"] == "metal"
        _, out = client.ask({"id": 1}, x=x)
        assert np.allclose(out["y"], np.tanh(x @ np.linspace(-1, 1, 12).reshape(4, 3)), atol=1e-5)
        header, _ = client.ask({"id": 2}, x=x[:1])
        assert "shape (2, 4)" in header["error"]["message"]


def test_states_side_by_side(state_package: Path) -> None:
    one = np.ones((1, 4), np.float32)
    with Client(state_package) as client:
        (name,) = [f["name"] for f in client.ready["description"]["inputs"]]
        a, b = (client.ask({"id": 0, "op": "open_state"})[0]["state"] for _ in range(2))

        def add(state: int | None, amount: float) -> float:
            _, out = client.ask({"id": 1, "state": state}, **{name: one * amount})
            return float(out["y"][0, 0])

        assert [add(a, 1), add(b, 10), add(a, 2), add(b, 20), add(None, 5), add(None, 5), add(a, 0)] == [
            1, 10, 3, 30, 5, 5, 3,
        ]  # fmt: skip
        assert client.ask({"id": 2, "op": "close_state", "state": a})[0] == {"id": 2}
        header, _ = client.ask({"id": 3, "state": a}, **{name: one})
        assert header["error"]["kind"] == "request"
        assert f"state {a}" in header["error"]["message"]
        assert add(b, 0) == 30


def test_requests_that_do_not_fit(rows_package: Path) -> None:
    x = np.ones((1, 4), np.float32)
    with Client(rows_package) as client:
        for header, tensors, part in (
            ({}, {}, "no tensor for input 'x'"),
            ({}, {"X": x}, "did you mean 'x'?"),
            ({}, {"x": x.astype(np.float64)}, "'x' is f32"),
            ({}, {"x": np.ones((9, 4), np.float32)}, "(1..8, 4)"),
            ({}, {"x": np.ones((0, 4), np.float32)}, "(1..8, 4)"),
            ({}, {"x": x[0]}, "(1..8, 4)"),
            ({"op": "sing"}, {}, "no request 'sing'"),
            ({"op": ["predict"]}, {}, "no request"),
            ({"state": 3}, {"x": x}, "keeps no state"),
            ({"state": "3"}, {"x": x}, "not the number of a state"),
            ({"op": "open_state"}, {}, "keeps no state"),
            ({"op": "open_state"}, {"x": x}, "has no 'tensors'"),
            ({"extra": 1}, {"x": x}, "has no 'extra'"),
        ):
            said, _ = client.ask({"id": 7, **header}, **tensors)
            assert said["id"] == 7
            assert said["error"]["kind"] == "request", said
            assert part in said["error"]["message"], said
        assert client.end() == (0, b"", "")


def test_it_ends_on_sigterm_and_when_nobody_reads(rows_package: Path) -> None:
    with Client(rows_package) as client:
        client.process.send_signal(signal.SIGTERM)
        assert client.end() == (0, b"", "")
    with Client(rows_package) as client:
        client.process.stdout.close()
        client.send({"id": 1}, {"x": np.ones((1, 4), np.float32)})
        assert client.process.wait(20) == 0
        assert client.process.stderr.read() == b""


def test_it_ends_with_the_process_that_asked(rows_package: Path, tmp_path: Path) -> None:
    """kill −9 of its parent closes the pipe, and the server goes too."""
    script = f"""
import subprocess, time
p = subprocess.Popen({[*COMMAND, str(rows_package)]!r}, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
p.stdout.read(4)
print(p.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([COMMAND[0], "-c", script], stdout=subprocess.PIPE, text=True)
    server = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while time.monotonic() < end and _runs(server):
        time.sleep(0.05)
    assert not _runs(server)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that has ended and that nobody waited for is no running one.
    return ") Z " not in Path(f"/proc/{pid}/stat").read_text()


def test_a_package_that_is_none_costs_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, str(tmp_path)], capture_output=True, text=True, input="", timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
