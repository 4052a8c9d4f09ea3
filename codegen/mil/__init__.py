"""ML Program packages: written from mil modules, and read back into them.

written = mil.write(module, "model.mlpackage", os="ios17")
module = mil.read("model.mlpackage")
"""

from codegen.mil.reader import read
from codegen.mil.writer import Written, write
from compiler.metadata import Metadata

__all__ = ["Metadata", "Written", "read", "write"]
