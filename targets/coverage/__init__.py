"""Which operators a runtime or delegate takes, as its makers publish it (``lists/*.toml``), and a written file held against that.

``lint(path, format, runtime)`` is the whole of it: read the file's graph, look every operator up, count what falls back to the CPU.
A list is data; nothing here runs a file. What a list can't say (a driver's own limits) it can't say here either.
"""

from __future__ import annotations

from .lint import lint, lint_graph
from .lists import OperatorList, list_names, load_list

__all__ = ["OperatorList", "lint", "lint_graph", "list_names", "load_list"]
