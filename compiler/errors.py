"""The errors a user sees: one sentence that names the place, and the remedy.

The command line turns :class:`UserError` into exit code 2 and :class:`VerificationError` into exit code 1. Anything
else that escapes is a bug of ours.
"""

from __future__ import annotations


class PlanishError(Exception):
    """Base of the errors that are meant for the person at the keyboard.

    Attributes:
        message: one sentence: what was being done, to which node or line, and why it cannot be.
        remedy: what to try, or None.
        located: whether the message says itself where each error is, as ``file:line:column: error: …``.
    """

    exit_code = 2
    located = False

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  try: {self.remedy}" if self.remedy else self.message


class UserError(PlanishError):
    """The input cannot be used as it is: a broken file, a wrong shape, a bad option."""


class UnsupportedError(PlanishError):
    """The model needs something that the target, or this compiler, cannot do."""


class VerificationError(PlanishError):
    """A package was written that does not compute what the model computes.

    Attributes:
        report: the report of the compile, with how far each output is off; None where there is none.
    """

    exit_code = 1
    report: object = None
