"""How the command line speaks: progress while it works, a summary, errors as one sentence and a remedy."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from compiler.errors import PlanishError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

#: Exit codes besides those of :mod:`compiler.errors`.
INTERRUPTED = 130
BUG = 70


class Lines:
    """Progress as one line a stage, and a spinner for the stage at work where there is a terminal."""

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self.console: Console = Console(highlight=False, soft_wrap=True, quiet=quiet)
        self._status: Status | None = None

    def begin(self, stage: str) -> None:
        if self.console.is_terminal and not self.console.quiet:
            self.stop()
            self._status = self.console.status(f"[dim]{stage}[/]", spinner="dots")
            self._status.start()

    def end(self, stage: str, what: str, result: str) -> None:
        self.stop()
        width = max(min(self.console.width, 110) - len(result) - 2, 40) if self.console.is_terminal else 78
        self.console.print(f"  {stage:<9} {what:<{max(width - 12, 0)}}  {result}".rstrip(), markup=False)

    def note(self, text: str) -> None:
        self.stop()
        self.console.print(f"  note      {text}", style="yellow", markup=False)

    def stop(self) -> None:
        """Takes the spinner away."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def main(app: typer.Typer, name: str) -> None:
    """Runs a typer app and leaves the process with its exit code. A request to terminate cleans up as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(app, name, sys.argv[1:]))


def run(app: typer.Typer, name: str, arguments: list[str]) -> int:
    """Runs a typer app on ``arguments`` and gives its exit code.

    0 done, 1 a package failed its proof, 2 the user's mistake, 130 interrupted. An error that is none of those is a
    bug: its traceback is shown, and the code is 70.
    """
    command: Callable[..., Any] = typer.main.get_command(app)
    try:
        code = command(arguments, prog_name=name, standalone_mode=False)
        if code == INTERRUPTED:  # typer catches the interrupt itself
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except PlanishError as e:
        return _say(e.message, e.remedy, e.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted; nothing was written", None, INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as e:
        if hasattr(e, "format_message") and hasattr(e, "exit_code"):  # the command line itself is wrong
            context = getattr(e, "ctx", None)
            return _say(str(e.format_message()).strip(), f"{context.command_path} --help" if context else None, 2)
        import traceback

        traceback.print_exc()
        return _say(f"this is a bug of the compiler: {type(e).__name__}: {e}", "report it with the lines above", BUG)


def _say(message: str, remedy: str | None, code: int) -> int:
    from rich.console import Console

    sys.stdout.flush()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("error:", style="bold red", end=" ")
    console.print(message, markup=False)
    if remedy:
        console.print(f"  try: {remedy}", markup=False)
    return code
