"""What an app sees of a package: its inputs and outputs as it wants them, each wish in a file of its own."""

from compiler.features.base import Array, Arrays, Feature, Interface

__all__ = ["Array", "Arrays", "Feature", "Interface"]
