"""Coupling: which slices of which tensors must go together, found from the exported graph.

Every parameter starts with a unit id of its own for each index of each dimension. Going through the graph once, each operator
(``ops/``) says what its output is made of and which ids are one: the output channels of a convolution are those of its weight's
dimension 0, its input channels those of dimension 1; an addition makes the ids of both sides one. What is left at the end are
connected components: the smallest sets of slices that can only be removed together.

Ids that must stay (model inputs and outputs, user-named layers, dimensions that an operator can't shrink) are protected, with the reason.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np

from ...core.bundle import layer_of
from .index import Field, Ids, Labels, covering, fields_of, simplify

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

Role = Literal["out", "in", "shift", "scale", "stat", "other"]
Value: TypeAlias = "Labels | tuple[Value, ...] | None"
Shape: TypeAlias = tuple[int, ...]
Forward: TypeAlias = Literal[False, True, "strict"]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Multiply-accumulates of one operator for one sample: ``macs`` times the kept share of each of ``dims``."""

    node: str
    layer: str
    macs: float
    dims: tuple[Ids, ...]


@dataclasses.dataclass(frozen=True)
class Coupling:
    """The result: ``unit[id]`` is the unit of an id, ``why[unit]`` the reason where a unit must stay.

    ``values`` maps nodes to the labels of what they give, ``weights`` parameter and buffer names to theirs, ``roles`` (name, dimension) to
    what it is for the units, and ``same`` names of one tensor to the first name. ``shuffles``: chains of nodes that only permute a
    dimension, with that dimension and the permutation.
    """

    graph: GraphModule
    values: dict[Node, Any]
    shapes: dict[Node, Any]
    weights: dict[str, Labels]
    roles: dict[tuple[str, int], Role]
    same: dict[str, str]
    costs: tuple[Cost, ...]
    shuffles: tuple[tuple[list[Node], int, Ids], ...]
    unit: Ids
    units: int
    why: dict[int, str]
    module: bool = False


