"""What the student learns from: the teacher's outputs and layers, asked anew for each batch or kept.

Where augmentations come again (``views``), the outputs for each (view, sample) are computed once. With a work folder they are
also written there, so that a run which goes on, or another run with the same teacher, data and augmentations, needs not ask again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from .augment import Augment
from .checkpoint import fingerprint, load_checkpoint, save_checkpoint
from .device import lay_out
from .modes import twin
from .objective import Layer, SoftLoss

if TYPE_CHECKING:
    from torch import Tensor
    from torch.fx import GraphModule

    from ...tasks.samples import Samples

KEEP_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class Teacher:
    """What the student learns from. ``graph`` gives ``outputs`` outputs; ``taps`` are the nodes of its layers that count.

    ``layers`` are losses between layers, in the order of ``student_taps`` and ``taps``. ``views``: how many different augmentations of
    the data are used in turn; outputs for each are kept. None draws new ones each epoch and asks each time.
    """

    graph: GraphModule
    outputs: int
    alpha: float
    soft: SoftLoss | None
    taps: tuple[str, ...] = ()
    student_taps: tuple[str, ...] = ()
    layers: Sequence[Layer] = ()
    views: int | None = None

    def about(self) -> list[Any]:
        """What a run's course depends on, beside the weights."""
        return [self.alpha, list(self.taps), list(self.student_taps), self.views, [[x.weight, x.until] for x in self.layers]]


class Taught:
    """A teacher at work in one run."""

    def __init__(
        self, teacher: Teacher, train: Samples, plan: Augment, seed: int, work: Path | None, fabric: Any, *, channels_last: bool
    ) -> None:
        import torch

        self.teacher, self.fabric, self.count = teacher, fabric, len(train)
        about = [train.source, len(train), msgspec.to_builtins(plan), seed, channels_last]
        self._key = fingerprint(about, teacher.graph.state_dict())
        self._folder = work
        self._kept: dict[int, tuple[list[Tensor], Tensor]] = {}
        graph = teacher.graph.to(fabric.device)
        if channels_last:
            lay_out(graph, torch.channels_last)
        self._net = twin(graph, training=False, taps=teacher.taps, device=fabric.device)

    def outputs(self, inputs: tuple[Tensor, ...], rows: Tensor, view: int, *, keep: bool) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """(outputs, layers) for a batch of the samples ``rows`` under augmentation ``view``; ``keep`` False where it was mixed."""
        import torch

        keep = keep and self.teacher.views is not None and not self.teacher.taps
        if keep:
            if view not in self._kept:
                self._read(view)
            if view in self._kept:
                stored, have = self._kept[view]
                if bool(have[rows].all()):
                    return tuple(s[rows].to(self.fabric.device) for s in stored), ()
        with torch.no_grad(), self.fabric.autocast():
            results = self._net(*inputs)
        if keep:
            self._store(view, rows, results)
        return tuple(results[: self.teacher.outputs]), tuple(results[self.teacher.outputs :])

    def end_of_epoch(self, view: int) -> None:
        """Writes what was learnt of ``view``."""
        path = self._path(view)
        if path is None or view not in self._kept or self.fabric.global_rank or path.is_file():
            return
        stored, have = self._kept[view]
        save_checkpoint(path, {"outputs": stored, "have": have})

    def _store(self, view: int, rows: Tensor, results: Sequence[Tensor]) -> None:
        import torch

        if any(len(r) != len(rows) for r in results):
            return  # an output without a row for each sample
        if view not in self._kept:
            size = sum(r[0].numel() for r in results) * 4 * self.count * (self.teacher.views or 1)
            if size > KEEP_BYTES:
                return
            self._kept[view] = [torch.zeros(self.count, *r.shape[1:]) for r in results], torch.zeros(self.count, dtype=torch.bool)
        stored, have = self._kept[view]
        for place, result in zip(stored, results, strict=True):
            place[rows] = result.detach().float().cpu()
        have[rows] = True

    def _read(self, view: int) -> None:
        path = self._path(view)
        state = load_checkpoint(path) if path is not None else None
        if state is not None:
            self._kept[view] = state["outputs"], state["have"]

    def _path(self, view: int) -> Path | None:
        return None if self._folder is None else self._folder / f"teacher-{self._key}-{view}.pt"
