"""What is written into Swift packages: names, types, literals, parts; without a toolchain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import compiler
from codegen.swift import package
from codegen.swift.model import swift_model
from codegen.swift.names import literal, member_names, raw_block, type_name
from compiler.cli import compile_app, planish_app
from compiler.cli.console import run
from compiler.errors import UnsupportedError, UserError
from compiler.execution.description import Description, Feature, content_hash
from tests.serving.conftest import dense


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swift")
    (folder / "labels.txt").write_text('cat\n"dog" \\(x)\nclass\n', encoding="utf-8")
    wishes = compiler.Wishes(labels=str(folder / "labels.txt"), description="Cats,\nand more.", rename={"x": "in"})
    return Path(compiler.compile(dense(1), "cpu", folder / "my-pets_2.mlpackage", wishes=wishes).path)


def test_names_are_identifiers() -> None:
    assert type_name("silero-vad_16k") == "SileroVad16k"
    assert type_name("3d.net") == "Model3dNet"
    assert type_name("···") == "Model"
    assert type_name("Self") == "SelfModel"
    assert member_names(["x.1", "x_1", "in", "7", "", "État", "class"]) == [
        "x1", "x1_2", "`in`", "value7", "value", "état", "`class`",
    ]  # fmt: skip


def test_literals_cannot_be_left() -> None:
    assert literal('a"b\\(c)\n\x00') == '"a\\"b\\\\(c)\\n\\u{0}"'
    for text in ('"""', '"""#', "\\(x)", '\\##(x) """#'):
        start, end = raw_block(text)
        assert end not in text
        assert "\\" + start[:-3] not in text


def test_a_package_has_what_an_app_needs(classifier: Path, tmp_path: Path) -> None:
    written = package.write([classifier], tmp_path / "Kit")
    assert (written.library, written.models) == ("MyPets2Kit", ("MyPets2",))
    text = (written.path / "Sources" / "MyPets2Kit" / "MyPets2.swift").read_text(encoding="utf-8")
    for part in (
        "/// Cats, and more.",
        "public var `in`: Shaped<Float>",
        "self.`in` = `in`",
        "public let classLabel: Label",
        "public let classLabelProbs: ClassScores",
        'case dogX = "\\"dog\\" \\\\(x)"',
        'case `class` = "class"',
    ):
        assert part in text
    described = json.loads(text[text.index('"""\n') + 4 : text.rindex('"""')])
    assert described == json.loads(json.dumps(package.describe(classifier)["main"].to_json()))
    resource = written.path / "Sources" / "MyPets2Kit" / "Resources" / "MyPets2.mlpackage"
    mark = json.loads((written.path / "planish.json").read_text())
    assert mark["models"][0]["parts"][0]["sha256"] == content_hash(resource) == content_hash(classifier)
    assert (written.path / "Sources" / "PlanishRuntime" / "DynamicBatcher.swift").is_file()
    # It is replaced by another, and what is not ours is left alone.
    package.write([classifier, classifier], tmp_path / "Kit", "Twice")
    assert (tmp_path / "Kit" / "Sources" / "Twice" / "MyPets2_2.swift").exists() is False
    assert (tmp_path / "Kit" / "Sources" / "Twice" / "MyPets22.swift").is_file()
    assert not (tmp_path / "Kit" / "Sources" / "MyPets2Kit").exists()
    (tmp_path / "own").mkdir()
    with pytest.raises(UserError, match="left alone"):
        package.write([classifier], tmp_path / "own")


def test_compile_writes_one_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.cli.test_cli import save

    model = save(dense(1), tmp_path / "net.onnx")
    out = tmp_path / "net.mlpackage"
    assert run(compile_app, "compile", [str(model), "-o", str(out), "--swift", str(tmp_path / "Net")]) == 0
    assert "library NetKit with Net" in capsys.readouterr().out
    assert (tmp_path / "Net" / "Package.swift").is_file()
    assert run(planish_app, "planish", ["swift", str(tmp_path), "-o", str(tmp_path / "x")]) == 2
    assert run(planish_app, "planish", ["swift", str(out), "-o", str(tmp_path / "x"), "--hybrid", "H"]) == 2
    assert not (tmp_path / "x").exists()


def test_a_folder_of_parts_is_one_model(tmp_path: Path) -> None:
    from tests.test_hybrid import LACKING, inputs, model

    path = tmp_path / "warp.hybridpackage"
    compiler.compile(model(), output=path, hybrid=True, inputs=inputs(), disable_rules=[LACKING])
    written = package.write([path], tmp_path / "Kit")
    assert (written.library, written.models) == ("WarpKit", ("Warp",))
    sources = written.path / "Sources" / "WarpKit"
    names = ["Warp0.mlpackage", "Warp1.metalpackage", "Warp2.mlpackage"]
    assert sorted(p.name for p in (sources / "Resources").iterdir()) == names
    text = (sources / "Warp.swift").read_text(encoding="utf-8")
    for name, number in zip(names, (1, 2, 3)):
        assert f'part("{name}", part{number}JSON),' in text
    assert [p.split(":")[0] for p in text.split("public let ")[1:3]] == ["y", "s"]
    with pytest.raises(UserError, match="has its parts already"):
        package.write([path], tmp_path / "Other", hybrid="Other")


def test_what_swift_has_no_type_for_is_refused() -> None:
    feature = Feature("x", "tensor", "u4", (1,))
    with pytest.raises(UnsupportedError, match="'x' has elements of u4"):
        swift_model("M", Description("m", "mlprogram", (feature,), (feature,)), [])
