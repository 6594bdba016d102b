"""What litert-torch 0.10.0 can't take, written in operators that it can. Graph in, graph out; the function stays the same.

transposed convolution     y = crop(convT(x) without padding)      (it refuses output_padding)
InstanceNorm               y = (x - mean) * rsqrt(var + eps) * weight + bias
int8 weight                dequantize(quantize(w)), w being the real numbers that the integers stand for: it takes a weight's
                           scales from the quantize operator, which PT2E has folded away
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

_QUANTIZE = "quantized_decomposed.quantize_per_tensor."
_DEQUANTIZE = "quantized_decomposed.dequantize_per_"


def rewrite(graph: GraphModule) -> GraphModule:
    """Changes and returns ``graph``, a copy of a bundle's."""
    for node in list(graph.graph.nodes):
        name = str(node.target)
        if name == "aten.conv_transpose2d.input" and any(_arguments(node)["output_padding"]):
            _crop(graph, node)
        elif name == "aten.instance_norm.default":
            _normalise(graph, node)
        elif name.startswith(_DEQUANTIZE) and node.args[0].op == "get_attr":
            _quantize_again(graph, node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _crop(graph: GraphModule, node: Node) -> None:
    """Before: ``convT(x, w, b, stride, padding, output_padding)``; after: ``convT(x, w, b, stride)``, cut.

    Without padding the output is full = (in - 1) s + d (k - 1) + 1 long. Wanted are full - 2 padding + output_padding numbers of it,
    from ``padding`` on; an output_padding beyond the padding asks for numbers that no input reaches: the bias alone. What is quantized
    right behind is quantized before it is cut too, so that the convolution stays integer.
    """
    import torch

    aten, args = torch.ops.aten, _arguments(node)
    more = [max(0, e - p) for p, e in zip(args["padding"], args["output_padding"], strict=True)]
    bias = None if any(more) else args["bias"]
    users = list(node.users)
    with graph.graph.inserting_before(node):
        where = (args["stride"], [0, 0], [0, 0], args["groups"], args["dilation"])
        value = graph.graph.call_function(aten.conv_transpose2d.input, (args["input"], args["weight"], bias, *where))
        if len(users) == 1 and str(users[0].target).startswith(_QUANTIZE) and users[0].users:
            back: Any = next(u.target for u in users[0].users)
            quantize: Any = users[0].target
            value = graph.graph.call_function(quantize, (value, *users[0].args[1:]))
            value = graph.graph.call_function(back, (value, *users[0].args[1:]))
        if any(more):
            value = graph.graph.call_function(aten.constant_pad_nd.default, (value, [0, more[1], 0, more[0]]))
        for axis, (padding, extra) in enumerate(zip(args["padding"], args["output_padding"], strict=True), start=2):
            if padding or extra < padding:
                end = extra - padding if extra < padding else 2**62
                value = graph.graph.call_function(aten.slice.Tensor, (value, axis, padding, end))
        if any(more) and args["bias"] is not None:
            shaped = graph.graph.call_function(aten.reshape.default, (args["bias"], [1, -1, 1, 1]))
            value = graph.graph.call_function(aten.add.Tensor, (value, shaped))
    value.meta = dict(node.meta)
    node.replace_all_uses_with(value)
    graph.graph.erase_node(node)


def _normalise(graph: GraphModule, node: Node) -> None:
    """Over the axes behind the channels, as Ulyanov et al. 2016 (arXiv:1607.08022); running statistics are constants."""
    import torch

    aten, args = torch.ops.aten, _arguments(node)
    x, rank = args["input"], args["input"].meta["val"].ndim
    channels = [1, -1, *[1] * (rank - 2)]
    with graph.graph.inserting_before(node):

        def call(op: Any, *arguments: Any) -> Node:
            return graph.graph.call_function(op, arguments)

        if args["use_input_stats"]:
            axes = list(range(2, rank))
            centred = call(aten.sub.Tensor, x, call(aten.mean.dim, x, axes, True))
            variance = call(aten.mean.dim, call(aten.mul.Tensor, centred, centred), axes, True)
        else:
            centred = call(aten.sub.Tensor, x, call(aten.reshape.default, args["running_mean"], channels))
            variance = call(aten.reshape.default, args["running_var"], channels)
        value = call(aten.mul.Tensor, centred, call(aten.rsqrt.default, call(aten.add.Tensor, variance, args["eps"])))
        if args["weight"] is not None:
            value = call(aten.mul.Tensor, value, call(aten.reshape.default, args["weight"], channels))
        if args["bias"] is not None:
            value = call(aten.add.Tensor, value, call(aten.reshape.default, args["bias"], channels))
    node.replace_all_uses_with(value)
    graph.graph.erase_node(node)


def _quantize_again(graph: GraphModule, node: Node) -> None:
    """Before: ``dequantize(integers)``; after: ``dequantize(quantize(reals))``, which gives the same integers:
    round(s q / s) = q for |q| <= 127 in float32."""
    import torch

    source: Any = node.args[0]
    integers = _attribute(graph, source.target)
    arguments: list[Any] = list(node.args[1:])
    rest = [_attribute(graph, a.target) if hasattr(a, "target") else a for a in arguments]
    reals = node.target(integers, *rest)  # type: ignore[operator]
    name = f"{node.name}_reals"
    graph.register_parameter(name, torch.nn.Parameter(reals, requires_grad=False))
    target = getattr(torch.ops.quantized_decomposed, str(node.target).split(".")[1].removeprefix("de")).default
    limits = (-127, 127) if integers.dtype == torch.int8 else tuple(node.args[-3:-1])
    with graph.graph.inserting_before(node):
        made = graph.graph.call_function(target, (graph.graph.get_attr(name), *node.args[1:-3], *limits, node.args[-1]))
    node.args = (made, *node.args[1:-3], *limits, node.args[-1])


def _arguments(node: Node) -> dict[str, Any]:
    """Every argument of the operator's schema by name, defaults filled in; one number stands for both axes."""
    values: dict[str, Any] = {}
    for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        default = argument.default_value if argument.has_default_value() else None
        values[argument.name] = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name, default)
    if "output_padding" in values:
        for key in ("stride", "padding", "output_padding", "dilation"):
            pair = [values[key]] if isinstance(values[key], int) else list(values[key])
            values[key] = pair * 2 if len(pair) == 1 else pair
    return values


def _attribute(root: Any, path: Any) -> Any:
    for name in str(path).split("."):
        root = getattr(root, name)
    return root
