"""The command line: what it prints, its exit codes, and that a mistake costs one sentence and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from compiler import cli
from compiler.cli.console import run

Run = Callable[..., tuple[int, str, str]]
EXAMPLE = Path(__file__).parents[2] / "examples" / "ppocr_cls.onnx"


@pytest.fixture
def compile_(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``compile ARGUMENTS`` in a folder of its own: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run(cli.compile_app, "compile", [str(a) for a in arguments])
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


@pytest.fixture
def planish(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``planish ARGUMENTS``, likewise."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run(cli.planish_app, "planish", [str(a) for a in arguments])
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


def conv_net(batch: int | str = 1, height: int | str = 8, op: str = "Relu") -> onnx.ModelProto:
    """A convolution, an activation, a mean over space."""
    rng = np.random.default_rng(1)
    weights = numpy_helper.from_array(rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "w")
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], "conv", pads=[1, 1, 1, 1]),
            helper.make_node(op, ["a"], ["b"], "act"),
            helper.make_node("GlobalAveragePool", ["b"], ["y"], "pool"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, height, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4, 1, 1])],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(model: onnx.ModelProto, path: Path, **kwargs: object) -> Path:
    onnx.save(model, str(path), **kwargs)
    return path


def assert_refused(code: int, out: str, err: str, folder: Path, *before: Path) -> None:
    """Exit code 2, one sentence and perhaps a remedy, and no trace of a package."""
    assert code == 2, err
    lines = err.strip().splitlines()
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2, err
    assert all(line.startswith("  try: ") for line in lines[1:])
    assert "Traceback" not in err
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in before)


def test_compile_proves_and_reports(compile_: Run, tmp_path: Path) -> None:
    model = save(conv_net(), tmp_path / "net.onnx")
    code, out, err = compile_(model, "--target", "ane", "--json", "report.json")
    assert code == 0, err
    assert (tmp_path / "net.mlpackage" / "Manifest.json").is_file()
    for stage in ("import", "fuse", "lower", "write", "prove"):
        assert f"\n  {stage} " in f"\n{out}", out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["target"] == "ane"
    assert report["os"] == "ios17"
    assert report["verify"]["status"] == "passed"
    assert report["verify"]["outputs"]["y"]["rel_l2"] <= 2e-2
    assert {"max_abs", "psnr"} <= report["verify"]["outputs"]["y"].keys()
    assert report["ops"]["conv"] == 1
    assert "const" not in report["ops"]
    assert report["bytes"]["package"] > 0
    assert report["bytes"]["source"] == model.stat().st_size
    assert any("conv" in rule.lower() for rule in report["rules"])
    assert "placement" in report
    assert report["seconds"]["prove"] > 0


def test_planish_compile_is_the_same_command(planish: Run, tmp_path: Path) -> None:
    model = save(conv_net(), tmp_path / "net.onnx")
    code, _, err = planish("compile", model, "--target", "cpu", "-o", "out.mlpackage", "--verify", "fast", "-q")
    assert code == 0, err
    assert (tmp_path / "out.mlpackage").is_dir()


def test_the_same_input_gives_the_same_bytes(compile_: Run, tmp_path: Path) -> None:
    model = save(conv_net(), tmp_path / "net.onnx")
    for name in ("a", "b"):
        assert compile_(model, "-o", f"{name}/net.mlpackage", "--verify", "off")[0] == 0
    files = [sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*") if p.is_file()) for n in "ab"]
    assert files[0] == files[1]
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files[0])


def test_a_package_is_replaced_and_anything_else_is_not(compile_: Run, tmp_path: Path) -> None:
    model = save(conv_net(), tmp_path / "net.onnx")
    assert compile_(model, "--verify", "off")[0] == 0
    assert compile_(model, "--verify", "off")[0] == 0
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    code, out, err = compile_(model, "-o", precious)
    assert_refused(code, out, err, tmp_path, model, precious, tmp_path / "net.mlpackage")
    assert (precious / "thesis.txt").read_text() == "years of work"


def test_an_open_batch_becomes_one(compile_: Run, tmp_path: Path) -> None:
    model = save(conv_net(batch="N"), tmp_path / "net.onnx")
    code, out, err = compile_(model)
    assert code == 0, err
    assert "batch dimension of 'x'" in out


def test_another_open_dimension_stops_with_the_option_to_add(compile_: Run, tmp_path: Path) -> None:
    model = save(conv_net(height="H"), tmp_path / "net.onnx")
    code, out, err = compile_(model, "--target", "ane")
    assert_refused(code, out, err, tmp_path, model)
    assert "'x' has open dimensions" in err
    assert "--shape x=1,3,224,8" in err
    assert compile_(model, "--target", "ane", "--shape", "x=1,3,8,8")[0] == 0


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ("x=3,8,8", "rank 3, the model declares rank 4"),
        ("x=1,4,8,8", "dimension 1 of input 'x' as 4"),
        ("image=1,3,8,8", "no input 'image'"),
        ("1,3,8,8", "does not say which input"),
    ],
)
def test_wrong_shapes(compile_: Run, tmp_path: Path, shape: str, part: str) -> None:
    model = save(conv_net(), tmp_path / "net.onnx")
    code, out, err = compile_(model, "--shape", shape)
    assert_refused(code, out, err, tmp_path, model)
    assert part in err


def test_files_that_are_no_models(compile_: Run, tmp_path: Path) -> None:
    whole = conv_net().SerializeToString()
    contents = {
        "truncated": whole[: len(whole) // 2],
        "text": b"this is not a model at all\n" * 20,
        "empty": b"",
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        "zeros": bytes(4096),
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        code, out, err = compile_(path)
        assert_refused(code, out, err, tmp_path, path)
        assert name in err
        path.unlink()
    code, out, err = compile_("nowhere.onnx")
    assert_refused(code, out, err, tmp_path)
    code, out, err = compile_(tmp_path)
    assert_refused(code, out, err, tmp_path)


@pytest.mark.parametrize("domain", ["", "com.example"])
def test_unknown_operators_are_named_with_their_node(compile_: Run, tmp_path: Path, domain: str) -> None:
    model = conv_net()
    model.graph.node[1].op_type = "Wobble"
    model.graph.node[1].domain = domain
    if domain:
        model.opset_import.append(helper.make_opsetid(domain, 1))
    path = save(model, tmp_path / "net.onnx")
    code, out, err = compile_(path)
    assert_refused(code, out, err, tmp_path, path)
    assert "Wobble" in err
    assert "act" in err


def test_external_data(compile_: Run, tmp_path: Path) -> None:
    path = save(conv_net(), tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    data = tmp_path / "net.bin"
    assert compile_(path, "--verify", "fast", "-o", "out/net.mlpackage")[0] == 0
    whole = data.read_bytes()
    before = [path, data, tmp_path / "out"]
    data.write_bytes(whole[:8])
    code, out, err = compile_(path)
    assert_refused(code, out, err, tmp_path, *before)
    data.unlink()
    code, out, err = compile_(path)
    assert_refused(code, out, err, tmp_path, path, tmp_path / "out")
    assert "net.bin" in err


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", "link.bin"])
def test_external_data_outside_the_models_folder_is_refused(compile_: Run, tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    outside = tmp_path / "outside.bin"
    outside.write_bytes(bytes(4096))
    (folder / "link.bin").symlink_to(outside)
    model = conv_net()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "432")):
        tensor.external_data.add(key=key, value=value)
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    code, out, err = compile_(folder / "net.onnx")
    assert_refused(code, out, err, tmp_path, folder, outside)
    assert location.rsplit("/", 1)[-1] in err


def test_an_output_below_a_file_cannot_be_written(compile_: Run, tmp_path: Path) -> None:
    model = save(conv_net(), tmp_path / "net.onnx")
    code, out, err = compile_(model, "-o", model / "net.mlpackage")
    assert_refused(code, out, err, tmp_path, model)
    code, out, err = compile_(model, "-o", "/proc/net.mlpackage")
    assert_refused(code, out, err, tmp_path, model)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--target", "tpu"),
        ("--os", "ios9"),
        ("--precision", "fp8"),
        ("--verify", "maybe"),
        ("--disable-rule", "no_such_rule"),
        ("--rules", "missing.rules"),
        ("--inputs", "missing.npz"),
        ("--json", "no/such/folder.json"),
        ("--json", "."),
        ("--no-such-option",),
    ],
)
def test_options_that_make_no_sense(compile_: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    model = save(conv_net(), tmp_path / "net.onnx")
    code, out, err = compile_(model, *arguments)
    assert_refused(code, out, err, tmp_path, model)


def test_a_rule_that_is_wrong_fails_the_proof_and_is_named(compile_: Run, tmp_path: Path) -> None:
    model = save(conv_net(op="Tanh"), tmp_path / "net.onnx")
    wrong = tmp_path / "mine.rules"
    wrong.write_text(
        "stage fuse\nuse onnx\n\nrule tanh_is_sigmoid {\n  match { y = Tanh(x) }\n  rewrite { y = Sigmoid(x) }\n}\n"
    )
    for target in ("cpu", "ane"):
        code, _, err = compile_(model, "--target", target, "--rules", wrong, "--json", "report.json")
        assert code == 1, err
        assert "tanh_is_sigmoid" in err
        assert "'act'" in err
        assert not (tmp_path / "net.mlpackage").exists()
        assert json.loads((tmp_path / "report.json").read_text())["verify"]["status"] == "failed"
    assert compile_(model, "--rules", wrong, "--disable-rule", "tanh_is_sigmoid")[0] == 0


def test_interruption_leaves_nothing(compile_: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compiler import emit

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    model = save(conv_net(), tmp_path / "net.onnx")
    monkeypatch.setattr(emit, "_prove", interrupt)
    code, _, err = compile_(model)
    assert code == 130
    assert "interrupted" in err
    assert [p.name for p in tmp_path.iterdir()] == [model.name]


def test_run_gives_outputs_by_the_packages_names(compile_: Run, planish: Run, tmp_path: Path) -> None:
    model = save(conv_net(), tmp_path / "net.onnx")
    assert compile_(model, "--target", "cpu")[0] == 0
    x = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    np.savez(tmp_path / "in.npz", x=x)
    code, _, err = planish("run", "net.mlpackage", "--inputs", "in.npz", "--outputs", "out.npz")
    assert code == 0, err
    with np.load(tmp_path / "out.npz") as out:
        assert out.files == ["y"]
        session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        np.testing.assert_allclose(out["y"], session.run(None, {"x": x})[0], rtol=1e-4, atol=1e-5)


def test_run_says_which_input_is_missing(compile_: Run, planish: Run, tmp_path: Path) -> None:
    model = save(conv_net(), tmp_path / "net.onnx")
    assert compile_(model, "--verify", "off")[0] == 0
    np.savez(tmp_path / "in.npz", X=np.zeros(3))
    code, _, err = planish("run", "net.mlpackage", "--inputs", "in.npz", "--outputs", "out.npz")
    assert code == 2
    assert "no array for input 'x'" in err
    code, _, err = planish("run", tmp_path, "--inputs", "in.npz", "--outputs", "out.npz")
    assert code == 2


@pytest.mark.parametrize(
    ("stage", "operator"),
    [
        ("import", "onnx.Conv"),
        ("fuse", "onnx.Conv"),
        ("lower", "mil.conv"),
        ("half", "mil.cast"),
        ("package", "mil.conv"),
        ("meaning", "onnx.Conv"),
    ],
)
def test_show_prints_the_ir_at_any_stage(planish: Run, tmp_path: Path, stage: str, operator: str) -> None:
    model = save(conv_net(), tmp_path / "net.onnx")
    code, out, err = planish("show", model, "--stage", stage)
    assert code == 0, err
    assert out.startswith("module @")
    assert operator in out


def test_show_reads_packages(compile_: Run, planish: Run, tmp_path: Path) -> None:
    model = save(conv_net(), tmp_path / "net.onnx")
    assert compile_(model, "--verify", "off")[0] == 0
    assert "mil.conv" in planish("show", "net.mlpackage")[1]
    assert "onnx.Conv" in planish("show", "net.mlpackage", "--stage", "meaning")[1]
    assert planish("show", "net.mlpackage", "--stage", "fuse")[0] == 2


def test_targets_lists_units_and_releases(planish: Run) -> None:
    code, out, _ = planish("targets")
    assert code == 0
    for word in ("ane", "gpu", "cpu", "metal", "ios16", "ios26"):
        assert word in out


def test_help_is_fast_and_pulls_in_nothing_heavy() -> None:
    code = (
        "import sys; from compiler import cli; from compiler.cli.console import run; "
        "run(cli.compile_app, 'compile', ['--help']); "
        "sys.exit(any(m in sys.modules for m in ('onnx', 'onnxruntime', 'coremltools', 'lark')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--target" in done.stdout


def test_targets_of_a_chip_name_their_sources(planish: Run) -> None:
    code, out, _ = planish("targets", "M1")
    assert code == 0
    for word in ("softmax", "cumsum", "kernel_width", "private interfaces"):
        assert word in out
    code, out, _ = planish("targets", "M1", "--os", "ios17", "--json")
    assert code == 0
    data = json.loads(out)
    assert data["operators"]["conv"]["ane"]
    assert not data["operators"]["lstm"]["ane"]
    assert data["operators"]["lstm"]["source"]
    assert "read_state" not in data["operators"]
    code, _, err = planish("targets", "M9")
    assert code == 2
    assert "no chip is called 'M9'" in err


def test_a_forked_process_that_is_told_to_end_does_not_end_the_one_it_came_from(tmp_path: Path) -> None:
    program = tmp_path / "forks.py"
    program.write_text(
        "import multiprocessing, sys, time, typer\n"
        "from compiler.cli import console\n"
        "console.PATIENCE = 0.1\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def forks() -> None:\n"
        "    context = multiprocessing.get_context('fork')\n"
        "    begun = context.Event()\n"
        "    child = context.Process(target=lambda: (begun.set(), time.sleep(60)))\n"
        "    child.start()\n"
        "    begun.wait()\n"
        "    child.terminate()\n"
        "    child.join()\n"
        "    time.sleep(0.5)\n"
        "    print('ended by', -child.exitcode)\n"
        "console.main(app, 'forks')\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended by 15\n", "")
