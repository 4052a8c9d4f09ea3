"""What a rule's result is built with, and the Python functions that build it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from compiler.ir import (
    F32,
    I32,
    I64,
    Block,
    Builder,
    DType,
    InferenceError,
    Location,
    Op,
    OpDef,
    OpResult,
    TensorType,
    Value,
    from_numpy,
    get_dialect,
    lookup,
)
from compiler.rewrite.expressions import ExpressionCompiler, local
from compiler.rewrite.functions import Decline
from compiler.rewrite.resolve_names import Binding, Variant

_BUILT = Binding("value")


class RuleBuilder:
    """Builds the operators of one rewrite before the anchor, and remembers them.

    It is what a Python builder (``rewrite by``) gets as its first argument; such a builder may also raise
    :class:`Decline`, and nothing will have happened.
    """

    __slots__ = ("_builder", "_moved", "block", "made", "target")

    def __init__(self, before: Op, loc: Location, target: Any = None) -> None:
        assert before.block is not None
        self.block: Block = before.block
        self._builder = Builder(before.block, before, loc)
        self.made: list[Op] = []
        self._moved: list[tuple[Op, tuple[Block, ...]]] = []
        self.target = target

    @property
    def loc(self) -> Location:
        """Where what is built comes from."""
        return self._builder.loc

    @property
    def before(self) -> Op | None:
        """The operator that everything is built before; None at the end of a block."""
        return self._builder.before

    def op(
        self,
        name: str,
        operands: Sequence[Any],
        attributes: Mapping[str, Any] | None = None,
        results: int = 1,
        replaced: tuple[Value, ...] | None = None,
        regions: Sequence[Block] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        """Makes an operator.

        Args:
            operands: values, None for an absent one, or compile-time data that becomes a constant.
            attributes: None leaves one out.
            results: how many results are wanted.
            replaced: the values that the results will stand for, if they do.
            regions: blocks to move into the operator.
            named: operands by name, behind the positional ones.

        Returns:
            Its result, or a tuple of them where several are wanted.

        Raises:
            InferenceError: it cannot be made so.
        """
        defn = lookup(name)
        args = list(operands)
        for key, value in (named or {}).items():
            index = defn.operand_index(key)
            if index is None:
                raise InferenceError(f"{name} has no operand '{key}'")
            args.extend([None] * (index + 1 - len(args)))
            args[index] = value
        while args and args[-1] is None:
            args.pop()
        values = [a if a is None or isinstance(a, Value) else self._constant(defn, args, i) for i, a in enumerate(args)]
        attrs = {k: coerce(defn, k, v) for k, v in (attributes or {}).items() if v is not None}
        for owner in {region.parent for region in regions}:
            if owner is not None:
                self._moved.append((owner, owner.regions))
                owner.regions = ()
        types = None
        if replaced is not None and get_dialect(defn.dialect).adopts_types:
            types = [r.type for r in replaced]
        op = self._builder.op(name, values, attrs, types, results=results, regions=regions)
        self.made.append(op)
        if results == 1:
            return op.results[0]
        if len(op.results) < results:
            raise InferenceError(f"{name} has {len(op.results)} results here, {results} are named")
        return op.results[:results]

    def clone(
        self,
        original: Value,
        operands: Sequence[Any],
        attributes: Mapping[str, Any] | None = None,
        results: int = 1,
        replaced: tuple[Value, ...] | None = None,
        regions: Sequence[Block] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        """Makes the operator that ``original`` comes from again, with other operands (and attributes, where given)."""
        if original.op is None:
            raise InferenceError("an input has no operator to clone")
        merged = {**original.op.attributes, **(attributes or {})}
        return self.op(original.op.name, operands, merged, results, replaced, regions, named)

    def region(self, give: Callable[[], Sequence[Any]], dialect: str) -> Block:
        """A block of what ``give`` builds meanwhile, ended by the return of what it gives; it may use outer values.
        Data that it gives becomes a constant of ``dialect``."""
        outside, block = self._builder, Block()
        self._builder = Builder(block, None, outside.loc)
        try:
            values = [v if isinstance(v, Value) else self.constant(_plain(v), dialect) for v in give()]
            self.made.append(self._builder.ret(values))
        finally:
            self._builder = outside
        return block

    def constant(self, value: Any, dialect: str) -> OpResult:
        """Makes a constant of ``dialect``."""
        result = self._builder.constant(value, dialect)
        self.made.append(result.op)
        return result

    def value(self, x: Any, old: Value) -> Value:
        """What stands for ``old``: a value as it is, or data as a constant of the same element type."""
        if isinstance(x, Value):
            return x
        if x is None:
            raise Decline("absent")
        array = np.asarray(x)
        if isinstance(old.type, TensorType):
            array = convert(array, old.type.dtype, exact=isinstance(x, np.ndarray))
        assert old.op is not None
        return self.constant(array, old.op.defn.dialect)

    def _constant(self, defn: OpDef, args: Sequence[Any], index: int) -> OpResult:
        spec = defn.operands[min(index, len(defn.operands) - 1)]
        x = args[index]
        array = np.asarray(x)
        want: DType | None = None
        if spec.type_variable or spec.arity == "variadic":
            for i, other in enumerate(args):
                if isinstance(other, Value) and isinstance(other.type, TensorType):
                    its = defn.operands[min(i, len(defn.operands) - 1)]
                    if its is spec or (its.type_variable and its.type_variable == spec.type_variable):
                        want = other.type.dtype
                        break
        if want is None:
            want = _preferred(array, isinstance(x, (np.ndarray, np.generic)), spec.dtypes)
        result = self._builder.constant(convert(array, want, exact=isinstance(x, np.ndarray)), defn.dialect)
        self.made.append(result.op)
        return result

    def undo(self) -> None:
        """Erases everything that was built, last first, and gives regions back to the operators that had them."""
        for owner, regions in reversed(self._moved):
            for region in regions:
                if region.parent is not None:
                    region.parent.regions = ()
                region.parent = owner
            owner.regions = regions
        self._moved.clear()
        for op in reversed(self.made):
            for r in op.results:
                for user in list(r.users):  # in a region whose operator was not made
                    user.operands = ()
            op.erase()
        self.made.clear()


def _plain(x: Any) -> np.ndarray[Any, Any]:
    """Data whose element type nothing fixes: numbers written in a rule are f32 and i64."""
    array = np.asarray(x)
    return array.astype(_preferred(array, isinstance(x, (np.ndarray, np.generic)), None).numpy)


def _preferred(array: np.ndarray[Any, Any], typed: bool, allowed: frozenset[DType] | None) -> DType:
    own = from_numpy(array.dtype)
    if typed and (allowed is None or own in allowed):
        return own
    default = F32 if own.is_float else I64 if own.is_integer else own
    if allowed is None or default in allowed:
        return default
    narrower = I32 if own.is_integer and I32 in allowed else None
    if narrower is not None:
        return narrower
    if len(allowed) == 1:
        return next(iter(allowed))
    return F32 if own.is_integer and F32 in allowed else own


def convert(array: np.ndarray[Any, Any], to: DType, exact: bool) -> np.ndarray[Any, Any]:
    """``array`` in another element type.

    Args:
        exact: an array is only converted among floats or among integers that hold it; a number or list written in a
            rule is converted freely if nothing is lost.

    Raises:
        InferenceError: the element types do not go together, or a number does not fit.
        Decline: a finite number would become infinite.
    """
    if array.dtype == to.numpy:
        return array
    have = from_numpy(array.dtype)
    if exact and not (have.is_float and to.is_float) and not (have.is_integer and to.is_integer):
        raise InferenceError(f"an array of {have} where {to} is needed")
    out = array.astype(to.numpy)
    if to.is_integer and not bool((out.astype(array.dtype) == array).all()):
        raise InferenceError(f"a number does not fit into {to}")
    if have.is_float and to.bits < have.bits and not bool((np.isfinite(out) | ~np.isfinite(array)).all()):
        raise Decline(f"a number is too large for {to}")
    return out


def coerce(defn: OpDef, name: str, value: Any) -> Any:
    """An attribute value in the form the definition wants: Python numbers and tuples, not NumPy's.

    Raises:
        InferenceError: it cannot be put so.
    """
    spec = defn.attributes.get(name)
    if spec is None:
        return value  # the builder says that there is no such attribute
    try:
        match spec.kind:
            case "int":
                return value if isinstance(value, DType) else int(value)
            case "float":
                return float(value)
            case "bool":
                return bool(value)
            case "ints":
                if type(value) is tuple and all(type(v) is int for v in value):
                    return value
                return tuple(int(v) for v in np.asarray(value).reshape(-1))
            case "floats":
                return tuple(float(v) for v in np.asarray(value).reshape(-1))
            case "bools":
                return tuple(bool(v) for v in np.asarray(value).reshape(-1))
            case "strings":
                return tuple(value)
            case "tensor":
                return np.asarray(value)
            case _:
                return value
    except (TypeError, ValueError):
        raise InferenceError(f"{defn.name}: attribute {name} cannot be {value!r}") from None


#: Builds a variant's result: (builder, target, bound tuple) → pairs of replaced value and what replaces it.
Build = Callable[[RuleBuilder, Any, tuple[Any, ...]], Sequence[tuple[Value, Any]]]


class Bindings:
    """What a rule has bound, by name, for a Python builder: ``m.x``."""

    def __init__(self, names: Sequence[str], values: Sequence[Any]) -> None:
        self.__dict__.update(zip(names, values))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the rule binds no '{name}'")


def compile_build(
    variant: Variant,
    index: int,
    names: Sequence[str],
    expressions: ExpressionCompiler,
    externs: Mapping[str, Callable[..., Any]],
) -> Build:
    """The function that builds rewrite number ``index`` of a variant from the tuple that its matcher gives."""
    rewrite = variant.rewrites[index]
    targets = [t.id for i in variant.anchors for t in variant.statements[i].targets if t.id != "_"]
    every = {t.id for stmt in variant.statements for t in stmt.targets if t.variadic}
    if rewrite.builder is not None:
        return _python_build(externs[rewrite.builder], targets, names, every)
    known = {t.id for stmt in variant.statements for t in stmt.targets if t.id != "_"}
    assigned = [t.id for stmt in rewrite.statements for t in stmt.targets]
    lines = ["def build(B, target, m):"]
    lines.append(f"    ({', '.join(local(n) for n in names)}{',' if len(names) == 1 else ''}) = m")
    for name in assigned:
        if name in known:
            lines.append(f"    r_{name} = {local(name)}")
    scope = dict(variant.bindings)
    for stmt in rewrite.statements:
        ids = [t.id for t in stmt.targets]
        root = f"({', '.join(f'r_{i}' for i in ids)},)" if all(i in known for i in ids) else "None"
        if ids[0] in every:
            source = expressions.build(stmt.value, scope, f"len(r_{ids[0]})", f"r_{ids[0]}")
            lines.append(f"    {local(ids[0])} = _all({source})")
        else:
            source = expressions.build(stmt.value, scope, len(ids), root)
            lines.append(f"    {', '.join(local(i) for i in ids)} = {source}")
        for t in stmt.targets:
            scope[t.id] = _BUILT
    pairs = ", ".join(
        f"*[(r, B.value(v, r)) for r, v in zip(r_{i}, {local(i)}, strict=True)]"
        if i in every
        else f"(r_{i}, B.value({local(i)}, r_{i}))"
        for i in assigned
        if i in known
    )
    lines.append(f"    return ({pairs},)")
    env: dict[str, Any] = {**expressions.globals, "_all": _all}
    exec(compile("\n".join(lines) + "\n", f"<rewrite of {variant.rule.name}>", "exec"), env)
    build: Build = env["build"]
    return build


def _all(made: Any) -> tuple[Any, ...]:
    return tuple(made) if isinstance(made, (tuple, list)) else (made,)


def _adopting(b: RuleBuilder, value: Value, old: Value) -> Value:
    """``value`` with the width of ``old``'s elements, if it was just made in a dialect whose results adopt types."""
    op = value.op
    if op is None or op.defn.constant or op not in b.made or not get_dialect(op.defn.dialect).adopts_types:
        return value
    if isinstance(value.type, TensorType) and isinstance(old.type, TensorType):
        have, want = value.type.dtype, old.type.dtype
        if (have.is_integer and want.is_integer) or (have.is_float and want.is_float):
            value.type = value.type.with_dtype(want)
    return value


def _python_build(
    function: Callable[..., Any], targets: Sequence[str], names: Sequence[str], every: Collection[str] = ()
) -> Build:
    def build(b: RuleBuilder, target: Any, m: tuple[Any, ...]) -> Sequence[tuple[Value, Any]]:
        bound = Bindings(names, m)
        with np.errstate(over="ignore"):  # what it computes, and whether that overflows, is its own affair
            made = function(b, bound)
        if made is None:
            raise Decline("the builder declined")
        values = _all(made)
        olds: list[Value] = []
        for t in targets:
            olds.extend(getattr(bound, t) if t in every else [getattr(bound, t)])
        if len(values) != len(olds):
            raise InferenceError(f"the builder gave {len(values)} values, the rule names {len(olds)} results")
        # A result that nobody uses need not be built.
        wanted = [(old, v) for old, v in zip(olds, values) if v is not None or old.use_count]
        return [(old, _adopting(b, b.value(v, old), old)) for old, v in wanted]

    return build
