"""Generated Swift packages: built with warnings as errors and tested with real models, where there is a toolchain."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.codegen.swift.workspace import Workspace

HERE = Path(__file__).parent
SWIFT = HERE.parents[2] / "codegen" / "swift"
RUNTIME = SWIFT / "runtime" / "Sources" / "PlanishRuntime"

pytestmark = pytest.mark.skipif(
    shutil.which("swift") is None, reason="no Swift toolchain here: Swift packages are neither built nor tested"
)


def test_packages_of_real_models_build_and_pass_their_tests(tmp_path: Path, models_dir: Path, pairs_dir: Path) -> None:
    workspace = Workspace(tmp_path, models_dir, pairs_dir)
    built = workspace.swift("build", "--build-tests", "-Xswiftc", "-warnings-as-errors", timeout=900)
    assert built.returncode == 0, built.stdout[-6000:] + built.stderr[-2000:]
    tested = workspace.swift("test", "--skip-build", timeout=600)
    told = tested.stdout + tested.stderr
    assert tested.returncode == 0, "\n".join(line for line in told.splitlines() if "✔" not in line)[-6000:]
    assert "Test run with" in told
    formatted = _format(workspace.package / "Sources", workspace.package / "Package.swift")
    assert formatted.returncode == 0, formatted.stderr[-3000:]


def test_sources_for_apples_frameworks_type_check(tmp_path: Path) -> None:
    """Against stubs of what the runtime uses of Core ML, CoreVideo, Metal and os; none of it is run."""
    for module in ("CoreVideo", "CoreML", "Metal", "os"):
        made = _swiftc(
            "-parse-as-library", "-emit-module", "-module-name", module, "-I", tmp_path,
            "-o", tmp_path / f"{module}.swiftmodule", HERE / "stubs" / f"{module}.swift",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
    # Were the stubs not seen, canImport would leave these out, and there would be nothing to check.
    seen = tmp_path / "Seen.swift"
    seen.write_text("func seen(_: CoreMLEngine, _: MetalEngine, _: DeviceCapabilities) {}\n")
    checked = _swiftc(
        "-parse-as-library", "-typecheck", "-warnings-as-errors", "-module-name", "PlanishRuntime", "-I", tmp_path,
        seen, *sorted(RUNTIME.glob("*.swift")),
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr[-4000:]


def test_sources_are_formatted() -> None:
    done = _format(SWIFT / "runtime", HERE / "swift")
    assert done.returncode == 0, done.stderr[-3000:]


def _swiftc(*words: object) -> subprocess.CompletedProcess[str]:
    command = ["swiftc", "-swift-version", "6", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def _format(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = ["swift", "format", "lint", "--strict", "--recursive", "--configuration", SWIFT / "swift-format.json"]
    return subprocess.run([*command, *paths], capture_output=True, text=True, timeout=100, check=False)
