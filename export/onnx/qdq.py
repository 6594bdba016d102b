"""Makes a quantize/dequantize (QDQ) graph one that runtimes fuse to integer kernels, without changing what it computes.

PT2E writes activations as s8 and biases as float. ONNX Runtime fuses neither to its fast kernels, and OpenVINO computes some s8 graphs
wrong (a ReLU or a Concat before). So, in this order::

    s8 activation, zero point z          u8 activation, zero point z + 128                 the same real numbers
    float bias b of a convolution        int32 round(b / (s_x s_w)), scale s_x s_w         as integer kernels add it anyway
    Relu or Clip before QuantizeLinear   nothing, where quantizing clips to the same       one node less between the pairs
    MatMul + Add over (N, T, C)          Reshape, Gemm, Reshape                            QGemm takes the bias, QLinearMatMul can't
    ReduceMean over height and width     GlobalAveragePool                                 has an integer kernel
    other Relu                           a pair before it                                  the operator before it becomes integer
    ConvTranspose                        Conv, DepthToSpace, Slice                         there is no integer ConvTranspose
    Pad between pairs of one scale       Pad of the integers                               ONNX Runtime pads in float otherwise
    Tanh                                 Sigmoid of twice the scale                        has an integer kernel
    pair behind a Concat of its scale    nothing                                           OpenVINO miscomputes nested ones
    AveragePool that counts its padding  depthwise Conv of equal weights                   OpenVINO pads its integers with 0
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .edit import array, constant, drop_unread, insert_before, is_constant, remove, same_type
from .transposed import to_convolution

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

WEIGHTED = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""Operators with a weight, and the input it is."""

BIAS_LIMIT = 1 << 30
EVEN = 63
"""A weight that no integer kernel saturates with."""


def convert(model: ir.Model, *, plain: bool = False) -> list[str]:
    """Rewrites ``model`` in place; returns notes about what could not be made integer.

    ``plain`` is for OpenVINO and leaves out what only ONNX Runtime needs: OpenVINO has kernels for those patterns, and adds a float bias
    to an integer sum.
    """
    notes: list[str] = []
    for step in STEPS:
        if step not in (FOR_ONNX_RUNTIME if plain else FOR_OPENVINO):
            notes += step(model.graph)
    drop_unread(model)
    return notes


def pairs(graph: ir.Graph, kind: str) -> list[ir.Node]:
    """The nodes of one type, in order."""
    return [n for n in graph if n.op_type == kind]


def fold_moves(graph: ir.Graph) -> list[str]:
    """A stored constant is reshaped or transposed as it is stored, not behind its DequantizeLinear."""
    for node in [*pairs(graph, "Reshape"), *pairs(graph, "Transpose"), *pairs(graph, "Unsqueeze"), *pairs(graph, "Squeeze")]:
        read = _dequantize(node.inputs[0])
        stored = read.inputs[0] if read is not None else None
        if read is None or stored is None or not is_constant(stored) or node.outputs[0] in graph.outputs:
            continue
        numbers, options = array(stored), {}
        if node.op_type == "Transpose":
            order = node.attributes["perm"].as_ints() if "perm" in node.attributes else list(range(numbers.ndim))[::-1]
            moved = numbers.transpose(order)
            if "axis" in read.attributes:
                options = {"axis": list(order).index(read.attributes["axis"].as_int() % numbers.ndim)}
        else:
            sizes = [a for a in node.outputs[0].shape or () if isinstance(a, int)]
            if parameters(read)[0].size != 1 or int(np.prod(sizes)) != numbers.size:
                continue
            moved = numbers.reshape(sizes)
        inputs = [constant(graph, f"{stored.name}.moved", np.ascontiguousarray(moved)), *read.inputs[1:]]
        again = insert_before(graph, node, "DequantizeLinear", inputs, f"{node.name}/DequantizeLinear", options)
        same_type(again.outputs[0], node.outputs[0])
        remove(graph, node, again.outputs[0])
        if not read.outputs[0].uses():
            graph.remove(read, safe=True)
    return []


