"""Students: the model without some of its channels, which learns from the original what that cost."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.distil.data import files, samples
from compiler.errors import UserError
from compiler.ir import Function

if TYPE_CHECKING:
    from compiler.ladder.climb import Ladder

Array = np.ndarray[Any, Any]

BATCH, RATE, EVERY = 8, 1e-3, 25


class Learning:
    """Trains students, each once.

    Attributes:
        data: what they learn from, as for :func:`compiler.distil.data.samples`.
        of: what a student depends on, besides the share of channels and the bits of its weights.
    """

    def __init__(
        self,
        ladder: Ladder,
        signature: Function,
        own: Sequence[Mapping[str, Array]],
        of: str,
        tell: Callable[[int, float, float], None],
    ) -> None:
        """
        Args:
            signature: says what the model's inputs are.
            own: samples to learn from where the ladder names none, nor any to compress by.
            of: what all measurements of the ladder depend on.
            tell: told how training gets on: the step, the loss while learning, the loss on samples held back.

        Raises:
            UserError: the samples are not there, do not fit, or cannot be written into the ladder's folder.
        """
        self._ladder = ladder
        self._tell = tell
        self.data: str | Path = ladder.learn or ladder.calibrate or ladder.work / "learn.npz"
        if own and ladder.learn is None:
            arrays: dict[str, Any] = {name: np.stack([s[name] for s in own]) for name in own[0]}
            try:
                np.savez(self.data, **arrays)
            except OSError as e:
                raise UserError(f"cannot write {self.data}: {e.strerror}", "--work with another folder") from e
        digest = hashlib.sha256(f"{of} {ladder.learn} {ladder.learn_steps}".encode())
        samples(self.data, signature, most=1)
        for file in files(self.data):
            digest.update(file.read_bytes())
        self.of = digest.hexdigest()

    @staticmethod
    def installed() -> bool:
        """Whether what training needs is there."""
        return find_spec("jax") is not None and find_spec("optax") is not None

    def student(self, share: float, bits: int | None) -> Path:
        """A student without this share of its channels; training goes on where it was when it was killed.

        Args:
            bits: to how many its weights are rounded while it learns.

        Raises:
            compiler.errors.PlanishError: the model, or what is to be learned from, cannot be used.
        """
        from compiler.distil import Task, distil
        from compiler.distil.train import Schedule
        from compiler.export_package import save

        ladder = self._ladder
        name = hashlib.sha256(f"{self.of} {share} {bits}".encode()).hexdigest()[:8]
        path = ladder.work / f"student-{name}.onnx"
        if path.exists():
            return path
        work = path.with_suffix(".work")
        shapes = {name: tuple(shape) for name, shape in ladder.shapes.items()}
        schedule = Schedule(ladder.learn_steps, BATCH, RATE, every=min(EVERY, ladder.learn_steps))
        done = distil(Task(ladder.model, self.data, work, schedule, shapes, share, bits=bits), self._tell)
        draft = work / path.name
        save(done.model, draft)
        os.replace(draft, path)
        shutil.rmtree(work)
        return path
