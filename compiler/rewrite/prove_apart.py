"""Proofs side by side, in processes that serve one rule after the other: onnx's inference can bring one down."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from compiler.execution.apart import limit_memory
from compiler.rewrite.syntax import Rule

if TYPE_CHECKING:
    from compiler.rewrite.prove import Proof

    _Pipe = Connection[Any, Any]

#: How often a rule is tried again where onnx or onnxruntime have brought the process down.
_CRASHES = 4
#: After so many rules a process makes room for another: what it has collected by then is not given back otherwise.
_RULES = 60

Prove = Callable[[Rule, int], "Proof"]


class _Hand:
    """A process that proves what it is told to."""

    def __init__(self, rules: Sequence[Rule], prove: Prove, others: Sequence[_Hand]) -> None:
        """``others``: those that there are, whose connections the new process inherits and must not keep open."""
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        inherited = [self.connection, *(h.connection for h in others)]
        self.process = context.Process(target=_serve, args=(theirs, inherited, rules, prove))
        self.process.start()
        theirs.close()
        self.at = (-1, 0)
        self.left = _RULES

    def take(self, index: int, crashes: int) -> None:
        self.at = index, crashes
        self.left -= 1
        self.connection.send(self.at)

    def end(self) -> None:
        self.connection.close()
        self.process.join()


def _serve(connection: _Pipe, inherited: Sequence[_Pipe], rules: Sequence[Rule], prove: Prove) -> None:
    for other in inherited:
        other.close()
    limit_memory()
    while True:
        try:
            index, crashes = connection.recv()
        except EOFError:
            return
        try:
            connection.send(prove(rules[index], crashes))
        except Exception:  # said again in the process that waits
            connection.send(traceback.format_exc())


def prove_apart(rules: Sequence[Rule], prove: Prove, jobs: int) -> Iterator[Proof]:
    """Proves rules, ``jobs`` at a time; in the order in which they finish.

    Args:
        prove: proves a rule; its second argument says how often processes have died of this rule.

    Raises:
        RuntimeError: a proof raised something; with the traceback.
    """
    from compiler.rewrite.prove import Proof

    waiting = [(i, 0) for i in reversed(range(len(rules)))]
    idle: list[_Hand] = []
    busy: dict[Any, _Hand] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < jobs:
                hand = idle.pop() if idle else _Hand(rules, prove, [*idle, *busy.values()])
                hand.take(*waiting.pop())
                busy[hand.connection] = hand
            for ready in wait(list(busy)):
                hand = busy.pop(ready)
                index, crashes = hand.at
                try:
                    proof = hand.connection.recv()
                except (EOFError, ConnectionError):
                    hand.end()
                    if crashes < _CRASHES:
                        waiting.append((index, crashes + 1))
                        continue
                    why = "onnx's own inference or onnxruntime brought the process down"
                    proof = Proof(rules[index].name, stuck=why)
                else:
                    if hand.left:
                        idle.append(hand)
                    else:
                        hand.end()
                if isinstance(proof, str):
                    raise RuntimeError(f"the proof of rule {rules[index].name} failed:\n{proof}")
                proof.crashes = crashes
                yield proof
    finally:
        for hand in idle:
            hand.end()
        for hand in busy.values():
            hand.process.terminate()
            hand.end()
