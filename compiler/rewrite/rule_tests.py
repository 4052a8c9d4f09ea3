"""``planish rules test``: the ``test`` blocks that stand beside rules.

``before`` is built as a graph, the rule alone is applied, and what comes out is compared with ``after``, operator by
operator, whatever values are called and in whatever order operators stand that do not need each other.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from compiler.ir import (
    DTYPES,
    Block,
    Function,
    InferenceError,
    Module,
    Op,
    TensorType,
    Value,
    clone_module,
    print_op,
    verify,
)
from compiler.rewrite import syntax as s
from compiler.rewrite.build import RuleBuilder
from compiler.rewrite.diagnostics import Diagnostic, RewriteError, RuleError
from compiler.rewrite.driver import NO_TARGET, rewrite
from compiler.rewrite.expressions import ExpressionCompiler, local
from compiler.rewrite.functions import Decline
from compiler.rewrite.library import Library
from compiler.rewrite.resolve import Resolver
from compiler.rewrite.resolve_names import Binding
from compiler.rewrite.stage import Stage


@dataclass(frozen=True, slots=True)
class TestResult:
    """What came of one ``test`` block; ``message`` is empty if it passed."""

    __test__ = False  # not a pytest class

    rule: str
    test: s.Test
    message: str = ""

    @property
    def passed(self) -> bool:
        return not self.message


def run_tests(library: Library, rules: Iterable[s.Rule]) -> Iterator[TestResult]:
    """Runs the test blocks of rules, in order.

    Raises:
        RuleError: a block is wrong: it names what is not there, or builds what cannot be.
    """
    for rule in rules:
        for test in rule.tests:
            yield run_test(library, rule, test)


def findings(library: Library, rule: s.Rule) -> list[Diagnostic]:
    """What is wrong with the test blocks of a rule, without running them."""
    out: list[Diagnostic] = []
    for test in rule.tests:
        wanted = outputs_of(test) if test.after is not None else None
        for statements in (test.before, test.after or ()):
            try:
                if statements:
                    build_graph(library, rule, test, statements, wanted)
            except RuleError as e:
                out.extend(e.diagnostics)
    return out


def run_test(library: Library, rule: s.Rule, test: s.Test) -> TestResult:
    """Runs one test block. Raises RuleError as :func:`run_tests` does."""
    wanted = outputs_of(test) if test.after is not None else None
    module = build_graph(library, rule, test, test.before, wanted)
    before = clone_module(module)
    entries = [e for e in library.stage(rule.stage).entries if e.rule.name == rule.name]
    try:
        fired = rewrite(module, Stage(rule.stage, entries), NO_TARGET).fires
        verify(module)
    except RewriteError as e:
        return TestResult(rule.name, test, str(e))
    if test.after is None:
        if not fired:
            return TestResult(rule.name, test)
        because = f", although {test.because}" if test.because else ""
        return TestResult(
            rule.name, test, f"the rule fires{because}; it makes of it:\n{_indented(normal_form(module))}"
        )
    if not fired:
        return TestResult(rule.name, test, f"the rule does not fire on:\n{_indented(normal_form(before))}")
    expected = normal_form(build_graph(library, rule, test, test.after, wanted))
    found = normal_form(module)
    if found == expected:
        return TestResult(rule.name, test)
    diff = [line for line in difflib.ndiff(expected, found) if not line.startswith("?")]
    return TestResult(rule.name, test, f"the result differs (- expected, + found):\n{_indented(diff)}")


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"    {line}" for line in lines)


# ---- building


def outputs_of(test: s.Test) -> set[str]:
    """The names that the graphs before and after give out: those that both have; of an unchanged one, the last."""
    before = {t.id for stmt in test.before for t in stmt.targets}
    if test.after is None:
        return {t.id for t in test.before[-1].targets}
    after = {t.id for stmt in test.after for t in stmt.targets}
    return before & after or after


def build_graph(
    library: Library, rule: s.Rule, test: s.Test, statements: Sequence[s.BuildStmt], wanted: set[str] | None
) -> Module:
    """The module that statements of a test block say.

    Its outputs are the names in ``wanted``, or those not used further.

    Raises:
        RuleError: they name what is not there, or build what cannot be.
    """
    file = next(f for f in library.files if rule in f.rules)
    resolver = Resolver(library.env, file)
    resolver.use = rule.use
    compiler = ExpressionCompiler(library.env, library.externs)
    function = Function("main", {g.id: _type(g, g.constraint) for g in test.givens if g.constraint is not None})
    end = function.block.append(Op("ir.return", ()))
    builder = RuleBuilder(end, end.loc, NO_TARGET)
    values: dict[str, Any] = {local(a.name): a for a in function.inputs}
    scope: dict[str, Binding] = {a.name: Binding("value") for a in function.inputs}
    made: dict[str, Any] = {}
    try:
        for g in test.givens:
            if g.value is not None:
                source = compiler.data(resolver.expr(g.value, scope), scope)
                _no_errors(resolver, library)
                values[local(g.id)] = eval(source, {**compiler.globals}, {**values, "target": NO_TARGET})
                scope[g.id] = Binding("data")
        for stmt in statements:
            resolver.all_results(stmt)
            value = resolver.expr(stmt.value, scope, building=True)
            _no_errors(resolver, library)
            source = compiler.build(value, scope, len(stmt.targets))
            result = eval(source, {**compiler.globals, **values, "B": builder, "target": NO_TARGET})
            results = result if len(stmt.targets) > 1 else (result,)
            for t, r in zip(stmt.targets, results):
                values[local(t.id)] = made[t.id] = r
                scope[t.id] = Binding("value" if isinstance(r, Value) else "data")
    except (InferenceError, Decline) as e:
        raise _error(file.path, test.pos, f"the graph of this test cannot be built: {e}", library) from None
    used = set().union(*(s.mentioned(stmt.value) for stmt in statements)) if statements else set()
    names = [n for n in made if (n in wanted if wanted is not None else n not in used)]
    if wanted is not None and not names:
        raise _error(file.path, test.pos, "'before' and 'after' have no name in common", library)
    outputs: list[Value] = []
    for n in sorted(names):
        v = made[n]
        outputs.append(v if isinstance(v, Value) else builder.constant(v, _dialect(function.block)))
    function.set_outputs(outputs, [f"{n}_" if n in {a.name for a in function.inputs} else n for n in sorted(names)])
    module = Module("test")
    module.add(function)
    return module


def _dialect(block: Block) -> str:
    return next((op.defn.dialect for op in block.ops if op.defn.dialect != "ir"), "onnx")


def _type(g: s.Given, c: s.Constraint | None) -> TensorType:
    assert c is not None
    dtypes = c.dtypes or ("f32",)
    dims = None if c.dims is None else tuple(d.value for d in c.dims)
    return TensorType(DTYPES[dtypes[0]], dims)


def _no_errors(resolver: Resolver, library: Library) -> None:
    errors = [d for d in resolver.diagnostics if d.severity == "error"]
    if errors:
        raise RuleError(errors, library.sources)


def _error(file: str, pos: s.Pos, message: str, library: Library) -> RuleError:
    return RuleError([Diagnostic(file, pos, message, code="test")], library.sources)


# ---- comparing


def normal_form(module: Module) -> list[str]:
    """The function's operators, one a line.

    Only what the outputs need, in an order that follows from them, values named by number, types left out.
    """
    function = module.main
    names: dict[Value, str] = {a: f"%{a.name}" for a in function.inputs}
    lines: list[str] = []

    def visit(op: Op) -> None:
        if all(r in names for r in op.results):
            return
        for v in op.operands:
            if v is not None and v.op is not None and v not in names:
                visit(v.op)
        for region in op.regions:
            for inner in region.walk():
                for v in inner.operands:
                    if v is not None and v.op is not None and v.op.block is function.block and v not in names:
                        visit(v.op)
        for r in op.results:
            names[r] = f"%{len(names)}"
        lines.append(_line(op, names))

    end = function.block.terminator
    assert end is not None
    for v in end.operands:
        if v is not None and v.op is not None:
            visit(v.op)
    lines.append("return " + ", ".join(names[v] for v in end.operands if v is not None))
    return lines


def _line(op: Op, names: dict[Value, str]) -> str:
    if op.regions:
        return print_op(op, inline=None)
    hints = {v: v.name for v in (*op.operands, *op.results) if v is not None}
    for v in hints:
        v.name = names[v].removeprefix("%")
    try:
        text = print_op(op, inline=None)
    finally:
        for v, hint in hints.items():
            v.name = hint
    return text if op.defn.constant is not None else text.rpartition(" : ")[0]
