"""Run a graph step by step, stopping at a layer to look at it or to change its weights before going on.

Two walks over the float graph and its integer form, stopping at the same names, give each layer's input and output in both; memory
holds only what is still to be read. Several batches walk side by side, so that a layer sees all of them before the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..graph import weight_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node


class Walk:
    """One graph, some batches, and how far they have gone. Values are what the nodes gave, one per batch."""

    def __init__(self, graph: GraphModule, batches: Sequence[tuple[Tensor, ...]]) -> None:
        self.graph = graph
        self.nodes = list(graph.graph.nodes)
        self.place = {n.name: i for i, n in enumerate(self.nodes)}
        self.values: list[dict[Node, Any]] = []
        self.at = 0
        inputs = [n for n in self.nodes if n.op == "placeholder"]
        for batch in batches:
            self.values.append(dict(zip(inputs, batch, strict=True)))
        self._last = self._last_reads()

    def until(self, name: str) -> list[Any]:
        """Goes on up to the node ``name``, that included; what it gave, per batch. A node passed before must still be live."""
        stop = self.place[name]
        while self.at <= stop:
            self._step()
        return self.read(self.nodes[stop])

    def read(self, node: Node) -> list[Any]:
        """A live value, per batch; a stored tensor is read as it is now."""
        if node.op == "get_attr":
            return [weight_of(self.graph, node)] * len(self.values)
        return [v[node] for v in self.values]

    def again(self, node: Node) -> list[Any]:
        """Computes the node that the walk stopped at once more, after its weights changed."""
        for v in self.values:
            v[node] = self._value(node, v)
        return self.read(node)

    def outputs(self) -> list[Any]:
        """Goes to the end; the model's result, per batch."""
        while self.at < len(self.nodes):
            self._step()
        return self.read(self.nodes[-1])

    def refresh(self) -> None:
        """Takes note of nodes that were added to the graph before the one at which the walk stands (stored tensors)."""
        here = self.nodes[self.at - 1].name
        self.nodes = list(self.graph.graph.nodes)
        self.place = {n.name: i for i, n in enumerate(self.nodes)}
        self.at = self.place[here] + 1
        self._last = self._last_reads()

    def _step(self) -> None:
        node = self.nodes[self.at]
        for v in self.values:
            if node.op not in ("placeholder", "get_attr"):
                v[node] = self._value(node, v)
        # What is read last at this node goes when the walk leaves it, so that ``again`` still finds its inputs.
        for gone in self._last.get(self.at - 1, ()):
            for v in self.values:
                v.pop(gone, None)
        self.at += 1

    def _value(self, node: Node, values: dict[Node, Any]) -> Any:
        import torch

        def look(n: Node) -> Any:
            return weight_of(self.graph, n) if n.op == "get_attr" else values[n]

        with torch.no_grad():
            if node.op == "output":
                return torch.fx.node.map_arg(node.args[0], look)
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), look)
            if node.op == "call_module":
                return self.graph.get_submodule(str(node.target))(*args, **kwargs)
            return node.target(*args, **kwargs)  # type: ignore[operator]

    def _last_reads(self) -> dict[int, list[Node]]:
        last: dict[int, list[Node]] = {}
        for node in self.nodes:
            if node.op in ("get_attr", "output"):
                continue
            # A dequantized weight belongs to its layer; everything else is kept until its last reader has been passed.
            reads = [self.place[u.name] for u in node.users]
            last.setdefault(max(reads, default=self.place[node.name]), []).append(node)
        return last
