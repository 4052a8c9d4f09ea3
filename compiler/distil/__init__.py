"""Distillation: what pruning and rounding cost, won back by learning from the original. Needs the extra ``distill``."""

from compiler.distil.distil import Student, Task, distil

__all__ = ["Student", "Task", "distil"]
