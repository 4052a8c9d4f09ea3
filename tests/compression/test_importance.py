"""``--importance``: slopes choose better than norms and chance, and need JAX and inputs."""

from __future__ import annotations

import numpy as np
import pytest

import compiler
from compiler import driver, ir
from compiler.compression import importance
from compiler.compression.settings import Settings
from compiler.errors import UserError
from compiler.execution import evaluate
from compiler.options import Options
from passes import prune
from passes.prune.importance import magnitude


def test_slopes_choose_better_than_norms_and_chance(models_dir):
    """On a real network, by outputs on pictures that did not judge."""
    pytest.importorskip("jax")
    shape = (4, 24, 24, 3)
    module = driver.at_stage(models_dir / "mtcnn_rnet" / "model.onnx", "fuse", Options(shapes={"input_2": shape}))
    learn, test = ([[picture] for picture in boxes(16, shape, seed)] for seed in (1, 2))
    whole = evaluate.Session(module)

    def distance(scores):
        smaller = ir.clone_module(module)
        prune.run(smaller, 0.1, scores)
        session = evaluate.Session(smaller)
        pairs = [(a, b) for (x,) in test for a, b in zip(*(s.run({"input_2": x}) for s in (session, whole)))]
        return np.mean([np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in pairs])

    by_norm = magnitude(prune.analyse(module.main))
    chance = [dict(zip(by_norm, np.random.default_rng(i).random(len(by_norm)), strict=True)) for i in range(4)]
    slopes = distance(importance.scores("taylor", module, learn))
    assert slopes < 0.5 * distance(by_norm)
    assert slopes < 0.5 * np.mean([*map(distance, chance)])


def boxes(count, shape, seed):
    """Pictures of a few boxes of one colour each, in batches of four."""
    rng = np.random.default_rng(seed)
    found = np.zeros((count, *shape), np.float32)
    for picture in found.reshape(-1, *shape[1:]):
        for _ in range(8):
            y, x, h, w = (int(n) for n in (*rng.integers(0, 24, 2), *rng.integers(2, 15, 2)))
            picture[y : y + h, x : x + w] += rng.standard_normal(3) / 2
    return found


def test_it_is_an_option_of_compile(tmp_path, models_dir):
    pytest.importorskip("jax")
    shape = (4, 24, 24, 3)
    done = compiler.compile(
        models_dir / "mtcnn_rnet" / "model.onnx", "cpu", tmp_path / "out.mlpackage", shapes={"input_2": shape},
        verify="fast", prune=0.2, importance="taylor", calibrate={"input_2": boxes(2, shape, 1)},
    )  # fmt: skip
    assert done.report.verify.passed
    assert done.report.compression["pruning"]["importance"] == "taylor"


def test_mistakes_are_one_sentence(monkeypatch, data):
    for options, message in (
        ({"prune": 0.3, "importance": "tailor", "data": data}, "no importance is called 'tailor'"),
        ({"importance": "magnitude"}, "says which channels go, but not how many"),
        ({"prune": 0.3, "importance": "taylor"}, "is found on inputs that the model is made for"),
        ({"prune": 0.3, "importance": "activation"}, "is found on inputs that the model is made for"),
    ):
        with pytest.raises(UserError) as e:
            Settings.of(None, 17, **options)
        assert message in e.value.message
    monkeypatch.setattr("compiler.compression.settings.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs JAX") as e:
        Settings.of(None, 17, prune=0.3, importance="taylor", data=data)
    assert e.value.remedy == "pip install 'planish[distill]'"
