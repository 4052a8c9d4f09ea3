"""Proofs on other machines: rules are proven each by itself, so a cluster proves as many at a time as it has cores."""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compiler.errors import UserError

if TYPE_CHECKING:
    from compiler.rewrite.prove import Proof
    from compiler.rewrite.syntax import Rule

#: How many rules a worker is given at once: loading the library costs it a second.
BATCH = 8


def prove(scheduler: str, files: Sequence[Path], rules: Sequence[Rule], count: int, seed: int) -> Iterator[Proof]:
    """Proves rules on the workers of a Dask scheduler, in the order they finish.

    Args:
        scheduler: its address, such as ``tcp://10.0.0.5:8786``.
        files: files of rules besides the library's own; they need not be on the workers.
        rules: those to prove.

    Raises:
        UserError: Dask is not installed, the scheduler does not answer, or a worker has other rules than we have.
    """
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise UserError("--cluster needs Dask, which is not installed", "pip install 'planish[cluster]'") from None
    from compiler.proving.library import library_of

    texts = {file.name: file.read_text(encoding="utf-8") for file in files}
    own = library_of().hash
    names = [r.name for r in rules]
    try:
        client = Client(scheduler, timeout=10)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as e:
        raise UserError(f"no scheduler answers at {scheduler}: {e}", "dask scheduler, then dask worker ADDRESS") from e
    with client:
        batches = [names[i : i + BATCH] for i in range(0, len(names), BATCH)]
        tasks = [client.submit(_apart, b, texts, own, count, seed, pure=False) for b in batches]
        for task in as_completed(tasks):  # type: ignore[no-untyped-call]
            yield from task.result()


def _apart(names: Sequence[str], texts: Mapping[str, str], own: str, count: int, seed: int) -> list[Proof]:
    """What a worker does: proves in a process of its own, which may have children, as Dask's may not.

    Raises:
        UserError: the rules of this machine are not those of the one that asks.
        RuntimeError: the process failed; says how.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "asked", Path(folder) / "answered"
        asked.write_bytes(pickle.dumps((names, texts, own, count, seed)))
        command = [sys.executable, "-m", "compiler.proving.cluster", str(asked), str(answered)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == UserError.exit_code:
            raise UserError(done.stderr.strip(), "the same version of planish everywhere")
        if done.returncode:
            raise RuntimeError(f"proving on a worker failed:\n{done.stderr}")
        proofs: list[Proof] = pickle.loads(answered.read_bytes())
        return proofs


def _main(asked: Path, answered: Path) -> int:
    from compiler.proving.library import library_of, prover_of

    names, texts, own, count, seed = pickle.loads(asked.read_bytes())
    if library_of().hash != own:
        import socket

        print(f"the worker {socket.gethostname()} has other rules than this machine", file=sys.stderr)
        return UserError.exit_code
    files = [asked.parent / name for name in texts]
    for file in files:
        file.write_text(texts[file.name], encoding="utf-8")
    library = library_of(files)
    proofs = list(prover_of(library).prove_all([library.rules[n] for n in names], count, seed))
    answered.write_bytes(pickle.dumps(proofs))
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), Path(sys.argv[2])))
