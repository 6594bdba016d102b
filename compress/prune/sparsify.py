"""The pass "sparsify": single weights set to zero by magnitude, in a pattern or anywhere; every tensor keeps its shape.

    share:     w -> 0 where |w| is among the smallest ``share`` of all weights (scope "global") or of its layer ("layer")
               (Han et al., 2015, "Learning both Weights and Connections", arXiv:1506.02626)
    pattern:   N:M, of every M weights that follow each other along the inputs of a layer the N largest stay
               (Mishra et al., 2021, "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378)

What is gained is size: zeros compress (``deflated-bytes`` in the history: all weights, float32, zlib). Dense kernels multiply by zero as
they multiply by anything, and no runtime that packlight writes for on a CPU gets faster by it (benchmarks/prune/sparsity.md). Zeros stay
through "finetune", "distill" and "qat" (training/rider.py). Prune channels before, not after.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ...core.bundle import Bundle, aten_name
from ...core.errors import RecipeError
from ...core.verdict import YES, Verdict, no
from ..computed import refuse_computed
from ..passes import Context, PassResult, Settings, passes
from .ops import arguments
from .surgery import tensor_of
from .trace import named_by

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule

READERS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution", "linear")
RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")
SAID = "zeros make the file smaller once it is compressed; dense kernels on a CPU do not get faster by them"


class SparsifySettings(Settings, frozen=True, kw_only=True):
    """Exactly one of ``share`` (of the weights that become zero) and ``pattern`` ("2:4"). ``scope``: where ``share`` is counted.
    ``protect``: layers (paths, ``*`` matches) that stay as they are."""

    share: float | None = None
    pattern: str | None = None
    scope: Literal["global", "layer"] = "global"
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.share is None) == (self.pattern is None):
            raise ValueError("give exactly one of share and pattern")
        if self.share is not None and not 0 < self.share < 1:
            raise ValueError(f"share is {self.share}; give a share between 0 and 1")
        if self.pattern is not None:
            kept, of = self.kept_of
            if not 0 < kept < of:
                raise ValueError(f"pattern '{self.pattern}' is not N:M with N below M, like 2:4")

    @property
    def kept_of(self) -> tuple[int, int]:
        """(N, M) of the pattern; (0, 0) where it is none."""
        first, _, second = (self.pattern or "").partition(":")
        return (int(first), int(second)) if first.isdigit() and second.isdigit() else (0, 0)


@passes.register("sparsify")
class Sparsify:
    """Sets weights of convolutions, linear and recurrent layers to zero."""

    name = "sparsify"
    Settings = SparsifySettings

    def __init__(self, settings: SparsifySettings) -> None:
        self.settings = settings

    def requires(self, bundle: Bundle, context: Context) -> Verdict:
        if bundle.quantized is not None:
            return no("the model is quantized already; sparsify before quantizing")
        if not (known := refuse_computed(bundle, "sparsify")):
            return known
        if not weights_of(bundle.graph):
            return no("the model has no convolution, linear or recurrent layer whose weights could become zero")
        return YES

    def __call__(self, bundle: Bundle, context: Context) -> PassResult:
        import torch

        settings = self.settings
        graph = bundle.copy_graph()
        weights = {n: w for n, w in weights_of(graph).items() if not protected(n, settings.protect, graph)}
        before = deflated(graph)
        kept, of = settings.kept_of
        skipped: dict[str, str] = {}
        masks: dict[str, Tensor] = {}
        if settings.pattern is not None:
            for name, weight in weights.items():
                mask = n_of_m(weight.detach(), kept, of)
                if mask is None:
                    skipped[name] = f"its {weight.shape[1]} inputs are not a multiple of {of}"
                else:
                    masks[name] = mask
        else:
            assert settings.share is not None
            masks = largest({n: w.detach() for n, w in weights.items()}, settings.share, together=settings.scope == "global")
        with torch.no_grad():
            for name, mask in masks.items():
                tensor_of(graph, name).mul_(mask)
        zeros = {name: round(1 - float(mask.float().mean()), 4) for name, mask in masks.items()}
        total = sum(w.numel() for w in weights.values())
        gone = sum(int((~mask).sum()) for mask in masks.values())
        told: dict[str, Any] = {"zeros": round(gone / max(total, 1), 4), "layers": zeros}
        told |= {"deflated-bytes": [before, deflated(graph)], "notes": [SAID]}
        if skipped:
            told["skipped"] = skipped
        return PassResult(bundle.replace(graph=graph), True, told) if masks else PassResult(bundle, False, told)

    def ensures(self, before: Bundle, after: Bundle, context: Context) -> Verdict:
        old, new = before.graph.state_dict(), after.graph.state_dict()
        for name, value in new.items():
            changed = value != old[name]
            if bool((value[changed] != 0).any()):
                return no(f"weight '{name}' was changed to something other than zero")
        return YES


def weights_of(graph: GraphModule) -> dict[str, Tensor]:
    """The weights of convolutions, linear and recurrent layers that the graph holds, by name, each once."""
    import torch

    found: dict[str, Tensor] = {}
    for node in graph.graph.nodes:
        name = aten_name(node)
        if name not in READERS and name not in RECURRENT:
            continue
        bound = arguments(node)
        for source in [bound["weight"]] if name in READERS else list(bound["params"]):
            if source.op != "get_attr":
                continue
            tensor = tensor_of(graph, str(source.target))
            if isinstance(tensor, torch.nn.Parameter) and tensor.ndim > 1 and not any(tensor is known for known in found.values()):
                found[str(source.target)] = tensor
    return found


def n_of_m(weight: Tensor, kept: int, of: int) -> Tensor | None:
    """True where one of the ``kept`` largest of ``of`` neighbours along dimension 1 (inputs) lies; None where they don't divide."""
    import torch

    rows = weight.movedim(1, -1)
    if rows.shape[-1] % of:
        return None
    parts = rows.abs().reshape(*rows.shape[:-1], -1, of)
    order = parts.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(parts, dtype=torch.bool).scatter_(-1, order[..., :kept], True)
    return mask.reshape(rows.shape).movedim(-1, 1).contiguous()


def largest(weights: dict[str, Tensor], share: float, *, together: bool) -> dict[str, Tensor]:
    """True at all but the smallest ``share`` of magnitudes, of all weights together or of each."""
    import torch

    if not together:
        return {name: mask for name, w in weights.items() for mask in largest({name: w}, share, together=True).values()}
    if not weights:
        return {}
    flat = torch.cat([w.abs().flatten() for w in weights.values()])
    count = round(share * len(flat))
    mask = torch.ones(len(flat), dtype=torch.bool)
    mask[flat.argsort(stable=True)[:count]] = False
    parts = mask.split([w.numel() for w in weights.values()])
    return {name: part.reshape(w.shape) for (name, w), part in zip(weights.items(), parts, strict=True)}


def protected(name: str, patterns: Sequence[str], graph: GraphModule) -> bool:
    """Whether a layer is named. Raises RecipeError where a pattern names nothing in the graph."""
    for pattern in patterns:
        if not any(named_by(other, [pattern]) for other in graph.state_dict()):
            raise RecipeError(f"sparsify: protect names '{pattern}', which is no layer with weights; see the names with 'packlight export'")
    return named_by(name, patterns)


def deflated(graph: GraphModule) -> int:
    """Bytes of all parameters, one after the other as they are stored, after zlib at its default level."""
    packer = zlib.compressobj()
    size = 0
    for parameter in graph.parameters():
        size += len(packer.compress(parameter.detach().contiguous().numpy().tobytes()))
    return size + len(packer.flush())
