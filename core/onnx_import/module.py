"""The file's graph as a torch module: one step a node, each in a place of its own that is named after the layer it belongs to.

Weights keep their names where a module can hold them (dots make nested places, other marks become underscores).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, UnsupportedOpError
from ..pt2 import first_line
from .call import WHO, Call, as_tensor, converters
from .refused import refusal
from .shapes import on_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch.nn import Module


@functools.cache
def schema_version(op: str, opset: int) -> int:
    """The opset in which the definition of ``op`` that ``opset`` uses was made."""
    import onnx

    return int(onnx.defs.get_schema(op, opset, "").since_version)


TYPES = frozenset(("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"))


class Step:
    """One node, decoded: its operator, name, attributes, and the names of its values."""

    def __init__(self, node: Any, opset: int) -> None:
        self.op, self.domain = str(node.op_type), str(node.domain)
        self.name = str(node.name) or str(next((o for o in node.output if o), self.op))
        self.inputs, self.outputs = [str(n) for n in node.input], [str(n) for n in node.output]
        self.attributes = {str(a.name): _attribute(self, a) for a in node.attribute}
        own = self.domain in ("", "ai.onnx")
        if not own or self.op not in converters:
            why, remedy = refusal("" if own else self.domain, self.op)
            raise UnsupportedOpError(WHO, self.op, self.name, why, remedy)
        self.since = schema_version(self.op, opset)


def _attribute(step: Step, attribute: Any) -> Any:
    import onnx

    kinds = onnx.AttributeProto
    if attribute.type in (kinds.GRAPH, kinds.GRAPHS):
        return None
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type == kinds.TENSOR:
        return array_of(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if attribute.type == kinds.STRINGS:
        return [v.decode("utf-8", "replace") for v in value]
    return list(value) if isinstance(value, Sequence) else value


def array_of(tensor: Any) -> NDArray[Any]:
    """A stored tensor; half precision widened to float32, which holds every such number exactly."""
    import numpy as np
    import onnx

    array = np.asarray(onnx.numpy_helper.to_array(tensor))
    if array.dtype.name in ("float16", "bfloat16"):
        array = array.astype(np.float32)
    if array.dtype.name not in TYPES:
        raise ModelError(
            f"the ONNX file stores '{tensor.name}' as {array.dtype.name}, which torch has no arithmetic for; store it as float32"
        )
    return array


class Network:
    """The graph ready to run: steps left after folding, their places, their constants. Plain Python; the torch module is a shell around it.

    ``root`` holds the places; ``batch`` is the size that the file fixed its batch to, while the import tries to free it.
    """

    def __init__(self, graph: Any, opset: int, root: Module) -> None:
        self.root = root
        self.batch: int | None = None
        self.known: dict[str, NDArray[Any]] = {}
        self.loose: dict[str, Any] = {}
        self.weights: dict[str, tuple[Module, str]] = {}
        stored = {str(t.name) for t in graph.initializer}
        self.inputs = [str(i.name) for i in graph.input if str(i.name) not in stored]
        self.outputs = [str(o.name) for o in graph.output]
        self.steps = [Step(node, opset) for node in graph.node if not _is_constant(node)]
        for tensor in graph.initializer:
            self.known[str(tensor.name)] = array_of(tensor)
        for node in graph.node:
            if _is_constant(node):
                self.known[str(node.output[0])] = _constant(node)
        self._fold()
        self._join()
        self._settle()

    def run(self, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """The outputs, as tensors, in the file's order."""
        values: dict[str, Any] = dict(self.loose)
        values.update({name: place._parameters[leaf] for name, (place, leaf) in self.weights.items()})
        values.update(zip(self.inputs, inputs, strict=True))
        for step, place in zip(self.steps, self.places, strict=True):
            results = self._call(step, values, place)
            values.update({name: value for name, value in zip(step.outputs, results, strict=False) if name})
        return tuple(as_tensor(values[name]) for name in self.outputs)

    def _call(self, step: Step, values: dict[str, Any], place: Module) -> tuple[Any, ...]:
        import torch

        call = Call(step.op, step.name, step.since, step.attributes, step.inputs, step.outputs, values, self.known, place, self.batch)
        try:
            result = place(call)
        except (NotImplementedError, RuntimeError, IndexError, ValueError, TypeError, KeyError) as error:
            if torch.compiler.is_compiling():  # torch.export has signals of its own
                raise
            call.refuse(f"torch can't run it: {first_line(error)}")
        return result if isinstance(result, tuple) else (result,)

    def _fold(self) -> None:
        """Runs what depends on constants alone, once."""
        import torch

        left = []
        for step in self.steps:
            given = [n for n in step.inputs if n]
            if not all(n in self.known for n in given):
                left.append(step)
                continue
            with torch.no_grad():
                results = self._call(step, {n: _tensor(self.known[n]) for n in given}, make_place())
            for name, value in zip(step.outputs, results, strict=False):
                if name:
                    self.known[name] = value.numpy() if isinstance(value, torch.Tensor) else value
        self.steps = left

    def _join(self) -> None:
        """MatMul by a constant matrix, then Add of a constant row: one layer with a bias, as it was before it was exported. Outputs that
        nobody reads lose their names."""
        readers: dict[str, list[Step]] = {}
        for step in self.steps:
            for name in step.inputs:
                readers.setdefault(name, []).append(step)
        gone = set()
        for step in self.steps:
            if step.op != "MatMul" or self._matrix(step.inputs[1]) is None or step.outputs[0] in self.outputs:
                continue
            (add, *others) = readers.get(step.outputs[0], [None])
            if add is None or others or add.op != "Add" or add.since < 7:
                continue
            bias = next((n for n in add.inputs if n != step.outputs[0]), "")
            if bias in self.known and self.known[bias].shape == self._matrix(step.inputs[1])[1:]:
                step.inputs.append(bias)
                step.outputs = list(add.outputs)
                gone.add(id(add))
        self.steps = [s for s in self.steps if id(s) not in gone]
        read = {n for s in self.steps for n in s.inputs} | set(self.outputs)
        for step in self.steps:
            step.outputs = [n if n in read else "" for n in step.outputs]

    def _matrix(self, name: str) -> Any:
        array = self.known.get(name)
        return array.shape if array is not None and array.ndim == 2 and array.dtype.kind == "f" else None

    def _settle(self) -> None:
        """Gives every node a place, and every weight that is used as it stands one in a place."""
        readers: dict[str, list[tuple[Step, int]]] = {name: [] for name in self.outputs}
        for step in self.steps:
            for i, name in enumerate(step.inputs):
                readers.setdefault(name, []).append((step, i))
        self.homes: dict[str, Module] = {}
        for name, array in self.known.items():
            if name not in readers:
                continue
            value = _tensor(array)
            if not value.is_floating_point() or value.numel() < 2:
                self.loose[name] = value
                continue
            path, leaf = _home(name, readers[name])
            self.homes[name] = self._walk(path)
            if readers[name] and all(i in _REMADE.get(step.op, ()) for step, i in readers[name]):
                self.loose[name] = value
            else:
                self._file(name, self.homes[name], leaf, value)
        taken: set[int] = {id(self.root)}
        self.places = [self._place(step, taken) for step in self.steps]

    def _file(self, name: str, place: Module, leaf: str, value: Any) -> None:
        import torch

        while hasattr(place, leaf):
            leaf += "_"
        place.register_parameter(leaf, torch.nn.Parameter(value))
        self.weights[name] = place, leaf

    def _walk(self, path: Sequence[str]) -> Module:
        place = self.root
        for word in path:
            while word not in place._modules and hasattr(place, word):
                word += "_"
            if word not in place._modules:
                place.add_module(word, make_place())
            place = place._modules[word]  # type: ignore[assignment]
        return place

    def _place(self, step: Step, taken: set[int]) -> Module:
        """Where its weight lies, if no other node has that place; else a place called after the node."""
        home = next((self.homes[n] for n in step.inputs[1:2] if n in self.homes), None)
        if home is None or id(home) in taken:
            words = _words(step)
            home = self._walk(words)
            while id(home) in taken:
                words[-1] += "_"
                home = self._walk(words)
        taken.add(id(home))
        return home


