"""``planish rules``: what one does with rules. Each command stands beside what it works on and is plugged in here."""

from __future__ import annotations

import typer

from compiler.cli import rules_prove, rules_write

app = typer.Typer(
    no_args_is_help=True,
    help="Check, prove, explain, test, measure, format and document rules.",
)
rules_prove.register(app)
rules_write.register(app)
