"""The pass "drop-blocks": whole residual blocks taken out, those that change the least.

    y = x + f(x)      becomes      y = x

A block is an addition of two tensors of one shape, one of which (x) the other (f) is computed from, where nothing else reads what lies
between. Residual networks go on working without one (Veit et al., 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow
Networks", arXiv:1605.06431). Each is scored by what its absence does to the model's outputs o (Men et al., 2024, "ShortGPT",
arXiv:2403.03853, score a block by its own output; the model's sees what follows, too)::

    "cosine":   1 - mean over samples of cos(o, o')        "error":  sum |o - o'|^2 / sum |o|^2
    "loss":     task loss without the block - with it

The lowest goes first; the others are scored anew without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from ...core.bundle import Bundle, copy_graph, flatten_outputs, layer_of
from ...core.cost import macs
from ...core.errors import RecipeError
from ...core.verdict import Verdict, no
from ..graph import erase_unread
from ..passes import Context, PassResult, Settings, passes
from .ops import op_name
from .plan import draw, images_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

    from ...tasks.task import Task

CHUNK = 32
ADDS = ("aten.add.Tensor", "aten.add_.Tensor")


class DropBlocksSettings(Settings, frozen=True, kw_only=True):
    """Exactly one of ``blocks`` (how many go) and ``macs`` (the share of multiply-accumulates that is to be left, as far as blocks allow).
    ``most_change``: a block whose score is above it stays, and the pass ends there. ``images``: how many samples of the training (else
    calibration) data are looked at. ``protect``: layers (paths, ``*`` matches); a block that holds one stays."""

    blocks: Annotated[int, msgspec.Meta(ge=1)] | None = None
    macs: float | None = None
    score: Literal["cosine", "error", "loss"] = "cosine"
    most_change: float | None = None
    images: Annotated[int, msgspec.Meta(ge=1)] = 256
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.blocks is None) == (self.macs is None):
            raise ValueError("give exactly one of blocks and macs")
        if self.macs is not None and not 0 < self.macs < 1:
            raise ValueError(f"macs is {self.macs}; give a share between 0 and 1")


@dataclasses.dataclass(frozen=True)
class Block:
    """``join`` = ``skip`` + f(``skip``); ``inside`` are f's nodes. ``name`` is the path of the user's layer that holds them."""

    join: Node
    skip: Node
    inside: frozenset[Node]
    name: str


@passes.register("drop-blocks")
class DropBlocks:
    """Takes identity blocks out of a residual network."""

    name = "drop-blocks"
    Settings = DropBlocksSettings

    def __init__(self, settings: DropBlocksSettings) -> None:
        self.settings = settings

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        if bundle.quantized is not None:
            return no("the model is quantized already; drop blocks before quantizing")
        if images_of(context) is None:
            return no("blocks are scored on images; give --data or --calib")
        if self.settings.score == "loss" and (context.task is None or context.train is None):
            return no("score 'loss' needs labelled training data and a task; give --data and --task, or take 'cosine'")
        if not isinstance(bundle.signature.inputs[0].shape[0], str):
            return no("the model was traced with a fixed batch, so blocks can't be scored on many images; free its batch")
        if not blocks_of(bundle.graph):
            return no("the model has no identity block: an addition of a tensor and something computed from it in the same shape")
        return Verdict(True)

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        settings = self.settings
        inputs, target = _images(context, settings.images)
        task = context.task if settings.score == "loss" else None
        if task is not None and target is None:
            raise RecipeError("drop-blocks: score 'loss' needs labels, and the training data has none; take 'cosine'")
        reference = _run(bundle.graph, inputs)
        whole = macs(bundle)
        graph, left = bundle.copy_graph(), whole
        gone: list[dict[str, Any]] = []
        why = ""
        while (settings.blocks is not None and len(gone) < settings.blocks) or (settings.macs is not None and left > settings.macs * whole):
            known = blocks_of(graph, settings.protect)
            if not known:
                why = "no block is left that could go"
                break
            if task is not None and gone:
                reference = _run(graph, inputs)
            scores = score_blocks(graph, known, inputs, settings.score, reference, task, target, context)
            best = min(range(len(known)), key=scores.__getitem__)
            if settings.most_change is not None and scores[best] > settings.most_change:
                why = f"every block that is left changes more than {settings.most_change:g}"
                break
            name = known[best].name
            graph = without(graph, known[best])
            left = macs(bundle.replace(graph=graph))
            gone.append({"block": name, "change": round(scores[best], 6), "macs": left})
            context.progress.say(f"  without {name}: {settings.score} {scores[best]:.4g}, {left / whole:.1%} of the multiply-accumulates")
        told: dict[str, Any] = {"blocks": gone, "macs": [whole, left]} | ({"why": why} if why else {})
        if not gone:
            return PassResult(bundle, False, told)
        after = bundle.replace(graph=graph)
        return PassResult(after, True, {**told, "parameters": [bundle.parameters(), after.parameters()]})

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        if before.signature != after.signature:
            return no("the inputs or outputs changed")
        return Verdict(macs(after) < macs(before), "the multiply-accumulates didn't fall")


def blocks_of(graph: GraphModule, protect: Iterable[str] = ()) -> list[Block]:
    """All identity blocks, in the graph's order, inner ones too."""
    order = {n: i for i, n in enumerate(graph.graph.nodes)}
    shapes = {n: _shape(n) for n in graph.graph.nodes}
    found = []
    for node in graph.graph.nodes:
        if node.op != "call_function" or op_name(node) not in ADDS or len(node.args) < 2 or dict(node.kwargs).get("alpha", 1) != 1:
            continue
        a, b = node.args[:2]
        if not (hasattr(a, "op") and hasattr(b, "op")) or a is b or shapes[a] is None or shapes[a] != shapes[b]:
            continue
        for skip, branch in ((a, b), (b, a)):
            inside = _between(skip, branch, order)
            if inside and _closed(inside, node):
                block = Block(node, skip, inside, _name(inside))
                if not _held(block, tuple(protect)):
                    found.append(block)
    return found


