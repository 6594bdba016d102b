"""Images from latents. There is no truth in the data: what the uncompressed generator makes of the same latent is what is wanted.

Paired fidelity is the metric: the same latent must give the same image. Whether images *look* real is another question; the Frechet
distance on the features of a classifier that the user gives is told beside it, as an indication (tasks/measures/frechet.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core.report import Metric
from ..core.verdict import Verdict, no
from .images import as_shown, check_range, checked, image_figures, inputs_fit, looks, means_of, to_uint8
from .measures.mean import mean_interval
from .restoration import CHARBONNIER
from .task import Given, TaskSettings, Truth, tasks

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ..core.tensor import Signature
    from .judge import Judge
    from .samples import Samples


class GenerationSettings(TaskSettings, frozen=True, kw_only=True):
    """Pixels lie in [``low``, ``high``] (a generator that ends in tanh: -1 to 1). ``bits``: images are clipped and rounded to so many
    before they are compared, as an app shows them (0: compared as they are)."""

    low: float = -1.0
    high: float = 1.0
    bits: int = 8

    def __post_init__(self) -> None:
        check_range(self.low, self.high)
        if not 0 <= self.bits <= 16:
            raise ValueError(f"bits={self.bits} must lie in 0 to 16")


class Generation:
    """PSNR of each image against the uncompressed generator's, averaged; higher is better. The first output is the image, NCHW."""

    Settings = GenerationSettings
    metric = "psnr"
    unit = "dB"
    higher_is_better = True
    truth: Truth = "model"

    def __init__(self, settings: GenerationSettings, given: Given) -> None:
        self.settings, self.name = settings, given.name
        self.judge: Judge | None = given.judge

    def fits(self, signature: Signature, samples: Samples) -> Verdict:
        output = signature.outputs[0]
        if len(output.shape) != 4:
            return no(f"generation needs an image (batch, channels, height, width), but the model's first output is {output}")
        inputs, _ = samples.batch([0])
        return inputs_fit(signature, samples, inputs, "latents of {}")

    def loss(self, outputs: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """Mean of sqrt(d^2 + 1e-6), d = output - the uncompressed generator's output (Charbonnier)."""
        import torch

        difference = outputs[0] - target
        return torch.sqrt(difference * difference + CHARBONNIER**2).mean()

    def soft_loss(self, outputs: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], temperature: float) -> torch.Tensor:
        return self.loss(outputs, teacher[0])

    def score(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> Metric:
        """Mean PSNR with Student's 95 % interval over latents; ``more``: ssim, and with a judge its distances (indicative)."""
        figures = self.figures(outputs, target)
        own = figures[self.metric]
        more: dict[str, Any] = means_of(figures, self.metric, self.judge)
        more |= {"bits": self.settings.bits, "data_range": 1.0, "least": float(own.min())}
        real = self.judge.real if self.judge is not None else None
        if real is not None:
            more["frechet"] = real.distance([as_shown(x, self.settings.low, self.settings.high, 0) for x in outputs[0]])
            more["frechet_of"] = f"{real.told}, {len(own)} images; indicative, not FID"
        return Metric(name=self.metric, value=float(own.mean()), n=len(own), ci95=mean_interval(own), unit=self.unit, more=more)

    def per_sample(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> NDArray[Any]:
        return self.figures(outputs, target)[self.metric]

    def figures(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """psnr in dB, ssim and, with a judge of pairs, perceptual of each image against the uncompressed generator's."""
        images, truths = checked(outputs, target, "generation")
        s = self.settings
        shown = [[as_shown(x, s.low, s.high, s.bits) for x in side] for side in (images, truths)]
        return image_figures(*shown) | looks(self.judge, *shown)

    def answers(self, outputs: Sequence[NDArray[Any]]) -> None:
        return None

    def truths(self, target: NDArray[Any]) -> None:
        return None

    def numbers(self, target: NDArray[Any]) -> NDArray[Any]:
        return target

    def picture(self, value: NDArray[Any], *, truth: bool = False) -> NDArray[np.uint8] | None:
        return to_uint8(as_shown(value, self.settings.low, self.settings.high, 0))


tasks.register("generation")(Generation)
