"""The command line: ``compile`` and ``planish``. Heavy imports stay inside the commands, so that --help is fast."""

from __future__ import annotations

import typer

from compiler.cli import rules, store
from compiler.cli.bench import bench_command
from compiler.cli.bundle import bundle_command
from compiler.cli.compare import compare_command
from compiler.cli.compile import compile_command
from compiler.cli.console import main
from compiler.cli.distil import distil_command
from compiler.cli.export import export_command
from compiler.cli.inspect import show_command
from compiler.cli.optimize import optimize_command
from compiler.cli.run import run_command
from compiler.cli.serve import serve_command
from compiler.cli.swift import swift_command
from compiler.cli.targets import targets_command


def _app(**kwargs: str) -> typer.Typer:
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, **kwargs)  # type: ignore[arg-type]


compile_app = _app()
compile_app.command()(compile_command)

planish_app = _app(help="A compiler from ONNX to Core ML whose knowledge is rules that you can read, prove and write.")
planish_app.command("compile", no_args_is_help=True)(compile_command)
planish_app.command("bundle", no_args_is_help=True)(bundle_command)
planish_app.command("run", no_args_is_help=True)(run_command)
planish_app.command("serve", no_args_is_help=True)(serve_command)
planish_app.command("swift", no_args_is_help=True)(swift_command)
planish_app.command("export", no_args_is_help=True)(export_command)
planish_app.command("show", no_args_is_help=True)(show_command)
planish_app.command("distil", no_args_is_help=True)(distil_command)
planish_app.command("optimize", no_args_is_help=True)(optimize_command)
planish_app.command("compare", no_args_is_help=True)(compare_command)
planish_app.command("bench", no_args_is_help=True)(bench_command)
planish_app.command("targets")(targets_command)
planish_app.add_typer(rules.app, name="rules")
planish_app.add_typer(store.app, name="store")


def compile_main() -> None:
    """The console script ``compile``."""
    main(compile_app, "compile")


def planish_main() -> None:
    """The console script ``planish``."""
    main(planish_app, "planish")
