"""Compression as a stage of a compile: what the user asks for, calibration, choice, proof."""
