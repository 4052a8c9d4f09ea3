"""What a golden file's RUN line can name: ``pass NAME``, ``rules STAGE``, ``roundtrip``, each with ``{options}``."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from compiler import ir, meaning
from compiler.errors import PlanishError
from compiler.rewrite import Library, RuleError, load_library, rewrite
from compiler.target import Target

SEPARATOR = "// -----\n"
#: Golden files stand for themselves, so that nearly every constant is written out.
INLINE = 256

_STEP = re.compile(r"\s*([a-z]+)(?:\s+([A-Za-z0-9_.]+))?\s*(\{[^}]*\})?\s*(?:,|$)")


def _pass(module: ir.Module, name: str, options: dict[str, Any]) -> ir.Module:
    replaced = importlib.import_module(f"passes.{name}").run(module, **options)
    return replaced if isinstance(replaced, ir.Module) else module


@cache
def _library() -> Library:
    library = load_library()
    meaning.install(library)  # results of mil operators have the types of what they mean
    return library


def _rules(module: ir.Module, stage: str, options: dict[str, Any]) -> ir.Module:
    if stage not in _library().stages:
        raise ValueError(f"no rule is of stage '{stage}'; there are {', '.join(_library().stages)}")
    rewrite(module, _library().stage(stage), Target.of(options.pop("target", "cpu"), **options))
    return module


def _roundtrip(module: ir.Module, _: str, options: dict[str, Any]) -> ir.Module:
    return ir.parse_module(ir.print_module(module, inline=None))


STEPS: dict[str, Callable[[ir.Module, str, dict[str, Any]], ir.Module]] = {
    "pass": _pass,
    "rules": _rules,
    "roundtrip": _roundtrip,
}


def parse_pipeline(line: str) -> list[tuple[str, str, dict[str, Any]]]:
    """The steps of ``pass cse, rules fuse {target = "ane"}``: kind, name and options of each."""
    steps = []
    at = 0
    while at < len(line):
        found = _STEP.match(line, at)
        if not found or found.group(1) not in STEPS:
            raise ValueError(f"no step in '{line[at:].strip()}'; a step is one of {', '.join(STEPS)}, and a name")
        kind, name, options = found.groups()
        steps.append((kind, name or "", ir.parse_attributes(options) if options else {}))
        at = found.end()
    return steps


def run(text: str, file: str) -> str:
    """What the golden file ``text`` should be: its head and input as they are, then what comes out.

    A refusal, which is an error made for users, is an outcome like any other: it stands as ``// error:`` lines.
    """
    source, _, _ = text.partition(SEPARATOR)
    marked = [line.removeprefix("// RUN:") for line in source.splitlines() if line.startswith("// RUN:")]
    if len(marked) != 1:
        raise ValueError(f"{file} needs one line '// RUN: pass NAME, rules STAGE, …'")
    steps = parse_pipeline(marked[0].strip())
    module = ir.parse_module(source, file=file)
    ir.verify(module, f"reading {file}")
    try:
        for kind, name, options in steps:
            module = STEPS[kind](module, name, options)
            ir.verify(module, f"{kind} {name}".strip())
    except RuleError:
        raise  # the rule library is broken, which is no outcome of a case
    except PlanishError as e:
        out = "".join(f"// error: {line}\n" for line in str(e).splitlines())
    else:
        out = ir.print_module(module, inline=INLINE)
    return source.rstrip("\n") + "\n" + SEPARATOR + out
