"""What all tests share: where models lie, and golden files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]

# Every compile of the tests, also in processes of its own, verifies the IR behind each pass and each rewrite.
os.environ.setdefault("PLANISH_VERIFY_IR", "1")

# A machine that is busy is no fault of a test, and the same examples are drawn everywhere.
settings.register_profile("planish", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("planish")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the expected part of golden files")


def _folder(variable: str, default: str) -> Path:
    path = Path(os.environ.get(variable) or ROOT / default).resolve()
    if not path.is_dir():
        pytest.skip(f"no folder {path}; set {variable} to the one that holds them")
    return path


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder of real models: NAME/model.onnx, NAME/io.npz, NAME/meta.json."""
    return _folder("PLANISH_MODELS", "../shared/models")


@pytest.fixture(scope="session")
def pairs_dir() -> Path:
    """The folder of networks that are there twice: NAME/model.onnx, NAME/apple.mlpackage, NAME/io.npz."""
    return _folder("PLANISH_PAIRS", "../shared/pairs")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Holds a text against a file: ``golden(path, text)``. With ``--update-golden`` it writes the file instead."""
    update = request.config.getoption("--update-golden")

    def check(path: Path, text: str) -> None:
        if update:
            path.write_text(text, encoding="utf-8")
            return
        if not path.exists():
            pytest.fail(f"{path} is missing; run pytest with --update-golden to write it", pytrace=False)
        expected = path.read_text(encoding="utf-8")
        assert text == expected, f"{path.name} differs; if that is right, run pytest with --update-golden"

    return check
