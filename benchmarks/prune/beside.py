"""What the pruning tables share: the truth that ours is held to, a fair run of torch-pruning, and speed as a ratio of two files.

The truth is the dense model with every slice that was taken away set to zero (``masked``, in the tests); for outputs a and b of the pruned
and the masked model the error is rms(a - b) / rms(b), the worst output.

torch-pruning runs as its README says: ``BasePruner`` with its group magnitude, example inputs of one sample (in a tuple: a tensor it
would first try as ``model(*tensor)``), and the last layers ignored ("DO NOT prune the final classifier"): those that no other
convolution or linear layer follows on the way to an output. ``pruning_ratio`` is a share of channels, so the shares of ``RATIOS`` are
tried in turn on a fresh module until no more work than asked for is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "tests" / "compress" / "prune")]

import torch
from conftest import MaskedNorms, masked
from torch import Tensor, nn

from packlight.compress.prune.plan import Plan
from packlight.core.bundle import Bundle, flatten_outputs
from packlight.targets.runtime import open_session

EXACT = 1e-3
RATIOS = (1 - 0.5**0.5, 0.4, 0.5, 0.6)
PAIRS = 15


def apart(pruned: Bundle, dense: Bundle, made: Plan) -> float:
    """The relative error of the pruned graph against the masked dense one, the worst output."""
    large = MaskedNorms(masked(dense, made.coupling, made.removed), dense, made.coupling, made.removed)
    with torch.no_grad():
        return worst(pruned.run(*dense.samples), flatten_outputs(large.run(*dense.samples)))


def worst(found: Sequence[Tensor], told: Sequence[Tensor]) -> float:
    """See above."""
    errors = [0.0]
    for a, b in zip(found, told, strict=True):
        if a.shape != b.shape or not bool(a.isfinite().all()):
            return float("inf")
        size = float(b.double().square().mean().sqrt())
        errors.append(float((a.double() - b.double()).square().mean().sqrt()) / size if size else 0.0)
    return max(errors)


def flops(module: Callable[..., Any], examples: Sequence[Tensor]) -> int:
    """Multiply-accumulates, by torch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*examples)
    return int(counter.get_total_flops()) // 2


def last_layers(module: nn.Module, examples: Sequence[Tensor]) -> list[nn.Module]:
    """The convolutions and linear layers that no other follows on the way to an output."""
    ran: dict[Any, nn.Module] = {}

    def record(layer: nn.Module, _: Any, y: Tensor) -> None:
        ran[y.grad_fn] = layer

    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    hooks = [m.register_forward_hook(record) for m in module.modules() if isinstance(m, kinds)]
    ways = [y.grad_fn for y in flatten_outputs(module(*examples))]
    for hook in hooks:
        hook.remove()
    found: dict[nn.Module, None] = {}
    seen = set(ways)
    while ways:
        step = ways.pop()
        if step in ran:
            found[ran[step]] = None
        elif step is not None:
            ways += [before for before, _ in step.next_functions if before not in seen]
            seen.update(before for before, _ in step.next_functions)
    return list(found)


class Beaten(Exception):
    """torch-pruning ran, and what it left is no model of the kind asked for."""


def torch_pruning(
    make: Callable[[], nn.Module],
    examples: tuple[Tensor, ...],
    left: Callable[[nn.Module], float],
    share: float,
    ratios: Sequence[float] = RATIOS,
) -> dict[str, Any]:
    """torch-pruning on ``make()`` until ``left(module)`` is at most ``share``: the module, its CPU seconds, what is left, the ratio asked.

    Raises what torch-pruning raises; Beaten where outputs change their shape, or too much is left.
    """
    import torch_pruning as tp

    one = tuple(x[:1] for x in examples)
    least: tuple[float, float] = (1.0, 0.0)
    for ratio in ratios:
        module = make()
        shapes = [tuple(t.shape) for t in flatten_outputs(module(*one))]
        ignored = last_layers(module, one)
        began = time.process_time()
        tp.pruner.BasePruner(
            module, one, importance=tp.importance.GroupMagnitudeImportance(p=2), pruning_ratio=ratio, ignored_layers=ignored
        ).step()
        seconds = time.process_time() - began
        with torch.no_grad():
            found = [tuple(t.shape) for t in flatten_outputs(module(*one))]
        if found != shapes:
            raise Beaten(f"the outputs have shape {found}, not {shapes}")
        now = left(module)
        least = min(least, (now, ratio))
        if now <= share:
            return {"module": module, "seconds": seconds, "left": now, "ratio": ratio}
    raise Beaten(f"{least[0]:.2f} of the work is left at a pruning ratio of {least[1]:.2f}")


def write(module: nn.Module, examples: tuple[Tensor, ...], file: Path) -> None:
    """ONNX of a module of anybody's, one sample, that runs: by torch's quick exporter, else by its new one."""
    one = tuple(x[:1] for x in examples)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            torch.onnx.export(module, one, str(file), dynamo=False, opset_version=17)
            open_session(file, "onnxruntime").run(*(x.numpy() for x in one))
        except Exception:
            torch.onnx.export(module, one, str(file), dynamo=True, external_data=False, verbose=False)


def ratio(dense: Path, pruned: Path, runtime: str, feeds: Sequence[Any], pairs: int = PAIRS) -> float:
    """Median over ``pairs`` of the time of ``dense`` / that of ``pruned``, run in turn after two runs unmeasured, one thread."""
    sessions = [open_session(f, runtime) for f in (dense, pruned)]
    found = []
    with undisturbed():
        for _ in range(pairs + 2):
            times = []
            for session in sessions:
                began = time.perf_counter()
                session.run(*feeds)
                times.append(time.perf_counter() - began)
            found.append(times[0] / times[1])
    return round(statistics.median(found[2:]), 2)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """At real-time priority where that is allowed; where TIMING_LOCK names a file, alone among those who lock it."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    with open(os.environ.get("TIMING_LOCK", os.devnull), "a") as lock:
        if lock.name != os.devnull:
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            with contextlib.suppress(PermissionError):
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
            yield
        finally:
            os.sched_setscheduler(0, *before)
