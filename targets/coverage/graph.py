"""The graph of a written file as plain records, whatever its format: what an operator list can be asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ...core.errors import TargetError
from ...core.registry import unknown


class Value(msgspec.Struct, frozen=True):
    """A tensor of the file. ``shape`` holds None for a free axis; ``shape`` itself is None where the file doesn't say."""

    name: str
    shape: tuple[int | None, ...] | None = None
    dtype: str = ""
    constant: bool = False


class Node(msgspec.Struct, frozen=True):
    """An operator by the format's own name; an absent optional input is None. ``attributes`` hold numbers, text and tuples of them."""

    op: str
    name: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    attributes: dict[str, Any] = {}


class Graph(msgspec.Struct, frozen=True):
    """Nodes in execution order."""

    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def read_graph(path: Path, format: str) -> Graph:
    """The graph of ``path``. Formats: onnx, tflite."""
    readers = {"onnx": ".read_onnx", "tflite": ".read_tflite"}
    if format not in readers:
        raise TargetError(unknown("format for operator lists", format, readers))
    import importlib

    graph: Graph = importlib.import_module(readers[format], __package__).read(path)
    return graph
