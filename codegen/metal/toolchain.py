"""The compiler that makes kernels run on a CPU: PyPI's ziglang, or the system's; and a cache of what it built."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from compiler.errors import PlanishError, UnsupportedError

RUNTIME = Path(__file__).with_name("runtime")

_EXTENSIONS = (
    "-cl_khr_fp64,+cl_khr_fp16,-__opencl_c_pipes,-__opencl_c_device_enqueue,-__opencl_c_fp64,"
    "-__opencl_c_program_scope_global_variables"
)

#: MSL is checked and compiled as C++ for OpenCL 2021, with the project's own <metal_stdlib>.
LANGUAGE_FLAGS = (
    *("-x", "clcpp", "-cl-std=clc++2021", "-cl-no-stdinc", "-cl-single-precision-constant"),
    *("--target=x86_64-linux-gnu", "-Wno-unknown-attributes", "-Xclang", f"-cl-ext={_EXTENSIONS}"),
    *("-isystem", str(RUNTIME / "include")),
)

_REMEDY = "pip install 'planish[metal]', which brings ziglang, or a clang that knows -x clcpp on the path"


class BuildError(PlanishError):
    """The compiler refuses a source; the message holds what it says."""


@functools.cache
def clang() -> tuple[str, ...]:
    """The command of a clang that compiles C++ for OpenCL: $PLANISH_CLANG, ziglang's, or one on the path.

    Raises:
        UnsupportedError: there is none.
    """
    if os.environ.get("PLANISH_CLANG"):
        return tuple(os.environ["PLANISH_CLANG"].split())
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "clang")
    for name in ("clang", *(f"clang-{v}" for v in range(24, 15, -1))):
        path = shutil.which(name)
        if (
            path
            and subprocess.run(
                [path, *LANGUAGE_FLAGS, "-fsyntax-only", os.devnull], capture_output=True, check=False
            ).returncode
            == 0
        ):
            return (path,)
    raise UnsupportedError("Metal kernels cannot be run here: there is no clang", _REMEDY)


@functools.cache
def linker() -> tuple[str, ...]:
    """The command of a C compiler that links: the system's, or ziglang's.

    Raises:
        UnsupportedError: there is none.
    """
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return (path,)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc")
    raise UnsupportedError("Metal kernels cannot be run here: there is no C compiler to link with", _REMEDY)


def cache_folder() -> Path:
    """Where built libraries are kept: $PLANISH_METAL_CACHE or a folder in the user's cache."""
    import platformdirs

    given = os.environ.get("PLANISH_METAL_CACHE")
    folder = Path(given) if given else Path(platformdirs.user_cache_dir("planish")) / "metal"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def build(sources: Sequence[str], flags: Sequence[str] = ("-O2", "-march=native")) -> Path:
    """A shared library of Metal sources (with entries already added) and the runtime, from the cache if it is there.

    The sources are compiled at the same time, as many as there are processors.

    Raises:
        BuildError: a source is refused.
        UnsupportedError: there is no compiler.
    """
    digest = hashlib.sha256("\0".join([*sources, *flags, *clang(), _runtime_text()]).encode()).hexdigest()[:24]
    library = cache_folder() / f"{digest}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        jobs = []
        for i, source in enumerate(sources):
            text = Path(folder) / f"{i}.metal"
            text.write_text(source, encoding="utf-8")
            command = [*clang(), *LANGUAGE_FLAGS, *flags, "-fPIC", "-fno-optimize-sibling-calls", "-c", str(text)]
            jobs.append([*command, "-o", f"{text}.o"])
        _run_all(jobs)
        objects = [job[-1] for job in jobs]
        runtime = str(RUNTIME / "runtime.c")
        draft = Path(folder) / "library.so"
        _run_all([[*linker(), "-std=c11", "-O2", "-fPIC", "-shared", "-o", str(draft), runtime, *objects, "-lm"]])
        draft.replace(library)
    return library


def _run_all(commands: Sequence[Sequence[str]]) -> None:
    width = max(1, os.cpu_count() or 1)
    for at in range(0, len(commands), width):
        running = [
            subprocess.Popen(c, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            for c in commands[at : at + width]
        ]
        outcomes = [(p.communicate()[1], p.returncode) for p in running]
        for message, status in outcomes:
            if status:
                raise BuildError(message.strip() or f"the compiler ended with status {status}")


@functools.cache
def _runtime_text() -> str:
    files = sorted(p for p in RUNTIME.rglob("*") if p.is_file())
    return "\0".join(p.read_text(encoding="utf-8") for p in files)
