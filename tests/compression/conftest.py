"""A small real network to compress, with inputs, and how plain compiling goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

MODEL = Path(__file__).parents[2] / "examples" / "ppocr_cls.onnx"
SHAPE = (1, 3, 48, 96)


@pytest.fixture(scope="session")
def data() -> dict[str, np.ndarray]:
    """Four pictures of strokes, as the model's input ``x``."""
    rng = np.random.default_rng(6)
    pictures = np.ones((4, *SHAPE[1:]), np.float32)
    for picture in pictures:
        for _ in range(12):
            y, x = rng.integers(4, 40), rng.integers(2, 80)
            picture[:, y : y + rng.integers(2, 9), x : x + rng.integers(2, 14)] = -1.0
    return {"x": pictures}
