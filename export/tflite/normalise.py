"""From an ExportedProgram to a ``Graph``: see ``normalise``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...core.bundle import layer_of, quiet_copies, unsupported
from .graph import Graph, Op, Read, Value
from .plan import Quant

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import Node

_QUANTIZE = "quantized_decomposed.quantize_per_tensor."
_DEQUANTIZE = "quantized_decomposed.dequantize_per_tensor."
_QUANTIZE_CHANNEL = "quantized_decomposed.quantize_per_channel."
_DEQUANTIZE_CHANNEL = "quantized_decomposed.dequantize_per_channel."
_COPIES = {
    "aten.alias.default",
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.detach_.default",
    "aten.lift_fresh_copy.default",
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.alpha_dropout.default",
    "aten.positive.default",
}
_CASTS = {"aten.to.dtype", "aten.to.dtype_layout", "aten._to_copy.default", "aten.type_as.default", "aten.to.device", "aten.to.other"}
_CHECKS = ("aten._assert", "aten.sym_constrain", "aten._assert_tensor_metadata")
_LIKES = {
    *("aten.zeros_like.default", "aten.ones_like.default", "aten.full_like.default"),
    *("aten.new_zeros.default", "aten.new_ones.default", "aten.new_full.default"),
}
_RANDOM = ("rand", "bernoulli", "multinomial", "normal", "poisson")


def normalise(program: ExportedProgram, known: Callable[[str], bool]) -> Graph:
    """The graph of ``program`` (shapes all fixed), without mutation, copies, dropout, and quantize/dequantize pairs.

    An operator that isn't ``known`` is replaced by torch's own decomposition of it, where there is one.
    """
    with quiet_copies():
        program = _decomposed(program.run_decompositions({}), known)
    return _Reader(program).graph


def _decomposed(program: ExportedProgram, known: Callable[[str], bool]) -> ExportedProgram:
    from torch.export import default_decompositions

    table: dict[Any, Any] | None = None
    for _ in range(8):  # a decomposition may hold operators that must be decomposed in turn
        strange = {n.target for n in program.graph.nodes if n.op == "call_function" and not _settled(n, known)}
        if not strange:
            break
        table = table if table is not None else dict(default_decompositions().items())  # type: ignore[no-untyped-call]
        replaced = {target: table[target] for target in strange if target in table}
        if not replaced:
            break
        program = program.run_decompositions(replaced)
    return program


def _settled(node: Node, known: Callable[[str], bool]) -> bool:
    """Whether an operator needs no decomposition: it has a lowering, or the reader deals with it."""
    name = str(node.target)
    return known(name) or name in _COPIES or name in _CASTS or name in _LIKES or name.startswith(_CHECKS) or not node.all_input_nodes


class _Reader:
    """Walks the nodes once, in order; ``env`` maps each node to what stands for it."""

    def __init__(self, program: ExportedProgram) -> None:
        self.graph = Graph()
        self.env: dict[Node, Any] = {}
        constants = _constants(program)
        for node in program.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node, constants)
            elif node.op == "call_function":
                self.env[node] = self._call(node)
            elif node.op == "output":
                self._output(node, program)

    def _placeholder(self, node: Node, constants: dict[str, torch.Tensor]) -> None:
        import torch

        if node.name in constants:
            self.env[node] = Read(_constant(node.name, constants[node.name]))
            return
        meta = node.meta.get("val")
        if isinstance(meta, torch.Tensor):
            value = Value(node.name, _shape(node, meta), _dtype(meta))
            self.graph.inputs.append(value)
            self.env[node] = Read(value)
        else:
            self.env[node] = meta

    def _output(self, node: Node, program: ExportedProgram) -> None:
        kept = {
            spec.arg.name for spec in program.graph_signature.output_specs if spec.kind.name == "USER_OUTPUT" and hasattr(spec.arg, "name")
        }
        results: Any = node.args[0]
        for result in results:
            if result is not None and result.name in kept and isinstance(self.env[result], Read):
                self.graph.outputs.append(self.env[result])

    def _call(self, node: Node) -> Any:
        name = str(node.target)
        if name == "<built-in function getitem>":
            source: Any = node.args[0]
            return self.env[source][node.args[1]]
        if name.startswith(_CHECKS):
            return None
        args = _arguments(node, self._resolve)
        if name.startswith(_QUANTIZE):
            return self._quantize(node, args)
        if name.startswith(_DEQUANTIZE):
            return self._dequantize(args, None)
        if name.startswith(_QUANTIZE_CHANNEL):
            return self._quantize(node, args)
        if name.startswith(_DEQUANTIZE_CHANNEL):
            return self._dequantize(args, int(args["axis"]))
        if name in _COPIES or (name in _CASTS and _same_dtype(node)):
            return args[next(iter(args))]
        if folded := self._fold(node, name):
            return folded[0]
        return self._op(node, name, args)

    def _op(self, node: Node, name: str, args: dict[str, Any]) -> Any:
        meta = node.meta.get("val")
        many = isinstance(meta, (list, tuple))
        metas = list(meta) if many else [meta]  # type: ignore[arg-type]
        outputs = []
        for i, each in enumerate(metas):
            if each is None or not hasattr(each, "shape"):
                if not many:
                    raise unsupported(
                        "the TFLite exporter", node, "it gives a number, not a tensor", "make that number constant before exporting"
                    )
                outputs.append(Value(f"{node.name}_{i}", (), "none"))
                continue
            outputs.append(Value(f"{node.name}_{i}" if many else node.name, _shape(node, each), _dtype(each)))
        self.graph.ops.append(Op(name, args, tuple(outputs), node.name, layer_of(node)))
        reads = [Read(v) for v in outputs]
        return reads if many else reads[0]

    def _quantize(self, node: Node, args: dict[str, Any]) -> Read:
        """``quantize(x)``: the value is wanted in these integers; on top of other integers it is an operator of its own."""
        read: Read = args["input"]
        q = _quant(args)
        if read.constant:
            return _quantized_constant(node.name, read.value, q)
        if read.q == q:
            return read
        if read.q is None:
            read.value.q = read.value.q or q
            return Read(read.value, q)
        value = Value(node.name, read.shape, read.value.dtype, q)
        self.graph.ops.append(Op("packlight.requantize", {"input": read}, (value,), node.name, layer_of(node)))
        return Read(value, q)

    def _dequantize(self, args: dict[str, Any], axis: int | None) -> Read:
        read: Read = args["input"]
        q = _quant(args)
        if read.constant and read.q is None:
            return _stored_constant(read.value, q)
        return read

    def _fold(self, node: Node, name: str) -> list[Any] | None:
        """The operator's result where it depends on constants alone."""
        import torch

        if name in _LIKES:
            meta = node.meta["val"]
            arguments = _arguments(node, self._resolve)
            number = 0 if "zeros" in name else 1 if "ones" in name else arguments["fill_value"]
            return [Read(_constant(node.name, torch.full(_shape(node, meta), _number(number), dtype=meta.dtype)))]
        inputs = [self.env[n] for n in node.all_input_nodes]
        flat = [r for i in inputs for r in (i if isinstance(i, list) else [i])]
        if any(isinstance(r, Read) and not r.constant for r in flat) or any(word in name for word in _RANDOM):
            return None
        real = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: _data(self.env[n]))
        with torch.no_grad():
            result = node.target(*real[0], **real[1])  # type: ignore[operator]
        if isinstance(result, torch.Tensor):
            return [Read(_constant(node.name, result))]
        if isinstance(result, (list, tuple)):
            return [[Read(_constant(f"{node.name}_{i}", r)) if isinstance(r, torch.Tensor) else r for i, r in enumerate(result)]]
        return [result]

    def _resolve(self, node: Node) -> Any:
        return self.env[node]


