"""A Swift package on disk: sources from templates, the runtime library, compiled models as resources."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from codegen.swift.model import Part, SwiftModel, swift_model, unique_type
from codegen.swift.names import comment, literal, type_name
from compiler.errors import UserError
from compiler.execution import parts as chains
from compiler.execution.description import Description
from compiler.output import Output

#: What tells a package of ours from a folder of the user's, among :data:`compiler.output._MARKS`.
MARK = "planish.json"

#: SwiftPM's platforms for a package's oldest release, and the version of the tools that knows them.
_PLATFORMS = {
    "": ("16", "13", "6.0"),
    "ios15": ("16", "13", "6.0"),
    "ios16": ("16", "13", "6.0"),
    "ios17": ("17", "14", "6.0"),
    "ios18": ("18", "15", "6.0"),
    "ios26": ("26", "26", "6.2"),
}


@dataclass(frozen=True, slots=True)
class Written:
    """What :func:`write` made.

    Attributes:
        path: of the Swift package.
        library: the name of its library.
        models: the Swift type of each model.
    """

    path: Path
    library: str
    models: tuple[str, ...]


def write(packages: Sequence[Path], output: Path, name: str | None = None, hybrid: str | None = None) -> Written:
    """Writes a Swift package for compiled models.

    Args:
        packages: Core ML packages, Metal kernels or folders of parts, each a model of its own; or the parts of one.
        output: a folder; an older Swift package of ours there is replaced.
        name: of the package and its library; that of the only model, or ``Models``, where None.
        hybrid: the name of the one model whose parts ``packages`` are, in the order in which they run.

    Raises:
        UserError: a package cannot be read, or parts do not fit together; or there is something else at ``output``.
        UnsupportedError: a model takes or gives what Swift has no type for.
    """
    models = _models(packages, hybrid)
    library = type_name(name or (f"{models[0].name}Kit" if len(models) == 1 else "Models"))
    if library in {m.name for m in models} or library == "PlanishRuntime":
        raise UserError(f"'{library}' is the name of the library and of something in it", "another --name")
    with Output(output) as out:
        _fill(out.draft, library, models)
        out.publish()
    return Written(out.path, library, tuple(m.name for m in models))


def describe(package: Path) -> dict[str, Description]:
    """What each function of a package takes and gives, by its name; the default one stands first.

    Raises:
        UserError, UnsupportedError: it is none, or is broken.
    """
    from codegen.metal import package as kernels
    from compiler.execution import calls, description
    from compiler.execution.running import read_package

    if kernels.is_package(package):
        return {"main": description.of_program(kernels.read(package))}
    module = read_package(package)
    default = calls.select(module, None, package).main.name
    names = [default, *(n for n in module.functions if n != default)]
    return {n: description.of_module(calls.select(module, n, package)) for n in names}


def _models(packages: Sequence[Path], hybrid: str | None) -> list[SwiftModel]:
    if not packages:
        raise UserError("a Swift package needs a model", "planish swift PKG -o DIR")
    taken: set[str] = {"PlanishRuntime"}
    first: list[Part] = []
    models: list[SwiftModel] = []
    for package in packages:
        if chains.is_package(package):
            models.append(_chain(package, hybrid, taken))
            continue
        functions = describe(package)
        several = len(functions) > 1
        resource = f"{unique_type(package.stem, set() if several else taken)}{package.suffix}"
        while any(p.resource == resource for p in first):
            resource = f"{Path(resource).stem}_{package.suffix}"
        parts = [Part(package, resource, d, f if several else "") for f, d in functions.items()]
        first.append(parts[0])
        if hybrid is None:
            for part in parts:
                name = unique_type(f"{package.stem} {part.function}", taken) if several else Path(resource).stem
                models.append(swift_model(name, part.description, [part]))
    if hybrid is None:
        return models
    if len(first) < 2:
        raise UserError("a hybrid has two parts or more", "planish swift A.mlpackage B.metalpackage --hybrid NAME")
    return [swift_model(type_name(hybrid), chains.join(hybrid, [p.description for p in first]), first)]


def _chain(package: Path, hybrid: str | None, taken: set[str]) -> SwiftModel:
    """The model whose parts lie in one folder, as ``compile --hybrid`` leaves them."""
    if hybrid is not None:
        raise UserError(f"{package} has its parts already", "planish swift PKG without --hybrid")
    whole, descriptions = chains.describe(package)
    name = unique_type(package.stem, taken)
    paths = [path for path, _ in chains.read_plan(package).parts]
    parts = [Part(p, f"{name}{i}{p.suffix}", d) for i, (p, d) in enumerate(zip(paths, descriptions, strict=True))]
    return swift_model(name, whole, parts)


def _fill(draft: Path, library: str, models: Sequence[SwiftModel]) -> None:
    import json

    environment = _environment()
    sources = draft / "Sources" / library
    (sources / "Resources").mkdir(parents=True)
    release = max((m.description.os for m in models), key=lambda os: int(os.removeprefix("ios") or 0))
    ios, macos, tools = _PLATFORMS[release]
    said = {"library": library, "models": models, "version": version("planish")}
    copied = {p.resource: p.source for m in models for p in m.parts}
    said |= {"resources": list(copied)}
    said |= {"ios": ios, "macos": macos, "tools": tools, "benchmark": f"{library.lower()}-benchmark"}
    (draft / "Sources" / "Benchmark").mkdir()
    for template, path in (
        ("Package.swift", draft / "Package.swift"),
        ("README.md", draft / "README.md"),
        ("main.swift", draft / "Sources" / "Benchmark" / "main.swift"),
    ):
        path.write_text(environment.get_template(f"{template}.jinja").render(said), encoding="utf-8")
    for model in models:
        text = environment.get_template("Model.swift.jinja").render(model=model, **said)
        (sources / f"{model.name}.swift").write_text(text, encoding="utf-8")
    for resource, source in copied.items():
        shutil.copytree(source, sources / "Resources" / resource)
    runtime = resources.files("codegen.swift") / "runtime" / "Sources" / "PlanishRuntime"
    with resources.as_file(runtime) as folder:
        shutil.copytree(folder, draft / "Sources" / "PlanishRuntime")
    from compiler.execution.description import content_hash

    mark = {
        "planish": said["version"],
        "library": library,
        "models": [
            {"name": m.name, "parts": [{"package": p.source.name, "sha256": content_hash(p.source)} for p in m.parts]}
            for m in models
        ],
    }
    (draft / MARK).write_text(json.dumps(mark, indent=1) + "\n", encoding="utf-8")


def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("codegen.swift", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {"literal": literal, "comment": comment}
    return environment
