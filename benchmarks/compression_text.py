"""Text to judge compressed models by: rendered lines, and what was read on them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

TEXT = """Planish reads models and writes packages that run on phones tablets and desktops Every rule is proved before
it is used Compressed weights are integers palettes or sparse tensors Accuracy is the judge of what may be kept Invoice
Total Amount Due Street Avenue Berlin Paris London Tokyo January March October Sunday Order Number Flight Gate"""
WORDS = TEXT.split()


def fonts() -> list[str]:
    """Font files of Debian's packages and of font packages from PyPI, whichever are installed."""
    found = sorted(map(str, Path("/usr/share/fonts").rglob("*.ttf")))
    with suppress(ImportError):
        from font_roboto import RobotoMedium, RobotoRegular
        from font_source_serif_pro import SourceSerifProRegular

        found += [RobotoRegular, RobotoMedium, SourceSerifProRegular]
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


def keys(model: Path) -> list[str]:
    """The characters that a model of PP-OCR reads, by number, from its metadata."""
    import onnx

    metadata = {p.key: p.value for p in onnx.load(model, load_external_data=False).metadata_props}
    return ["", *metadata["character"].splitlines(), " "]


def read(scores: np.ndarray, keys: list[str]) -> str:
    """Greedy CTC: the best key of each column, repeats and blanks (key 0) left out."""
    best = scores[0].argmax(-1)
    kept = [b for i, b in enumerate(best) if b and (i == 0 or b != best[i - 1])]
    return "".join(keys[b] for b in kept)


def edits(text: str, found: str) -> int:
    """How many edits make what was read what is written, no more than there are characters."""
    from rapidfuzz.distance import Levenshtein

    return min(Levenshtein.distance(text, found), len(text))
