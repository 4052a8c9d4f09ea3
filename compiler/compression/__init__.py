"""Compression as a stage of a compile: what the user asks for, calibration, choice, proof."""

from compiler.compression.settings import Settings
from compiler.compression.stage import Road, compress

__all__ = ["Road", "Settings", "compress"]
