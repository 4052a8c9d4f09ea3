"""Real models: loaded, upgraded, folded and evaluated, they give what onnxruntime gave on the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from compiler import frontend
from compiler.execution import evaluate
from compiler.ir import verify
from compiler.rewrite.library import Library
from compiler.rewrite.load import read_rules
from passes import cse, dce, fold

NAMES = """
attacut basic_pitch centerface charcnn_fp16 craft_refiner deepcut dnsmos espcn fsmn_vad gesture_mlp light_densenet121
light_resnet50 light_shufflenet light_squeezenet magika melspectrogram minilm_l6_int8 mtcnn_onet mtcnn_pnet mtcnn_rnet
painn_gnn plcmos_gru pplcnet_orientation ppocr_cls ppocrv4_det ppocrv4_rec romanizer_gru_decoder romanizer_gru_encoder
silero_vad_16k silero_vad_op18 slanet_plus spindle_unet tashkeel_bilstm_int8 ultraface wakeword_embedding
wakeword_jarvis whisper_encoder_qdq yolov8n_320
""".split()  # noqa: SIM905 (a list of names is read as a paragraph)
RULES = Path(__file__).parents[2] / "rules" / "upgrade.rules"


@pytest.fixture(scope="module")
def library() -> Library:
    return Library([read_rules(RULES)])


@pytest.mark.parametrize("name", NAMES)
def test_model_computes_the_same(models_dir, library, name):
    path = models_dir / name / "model.onnx"
    module = frontend.load(path)
    library.rewrite(module, "upgrade")
    fold.run(module)
    cse.run(module)
    dce.run(module)
    verify(module)
    assert fold.run(module) == cse.run(module) == dce.run(module) == 0
    with np.load(path.with_name("io.npz")) as file:
        inputs = {k.removeprefix("in:"): file[k] for k in file.files if k.startswith("in:")}
        expected = {k.removeprefix("out:"): file[k] for k in file.files if k.startswith("out:")}
    # The outputs were computed with onnxruntime's fusions, which round quantized models differently.
    session = evaluate.Session(module, optimize=True)
    names = module.main.output_names
    if set(names) - expected.keys():
        options = ort.SessionOptions()
        options.log_severity_level = 4
        expected |= zip(names, ort.InferenceSession(path, options).run(names, inputs))
    for output, found in zip(names, session.run(inputs), strict=True):
        assert found.shape == expected[output].shape
        error = np.linalg.norm(found.astype(float) - expected[output]) / (
            np.linalg.norm(expected[output].astype(float)) + 1e-30
        )
        assert error <= 1e-5, output


@pytest.mark.parametrize("name", ["ppocr_cls", "yolov8n_320", "silero_vad_16k"])
def test_shapes_make_all_types_static(models_dir, library, name):
    shapes = {
        "ppocr_cls": {"x": (1, 3, 48, 192)},
        "yolov8n_320": {"images": (1, 3, 320, 320)},
        "silero_vad_16k": {"input": (1, 512), "state": (2, 1, 128)},
    }[name]
    module = frontend.load(models_dir / name / "model.onnx", shapes)
    library.rewrite(module, "upgrade")
    fold.run(module)
    dce.run(module)
    loose = [op for op in module.main.block.ops for r in op.results if not r.type.is_static]
    assert loose == []
    assert not frontend.open_dimensions(module)