def _constants(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Placeholder name -> parameter, buffer or lifted constant."""
    found = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind.name == "USER_INPUT" or spec.target is None:
            continue
        store = program.state_dict if spec.target in program.state_dict else program.constants
        found[spec.arg.name] = store[spec.target].detach()
    return found


def _arguments(node: Node, resolve: Callable[[Node], Any]) -> dict[str, Any]:
    """Every argument of the operator's schema by name, defaults filled in, nodes resolved."""
    import torch

    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(i): torch.fx.node.map_arg(a, resolve) for i, a in enumerate(node.args)}
    args: dict[str, Any] = {}
    for i, argument in enumerate(schema.arguments):
        if i < len(node.args):
            value: Any = node.args[i]
        else:
            value = node.kwargs.get(argument.name, argument.default_value if argument.has_default_value() else None)
        args[argument.name] = torch.fx.node.map_aggregate(value, lambda a: resolve(a) if isinstance(a, torch.fx.Node) else a)
    return args


def _shape(node: Node, tensor: torch.Tensor) -> tuple[int, ...]:
    try:
        return tuple(int(s) for s in tensor.shape)
    except Exception as error:
        raise unsupported(
            "the TFLite exporter", node, f"its shape {list(tensor.shape)} depends on the input's values", "make every shape fixed"
        ) from error


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _same_dtype(node: Node) -> bool:
    source, result = node.args[0].meta.get("val"), node.meta.get("val")  # type: ignore[union-attr]
    return source is not None and result is not None and source.dtype == result.dtype


