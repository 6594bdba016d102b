"""Training batches: read ahead, augmented on uint8, normalised in torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from .augment import Augment, Draws, draw, erase, recolour, shift_flip, zoom

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from ...core.preprocess import Preprocess
    from ...tasks.samples import Samples

T = TypeVar("T")
R = TypeVar("R")

KEEP_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class Batch:
    """``inputs`` as the model reads them, ``target`` (None where unlabelled), and which ``rows`` of the split they are."""

    inputs: tuple[Tensor, ...]
    target: Tensor | None
    rows: Tensor


class Feed:
    """Batches of one split. ``batch(rows, view)`` depends on its arguments and the seed alone.

    Image samples that offer ``pixels`` are kept decoded (up to 1 GiB), augmented on uint8 and normalised in torch:
    ``x / (255 std) - mean / std``. Other inputs are read as they are; those of image shape are augmented in float.
    """

    def __init__(self, samples: Samples, plan: Augment, seed: int, device: torch.device, *, channels_last: bool) -> None:
        self.samples, self.plan, self.seed, self.device, self.channels_last = samples, plan, seed, device, channels_last
        spec: Preprocess | None = getattr(samples, "spec", None)
        self._spec = spec if spec is not None and hasattr(samples, "pixels") else None
        self._kept: NDArray[np.uint8] | None = None
        self._have: NDArray[np.bool_] | None = None
        self._targets = _numeric(getattr(samples, "targets", None))
        self._draws: dict[int, Draws] = {}

    def order(self, epoch: int, size: int) -> list[NDArray[np.intp]]:
        """The rows of each batch of an epoch: a permutation, cut into batches of ``size``; a rest is left out for once."""
        import numpy as np

        count = len(self.samples)
        shuffled = np.random.default_rng((self.seed, 77, epoch)).permutation(count)
        size = min(size, count)
        return [shuffled[start : start + size] for start in range(0, count - size + 1, size)]

    def batch(self, rows: NDArray[np.intp], view: int, *, augment: bool = True) -> Batch:
        """The samples ``rows``, augmented as epoch ``view`` wants it."""
        import torch

        index = torch.from_numpy(rows)
        draws = self._drawn(view) if augment and self.plan.any else None
        if self._spec is not None:
            pixels = torch.from_numpy(self._pixels(rows))
            if draws is not None and (self.plan.shift or self.plan.flip):
                pixels = shift_flip(pixels, self.plan, draws, index)
            inputs: tuple[Tensor, ...] = (self._normalise(pixels.permute(0, 3, 1, 2)),)
            target = self._targets[rows] if self._targets is not None else self.samples.batch(rows.tolist())[1]
        else:
            arrays, target = self.samples.batch(rows.tolist())
            inputs = tuple(torch.from_numpy(a) for a in arrays)
            if draws is not None and len(inputs) == 1 and inputs[0].ndim == 4 and (self.plan.shift or self.plan.flip):
                inputs = (shift_flip(inputs[0].permute(0, 2, 3, 1), self.plan, draws, index).permute(0, 3, 1, 2),)
        if draws is not None and self.plan.zoom < 1 and inputs[0].ndim == 4:
            inputs = (zoom(inputs[0], draws, index), *inputs[1:])
        if draws is not None and self.plan.colour and inputs[0].ndim == 4:
            inputs = (recolour(inputs[0], self.plan, draws, index), *inputs[1:])
        if draws is not None and self.plan.erase and inputs[0].ndim == 4:
            inputs = (erase(inputs[0], self.plan, draws, index), *inputs[1:])
        label = None if target is None else torch.from_numpy(target).to(self.device)
        return Batch(tuple(self._placed(x) for x in inputs), label, index)

    def _placed(self, x: Tensor) -> Tensor:
        import torch

        last = self.channels_last and x.ndim == 4
        return x.to(self.device, memory_format=torch.channels_last if last else torch.contiguous_format)

    def _normalise(self, pixels: Tensor) -> Tensor:
        import torch

        assert self._spec is not None
        channels = pixels.shape[1]
        std = torch.tensor(self._spec.std or (1.0,) * channels).reshape(-1, 1, 1)
        mean = torch.tensor(self._spec.mean or (0.0,) * channels).reshape(-1, 1, 1)
        return pixels.float().mul_(1 / (255 * std)).sub_(mean / std)

    def _pixels(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Decoded images, from memory where they were kept."""
        import numpy as np

        if self._have is not None and self._kept is not None:
            new = rows[~self._have[rows]]
            if len(new):
                self._kept[new] = self.samples.pixels(new)  # type: ignore[attr-defined]
                self._have[new] = True
            return self._kept[rows]
        pixels: NDArray[np.uint8] = self.samples.pixels(rows)  # type: ignore[attr-defined]
        if self._kept is None and pixels[0].nbytes * len(self.samples) <= KEEP_BYTES:
            self._kept = np.empty((len(self.samples), *pixels.shape[1:]), np.uint8)
            self._have = np.zeros(len(self.samples), bool)
            self._kept[rows], self._have[rows] = pixels, True
        return pixels

    def _drawn(self, view: int) -> Draws:
        if view not in self._draws:
            self._draws = {view: draw(self.plan, len(self.samples), self.seed, view)}
        return self._draws[view]


def ahead(function: Callable[[T], R], items: Iterable[T], depth: int = 2) -> Iterator[R]:
    """``map(function, items)`` with ``depth`` results made ahead by one thread, in order."""
    from collections import deque
    from concurrent.futures import Future, ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _numeric(targets: Any) -> Any:
    return targets if targets is not None and targets.dtype.kind in "iuf" else None
