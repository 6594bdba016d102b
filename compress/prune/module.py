"""Surgery on the user's own module: the same units taken out of a ``torch.nn.Module``, its class and state dict names kept.

A module's ``forward`` may hold sizes of its own (pads, slices, views), which nobody can set from outside. Channels that meet such an
operator stay (``couple(..., module=True)``), and the result must compute what the pruned graph computes, or ModelError says where it fails.

A pruned module is stored without pickling: its state dict, and ``attributes`` (JSON) for ``restore``::

    pruned = prune_module(net, [x], PruneSettings(macs=0.5))
    save_file(pruned.module.state_dict(), "net.safetensors")
    again = restore(Net(), pruned.attributes, load_file("net.safetensors"))
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ...core.bundle import Bundle, flatten_outputs, layer_of
from ...core.errors import ModelError, PacklightError
from ..computed import computed
from .coupling import Forward
from .ops import arguments
from .plan import PruneSettings, plan
from .surgery import operate, tensor_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.fx import GraphModule

    from ..passes import Context

Attributes = dict[str, dict[str, Any]]
CLOSE = 1e-4


@dataclasses.dataclass(frozen=True)
class PrunedModule:
    """``module`` is a smaller copy; ``attributes`` are the sizes its layers now state; ``bundle`` is the same on the exported graph."""

    module: nn.Module
    attributes: Attributes
    bundle: Bundle


def prune_module(module: nn.Module, samples: Sequence[Tensor], settings: PruneSettings, context: Context | None = None) -> PrunedModule:
    """Prunes a copy of ``module``. Sizes in its reshapes are taken as computed; where the smaller module then fails, as numbers.

    ``nn.MultiheadAttention`` has one width for what comes in, its heads and what goes out, and stays. Raises ModelError where the
    ``forward`` can't run on fewer channels.
    """
    from torch import nn

    whole = [path for path, layer in module.named_modules() if isinstance(layer, nn.MultiheadAttention)]
    settings = msgspec.structs.replace(settings, protect=(*settings.protect, *whole))
    bundle = Bundle.capture(module, samples)
    for name in computed(bundle.graph):
        told = "remove the parametrization first (torch.nn.utils.parametrize.remove_parametrizations), or prune the exported graph"
        raise ModelError(f"'{name}' of {type(module).__name__} is computed from other weights (weight_norm, a parametrization); {told}")
    try:
        return _pruned(module, bundle, settings, context, True)
    except ModelError as error:
        try:
            return _pruned(module, bundle, settings, context, "strict")
        except PacklightError:
            raise error from None


def _pruned(module: nn.Module, bundle: Bundle, settings: PruneSettings, context: Context | None, forward: Forward) -> PrunedModule:
    made = plan(bundle, settings, context, module=forward)
    if not made.removed.any():
        raise ModelError(f"nothing of {type(module).__name__} can go: {', '.join(sorted(set(made.coupling.why.values())))}")
    graph = operate(made.coupling, made.removed, bundle.samples)
    attributes = attributes_of(module, graph)
    smaller = copy.deepcopy(module).eval()
    state = {name: tensor_of(graph, name).detach().clone() for name in made.coupling.same if name in dict(_tensors(smaller))}
    restore(smaller, attributes, state, partial=True)
    pruned = bundle.replace(graph=graph)
    _agree(smaller, pruned)
    return PrunedModule(smaller, attributes, pruned)


def restore(module: nn.Module, attributes: Attributes, state: Mapping[str, Tensor], *, partial: bool = False) -> nn.Module:
    """Gives ``module`` (as its class builds it) the sizes and weights of a pruned one, in place; returns it.

    Raises ModelError where a layer or a weight of that name does not exist; unless ``partial``, also where one is missing.
    """
    import torch

    own = dict(_tensors(module))
    unknown = [name for name in state if name not in own]
    missing = [] if partial else [name for name in own if name not in state]
    if unknown or missing:
        told = [f"unknown: {', '.join(unknown[:3])}"] * bool(unknown) + [f"missing: {', '.join(missing[:3])}"] * bool(missing)
        raise ModelError(f"the weights don't belong to this {type(module).__name__} ({'; '.join(told)}); build it as it was before pruning")
    for path, values in attributes.items():
        try:
            layer = module.get_submodule(path)
        except AttributeError:
            raise ModelError(f"{type(module).__name__} has no layer '{path}'; build it as it was before pruning") from None
        for name, value in values.items():
            setattr(layer, name, tuple(value) if isinstance(value, list) else value)
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        layer = module.get_submodule(path)
        if leaf in layer._parameters:
            layer._parameters[leaf] = torch.nn.Parameter(tensor, own[name].requires_grad)
        else:
            layer._buffers[leaf] = tensor
    for layer in module.modules():
        if isinstance(layer, torch.nn.RNNBase):
            layer._flat_weights = [getattr(layer, name) for name in layer._flat_weights_names]
    return module


def attributes_of(module: nn.Module, graph: GraphModule) -> Attributes:
    """The sizes that the layers of ``module`` have to state to be what ``graph`` is; only what changes."""
    groups: dict[tuple[str, str], Any] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function" and hasattr(node.target, "_schema"):
            bound = arguments(node)
            for name in ("groups", "num_groups", "sizes"):
                if name in bound:
                    groups[layer_of(node), name] = bound[name]
    found: Attributes = {}
    for path, layer in module.named_modules():
        told = {name: value for name, value in _sizes(path, layer, graph, groups).items() if _differs(getattr(layer, name), value)}
        if told:
            found[path] = told
    return found


def _sizes(path: str, layer: nn.Module, graph: GraphModule, groups: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    """What a layer of this kind says about its own size."""
    from torch import nn

    def shape(leaf: str) -> list[int]:
        try:
            return list(tensor_of(graph, f"{path}.{leaf}" if path else leaf).shape)
        except AttributeError:
            return []

    kernel = shape("weight")
    if isinstance(layer, nn.modules.conv._ConvNd) and kernel:
        count = int(groups.get((path, "groups"), layer.groups))
        first, second = ("in_channels", "out_channels") if layer.transposed else ("out_channels", "in_channels")
        return {first: kernel[0], second: kernel[1] * count, "groups": count}
    if isinstance(layer, nn.Linear) and kernel:
        return {"out_features": kernel[0], "in_features": kernel[1]}
    if isinstance(layer, nn.modules.batchnorm._NormBase):
        size = kernel or shape("running_mean")
        return {"num_features": size[0]} if size else {}
    if isinstance(layer, nn.GroupNorm) and kernel:
        return {"num_channels": kernel[0], "num_groups": int(groups.get((path, "num_groups"), layer.num_groups))}
    if isinstance(layer, nn.LayerNorm) and kernel:
        return {"normalized_shape": kernel}
    if isinstance(layer, nn.PReLU) and kernel:
        return {"num_parameters": kernel[0]}
    if isinstance(layer, nn.Embedding) and kernel:
        return {"embedding_dim": kernel[1]}
    if isinstance(layer, nn.RNNBase) and shape("weight_hh_l0"):
        gates = {"LSTM": 4, "GRU": 3}.get(layer.mode, 1)
        projected = shape("weight_hr_l0")
        told = {"input_size": shape("weight_ih_l0")[1], "hidden_size": shape("weight_hh_l0")[0] // gates}
        return {**told, "proj_size": projected[0]} if projected else told
    if isinstance(layer, nn.RNNCellBase) and shape("weight_hh"):
        return {"input_size": shape("weight_ih")[1], "hidden_size": shape("weight_hh")[1]}
    if isinstance(layer, nn.Unflatten) and (path, "sizes") in groups:
        return {"unflattened_size": [int(s) for s in groups[path, "sizes"] if isinstance(s, int)]}
    return {}


def _differs(before: Any, after: Any) -> bool:
    return bool((list(before) if isinstance(before, tuple) else before) != after)


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]


def _agree(module: nn.Module, pruned: Bundle) -> None:
    import torch

    remedy = "its forward holds sizes of its own; use the pruned graph, or protect the layers before"
    name = type(module).__name__
    try:
        with torch.no_grad():
            found = flatten_outputs(module(*pruned.samples))
    except Exception as error:
        raise ModelError(f"the pruned {name} doesn't run ({str(error).splitlines()[0]}): {remedy}") from error
    for told, mine in zip(pruned.run(*pruned.samples), found, strict=True):
        if told.shape != mine.shape or float((told - mine).abs().max()) > CLOSE * max(1.0, float(told.abs().max())):
            raise ModelError(f"the pruned {name} computes something else than the pruned graph: {remedy}")
