"""What a model is for: how its outputs are trained, scored and read. One file a task; all obey this interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from ..core.errors import InputError
from ..core.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ..core.report import Metric
    from ..core.tensor import Signature
    from ..core.verdict import Verdict
    from .samples import Samples

Truth = Literal["data", "model"]


class Task(Protocol):
    """A task.

    ``name`` is how it is called, with its settings ("restoration:channel=y,shave=4"): ``load_task(task.name)`` gives it again. ``metric``
    names the figure that gates and tables use; ``unit`` is printed behind it ("%" for fractions shown in points, "dB"). ``truth`` says
    what targets are: the data's ("data"), or what the uncompressed model gives for the same input ("model").

    Outputs are logical arrays (``core.tensor.from_door``), one per model output, rows (samples) first. Where samples differ in size, an
    output or target is an object array (N,) of one array a sample; ``x[i]`` is sample i either way.
    """

    name: str
    metric: str
    unit: str
    higher_is_better: bool
    truth: Truth

    def fits(self, signature: Signature, samples: Samples) -> Verdict:
        """Whether this model and these samples can be scored together; the reason where they can't."""

    def loss(self, outputs: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """The training loss against the ground truth (as ``numbers`` gives it): a scalar."""

    def soft_loss(self, outputs: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], temperature: float) -> torch.Tensor:
        """The distance of a student's outputs to a teacher's: a scalar."""

    def score(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> Metric:
        """The metric of all samples at once, with its 95 % interval and the further figures of the task."""

    def per_sample(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> NDArray[Any]:
        """One figure a sample (correct or not, dB, edit distance), higher better: what paired tests compare."""

    def figures(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """All figures that the task has of each sample, by name, higher better; the first is ``per_sample``."""

    def answers(self, outputs: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
        """What the model says of each sample (a label, a text), for counting flips; None where outputs are not discrete."""

    def truths(self, target: NDArray[Any]) -> NDArray[Any] | None:
        """The answers that would be right, in the form of ``answers``; None where that is None."""

    def numbers(self, target: NDArray[Any]) -> NDArray[Any]:
        """Targets as numbers that torch can hold, for ``loss``; ``score`` takes them too."""

    def picture(self, value: NDArray[Any], *, truth: bool = False) -> NDArray[np.uint8] | None:
        """One row of the first output (or one target, where it is the ``truth``) as an image (H, W, C); None where it is none."""


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What a task is made with beside its settings. ``labels`` name the model's classes (for text, the characters); ``name`` is the text
    that asked for it; ``judge`` is a classifier that looks at generated images."""

    name: str
    labels: tuple[str, ...] = ()
    judge: Any = None


class TaskSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of a task, as its name carries them; subclasses add typed fields with defaults."""


class Kind(Protocol):
    """How a task is registered: the type of its settings and what makes the task from them."""

    @property
    def Settings(self) -> type[TaskSettings]:
        """What the settings are read into."""

    def __call__(self, settings: Any, given: Given) -> Task: ...


tasks: Registry[Kind] = Registry("task", InputError)
