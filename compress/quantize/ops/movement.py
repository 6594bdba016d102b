"""Operators that move values without changing them: the output keeps the input's scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .role import Kind, Role, annotates, argument, is_real, name_of

if TYPE_CHECKING:
    from torch.fx import Node

_SPLITS = ("aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default", "aten.split.sizes", "aten.unbind.int")


def is_split(node: Node) -> bool:
    """Whether it gives the parts of one tensor."""
    return name_of(node) in _SPLITS


@annotates(
    *("aten.reshape.default", "aten.view.default", "aten._unsafe_view.default", "aten.flatten.using_ints", "aten.unflatten.int"),
    *("aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.unsqueeze.default"),
    *("aten.permute.default", "aten.transpose.int", "aten.t.default", "aten.numpy_T.default"),
    *("aten.slice.Tensor", "aten.select.int", "aten.narrow.default", "aten.flip.default", "aten.roll.default"),
    *("aten.expand.default", "aten.expand_as.default", "aten.repeat.default", "aten.clone.default", "aten.contiguous.default"),
    *("aten.pixel_shuffle.default", "aten.pixel_unshuffle.default", "aten.channel_shuffle.default", "aten.index_select.default"),
)
def movement(node: Node) -> Role | str:
    """Reshapes, transposes, slices, shuffles."""
    x = node.args[0]
    if not is_real(x):
        return "it moves something that is not a real tensor"
    return Role(Kind.MOVE, (x,))  # type: ignore[arg-type]


@annotates("aten.pad.default", "aten.constant_pad_nd.default")
def pad(node: Node) -> Role | str:
    """Padding by reflection, replication or with a number; zero is representable in every scale."""
    plain = "constant_pad" in str(node.target) or argument(node, 2, "mode", "constant") == "constant"
    value = argument(node, 2, "value") if "constant_pad" in str(node.target) else argument(node, 3, "value")
    if plain and value is not None and not isinstance(value, int | float):
        return "its value is computed"
    return Role(Kind.MOVE, (node.args[0],))  # type: ignore[arg-type]


@annotates(
    "aten.reflection_pad1d.default", "aten.reflection_pad2d.default", "aten.replication_pad1d.default", "aten.replication_pad2d.default"
)
def border(node: Node) -> Role:
    """Padding with values that are there."""
    return Role(Kind.MOVE, (node.args[0],))  # type: ignore[arg-type]


@annotates("getitem")
def part(node: Node) -> Role | str:
    """One part of a split tensor: it has the whole's scale, and the split is what reads the whole."""
    split = node.args[0]
    if not is_split(split):  # type: ignore[arg-type]
        return "it takes a result of an operator that runs in float"
    if not is_real(split.args[0]):  # type: ignore[union-attr]
        return "it moves something that is not a real tensor"
    return Role(Kind.MOVE, (split.args[0],), reader=split)  # type: ignore[arg-type,union-attr]
