"""``--hybrid``: a model that Core ML cannot express as a whole, in parts: Core ML packages with Metal kernels between.

Operators that the rules of stage lower leave over go to kernels, all others to Core ML; where one needs what the other
gives, a new part begins. Each part is a model of its own, compiled and proven like any other, and what comes out at the
end of the chain is held against the original model again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler import ir
from compiler.emit import to_prove
from compiler.errors import UnsupportedError, UserError, VerificationError
from compiler.execution.parts import PLAN, Session
from compiler.options import Options
from compiler.output import Output
from compiler.proof import Reference, judge
from compiler.report import Progress, Report, Silent, error_text, size_on_disk
from compiler.stages import LOWERING, import_model, load_library, optimize, rewrite, run
from compiler.target import Target

if TYPE_CHECKING:
    import onnx

    from compiler.driver import Compilation
    from compiler.rewrite import Library

Array = np.ndarray[Any, Any]

SUFFIX = ".hybridpackage"
FORMAT = 1

_PACKAGES = {"coreml": ".mlpackage", "metal": ".metalpackage"}


@dataclass(frozen=True)
class Part:
    """A stretch of the model: for whom it is, and a function that stands for itself."""

    kind: str
    function: ir.Function

    @property
    def inputs(self) -> list[str]:
        return [a.name for a in self.function.inputs]

    @property
    def outputs(self) -> list[str]:
        return list(self.function.output_names)


def compile_in_parts(
    model: str | Path | onnx.ModelProto, output: str | Path | None, options: Options, progress: Progress | None
) -> Compilation | None:
    """Compiles a model into a folder of parts and a plan; None where Core ML can express all of it.

    Raises:
        UserError, UnsupportedError, VerificationError: as a compile raises them, for the whole or for a part.
    """
    from compiler.driver import Compilation, compile_model
    from compiler.export import to_onnx

    if options.target.unit == "metal":
        raise UserError("--hybrid splits what is for Core ML, and --target metal is all kernels", "--target ane")
    if options.interface.features or options.compression is not None or options.page is not None:
        raise UnsupportedError("a model in parts takes no pictures, states, compression or page", "leave out --hybrid")
    name = str(model) if isinstance(model, (str, Path)) else model.graph.name or "model"
    library = load_library(options)
    probed = Report(name, options.target, options.target.precision, Silent())
    module = import_model(model, options, library, probed)
    optimize(module, library, probed)
    left = refused(module, library, probed)
    if not left:
        return None
    report = Report(name, options.target, options.target.precision, progress or Silent())
    reference, tries = to_prove(model, module, options)
    parts = cut(module.main, left)
    with Output(output if output is not None else f"{Path(name).stem}{SUFFIX}") as out:
        out.draft.mkdir()
        protos = [to_onnx(p.function) for p in parts]
        chain = _chain(parts, protos, tries)
        for i, (part, proto) in enumerate(zip(parts, protos, strict=True)):
            with report.stage(f"part {i}") as stage:
                target = options.target
                if part.kind == "metal":
                    target = Target.of("metal", target.os, target.precision, target.chip)
                how = dataclasses.replace(
                    options, target=target, hybrid=False, shapes={}, metadata=None, inputs=chain[i] if chain else None
                )
                made = compile_model(proto, out.draft / f"{i}{_PACKAGES[part.kind]}", how, Silent())
                report.rules.update(made.report.rules)
                report.notes.extend(f"part {i}: {note}" for note in made.report.notes)
                stage.what = f"{'Metal kernels' if part.kind == 'metal' else 'Core ML'}: {_nodes(part)}"
                stage.result = f"{', '.join(part.inputs)} → {', '.join(part.outputs)}"
        (out.draft / PLAN).write_text(json.dumps(_plan(module, parts), indent=1, ensure_ascii=False), encoding="utf-8")
        report.bytes["package"] = size_on_disk(out.draft)
        report.placement = {"predicted": False, "unit": "hybrid", "parts": [p.kind for p in parts]}
        if reference is not None:
            _prove(out.draft, module.main.output_names, reference, tries, library, report)
        out.publish()
    report.output = str(out.path)
    return Compilation(out.path, module, report)


def sentence(facts: Mapping[str, Any]) -> str:
    """``3 parts: Core ML, Metal kernels, Core ML``."""
    titles = ["Metal kernels" if kind == "metal" else "Core ML" for kind in facts["parts"]]
    return f"{len(titles)} parts: {', '.join(titles)}"


def refused(module: ir.Module, library: Library, report: Report) -> set[ir.Op]:
    """The operators of a fused module that stage lower would leave over, told by the nodes that they come from, and
    what reads a tensor of unknown size of theirs."""
    from passes import dce

    probe = ir.clone_module(module)
    rewrite(library, probe, "lower", report, LOWERING)
    run(dce, probe, LOWERING)
    left = {n for op in probe.walk() if op.defn.dialect not in ("mil", "ir") for n in op.loc.nodes}
    out = {op for op in module.main.block.ops if op.defn.constant is None and left.intersection(op.loc.nodes)}
    for op in module.main.block.ops:  # rows whose number is only known at run time go to no other part
        if not op.defn.terminator and any(v.op in out and not _is_static(v) for v in _read(op)):
            out.add(op)
    return out


def _is_static(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType) and value.type.is_static


def cut(function: ir.Function, left: set[ir.Op]) -> list[Part]:
    """The parts in the order in which they run: as few as the order of operators leaves.

    Raises:
        UnsupportedError: what goes from part to part has no known shape, or an output is computed by nobody.
    """
    level: dict[ir.Op, int] = {}
    for op in function.block.ops:
        if op.defn.terminator or op.defn.constant is not None:
            continue
        before = max((level[v.op] for v in _read(op) if v.op in level), default=0)
        level[op] = before + ((before % 2 == 1) != (op in left))
    outside = _names(function, level)
    parts = []
    for k in sorted(set(level.values())):
        ops = [op for op in level if level[op] == k]
        own = {r for op in ops for r in op.results}
        needed = dict.fromkeys(v for op in ops for v in _read(op) if v not in own)
        constants = [v.op for v in needed if v.constant is not None and v.op is not None]
        given = [v for v in needed if v.constant is None]
        gives = [v for v in outside if v in own]
        for v in given:
            if not _is_static(v):
                raise UnsupportedError(
                    f"'{outside[v]}' goes from part to part, and its shape is only known at run time",
                    "--shape for every open dimension",
                )
        made = ir.Function("main", [(outside[v], v.type) for v in given], [outside[v] for v in gives])
        values: dict[ir.Value, ir.Value] = dict(zip(given, made.inputs, strict=True))
        ir.clone_ops([*dict.fromkeys(constants), *ops], made.block, values)
        made.block.append(ir.Op("ir.return", [values[v] for v in gives]))
        parts.append(Part("metal" if k % 2 else "coreml", made))
    return parts


def _read(op: ir.Op) -> Iterator[ir.Value]:
    """What an operator reads, also inside its regions."""
    inside: set[ir.Value] = set()
    for nested in (op, *(o for region in op.regions for o in region.walk())):
        for region in nested.regions:
            inside.update(region.arguments)
        if nested is not op:
            inside.update(nested.results)
    for nested in (op, *(o for region in op.regions for o in region.walk())):
        yield from (v for v in nested.operands if v is not None and v not in inside)


def _names(function: ir.Function, level: Mapping[ir.Op, int]) -> dict[ir.Value, str]:
    """Names of the function's inputs, its outputs, and what goes from part to part, in the order of their making."""
    names: dict[ir.Value, str] = {a: a.name for a in function.inputs}
    outputs = dict(zip(function.outputs, function.output_names, strict=True))
    if len(outputs) < len(function.output_names) or any(v.op not in level for v in outputs):
        raise UnsupportedError(
            "an output is an input, a constant or another output, which no part gives", "leave out --hybrid"
        )
    taken = {*names.values(), *function.output_names}
    crossing = {v for op in level for v in _read(op) if v.op is not None and level.get(v.op, level[op]) != level[op]}
    for op in level:
        for v in op.results:
            if v in outputs:
                names[v] = outputs[v]
            elif v in crossing:
                name = next(n for n in (f"between_{i}" for i in range(len(names), 10**6)) if n not in taken)
                taken.add(name)
                names[v] = name
    return names


