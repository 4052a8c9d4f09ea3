"""Writes ``mil_registry.json``: what coremltools' op registry says of every MIL operator, in every release.

``python -m compiler.dialects.mil_snapshot`` rewrites the file beside this script. The compiler reads the file, because
importing coremltools takes 0.9 s; a test holds it against the installed coremltools.

What the registry has as data is taken as it is (names, order, const, optional, type domains). What it has as code is
run: defaults are evaluated on stand-in operators that differ in rank, shape and optional inputs, and a default counts
as a value only if all agree (``"computed"`` marks the others); commutativity is what the operator's own NumPy function
shows. The rank of a parameter, the number of results and their type variables come from signatures in the docstrings
and from the ``return`` statements of the type inference, since the registry states them nowhere else.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

SNAPSHOT = Path(__file__).with_name("mil_registry.json")

_DTYPES = {"fp16": "f16", "fp32": "f32", "fp64": "f64", "bool": "bool", "string": "string"}


def snapshot() -> dict[str, Any]:
    """The registry of the installed coremltools, in the form that :mod:`compiler.dialects.mil_forms` reads."""
    import coremltools
    from coremltools.converters.mil._deployment_compatibility import AvailableTarget
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    first = coremltools._LOWEST_ALLOWED_SPECIFICATION_VERSION_FOR_MILPROGRAM
    releases = {t.name.lower(): t for t in AvailableTarget if t.name.startswith("iOS") and t.value >= first}
    operators = {}
    for name, by_target in SSAOpRegistry.core_ops.items():
        # A leading underscore marks what exists only while coremltools converts.
        if not name.startswith("_"):
            operators[name] = _operator({r: by_target.get(t) for r, t in releases.items()})
    for name, cls in SSAOpRegistry.dialect_ops.items():
        # The dialect "coreml" names what MIL spells with several operators; the others never leave coremltools.
        if cls._dialect_namespace == "coreml":
            operators[name] = _operator(dict.fromkeys(["ios18", "ios26"], cls))
    return {
        "coremltools": coremltools.__version__,
        "releases": {r: {"specification": int(t), "opset": coremltools._OPSET[int(t)]} for r, t in releases.items()},
        "operators": dict(sorted(operators.items())),
    }


def _operator(by_release: dict[str, Any]) -> dict[str, Any]:
    forms: list[dict[str, Any]] = []
    last: Any = None
    for release, cls in by_release.items():
        # The registry ends at iOS 18; later releases keep what it has there.
        if cls is None or cls is last:
            continue
        last = cls
        form = {"inputs": _inputs(cls), "results": _results(cls)}
        if not forms or form != {k: v for k, v in forms[-1].items() if k != "since"}:
            forms.append({"since": release, **form})
    out: dict[str, Any] = {}
    if _is_commutative(last):
        out["commutative"] = True
    if _is_impure(last):
        out["impure"] = True
    regions = [
        n.strip("_").removesuffix("_fn") for n, i in last.input_spec.input_types.items() if _kind(i) == "PyFunction"
    ]
    if regions:
        out["regions"] = regions
    return {**out, "forms": forms}


def _kind(spec: Any) -> str:
    return type(spec).__name__.removesuffix("InputType")


def _inputs(cls: Any) -> list[dict[str, Any]]:
    defaults, computed = _defaults(cls)
    ranks = _parameter_ranks(cls)
    out = []
    for name, spec in cls.input_spec.input_types.items():
        kind = _kind(spec)
        if name.startswith("_"):
            continue
        entry: dict[str, Any] = {"name": name}
        if kind != "Tensor":
            entry["kind"] = {"ListOrTensorOrDict": "any", "Internal": "any"}.get(kind, kind.lower())
        if spec.const:
            entry["const"] = True
        if spec.optional:
            entry["optional"] = True
        if kind == "Tensor":
            if spec.type_domain_id is not None:
                entry["variable"] = spec.type_domain_id
            entry["dtypes"] = [_dtype(t) for t in spec.type_domain or cls.type_domains[spec.type_domain_id]]
        if name in computed:
            entry["computed"] = True
        elif name in defaults:
            entry["default"] = defaults[name]
        if kind in ("Tensor", "Tuple") and (spec.const or kind == "Tuple"):
            # A default says it best, and no operator has a vector of strings for a parameter.
            if "default" in entry or entry.get("dtypes") == ["string"]:
                entry["rank"] = int(isinstance(entry.get("default"), list))
            elif name in ranks:
                entry["rank"] = ranks[name]
        out.append(entry)
    return out


def _dtype(builtin: Any) -> str:
    from coremltools.converters.mil.mil import types

    name: str = types.builtin_to_string(builtin)
    return _DTYPES.get(name) or re.sub(r"^(u?)int(\d+)$", lambda m: ("u" if m[1] else "i") + m[2], name)


class _StandIn:
    """Stands for an input while a default is evaluated: only what it says of itself can be asked for."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        from coremltools.converters.mil.mil import types

        self.shape = shape
        self.rank = len(shape)
        self.dtype = types.fp64  # so that a default rounded to the input's type keeps all its digits
        self.val = False


