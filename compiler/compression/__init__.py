"""Compression as a stage of a compile: what the user asks for, calibration, choice, proof."""

from compiler.compression.road import Road
from compiler.compression.settings import Settings
from compiler.compression.stage import compress

__all__ = ["Road", "Settings", "compress"]