def unsigned(graph: ir.Graph) -> list[str]:
    """u8 for every activation: q_u8 = q_s8 + 128, z_u8 = z_s8 + 128. Weights (constants that a weighted operator reads) stay s8."""
    for node in [*pairs(graph, "QuantizeLinear"), *pairs(graph, "DequantizeLinear")]:
        stored = node.inputs[0]
        if stored is not None and is_constant(stored):
            if node.op_type == "QuantizeLinear" or _feeds_weight(node) or array(stored).dtype != np.int8:
                continue
            node.replace_input_with(0, constant(graph, f"{stored.name}.u8", (array(stored).astype(np.int16) + 128).astype(np.uint8)))
        zero = node.inputs[2] if len(node.inputs) > 2 else None
        if zero is None or array(zero).dtype != np.int8:
            continue
        value = (array(zero).astype(np.int16) + 128).astype(np.uint8)
        node.replace_input_with(2, constant(graph, f"{zero.name}.u8", value))
        if node.op_type == "QuantizeLinear":
            import onnx_ir as ir

            node.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
    return []


def _feeds_weight(dequantize: ir.Node) -> bool:
    uses = list(dequantize.outputs[0].uses())
    while uses:
        use = uses.pop()
        if WEIGHTED.get(use.node.op_type) == use.idx:
            return True
        if use.node.op_type in ("Transpose", "Reshape", "Unsqueeze", "Squeeze"):
            uses += use.node.outputs[0].uses()
    return False


def drop_clamps(graph: ir.Graph) -> list[str]:
    """Relu and Clip go where quantizing does the same: the clamp's ends quantize to the least and the greatest integer."""
    for node in [*pairs(graph, "Relu"), *pairs(graph, "Clip")]:
        readers = [use.node for use in node.outputs[0].uses()]
        if node.outputs[0] in graph.outputs or not readers or any(r.op_type != "QuantizeLinear" for r in readers):
            continue
        low, high = _ends(node)
        if all(_clips_the_same(r, low, high) for r in readers):
            source = node.inputs[0]
            if source is not None:
                remove(graph, node, source)
    return []


def _ends(node: ir.Node) -> tuple[float, float]:
    if node.op_type == "Relu":
        return 0.0, np.inf
    ends = [-np.inf, np.inf]
    for k, value in enumerate(node.inputs[1:3]):
        if value is not None:
            ends[k] = float(array(value)) if is_constant(value) else np.nan
    return ends[0], ends[1]


def _clips_the_same(quantize: ir.Node, low: float, high: float) -> bool:
    scale, zero, dtype = parameters(quantize)
    info = np.iinfo(dtype)
    if scale.size != 1 or np.isnan(low) or np.isnan(high):
        return False
    ends = [np.rint(np.float32(e) / scale.reshape(())) + int(zero.reshape(())) if np.isfinite(e) else e for e in (low, high)]
    return bool(ends[0] <= info.min or ends[0] == -np.inf) and bool(ends[1] >= info.max)


def split_clamps(graph: ir.Graph) -> list[str]:
    """A Relu that could not be dropped gets a pair before it, so that the operator before it becomes integer too.

    ::

        Conv -> Relu -> Q(s, z) -> DQ          Conv -> Q(s, z) -> DQ -> LeakyRelu(0) -> Q(s, z) -> DQ

    The same numbers: quantizing is monotone and zero is stored exactly, so Q(max(x, 0)) = max(Q(x), z). LeakyRelu with slope 0 is Relu, and
    has an integer kernel where Relu has none.
    """
    for node in pairs(graph, "Relu"):
        quantize = _only_reader(graph, node)
        source = node.inputs[0]
        if quantize is None or quantize.op_type != "QuantizeLinear" or source is None:
            continue
        if _dequantize(source) is None:
            source = _pair(graph, node, source, quantize, f"{str(node.name).removesuffix('/Relu')}/before")
        leaky = insert_before(graph, node, "LeakyRelu", [source], f"{node.name}/LeakyRelu", {"alpha": 0.0})
        same_type(leaky.outputs[0], node.outputs[0])
        remove(graph, node, leaky.outputs[0])
    return []


