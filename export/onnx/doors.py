"""Other doors than float32 NCHW: channels last, and the integers of a quantized graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ...core.errors import ContractError
from ...core.tensor import DoorQuantization, Signature, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir

LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def channels_last(model: ir.Model, signature: Signature) -> Signature:
    """Image doors become NHWC: one Transpose stands behind every image input and before every image output."""
    import onnx_ir as ir

    graph = model.graph
    inputs, outputs = list(signature.inputs), list(signature.outputs)
    for i, spec in enumerate(inputs):
        if spec.layout != "NCHW":
            continue
        door = graph.inputs[i]
        node = ir.node("Transpose", [door], {"perm": list(FIRST)}, name=f"{spec.name}/Transpose")
        node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = f"{spec.name}.nchw", door.type, door.shape
        _replace(door, node.outputs[0], node)
        graph.insert_before(graph[0], node)
        door.shape = _permuted(door.shape, LAST)
        inputs[i] = _nhwc(spec)
    for i, spec in enumerate(outputs):
        if spec.layout != "NCHW":
            continue
        inner = graph.outputs[i]
        node = ir.node("Transpose", [inner], {"perm": list(LAST)}, name=f"{spec.name}/Transpose")
        out = node.outputs[0]
        out.type, out.shape = inner.type, _permuted(inner.shape, LAST)
        inner.name, out.name = f"{spec.name}.nchw", spec.name
        graph.append(node)
        graph.outputs[i] = out
        outputs[i] = _nhwc(spec)
    return Signature(tuple(inputs), tuple(outputs))


def integer(model: ir.Model, signature: Signature) -> Signature:
    """The doors give and take the graph's own u8: the first QuantizeLinear and the last DequantizeLinear go."""
    import onnx_ir as ir

    graph = model.graph
    inputs, outputs = list(signature.inputs), list(signature.outputs)
    for i, spec in enumerate(inputs):
        door = graph.inputs[i]
        readers = [use.node for use in door.uses()]
        if not readers or any(n.op_type != "QuantizeLinear" for n in readers) or len({_parameters(n) for n in readers}) != 1:
            continue  # an input that isn't quantized (indices, say) keeps its type
        scale, zero = _parameters(readers[0])
        door.type = ir.TensorType(ir.DataType.UINT8)
        for node in readers:
            node.outputs[0].replace_all_uses_with(door)
            graph.remove(node, safe=True)
        inputs[i] = msgspec.structs.replace(spec, dtype="uint8", quantization=DoorQuantization(scale, zero))
    for i, spec in enumerate(outputs):
        last = graph.outputs[i].producer()
        inner = last.inputs[0] if last is not None and last.op_type == "DequantizeLinear" else None
        if last is None or inner is None or inner.producer() is None:
            continue
        scale, zero = _parameters(last)
        last.outputs[0].name = f"{spec.name}.float"
        inner.name = spec.name
        inner.type, inner.shape = ir.TensorType(ir.DataType.UINT8), last.outputs[0].shape
        graph.outputs[i] = inner
        if not last.outputs[0].uses():
            graph.remove(last, safe=True)
        outputs[i] = msgspec.structs.replace(spec, dtype="uint8", quantization=DoorQuantization(scale, zero))
    return Signature(tuple(inputs), tuple(outputs))


def _parameters(node: ir.Node) -> tuple[float, int]:
    scale, zero = (node.inputs[k] for k in (1, 2))
    if scale is None or zero is None or scale.const_value is None or zero.const_value is None:
        raise ContractError(f"'{node.name}' at a door has no constant scale and zero point")
    return float(scale.const_value.numpy()), int(zero.const_value.numpy())


def _replace(value: ir.Value, by: ir.Value, keep: ir.Node) -> None:
    for use in list(value.uses()):
        if use.node is not keep:
            use.node.replace_input_with(use.idx, by)


def _permuted(shape: Any, order: tuple[int, ...]) -> Any:
    import onnx_ir as ir

    return ir.Shape([shape[k] for k in order])


def _nhwc(spec: TensorSpec) -> TensorSpec:
    return msgspec.structs.replace(spec, shape=tuple(spec.shape[k] for k in LAST), layout="NHWC")
