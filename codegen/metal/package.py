"""A program of Metal kernels on disk: ``kernels.metal``, ``plan.json``, ``Plan.swift`` and ``weights.bin``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from codegen.metal import swift
from codegen.metal.program import STORED, Program
from codegen.metal.signature import SignatureError, plain, signatures, strip_comments
from codegen.metal.variants import specialized
from compiler.errors import UserError

Array = np.ndarray[Any, Any]

SUFFIX = ".metalpackage"
SOURCE, PLAN, SWIFT, WEIGHTS = "kernels.metal", "plan.json", "Plan.swift", "weights.bin"


def write(program: Program, folder: Path) -> None:
    """Writes the four files into ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SOURCE).write_text(program.source, encoding="utf-8")
    (folder / PLAN).write_text(json.dumps(program.to_json(), indent=1, ensure_ascii=False), encoding="utf-8")
    (folder / SWIFT).write_text(swift.source(program), encoding="utf-8")
    with open(folder / WEIGHTS, "wb") as file:
        for i in program.of_kind("constant"):
            file.seek(program.buffers[i].offset)
            file.write(memoryview(np.ascontiguousarray(program.constants[i])).cast("B"))


def is_package(path: str | Path) -> bool:
    """Whether a folder looks like one that :func:`write` made."""
    return (Path(path) / PLAN).is_file() and (Path(path) / SOURCE).is_file()


def read(folder: str | Path) -> Program:
    """The program of a folder, its constants mapped from the file.

    Raises:
        UserError: a file is missing or is not what it should be.
    """
    folder = Path(folder)
    try:
        data = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        program = Program.from_json(data, (folder / SOURCE).read_text(encoding="utf-8"))
        _check(program)
        weights = folder / WEIGHTS
        mapped = np.memmap(weights, np.uint8, mode="r") if weights.stat().st_size else np.empty(0, np.uint8)
        for i in program.of_kind("constant"):
            b = program.buffers[i]
            part = mapped[b.offset : b.offset + b.size]
            if len(part) != b.size:
                raise ValueError(f"{WEIGHTS} ends before the constant '{b.name}'")
            program.constants[i] = part.view(STORED[b.store]).reshape(b.shape)
    except (OSError, ValueError, KeyError, TypeError, SignatureError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise UserError(f"{folder} is not a package of Metal kernels: {reason}", "compile it again") from e
    return program


def _check(program: Program) -> None:
    """Holds plan and source against each other.

    Raises:
        ValueError, SignatureError: a dispatch is of no kernel, or binds other than what that takes.
    """
    kernels = {k.name: k for k in signatures(specialized(plain(strip_comments(program.source)), program.variants))}
    for d in program.dispatches:
        if d.kernel not in kernels:
            raise ValueError(f"{SOURCE} has no kernel '{d.kernel}'")
        if any(not 0 <= b.buffer < len(program.buffers) for b in d.bindings):
            raise ValueError(f"'{d.kernel}' is bound to a buffer that {PLAN} has not")
        takes = sum(p.attribute in ("buffer", "texture") for p in kernels[d.kernel].parameters)
        if takes != len(d.bindings):
            raise ValueError(f"'{d.kernel}' takes {takes} buffers, and {PLAN} binds {len(d.bindings)}")