def _nodes(part: Part) -> str:
    ops = [op for op in part.function.block.ops if op.defn.constant is None and not op.defn.terminator]
    shown = ", ".join(dict.fromkeys(op.name.partition(".")[2] for op in ops[:4]))
    return f"{len(ops)} ops ({shown}{' …' if len(ops) > 4 else ''})"


def _plan(module: ir.Module, parts: Sequence[Part]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": module.name,
        "inputs": [a.name for a in module.main.inputs],
        "outputs": list(module.main.output_names),
        "parts": [
            {"kind": p.kind, "package": f"{i}{_PACKAGES[p.kind]}", "inputs": p.inputs, "outputs": p.outputs}
            for i, p in enumerate(parts)
        ],
    }


def _chain(
    parts: Sequence[Part], protos: Sequence[Any], tries: Sequence[Mapping[str, Array]]
) -> list[dict[str, Array]]:
    """What each part takes when the model is run on the first set of inputs, as onnxruntime computes it."""
    if not tries:
        return []
    known = dict(tries[0])
    out = []
    for part, proto in zip(parts, protos, strict=True):
        out.append({n: known[n] for n in part.inputs})
        known.update(zip(part.outputs, Reference(proto).run(out[-1]), strict=True))
    return out


def _prove(
    draft: Path,
    names: Sequence[str],
    reference: Reference,
    tries: Sequence[Mapping[str, Array]],
    library: Library,
    report: Report,
) -> None:
    with report.stage("prove") as stage:
        session = Session(draft, library)
        ours = [[session.run(one)[n] for n in names] for one in tries]
        report.verify = judge(names, ours, [reference.run(one) for one in tries], report.accuracy, report.limit)
        worst = report.verify.worst
        if worst is not None:
            stage.what = f"{worst[0]}   {error_text(worst[1], report.verify.limit)}"
            stage.result = "proven" if report.verify.passed else "wrong"
    if not report.verify.passed:
        assert worst is not None
        said = VerificationError(
            f"output '{worst[0]}' of the parts together is off: {error_text(worst[1], report.verify.limit)}",
            "--precision fp32",
        )
        said.report = report
        raise said