def _words(step: Step) -> list[str]:
    return [_word(w) for w in re.split(r"[/.]+", step.name.strip("/")) if w] or [_word(step.op)]


def _home(name: str, readers: Sequence[tuple[Step, int]]) -> tuple[list[str], str]:
    """Where a weight belongs: under its own name where that is a path (``layer1.conv.weight``), else with the node that reads it."""
    if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", name):
        *path, leaf = name.split(".")
        return [_word(p) for p in path], _word(leaf)
    if len(readers) == 1:
        ((step, i),) = readers
        return _words(step), {1: "weight", 2: "bias"}.get(i, f"input_{i}")
    return [], _word(name)


def make_place() -> Module:
    """A layer: its parameters, and what runs a node in its name."""
    from torch import nn

    class Place(nn.Module):
        def forward(self, c: Call) -> Any:
            result = on_numbers(c)
            return converters.get(c.op)(c) if result is NotImplemented else result

    return Place()


def make_module(graph: Any, opset: int) -> tuple[Module, Network]:
    """The module of a graph, whose forward takes the graph's inputs in order and gives a tuple; and the network inside."""
    from torch import nn

    class Imported(nn.Module):
        def forward(self, *inputs: Any) -> tuple[Any, ...]:
            return network.run(inputs)

    module = Imported()
    network = Network(graph, opset, module)
    return module, network


_REMADE = {"LSTM": (1, 2, 3), "GRU": (1, 2, 3), "RNN": (1, 2, 3), "Gemm": (1, 2), "MatMul": (1,), "PRelu": (1,)}
"""Inputs in whose stead a layer makes a parameter of its own: another order of gates, a transposed matrix."""


def _tensor(array: NDArray[Any]) -> Any:
    """A copy that torch may write to: read-only memory of the file makes it warn."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(array))


def _is_constant(node: Any) -> bool:
    return bool(node.op_type == "Constant" and node.domain in ("", "ai.onnx") and _plain(node))


def _plain(node: Any) -> bool:
    return all(a.name in ("value", "value_float", "value_floats", "value_int", "value_ints") for a in node.attribute)


def _constant(node: Any) -> NDArray[Any]:
    import numpy as np
    import onnx

    (attribute,) = node.attribute
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return array_of(value)
    return np.array(value, dtype=np.float32 if "float" in attribute.name else np.int64)


def _word(text: str) -> str:
    """A name that an attribute can have."""
    return re.sub(r"\W+", "_", text).strip("_") or "value"
