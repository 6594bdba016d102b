"""From a graph to its coupling: shapes from one run, then each operator's rule in order."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from ...core.bundle import Bundle, layer_of, unsupported
from ...core.errors import RecipeError
from .coupling import Coupler, Coupling, Forward
from .index import Ids, fields_of
from .ops import couple_rules, op_name, shuffle, written

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

ALIKE = ("aten.batch_norm.default", "aten.relu.default", "aten.relu_.default", "aten.dropout.default")  # shape and type of the input
PLAIN = ("operator.", "aten.sym_", "aten._assert", "math.", "torch.sym_", "torch._", "builtins.")


def couple(
    bundle: Bundle, protect: Sequence[str] = (), attention: Literal["heads", "width"] = "heads", *, module: Forward = False
) -> Coupling:
    """The coupling of a float bundle's graph.

    ``protect`` names layers (paths in the user's model; ``*`` matches) whose channels all stay. ``module``: only what the user's own module
    can do without, whose ``forward`` keeps its numbers (pads, bounds, one size for all layers of an LSTM); "strict": the sizes that its
    reshapes were traced with are such numbers too (``ops/written.py``). Raises RecipeError where a name fits no layer, UnsupportedOpError
    where something prunable reaches an operator without a rule.
    """
    graph = bundle.graph
    first = bundle.signature.inputs[0].shape if bundle.signature.inputs else ()
    batch = bundle.samples[0].shape[0] if first and isinstance(first[0], str) else 1
    c = Coupler(graph, shapes_of(graph, bundle.samples), batch, attention, module)
    names: dict[int, str] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            tensor = _attribute(graph, str(node.target))
            c.values[node] = c.weight(node, tensor, names) if hasattr(tensor, "is_floating_point") else None
        elif node.op == "call_function":
            c.values[node] = _apply(node, c)
            chain = shuffle.find(node, c.shapes) if not module and any(len(f.dims) > 1 for f in fields_of(c.values[node])) else None
            if chain is not None:
                c.shuffles.append(chain)
                c.inside.update(chain[0][:-1])
        elif node.op == "output":
            for source in node.all_input_nodes:
                for field in c.labels(source):
                    c.keep(field.ids, "an output of the model")
    _protect(c, protect)
    written.keep_sizes(c)
    return c.finish()


def shapes_of(graph: GraphModule, samples: Sequence[Tensor]) -> dict[Node, Any]:
    """What every node gives for the example inputs: a shape, a tuple of these, or a number. Nothing is computed where torch can tell."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx import Interpreter

    found: dict[Node, Any] = {}

    class Record(Interpreter):
        def run_node(self, n: Node) -> Any:
            alike = n.op == "call_function" and str(n.target) in ALIKE
            result = self.env[n.args[0]] if alike else super().run_node(n)  # type: ignore[index]
            found[n] = _shape(result)
            return result

    with torch.no_grad():
        try:
            with FakeTensorMode(allow_non_fake_inputs=True) as mode:
                Record(graph).run(*(mode.from_tensor(s) for s in samples))
        except Exception:  # an operator without a fake form
            found.clear()
            Record(graph).run(*samples)
    return found


def _shape(value: Any) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return tuple(int(s) for s in value.shape)
    if isinstance(value, (tuple, list)):
        return tuple(_shape(v) for v in value)
    return int(value) if isinstance(value, (int, bool)) else value


def _attribute(graph: GraphModule, name: str) -> Any:
    thing: Any = graph
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


def _apply(node: Node, c: Coupler) -> Any:
    name = op_name(node)
    if name == "operator.getitem":
        parts = c.values.get(cast("Node", node.args[0]))
        return parts[cast(int, node.args[1])] if parts else ()
    rule = couple_rules.find(name)
    if rule is not None:
        return rule(node, c)
    if name.startswith(PLAIN):
        return ()
    if any(c.values.get(source) for source in node.all_input_nodes):
        raise unsupported(
            "prune", node, "it has no coupling rule", "write the layer with other operators, or add a rule (compress/prune/ops/registry.py)"
        )
    return ()


def _protect(c: Coupler, layers: Sequence[str]) -> None:
    owners = {name.rpartition(".")[0] for name in c.same}
    known = {".".join(o.split(".")[:i]) for o in owners for i in range(1, len(o.split(".")) + 1)} - {""}
    for layer in layers:
        hit = [name for name in c.same if named_by(name, [layer])]
        if not hit:
            told = ", ".join(sorted(known)[:20])
            raise RecipeError(f"prune: protect names '{layer}', which is no layer with weights; there are: {told}")
        for name in hit:
            for field in c.weights[c.same[name]]:
                c.keep(field.ids, f"protected by name ({layer})")


def named_by(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of the ``patterns`` (paths in the model, ``*`` matches) is a weight's ``name`` or a layer that holds it."""
    paths = prefixes(name)
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns for path in paths)


def prefixes(name: str) -> list[str]:
    """ "a", "a.b" and "a.b.weight" of "a.b.weight"."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts) + 1)]


def layers_of(coupling: Coupling) -> dict[str, str]:
    """The layer path of each node that costs something."""
    return {str(n.name): layer_of(n) for n in coupling.graph.graph.nodes}


def unit_counts(coupling: Coupling, ids: Ids) -> Ids:
    """How often each unit occurs in ``ids``."""
    return np.bincount(coupling.unit[ids].ravel(), minlength=coupling.units)
