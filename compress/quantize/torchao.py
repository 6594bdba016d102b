"""torchao's PT2E flow, imported late and quietly.

Importing torchao logs that its GPU libraries can't be loaded and sets a warning filter. Neither may reach the user or outlive the import.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from types import ModuleType

from ...core.errors import require

_LOUD = ("torchao", "torch.utils._pytree")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within, torchao's own notices are not heard; after, loggers and warning filters are as before."""
    levels = {name: logging.getLogger(name).level for name in _LOUD}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for name in _LOUD:
                logging.getLogger(name).setLevel(logging.CRITICAL)
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def pt2e(part: str) -> ModuleType:
    """A module of ``torchao.quantization.pt2e``; raises MissingDependencyError with the install command."""
    with quiet():
        return require(f"torchao.quantization.pt2e.{part}", "quantize")


def installed() -> bool:
    """Whether torchao can be found, without importing it."""
    import importlib.util

    return importlib.util.find_spec("torchao") is not None
