"""Fixtures for tests of rules. What they share lies in :mod:`tests.rules.harness`."""

from __future__ import annotations

import pytest

from compiler.rewrite import Library
from tests.rules import harness


@pytest.fixture(autouse=True)
def rules_library() -> Library:
    """The rules of stages lower and meaning, with mil's inference installed, which other tests may have replaced."""
    from compiler import meaning

    library = harness.library()
    meaning.install(library)
    return library
