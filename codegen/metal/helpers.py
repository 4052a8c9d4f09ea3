"""Functions in MSL that kernels call and Metal has not; a source holds those that it uses."""

from __future__ import annotations

import re

#: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: off by less than 1.5e-7. Below a half, where that
#: is much of the result, the series 7.1.5 to x¹¹, which is off by less than 3e-8 of it.
_ERF = """
inline float erf_of(float x) {
    if (abs(x) < 0.5f) {
        const float s = x * x;
        const float r = ((s / -1320.0f + 1.0f / 216.0f) * s - 1.0f / 42.0f) * s + 0.1f;
        return 1.12837917f * x * ((r * s - 1.0f / 3.0f) * s + 1.0f);
    }
    const float t = 1.0f / (1.0f + 0.3275911f * abs(x));
    const float q = ((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t;
    const float p = ((q - 0.284496736f) * t + 0.254829592f) * t;
    return copysign(1.0f - p * exp(-x * x), x);
}
"""

#: Keys, "Cubic convolution interpolation for digital image processing", 1981, equation 15.
_CUBIC = """
// The weight of a sample at a distance from where a cubic convolution with parameter a looks.
inline float cubic_weight(float distance, float a) {
    const float d = abs(distance);
    if (d <= 1.0f) {
        return ((a + 2.0f) * d - (a + 3.0f)) * d * d + 1.0f;
    }
    return d < 2.0f ? ((a * d - 5.0f * a) * d + 8.0f * a) * d - 4.0f * a : 0.0f;
}
"""

_REFLECTED = """
// The place inside low ... high that x reaches when it is thrown back at both ends.
inline float reflected(float x, float low, float high) {
    const float range = high - low;
    const float beyond = x < low ? low - x : x - high;
    if (beyond <= 0.0f || range <= 0.0f) {
        return range <= 0.0f ? low : x;
    }
    const float turns = floor(beyond / range);
    const float rest = beyond - turns * range;
    const bool from_low = (x < low) == (fmod(turns, 2.0f) == 0.0f);
    return from_low ? low + rest : high - rest;
}
"""

#: Integers of four bits, the lower half of a byte first.
_NIBBLES = """
inline int nibble(device const uchar* x, int i) {
    return (x[i / 2] >> (4 * (i % 2))) & 15;
}

inline int4 nibbles(uchar2 x) {
    return int4(x.x & 15, x.x >> 4, x.y & 15, x.y >> 4);
}
"""

_SIGNED_NIBBLES = """
inline int signed_nibble(device const uchar* x, int i) {
    return (((x[i / 2] >> (4 * (i % 2))) & 15) ^ 8) - 8;
}

inline int4 signed_nibbles(uchar2 x) {
    return (int4(x.x & 15, x.x >> 4, x.y & 15, x.y >> 4) ^ 8) - 8;
}
"""

_HELPERS = {
    "erf_of": _ERF,
    "cubic_weight": _CUBIC,
    "reflected": _REFLECTED,
    "nibble": _NIBBLES,
    "nibbles": _NIBBLES,
    "signed_nibble": _SIGNED_NIBBLES,
    "signed_nibbles": _SIGNED_NIBBLES,
}


def used_by(text: str, given: str = "") -> str:
    """The functions that kernels call, but for those whose source is ``given``."""
    sources = [source for name, source in _HELPERS.items() if re.search(rf"\b{name}\(", text)]
    return "".join(source for source in dict.fromkeys(sources) if source.strip() not in given)
