"""The training engine: one loop for fine-tuning, distillation and training with fake quantization, on Lightning Fabric.

Every random draw is made from (seed, epoch) or (seed, step), never from a running state, so that a run which is killed and
started again from its checkpoint takes the same steps and ends with the same weights. The weights that scored best on the
validation data are kept; what came in counts as epoch 0, so training never ends worse on it than it began.

Not for: training from a script with its own loop, or a search over settings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from ..core.errors import RecipeError, require
from ..core.progress import Progress, Silent
from .augment import Augment, mix
from .checkpoint import fingerprint, load_checkpoint, save_checkpoint
from .feed import Batch, Feed, ahead
from .modes import twin, undecayed
from .objective import Layer, SoftLoss, objective
from .passes import Settings
from .schedule import Budget, Shape, factor

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.fx import GraphModule

    from ..tasks.samples import Samples
    from ..tasks.task import Task

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]

CHECKPOINT_SECONDS = 120.0


class TrainSettings(Settings, frozen=True, kw_only=True):
    """How a network is trained.

    ``epochs``, but at least ``min-steps`` steps (small data sets), and at most ``max-minutes``: the schedule then ends
    early, in time. ``lr`` is the peak rate, reached after the ``warmup`` share of the run, then following ``schedule``. Scales
    and biases have no ``weight-decay``. ``ema`` is the decay of a moving average of the weights, which is then what is validated
    and kept (0: none). ``augment``: a share of "shift", "flip", "zoom" in one word ("shift-flip"), "none", or "auto" (see
    ``compress.finetune``). ``patience``: stop after so many epochs without a better validation score (0: never).
    ``accumulate``: batches per step. ``device``: "auto" takes a GPU where there is one.
    """

    epochs: NotNegative = 10
    min_steps: Annotated[int, msgspec.Meta(ge=0)] = 0
    max_minutes: Positive | None = None
    batch_size: Count = 128
    accumulate: Count = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.03
    momentum: Share = 0.9
    weight_decay: NotNegative = 1e-4
    schedule: Shape = "cosine"
    warmup: Share = 0.05
    clip: NotNegative = 0.0
    label_smoothing: Share = 0.0
    ema: Share = 0.0
    augment: str = "auto"
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    patience: Annotated[int, msgspec.Meta(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"


@dataclasses.dataclass(frozen=True)
class Teacher:
    """What the student learns from. ``graph`` gives outputs and then ``taps``; ``outputs`` is the number of outputs.

    ``layers`` are losses between layers, in the order of ``student_taps`` and ``taps``.
    ``views``: how many different augmentations of the data are used in turn; its outputs for each are computed once and kept.
    None draws a new one each epoch and computes them each time.
    """

    graph: GraphModule
    outputs: int
    alpha: float
    soft: SoftLoss | None
    taps: tuple[str, ...] = ()
    student_taps: tuple[str, ...] = ()
    layers: Sequence[Layer] = ()
    views: int | None = None


@dataclasses.dataclass(frozen=True)
class Trained:
    """How it went. ``rows`` has one dict an epoch (epoch, step, lr, loss, its parts, score, seconds); ``best_epoch`` 0 is what came in."""

    rows: tuple[dict[str, Any], ...]
    steps: int
    planned_steps: int
    best_epoch: int
    best_score: float | None
    before_score: float | None
    images_per_second: float
    seconds: float
    peak_bytes: int
    resumed_at: int

    def changes(self) -> dict[str, Any]:
        """For the history: JSON types only."""
        told: dict[str, Any] = {
            "steps": self.steps,
            "epochs": len(self.rows),
            "best-epoch": self.best_epoch,
            "validation": [self.before_score, self.best_score],
            "loss": [self.rows[0]["loss"], self.rows[-1]["loss"]] if self.rows else [],
            "images-per-second": round(self.images_per_second, 1),
            "peak-bytes": self.peak_bytes,
        }
        if self.steps < self.planned_steps:
            told["cut"] = f"{self.steps} of {self.planned_steps} planned steps fitted into the time; another run may fit a different number"
        return told


def fit(
    graph: GraphModule,
    outputs: int,
    settings: TrainSettings,
    task: Task,
    train: Samples,
    val: Samples | None,
    *,
    plan: Augment,
    teacher: Teacher | None = None,
    seed: int = 0,
    work: Path | None = None,
    label: str = "train",
    progress: Progress | None = None,
    began: float | None = None,
) -> Trained:
    """Trains ``graph`` (a free copy, in inference mode) in place; its weights end as the best on ``val``, or the last without one.

    ``outputs`` is the number of tensors that it returns. With ``work`` a checkpoint is kept there every two minutes and at the end
    of each epoch, and a run with the same settings, data and weights goes on from it. ``began`` (``time.monotonic()``) is when the time
    limit started to count, if before the call. A loss that is not finite raises RecipeError.
    """
    import torch

    run = _Run(graph, outputs, settings, task, train, val, plan, teacher, seed, work, label, progress or Silent(), began)

    with torch.random.fork_rng(devices=[] if run.device.type == "cpu" else None):
        return run.go()


class _Run:
    """One call of ``fit``: what lives between its steps."""

    def __init__(
        self,
        graph: GraphModule,
        outputs: int,
        settings: TrainSettings,
        task: Task,
        train: Samples,
        val: Samples | None,
        plan: Augment,
        teacher: Teacher | None,
        seed: int,
        work: Path | None,
        label: str,
        progress: Progress,
        began: float | None,
    ) -> None:
        import torch

        self.began = time.monotonic() if began is None else began
        self.graph, self.settings, self.task, self.teacher, self.seed = graph, settings, task, teacher, seed
        self.label, self.progress, self.val = label, progress, val
        self.key = self._key(train, plan)
        self.fabric = make_fabric(settings)
        self.device: torch.device = self.fabric.device
        graph.to(self.device)
        self.channels_last = _takes_channels_last(graph, train, self.device)
        if self.channels_last:
            _lay_out(graph, torch.channels_last)
        taps = teacher.student_taps if teacher else ()
        self.eval_net = twin(graph, training=False, device=self.device)
        self.feed = Feed(train, plan, seed, self.device, channels_last=self.channels_last)
        self.val_feed = Feed(val, Augment(), seed, self.device, channels_last=self.channels_last) if val is not None else None
        self.teacher_net = self._teacher_net()
        module = objective(
            twin(graph, training=True, taps=taps, device=self.device),
            outputs,
            task,
            alpha=teacher.alpha if teacher else 0.0,
            soft=teacher.soft if teacher else None,
            smoothing=settings.label_smoothing,
            layers=teacher.layers if teacher else (),
        ).to(self.device)
        self.plain = module
        self.optimizer = _optimizer(graph, module, settings)
        self.module, self.wrapped = self.fabric.setup(module, self.optimizer, move_to_device=False)
        self.work = work
        self.checkpoint = work / f"{label}-{self.key}.pt" if work is not None else None
        self.per_epoch = max(1, len(train) // min(settings.batch_size, len(train)) // settings.accumulate)
        planned = max(round(settings.epochs * self.per_epoch), settings.min_steps)
        self.budget = Budget(planned, settings.max_minutes * 60 if settings.max_minutes else None)
        self.rows: list[dict[str, Any]] = []
        self.sums: dict[str, float] = {}
        self.before: float | None = None
        self.best: tuple[int, float | None, dict[str, Tensor]] = (0, None, {})
        self.ema: dict[str, Tensor] = {}
        self.spent_before = 0.0
        self.resumed_at = 0
        self.timing = _Timing()
        self.cache = _Cache(self)

    def go(self) -> Trained:
        """The loop."""
        settings = self.settings
        if not self._resume():
            self.before = self._score()
            self.best = (0, self.before, self._state())
            if settings.ema:
                self.ema = self._state()
        last_save = time.monotonic()
        stop = False
        while not self.budget.over and not stop:
            epoch, at = divmod(self.budget.done, self.per_epoch)
            batches = self.feed.order(epoch, settings.batch_size)[: self.per_epoch * settings.accumulate]
            groups = [batches[i : i + settings.accumulate] for i in range(0, len(batches), settings.accumulate)][at:]
            view = self._view(epoch)
            flat = [rows for group in groups for rows in self._share(group)]
            loader = ahead(lambda rows, view=view: self.feed.batch(rows, view), flat)  # type: ignore[misc]
            with contextlib.closing(loader):  # type: ignore[type-var]
                for _ in groups:
                    self._step(loader, view)
                    if time.monotonic() - last_save > CHECKPOINT_SECONDS:
                        self._save()
                        last_save = time.monotonic()
                    if self.budget.over:
                        break
            stop = self._end_of_epoch(epoch + 1)
            last_save = time.monotonic()
        return self._finish()

    def _step(self, loader: Iterator[Batch], view: int) -> None:
        import torch

        settings, started = self.settings, time.monotonic()
        rate = settings.lr * factor(self.budget.progress, settings.schedule, settings.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed((self.seed * 1_000_003 + self.budget.done * 64 + self.fabric.global_rank) % 2**63)
        self.wrapped.zero_grad(set_to_none=True)
        count = 0
        for part in range(settings.accumulate):
            batch = next(loader)
            mixed = (self.seed, 78, self.budget.done, part, self.fabric.global_rank)
            first, pairing = mix(batch.inputs[0], settings.mixup, settings.cutmix, mixed)
            inputs = (first, *batch.inputs[1:])
            taught, layers = self.cache.outputs(inputs, batch.rows, view, kept=pairing is None)
            with self.fabric.no_backward_sync(self.module, enabled=part + 1 < settings.accumulate):
                loss, parts = self.module(inputs, batch.target, pairing, taught, layers, self.budget.progress)
                self.fabric.backward(loss / settings.accumulate)
            value = float(loss.detach())
            if not math.isfinite(value):
                told = f"training diverged at step {self.budget.done + 1}: the loss is {value} at rate {rate:.3g}"
                raise RecipeError(f"{told}; lower lr (now {settings.lr:g}) or set clip")
            for name, figure in {"loss": loss.detach(), **parts}.items():
                self.sums[name] = self.sums.get(name, 0.0) + float(figure)
            self.sums["n"] = self.sums.get("n", 0.0) + 1
            count += len(batch.rows)
        if settings.clip:
            self.fabric.clip_gradients(self.module, self.wrapped, max_norm=settings.clip)
        self.wrapped.step()
        self.budget.step()
        if self.ema:
            self._average()
        self.timing.step(time.monotonic() - started, count * self.fabric.world_size)
        if self.budget.done % 10 == 0 or self.budget.over:
            self._plan()
            loss_now = self.sums["loss"] / self.sums["n"]
            best = "" if self.best[1] is None else f"best {self.best[1]:.4f}  "
            note = f"loss {loss_now:.3f}  {best}{self.timing.rate:.0f} images/s"
            self.progress.step(self.label, self.budget.done, self.budget.total, note)

    def _end_of_epoch(self, epoch: int) -> bool:
        """Scores, keeps the best, writes the checkpoint and the log; whether to stop."""
        score = self._score()
        count = max(self.sums.pop("n", 1.0), 1.0)
        row = {"epoch": epoch, "step": self.budget.done, "lr": self.optimizer.param_groups[0]["lr"]}
        row |= {name: value / count for name, value in self.sums.items()}
        row |= {"score": score, "seconds": round(self._spent(), 2), "images-per-second": round(self.timing.rate, 1)}
        self.rows.append(row)
        self.sums = {}
        if self._is_better(score):
            self.best = (epoch, score, self._state(averaged=True))
        self._plan()
        self._save()
        self._log()
        told = "" if score is None else f"  {self.task.metric} {score:.4f} on validation"
        self.progress.say(f"  epoch {epoch}: loss {row['loss']:.4f}{told}  ({self.timing.rate:.0f} images/s)")
        return bool(self.settings.patience) and score is not None and epoch - self.best[0] >= self.settings.patience

    def _is_better(self, score: float | None) -> bool:
        best = self.best[1]
        if score is None or best is None:
            return True
        return score >= best if self.task.higher_is_better else score <= best

    def _finish(self) -> Trained:
        import torch

        if self.best[2]:
            self._put(self.best[2])
        self.graph.to(device="cpu")
        _lay_out(self.graph, torch.contiguous_format)
        for parameter in self.graph.parameters():
            parameter.grad = None
        best = self.best
        self.progress.step(self.label, 1, 1)
        return Trained(
            rows=tuple(self.rows),
            steps=self.budget.done,
            planned_steps=self.budget.planned,
            best_epoch=best[0],
            best_score=best[1],
            before_score=self.before,
            images_per_second=self.timing.rate,
            seconds=self._spent(),
            peak_bytes=_peak_bytes(self.device),
            resumed_at=self.resumed_at,
        )

    def _score(self) -> float | None:
        """The task's metric on the validation data, of the averaged weights where there are some."""
        import numpy as np
        import torch

        if self.val_feed is None or self.val is None:
            return None
        started = time.monotonic()
        current = self._state() if self.ema else None
        if current is not None:
            self._put(self.ema)
        outputs: list[list[Any]] = []
        targets = []
        count, size = len(self.val), 256
        with torch.no_grad(), self.fabric.autocast():
            rows = [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
            for batch in ahead(lambda r: self.val_feed.batch(r, 0, augment=False), rows):  # type: ignore[union-attr]
                outputs.append([o.float().cpu().numpy() for o in self.eval_net(*batch.inputs)])
                if batch.target is None:
                    return None
                targets.append(batch.target.cpu().numpy())
        if current is not None:
            self._put(current)
        self.timing.validation = time.monotonic() - started
        return self.task.score([np.concatenate(column) for column in zip(*outputs, strict=True)], np.concatenate(targets)).value

    def _average(self) -> None:
        """EMA with the decay rising from 0.1: min(decay, (1 + t) / (10 + t))."""
        import torch

        decay = min(self.settings.ema, (1 + self.budget.done) / (10 + self.budget.done))
        with torch.no_grad():
            for name, value in self.graph.state_dict().items():
                if value.is_floating_point():
                    self.ema[name].lerp_(value, 1 - decay)
                else:
                    self.ema[name].copy_(value)

    def _state(self, averaged: bool = False) -> dict[str, Tensor]:
        if averaged and self.ema:
            return {k: v.clone() for k, v in self.ema.items()}
        return {k: v.detach().clone() for k, v in self.graph.state_dict().items()}

    def _put(self, state: dict[str, Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, value in self.graph.state_dict().items():
                value.copy_(state[name])

    def _plan(self) -> None:
        left = max(self.budget.total - self.budget.done, 0) / self.per_epoch
        each = self.timing.validation
        self.budget.measure(self._spent(), self.timing.per_step + each / self.per_epoch, min(1.0, left) * each if left < 1 else 0.0)

    def _spent(self) -> float:
        return self.spent_before + time.monotonic() - self.began

    def _view(self, epoch: int) -> int:
        views = self.teacher.views if self.teacher else None
        return epoch % views if views else epoch

    def _share(self, group: Sequence[Any]) -> list[Any]:
        """Each process's part of every batch."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        return [rows[rank::world] for rows in group] if world > 1 else list(group)

    def _teacher_net(self) -> GraphModule | None:
        import torch

        if self.teacher is None:
            return None
        graph = self.teacher.graph.to(self.device)
        if self.channels_last:
            _lay_out(graph, torch.channels_last)
        return twin(graph, training=False, taps=self.teacher.taps, device=self.device)

    def _key(self, train: Samples, plan: Augment) -> str:
        """Names the run, from everything that its course depends on."""
        teacher = self.teacher
        about = [msgspec.to_builtins(self.settings), self.seed, self.label, len(train), train.source, msgspec.to_builtins(plan)]
        about += [teacher.alpha, list(teacher.taps), list(teacher.student_taps), teacher.views] if teacher else []
        about += [[layer.weight, layer.until] for layer in teacher.layers] if teacher else []
        states = [self.graph.state_dict()] + ([teacher.graph.state_dict()] if teacher else [])
        return fingerprint(about, *states)

    def _save(self) -> None:
        if self.checkpoint is None or self.fabric.global_rank:
            return
        state = {
            "key": self.key,
            "module": self.plain.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
            "best": list(self.best),
            "before": self.before,
            "rows": self.rows,
            "sums": self.sums,
            "step": self.budget.done,
            "progress": self.budget.progress,
            "spent": self._spent(),
        }
        save_checkpoint(self.checkpoint, state)

    def _resume(self) -> bool:
        state = load_checkpoint(self.checkpoint) if self.checkpoint is not None else None
        if state is None or state.get("key") != self.key:
            return False
        own = self.plain.state_dict()
        for name, value in state["module"].items():
            own[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = {k: v.to(self.device) for k, v in state["ema"].items()}
        epoch, score, weights = state["best"]
        self.best = (epoch, score, {k: v.to(self.device) for k, v in weights.items()})
        self.before, self.rows, self.sums = state["before"], state["rows"], state["sums"]
        self.spent_before = state["spent"]
        self.budget = Budget(self.budget.planned, self.budget.seconds, done=state["step"], progress=state["progress"])
        self.resumed_at = state["step"]
        self.progress.say(f"  {self.label} goes on from step {state['step']} of its checkpoint")
        return True

    def _log(self) -> None:
        """metrics.csv beside the checkpoint, written anew each time so that a resumed run's log has no gap and no double."""
        import csv
        import io

        if self.work is None or self.fabric.global_rank:
            return
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(self.rows)
        path = self.work / f"{self.label}-{self.key}.csv"
        stage = path.with_suffix(".part")
        stage.write_text(text.getvalue())
        os.replace(stage, path)


class _Timing:
    """Seconds of recent steps, so that a plan follows a machine that becomes slower or faster."""

    def __init__(self) -> None:
        self.recent: list[tuple[float, int]] = []
        self.validation = 0.0

    def step(self, seconds: float, images: int) -> None:
        self.recent = [*self.recent[-49:], (seconds, images)]

    @property
    def per_step(self) -> float:
        """The mean of the last 50 steps, the first ones left out while there are others (they warm up)."""
        kept = self.recent[2:] or self.recent
        return sum(s for s, _ in kept) / len(kept) if kept else 0.0

    @property
    def rate(self) -> float:
        """Images a second."""
        kept = self.recent[2:] or self.recent
        seconds = sum(s for s, _ in kept)
        return sum(n for _, n in kept) / seconds if seconds else 0.0


class _Cache:
    """The teacher's outputs: computed for each batch, or kept for each (view, sample) where views come again."""

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.kept: dict[int, tuple[list[Tensor], Tensor]] = {}

    def outputs(
        self, inputs: tuple[Tensor, ...], rows: Tensor, view: int, *, kept: bool
    ) -> tuple[tuple[Tensor, ...] | None, tuple[Tensor, ...]]:
        """(outputs, layers) of the teacher for a batch; (None, ()) without a teacher."""
        teacher = self.run.teacher
        if teacher is None:
            return None, ()
        keep = kept and teacher.views is not None and not teacher.taps
        if keep and view in self.kept:
            stored, have = self.kept[view]
            if bool(have[rows].all()):
                return tuple(s[rows].to(self.run.device) for s in stored), ()
        results = self._compute(inputs)
        if keep:
            self._store(view, rows, results)
        return tuple(results[: teacher.outputs]), tuple(results[teacher.outputs :])

    def _compute(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        import torch

        net = self.run.teacher_net
        assert net is not None
        with torch.no_grad(), self.run.fabric.autocast():
            return tuple(net(*inputs))

    def _store(self, view: int, rows: Tensor, results: Sequence[Tensor]) -> None:
        import torch

        count = len(self.run.feed.samples)
        if any(len(r) != len(rows) for r in results):
            return  # an output without a row for each sample
        if view not in self.kept:
            self.kept[view] = [torch.zeros(count, *r.shape[1:]) for r in results], torch.zeros(count, dtype=torch.bool)
        stored, have = self.kept[view]
        for place, result in zip(stored, results, strict=True):
            place[rows] = result.detach().float().cpu()
        have[rows] = True


def make_fabric(settings: TrainSettings) -> Any:
    """One device, or, where ``torchrun`` started several processes, one a process with gradients averaged."""
    import torch

    lightning = require("lightning_fabric", "train")
    cuda = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("device 'cuda' was asked for, but torch finds no GPU here; use device = \"auto\"")
    precision = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed" if cuda else "bf16-mixed"}[settings.precision]
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    spread = {"strategy": "ddp", "num_nodes": max(1, world // local)} if world > 1 else {}
    fabric = lightning.Fabric(accelerator="cuda" if cuda else "cpu", devices=local, precision=precision, **spread)
    if world > 1:
        fabric.launch()
    return fabric


def _optimizer(graph: GraphModule, module: torch.nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    import torch

    decayed, plain = undecayed(graph)
    known = {id(p) for p in (*decayed, *plain)}
    adapters = [p for p in module.parameters() if id(p) not in known and p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [*decayed, *adapters], "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [g for g in groups if g["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.999))
    nesterov = settings.momentum > 0
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=nesterov)


def _takes_channels_last(graph: GraphModule, train: Samples, device: torch.device) -> bool:
    """Whether the graph runs with its images and weights channels-last (a ``view`` in it may need the plain order)."""
    import torch

    arrays, _ = train.batch([0, min(1, len(train) - 1)])
    if not any(a.ndim == 4 for a in arrays):
        return False
    inputs = [torch.from_numpy(a).to(device) for a in arrays]
    inputs = [x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs]
    try:
        with torch.no_grad():
            twin(graph, training=False, device=device)(*inputs)
    except RuntimeError:
        return False
    return True


def _lay_out(graph: GraphModule, memory_format: torch.memory_format) -> None:
    """Puts the weights with four axes into this order in memory; the tensors stay the ones they are."""
    for value in (*graph.parameters(), *graph.buffers()):
        if value.ndim == 4:
            value.data = value.data.contiguous(memory_format=memory_format)


def _peak_bytes(device: torch.device) -> int:
    import resource
    import sys

    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
