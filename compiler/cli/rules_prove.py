"""``planish rules prove``, ``test``, ``explain``, ``stats``: what rules do, and whether it is right."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from compiler.driver import Options
    from compiler.rewrite.library import Library
    from compiler.rewrite.prove import Proof, Prover
    from compiler.rewrite.syntax import Rule

Files = Annotated[list[Path] | None, typer.Argument(metavar="[FILE]…", show_default="the compiler's own rules")]
Named = Annotated[list[str] | None, typer.Option("--rule", metavar="NAME", help="Only this rule.", show_default=False)]
Stages = Annotated[list[str] | None, typer.Option("--stage", metavar="STAGE", help="Only rules of this stage.")]
More = Annotated[list[Path] | None, typer.Option("--rules", metavar="FILE", help="A file of rules of your own.")]
TargetOption = Annotated[str, typer.Option(help="ane, gpu, cpu or metal.")]
OsOption = Annotated[str, typer.Option(help="ios16, ios17, ios18 or ios26.")]
Shapes = Annotated[list[str] | None, typer.Option("--shape", metavar="NAME=1,3,224,224", help="An input's shape.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("prove")(prove_command)
    app.command("test")(test_command)
    app.command("explain")(explain_command)
    app.command("stats")(stats_command)


def prove_command(
    files: Files = None,
    rule: Named = None,
    stage: Stages = None,
    count: Annotated[int, typer.Option(help="Instances of each rule.", min=1)] = 200,
    fast: Annotated[bool, typer.Option("--fast", help="20 instances of each rule.")] = False,
    seed: Annotated[int, typer.Option(help="Where the random numbers start.")] = 0,
    jobs: Annotated[int, typer.Option(help="Rules at a time.", min=0, show_default="as many as cores")] = 0,
    cluster: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler whose workers prove; extra 'cluster'.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE.ir", help="Run a counterexample again, on the rule it names.")
    ] = None,
) -> None:
    """Hold rules to their contracts on random instances, in onnxruntime. Exit code 1 if one is wrong or has too few."""
    from compiler.errors import UserError
    from compiler.proving.library import prover_of

    library, chosen = _chosen(files, rule, stage)
    prover = prover_of(library)
    if replay is not None:
        _replay(prover, replay)
        return
    if not chosen:
        raise UserError(f"there is no rule to prove in {', '.join(map(str, files or ()))}", "a file with rules")
    many = 20 if fast else count
    if cluster is not None:
        from compiler.proving import cluster as cluster_

        prover.warm(chosen)  # what is wrong with a stage is said here, not there
        proofs = cluster_.prove(cluster, _own(files), chosen, many, seed)
    else:
        proofs = prover.prove_all(chosen, many, seed, jobs or os.cpu_count() or 1)
    bad = total = instances = 0
    oracles: Counter[str] = Counter()
    for proof in proofs:
        total += 1
        instances += proof.instances
        oracles.update(proof.oracles)
        if not proof.holds:
            bad += 1
            typer.echo(_report(proof, files or ()))
    typer.echo(f"{total - bad} of {total} rules proved on {instances} instances")
    if oracles:
        typer.echo("held to " + ", ".join(f"{name} {n}" for name, n in oracles.most_common()))
    if bad:
        raise typer.Exit(1)


def _report(proof: Proof, files: Sequence[Path]) -> str:
    if not proof.wrong:
        return f"{proof.rule}: {proof.stuck}"
    name = f"{proof.rule}.ir"
    again = " ".join(["planish rules prove", *map(str, files), "--replay"])
    try:
        Path(name).write_text(proof.counterexample, encoding="utf-8")
        how = f"  again: {again} {name}"
    except OSError:
        how = f"  again: keep the text above as a file, and {again} FILE"
    indented = "".join(f"    {line}\n" for line in proof.counterexample.splitlines())
    return f"{proof.rule}: wrong: {proof.wrong}\n{indented}{how}"


def _replay(prover: Prover, path: Path) -> None:
    from compiler.errors import UserError
    from compiler.ir import parse_module
    from compiler.rewrite.explain import known_rule

    try:
        module = parse_module(path.read_text(encoding="utf-8"), file=str(path))
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from None
    name = module.attributes.get("rule")
    if not isinstance(name, str):
        raise UserError(f"{path} names no rule", "a file that planish rules prove has written")
    verdict = prover.replay(known_rule(prover.library, name), module)
    typer.echo(f"{name}: {verdict.kind}{': ' if verdict.text else ''}{verdict.text}")
    if verdict.kind == "wrong":
        raise typer.Exit(1)


def test_command(files: Files = None, rule: Named = None) -> None:  # noqa: PT028 (not a pytest function)
    """Run the test blocks beside rules. Exit code 1 if one fails."""
    from compiler.rewrite.rule_tests import run_tests

    library, chosen = _chosen(files, rule)
    passed = failed = 0
    for result in run_tests(library, chosen):
        if result.passed:
            passed += 1
            continue
        failed += 1
        file = library.rules[result.rule].file
        typer.echo(f"{file}:{result.test.pos.line}: {result.rule}: {result.test.doc or 'test'}: {result.message}")
    typer.echo(f"{passed} passed, {failed} failed")
    if failed:
        raise typer.Exit(1)


def explain_command(
    name: Annotated[str, typer.Argument(help="The rule.", show_default=False)],
    model: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="The model to look at.", show_default="none: the rule itself")
    ] = None,
    node: Annotated[str | None, typer.Option(metavar="N", help="Only where this node of the model is.")] = None,
    most: Annotated[int, typer.Option(help="How many misses to show.")] = 3,
    rules: More = None,
    target: TargetOption = "ane",
    os_: Annotated[str, typer.Option("--os", help="ios16, ios17, ios18 or ios26.")] = "ios17",
    shape: Shapes = None,
) -> None:
    """Show a rule: where it stands and what it says. With --model, say where it fires on a model, and for the nearest
    misses which clause failed and what it saw."""
    from compiler.proving.library import library_of

    if model is None:
        from compiler.rewrite.catalogue import card

        typer.echo(card(library_of(rules or ()), name))
        return
    from compiler.rewrite.explain import Watch

    options = _options(rules, target, os_, shape)
    watch = Watch(library_of(rules or ()), name, node)
    _drive(model, options, watch)
    typer.echo(watch.render(most))


def stats_command(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL|FOLDER…", show_default=False)],
    rules: More = None,
    target: TargetOption = "ane",
    os_: Annotated[str, typer.Option("--os", help="ios16, ios17, ios18 or ios26.")] = "ios17",
) -> None:
    """Count what rules do over models: attempts, fires, results turned down, time, operators added or removed."""
    from rich.console import Console
    from rich.table import Table

    from compiler.errors import PlanishError, UserError
    from compiler.proving.library import library_of
    from compiler.rewrite.meter import Meter

    for m in models:
        if not m.exists():
            raise UserError(f"there is no {m}", "a model, or a folder of models")
    meter = Meter(library_of(rules or ()))
    paths = [p for m in models for p in (sorted(m.rglob("*.onnx")) if m.is_dir() else [m])]
    done = 0
    for path in paths:
        try:
            _drive(path, _options(rules, target, os_, None), meter)
            done += 1
        except PlanishError as e:
            typer.echo(f"{path}: {e.message.splitlines()[0]}")
    table = Table("rule", "attempts", "fires", "turned down", "ms", "ops", box=None, pad_edge=False)
    for name, t in sorted(meter.total.items(), key=lambda item: (-item[1].fires, -item[1].seconds)):
        if t.attempts:
            numbers = (t.attempts, t.fires, t.rejected)
            table.add_row(name, *(f"{n:,}" for n in numbers), f"{1e3 * t.seconds:.1f}", f"{t.ops:+,}")
    Console(highlight=False).print(table)
    typer.echo(f"{done} of {len(paths)} models, {meter.visits:,} visits, {meter.seconds:.2f} s")
    if meter.silent:
        typer.echo(f"{len(meter.silent)} rules never fire here: {', '.join(sorted(meter.silent))}")
    if not done:
        raise typer.Exit(2)


def _chosen(
    files: Sequence[Path] | None, names: Sequence[str] | None, stages: Sequence[str] | None = None
) -> tuple[Library, list[Rule]]:
    """The library with the files, and the rules asked for.

    Raises:
        UserError: there is no such rule or stage.
    """
    from compiler.errors import UserError
    from compiler.proving.library import library_of
    from compiler.rewrite.explain import known_rule

    own = _own(files)
    wanted = [str(f) if f in own else f"rules/{f.name}" for f in files] if files else None
    library = library_of(own)
    rules = [r for r in library.rules.values() if wanted is None or r.file in wanted]
    if names:
        rules = [known_rule(library, n) for n in names]
    if stages:
        known = list(dict.fromkeys(r.stage for r in library.rules.values()))
        for stage in stages:
            if stage not in known:
                raise UserError(f"there is no stage {stage}", f"one of {', '.join(known)}")
        rules = [r for r in rules if r.stage in stages]
    return library, rules


def _own(files: Sequence[Path] | None) -> list[Path]:
    """Those files that are not the library's."""
    from compiler.rewrite.load import LIBRARY

    return [f for f in files or () if f.resolve().parent != LIBRARY]


def _options(rules: Sequence[Path] | None, target: str, os: str, shape: Sequence[str] | None) -> Options:
    from compiler import shapes
    from compiler.driver import Options
    from compiler.target import Target

    # Without shapes, open dimensions stay open: nothing is written here, so nothing needs to know them.
    known: Any = dict(shapes.parse(s) for s in shape) if shape else None
    return Options(Target.of(target, os), known, rules or ())


def _drive(model: Path, options: Options, library: Any) -> None:
    """Takes a model through all stages of rewriting, as far as it gets."""
    from compiler import driver
    from compiler.errors import UnsupportedError
    from compiler.report import Report

    report = Report(str(model), options.target)
    module = driver.import_model(model, options, library, report)
    driver.optimize(module, library, report)
    try:
        driver.descend(module, library, report, options)
    except UnsupportedError:
        return  # what is left without a lowering is what one may want explained
