"""What an operator is to integer kernels, said by one small rule per operator family.

A rule looks at one node and answers with a ``Role``, or with the reason why the operator stays in float. Rules don't decide
whether a node *is* quantized: that depends on its neighbours and is the plan's work (``quantize/plan.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from ....core.registry import Registry
from ..affine import Affine

if TYPE_CHECKING:
    from torch.fx import Node


class Kind(Enum):
    """How an operator becomes integer.

    COMPUTE: it has a fast integer kernel that pays for itself; always. POINT: it has one, and runs in integers where its
    inputs already are. MOVE: it only carries values (or picks among them), so its output has its input's scale.
    """

    COMPUTE = "compute"
    POINT = "point"
    MOVE = "move"


@dataclass(frozen=True)
class Weight:
    """A constant input. ``axis`` holds the output channels (None: one scale for all); ``signed`` weights are symmetric within the
    scheme's maximum, others are quantized like activations."""

    node: Node
    axis: int | None = None
    signed: bool = True


@dataclass(frozen=True)
class Role:
    """The part that one node plays.

    ``inputs`` are its activations, in order. ``fixed`` is the output's scale where the kernels prescribe one. ``clips`` are the bounds
    that it clips to. ``fuses`` says that the operator can be done by the kernel before it; ``hosts`` that it can do so for the one after.
    ``reader`` is the node that reads the inputs, where it is another (the ``split`` behind a ``getitem``). ``bias`` is a constant added
    in int32.
    """

    kind: Kind
    inputs: tuple[Node, ...]
    weights: tuple[Weight, ...] = ()
    bias: Node | None = None
    fixed: Affine | None = None
    clips: tuple[float, float] | None = None
    fuses: bool = False
    hosts: bool = False
    reader: Node | None = None


Rule = Callable[["Node"], "Role | str"]

_rules: Registry[Rule] = Registry("quantization rule")


def annotates(*operators: str) -> Callable[[Rule], Rule]:
    """Decorator: files a rule for operators by their full names ("aten.conv2d.default")."""
    return _rules.register(*operators)


def rule_for(node: Node) -> Rule | None:
    """The rule for a node's operator, if there is one."""
    from . import activation, arithmetic, concat, convolution, linear, movement, pooling, resize  # noqa: F401  register

    return _rules.find(name_of(node))


def known_operators() -> tuple[str, ...]:
    """All operators that have a rule."""
    from . import activation, arithmetic, concat, convolution, linear, movement, pooling, resize  # noqa: F401  register

    return _rules.names()


def name_of(node: Node) -> str:
    """The operator's full name ("aten.conv2d.default", "getitem")."""
    import operator

    return "getitem" if node.target is operator.getitem else str(node.target)


def argument(node: Node, index: int, name: str, default: Any = None) -> Any:
    """An argument of a node, by position or by name."""
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def is_constant(node: object) -> bool:
    """Whether it is a stored tensor (``get_attr``)."""
    import torch

    return isinstance(node, torch.fx.Node) and node.op == "get_attr"


def is_real(node: object) -> bool:
    """Whether it is a node whose value is a floating-point tensor."""
    import torch

    if not isinstance(node, torch.fx.Node):
        return False
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()
