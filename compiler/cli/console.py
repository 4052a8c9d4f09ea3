"""How the command line speaks: progress while it works, a summary, errors as one sentence and a remedy."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from compiler.errors import PlanishError
from compiler.garbage import rare_collections

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
        self._stage = ""

    def begin(self, stage: str) -> None:
        self._stage = stage
        if self.console.is_terminal and not self.console.quiet:
            self.stop()
            self._status = self.console.status(f"[dim]{stage}[/]", spinner="dots")
            self._status.start()

    def at(self, text: str) -> None:
        """How far the stage at work is: behind the spinner, where there is one."""
        if self._status is not None:
            self._status.update(f"[dim]{self._stage}   {text}[/]")

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


#: The requests to stop so far.
_requests: list[int] = []

#: How many seconds an interrupted process has to come to an end by itself.
PATIENCE = 3.0


def main(app: typer.Typer, name: str) -> None:
    """Runs a typer app and leaves the process with its exit code. A request to terminate cleans up as Ctrl-C does."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _interrupt)
    _watch()
    os.register_at_fork(after_in_child=_forget)
    with rare_collections():
        code = run(app, name, sys.argv[1:])
    if code == INTERRUPTED:
        # Libraries that were interrupted while they were loaded crash when Python takes itself down.
        sys.stderr.flush()
        os._exit(code)
    gc.freeze()  # a last collection would walk the whole graph for nothing
    sys.exit(code)


def _interrupt(number: int, frame: object) -> None:
    """The first request to stop is raised where the process is; what comes after must not disturb the cleaning up."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    _requests.append(number)
    raise KeyboardInterrupt


def _forget() -> None:
    """A forked process ends when it is asked to, and does not tell the watch of the process that it came from."""
    signal.set_wakeup_fd(-1)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_DFL)


def _watch() -> None:
    """Ends the process :data:`PATIENCE` seconds after a request to stop, if it still computes by then.

    Python cannot interrupt the code of a library, and onnxruntime may compute for hours.
    """
    requests, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)

    def wait() -> None:
        while os.read(requests, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
            pass
        threading.Event().wait(PATIENCE)
        os._exit(_interrupted())

    threading.Thread(target=wait, daemon=True).start()


def _interrupted() -> int:
    """Cleans up, and says what an interrupted process has done."""
    from compiler import output

    output.clean_up()
    done = [str(p) for p in output.published]
    return _say(f"interrupted; {' and '.join(done) or 'nothing'} was written", None, INTERRUPTED)


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
        return _say(e.message, e.remedy, e.exit_code, "" if e.located else "error: ")
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except MemoryError as e:
        what = str(e)[:1].lower() + str(e)[1:] or "no more is there"
        return _say(f"not enough memory: {what}", "a smaller model, smaller shapes, or a machine with more memory", 2)
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as e:
        if _requests:  # a library that is being loaded makes an error of its own of an interruption
            return _interrupted()
        if hasattr(e, "format_message") and hasattr(e, "exit_code"):  # the command line itself is wrong
            context = getattr(e, "ctx", None)
            return _say(str(e.format_message()).strip(), f"{context.command_path} --help" if context else None, 2)
        import traceback

        traceback.print_exc()
        return _say(f"this is a bug of the compiler: {type(e).__name__}: {e}", "report it with the lines above", BUG)


def _say(message: str, remedy: str | None, code: int, head: str = "error: ") -> int:
    from rich.console import Console

    sys.stdout.flush()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(head, style="bold red", end="")
    console.print(message, markup=False)
    if remedy:
        console.print(f"  try: {remedy}", markup=False)
    return code
