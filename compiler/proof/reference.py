"""The original model, in onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler.errors import UserError

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, Any]


class Reference:
    """The original model in onnxruntime, untouched by this compiler."""

    def __init__(self, source: str | Path | onnx.ModelProto, level: str = "ORT_ENABLE_BASIC") -> None:
        """Opens a model file, or a model in memory.

        Args:
            level: how far onnxruntime may optimize. Constant folding and the like keep values as they are; fusions
                beyond that trade digits for speed.

        Raises:
            UserError: onnxruntime does not take it.
        """
        self.source = source
        #: What was done to the model so that onnxruntime runs it, in a sentence; empty where nothing was.
        self.note = ""
        self._level = level
        self._session: Any = None
        session = self._opened()
        self.input_names = [i.name for i in session.get_inputs()]
        self.output_names = [o.name for o in session.get_outputs()]

    def _opened(self) -> Any:
        """The session of the model, or of a form of it that onnxruntime runs."""
        from compiler.proof.rewritten import rewritten

        session, failed = None, None
        try:
            session = self.open()
            if not any("bfloat16" in v.type for v in (*session.get_inputs(), *session.get_outputs())):
                return session
        except UserError as e:
            failed = e
        form = rewritten(self.source)
        if form is None and failed is not None:
            raise failed
        if form is None:
            return session
        self._session = None
        self.source, self.note = form
        return self.open()

    def open(self) -> Any:
        """The session, opened again if it was closed."""
        if self._session is None:
            source = self.source
            given = source if isinstance(source, (str, Path)) else source.SerializeToString()
            self._session = _session(given, level=self._level)
        return self._session

    def close(self) -> None:
        """Lets go of onnxruntime's copy of the weights until the model runs again."""
        self._session = None

    def at(self, level: str) -> Reference:
        """The same model, optimized as far as ``level`` says."""
        return Reference(self.source, level)

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """The outputs, in order."""
        fed = {n: _as_numpy(inputs[n]) for n in self.input_names}
        try:
            out: list[Array] = self.open().run(None, fed)
        except Exception as e:  # onnxruntime has no common base for its errors
            raise UserError(
                f"onnxruntime cannot run the original model on the proof's inputs: {_first_line(e)}",
                "--inputs FILE.npz with inputs that fit the model, or --verify off",
            ) from e
        return out

    def values(self, inputs: Mapping[str, Array], wanted: Iterable[str]) -> dict[str, Array]:
        """Intermediate values of the main graph by name; names that it does not have are left out."""
        import onnx

        if isinstance(self.source, (str, Path)):
            model = onnx.load(str(self.source), load_external_data=False)
            folder = str(Path(self.source).resolve().parent)
        else:
            model, folder = onnx.ModelProto.FromString(self.source.SerializeToString()), ""
        made = {name for node in model.graph.node for name in node.output if name}
        names = [n for n in dict.fromkeys(wanted) if n in made]
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
        session = _session(model.SerializeToString(), folder)
        fed = {i.name: inputs[i.name] for i in session.get_inputs()}
        return dict(zip(names, session.run(names, fed), strict=True))


def _as_numpy(array: Array) -> Array:
    """The array in an element type that NumPy has: bfloat16 becomes f32."""
    return array if array.dtype.isbuiltin == 1 or array.dtype.name != "bfloat16" else array.astype(np.float32)


def _session(source: str | Path | bytes, folder: str = "", level: str = "ORT_ENABLE_BASIC") -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    if folder:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    try:
        return ort.InferenceSession(
            source if isinstance(source, bytes) else str(source), options, providers=["CPUExecutionProvider"]
        )
    except Exception as e:
        raise UserError(
            f"onnxruntime cannot open the original model, so nothing can be proven: {_first_line(e)}", "--verify off"
        ) from e


def _first_line(e: Exception) -> str:
    return str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
