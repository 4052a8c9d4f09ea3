"""Training a student: AdamW, checkpoints that a killed run resumes from, and an end when nothing gets better."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from compiler.errors import UserError

Array = np.ndarray[Any, Any]
Parameters = dict[str, Any]
#: Of parameters and a batch, a tree of arrays with an axis of samples in front: the loss of each sample.
Losses = Callable[[Parameters, Any], Any]

#: Seconds after which a checkpoint is written between judgements.
_KEEP_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """How to train.

    Attributes:
        steps: batches, at the most.
        batch: samples in one.
        rate: the learning rate at its height, after a twentieth of the steps; it falls to 0 along a cosine.
        decay: weight decay.
        every: steps between two judgements.
        patience: judgements in a row that may bring nothing before training ends; 0 for any number.
    """

    steps: int = 1000
    batch: int = 8
    rate: float = 1e-3
    decay: float = 1e-4
    every: int = 50
    patience: int = 0
    seed: int = 0


@dataclass(slots=True)
class State:
    """Where training is.

    Attributes:
        step: batches seen.
        best: the parameters that did best on the held samples, and ``least``, their loss.
        history: step, training loss since the judgement before, loss on the held samples.
        stale: judgements since the best.
        since: losses of the batches since the last judgement.
    """

    parameters: Parameters
    optimizer: Any
    step: int = 0
    best: Parameters = field(default_factory=dict)
    least: float = np.inf
    history: list[tuple[int, float, float]] = field(default_factory=list)
    stale: int = 0
    since: list[float] = field(default_factory=list)


def train(
    parameters: Parameters,
    losses: Losses,
    learn: Sequence[Any],
    held: Sequence[Any],
    schedule: Schedule,
    checkpoint: Path,
    of: str,
    tell: Callable[[int, float, float], None] = lambda step, learnt, judged: None,
    at: Callable[[str], None] = lambda what: None,
) -> State:
    """Trains until the steps are done or nothing gets better, from the checkpoint if there is one of the same task.

    Args:
        learn, held: samples as trees of arrays, to learn from and to judge by.
        checkpoint: a file, written at each judgement and each minute, whole or not at all.
        of: what the task is; a checkpoint of another is not used.
        tell: told of each judgement: step, loss while learning, loss on the held samples.
        at: told what is being done.

    Raises:
        UserError: the checkpoint cannot be written, or the loss is no number.
    """
    warm = max(schedule.steps // 20, 1)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            optax.warmup_cosine_decay_schedule(0.0, schedule.rate, warm, max(schedule.steps, warm + 1)),
            weight_decay=schedule.decay,
        ),
    )

    @jax.jit
    def update(parameters: Parameters, state: Any, batch: Any) -> tuple[Parameters, Any, Any]:
        loss, slope = jax.value_and_grad(lambda p: losses(p, batch).mean())(parameters)
        change, state = optimizer.update(slope, state, parameters)
        return optax.apply_updates(parameters, change), state, loss

    judge_batch = jax.jit(losses)

    def judge(parameters: Parameters) -> float:
        size = min(schedule.batch, len(held))
        found = [judge_batch(parameters, _stacked(held[i : i + size])) for i in range(0, len(held) - size + 1, size)]
        return float(np.mean([np.asarray(f) for f in found]))

    fresh = {name: jnp.asarray(array) for name, array in parameters.items()}
    state = _resumed(checkpoint, of, State(fresh, optimizer.init(fresh)))
    if not state.history:
        at("judging the student before it learns")
        state.least = judge(state.parameters)
        state.best = dict(state.parameters)
        state.history.append((0, state.least, state.least))
        tell(*state.history[-1])
    kept, first = time.monotonic(), True
    while state.step < schedule.steps and not (schedule.patience and state.stale >= schedule.patience):
        at(f"step {state.step + 1} of {schedule.steps}{', which takes a while: it is compiled' if first else ''}")
        first = False
        # The batch follows from the step alone: what is resumed goes on as if it had never stopped.
        chosen = np.random.default_rng((schedule.seed, state.step)).integers(0, len(learn), schedule.batch)
        state.parameters, state.optimizer, loss = update(
            state.parameters, state.optimizer, _stacked([learn[i] for i in chosen])
        )
        state.step += 1
        state.since.append(float(loss))
        if not np.isfinite(state.since[-1]):
            raise UserError(f"the loss is {state.since[-1]} at step {state.step}", "a smaller --rate")
        if state.step % schedule.every == 0 or state.step == schedule.steps:
            now = judge(state.parameters)
            state.history.append((state.step, float(np.mean(state.since)), now))
            state.since.clear()
            state.stale += 1
            if now < state.least:
                state.least, state.best, state.stale = now, dict(state.parameters), 0
            _keep(checkpoint, of, state)
            kept = time.monotonic()
            tell(*state.history[-1])
        elif time.monotonic() - kept > _KEEP_EVERY:
            _keep(checkpoint, of, state)
            kept = time.monotonic()
    return state


def _stacked(samples: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *arrays: np.stack(arrays), *samples)


def _keep(path: Path, of: str, state: State) -> None:
    leaves = jax.tree.leaves((state.parameters, state.optimizer, state.best))
    draft = path.with_name(path.name + ".draft")
    names = ("step", "least", "history", "stale", "since")
    facts = {"of": of, **{name: getattr(state, name) for name in names}}
    arrays = {"facts": np.array(json.dumps(facts)), **{f"leaf{i}": np.asarray(x) for i, x in enumerate(leaves)}}
    try:
        with open(draft, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # names are keywords
        os.replace(draft, path)
    except OSError as e:
        draft.unlink(missing_ok=True)
        raise UserError(f"cannot write the checkpoint {path}: {e.strerror}", "--work with another folder") from e


def _resumed(path: Path, of: str, fresh: State) -> State:
    """The state that a checkpoint holds; ``fresh`` where there is none of this task."""
    if not path.exists():
        return fresh
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            leaves = [jnp.asarray(file[f"leaf{i}"]) for i in range(len(file.files) - 1)]
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"the checkpoint {path} is damaged", f"remove it; training then begins anew ({e})") from e
    if facts["of"] != of:
        return fresh
    shape = jax.tree.structure((fresh.parameters, fresh.optimizer, dict(fresh.parameters)))
    parameters, optimizer, best = jax.tree.unflatten(shape, leaves)
    history = [(int(s), float(a), float(b)) for s, a, b in facts["history"]]
    return State(
        parameters, optimizer, facts["step"], best, facts["least"], history, facts["stale"], facts.get("since", [])
    )
