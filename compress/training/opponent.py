"""A discriminator that is trained together with a generator, in turn: the generator's step first, then its own on the same images.

It sees the images that the generator gave before its step, and real ones. Its weights, its BatchNorm's statistics and its optimizer are
part of the run's checkpoint; under several processes its gradients are averaged as the generator's are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .modes import twin

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule

Scores = Sequence["Tensor"]
BETAS = (0.5, 0.999)
"""Adam's decay rates, as in DCGAN (Radford et al., 2015, arXiv:1511.06434, section 4)."""


@dataclasses.dataclass(frozen=True)
class Against:
    """What the generator is trained against.

    ``graph`` (a free copy, trained in place) maps images to scores, whose mean counts where there are many. ``generator`` gives the
    generator's loss from the scores of its images, ``own`` the discriminator's from those of real ones and of generated ones. ``real``
    chooses the real images from (target, the teacher's outputs). ``weight`` stands before the generator's loss; ``lr`` is Adam's peak rate.
    """

    graph: GraphModule
    generator: Callable[[Scores], Tensor]
    own: Callable[[Scores, Scores], Tensor]
    real: Callable[[Tensor | None, Sequence[Tensor] | None], Tensor]
    weight: float
    lr: float
    told: tuple[Any, ...]

    def about(self) -> list[Any]:
        """What a run's course depends on, beside the weights."""
        return [self.weight, self.lr, *self.told]


class Opponent:
    """The discriminator at work in one run."""

    def __init__(self, against: Against, fabric: Any) -> None:
        import torch

        self.against, self.fabric = against, fabric
        graph = against.graph.to(fabric.device)
        net = twin(graph, training=True, device=fabric.device)
        self._net = net

        class Duel(torch.nn.Module):
            """Both halves in one forward, since a wrapped module may be called once for each backward."""

            def __init__(self) -> None:
                super().__init__()
                self.net = net

            def forward(self, real: Tensor, made: Tensor) -> Tensor:
                return against.own(self.net(real), self.net(made)).float()

        self.plain = Duel()
        self.parameters = [p for p in self.plain.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=against.lr, betas=BETAS)
        self._module, self._wrapped = fabric.setup(self.plain, self.optimizer, move_to_device=False)

    def minds(self, images: Tensor) -> Tensor:
        """The generator's loss for its ``images``, times the weight: a scalar whose gradient goes to the images alone."""
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        try:
            scores = self._net(images)
        finally:
            for parameter in self.parameters:
                parameter.requires_grad_(True)
        return self.against.weight * self.against.generator(scores).float()

    def begin(self, factor: float) -> None:
        """Before the batches of a step; ``factor`` is what the peak rate is multiplied with."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.against.lr * factor
        self._wrapped.zero_grad(set_to_none=True)

    def learn(self, made: Tensor, target: Tensor | None, taught: Sequence[Tensor] | None, batches: int, *, sync: bool) -> float:
        """Gradients from one of the step's ``batches``: the ``made`` images (detached) and the real ones; its own loss."""
        real = self.against.real(target, taught).detach()
        with self.fabric.no_backward_sync(self._module, enabled=not sync):
            loss = self._module(real, made)
            self.fabric.backward(loss / batches)
        return float(loss.detach())

    def step(self) -> None:
        self._wrapped.step()

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"net": self.plain.state_dict(), "optimizer": self.optimizer.state_dict()}

    def put(self, state: dict[str, Any]) -> None:
        """Goes on from a checkpoint's ``state``."""
        own = self.plain.state_dict()
        for name, value in state["net"].items():
            own[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
