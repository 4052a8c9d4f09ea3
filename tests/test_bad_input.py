"""What goes wrong costs one sentence and exit code 2, and leaves nothing behind: each case as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.cli.test_cli import EXAMPLE, assert_refused, conv_net, save

COMMAND = [sys.executable, "-m", "compiler.cli"]


def compile_(folder: Path, *arguments: object, limit: str = "") -> tuple[int, str, str]:
    """``compile ARGUMENTS`` in ``folder``, perhaps behind a shell's ``ulimit``."""
    words = [*COMMAND, *map(str, arguments)]
    if limit:
        words = ["bash", "-c", f'ulimit {limit}; exec "$@"', "bash", *words]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_damaged_files(tmp_path: Path) -> None:
    whole = conv_net().SerializeToString()
    for name, content, part in (
        ("truncated", whole[: len(whole) // 2], "too early"),
        ("picture", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not an ONNX model"),
    ):
        model = tmp_path / f"{name}.onnx"
        model.write_bytes(content)
        code, out, err = compile_(tmp_path, model)
        assert_refused(code, out, err, tmp_path, model)
        assert part in err
        model.unlink()


def test_an_operator_that_does_not_exist(tmp_path: Path) -> None:
    model = save(conv_net(op="Frobnicate"), tmp_path / "net.onnx")
    code, out, err = compile_(tmp_path, model)
    assert_refused(code, out, err, tmp_path, model)
    assert "'act'" in err
    assert "Frobnicate" in err


def test_open_dimensions_and_wrong_ranks(tmp_path: Path) -> None:
    model = save(conv_net("N", "height"), tmp_path / "net.onnx")
    code, out, err = compile_(tmp_path, model)
    assert_refused(code, out, err, tmp_path, model)
    assert "--shape x=1,3,224,8" in err
    code, out, err = compile_(tmp_path, model, "--shape", "x=3,224,8")
    assert_refused(code, out, err, tmp_path, model)
    assert "rank 3" in err


def test_external_weights_missing_and_outside(tmp_path: Path) -> None:
    model = save(conv_net(), tmp_path / "net.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    code, out, err = compile_(tmp_path, model)
    assert_refused(code, out, err, tmp_path, model)
    assert "w.bin" in err
    proto = onnx.load(str(model), load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = "../secret.bin"
    model.write_bytes(proto.SerializeToString())
    code, out, err = compile_(tmp_path, model)
    assert_refused(code, out, err, tmp_path, model)
    assert "outside the model's folder" in err


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    model = save(conv_net(), tmp_path / "net.onnx")
    code, out, err = compile_(tmp_path, model, "-o", "/proc/nothing/net.mlpackage")
    assert_refused(code, out, err, tmp_path, model)
    code, out, err = compile_(tmp_path, model, "-o", model)
    assert_refused(code, out, err, tmp_path, model)


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    code, out, err = compile_(tmp_path, EXAMPLE, "--shape", "x=1,3,48,192", "-o", "out.mlpackage", limit="-f 64")
    assert_refused(code, out, err, tmp_path)
    assert f"cannot write '{tmp_path / 'out.mlpackage'}'" in err


def laughs() -> onnx.ModelProto:
    """Forty functions, each of which calls the one before twice."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    functions = []
    for i in range(40):
        inner, domain = (f"L{i - 1}", "my") if i else ("Relu", "")
        nodes = [helper.make_node(inner, [a], [b], domain=domain) for a, b in (("a", "t"), ("t", "b"))]
        functions.append(helper.make_function("my", f"L{i}", ["a"], ["b"], nodes, opsets))
    return wrapped(helper.make_node("L39", ["x"], ["y"], domain="my"), [1, 4], opsets, functions)


def wrapped(node: onnx.NodeProto, shape: list[int], opsets: list, functions: list | None = None) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions or [])


def test_models_that_ask_for_too_much(tmp_path: Path) -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    opsets = [helper.make_opsetid("", 17)]
    for proto, part in (
        (laughs(), "local functions"),
        (wrapped(relu, [1 << 20, 1 << 20], opsets), "memory"),
        (wrapped(relu, [1 << 31, 1 << 31], opsets), "elements"),
    ):
        model = save(proto, tmp_path / "net.onnx")
        code, out, err = compile_(tmp_path, model, limit="-v 8000000")
        assert_refused(code, out, err, tmp_path, model)
        assert part in err


def forever() -> onnx.ModelProto:
    """A loop that does not end."""
    body = helper.make_graph(
        [helper.make_node("Add", ["v", "v"], ["w"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 4]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [1, 4]),
        ],
    )
    model = wrapped(helper.make_node("Loop", ["n", "t", "x"], ["y"], body=body), [1, 4], [helper.make_opsetid("", 17)])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1 << 30, np.int64), "n"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "t"))
    return model


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_ends_what_is_inside_a_library_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    model = save(forever(), tmp_path / "net.onnx")
    process = subprocess.Popen([*COMMAND, str(model), "-o", "out.mlpackage"], cwd=tmp_path, stderr=subprocess.PIPE)
    while len(list(tmp_path.iterdir())) < 2 and process.poll() is None:  # until the draft's folder is there
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.decode() == "error: interrupted; nothing was written\n"
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_what_stood_there_survives_an_interruption(tmp_path: Path) -> None:
    model = save(conv_net(), tmp_path / "net.onnx")
    assert compile_(tmp_path, model, "--verify", "off")[0] == 0
    package = tmp_path / "net.mlpackage"
    before = {p: p.read_bytes() for p in package.rglob("*") if p.is_file()}
    started = time.monotonic()
    assert compile_(tmp_path, model)[0] == 0
    seconds = time.monotonic() - started
    for share in (0.5, 0.8, 0.95):
        process = subprocess.Popen([*COMMAND, str(model)], cwd=tmp_path, stdout=-3, stderr=-3)
        time.sleep(share * seconds)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["net.mlpackage", "net.onnx"]
        assert {p: p.read_bytes() for p in package.rglob("*") if p.is_file()} == before
