"""Tasks to judge compressed models by, with inputs made here: reading rendered lines, finding boxes on photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TEXT = """Planish reads models and writes packages that run on phones tablets and desktops Every rule is proved before
it is used Compressed weights are integers palettes or sparse tensors Accuracy is the judge of what may be kept Invoice
Total Amount Due Street Avenue Berlin Paris London Tokyo January March October Sunday Order Number Flight Gate"""
WORDS = TEXT.split()


def weight_bytes(model: Path) -> int:
    """What the float weights of a model take in f32, whether they are initializers or constants."""
    import onnx

    graph = onnx.load(model).graph
    tensors = [*graph.initializer, *(a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute)]
    return sum(4 * int(np.prod(t.dims)) for t in tensors if t.data_type == onnx.TensorProto.FLOAT)


def fonts() -> list[str]:
    """Font files of Debian's packages and of font packages from PyPI, whichever are installed."""
    found = sorted(map(str, Path("/usr/share/fonts").rglob("*.ttf")))
    try:
        from font_roboto import RobotoMedium, RobotoRegular
        from font_source_serif_pro import SourceSerifProRegular

        found += [RobotoRegular, RobotoMedium, SourceSerifProRegular]
    except ImportError:
        pass
    if not found:
        raise SystemExit("no fonts are installed: apt-get install fonts-dejavu, or pip install font-roboto")
    return found


def lines(count: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Rendered lines of text (count, 1, 3, 48, 320) as PP-OCR takes them, in [-1, 1], and what they say."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(seed)
    files = fonts()
    pictures, texts = [], []
    while len(texts) < count:
        words = list(rng.choice(WORDS, rng.integers(1, 4)))
        if rng.random() < 0.4:
            words.append(str(rng.integers(0, 100000)))
        text = " ".join(words)
        font = ImageFont.truetype(files[rng.integers(len(files))], int(rng.integers(18, 34)))
        ground, ink = int(rng.integers(150, 256)), int(rng.integers(0, 90))
        image = Image.new("L", (320, 48), ground)
        draw = ImageDraw.Draw(image)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        if right - left > 300 or bottom - top > 44:
            continue
        draw.text((int(rng.integers(4, 12)) - left, (48 - bottom + top) // 2 - top), text, ink, font)
        noisy = np.asarray(image, np.float32) + rng.normal(0, rng.uniform(2, 25), (48, 320))
        plain = np.clip(noisy, 0, 255) / 127.5 - 1
        pictures.append(np.repeat(plain[None, None], 3, 1).astype(np.float32))
        texts.append(text)
    return np.stack(pictures), texts


def read(scores: np.ndarray, keys: list[str]) -> str:
    """Greedy CTC: the best key of each column, repeats and blanks (key 0) left out."""
    best = scores[0].argmax(-1)
    kept = [b for i, b in enumerate(best) if b and (i == 0 or b != best[i - 1])]
    return "".join(keys[b] for b in kept)


def characters_right(texts: list[str], found: list[str]) -> float:
    """1 − edits / characters, over all lines."""
    from rapidfuzz.distance import Levenshtein

    edits = sum(min(Levenshtein.distance(t, f), len(t)) for t, f in zip(texts, found, strict=True))
    return 1 - edits / sum(map(len, texts))


def photographs(size: tuple[int, int], count: int, seed: int) -> np.ndarray:
    """Crops of the photographs that scikit-image ships, (count, 1, 3, height, width) in 0 … 255."""
    from PIL import Image
    from skimage import data

    rng = np.random.default_rng(seed)
    whole = [data.astronaut(), np.stack([data.camera()] * 3, -1), data.coffee(), data.chelsea(), data.rocket()]
    out = []
    for i in range(count):
        # People matter most to the detectors at hand: every other crop is of one.
        photo = whole[(i // 2) % 2 if i % 2 == 0 else i // 2 % len(whole)]
        height, width = photo.shape[:2]
        side = int(min(height, width) * rng.uniform(0.55, 1.0))
        y, x = int(rng.integers(0, (height - side) // 3 + 1)), int(rng.integers(0, width - side + 1))
        crop = Image.fromarray(photo[y : y + side, x : x + side]).resize(size[::-1], Image.Resampling.BILINEAR)
        picture = np.asarray(crop, np.float32).transpose(2, 0, 1)
        out.append((picture[:, :, ::-1] if rng.random() < 0.5 else picture)[None])
    return np.ascontiguousarray(np.stack(out))


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
