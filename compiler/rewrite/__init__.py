"""The rewrite framework: the rule language, its checker, the matcher compiler and the worklist driver.

library = load_library(["my.rules"], disabled=["gelu_from_erf"])
report = rewrite(module, library.stage("fuse"), target)
report.fires    # {"layer_norm": 12, …}
"""

# ruff: noqa: F401 (this page is the façade: what it imports is what it offers)
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.diagnostics import Diagnostic, RewriteError, RuleError
from compiler.rewrite.driver import NO_TARGET, Report, RuleStats, rewrite
from compiler.rewrite.functions import Decline
from compiler.rewrite.library import Library
from compiler.rewrite.load import load_library, read_rules
from compiler.rewrite.stage import Stage
