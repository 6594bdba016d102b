"""Measures layers and models in the target's runtime, through the exporters and the bench: what pruning to a latency is given.

Every point (layer, channel counts) is exported alone, benched alone on the device that the link reaches, and kept in a file, so that
the next table takes what is there. A table belongs to one device, runtime with its version, precision and number of threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..core.artifact import read_json
from ..core.errors import LacksError, TargetError
from ..core.files import staged_file
from ..core.latency import LatencyTable, Layer, Times
from ..core.progress import Progress, Silent
from .one_layer import axes_of, bundle_of, input_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..compress.passes import Context
    from ..core.artifact import Artifact
    from ..core.bundle import Bundle
    from ..targets.link.link import Link
    from ..targets.target import Runtime, Target
    from ..tasks.samples import Samples

STEPS = (16, 8, 4, 2)
PROBE = 17
ENOUGH = 24  # channels that a layer needs to show the runtime's steps
STAIRS = 0.4
QUICK: dict[str, Any] = {"launches": 1, "rounds": 4, "block_s": 0.02, "budget_s": 1.0, "warm_s": 0.5}
RACE: dict[str, Any] = {"launches": 2, "rounds": 6, "block_s": 0.02, "budget_s": 1.0, "warm_s": 0.5}
WHOLE: dict[str, Any] = {"launches": 3, "budget_s": 5.0, "warm_s": 3.0}


class Points(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What was measured before on this device, by the point's name."""

    schema: int = 1
    seconds: dict[str, float] = {}


@dataclasses.dataclass
class RuntimeClock:
    """A ``core.latency.Clock``. ``calib`` are the samples that whole models are quantized with (layers alone see noise).

    ``cache``: a folder for what was measured; None keeps nothing.
    """

    target: Target
    runtime: Runtime
    link: Link
    precision: str = "fp32"
    threads: int = 1
    calib: Samples | None = None
    cache: Path | None = None
    seed: int = 0
    progress: Progress = dataclasses.field(default_factory=Silent)
    _known: dict[str, float] = dataclasses.field(default_factory=dict)
    _environment: Any = None

    def seconds(self, whole: Bundle) -> float:
        """Median seconds of one inference of the whole, exported in the clock's precision."""
        return self._bench([(whole, self.calib)], [s.numpy() for s in whole.sized(1)], WHOLE)[0]

    def race(self, bundles: Sequence[Bundle]) -> list[float]:
        """Median seconds of one inference of each, on noise of the first one's input shape, interleaved."""
        shape = tuple(bundles[0].sized(1)[0].shape)
        noise = Noise(np.random.default_rng(self.seed + 1).random((8, *shape[1:]), dtype=np.float32))
        named = [(bundle.replace(name=f"racer{i}"), noise) for i, bundle in enumerate(bundles)]
        return self._bench(named, [np.random.default_rng(self.seed).random(shape, dtype=np.float32)], RACE)

    def table(self, layers: Sequence[Layer], whole: Bundle) -> LatencyTable:
        """Quarters of every axis of every different layer."""
        whole_s = self.seconds(whole)
        self._load()
        distinct = {layer.key: layer for layer in layers}
        step = self._step(list(distinct.values()))
        times = {}
        for number, (key, layer) in enumerate(distinct.items()):
            self.progress.step("time layers", number, len(distinct), f"{layer.kind} {layer.sizes}")
            axes = axes_of(layer, step, [size > 1 for size in layer.sizes])
            grid = list(itertools.product(*axes))
            self._measure(layer, grid)
            times[key] = Times(axes=axes, seconds=tuple(self._known[_point(layer, sizes)] for sizes in grid))
        self.progress.step("time layers", len(distinct), len(distinct))
        environment = self._environment
        return LatencyTable(
            runtime=self.runtime.name,
            precision=self.precision,
            threads=self.threads,
            device=self.link.name,
            cpu=environment.cpu if environment else "",
            versions=dict(environment.versions) if environment else {},
            step=step,
            whole_s=whole_s,
            times=times,
        )

    def _step(self, layers: Sequence[Layer]) -> int:
        """Of the dearest wide convolution or linear layer, the widest step within which time goes in stairs."""
        wide = [one for one in layers if one.kind in ("conv", "linear") and one.sizes[0] >= ENOUGH and one.settings.get("groups", 1) == 1]
        if not wide:
            return 1
        layer = max(wide, key=lambda one: float(np.prod(one.sizes)) * float(np.prod([s for s in one.input if s > 0])))
        top = layer.sizes[0] // 16 * 16 if layer.sizes[0] >= 32 else layer.sizes[0]
        sizes = [(count, layer.sizes[1]) for count in range(max(1, top - PROBE + 1), top + 1)]
        self._measure(layer, sizes)
        return step_of([count for count, _ in sizes], [self._known[_point(layer, s)] for s in sizes])

    def _measure(self, layer: Layer, grid: Sequence[tuple[int, ...]]) -> None:
        """Every point of the grid that isn't known; those that read the same input are benched interleaved."""
        missing = [sizes for sizes in grid if _point(layer, sizes) not in self._known]
        for shape in dict.fromkeys(input_shape(layer, sizes) for sizes in missing):
            mine = [sizes for sizes in missing if input_shape(layer, sizes) == shape]
            inputs = [np.random.default_rng(self.seed).random(shape, dtype=np.float32)]
            noise = Noise(np.random.default_rng(self.seed + 1).random((8, *shape[1:]), dtype=np.float32))
            for start in range(0, len(mine), 8):
                some = mine[start : start + 8]
                bundles = [(bundle_of(layer, sizes, f"layer{i}", self.seed), noise) for i, sizes in enumerate(some)]
                for sizes, seconds in zip(some, self._bench(bundles, inputs, QUICK), strict=True):
                    self._known[_point(layer, sizes)] = seconds
            self._save()

    def _bench(self, bundles: Sequence[tuple[Bundle, Any]], inputs: list[NDArray[Any]], how: dict[str, Any]) -> list[float]:
        from ..bench.plan import BenchOptions
        from ..bench.runner import bench_artifacts
        from ..bench.session import Subject

        options = BenchOptions(**how, threads=self.threads, percentile=0.5, confidence=0.95, seed=self.seed)
        with tempfile.TemporaryDirectory(prefix="packlight-clock-") as name:
            folder = Path(name)
            subjects = [Subject(self._export(b, c, folder), folder, self.runtime.name) for b, c in bundles]
            result = bench_artifacts(subjects, self.link, options=options, inputs=inputs)
        found = []
        for measured in result.measurements:
            if measured.latency is None or measured.latency.median_s is None:
                raise TargetError(
                    f"device '{self.link.name}' gives no latency: {measured.why.get('latency', 'unknown')}; use a real device"
                )
            found.append(measured.latency.median_s)
        self._environment = result.environment
        return found

    def _export(self, bundle: Bundle, calib: Samples | None, folder: Path) -> Artifact:
        from ..compress.passes import Context, run_passes
        from ..compress.recipe import make_pass
        from ..export.exporter import Options
        from ..export.run import export_bundle

        steps = ["fold-batchnorm"] + ["quantize"] * (self.precision == "int8")
        if self.precision == "int8" and calib is None:
            raise LacksError("an int8 latency needs images to quantize with; give --calib or --data")
        context = Context(target=self.target, calib=calib, seed=self.seed)
        ready = run_passes(bundle, [make_pass(s, {}) for s in steps], context)
        (made,) = export_bundle(ready, folder, (self.runtime.format,), Options(precision=self.precision), self.target)
        return made

    def _file(self) -> Path | None:
        from ..targets.runtime import versions

        if self.cache is None:
            return None
        here = {"device": self.link.name, "runtime": self.runtime.name, "precision": self.precision, "threads": self.threads}
        told = {**here, "versions": versions(), "scheme": msgspec.to_builtins(self.target.quantization), "cpu": self._environment.cpu}
        digest = hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()[:16]
        return self.cache / f"{self.link.name}-{self.runtime.name}-{self.precision}-{digest}.json".replace(os.sep, "-")

    def _load(self) -> None:
        file = self._file()
        if file is not None and file.is_file():
            self._known = {**read_json(file, Points).seconds, **self._known}

    def _save(self) -> None:
        file = self._file()
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            with staged_file(file, force=True) as staged:
                staged.write_bytes(msgspec.json.encode(Points(seconds=self._known), order="deterministic"))


