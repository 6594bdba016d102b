"""An image from a worse one: super-resolution, denoising, deblurring. The first output is the image, NCHW."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..core.errors import DataError
from ..core.report import Metric
from ..core.verdict import YES, Verdict, no
from .images import Channel, as_shown, check_range, checked, compared, image_figures, inputs_fit, looks, means_of, to_uint8
from .measures.mean import mean_interval
from .task import Given, TaskSettings, Truth, tasks

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ..core.tensor import Signature
    from .judge import Judge
    from .samples import Samples

CHARBONNIER = 1e-3


class RestorationSettings(TaskSettings, frozen=True, kw_only=True):
    """How images are compared.

    Targets lie in [0, 1]; the model's values in [``low``, ``high``] mean the same. ``bits``: outputs are clipped and rounded to so many
    before they are scored, as an app shows them (0: scored as they are). ``channel``: "all", or "y", the luma of BT.601 of RGB images;
    ``shave`` pixels at each edge don't count: super-resolution by a factor s is published with channel=y,shave=s. ``metric``: psnr
    or ssim. ``loss`` trains: charbonnier, l1 or mse.
    """

    channel: Channel = "all"
    shave: int = 0
    bits: int = 8
    low: float = 0.0
    high: float = 1.0
    metric: Literal["psnr", "ssim"] = "psnr"
    loss: Literal["charbonnier", "l1", "mse"] = "charbonnier"

    def __post_init__(self) -> None:
        check_range(self.low, self.high)
        if self.shave < 0 or not 0 <= self.bits <= 16:
            raise ValueError(f"shave={self.shave} must be 0 or more, bits={self.bits} must lie in 0 to 16")


class Restoration:
    """PSNR (or SSIM) of each image, averaged; higher is better."""

    Settings = RestorationSettings
    higher_is_better = True
    truth: Truth = "data"

    def __init__(self, settings: RestorationSettings, given: Given) -> None:
        self.settings, self.name = settings, given.name
        self.judge: Judge | None = given.judge
        self.metric: str = settings.metric
        self.unit = "dB" if settings.metric == "psnr" else ""

    def fits(self, signature: Signature, samples: Samples) -> Verdict:
        output = signature.outputs[0]
        if len(output.shape) != 4:
            return no(f"restoration needs an image (batch, channels, height, width), but the model's first output is {output}")
        inputs, target = samples.batch([0])
        read = inputs_fit(signature, samples, inputs, "{} a sample", "; set --crop or --colour")
        if not read:
            return read
        if target is None:
            return YES
        if target.ndim != 4 or target.dtype.kind != "f":
            return no(
                f"restoration needs images to compare with, but '{samples.source}' has {target.dtype} {list(target.shape)}; give folders "
                "low/ and high/, or --degrade"
            )
        if target.shape[1] != output.shape[1]:
            channels = f"{output.shape[1]} channels but the images of '{samples.source}' have {target.shape[1]}"
            return no(f"the model gives {channels}; set --colour")
        fixed = [a for a in (2, 3) if isinstance(output.shape[a], int) and output.shape[a] != target.shape[a]]
        if fixed:
            gives, wants = ("x".join(map(str, shape[2:])) for shape in (output.shape, target.shape))
            return no(f"the model gives images of {gives}, '{samples.source}' wants {wants}; is the scale of --degrade the model's?")
        return YES

    def loss(self, outputs: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """Mean over all values of sqrt(d^2 + 1e-6) (Charbonnier; Lai et al., 2017, arXiv:1704.03915), |d| or d^2; d = output - target."""
        s = self.settings
        return self._distance(outputs[0], target * (s.high - s.low) + s.low)

    def soft_loss(self, outputs: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], temperature: float) -> torch.Tensor:
        """The same distance to the teacher's image; images have no temperature."""
        return self._distance(outputs[0], teacher[0])

    def score(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> Metric:
        """The mean with Student's 95 % interval over images; ``more``: the means of the other figures, and how they were taken."""
        figures = self.figures(outputs, target)
        own = figures[self.metric]
        means = means_of(figures, self.metric, self.judge)
        s = self.settings
        told = {"channel": s.channel, "shave": s.shave, "bits": s.bits, "data_range": 1.0}
        return Metric(
            name=self.metric,
            value=float(own.mean()),
            n=len(own),
            ci95=mean_interval(own),
            unit=self.unit,
            more={**means, **told, "least": float(own.min())},
        )

    def per_sample(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> NDArray[Any]:
        return self.figures(outputs, target)[self.metric]

    def figures(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """psnr in dB and ssim of each image (ssim only where every image has 11 pixels a side); perceptual with a judge of pairs, which
        sees all channels."""
        images, truths = checked(outputs, target, "restoration")
        s = self.settings
        if any(min(t.shape[-2:]) <= 2 * s.shave for t in truths):
            raise DataError(f"restoration: shave={s.shave} leaves nothing of an image; take less")
        shown = [compared(as_shown(x, s.low, s.high, s.bits), s.channel, s.shave) for x in images]
        figures = image_figures(shown, [compared(t, s.channel, s.shave) for t in truths])
        if self.metric not in figures:
            raise DataError("restoration: ssim needs images of 11 pixels a side or more; score by psnr")
        if self.judge is not None:
            both = [[as_shown(x, s.low, s.high, s.bits) for x in images], list(truths)]
            figures |= looks(self.judge, *([compared(x, "all", s.shave) for x in side] for side in both))
        return dict(sorted(figures.items(), key=lambda f: f[0] != self.metric))

    def answers(self, outputs: Sequence[NDArray[Any]]) -> None:
        return None

    def truths(self, target: NDArray[Any]) -> None:
        return None

    def numbers(self, target: NDArray[Any]) -> NDArray[Any]:
        return target

    def picture(self, value: NDArray[Any], *, truth: bool = False) -> NDArray[np.uint8] | None:
        s = self.settings
        return to_uint8(value if truth else as_shown(value, s.low, s.high, 0))

    def _distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        import torch

        difference = a - b
        if self.settings.loss == "mse":
            return (difference * difference).mean()
        if self.settings.loss == "l1":
            return difference.abs().mean()
        return torch.sqrt(difference * difference + CHARBONNIER**2).mean()


tasks.register("restoration")(Restoration)
