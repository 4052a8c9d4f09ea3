"""What proofs of rules need: a library that knows what packages mean, and the targets that rules ask about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compiler.rewrite.library import Library
    from compiler.rewrite.prove import Prover


def library_of(rules: Sequence[Path] = ()) -> Library:
    """The compiler's own rules with those of files.

    Raises:
        UserError: a file cannot be read.
        RuleError: a file is wrong.
    """
    import compiler.dialects.mil
    import compiler.dialects.onnx  # noqa: F401 (registers the operators that rules name)
    from compiler import meaning
    from compiler.rewrite.load import load_library

    library = load_library(rules)
    meaning.install(library)
    return library


def prover_of(library: Library) -> Prover:
    """A prover that knows all targets."""
    from compiler.proving.kernels import KernelMachine
    from compiler.rewrite.prove import Prover
    from compiler.target import Target
    from passes import narrow

    releases = [Target.of(unit, os) for unit in ("ane", "gpu", "cpu") for os in ("ios16", "ios17", "ios18", "ios26")]
    return Prover(library, releases, narrow.run, {"metal": KernelMachine()})
