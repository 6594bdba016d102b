"""Which module registers which exporter. A module is imported when its format is asked for, so that the command line starts fast."""

from __future__ import annotations

import importlib

from ..core.errors import InputError
from ..core.registry import unknown
from .exporter import Exporter, exporters

MODULES = {"onnx": ".onnx.exporter", "openvino": ".openvino", "tflite": ".tflite.exporter"}
CONVERTERS = {("tflite", "litert-torch"): (".litert_torch", "tflite by litert-torch")}
"""Foreign converters that a user may ask for by name, for a format: the module that files one, and the name it files it under."""


def exporter(format: str, converter: str = "") -> Exporter:
    """The exporter of ``format``: packlight's own, or the foreign ``converter``.

    InputError for an unknown format or converter, and for a converter that doesn't write the format.
    """
    if format not in MODULES:
        raise InputError(unknown("format", format, MODULES))
    if not converter:
        importlib.import_module(MODULES[format], __package__)
        return exporters.get(format)
    if converter not in converters():
        raise InputError(unknown("converter", converter, converters()))
    if (format, converter) not in CONVERTERS:
        able = ", ".join(f for f, c in CONVERTERS if c == converter)
        raise InputError(f"{converter} does not write {format}, only {able}; add --format {able}, or leave --converter out")
    module, name = CONVERTERS[format, converter]
    importlib.import_module(module, __package__)
    return exporters.get(name)


def converters() -> tuple[str, ...]:
    """The names of the foreign converters."""
    return tuple(dict.fromkeys(c for _, c in CONVERTERS))


def formats() -> tuple[str, ...]:
    """The names of all formats, in the order of the documentation."""
    return tuple(MODULES)
