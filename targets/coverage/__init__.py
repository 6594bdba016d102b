"""Which operators a runtime or delegate takes, as its makers publish it (``lists/*.toml``), and a written file held against that.

``lint(path, format, runtime)`` is the whole of it: read the file's graph, look every operator up, count what falls back to the CPU.
A list is data; the lint runs no file. What a list can't say (a compiler's own limits), ``simulate(path)`` finds out by compiling, for QNN.
"""

from __future__ import annotations

from .lint import lint, lint_graph
from .lists import OperatorList, list_names, load_list
from .simulate import SIMULATED, simulate

__all__ = ["SIMULATED", "OperatorList", "lint", "lint_graph", "list_names", "load_list", "simulate"]
