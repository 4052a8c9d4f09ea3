"""Several models, or one at several shapes, as functions of one package: ``planish bundle``.

Each function is compiled and proven by itself, or comes from a package that exists. The bundle is read back, and every
function in it must be the one that was proven, operator by operator and weight by weight.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from compiler.driver import Compilation, Options, compile_model
from compiler.errors import UserError, VerificationError
from compiler.ir import Function, Module, clone_function, print_module
from compiler.output import Output
from compiler.proof import read_package
from compiler.report import Progress, size_on_disk
from compiler.shapes import Shape, parse
from compiler.target import RELEASES

if TYPE_CHECKING:
    import onnx

    from compiler.metadata import Metadata

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPELLING = "NAME=MODEL.onnx[:x=1,3,224,224]… or NAME=PACKAGE.mlpackage"


@dataclass(frozen=True, slots=True)
class Part:
    """One function of a bundle.

    Attributes:
        name: of the function.
        source: an ONNX model, or a package with one function.
        shapes: as for ``compile``; for models only.
    """

    name: str
    source: str | Path | onnx.ModelProto
    shapes: Mapping[str, Shape]

    @property
    def is_package(self) -> bool:
        return isinstance(self.source, (str, Path)) and Path(self.source).is_dir()


@dataclass(slots=True)
class Bundle:
    """What :func:`bundle` made.

    Attributes:
        path: the package.
        compilations: how each function that comes from a model was compiled and proven, by its name.
        size: bytes of the package.
        apart: bytes of its functions as packages of their own.
    """

    path: Path
    compilations: dict[str, Compilation]
    size: int
    apart: int


def parse_part(text: str) -> Part:
    """A function from ``NAME=MODEL.onnx:x=1,3,224,224:y=1,8``.

    Raises:
        UserError: it is not spelled so.
    """
    name, equals, rest = text.partition("=")
    source, *pieces = re.split(r"(?<!:):(?!:)", rest)
    shapes, at = [], ""
    for piece in pieces:
        # The name of an input may hold colons, single or double; what has a shape ends with one.
        at = f"{at}:{piece}" if at else piece
        if "=" in piece:
            shapes.append(at)
            at = ""
    if not equals or not source or at:
        raise UserError(f"'{text}' does not say a name and a model", _SPELLING)
    return Part(name, source, dict(map(parse, shapes)))


def bundle(
    output: str | Path,
    parts: Sequence[Part],
    options: Options,
    default: str | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Makes a package of several functions that share their weights.

    Args:
        options: how to compile each model; its shapes are those of the part.
        default: the function that runs when none is named; the first when None.

    Raises:
        UserError: a part or an option cannot be used.
        VerificationError: a function does not compute what its model computes, or is not in the bundle what it was.
        UnsupportedError: see :func:`compiler.driver.compile_model`.
    """
    _check(parts, options, default)
    compilations: dict[str, Compilation] = {}
    with Output(output) as out, tempfile.TemporaryDirectory() as folder:
        together = Module(out.path.stem)
        apart = 0
        for part in parts:
            package = Path(str(part.source)) if part.is_package else Path(folder) / f"{part.name}.mlpackage"
            if not part.is_package:
                each = replace(options, shapes=part.shapes)
                compilations[part.name] = compile_model(part.source, package, each, progress)
            module = read_package(package)
            if len(module.functions) != 1:
                names = ", ".join(module.functions)
                raise UserError(f"{package} has several functions ({names})", "packages with one function each")
            release = str(module.attributes["os"])
            if RELEASES.get(release, (0, 0, 0)) > RELEASES[options.target.os]:
                raise UserError(f"{package} is for {release}, later than {options.target.os}", f"--os {release}")
            apart += size_on_disk(package)
            together.add(clone_function(module.main, part.name))
        together.attributes["default_function"] = default or parts[0].name
        _write(together, out.draft, options)
        _compare(together, out.draft)
        size = size_on_disk(out.draft)
        out.publish()
    return Bundle(out.path, compilations, size, apart)


def _check(parts: Sequence[Part], options: Options, default: str | None) -> None:
    if options.target.unit == "metal":
        raise UserError("Metal kernels are no functions of a Core ML package", "--target gpu")
    if options.target.ios < 18:
        raise UserError(f"several functions need iOS 18, and the package is for {options.target.os}", "--os ios18")
    if len(parts) < 2:
        raise UserError("a bundle needs two functions or more", _SPELLING)
    names = [p.name for p in parts]
    for part in parts:
        if not _NAME.fullmatch(part.name):
            raise UserError(f"'{part.name}' cannot be the name of a function", "letters, digits and _")
        if names.count(part.name) > 1:
            raise UserError(f"two functions are called '{part.name}'", "a name of its own for each")
        if part.is_package and part.shapes:
            raise UserError(f"'{part.source}' is a package, whose shapes are settled", "its ONNX model with the shapes")
        if isinstance(part.source, (str, Path)) and not Path(part.source).exists():
            raise UserError(f"there is no model or package at '{part.source}'", _SPELLING)
    if default is not None and default not in names:
        raise UserError(f"no function is called '{default}'", f"--default with one of {', '.join(names)}")


def _write(module: Module, draft: Path, options: Options) -> None:
    from importlib.metadata import version

    from codegen import mil

    said: Metadata = options.metadata or mil.Metadata()
    user = {**said.user, "planish.version": version("planish")}
    mil.write(module, draft, os=options.target.os, metadata=replace(said, user=user))


def _compare(module: Module, draft: Path) -> None:
    written = read_package(draft)
    for name, function in module.functions.items():
        if name not in written.functions or _text(written.functions[name]) != _text(function):
            raise VerificationError(f"function '{name}' is not in the bundle what it was before")


def _text(function: Function) -> str:
    """The function with hashes of its weights, whatever module it stands in."""
    alone = Module("m")
    alone.add(function)
    return print_module(alone)