def tanh_to_sigmoid(graph: ir.Graph) -> list[str]:
    """Tanh between pairs becomes Sigmoid, which has an integer kernel, by relabelling scales.

    tanh(x) = 2 sigmoid(2 x) - 1, so with the output's scale 1/128 and zero point 128 the stored integer is
    round(128 tanh(x)) + 128 = round(256 sigmoid(2 x)): the sigmoid of the same integers read at twice their scale, stored at 1/256.
    """
    for node in pairs(graph, "Tanh"):
        x, quantize = _dequantize(node.inputs[0]), _only_reader(graph, node)
        if x is None or quantize is None or quantize.op_type != "QuantizeLinear":
            continue
        scale, zero, dtype = parameters(quantize)
        if scale.size != 1 or float(scale) != 1 / 128 or int(zero) != 128 or dtype != np.uint8:
            continue
        twice = constant(graph, f"{node.name}.scale", 2 * parameters(x)[0])
        read = insert_before(graph, node, "DequantizeLinear", [x.inputs[0], twice, *x.inputs[2:]], f"{node.name}/DequantizeLinear")
        same_type(read.outputs[0], x.outputs[0])
        sigmoid = insert_before(graph, node, "Sigmoid", [read.outputs[0]], f"{node.name}/Sigmoid")
        same_type(sigmoid.outputs[0], node.outputs[0])
        quantize.replace_input_with(1, constant(graph, "sigmoid.scale", np.array(1 / 256, np.float32)))
        quantize.replace_input_with(2, constant(graph, "sigmoid.zero", np.array(0, np.uint8)))
        remove(graph, node, sigmoid.outputs[0])
        if not x.outputs[0].uses():
            graph.remove(x, safe=True)
    return []


