"""States made visible: a function that reads and writes states becomes one that takes and gives tensors.

So a program with states can be given meaning in ONNX, which has none. Every state becomes an input in its place, and
what it holds in the end a further output.
"""

from __future__ import annotations

from compiler.errors import UnsupportedError
from compiler.ir import Function, StateType, TensorType, Value

_STATEFUL = ("mil.read_state", "mil.coreml_update_state")


def run(function: Function) -> dict[str, str]:
    """Takes the states out of ``function``, in place.

    Returns:
        The name of the output that a state leaves by, by the state's name, in the order of both.

    Raises:
        UnsupportedError: a state is used inside a branch or a loop, or is returned.
    """
    held: dict[Value, Value] = {}
    for argument in function.inputs:
        if isinstance(argument.type, StateType):
            held[argument] = argument
    if not held:
        return {}
    for op in list(function.block.ops):
        state: Value | None = op.operands[0] if op.operands else None
        if state is None or state not in held or op.name not in _STATEFUL:
            continue
        if op.name == "mil.coreml_update_state":
            value = op.operands[1]
            assert value is not None
            held[state] = value
        op.result.replace_all_uses_with(held[state])
        op.erase()
    names = list(function.output_names)
    values = list(function.outputs)
    left: dict[str, str] = {}
    for argument in function.inputs:
        if argument not in held:
            continue
        if any(u.name in _STATEFUL for u in argument.users):
            raise UnsupportedError(f"the state '{argument.name}' is used inside a branch or a loop")
        element = argument.type.element if isinstance(argument.type, StateType) else None
        if not isinstance(element, TensorType):
            raise UnsupportedError(f"the state '{argument.name}' is a {argument.type}, not that of a tensor")
        argument.type = element
        name = f"{argument.name}_out"
        while name in names:
            name += "_"
        names.append(name)
        values.append(held[argument])
        left[argument.name] = name
    function.set_outputs(values, names)
    return left
