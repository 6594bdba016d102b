"""Which values of a graph become integers, with which scales, and why the rest stays float. No quantizing is done here.

Quantization is planned by *values*: each value is quantized once, where it is made, and whoever reads it in integers reads
that. So no pair of quantize and dequantize stands where none is needed::

    conv -> relu -> add -> relu -> max_pool -> reshape -> linear

    conv's output: none (the relu clips it)       relu: scale 1       add: none       relu, max_pool, reshape: scale 2       linear: scale 3

A value made in float (a norm, a recurrent layer, the model's input) is quantized on the way to its integer readers only.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ...core.bundle import layer_of
from .affine import Affine
from .ops.movement import is_split
from .ops.role import Kind, Role, is_constant, is_real, name_of, rule_for

if TYPE_CHECKING:
    from torch.fx import GraphModule, Node

RECURRENT_OPS = ("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input")
_RECURRENT = "recurrent layers have no static integer kernel that every runtime shares"
_FILLS = ("aten.zeros.default", "aten.ones.default", "aten.full.default", "aten.new_zeros.default", "aten.zeros_like.default")
"""Operators that make a constant: it is quantized without a loss."""

Key = tuple["Node", "Node | None"]
"""A value: (producer, None) where it is made, or (producer, reader) on the way to one reader."""


@dataclass
class Plan:
    """What to do with a graph.

    ``roles`` are the nodes that run in integers. ``scales`` gives each quantized value the number of its group: values of one
    group share a scale. ``fixed`` holds the groups whose scale is prescribed. ``fused`` maps an activation to the node that does it.
    ``floats`` maps a node that stays float to the reason.
    """

    roles: dict[Node, Role] = field(default_factory=dict)
    scales: dict[Key, int] = field(default_factory=dict)
    fixed: dict[int, Affine] = field(default_factory=dict)
    fused: dict[Node, Node] = field(default_factory=dict)
    floats: dict[Node, str] = field(default_factory=dict)

    def layers(self) -> tuple[str, ...]:
        """The layers whose weights become integers, in order."""
        names = (layer_name(n) for n, role in self.roles.items() if role.kind is Kind.COMPUTE and role.weights)
        return tuple(dict.fromkeys(names))

    def kept_float(self) -> dict[str, str]:
        """Layer and operator -> why it computes in float; plumbing is left out."""
        return {f"{layer_name(n)} ({name_of(n)})": why for n, why in self.floats.items()}


def layer_name(node: Node) -> str:
    """The user's name of the layer, or the node's where there is none."""
    return layer_of(node) or str(node.name)


def make_plan(graph: GraphModule, keep_float: Sequence[str] = ()) -> Plan:
    """The plan for a lowered graph (see lower.py). ``keep_float`` are patterns of layers that must stay float."""
    roles, floats = _roles(graph, keep_float)
    integer = _integer(graph, roles)
    plan = Plan()
    for node in graph.graph.nodes:
        if node in integer:
            plan.roles[node] = roles[node]
        elif node in floats:
            plan.floats[node] = floats[node]
        elif node in roles and roles[node].kind is Kind.POINT:
            plan.floats[node] = "its inputs are float, so integers would not pay"
    _fuse(plan)
    _share(plan)
    return plan


def _roles(graph: GraphModule, keep_float: Sequence[str]) -> tuple[dict[Node, Role], dict[Node, str]]:
    """What each node could be, and why the others can't."""
    roles: dict[Node, Role] = {}
    floats: dict[Node, str] = {}
    for node in graph.graph.nodes:
        if node.op != "call_function":
            continue
        rule = rule_for(node)
        if rule is None:
            if _computes(node):
                floats[node] = _RECURRENT if name_of(node) in RECURRENT_OPS else "no integer kernel for it is known in every runtime"
            continue
        if not is_real(node):
            continue
        answer = rule(node)
        if isinstance(answer, str):
            if name_of(node) != "getitem":
                floats[node] = answer
        elif any(fnmatch.fnmatchcase(layer_name(node), p) for p in keep_float) and answer.kind is not Kind.MOVE:
            floats[node] = "kept float by the settings"
        elif not all(is_real(i) for i in answer.inputs):
            floats[node] = "it reads something that is not a real tensor"
        else:
            roles[node] = answer
    return roles, floats


def _computes(node: Node) -> bool:
    """Whether it makes real tensors from real tensors (and does not merely split one)."""
    import torch

    value = node.meta.get("val")
    results = value if isinstance(value, list | tuple) else [value]
    makes = any(isinstance(r, torch.Tensor) and r.is_floating_point() for r in results)
    if name_of(node) in _FILLS or is_split(node):
        return False
    return makes and any(is_real(a) and not is_constant(a) for a in node.all_input_nodes)


