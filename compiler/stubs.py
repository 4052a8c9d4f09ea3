"""``--emit stubs``: the kernels that rules name, for the user to write by hand (docs/metal.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compiler.driver import Compilation
from compiler.errors import UserError
from compiler.options import Options
from compiler.output import Output
from compiler.report import Progress, Report, Silent
from compiler.stages import import_model, load_library, optimize

if TYPE_CHECKING:
    import onnx

SUFFIX = ".stubs.metal"


def write_stubs(
    model: str | Path | onnx.ModelProto, output: str | Path | None, options: Options, progress: Progress | None = None
) -> Compilation:
    """Writes a Metal file with signatures, and bodies to start from, of the kernels that rules name; nothing else.

    Args:
        output: the file; the model's name with ``.stubs.metal`` in the current folder when None.

    Raises:
        UserError: no rule names a kernel.
        UnsupportedError: an operator has no kernel, or what a rule names is no kernel.
    """
    from codegen.metal import emit
    from compiler import metal

    name = str(model) if isinstance(model, (str, Path)) else model.graph.name or "model"
    report = Report(name, options.target, options.target.precision, progress or Silent())
    path = Path(output) if output is not None else Path(f"{Path(name).stem}{SUFFIX}")
    if path.exists():
        raise UserError(f"{path} is there already, and may hold what somebody wrote", "another --output FILE.metal")
    library = load_library(options)
    module = import_model(model, options, library, report)
    optimize(module, library, report)
    metal.lower(module, library, report)
    with report.stage("stubs") as stage, Output(path) as out:
        text = emit.stubs(module, options.target.precision == "fp16")
        out.draft.write_text(text, encoding="utf-8")
        out.publish()
        count = text.count("kernel void ")
        stage.what = f"{path.name}   {count} kernel{'s' * (count > 1)} to write"
    report.output = str(path)
    return Compilation(path, module, report)
