"""Imports go one way, as docs/design.md says: who stands on whom."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: What each part must not import, wherever in a file the import stands.
FORBIDDEN = {
    "compiler/ir": ["compiler.dialects", "compiler.rewrite", "compiler.hardware", "passes", "codegen", "rules"],
    "compiler/dialects": ["compiler.rewrite", "compiler.hardware", "passes", "codegen", "rules", "compiler.driver"],
    "compiler/hardware": ["compiler.rewrite", "passes", "codegen", "rules", "compiler.driver"],
    "compiler/frontend": ["compiler.rewrite", "passes", "codegen", "rules", "compiler.driver"],
    "compiler/rewrite": ["compiler.dialects", "passes", "codegen", "compiler.driver", "compiler.stages"],
    "rules": ["codegen", "compiler.driver", "compiler.stages"],
    "passes": ["codegen", "compiler.driver", "compiler.stages", "compiler.proof"],
    "codegen": ["compiler.driver", "compiler.stages", "compiler.proof"],
}


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, and of a package also the names taken from it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(part: str) -> list[Path]:
    found = sorted((ROOT / part).rglob("*.py"))
    assert found, part
    return found


@pytest.mark.parametrize("part", FORBIDDEN)
def test_imports_go_one_way(part: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(part)
        for name in imported(path)
        for banned in FORBIDDEN[part]
        if f"{name}.".startswith(f"{banned}.")
    ]
    assert not wrong


def test_nobody_imports_the_command_line() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for part in ("compiler", "passes", "rules", "codegen")
        for path in sources(part)
        if "cli" not in path.relative_to(ROOT).parts
        for name in imported(path)
        if f"{name}.".startswith("compiler.cli.")
    ]
    assert not wrong
