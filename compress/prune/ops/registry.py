"""The rules: one function an operator family says how it couples, and one how its arguments change when channels are gone.

To add an operator, write a small file here (or add to the family's) and import it in ``ops/__init__.py``::

    @couples("aten.my_op.default")
    def my_op(node, c):                      # c: coupling.Coupler
        x, weight = operands(node, "input", "weight")
        c.join(c.line(x, 1), c.line(weight, 0))      # these channels are one
        return c.labels(x)                            # the labels of the result

    @shrinks("aten.my_op.default")                   # only where an argument holds a size
    def my_op_sizes(node, s):                # s: surgery.Surgeon
        s.set(node, "channels", s.size(node, 1))

``c.line(tensor, dim)`` gives the ids along a dimension, ``c.freeze`` says that a dimension can't shrink, ``c.broadcast`` does element-wise
operators. An operator without a rule is refused by name as soon as something prunable reaches it. The test for a new rule is
``tests/compress/prune/test_ops.py``: one line with a small module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ....core.registry import Registry

if TYPE_CHECKING:
    from torch.fx import Node

    from ..coupling import Coupler
    from ..surgery import Surgeon

CoupleRule = Callable[["Node", "Coupler"], Any]
ShrinkRule = Callable[["Node", "Surgeon"], None]

couple_rules: Registry[CoupleRule] = Registry("coupling rule")
shrink_rules: Registry[ShrinkRule] = Registry("shrinking rule")


def couples(*names: str) -> Callable[[CoupleRule], CoupleRule]:
    """Files a coupling rule under operator names such as ``aten.conv2d.default``."""
    return couple_rules.register(*names)


def shrinks(*names: str) -> Callable[[ShrinkRule], ShrinkRule]:
    """Files a rule that adapts an operator's arguments to the channels that are left."""
    return shrink_rules.register(*names)


def op_name(node: Node) -> str:
    """``aten.conv2d.default`` for operators, ``operator.getitem`` for Python's own."""
    target = node.target
    if hasattr(target, "_schema"):
        return str(target)
    module = getattr(target, "__module__", "") or ""
    return f"{module.lstrip('_')}.{getattr(target, '__name__', target)}"


def arguments(node: Node) -> dict[str, Any]:
    """The arguments by the schema's names, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    bound: dict[str, Any] = {}
    for place, argument in enumerate(schema.arguments):
        if place < len(node.args) and not argument.kwarg_only:
            bound[argument.name] = node.args[place]
        elif argument.name in node.kwargs:
            bound[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            bound[argument.name] = argument.default_value
    return bound


def operands(node: Node, *names: str) -> tuple[Any, ...]:
    """Some arguments by name."""
    bound = arguments(node)
    return tuple(bound.get(name) for name in names)
