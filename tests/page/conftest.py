"""One compile with a page, which all tests of the page read."""

from __future__ import annotations

from pathlib import Path

import pytest

import compiler
from tests.test_placement import model


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about a network of convolutions with one operator in the middle that the Neural Engine refuses."""
    folder = tmp_path_factory.mktemp("page")
    compiler.compile(model("TopK"), "ane", folder / "out.mlpackage", verify="fast", report=folder / "out.html")
    return folder / "out.html"
