"""Which module registers which exporter. A module is imported when its format is asked for, so that the command line starts fast."""

from __future__ import annotations

import importlib

from ..core.errors import InputError
from ..core.registry import unknown
from .exporter import Exporter, exporters

MODULES = {"onnx": ".onnx.exporter", "openvino": ".openvino", "tflite": ".tflite.exporter"}


def exporter(format: str) -> Exporter:
    """The exporter of ``format``; an unknown format raises InputError and lists the known."""
    if format not in MODULES:
        raise InputError(unknown("format", format, MODULES))
    importlib.import_module(MODULES[format], __package__)
    return exporters.get(format)


def formats() -> tuple[str, ...]:
    """The names of all formats, in the order of the documentation."""
    return tuple(MODULES)