class Coupler:
    """What an operator's rule works with. Shapes are those of the example inputs."""

    def __init__(
        self,
        graph: GraphModule,
        shapes: dict[Node, Any],
        batch: int = 1,
        attention: Literal["heads", "width"] = "heads",
        module: Forward = False,
    ) -> None:
        self.graph = graph
        self.shapes = shapes
        self.batch = batch
        self.attention = attention
        self.module = bool(module)  # arguments keep their numbers
        self.strict = module == "strict"  # those of reshapes too
        self.values: dict[Node, Any] = {}
        self.weights: dict[str, Labels] = {}
        self.same: dict[str, str] = {}
        self.roles: dict[tuple[str, int], Role] = {}
        self.costs: list[Cost] = []
        self.shuffles: list[tuple[list[Node], int, Ids]] = []
        self.inside: set[Node] = set()  # between the ends of a channel shuffle
        self._count = 0
        self._edges: list[tuple[Ids, Ids]] = []
        self._kept: list[tuple[Ids, str]] = []

    # what is known
    def shape(self, node: Node) -> Shape:
        """The shape of a tensor node."""
        return cast(Shape, self.shapes[node])

    def number(self, value: Any) -> int:
        """An integer argument, or what a symbolic one is for the example inputs."""
        return int(self.shapes[value]) if hasattr(value, "op") else int(value)

    def labels(self, node: Any) -> Labels:
        """The labels of a tensor node; none for anything else."""
        value = self.values.get(node) if hasattr(node, "op") else None
        return cast(Labels, value or ())

    def line(self, node: Node | None, dim: int) -> Ids | None:
        """The ids along one dimension of a tensor, None where it is never pruned.

        Where a field covers more dimensions, what differs only along those becomes one.
        """
        if node is None:
            return None
        dim %= len(self.shape(node))
        field = covering(self.labels(node), dim)
        if field is None:
            return None
        table = field.along(dim)
        self.join(table, np.broadcast_to(table[:, :1], table.shape))
        return np.ascontiguousarray(table[:, 0])

    # what is said
    def fresh(self, size: int) -> Ids:
        """New ids."""
        self._count += size
        return np.arange(self._count - size, self._count, dtype=np.int64)

    def fixed(self, size: int) -> Ids:
        """New ids that are never pruned, for a fixed part of a dimension."""
        ids = self.fresh(size)
        self.keep(ids, "stands beside channels that are never pruned")
        return ids

    def constant(self, node: Node) -> Ids | None:
        """The values of an integer tensor that the graph holds, None where it is computed."""
        if node.op != "get_attr":
            return None
        thing: Any = self.graph
        for part in str(node.target).split("."):
            thing = getattr(thing, part)
        return cast(Ids, thing.numpy())

    def join(self, left: Ids | None, right: Ids | None, why: str = "") -> None:
        """Position by position, these ids are one. Where one side is never pruned (None), neither is the other."""
        if left is None or right is None:
            self.keep(left if right is None else right, why or "goes together with a dimension that is never pruned")
        elif left is not right:
            self._edges.append((left.ravel(), np.broadcast_to(right, left.shape).ravel()))

    def keep(self, ids: Ids | None, why: str) -> None:
        """These ids are never pruned."""
        if ids is not None and ids.size:
            self._kept.append((ids.ravel(), why))

    def freeze(self, labels: Labels, dims: Sequence[int], why: str) -> Labels:
        """The labels once ``dims`` are never pruned: ids that differ only along those become one, or must stay."""
        result = []
        for field in labels:
            for dim in [d for d in dims if d in field.dims]:
                if len(field.dims) == 1:
                    self.keep(field.ids, why)
                    break
                axis = field.dims.index(dim)
                first = np.take(field.ids, [0], axis)
                self.join(field.ids, np.broadcast_to(first, field.ids.shape))
                field = Field(tuple(d for d in field.dims if d != dim), first.squeeze(axis))
            else:
                result.append(field)
        return tuple(result)

    def role(self, node: Any, dim: int, role: Role) -> None:
        """What a dimension of a parameter is for, where ``node`` reads a parameter."""
        if node is not None and node.op == "get_attr":
            self.roles.setdefault((self.same[str(node.target)], dim), role)

    def cost(self, node: Node, macs: float, *dims: Ids | None) -> None:
        """This operator's multiply-accumulates and the dimensions that they are proportional to."""
        self.costs.append(Cost(str(node.name), layer_of(node), macs, tuple(d for d in dims if d is not None)))

    def weight(self, node: Node, tensor: Tensor, names: dict[int, str]) -> Labels:
        """The labels of a parameter or buffer: new ids at its first use. Integer tensors (indices, counters) are never pruned."""
        name = str(node.target)
        first = self.same.setdefault(name, names.setdefault(id(tensor), name))
        if first not in self.weights:
            sizes = enumerate(tensor.shape) if tensor.is_floating_point() else ()
            self.weights[first] = tuple(Field((dim,), self.fresh(size)) for dim, size in sizes if size > 1)
        return self.weights[first]

    def broadcast(self, node: Node, operands: Sequence[Any], why: str = "goes together with a tensor that is never pruned") -> Labels:
        """The labels of an element-wise result: along each dimension the operands' ids are one; size one goes with anything."""
        tensors = [o for o in operands if hasattr(o, "op") and isinstance(self.shapes.get(o), tuple)]
        return self.merge(self.shape(node), [(self.shape(t), self.labels(t)) for t in tensors], why)

    def merge(self, out: Shape, operands: Sequence[tuple[Shape, Labels]], why: str = "goes together with a fixed dimension") -> Labels:
        """``broadcast`` on shapes and labels: those of a result of shape ``out``."""
        shifted = []
        for shape, labels in operands:
            shift = len(out) - len(shape)
            shifted.append([Field(tuple(d + shift for d in f.dims), f.ids) for f in labels])
        result: list[Field] = []
        for cluster, fields in _clusters([f for own in shifted for f in own]):
            frozen = [d for d in cluster if _fixed([shape for shape, _ in operands], shifted, len(out), d)]
            widest = max(fields, key=lambda f: len(f.dims))
            sizes = [out[d] for d in cluster]
            ids = np.broadcast_to(widest.spread(cluster), sizes)
            for field in fields:
                if field is not widest:
                    self.join(ids, np.broadcast_to(field.spread(cluster), sizes))
            result += self.freeze((simplify(Field(tuple(cluster), np.ascontiguousarray(ids))),), frozen, why)
        return tuple(sorted(result, key=lambda f: f.dims))

    def finish(self) -> Coupling:
        """Connected components of what was said; fields over several dimensions are made such that whole slices go."""
        unit, units = self._components()
        while self._separate(unit):
            unit, units = self._components()
        why: dict[int, str] = {}
        for ids, reason in self._kept:
            for one in np.unique(unit[ids]).tolist():
                why.setdefault(int(one), reason)
        return Coupling(
            graph=self.graph,
            values=self.values,
            shapes=self.shapes,
            weights=self.weights,
            roles=self.roles,
            same=self.same,
            costs=tuple(self.costs),
            shuffles=tuple(self.shuffles),
            unit=unit,
            units=units,
            why=why,
            module=self.module,
        )

    def _components(self) -> tuple[Ids, int]:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        left = np.concatenate([a for a, _ in self._edges] or [np.zeros(0, np.int64)])
        right = np.concatenate([b for _, b in self._edges] or [np.zeros(0, np.int64)])
        ones = np.ones(len(left), np.int8)
        units, unit = connected_components(coo_array((ones, (left, right)), shape=(self._count, self._count)), directed=False)
        return unit.astype(np.int64), int(units)

    def _separate(self, unit: Ids) -> bool:
        """Joins ids of fields over several dimensions until each field's units follow one dimension; False when nothing was to do."""
        done = False
        for node, value in self.values.items():
            for field in fields_of(value) if node not in self.inside else ():
                if len(field.dims) < 2:
                    continue
                roots = Field(field.dims, unit[field.ids])
                if len(simplify(roots).dims) > 1:
                    best = max(field.dims, key=lambda d: _rows(roots, d))
                    table = field.along(best)
                    self.join(table, np.broadcast_to(table[:, :1], table.shape))
                    done = True
        return done