def _defaults(cls: Any) -> tuple[dict[str, Any], set[str]]:
    """The defaults that are the same whatever the inputs are, and the names of those that are not."""
    specs = cls.input_spec.input_types
    found: list[dict[str, Any]] = []
    for shape, optional_given in itertools.product([(2, 3, 4, 5), (3, 5, 7, 9, 11)], [False, True]):
        op = object.__new__(cls)
        for name, spec in specs.items():
            setattr(op, name, _StandIn(shape) if optional_given or not spec.optional else None)
        found.append({n: _plain(v) for n, v in cls.default_inputs(op).items()})
    names = {n for f in found for n in f if n in specs and specs[n].optional}
    computed = {n for n in names if any(f.get(n) != found[0].get(n) for f in found)}
    return {n: found[0][n] for n in names - computed if found[0][n] is not None}, computed


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return list(value) if isinstance(value, range | tuple) else value


def _parameter_ranks(cls: Any) -> dict[str, int]:
    """0 for an input that the docstring declares a scalar, 1 for a vector."""
    ranks: dict[str, int] = {}
    for c in reversed(cls.__mro__):
        for line in inspect.cleandoc(c.__doc__ or "").splitlines():
            m = re.match(r"(\w+)\s*:\s*(?:const\s*)?(?:(tensor\s*)?<(.*)>|([a-z]+\d*)\b)", line)
            if not m or m[1] not in cls.input_spec.input_types:
                continue
            inside = (m[3] or "").replace("\\", "").strip()
            if m[4] or re.fullmatch(r"(\[\s*\]\s*,\s*)?\w+", inside):
                ranks[m[1]] = 0
            elif re.fullmatch(r"(\[[^,\]]+\]|[^,\[\]]+)\s*,\s*\w+", inside):
                ranks[m[1]] = 1
            else:
                ranks.pop(m[1], None)
    return ranks


def _results(cls: Any) -> dict[str, Any]:
    """``least`` and ``most`` results (``most`` None for any number) and the type variable of each where it is known."""
    least, most = _result_range(cls)
    variables = []
    doc = inspect.cleandoc(cls.__doc__ or "").partition("\nReturns\n")[2].partition("\nAttributes\n")[0]
    for line in doc.splitlines():
        m = re.match(r"(?:tensor\s*)?<.*?[\s,<](\w+)>", line.replace("\\", ""))
        if m:
            variables.append(m[1] if m[1] in getattr(cls, "type_domains", {}) else "")
    if most is None or len(variables) != most:
        variables = []
    return {"least": least, "most": most, "variables": variables}


def _result_range(cls: Any) -> tuple[int, int | None]:
    counts: set[int | None] = set()
    for owner in cls.__mro__:
        if "type_inference" not in vars(owner):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(vars(owner)["type_inference"])))
        more = False
        for node in ast.walk(tree):
            if isinstance(node, ast.Return) and node.value is not None:
                text = ast.unparse(node.value)
                if isinstance(node.value, ast.Tuple):
                    counts.add(len(node.value.elts))
                elif text.startswith("tuple("):
                    counts.add(None)
                elif "super()" in text:
                    more = True
                else:
                    counts.add(1)
        if not more:
            break
    if None in counts:
        return 0, None
    known = [c for c in counts if c is not None]
    return min(known), max(known)


def _is_commutative(cls: Any) -> bool:
    """Whether swapping the inputs of a binary operator's NumPy function leaves its result as it is."""
    if not hasattr(cls, "get_operator") or list(cls.input_spec.input_types) != ["x", "y"]:
        return False
    function = cls.get_operator(object.__new__(cls))
    logical = [_dtype(t) for t in cls.type_domains["T"]] == ["bool"]
    a, b = (np.array([True, True, False, False]), np.array([True, False, True, False]))
    if not logical:
        a, b = np.array([1.5, 2.0, -3.0, 7.0]), np.array([2.5, -3.0, 5.0, 7.0])
    with np.errstate(all="ignore"):
        return bool(np.array_equal(function(a, b), function(b, a), equal_nan=True))


def _is_impure(cls: Any) -> bool:
    """State changes behind an operator that reads it; coremltools files what draws random numbers under ``random``."""
    reads_state = any(_kind(i) == "State" for i in cls.input_spec.input_types.values())
    return reads_state or cls.__module__.rpartition(".")[2] == "random"


def dump(data: dict[str, Any]) -> str:
    """``data`` as JSON text with one form of an operator to a line, so that differences are readable."""

    def line(value: Any) -> str:
        return json.dumps(value, separators=(", ", ": "))

    operators = []
    for name, op in data["operators"].items():
        head = "".join(f"{line(k)}: {line(v)}, " for k, v in op.items() if k != "forms")
        forms = ",\n      ".join(line(f) for f in op["forms"])
        operators.append(f'    {line(name)}: {{{head}"forms": [\n      {forms}]}}')
    top = "".join(f"  {line(k)}: {line(v)},\n" for k, v in data.items() if k != "operators")
    return "{\n" + top + '  "operators": {\n' + ",\n".join(operators) + "\n  }\n}\n"


if __name__ == "__main__":
    SNAPSHOT.write_text(dump(snapshot()), encoding="utf-8")
