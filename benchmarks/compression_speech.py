"""Speech to judge compressed listeners by: sentences spoken by espeak-ng, in noise."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.compression_text import WORDS

Array = np.ndarray[Any, Any]
RATE = 16000
#: What Silero takes: so many new values behind so many of those before.
FRAME, BEFORE = 512, 64
_VOICES = ("en-us", "en-gb", "de", "fr-fr", "es", "it")


def clips(count: int, seconds: float, seed: int) -> list[Array]:
    """Clips at 16 kHz in [-1, 1]: sentences with silence between, in noise of 0 to 30 dB below."""
    from scipy.signal import resample_poly

    if shutil.which("espeak-ng") is None:
        raise SystemExit("speech needs apt-get install espeak-ng")
    rng = np.random.default_rng(seed)
    length = int(seconds * RATE)
    out = []
    for i in range(count):
        clip = np.zeros(length)
        at = int(rng.integers(0, RATE))
        while at < length:
            said = " ".join(rng.choice(WORDS, rng.integers(3, 8)))
            voice = [
                "-v",
                _VOICES[i % len(_VOICES)],
                "-s",
                str(rng.integers(130, 200)),
                "-p",
                str(rng.integers(20, 80)),
            ]
            made = subprocess.run(["espeak-ng", "--stdout", *voice, said], capture_output=True, check=True).stdout
            with wave.open(io.BytesIO(made)) as file:
                # The length in the header of what goes to a pipe is not the true one.
                heard = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 32768
                heard = resample_poly(heard, RATE, file.getframerate())
            part = heard[: length - at]
            clip[at : at + len(part)] += part
            at += len(part) + int(rng.uniform(0.3, 1.5) * RATE)
        noise = rng.normal(size=length)
        if i % 2:
            noise = np.convolve(noise, np.ones(8) / 8, mode="same")  # duller than white noise
        loud = np.sqrt(np.square(clip).mean()) / 10 ** (rng.uniform(0, 30) / 20)
        clip += noise * loud / np.sqrt(np.square(noise).mean())
        out.append((clip / max(np.abs(clip).max(), 1e-9) * rng.uniform(0.3, 0.9)).astype(np.float32))
    return out


Run = Callable[[dict[str, Array]], dict[str, Array]]


def frames(clip: Array) -> list[Array]:
    """What Silero takes one after the other: (1, 64 + 512)."""
    padded = np.concatenate([np.zeros(BEFORE, np.float32), clip])
    return [padded[None, i : i + BEFORE + FRAME] for i in range(0, len(clip) - FRAME + 1, FRAME)]


def heard(run: Run, clip: Array, states: list[Array] | None = None) -> list[float]:
    """The probability of a voice in each frame, as Silero hears it.

    Args:
        states: is given the state before each frame.
    """
    state = np.zeros((2, 1, 128), np.float32)
    out = []
    for frame in frames(clip):
        if states is not None:
            states.append(state)
        found = run({"input": frame, "sr": np.array(RATE, np.int64), "state": state})
        state = found["stateN"].reshape(2, 1, 128)
        out.append(round(float(found["output"].ravel()[0]), 6))
    return out
