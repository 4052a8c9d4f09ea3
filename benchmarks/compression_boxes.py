"""Boxes to judge compressed detectors by: photographs, what was found on them, and how well two findings agree."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np


def photographs(size: tuple[int, int], count: int, seed: int) -> np.ndarray:
    """Crops of photographs that packages ship, (count, 1, 3, height, width) in 0 … 255, people most of all."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    people, things = _shipped()
    out = []
    for i in range(count):
        # People matter most to the detectors at hand: two of three crops are of some.
        photo = things[i // 3 % len(things)] if i % 3 == 2 else people[(i // 3 * 2 + i % 3) % len(people)]
        height, width = photo.shape[:2]
        side = int(min(height, width) * rng.uniform(0.55, 1.0))
        y, x = int(rng.integers(0, (height - side) // 3 + 1)), int(rng.integers(0, width - side + 1))
        crop = Image.fromarray(photo[y : y + side, x : x + side]).resize(size[::-1], Image.Resampling.BILINEAR)
        picture = np.asarray(crop, np.float32).transpose(2, 0, 1)
        out.append((picture[:, :, ::-1] if rng.random() < 0.5 else picture)[None])
    return np.ascontiguousarray(np.stack(out))


def _shipped() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Photographs of people, and others: those of scikit-image, scikit-learn and Ultralytics (which need not run)."""
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_images

    people, things = [data.astronaut()], [data.coffee(), data.chelsea(), data.rocket(), data.stereo_motorcycle()[0]]
    things += load_sample_images().images
    found = importlib.util.find_spec("ultralytics")
    if found is None or found.origin is None:
        raise SystemExit("the photographs need pip install --no-deps ultralytics")
    assets = Path(found.origin).parent / "assets"
    people += [np.asarray(Image.open(assets / name).convert("RGB")) for name in ("bus.jpg", "zidane.jpg")]
    return people, things


def yolo_boxes(outputs: list[np.ndarray], least: float) -> list[tuple[int, float, np.ndarray]]:
    """(class, score, box) of YOLOv8's output (1, 4 + classes, anchors), after suppression of overlaps."""
    found = outputs[0][0].T
    classes, scores = found[:, 4:].argmax(1), found[:, 4:].max(1)
    half = found[:, 2:4] / 2
    return _suppressed(classes, scores, np.concatenate([found[:, :2] - half, found[:, :2] + half], 1), least)


def face_boxes(outputs: list[np.ndarray], least: float) -> list[tuple[int, float, np.ndarray]]:
    """(0, score, box) of UltraFace's scores (1, n, 2) and boxes (1, n, 4)."""
    scores, boxes = outputs[0][0][:, 1], outputs[1][0]
    return _suppressed(np.zeros(len(scores), int), scores, boxes, least)


def _suppressed(classes, scores, boxes, least):
    order = [i for i in np.argsort(-scores, kind="stable")[:300] if scores[i] >= least]
    kept: list[int] = []
    for i in order:
        if all(classes[i] != classes[k] or overlap(boxes[i], boxes[k]) < 0.5 for k in kept):
            kept.append(i)
    return [(int(classes[i]), float(scores[i]), boxes[i]) for i in kept]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    common = float(np.prod(np.clip(high - low, 0, None)))
    return common / max(float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - common, 1e-9)


def mean_average_precision(truth: list[list], found: list[list]) -> float:
    """COCO's mAP (IoU 0.5 to 0.95, 101 points) of ``found`` with ``truth`` taken for right; boxes of each picture."""
    values = []
    for c in {t[0] for one in truth for t in one}:
        wanted = [[t[2] for t in one if t[0] == c] for one in truth]
        total = sum(map(len, wanted))
        ranked = sorted(((s, i, b) for i, one in enumerate(found) for k, s, b in one if k == c), key=lambda r: -r[0])
        for threshold in np.arange(0.5, 1.0, 0.05):
            left = [list(w) for w in wanted]
            hits = []
            for _, i, box in ranked:
                best = max(range(len(left[i])), key=lambda j: overlap(box, left[i][j]), default=None)
                good = best is not None and overlap(box, left[i][best]) >= threshold
                hits.append(good)
                if good:
                    del left[i][best]
            recall = np.cumsum(hits) / total
            precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
            ceiling = np.maximum.accumulate(precision[::-1])[::-1]
            at = np.searchsorted(recall, np.linspace(0, 1, 101))
            values.append(np.mean([ceiling[a] if a < len(ceiling) else 0.0 for a in at]))
    return float(np.mean(values)) if values else 1.0
