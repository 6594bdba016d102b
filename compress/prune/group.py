"""Groups: units that occur in the same dimensions of the same tensors, and so compete with each other."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import numpy as np

from .coupling import Coupling, Role
from .index import Ids
from .ops import arguments, op_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BLOCK = 8
"""The channels that ONNX Runtime's depthwise kernels take at once on AVX2 (NCHWc); for other counts it falls back to a slow one."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One dimension of one tensor. ``indices`` (units, times): where each unit of the group lies along it."""

    name: str
    dim: int
    role: Role
    indices: Ids


@dataclasses.dataclass(frozen=True)
class Group:
    """``units`` that may go, one row of each member's indices for each; or, where ``protected`` gives the reason, must stay."""

    units: Ids
    members: tuple[Member, ...]
    protected: str = ""

    @property
    def name(self) -> str:
        """The first tensor whose outputs these are."""
        made = [m.name for m in self.members if m.role == "out"] or [m.name for m in self.members]
        return made[0].rpartition(".")[0] or made[0]

    def __len__(self) -> int:
        return len(self.units)


def groups_of(coupling: Coupling) -> tuple[Group, ...]:
    """Every unit in exactly one group, in the graph's order; units that no weight has are left out."""
    draw = np.random.default_rng(0)
    signature = np.zeros(coupling.units, np.uint64)
    for (_, _), ids in _dimensions(coupling):
        mark = draw.integers(1, 2**63, dtype=np.uint64)
        np.add.at(signature, coupling.unit[ids], mark)
    kept = np.zeros(coupling.units, bool)
    kept[list(coupling.why)] = True
    signature[kept] ^= np.uint64(1)
    seen, group = np.unique(signature, return_inverse=True)
    members: dict[int, list[Member]] = {}
    units: dict[int, Ids] = {}
    used = np.zeros(len(seen), bool)
    for (name, dim), ids in _dimensions(coupling):
        owner = group[coupling.unit[ids]]
        order = np.lexsort((np.arange(len(ids)), coupling.unit[ids], owner))
        bounds = np.flatnonzero(np.diff(owner[order], prepend=-1, append=-1))
        for start, end in itertools.pairwise(bounds):
            places = order[start:end]
            own = int(owner[places[0]])
            mine = np.unique(coupling.unit[ids[places]])
            units.setdefault(own, mine)
            member = Member(name, dim, coupling.roles.get((name, dim), "other"), places.reshape(len(mine), -1).astype(np.int64))
            members.setdefault(own, []).append(member)
            used[own] = True
    found = []
    for own, parts in members.items():
        why = coupling.why.get(int(units[own][0]), "")
        found.append(Group(units[own], tuple(parts), why))
    return tuple(found)


def kind_of(coupling: Coupling, group: Group) -> tuple[tuple[str, int, int], ...]:
    """What a group is made of, whatever its sizes: role, dimension and rank of each member's tensor. Equal for isomorphic groups."""
    from .surgery import tensor_of

    return tuple(sorted((m.role, m.dim, tensor_of(coupling.graph, m.name).ndim) for m in group.members))


def steps_of(coupling: Coupling, groups: Sequence[Group]) -> tuple[int, ...]:
    """What each group should keep a multiple of, so that runtimes don't get slower: ``BLOCK`` where a depthwise convolution is among its
    members and it has at least two blocks, else 1."""
    depthwise = set()
    for node in coupling.graph.graph.nodes:
        if node.op == "call_function" and op_name(node).startswith("aten.conv"):
            bound = arguments(node)
            weight = str(bound["weight"].target)
            if int(bound["groups"]) > 1 and coupling.shapes[bound["weight"]][1] == 1:
                depthwise.add(coupling.same.get(weight, weight))
    return tuple(BLOCK if len(g) >= 2 * BLOCK and any(m.name in depthwise for m in g.members) else 1 for g in groups)


def _dimensions(coupling: Coupling) -> Iterator[tuple[tuple[str, int], Ids]]:
    for name, labels in coupling.weights.items():
        for field in labels:
            yield (name, field.dims[0]), field.ids
