"""packlight: trained image models made small and fast, on the devices where people use them.

Public names are imported late: ``import packlight`` loads neither torch nor a runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .core.bundle import Bundle as Bundle
    from .core.errors import PacklightError as PacklightError
    from .core.preprocess import Preprocess as Preprocess
    from .core.tensor import Signature as Signature
    from .core.tensor import TensorSpec as TensorSpec

_PUBLIC = {
    "Bundle": "core.bundle",
    "PacklightError": "core.errors",
    "Preprocess": "core.preprocess",
    "Signature": "core.tensor",
    "TensorSpec": "core.tensor",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        import importlib

        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    raise AttributeError(f"module 'packlight' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
