"""Kernels that the user writes: what there is to start from, and the file that comes back."""

from __future__ import annotations

import re
from pathlib import Path

from codegen.metal.signature import BUILTINS, Signature, SignatureError, plain, signatures, strip_comments
from compiler.errors import UserError

_DISPATCHED = re.compile(r"//\s*dispatched as (\d+) threadgroups? of (\d+) threads?\s*$")
_REMEDY = "the signature that --emit stubs writes for it"


def stub(name: str, text: str, comment: str, groups: int, threads: int) -> str:
    """A kernel to be written by hand, with a body that does what is asked.

    Args:
        text: parameters and body.
        comment: what it computes.
    """
    return (
        f"\n{comment}\n// Yours to write, with these buffers. The line below says how it is started, and may change."
        f"\n// dispatched as {groups} threadgroups of {threads} threads\nkernel void {name}{text}"
    )


class Handwritten:
    """A file of kernels that take the place of those that rules name."""

    def __init__(self, path: str | Path) -> None:
        """Reads the file.

        Raises:
            UserError: it cannot be read, or a signature breaks a rule of Metal's.
        """
        self.path = Path(path)
        try:
            self.text = self.path.read_text(encoding="utf-8")
            found = signatures(plain(strip_comments(self.text)))
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"{path} cannot be read: {e}", "--kernels FILE.metal") from e
        except SignatureError as e:
            raise UserError(f"{path}: {e}", _REMEDY) from e
        if re.search(r"\[\[\s*function_constant", strip_comments(self.text)):
            raise UserError(f"{path} has function constants, that no plan sets", "constants of the file's own")
        self.kernels: dict[str, Signature] = {k.name: k for k in found}
        self._used: set[str] = set()
        self._expected: set[str] = set()

    def instead_of(self, name: str, stub: str, groups: int, threads: int) -> tuple[int, int]:
        """How the user's kernel of a name is started, where it has the signature of a stub.

        Raises:
            UserError: it has another.
        """
        (wanted,) = signatures(strip_comments(stub))
        ours, theirs = (_bindings(k) for k in (wanted, self.kernels[name]))
        for slot in ours | theirs:
            a, b = ours.get(slot), theirs.get(slot)
            if a != b:
                what = (
                    f"'{b}' at {slot}, where the plan binds {repr(a) if a else 'nothing'}"
                    if b
                    else (f"nothing at {slot}, where the plan binds '{a}'")
                )
                raise UserError(f"{self.path}:{self._line(name)}: kernel {name} takes {what}", _REMEDY)
        self._used.add(name)
        return self._dispatched(name) or (groups, threads)

    def finish(self) -> None:
        """Says if a kernel has found no place.

        Raises:
            UserError: one has not.
        """
        for name in self.kernels:
            if name not in self._used:
                raise UserError(
                    f"{self.path}:{self._line(name)}: no rule names a kernel {name}",
                    "one of the names that --emit stubs writes",
                )

    def _line(self, name: str) -> int:
        lines = strip_comments(self.text).splitlines()
        return next(i for i, line in enumerate(lines, 1) if re.search(rf"\bvoid\s+{name}\b", line))

    def _dispatched(self, name: str) -> tuple[int, int] | None:
        """What the comment above a kernel says of its threads."""
        lines = self.text.splitlines()[: self._line(name) - 1]
        while lines and lines[-1].lstrip().startswith("//"):
            if match := _DISPATCHED.match(lines.pop().strip()):
                return int(match[1]), int(match[2])
        return None


def _bindings(kernel: Signature) -> dict[str, str]:
    """The types of what a kernel is bound to, by where; its position in the grid is its own affair."""
    return {
        f"{p.attribute}({p.index})": " ".join(p.type.replace("*", " *").split()).replace(" *", "*")
        for p in kernel.parameters
        if p.attribute not in BUILTINS
    }