def _constant(name: str, data: torch.Tensor) -> Value:
    import torch

    data = data.detach()
    if data.dtype in (torch.float64, torch.float16, torch.bfloat16):
        data = data.float()
    return Value(name, tuple(data.shape), _dtype(data), None, data)


def _data(thing: Any) -> Any:
    if isinstance(thing, list):
        return [_data(t) for t in thing]
    return thing.value.data if isinstance(thing, Read) else thing


def _number(value: Any) -> Any:
    return value.value.data.item() if isinstance(value, Read) and value.value.data is not None else value


def _numbers(value: Any) -> tuple[float, ...]:
    if isinstance(value, Read):
        assert value.value.data is not None
        return tuple(float(v) for v in value.value.data.reshape(-1).tolist())
    return (float(value),)


def _quant(args: dict[str, Any]) -> Quant:
    """The parameters of a quantize or dequantize call; unsigned ones become signed (zero point minus 128): the same real numbers."""
    scale = _numbers(args["scale"] if "scale" in args else args["scales"])
    zero = args["zero_point"] if "zero_point" in args else args["zero_points"]
    zeros = tuple(int(z) for z in _numbers(zero)) if zero is not None else (0,) * len(scale)
    low, high = int(args["quant_min"]), int(args["quant_max"])
    if low >= 0 and high <= 255:
        zeros = tuple(z - 128 for z in zeros)
        low, high = low - 128, high - 128
    dtype = "int8" if low >= -128 and high <= 127 else "int16"
    return Quant(scale, zeros, int(args["axis"]) if "axis" in args else None, dtype)


def _stored_constant(value: Value, q: Quant) -> Read:
    """A constant that holds integers, read as the real numbers they stand for."""
    import torch

    stored = value.data
    assert stored is not None
    if stored.dtype == torch.uint8:
        stored = (stored.to(torch.int16) - 128).to(torch.int8)
    shape = [-1 if a == q.axis else 1 for a in range(stored.ndim)] if q.axis is not None else [1] * stored.ndim
    scale = torch.tensor(q.scale, dtype=torch.float32).reshape(shape)
    zero = torch.tensor(q.zero_point, dtype=torch.int32).reshape(shape)
    real = (stored.to(torch.int32) - zero).to(torch.float32) * scale
    return Read(Value(value.name, value.shape, "float32", q, real, stored), q)


def _quantized_constant(name: str, value: Value, q: Quant) -> Read:
    import torch

    assert value.data is not None
    shape = [-1 if a == q.axis else 1 for a in range(value.data.ndim)] if q.axis is not None else [1] * value.data.ndim
    scale = torch.tensor(q.scale, dtype=torch.float32).reshape(shape)
    zero = torch.tensor(q.zero_point, dtype=torch.float32).reshape(shape)
    stored = torch.clamp(torch.round(value.data / scale) + zero, q.low, q.high).to(getattr(torch, q.dtype))
    return _stored_constant(Value(name, value.shape, q.dtype, None, stored), q)