def integer_bias(graph: ir.Graph) -> list[str]:
    """int32 biases behind a DequantizeLinear of their own with scale s_x s_w per channel (ONNX Runtime's and TFLite's convention)."""
    notes = []
    for node in [n for n in graph if n.op_type in ("Conv", "ConvTranspose", "Gemm")]:
        x, w = (_dequantize(node.inputs[k]) for k in (0, 1))
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if x is None or w is None or bias is None or not is_constant(bias) or array(bias).ndim != 1:
            continue
        b = array(bias).astype(np.float64)
        s_x, s_w = parameters(x)[0].astype(np.float64), parameters(w)[0].astype(np.float64)
        scale = (s_x * s_w).astype(np.float32)
        if node.op_type == "ConvTranspose" and scale.size not in (1, b.size):
            scale = np.tile(scale, b.size // scale.size)  # one scale an output channel of a group, the groups one after another
        stored = np.rint(b / scale.astype(np.float64))
        if np.abs(stored).max(initial=0) > BIAS_LIMIT:
            notes.append(f"{node.name}: the bias does not fit in 32 bits at scale s_x s_w and stays float")
            continue
        if not np.any(stored) and node.op_type != "Gemm":
            node.resize_inputs(2)  # a bias of zeros is no bias
            continue
        _store_bias(graph, node, bias, stored.astype(np.int32), scale)
    return notes


def _store_bias(graph: ir.Graph, node: ir.Node, bias: ir.Value, stored: NDArray[np.int32], scale: NDArray[np.float32]) -> None:
    scale = np.broadcast_to(scale.reshape(-1), stored.shape) if scale.size == stored.size else scale.reshape(-1)[0]
    inputs = [constant(graph, f"{node.name}.bias", stored), constant(graph, f"{node.name}.bias.scale", np.array(scale, np.float32))]
    inputs.append(constant(graph, f"{node.name}.bias.zero", np.zeros(np.shape(scale), np.int32)))
    dequantize = insert_before(graph, node, "DequantizeLinear", inputs, f"{node.name}.bias/DequantizeLinear", {"axis": 0})
    same_type(dequantize.outputs[0], bias)
    node.replace_input_with(2, dequantize.outputs[0])


def _dequantize(value: ir.Value | None) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def linear_to_gemm(graph: ir.Graph) -> list[str]:
    """A linear layer over (..., C) becomes Gemm over (rows, C), so that its bias is added inside the integer kernel.

    ::

        DQ -> MatMul -> Add(b) -> Q      DQ -> Reshape -> Q -> DQ -> Gemm(b) -> Q -> DQ -> Reshape -> Q

    The new pairs repeat the scales of their neighbours and change nothing.
    """
    for node in pairs(graph, "MatMul"):
        add = _only_reader(graph, node)
        if add is None or add.op_type != "Add":
            continue
        bias = next((v for v in add.inputs if v is not None and is_constant(v)), None)
        quantize = _only_reader(graph, add)
        x, w = _dequantize(node.inputs[0]), _matrix(node.inputs[1])
        if bias is None or array(bias).ndim != 1 or x is None or w is None:
            continue
        if quantize is not None and quantize.op_type != "QuantizeLinear":
            quantize = None  # the sum goes on in float, straight out of the integer kernel
        shape = node.outputs[0].shape
        lead = [a if isinstance(a, int) else -1 for a in shape[:-1]] if shape is not None else [-1, -1]
        if lead.count(-1) > 1 or len(lead) < 2:
            continue
        _gemm(graph, node, add, quantize, x, bias, lead)
    return []


def _matrix(value: ir.Value | None) -> ir.Value | None:
    """The dequantized weight (rows are outputs or inputs) behind ``value``, itself or transposed; None where it is no constant matrix."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Transpose":
        value = node.inputs[0]
    read = _dequantize(value)
    stored = read.inputs[0] if read is not None else None
    return value if stored is not None and is_constant(stored) and array(stored).ndim == 2 else None


def _gemm(graph: ir.Graph, node: ir.Node, add: ir.Node, quantize: ir.Node | None, x: ir.Node, bias: ir.Value, lead: list[int]) -> None:
    name = str(node.name).removesuffix("/MatMul")
    source, weight = node.inputs[0], _matrix(node.inputs[1])
    if weight is None or source is None:
        return
    turned = weight is not node.inputs[1]
    shape = array(_stored(weight)).shape
    outer, inner = shape if turned else shape[::-1]
    rows = -1 if -1 in lead else int(np.prod(lead))
    flat = insert_before(graph, node, "Reshape", [source, constant(graph, f"{name}/rows", np.array([rows, inner]))], f"{name}/Reshape")
    same_type(flat.outputs[0], source, [None if rows == -1 else rows, inner])
    again = _pair(graph, node, flat.outputs[0], x, f"{name}/rows")
    gemm = insert_before(graph, node, "Gemm", [again, weight, bias], f"{name}/Gemm", {"transB": int(turned)})
    same_type(gemm.outputs[0], source, [None if rows == -1 else rows, outer])
    stored = gemm.outputs[0] if quantize is None else _pair(graph, node, gemm.outputs[0], quantize, f"{name}/Gemm")
    back = insert_before(graph, node, "Reshape", [stored, constant(graph, f"{name}/shape", np.array([*lead, outer]))], f"{name}/Reshape_2")
    same_type(back.outputs[0], add.outputs[0])
    remove(graph, add, back.outputs[0])
    turn = node.inputs[1].producer() if turned and node.inputs[1] is not None else None
    graph.remove(node, safe=True)
    if turn is not None and not turn.outputs[0].uses():
        graph.remove(turn, safe=True)


def _stored(dequantized: ir.Value) -> ir.Value:
    node = dequantized.producer()
    stored = node.inputs[0] if node is not None else None
    if stored is None:
        raise ValueError(f"'{dequantized.name}' has no stored value")
    return stored


def _pair(graph: ir.Graph, before: ir.Node, value: ir.Value, like: ir.Node, name: str) -> ir.Value:
    """QuantizeLinear and DequantizeLinear with the parameters of ``like``; returns the dequantized value."""
    import onnx_ir as ir

    q = insert_before(graph, before, "QuantizeLinear", [value, *like.inputs[1:]], f"{name}/QuantizeLinear")
    same_type(q.outputs[0], value)
    q.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
    d = insert_before(graph, before, "DequantizeLinear", [q.outputs[0], *like.inputs[1:]], f"{name}/DequantizeLinear")
    same_type(d.outputs[0], value)
    return d.outputs[0]


def _only_reader(graph: ir.Graph, node: ir.Node) -> ir.Node | None:
    uses = list(node.outputs[0].uses())
    return uses[0].node if len(uses) == 1 and node.outputs[0] not in graph.outputs else None


def mean_to_pool(graph: ir.Graph) -> list[str]:
    """ReduceMean over all of height and width is GlobalAveragePool, for which there is an integer kernel."""
    for node in pairs(graph, "ReduceMean"):
        x = node.inputs[0]
        axes = node.inputs[1] if len(node.inputs) > 1 else None
        if x is None or x.shape is None or len(x.shape) != 4 or axes is None or not is_constant(axes) or _dequantize(x) is None:
            continue
        if sorted(int(a) % 4 for a in array(axes)) != [2, 3]:
            continue
        keep = node.attributes.get("keepdims")
        pool = insert_before(graph, node, "GlobalAveragePool", [x], f"{str(node.name).removesuffix('/ReduceMean')}/GlobalAveragePool")
        same_type(pool.outputs[0], x, [*list(x.shape)[:2], 1, 1])
        out = pool.outputs[0]
        quantize = _only_reader(graph, node)
        if keep is not None and keep.as_int() == 0:
            if quantize is not None and quantize.op_type == "QuantizeLinear":
                out = _pair(graph, node, out, quantize, str(pool.name))
            squeeze = insert_before(graph, node, "Squeeze", [out, axes], f"{str(node.name).removesuffix('/ReduceMean')}/Squeeze")
            same_type(squeeze.outputs[0], node.outputs[0])
            out = squeeze.outputs[0]
        remove(graph, node, out)
    return []


def parameters(node: ir.Node) -> tuple[NDArray[np.float32], NDArray[Any], np.dtype[Any]]:
    """Scale, zero point and stored type of a QuantizeLinear or DequantizeLinear (per tensor: one number)."""
    scale, zero = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    if scale is None:
        raise ValueError(f"'{node.name}' has no scale")
    point = array(zero) if zero is not None else np.zeros((), np.uint8)
    return array(scale), point, point.dtype


def integer_pad(graph: ir.Graph) -> list[str]:
    """Pad between two pairs of one scale moves before the reading: Q -> DQ -> Pad -> Q -> DQ becomes Q -> Pad -> DQ, zero padded as z."""
    import onnx_ir as ir

    for node in pairs(graph, "Pad"):
        read, quantize = _dequantize(node.inputs[0]), _only_reader(graph, node)
        if read is None or quantize is None or quantize.op_type != "QuantizeLinear" or read.inputs[0] is None:
            continue
        (scale, zero, dtype), (after, zero_after, _) = parameters(read), parameters(quantize)
        value = node.inputs[2] if len(node.inputs) > 2 else None
        if scale.size != 1 or scale != after or zero != zero_after or (value is not None and (not is_constant(value) or array(value) != 0)):
            continue
        inputs = [read.inputs[0], node.inputs[1], constant(graph, f"{node.name}.value", zero.reshape(()).astype(dtype)), *node.inputs[3:]]
        padded = insert_before(graph, node, "Pad", inputs, f"{node.name}/integer", dict(node.attributes))
        padded.outputs[0].type, padded.outputs[0].shape = ir.TensorType(read.inputs[0].dtype or ir.DataType.UINT8), node.outputs[0].shape
        quantize.outputs[0].replace_all_uses_with(padded.outputs[0])
        graph.remove(quantize, safe=True)
        graph.remove(node, safe=True)
        if not read.outputs[0].uses() and read.outputs[0] not in graph.outputs:
            graph.remove(read, safe=True)
    return []


def transposed_to_convolution(graph: ir.Graph) -> list[str]:
    """ConvTranspose between pairs becomes Conv, DepthToSpace and Slice (transposed.py)."""
    notes = []
    for node in pairs(graph, "ConvTranspose"):
        x, w, quantize = _dequantize(node.inputs[0]), _dequantize(node.inputs[1]), _only_reader(graph, node)
        if x is None or w is None:
            continue
        if quantize is None or quantize.op_type != "QuantizeLinear" or not to_convolution(graph, node, w, quantize, _pair):
            notes.append(f"{node.name} computes in float: neither ONNX Runtime nor OpenVINO on a CPU has an integer kernel for it")
    return notes


def padded_pool_to_convolution(graph: ir.Graph) -> list[str]:
    """An AveragePool that counts its padding becomes a depthwise Conv of equal weights, 63 at scale 1 / (63 k): exact in integers.

    OpenVINO 2026.4 runs such a pool on the stored integers and pads with integer 0, which is not the number 0 where the zero point isn't.
    """
    for node in pairs(graph, "AveragePool"):
        read, x = _dequantize(node.inputs[0]), node.inputs[0]
        given = {k: a.value for k, a in node.attributes.items()}
        kernel = list(given["kernel_shape"])
        channels = x.shape[1] if x is not None and x.shape is not None else None
        counted = given.get("count_include_pad", 0) and any(given.get("pads", ())) and not given.get("ceil_mode", 0)
        if read is None or not counted or not isinstance(channels, int) or not np.any(parameters(read)[1]):
            continue
        name, size = str(node.name).removesuffix("/AveragePool"), int(np.prod(kernel))
        stored = constant(graph, f"{name}.ones", np.full((channels, 1, *kernel), EVEN, np.int8))
        scale = constant(graph, f"{name}.ones.scale", np.array(1 / (EVEN * size), np.float32))
        weight = insert_before(
            graph, node, "DequantizeLinear", [stored, scale, constant(graph, "zero.s8", np.zeros((), np.int8))], f"{name}/ones"
        )
        same_type(weight.outputs[0], node.outputs[0], [channels, 1, *kernel])
        kept = {k: given[k] for k in ("kernel_shape", "strides", "pads", "dilations") if k in given} | {"group": channels}
        conv = insert_before(graph, node, "Conv", [x, weight.outputs[0]], f"{name}/Conv", kept)
        same_type(conv.outputs[0], node.outputs[0])
        remove(graph, node, conv.outputs[0])
    return []


def drop_pairs_behind_concat(graph: ir.Graph) -> list[str]:
    """The pair behind a Concat of values that have its scale changes nothing and goes.

    OpenVINO 2026.4 would take out the pairs before the Concat instead, and computes wrong where that Concat goes into another one.
    """
    for node in pairs(graph, "Concat"):
        quantize, reads = _only_reader(graph, node), [_dequantize(v) for v in node.inputs]
        if quantize is None or quantize.op_type != "QuantizeLinear" or any(r is None for r in reads):
            continue
        own = parameters(quantize)
        if own[0].size != 1 or any(parameters(r) != own for r in reads if r is not None):
            continue
        readers = [use.node for use in quantize.outputs[0].uses()]
        if any(r.op_type != "DequantizeLinear" or r.outputs[0] in graph.outputs for r in readers):
            continue
        for read in readers:
            remove(graph, read, node.outputs[0])
        graph.remove(quantize, safe=True)
    return []


STEPS: tuple[Callable[[ir.Graph], list[str]], ...] = (
    fold_moves,
    unsigned,
    mean_to_pool,
    linear_to_gemm,
    drop_clamps,
    split_clamps,
    tanh_to_sigmoid,
    transposed_to_convolution,
    integer_pad,
    integer_bias,
    padded_pool_to_convolution,
    drop_pairs_behind_concat,
)
FOR_OPENVINO = {padded_pool_to_convolution, drop_pairs_behind_concat}
FOR_ONNX_RUNTIME = {linear_to_gemm, split_clamps, tanh_to_sigmoid, integer_pad, integer_bias}
