"""Values, operators and blocks: the SSA graph itself.

Everything here is local: making, moving, replacing or erasing an operator costs in proportion to its own operands and
uses, never to the size of the graph. A region is one block; operators inside it may use values of the blocks around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from compiler.ir.opdef import OpDef, lookup
from compiler.ir.types import Dim, TensorType, Type

if TYPE_CHECKING:
    import numpy as np


class Location(NamedTuple):
    """Where an operator comes from: source nodes by name, and the chain of rules and passes that made it of them."""

    nodes: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()

    @staticmethod
    def fuse(sources: Iterable[Location], rule: str) -> Location:
        """The location of an operator that ``rule`` made of operators at ``sources``."""
        nodes: dict[str, None] = {}
        rules: dict[str, None] = {}
        for its_nodes, its_rules in sources:
            for n in its_nodes:
                nodes[n] = None
            for r in its_rules:
                rules[r] = None
        rules[rule] = None
        return Location(tuple(nodes), tuple(rules))

    def __str__(self) -> str:
        text = ", ".join(self.nodes)
        return f"{text} < {' < '.join(reversed(self.rules))}" if self.rules else text


NOWHERE = Location()


class Value:
    """A value: it has a type, one producer (an operator's result or a block's argument) and users.

    ``name`` is a hint for the printer; it need not be unique.
    """

    __slots__ = ("_uses", "name", "type")

    def __init__(self, type_: Type, name: str = "") -> None:
        self.type = type_
        self.name = name
        self._uses: dict[Op, int] = {}

    @property
    def op(self) -> Op | None:
        """The operator that makes this value; None for a block argument."""
        return None

    @property
    def users(self) -> Iterable[Op]:
        """The operators that have this value as an operand, each once, oldest use first."""
        return self._uses.keys()

    @property
    def use_count(self) -> int:
        """How many operand slots hold this value."""
        return sum(self._uses.values())

    @property
    def shape(self) -> tuple[Dim, ...] | None:
        """The shape of a tensor; None if its rank is not known or it is no tensor."""
        return self.type.shape if isinstance(self.type, TensorType) else None

    @property
    def constant(self) -> np.ndarray[Any, Any] | None:
        """The array this value holds if it comes from a constant operator, else None."""
        op = self.op
        if op is None or op.defn.constant is None:
            return None
        value: np.ndarray[Any, Any] = op.attributes[op.defn.constant]
        return value

    def replace_all_uses_with(self, new: Value) -> None:
        """Makes every user of this value use ``new`` instead. Costs in proportion to the uses."""
        if new is self:
            return
        uses, self._uses = self._uses, {}
        theirs = new._uses
        for op, count in uses.items():
            op._operands = tuple([new if v is self else v for v in op._operands])
            theirs[op] = theirs.get(op, 0) + count

    def __repr__(self) -> str:
        return f"<%{self.name or '?'}: {self.type}>"


class OpResult(Value):
    """A result of an operator."""

    __slots__ = ("_op", "index")

    def __init__(self, op: Op, index: int, type_: Type, name: str = "") -> None:
        self.type = type_
        self.name = name
        self._uses = {}
        self._op = op
        self.index = index

    @property
    def op(self) -> Op:
        return self._op


class BlockArgument(Value):
    """An argument of a block: an input of a function, or what an iteration carries."""

    __slots__ = ("block",)

    def __init__(self, block: Block, type_: Type, name: str = "") -> None:
        super().__init__(type_, name)
        self.block = block

    @property
    def index(self) -> int:
        return self.block.arguments.index(self)


class Op:
    """An operator: its definition, operands (None where an optional one is absent), results, attributes, regions."""

    __slots__ = ("_next", "_operands", "_order", "_prev", "attributes", "block", "defn", "loc", "regions", "results")

    def __init__(
        self,
        defn: OpDef | str,
        operands: Sequence[Value | None] = (),
        result_types: Sequence[Type] = (),
        attributes: Mapping[str, Any] | None = None,
        regions: Sequence[Block] = (),
        loc: Location = NOWHERE,
    ) -> None:
        """Makes a detached operator, ``attributes`` as they are; :class:`Builder` adds defaults and inference."""
        self.defn = lookup(defn) if isinstance(defn, str) else defn
        self.attributes: dict[str, Any] = dict(attributes) if attributes else {}
        self.regions: tuple[Block, ...] = tuple(regions)
        for region in self.regions:
            region.parent = self
        self.loc = loc
        self.block: Block | None = None
        self._prev: Op | None = None
        self._next: Op | None = None
        self._order = 0
        self.results: tuple[OpResult, ...] = tuple([OpResult(self, i, t) for i, t in enumerate(result_types)])
        self._operands: tuple[Value | None, ...] = tuple(operands)
        for v in self._operands:
            if v is not None:
                uses = v._uses
                uses[self] = uses.get(self, 0) + 1

    @property
    def name(self) -> str:
        """The qualified name, with ``@version`` where the form is not the newest."""
        return self.defn.name

    @property
    def operands(self) -> tuple[Value | None, ...]:
        return self._operands

    @operands.setter
    def operands(self, new: tuple[Value | None, ...]) -> None:
        for v in self._operands:
            if v is not None:
                left = v._uses[self] - 1
                if left:
                    v._uses[self] = left
                else:
                    del v._uses[self]
        self._operands = new
        for v in new:
            if v is not None:
                v._uses[self] = v._uses.get(self, 0) + 1

    def set_operand(self, index: int, value: Value | None) -> None:
        ops = list(self._operands)
        ops[index] = value
        self.operands = tuple(ops)

    def operand(self, name: str) -> Value | None:
        """The operand that the definition calls ``name``, or None where it is absent.

        Raises:
            KeyError: the operator has no operand of that name.
        """
        i = self.defn.operand_index(name)
        if i is None:
            raise KeyError(f"{self.name} has no operand '{name}'")
        return self._operands[i] if i < len(self._operands) else None

    @property
    def result(self) -> OpResult:
        """The only result.

        Raises:
            ValueError: there is none, or more than one.
        """
        if len(self.results) != 1:
            raise ValueError(f"{self.name} has {len(self.results)} results")
        return self.results[0]

    @property
    def next(self) -> Op | None:
        """The operator after this one in its block."""
        return self._next

    @property
    def prev(self) -> Op | None:
        """The operator before this one in its block."""
        return self._prev

    @property
    def parent(self) -> Op | None:
        """The operator whose region holds this one."""
        return self.block.parent if self.block is not None else None

    @property
    def is_unused(self) -> bool:
        """True when no result has a user."""
        for r in self.results:  # noqa: SIM110 (this is asked often, and any() costs three times as much)
            if r._uses:
                return False
        return True

    def comes_before(self, other: Op) -> bool:
        """Whether this operator stands before ``other`` in the same block; constant time."""
        return self._order < other._order

    def erase(self) -> None:
        """Removes the operator from its block and lets go of its operands and of the array of a constant, and so with
        what its regions hold.

        Raises:
            ValueError: a result is still used.
        """
        if not self.is_unused:
            used = next(r for r in self.results if r._uses)
            raise ValueError(f"cannot erase {self.name}: {next(iter(used.users)).name} still uses its result")
        self.operands = ()
        if self.defn.constant is not None:
            # Operator and result refer to each other, and may wait long for the garbage collector: the array need not.
            self.attributes = {}
        for region in self.regions:
            region.clear()
        if self.block is not None:
            self.block.remove(self)

    def walk(self) -> Iterator[Op]:
        """This operator, then those inside its regions, in order."""
        yield self
        for region in self.regions:
            yield from region.walk()

    def __repr__(self) -> str:
        return f"<{self.name}{' at ' + str(self.loc) if self.loc is not NOWHERE else ''}>"


#: Distance between the order keys of neighbours: its logarithm is how often one can insert at one place before keys
#: are spread anew.
_GAP = 1 << 32


class Block:
    """Arguments and a list of operators that ends in a terminator. Insertion and removal take constant time.

    Each operator has an order key, so that "which comes first" takes constant time too; where keys run out, those of
    the neighbourhood are spread anew.
    """

    __slots__ = ("_first", "_last", "_size", "arguments", "parent")

    def __init__(self, argument_types: Iterable[Type] = (), argument_names: Iterable[str] = ()) -> None:
        self.arguments: list[BlockArgument] = []
        self.parent: Op | None = None
        self._first: Op | None = None
        self._last: Op | None = None
        self._size = 0
        names = iter(argument_names)
        for t in argument_types:
            self.add_argument(t, next(names, ""))

    def add_argument(self, type_: Type, name: str = "") -> BlockArgument:
        arg = BlockArgument(self, type_, name)
        self.arguments.append(arg)
        return arg

    @property
    def first(self) -> Op | None:
        return self._first

    @property
    def last(self) -> Op | None:
        return self._last

    @property
    def terminator(self) -> Op | None:
        """The operator that ends the block, once there is one."""
        return self._last if self._last is not None and self._last.defn.terminator else None

    @property
    def ops(self) -> Iterator[Op]:
        """The operators in order. The one at hand may be erased, and others inserted, while iterating."""
        op = self._first
        while op is not None:
            following = op._next
            yield op
            # An op inserted right behind the one at hand is met; one erased is left by its old neighbour.
            op = op._next if op.block is self else following

    def __len__(self) -> int:
        return self._size

    def append(self, op: Op) -> Op:
        """Puts a detached operator at the end."""
        return self._link(op, self._last, None)

    def insert_before(self, anchor: Op | None, op: Op) -> Op:
        """Puts a detached operator before ``anchor``, or at the end if that is None."""
        return self._link(op, anchor._prev if anchor else self._last, anchor)

    def insert_after(self, anchor: Op | None, op: Op) -> Op:
        """Puts a detached operator after ``anchor``, or at the start if that is None."""
        return self._link(op, anchor, anchor._next if anchor else self._first)

    def _link(self, op: Op, prev: Op | None, following: Op | None) -> Op:
        if op.block is not None:
            raise ValueError(f"{op.name} already stands in a block")
        op.block = self
        op._prev, op._next = prev, following
        if prev is None:
            self._first = op
        else:
            prev._next = op
        if following is None:
            self._last = op
        else:
            following._prev = op
        self._size += 1
        self._number(op, prev, following)
        return op

    def _number(self, op: Op, prev: Op | None, following: Op | None) -> None:
        if following is None:
            op._order = (prev._order if prev else 0) + _GAP
            return
        low = prev._order if prev else following._order - 2 * _GAP
        middle = (low + following._order) // 2
        if middle > low:
            op._order = middle
            return
        # No key is left here. Spread the keys of the shortest run of followers that has room to spare (Dietz and
        # Sleator, "Two algorithms for maintaining order in a list", 1987): logarithmic per insertion, amortised.
        run, after = [op], op._next
        while after is not None and after._order - low <= len(run) ** 2:
            run.append(after)
            after = after._next
        width = len(run) * _GAP if after is None else after._order - low
        for i, each in enumerate(run):
            each._order = low + width * (i + 1) // (len(run) + 1 if after is not None else len(run))

    def remove(self, op: Op) -> Op:
        """Takes an operator out of the block, its operands and uses as they are, so that it can be put elsewhere."""
        if op.block is not self:
            raise ValueError(f"{op.name} does not stand in this block")
        prev, following = op._prev, op._next
        if prev is None:
            self._first = following
        else:
            prev._next = following
        if following is None:
            self._last = prev
        else:
            following._prev = prev
        op.block = op._prev = op._next = None
        self._size -= 1
        return op

    def clear(self) -> None:
        """Erases all operators, last first, so that each has lost its users when its turn comes."""
        op = self._last
        while op is not None:
            before = op._prev
            op.erase()
            op = before

    def walk(self) -> Iterator[Op]:
        """All operators in order, each before those inside its regions."""
        for op in self.ops:
            yield from op.walk()

    def encloses(self, other: Block | None) -> bool:
        """Whether ``other`` is this block or lies inside it, at any depth."""
        while other is not None:
            if other is self:
                return True
            other = other.parent.block if other.parent is not None else None
        return False
