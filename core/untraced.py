"""Why ``torch.export`` couldn't trace a model, in one line: what the model does, the user's file and line, the expression, what to try.

torch's own message is a wall: the symbols of its solver, the graph so far, its stack.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from .pt2 import first_line
from .source import is_users

_LOGGERS = ("torch.fx.experimental.symbolic_shapes", "torch.export", "torch._export", "torch._dynamo", "torch.fx.experimental.proxy_tensor")
DEPENDS = "what it does depends on the numbers that go in"
REMEDY = "use torch.where, or decide it when the model is made"
_FIXED = re.compile(r"L\['(\w+)'\](?:\[(\d+)\])?\.size\(\)\[(\d+)\] as dynamic but your code specialized it to be a constant \((\d+)\)")


def why(error: BaseException) -> str:
    """One line for an exception of ``torch.export.export``."""
    told = str(error)
    place = _place(error)
    if "data-dependent" in told or "DataDependent" in type(error).__name__ or "SymFloat" in told or "SymBool" in told:
        return f"{DEPENDS}{place}; {REMEDY}"
    fixed = _FIXED.search(told)
    if fixed:
        name, number, axis, size = fixed.groups()
        which = f"input {int(number) + 1}" if number is not None else f"input '{name}'"
        return f"axis {axis} of {which} can't be free: the model fixes it to {size}{place}"
    return f"{first_line(error)}{place}"


def _place(error: BaseException) -> str:
    """`` (at net.py:12 in forward: "if x.sum() > 0:")``: the innermost line of the user's own files that the error passed."""
    seen: BaseException | None = error
    while seen is not None:
        own = [f for f in traceback.extract_tb(seen.__traceback__) if is_users(f.filename)]
        if own:
            line = f': "{own[-1].line[:100]}"' if own[-1].line else ""
            return f" (at {Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}{line})"
        seen = seen.__cause__ or seen.__context__
    found = [f for f in re.findall(r'File "([^"]+)", line (\d+), in (\w+)', str(error)) if "/torch/" not in f[0]]
    return f" (at {Path(found[-1][0]).name}:{found[-1][1]} in {found[-1][2]})" if found else ""


@contextlib.contextmanager
def without_the_wall() -> Iterator[None]:
    """Keeps torch from printing the graph it had so far; what was set before is set again after."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
