"""Convolutions, plain and transposed: int8 activations and weights, int32 sums, one weight scale per output channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .role import Kind, Role, Weight, annotates, argument, is_constant

if TYPE_CHECKING:
    from torch.fx import Node


@annotates("aten.conv1d.default", "aten.conv2d.default", "aten.conv1d.padding", "aten.conv2d.padding")
def convolution(node: Node) -> Role | str:
    """The weight is (out, in / groups, ...): channels on axis 0."""
    return _layer(node, 0)


@annotates("aten.conv_transpose1d.default", "aten.conv_transpose2d.input")
def transposed_convolution(node: Node) -> Role | str:
    """The weight is (in, out / groups, ...): channels on axis 1. ONNX Runtime and OpenVINO compute it in integers as a convolution of its
    phases only, which takes one stride and no dilation."""
    stride, dilation = argument(node, 3, "stride", [1]), argument(node, 7, "dilation", [1])
    if len(set(stride)) > 1 or any(d != 1 for d in dilation):
        return f"a transposed convolution of strides {list(stride)} and dilation {list(dilation)} has no integer kernel in every runtime"
    if "conv_transpose1d" in str(node.target):
        return "1-D transposed convolutions have no integer kernel in every runtime"
    return _layer(node, 1)


@annotates("aten.conv3d.default", "aten.conv3d.padding", "aten.conv_transpose3d.input")
def volume(node: Node) -> Role | str:
    """Not every runtime has an integer kernel for volumes."""
    return "3-D convolutions have no integer kernel in every runtime"


def _layer(node: Node, axis: int) -> Role | str:
    x, weight = node.args[0], node.args[1]
    bias = argument(node, 2, "bias")
    if not is_constant(weight):
        return "its weight is computed, not stored"
    if bias is not None and not is_constant(bias):
        return "its bias is computed, not stored"
    return Role(Kind.COMPUTE, (x,), (Weight(weight, axis),), bias=bias, hosts=True)  # type: ignore[arg-type]
