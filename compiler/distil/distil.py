"""Distillation: a smaller student learns from the model it was made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.errors import UserError, VerificationError
from compiler.ir import Module, Value

if TYPE_CHECKING:
    from compiler.distil.data import Sample
    from compiler.distil.train import Schedule
    from compiler.shapes import Shape
    from passes.prune.importance import Importance

Array = np.ndarray[Any, Any]

#: The share of the samples that judge.
HELD = 0.1
#: How many layers are compared by what they attend to.
LAYERS = 4
#: How far the trained function may be from what onnxruntime makes of the file, as relative L2.
LIMIT = 1e-4


@dataclass(frozen=True, slots=True)
class Task:
    """What to distil, and how.

    Attributes:
        model: the teacher, an ONNX model.
        data: see :func:`compiler.distil.data.samples`.
        work: the folder of the checkpoint.
        prune: the share of channels to cut out of the student.
        importance: by what channels are judged.
        bits: to how many bits weights are rounded while the student learns; None for none.
        temperature: of the distributions.
        features: the weight of the loss on what layers attend to.
        loss: ``FILE.py:FUNCTION`` in place of the built-in loss.
        most: how many samples to take at the most.
    """

    model: Path
    data: str | Path
    work: Path
    schedule: Schedule
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    prune: float | None = None
    importance: Importance = "activation"
    bits: int | None = None
    temperature: float = 2.0
    features: float = 0.0
    loss: str | None = None
    most: int = 4096


@dataclass(frozen=True, slots=True)
class Student:
    """What came of it.

    Attributes:
        model: the student as an ONNX model.
        before, after: its loss on the held samples before and after it learned.
        steps: how many batches it saw.
        macs, parameters: of the teacher and of the student.
    """

    model: Any
    before: float
    after: float
    steps: int
    macs: tuple[int, int]
    parameters: tuple[int, int]


def distil(
    task: Task,
    tell: Callable[[int, float, float], None] = lambda step, learnt, judged: None,
    at: Callable[[str], None] = lambda what: None,
) -> Student:
    """Makes the student and trains it.

    Args:
        tell: told of each judgement: step, loss while learning, loss on the samples held back.
        at: told what is being done.

    Raises:
        UserError: the model, the data or an option cannot be used, or what training needs is not installed.
        UnsupportedError: the model holds an operator that is not differentiated here.
        VerificationError: the file does not compute what was trained.
    """
    try:
        import jax
        import optax  # noqa: F401 (said here, where the remedy is known)
    except ImportError:
        raise UserError("distilling needs JAX and Optax", "pip install 'planish[distill]'") from None
    from compiler.distil import losses
    from compiler.distil.data import divided, samples
    from compiler.distil.differentiable import Differentiable, Quantizer
    from compiler.distil.train import train
    from compiler.execution import evaluate
    from compiler.proof import Reference
    from passes.prune.run import macs, parameters

    at("reading the model and the samples")
    teacher = Reference(task.model)
    module = _imported(task)
    names = module.main.output_names
    whole = macs(module.main), parameters(module.main)
    given = samples(task.data, module.main, task.most)
    if task.prune is not None:
        at("choosing channels")
        _prune(module, task, given)
    student = Differentiable(module.main)
    probes = _probes(student.features, teacher, given[0]) if task.features else []
    at("asking the teacher")
    learn, held = (
        [{"sample": s, "teacher": _taught(teacher, s, names, probes)} for s in part]
        for part in divided(given, HELD, task.schedule.seed)
    )
    quantizer = Quantizer(task.bits) if task.bits is not None else None
    loss = (
        losses.of_user(task.loss) if task.loss else losses.softened(task.temperature, losses.distributions(module.main))
    )

    def one(parameters: Mapping[str, Any], tree: Mapping[str, Any]) -> Any:
        values = student(parameters, tree["sample"], probes, quantizer)
        ours, theirs = dict(zip(names, values[: len(names)], strict=True)), tree["teacher"]
        total = loss(ours, {n: theirs[n] for n in names}, tree["sample"])
        if probes:
            total += task.features * losses.attention(values[len(names) :], [theirs[f"probe:{p.name}"] for p in probes])
        return total

    def each(parameters: Mapping[str, Any], batch: Any) -> Any:
        return jax.vmap(one, in_axes=(None, 0))(parameters, batch)

    task.work.mkdir(parents=True, exist_ok=True)
    done = train(
        student.parameters, each, learn, held, task.schedule, task.work / "checkpoint.npz", _fingerprint(task), tell, at
    )
    at("checking the student's file")
    student.store(done.best)
    model = evaluate.to_onnx(module)
    _check(model, names, [h["sample"] for h in held[:4]], student, done.best)
    _sign(model, task, done.step)
    counts = macs(module.main), parameters(module.main)
    return Student(
        model,
        done.history[0][2],
        done.least,
        done.step,
        (whole[0], counts[0]),
        (whole[1], counts[1]),
    )


def _imported(task: Task) -> Module:
    """The model with its operators fused, as compiling begins."""
    from compiler.driver import Options, at_stage

    return at_stage(task.model, "fuse", Options(shapes=task.shapes))


def _prune(module: Module, task: Task, given: Sequence[Sample]) -> None:
    from compiler.compression.importance import scores
    from compiler.compression.pruning import nothing_to_cut
    from passes import prune

    assert task.prune is not None
    inputs = [a.name for a in module.main.inputs]
    some = [[s[n] for n in inputs] for s in given[:16]]
    if not prune.run(module, task.prune, scores(task.importance, module, some)).channels:
        raise nothing_to_cut(module)


def _probes(features: Sequence[Value], teacher: Any, sample: Sample) -> list[Value]:
    """Layers to compare, evenly spaced: those that the teacher has by name with as many positions."""
    theirs = teacher.values(sample, [v.name for v in features])
    fit = [v for v in features if v.name in theirs and _positions(v.shape or ()) == _positions(theirs[v.name].shape)]
    count = min(LAYERS, len(fit))
    return [fit[(2 * i + 1) * len(fit) // (2 * count)] for i in range(count)]


def _positions(shape: Sequence[Any]) -> tuple[Any, ...]:
    """A shape without its channels."""
    return (shape[0], *shape[2:]) if len(shape) == 4 else tuple(shape[:-1])


def _taught(teacher: Any, sample: Sample, names: Sequence[str], probes: Sequence[Value]) -> dict[str, Array]:
    found = dict(zip(names, teacher.run(sample), strict=True))
    if probes:
        values = teacher.values(sample, [p.name for p in probes])
        found |= {f"probe:{name}": array for name, array in values.items()}
    return found


def _check(
    model: Any, names: Sequence[str], held: Sequence[Sample], student: Any, parameters: Mapping[str, Any]
) -> None:
    """Raises VerificationError where onnxruntime computes something else from the file than what was trained."""
    from compiler.proof import Reference, judge

    made = Reference(model)
    theirs = [[np.asarray(v) for v in student(parameters, sample)] for sample in held]
    verdict = judge(names, [made.run(s) for s in held], theirs, "fp32", LIMIT)
    if not verdict.passed:
        raise VerificationError("the student's file does not compute what was trained", "report it with the model")


def _fingerprint(task: Task) -> str:
    """What a checkpoint must agree on to be gone on with."""
    from compiler.distil.data import files

    content = {k: str(v) for k, v in asdict(task).items() if k not in ("work", "schedule")}
    content["schedule"] = str(asdict(task.schedule))
    read = [task.model, *files(task.data), *([Path(task.loss.rpartition(":")[0])] if task.loss else [])]
    content["sha256"] = " ".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in read)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sign(model: Any, task: Task, steps: int) -> None:
    """Says in the model's metadata where it comes from."""
    from importlib.metadata import version

    said = {
        "planish.version": version("planish"),
        "planish.source": task.model.name,
        "planish.source.sha256": hashlib.sha256(task.model.read_bytes()).hexdigest(),
        "planish.recipe": f"prune {task.prune or 0:g}, distilled over {steps} steps"
        + (f" with weights of {task.bits} bits" if task.bits else ""),
    }
    for key, value in said.items():
        model.metadata_props.add(key=key, value=value)
