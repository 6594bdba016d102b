"""What a benchmark will do, decided before the clock starts: how many runs, in which order, for how long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from ..core.errors import InputError
from ..core.registry import unknown
from .stats import runs_needed


class BenchOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The user's wishes.

    ``percentile`` and ``confidence`` set the least number of runs; ``runs`` overrides it. ``launches`` is how often each file is
    loaded by a fresh process, because where memory happens to lie makes one process up to a percent faster than the next;
    ``rounds`` is the number of interleaved blocks in each. ``block_s`` is how long one file keeps the device before the next has
    its turn; ``budget_s`` bounds the timed part of each file. ``batch`` is the rows of one timed inference (files with a fixed
    batch keep theirs). ``affinity`` pins the process to these cores. ``warm_s`` bounds the warm-up of each launch; the first
    ``settle_s`` seconds of each turn refill the caches and are not counted. ``score_threads`` is for accuracy, which is not timed
    (None: all cores). ``answer_s`` is how long the device may keep silent, ``wait_s`` how long to wait for another bench there to end.
    """

    threads: int = 1
    percentile: float = 0.9
    confidence: float = 0.99
    runs: int | None = None
    launches: int = 6
    rounds: int = 4
    block_s: float = 0.05
    budget_s: float = 30.0
    batch: int = 1
    affinity: tuple[int, ...] | None = None
    warm_s: float = 10.0
    settle_s: float = 0.005
    seed: int = 0
    answer_s: float = 600.0
    wait_s: float = 600.0
    score_threads: int | None = None

    def __post_init__(self) -> None:
        for name, ok, what in (
            ("threads", self.threads >= 1, "one or more"),
            ("percentile", 0 < self.percentile < 1, "between 0 and 1"),
            ("confidence", 0 < self.confidence < 1, "between 0 and 1"),
            ("runs", self.runs is None or self.runs >= 1, "one or more"),
            ("launches", self.launches >= 1, "one or more"),
            ("rounds", self.rounds >= 1, "one or more"),
            ("batch", self.batch >= 1, "one or more"),
            ("budget_s", self.budget_s > 0, "above 0"),
        ):
            if not ok:
                raise InputError(f"bench setting {name} is {getattr(self, name)}; it must be {what}")

    def required(self) -> int:
        """The runs that the percentile asked for needs, or the number the user gave."""
        return self.runs if self.runs is not None else runs_needed(self.percentile, self.confidence)


SCENARIOS = {
    "single-stream": {"batch": 1, "percentile": 0.90},
    "multi-stream": {"batch": 8, "percentile": 0.99},
}
"""MLPerf's meanings (Inference rules, "Scenarios"): one sample after the other, judged by the 90th percentile; queries of eight samples,
judged by the 99th. Its early stopping is the order statistic of ``stats.percentile``. The offline scenario is offline.py."""


def scenario(name: str, **fields: Any) -> BenchOptions:
    """The options of a scenario; ``fields`` override."""
    if name not in SCENARIOS:
        raise InputError(unknown("scenario", name, [*SCENARIOS, "offline"]))
    return BenchOptions(**{**SCENARIOS[name], **fields})


class Turns(msgspec.Struct, frozen=True):
    """Block sizes per file and, for each launch, the order in which the files take their turns, round by round."""

    runs: tuple[int, ...]
    launches: tuple[tuple[tuple[int, ...], ...], ...]


def turns(options: BenchOptions, typical_s: Sequence[float]) -> Turns:
    """Fits the wishes to what the files cost (``typical_s``: seconds of one inference of each, from the warm-up).

    Each round gives every file one block; the order within a round is shuffled (seeded), so no file always runs after the
    same neighbour. A block has as many runs as fit in ``block_s``, three at least. Where the slowest file doesn't fit its budget,
    rounds are dropped, down to one a launch; a file that then has fewer runs than required is judged inconclusive.
    """
    afford = [max(1, int(options.budget_s / max(s, 1e-9))) for s in typical_s]
    rounds = max(1, min(options.rounds, min(afford) // options.launches))
    blocks = options.launches * rounds
    runs = []
    for seconds, most in zip(typical_s, afford, strict=True):
        wanted = options.required()
        if options.runs is None:
            wanted = max(wanted, blocks * _block(options, seconds))
        runs.append(max(1, math.ceil(min(wanted, most) / blocks)))
    rng = np.random.default_rng(options.seed)
    order = [tuple(tuple(int(i) for i in rng.permutation(len(runs))) for _ in range(rounds)) for _ in range(options.launches)]
    return Turns(tuple(runs), tuple(order))


def _block(options: BenchOptions, seconds: float) -> int:
    return int(min(max(3, math.ceil(options.block_s / max(seconds, 1e-9))), 50))
