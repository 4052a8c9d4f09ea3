"""Kernels to be, and where each operator is computed, as fusion decides it."""

from __future__ import annotations

from dataclasses import dataclass, field

from compiler import ir

#: The place of an operand that does not feed the anchor but stands beside its result.
SIDE = -1


@dataclass(eq=False)
class Group:
    """A kernel to be: its anchor, if it has one, the operators it holds, and the values that it stores."""

    anchor: ir.Op | None
    members: set[ir.Op]
    roots: list[ir.Value]
    #: What the user calls it, who writes it: nothing else joins it.
    name: str = ""

    @property
    def last(self) -> ir.Op:
        """The operator in whose place the kernel comes: the anchor where there are several values to store."""
        op = self.roots[0].op if len(self.roots) == 1 or self.anchor is None else self.anchor
        assert op is not None
        return op


@dataclass
class Plan:
    """What is decided so far."""

    groups: list[Group] = field(default_factory=list)
    owner: dict[ir.Op, Group] = field(default_factory=dict)
    #: Where an operator is computed in place of being stored: the kernels, and for which operands of their anchors.
    inlined: dict[ir.Op, dict[Group, set[int]]] = field(default_factory=dict)
    joined: set[ir.Value] = field(default_factory=set)

    def add(self, group: Group) -> None:
        """Makes a group a kernel."""
        self.groups.append(group)
        for op in group.members:
            self.owner[op] = group

    def dissolve(self, group: Group) -> None:
        """Takes a kernel back."""
        self.groups.remove(group)
        for op in group.members:
            del self.owner[op]

    def readers(self, op: ir.Op) -> dict[Group, set[int]] | None:
        """The kernels that would compute ``op`` in place, for which operands of their anchors; None if one cannot."""
        out: dict[Group, set[int]] = {}
        for user in op.result.users:
            owner = self.owner.get(user)
            if owner is not None and owner.name:
                return None
            if owner is not None and user is owner.anchor:
                places = {i for i, v in enumerate(user.operands) if v is op.result}
                out.setdefault(owner, set()).update(places)
            elif owner is not None:
                out.setdefault(owner, set()).add(SIDE)
            elif user in self.inlined:
                for group, places in self.inlined[user].items():
                    out.setdefault(group, set()).update(places)
            else:
                return None
        return out

    def region(self, group: Group) -> tuple[list[ir.Op], list[ir.Value]]:
        """The operators of a kernel in order, and the values from outside, in the order of their first use."""
        ops: dict[ir.Op, None] = {}
        outside: dict[ir.Value, None] = {}
        stack = [(r.op, False) for r in reversed(group.roots) if r.op is not None]
        while stack:
            op, visited = stack.pop()
            if visited:
                ops[op] = None
                continue
            if op in ops:
                continue
            stack.append((op, True))
            for v in reversed(op.operands):
                if v is not None and v.op is not None and self._inside(group, v):
                    stack.append((v.op, False))
        for op in ops:
            for v in op.operands:
                if v is not None and not (v.op is not None and v.op in ops):
                    outside[v] = None
        return list(ops), list(outside)

    def _inside(self, group: Group, value: ir.Value) -> bool:
        op = value.op
        if op is None:
            return False
        if op in group.members or group in self.inlined.get(op, ()):
            return True
        constant = value.constant
        return constant is not None and constant.size == 1


def size_of(value: ir.Value) -> int:
    """How many elements a value has."""
    return value.type.size or 0 if isinstance(value.type, ir.TensorType) else 0