@dataclasses.dataclass(frozen=True)
class Noise:
    """Unlabelled arrays as samples."""

    rows: Any
    classes: tuple[str, ...] = ()
    source: str = "noise"

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, indices: Sequence[int]) -> tuple[tuple[Any, ...], None]:
        return (self.rows[list(indices)],), None

    def raw(self, index: int) -> None:
        return None


def step_of(counts: Sequence[int], seconds: Sequence[float]) -> int:
    """The widest of 16, 8, 4, 2 within which time goes in stairs; else 1.

    Within a step (a, b], a count c that costs as much as b gives T(b) - T(c) = 0, one on a straight line (T(b) - T(a)) (b - c) / (b - a).
    Stairs are where the sum of the first is at most ``STAIRS`` of the sum of the second.
    """
    known = dict(zip(counts, seconds, strict=True))
    for step in STEPS:
        inside = [(c, end := -(-c // step) * step, end - step) for c in counts if c % step]
        inside = [(c, end, start) for c, end, start in inside if end in known and start in known]
        found = sum(known[end] - known[c] for c, end, _ in inside)
        line = sum((known[end] - known[start]) * (end - c) / step for c, end, start in inside)
        if line > 0 and found <= STAIRS * line:
            return step
    return 1


@contextlib.contextmanager
def open_clock(
    context: Context, *, runtime: str | None = None, precision: str = "fp32", device: str = "local", threads: int = 1
) -> Iterator[RuntimeClock]:
    """A clock on ``device`` for the context's target and calibration data. Raises TargetError where the target has no such runtime."""
    from ..targets.link.known import open_link

    target = context.target
    fitting = [r for r in target.runtimes if precision in r.precisions and runtime in (None, r.name)]
    if not fitting:
        known = ", ".join(sorted({f"{r.name} {p}" for r in target.runtimes for p in r.precisions}))
        asked = f"{runtime or 'a runtime'} in {precision}"
        raise TargetError(f"target '{target.name}' has no {asked}; it has: {known}")
    calib = context.calib or context.train or context.val
    with open_link(device) as link:
        yield RuntimeClock(
            target, fitting[0], link, precision, threads, calib, cache_folder(), seed=context.seed, progress=context.progress
        )


@contextlib.contextmanager
def clocked(context: Context, steps: Sequence[Any], threads: int = 1) -> Iterator[Context]:
    """The context with a clock on this machine in the target's first runtime, where one of the passes ``steps`` measures."""
    if not any(getattr(step, "measures", False) for step in steps):
        yield context
        return
    with open_clock(context, threads=threads) as clock:
        yield dataclasses.replace(context, clock=clock)


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/packlight/latency``, by default under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")) / "packlight" / "latency"


def _point(layer: Layer, sizes: Sequence[int]) -> str:
    """The layer without its full sizes, so that layers of other models are found again."""
    return msgspec.json.encode([layer.kind, layer.input, layer.settings, list(sizes)], order="deterministic").decode()
