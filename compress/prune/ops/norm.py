"""Normalisations.

BatchNorm and InstanceNorm treat each channel alone. GroupNorm and LayerNorm share statistics between channels: without some of them the
statistics are those of what is left, which is also how "masked" is meant. GroupNorm loses whole groups (exact) where it has at
least as many groups as channels in one, and else position p in every group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..index import Labels
from .registry import arguments, couples, shrinks

if TYPE_CHECKING:
    from torch.fx import Node

    from ..coupling import Coupler, Role
    from ..surgery import Surgeon

PER_CHANNEL = ("aten.batch_norm.default", "aten.instance_norm.default", "aten._native_batch_norm_legit_no_training.default")
ROLES: dict[str, Role] = {"weight": "scale", "bias": "shift", "running_mean": "stat", "running_var": "stat"}


@couples(*PER_CHANNEL)
def per_channel(node: Node, c: Coupler) -> Labels:
    """Weight, bias and statistics belong to the channels (dimension 1)."""
    bound = arguments(node)
    x = bound["input"]
    ids = c.line(x, 1)
    for name, role in ROLES.items():
        if bound[name] is not None:
            c.join(c.line(bound[name], 0), ids)
            c.role(bound[name], 0, role)
    labels = c.labels(x)
    if "instance" in str(node.target):
        labels = c.freeze(labels, range(2, len(c.shape(x))), "statistics over this dimension")
    return (labels, (), ()) if "native" in str(node.target) else labels  # type: ignore[return-value]


@couples("aten.group_norm.default")
def group_norm(node: Node, c: Coupler) -> Labels:
    """See above."""
    bound = arguments(node)
    x, groups = bound["input"], int(bound["num_groups"])
    ids = c.line(x, 1)
    for name in ("weight", "bias"):
        if bound[name] is not None:
            c.join(c.line(bound[name], 0), ids)
            c.role(bound[name], 0, ROLES[name])
    if ids is not None and groups > 1:
        blocks = ids.reshape(groups, -1)
        whole = groups >= blocks.shape[1]
        c.join(blocks, np.broadcast_to(blocks[:, :1] if whole else blocks[:1], blocks.shape))
    return c.freeze(c.labels(x), range(2, len(c.shape(x))), "statistics over this dimension")


@shrinks("aten.group_norm.default")
def norm_groups_left(node: Node, s: Surgeon) -> None:
    """Groups that lost all their channels are gone."""
    bound = arguments(node)
    groups = int(bound["num_groups"])
    s.set(node, "num_groups", int(s.kept(bound["input"], 1).reshape(groups, -1).any(1).sum()))


@couples("aten.layer_norm.default", "aten.rms_norm.default")
def layer_norm(node: Node, c: Coupler) -> Labels:
    """Weight and bias have the last dimensions."""
    bound = arguments(node)
    x = bound["input"]
    start = len(c.shape(x)) - len(bound["normalized_shape"])
    for name in ("weight", "bias"):
        tensor = bound.get(name)
        if tensor is not None:
            for dim in range(len(bound["normalized_shape"])):
                if c.shape(tensor)[dim] > 1:
                    c.join(c.line(tensor, dim), c.line(x, start + dim))
                c.role(tensor, dim, ROLES[name])
    return c.labels(x)


@shrinks("aten.layer_norm.default", "aten.rms_norm.default")
def normalized_shape(node: Node, s: Surgeon) -> None:
    """The sizes that are left."""
    count = len(arguments(node)["normalized_shape"])
    ndim = len(s.shape(node))
    s.set(node, "normalized_shape", [s.size(node, ndim - count + dim) for dim in range(count)])
