"""What a model is for: how its outputs are trained, scored and read. One file a task; all obey this interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..core.errors import InputError
from ..core.registry import Registry

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ..core.report import Metric
    from ..core.tensor import Signature
    from ..core.verdict import Verdict
    from .samples import Samples


class Task(Protocol):
    """A task.

    ``metric`` names the figure that gates and tables use; ``unit`` is printed behind it ("%" for fractions shown in
    points, "dB"). Outputs are logical arrays (``core.tensor.from_door``), one per model output.
    """

    name: str
    metric: str
    unit: str
    higher_is_better: bool

    def fits(self, signature: Signature, samples: Samples) -> Verdict:
        """Whether this model and these samples can be scored together; the reason where they can't."""

    def loss(self, outputs: Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """The training loss against the ground truth: a scalar."""

    def soft_loss(self, outputs: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], temperature: float) -> torch.Tensor:
        """The distance of a student's outputs to a teacher's: a scalar."""

    def score(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> Metric:
        """The metric of all samples at once, with its 95 % interval and the further figures of the task."""

    def per_sample(self, outputs: Sequence[NDArray[Any]], target: NDArray[Any]) -> NDArray[Any]:
        """One figure a sample (correct or not, dB, edit distance), higher better: what paired tests compare."""

    def answers(self, outputs: Sequence[NDArray[Any]]) -> NDArray[Any] | None:
        """What a user sees of each sample (a label), for counting flips; None where outputs are not discrete."""


tasks: Registry[Task] = Registry("task", InputError)
