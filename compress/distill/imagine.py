"""Training images made from a network alone (DeepInversion: Yin et al., 2020, arXiv:1912.08795).

What a network has seen is remembered in the running statistics of its BatchNorm layers. Images x are moved by Adam to minimise

    L(x) = c CE(f(x), y) + b sum over layers l of (|| mean_l(x) - m_l || + || var_l(x) - v_l ||) + t TV(x) + d || x ||

with m_l, v_l the layer's running mean and variance, mean_l and var_l those of its input over the batch, y labels drawn evenly, TV the total
variation of shifted differences and the images shifted and mirrored by chance at each step. Without class scores the first term is left
out. Values start from noise and are kept within what the preprocessing can give.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from ...core.bundle import Bundle
from ...core.progress import Progress, Silent
from ...core.verdict import YES, Verdict, no
from ...tasks.data.arrays import ArraySamples
from ..graph import weight_of
from ..training.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from ..training.modes import twin

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule, Node

Count = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class ImagineSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename="kebab"):
    """How images are made. ``images`` in batches of ``batch``, each moved ``steps`` times. The weights are the paper's for CIFAR-10."""

    images: Count = 1024
    batch: Count = 128
    steps: Count = 300
    lr: Annotated[float, msgspec.Meta(gt=0)] = 0.1
    classes: NotNegative = 1.0
    statistics: NotNegative = 10.0
    variation: NotNegative = 2.5e-5
    size: NotNegative = 3e-8


def check_imagine(teacher: Bundle | None) -> Verdict:
    """Whether images can be made from this network."""
    if teacher is None:
        return no("images are made from a teacher; give --teacher")
    inputs = teacher.signature.inputs
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        return no(f"images can only be made for a model that reads one image batch (N, C, H, W); '{teacher.name}' reads {inputs[0]}")
    if not _norms(teacher.graph):
        return no(f"'{teacher.name}' has no BatchNorm whose statistics images could be made from; give data instead")
    return YES


def imagine(
    teacher: Bundle, settings: ImagineSettings, *, seed: int = 0, work: Path | None = None, progress: Progress | None = None
) -> ArraySamples:
    """``settings.images`` images as ``teacher`` reads them, float32 (N, C, H, W), without labels. Kept in ``work`` where that is given."""
    import numpy as np

    progress = progress or Silent()
    key = fingerprint([msgspec.to_builtins(settings), seed], teacher.graph.state_dict())
    path = work / f"imagined-{key}.pt" if work is not None else None
    parts: list[Tensor] = list((load_checkpoint(path) or {}).get("parts", ())) if path is not None else []
    sizes = [min(settings.batch, settings.images - start) for start in range(0, settings.images, settings.batch)]
    maker = _Maker(teacher, settings)
    for index, count in enumerate(sizes):
        if index < len(parts):
            continue

        def tell(step: int, loss: float, index: int = index) -> None:
            done = index * settings.steps + step
            progress.step("imagine", done, len(sizes) * settings.steps, f"loss {loss:.2f}")

        parts.append(maker.make(count, (seed * 1_000_003 + index) % 2**63, tell))
        if path is not None:
            save_checkpoint(path, {"parts": parts})
    x = np.concatenate([part.numpy() for part in parts])
    return ArraySamples(x, None, np.arange(len(x)), None, (), f"images made from {teacher.name} ({key})")


def blank(teacher: Bundle) -> ArraySamples:
    """Two samples of the kind that ``imagine`` gives, all zero: to ask whether they could be trained on."""
    import numpy as np

    return ArraySamples(np.zeros((2, *teacher.samples[0].shape[1:]), np.float32), None, np.arange(2), None)


