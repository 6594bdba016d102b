"""A case is one call of an operator with concrete arguments; ``CASES`` has a generator for each row of the table.

A seed gives a case, always the same: (row, number) -> seed.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """``call(*args)``; arguments at the places in ``moving`` (tensors, or lists of them) are inputs of the file, other tensors constants.

    ``weight`` = (place, axis): the argument that has int8 weights, one scale along the axis, in the integer form; ``bias`` is the place of
    a float32 one. ``steps``: how many steps of the output the integer form may be away (one where one rounding decides). ``permuted``: the
    inputs come through a permutation, so that they lie in memory in an unusual order. ``outputs``: only so many of them are read.
    """

    call: Any
    args: tuple[Any, ...]
    moving: tuple[int, ...] = (0,)
    rtol: float = 2e-5
    weight: tuple[int, int] | None = None
    steps: float = 1.0
    permuted: int | None = None
    outputs: int | None = None
    row: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        return str(self.call)


class Bound:
    """An overload with keyword arguments bound: called and named as the overload is."""

    def __init__(self, overload: Any, **keywords: Any) -> None:
        self.overload, self.keywords, self._schema = overload, keywords, overload._schema

    def __call__(self, *args: Any) -> Any:
        return self.overload(*args, **self.keywords)

    def __str__(self) -> str:
        return str(self.overload)


class Draw:
    """Random things of one seed."""

    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)
        self.g = torch.Generator().manual_seed(seed)

    def int(self, low: int, high: int) -> int:
        return self.r.randint(low, high)

    def ints(self, count: int, low: int, high: int) -> list[int]:
        return [self.r.randint(low, high) for _ in range(count)]

    def coin(self, chance: float = 0.5) -> bool:
        return self.r.random() < chance

    def one(self, options: Sequence[Any]) -> Any:
        return self.r.choice(list(options))

    def some(self, options: Sequence[Any], least: int = 1) -> list[Any]:
        return self.r.sample(list(options), self.int(least, len(options)))

    def real(self, low: float, high: float) -> float:
        return round(self.r.uniform(low, high), 3)

    def shape(self, least: int = 1, most: int = 4, low: int = 1, high: int = 5) -> list[int]:
        return self.ints(self.int(least, most), low, high)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.g)

    def like(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self.g)

    def positive(self, shape: Sequence[int]) -> Tensor:
        return self.like(shape).abs() + 0.3

    def whole(self, shape: Sequence[int], low: int = -9, high: int = 9, dtype: Any = torch.int64) -> Tensor:
        return torch.randint(low, high + 1, tuple(shape), generator=self.g).to(dtype)

    def image(self, channels: int | None = None, low: int = 1, high: int = 11, batch: int | None = None) -> Tensor:
        n = batch or self.one([1, 1, 2, 3])
        return self.normal(n, channels or self.int(1, 6), self.int(low, high), self.int(low, high))

    def apart(self, shape: Sequence[int]) -> Tensor:
        """Numbers no two of which are equal or near, for what picks one of them."""
        count = 1
        for side in shape:
            count *= side
        return (torch.randperm(count, generator=self.g).float() / max(count, 1) * 4 - 2).reshape(tuple(shape))


Maker = Callable[[Draw], Case]
CASES: dict[str, Maker] = {}


def row(*names: str) -> Callable[[Any], Any]:
    """Files a generator; with several names it is given the name too."""

    def file(make: Any) -> Any:
        for name in names:
            CASES[name] = make if len(names) == 1 else (lambda d, n=name: make(d, n))
        return make

    return file


def cases(name: str, count: int, seed: int = 0) -> Iterator[Case]:
    """The first ``count`` cases of a row. Every third one of those whose inputs have two axes or more comes permuted."""
    import dataclasses

    for number in range(count):
        own = zlib.crc32(f"{seed}/{name}/{number}".encode())
        made = CASES[name](Draw(own))
        yield dataclasses.replace(made, row=name, seed=own, permuted=own if number % 3 == 2 else None)


from . import elements, layers, moves, reductions  # noqa: E402, F401  each files its generators