def _fixed(shapes: Sequence[Shape], shifted: Sequence[Sequence[Field]], ndim: int, dim: int) -> bool:
    """True where an operand has its full size along ``dim`` and no ids there."""
    for shape, fields in zip(shapes, shifted, strict=True):
        own = dim - (ndim - len(shape))
        if own >= 0 and shape[own] > 1 and not any(dim in f.dims for f in fields):
            return True
    return False


def _rows(field: Field, dim: int) -> int:
    """How many units would be left if the units followed ``dim``."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    table = field.along(dim)
    names, flat = np.unique(table, return_inverse=True)
    flat = flat.reshape(table.shape)
    left, right = flat.ravel(), np.broadcast_to(flat[:, :1], flat.shape).ravel()
    return int(connected_components(coo_array((np.ones(len(left), np.int8), (left, right)), shape=(len(names),) * 2), directed=False)[0])


def _clusters(fields: list[Field]) -> list[tuple[list[int], list[Field]]]:
    """Fields that share dimensions, with all the dimensions that they cover."""
    clusters: list[tuple[set[int], list[Field]]] = []
    for field in fields:
        hit = [c for c in clusters if c[0] & set(field.dims)]
        dims, members = set(field.dims), [field]
        for c in hit:
            dims |= c[0]
            members = c[1] + members
            clusters.remove(c)
        clusters.append((dims, members))
    return [(sorted(dims), members) for dims, members in clusters]
