"""The pass "reestimate-batchnorm": running statistics of BatchNorm from images, labelled or not.

After pruning, what a BatchNorm sees is no longer what its statistics say. Over all images, per channel:
mean = E[x], variance = E[x^2] - E[x]^2 (unbiased: times n / (n - 1)), layer after layer in one sweep: as in training, each layer normalises
a batch with the batch's own statistics, so that what reaches the next is already right; the averages over all batches are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.bundle import Bundle
from ...core.verdict import YES, Verdict, no
from ...tasks.samples import batches
from ..passes import Context, PassResult, Settings, passes
from .ops import arguments, op_name
from .surgery import tensor_of

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

    from ...tasks.samples import Samples


class ReestimateSettings(Settings, frozen=True, kw_only=True):
    """``images``: how many samples of the training (else calibration) data are seen; ``batch``: how many at once."""

    images: int = 2048
    batch: int = 128

    def __post_init__(self) -> None:
        if self.images < 2 or self.batch < 2:
            raise ValueError("images and batch are at least 2")


@passes.register("reestimate-batchnorm")
class ReestimateBatchNorm:
    """New running means and variances; nothing else changes."""

    name = "reestimate-batchnorm"
    Settings = ReestimateSettings

    def __init__(self, settings: ReestimateSettings) -> None:
        self.settings = settings

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        if bundle.quantized is not None:
            return no("the model is quantized already")
        if _images(context) is None:
            return no("it needs images; give --data or --calib")
        return YES

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        samples = _images(context)
        if samples is None or not _norms(bundle.graph):
            return PassResult(bundle, False, {"layers": 0})
        graph = bundle.copy_graph()
        seen = reestimate(graph, samples, self.settings.images, self.settings.batch, bundle.signature.inputs[0].shape[0])
        return PassResult(bundle.replace(graph=graph), True, {"layers": len(_norms(graph)), "images": seen})

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        import torch

        for name, buffer in after.graph.named_buffers():
            if buffer.is_floating_point() and not bool(torch.isfinite(buffer).all()):
                return no(f"buffer '{name}' is not finite")
        return YES


def reestimate(graph: GraphModule, samples: Samples, images: int, batch: int, rows: Any = "batch") -> int:
    """Sets the running statistics of ``graph`` in place; returns how many samples were seen. ``rows``: the size of a fixed batch."""
    import torch
    from torch.fx import Interpreter

    sums: dict[str, Tensor] = {}
    weights: dict[str, float] = {}
    size = batch if isinstance(rows, str) else int(rows)
    seen = 0

    class Watch(Interpreter):
        def run_node(self, n: Node) -> Any:
            if n.op == "call_function" and op_name(n) == "aten.batch_norm.default":
                args, kwargs = self.fetch_args_kwargs_from_env(n)
                return _normalise(n, args, kwargs, sums, weights)
            return super().run_node(n)

    with torch.no_grad():
        for inputs, _ in batches(samples, size, images):
            if inputs[0].shape[0] != size and not isinstance(rows, str):
                break
            Watch(graph).run(*(torch.from_numpy(i) for i in inputs))
            seen += inputs[0].shape[0]
        for name, total in sums.items():
            tensor_of(graph, name).copy_(total / weights[name])
    return seen


def _normalise(node: Node, args: Any, kwargs: Any, sums: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """Runs a BatchNorm with the batch's own statistics and adds these to the sums."""
    import torch

    bound = arguments(node)
    x, weight, bias, eps = args[0], args[1], args[2], bound["eps"]
    if bound["running_mean"] is None:
        return torch.batch_norm(x, weight, bias, None, None, True, 0.0, eps, False)
    variance, mean = torch.var_mean(x.float(), [d for d in range(x.ndim) if d != 1], correction=1)
    count = x.numel() / x.shape[1]
    for key, value in (("running_mean", mean), ("running_var", variance)):
        name = str(bound[key].target)
        sums[name] = sums[name] + value * len(x) if name in sums else value * len(x)
        weights[name] = weights.get(name, 0.0) + len(x)
    return torch.batch_norm(x, weight, bias, mean, variance * (count - 1) / count, False, 0.0, eps, False)


def _norms(graph: GraphModule) -> list[Node]:
    found = [n for n in graph.graph.nodes if n.op == "call_function" and op_name(n) == "aten.batch_norm.default"]
    return [n for n in found if arguments(n)["running_mean"] is not None]


def _images(context: Context) -> Samples | None:
    return context.train if context.train is not None else context.calib