def without(graph: GraphModule, block: Block) -> GraphModule:
    """A copy of the graph in which the block's result is its input."""
    copied = copy_graph(graph)
    nodes = dict(zip(graph.graph.nodes, copied.graph.nodes, strict=True))
    join, skip = nodes[block.join], nodes[block.skip]
    join.replace_all_uses_with(skip)
    erase_unread(copied, join)
    copied.graph.lint()
    copied.recompile()
    return copied


def score_blocks(
    graph: GraphModule,
    blocks: list[Block],
    inputs: tuple[Tensor, ...],
    score: str,
    reference: tuple[Tensor, ...],
    task: Task | None,
    target: Tensor | None,
    context: Context,
) -> list[float]:
    """What the absence of each block does to the outputs ``reference``, as the module's head says."""
    import torch

    found = []
    with torch.no_grad():
        loss = 0.0 if task is None or target is None else float(task.loss(reference, target))
        for number, block in enumerate(blocks):
            outputs = _run(without(graph, block), inputs)
            if score == "loss":
                assert task is not None
                assert target is not None
                found.append(float(task.loss(outputs, target)) - loss)
            else:
                a, b = (torch.cat([o.float().flatten(1) for o in side], 1).double() for side in (reference, outputs))
                if score == "cosine":
                    found.append(float(1 - torch.cosine_similarity(a, b, dim=1).mean()))
                else:
                    found.append(float((a - b).square().sum() / a.square().sum().clamp(min=1e-30)))
            context.progress.step("score blocks", number + 1, len(blocks))
    return found


def _run(graph: GraphModule, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The outputs for all samples, ``CHUNK`` at a time."""
    import torch

    with torch.no_grad():
        parts = [flatten_outputs(graph(*chunk)) for chunk in zip(*(x.split(CHUNK) for x in inputs), strict=True)]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _images(context: Context, count: int) -> tuple[tuple[Tensor, ...], Tensor | None]:
    import torch

    samples = images_of(context)
    assert samples is not None
    arrays, target = samples.batch(draw(context, len(samples), count))
    if target is not None and context.task is not None:
        target = context.task.numbers(target)
    known = target is not None and target.dtype.kind in "biuf"
    return tuple(torch.from_numpy(a) for a in arrays), torch.from_numpy(target) if known and target is not None else None


def _between(skip: Node, branch: Node, order: dict[Node, int]) -> frozenset[Node] | None:
    """The nodes that ``branch`` is computed by, back to ``skip``; None where it isn't computed from that alone (and from weights)."""
    inside: set[Node] = set()
    waiting = [branch]
    reached = False
    while waiting:
        node = waiting.pop()
        if node is skip:
            reached = True
        elif node not in inside and node.op != "get_attr":
            if node.op == "placeholder" or order[node] < order[skip]:
                return None
            inside.add(node)
            waiting += node.all_input_nodes
    return frozenset(inside) if reached and inside else None


def _closed(inside: frozenset[Node], join: Node) -> bool:
    """Nothing but the join reads what the branch computes."""
    return all(user in inside or user is join for node in inside for user in node.users)


def _name(inside: frozenset[Node]) -> str:
    """The longest path that the layers inside share; else the first layer's."""
    paths = [layer_of(n).split(".") for n in inside if layer_of(n)]
    if not paths:
        return str(min(n.name for n in inside))
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) or ".".join(min(paths))


def _held(block: Block, protect: tuple[str, ...]) -> bool:
    from .trace import named_by

    return any(named_by(layer_of(n), protect) for n in block.inside if layer_of(n))


def _shape(node: Node) -> tuple[str, ...] | None:
    shape = getattr(node.meta.get("val"), "shape", None)
    return None if shape is None else tuple(str(s) for s in shape)
