"""What a pass runs in, for tests: a target and a few samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from packlight.compress.passes import Context
from packlight.targets.scheme import Scheme
from packlight.targets.target import Device, Target


class Arrays:
    """Unlabelled (or labelled) samples held in memory."""

    classes: tuple[str, ...] = ()
    source = "memory"

    def __init__(self, *inputs: NDArray[Any], target: NDArray[Any] | None = None) -> None:
        self.inputs, self.target = inputs, target

    def __len__(self) -> int:
        return len(self.inputs[0])

    def batch(self, indices: Sequence[int]) -> tuple[tuple[NDArray[Any], ...], NDArray[Any] | None]:
        rows = list(indices)
        return tuple(x[rows] for x in self.inputs), None if self.target is None else self.target[rows]

    def raw(self, index: int) -> None:
        return None


@pytest.fixture(scope="session")
def arrays() -> type[Arrays]:
    return Arrays


@pytest.fixture(scope="session")
def avx2() -> Callable[..., Context]:
    """``avx2(weight_max=63, **context)``: a Context for a CPU without VNNI, where weights keep to 7 bits."""

    def make(weight_max: int = 63, per_channel: bool = True, **fields: Any) -> Context:
        target = Target(
            name="test-avx2",
            title="x86-64 without VNNI",
            device=Device(machine="x86_64", cpu="any", isa=("avx2",), cores=2, ram_bytes=1 << 32),
            quantization=Scheme(weight_max=weight_max, per_channel=per_channel, reason="u8 x s8 sums saturate at 16 bits"),
            runtimes=(),
            links=("local",),
        )
        return Context(target=target, **fields)

    return make


@pytest.fixture(scope="session")
def noise() -> Callable[..., Arrays]:
    """``noise(*shape, seed=0)``: normal samples, float32, one input; the first axis counts them."""

    def make(*shape: int, seed: int = 0) -> Arrays:
        return Arrays(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))

    return make