def _integer(graph: GraphModule, roles: dict[Node, Role]) -> set[Node]:
    """The nodes that run in integers: all COMPUTE, and what lies between them.

    A POINT needs all its inputs in integers, a MOVE of several too; the model's input, carried there or not, counts as such where an
    integer reader has it quantized anyway. A MOVE of one value follows it, or goes with its readers where all of them are integer: what
    arrives is then quantized before it is moved. Grows until nothing changes.
    """
    integer = {n for n, role in roles.items() if role.kind is Kind.COMPUTE}

    def given(value: Node) -> bool:
        return value in integer or name_of(value) in _FILLS

    def arrives(value: Node) -> bool:
        if given(value):
            return True
        while value in roles and roles[value].kind is Kind.MOVE and len(roles[value].inputs) == 1:
            value = roles[value].inputs[0]
        return value.op == "placeholder" and any(u in integer for u in value.users)

    def goes(node: Node, role: Role) -> bool:
        with_readers = bool(node.users) and all(u in integer for u in node.users)
        if role.kind is Kind.MOVE and len(role.inputs) == 1:
            return given(role.inputs[0]) or (with_readers and role.reader is None)
        if role.kind is Kind.MOVE and with_readers and sum(name_of(i) not in _FILLS for i in role.inputs) == 1:
            return True  # one value beside constants (a first state of zeros) is quantized before it is joined to them
        some = any(i in integer for i in role.inputs)
        return some and (all(arrives(i) for i in role.inputs) or (role.kind is Kind.MOVE and with_readers))

    grew = bool(integer)
    while grew:
        grew = False
        for order in (roles.items(), reversed(roles.items())):
            for node, role in order:
                if node not in integer and goes(node, role):
                    integer.add(node)
                    grew = True
    return integer


def _fuse(plan: Plan) -> None:
    """Finds the activations that the kernel before them does: it must be the only reader."""
    for node, role in plan.roles.items():
        if not role.fuses:
            continue
        before = role.inputs[0]
        host = plan.roles.get(before)
        if host is not None and host.hosts and host.fixed is None and len(before.users) == 1:
            plan.fused[node] = before


def _share(plan: Plan) -> None:
    """Gives every quantized value its group. In the order of the graph, so a value's group is known before it is read."""
    groups = _Groups(plan)
    hidden = set(plan.fused.values())
    for node, role in plan.roles.items():
        reader = role.reader or node
        keys = [] if node in plan.fused else [groups.read(value, reader) for value in role.inputs]
        if node in hidden:
            continue
        if role.kind is not Kind.MOVE:
            groups.make((node, None), role.fixed or role.clips)
            continue
        terms = {groups.terms(k) for k in keys}
        common = terms.pop() if len(terms) == 1 else None
        made = groups.make((node, None), common)
        for value, key in zip(role.inputs, keys, strict=True):
            # A part on other terms is requantized on its way in, so that it keeps its own scale for whoever else reads it.
            groups.join(made, key if groups.terms(key) == common else groups.make((value, reader), None))
    groups.finish()


Terms = Affine | tuple[float, float] | None
"""On what terms a value shares its scale: it has a prescribed one; or it was clipped to bounds, which a kernel can do by saturation
only while the scale covers just what lies between them; or none (None). Values share a scale only on equal terms."""


class _Groups:
    """Union-find over values."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.parent: dict[Key, Key] = {}
        self.first: dict[Node, Key] = {}
        self.of: dict[Key, Terms] = {}

    def read(self, value: Node, reader: Node) -> Key:
        """The key of ``value`` as ``reader`` sees it, made on first sight for values made in float."""
        if (value, None) in self.parent:
            return (value, None)
        key = self.make((value, reader), None)
        self.join(self.first.setdefault(value, key), key)  # on the way to another reader it is the same value
        return key

    def make(self, key: Key, terms: Terms) -> Key:
        """Files a value."""
        if key not in self.parent:
            self.parent[key] = key
            self.of[key] = terms
        return key

    def root(self, key: Key) -> Key:
        while self.parent[key] != key:
            self.parent[key] = self.parent[self.parent[key]]
            key = self.parent[key]
        return key

    def terms(self, key: Key) -> Terms:
        return self.of[self.root(key)]

    def join(self, a: Key, b: Key) -> None:
        """Gives two values on equal terms one scale."""
        first, second = self.root(a), self.root(b)
        assert self.of[first] == self.of[second]
        if first != second:
            self.parent[second] = first

    def finish(self) -> None:
        """Numbers the groups in the order in which their first value was filed."""
        numbers: dict[Key, int] = {}
        for key in self.parent:
            root = self.root(key)
            number = numbers.setdefault(root, len(numbers))
            self.plan.scales[key] = number
            terms = self.of[root]
            if isinstance(terms, Affine):
                self.plan.fixed[number] = terms