class _Maker:
    """One teacher, ready to be looked at through its BatchNorm layers."""

    def __init__(self, teacher: Bundle, settings: ImagineSettings) -> None:
        import torch

        graph = teacher.copy_graph()
        graph.requires_grad_(False)
        norms = _norms(graph)
        self.settings = settings
        self.outputs = len(teacher.signature.outputs)
        self.wanted = [tuple(weight_of(graph, n.args[i]) for i in (3, 4)) for n in norms]
        self.net = twin(graph, training=False, taps=[str(n.args[0]) for n in norms])
        self.shape = tuple(int(s) for s in teacher.samples[0].shape[1:])
        scores = teacher.signature.outputs[0].shape
        self.count = int(scores[1]) if len(scores) == 2 and isinstance(scores[1], int) and scores[1] > 1 else 0
        spec = teacher.preprocess
        channels = self.shape[0]
        mean = torch.tensor(spec.mean if spec and spec.mean else (0.0,) * channels).reshape(-1, 1, 1)
        std = torch.tensor(spec.std if spec and spec.std else (1.0,) * channels).reshape(-1, 1, 1)
        self.range = (-mean / std, (1 - mean) / std) if spec is not None else None

    def make(self, count: int, seed: int, tell: Any) -> Tensor:
        """``count`` images."""
        import torch

        s = self.settings
        random = torch.Generator().manual_seed(seed)
        x = torch.randn(count, *self.shape, generator=random).requires_grad_()
        labels = torch.randperm(count, generator=random) % self.count if self.count else None
        optimizer = torch.optim.Adam([x], lr=s.lr, betas=(0.5, 0.9))
        for step in range(s.steps):
            for group in optimizer.param_groups:
                group["lr"] = s.lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / s.steps)).item())
            optimizer.zero_grad(set_to_none=True)
            loss = self.loss(x, labels, random)
            (x.grad,) = torch.autograd.grad(loss, [x])
            optimizer.step()
            if self.range is not None:
                with torch.no_grad():
                    x.copy_(x.clamp(*self.range))
            if step % 10 == 9 or step + 1 == s.steps:
                tell(step + 1, float(loss.detach()))
        return x.detach()

    def loss(self, x: Tensor, labels: Tensor | None, random: Any) -> Tensor:
        """L(x) above, of images moved by chance: a scalar."""
        import torch

        s = self.settings
        down, right, mirror = (int(torch.randint(-2, 3, (1,), generator=random)) for _ in range(3))
        seen = torch.roll(x, (down, right), (2, 3))
        results = self.net(seen.flip(3) if mirror > 0 else seen)
        total: Tensor = s.statistics * distance(results[self.outputs :], self.wanted)
        if labels is not None and s.classes:
            total += s.classes * torch.nn.functional.cross_entropy(results[0], labels)
        smooth: Tensor = s.variation * variation(seen) + s.size * seen.norm()
        return total + smooth


def distance(layers: Sequence[Tensor], wanted: Sequence[tuple[Any, ...]]) -> Tensor:
    """sum over layers of || mean - m || + || var - v ||, mean and (biased) variance over batch and pixels; a scalar."""
    import torch

    terms = []
    for x, (mean, variance) in zip(layers, wanted, strict=True):
        axes = [d for d in range(x.ndim) if d != 1]
        terms.append((x.mean(axes) - mean).norm() + (x.var(axes, unbiased=False) - variance).norm())
    return torch.stack(terms).sum()


def variation(x: Tensor) -> Tensor:
    """The total variation of images (N, C, H, W): norms of the differences to the right, below and along both diagonals; a scalar."""
    right, below = x[..., :-1] - x[..., 1:], x[..., :-1, :] - x[..., 1:, :]
    falling, rising = x[..., :-1, :-1] - x[..., 1:, 1:], x[..., 1:, :-1] - x[..., :-1, 1:]
    total: Tensor = right.norm() + below.norm() + falling.norm() + rising.norm()
    return total


def _norms(graph: GraphModule) -> list[Node]:
    """The BatchNorm nodes that have running statistics."""
    import torch

    return [
        n
        for n in graph.graph.nodes
        if n.op == "call_function" and n.target is torch.ops.aten.batch_norm.default and weight_of(graph, n.args[3]) is not None
    ]
