"""A store of what was compiled: models, packages and kernels, each with where it comes from and how good it is.

>>> store = Store.open("models.store")
>>> added = store.add("model.mlpackage", metrics={"accuracy": 0.97}, tags=["candidate"])
>>> store.promote(added.id, "production")

Files are kept once, by their hash, and never change; a record says which of them an artifact has. Everything is safe
under several writers and under ``kill -9``: files and records come to stand whole or not at all, and nobody collects
garbage while somebody adds.
"""

from compiler.store.check import Problem
from compiler.store.difference import difference
from compiler.store.records import Artifact, Stored
from compiler.store.store import Collected, Store

__all__ = ["Artifact", "Collected", "Problem", "Store", "Stored", "difference"]
