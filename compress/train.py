"""The training engine: one loop for fine-tuning, distillation and training with fake quantization, on Lightning Fabric.

Every random draw is made from (seed, epoch) or (seed, step), never from a running state, so that a run which is killed and
started again from its checkpoint takes the same steps and ends with the same weights. The weights that scored best on the
validation data are kept; what came in counts as epoch 0, so training never ends worse on it than it began.

Under ``torchrun`` every process takes its part of each batch and gradients are averaged; the first one scores, decides and writes.

Not for: training from a script with its own loop, or a search over settings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.errors import RecipeError
from ..core.progress import Progress, Silent
from .training.augment import Augment, mix
from .training.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from .training.device import lay_out, make_fabric, make_optimizer, peak_bytes, takes_channels_last
from .training.feed import Batch, Feed, ahead
from .training.log import write_csv, write_tensorboard
from .training.modes import twin
from .training.objective import objective, soft_loss
from .training.opponent import Against, Opponent
from .training.past import Past
from .training.rider import Rider
from .training.schedule import Budget, factor
from .training.settings import TrainSettings
from .training.taught import Taught, Teacher
from .training.timing import Timing

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.fx import GraphModule

    from ..tasks.samples import Samples
    from ..tasks.task import Task

CHECKPOINT_SECONDS = 120.0


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
    own_past: float = 0.0,
    seed: int = 0,
    work: Path | None = None,
    label: str = "train",
    progress: Progress | None = None,
    began: float | None = None,
    riders: Sequence[Rider] = (),
    keep_last: bool = False,
    against: Against | None = None,
) -> Trained:
    """Trains ``graph`` (a free copy, in inference mode) in place; its weights end as the best on ``val``, or the last without one or with
    ``keep_last``. ``riders`` change gradients and weights around each step (training/rider.py).

    ``outputs`` is the number of tensors that it returns. With ``work`` a checkpoint is kept there every two minutes and at the end
    of each epoch, and a run with the same settings, data and weights goes on from it. ``began`` (``time.monotonic()``) is when the time
    limit started to count, if before the call. ``own_past``: without a teacher, the weight at the end of the run of what the network said
    an epoch ago (``training/past.py``). ``against``: a discriminator that is trained along (``training/opponent.py``). A loss that is not
    finite raises RecipeError.
    """
    import torch

    run = _Run(
        graph,
        outputs,
        settings,
        task,
        train,
        val,
        plan,
        teacher,
        own_past,
        seed,
        work,
        label,
        progress or Silent(),
        began,
        riders,
        keep_last,
        against,
    )

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
        own_past: float,
        seed: int,
        work: Path | None,
        label: str,
        progress: Progress,
        began: float | None,
        riders: Sequence[Rider],
        keep_last: bool,
        against: Against | None,
    ) -> None:
        import torch

        self.began = time.monotonic() if began is None else began
        self.graph, self.settings, self.task, self.teacher, self.seed = graph, settings, task, teacher, seed
        self.label, self.val = label, val
        self.riders, self.keep_last, self.against = tuple(riders), keep_last, against
        self.own_past = own_past if teacher is None else 0.0
        self.key = self._key(train, plan)
        self.fabric = make_fabric(settings)
        self.progress = Silent() if self.fabric.global_rank else progress
        self.device: torch.device = self.fabric.device
        graph.to(self.device)
        self.channels_last = takes_channels_last(graph, train, self.device)
        if self.channels_last:
            lay_out(graph, torch.channels_last)
        taps = teacher.student_taps if teacher else ()
        self.eval_net = twin(graph, training=False, device=self.device)
        self.feed = Feed(train, plan, seed, self.device, channels_last=self.channels_last)
        self.val_feed = Feed(val, Augment(), seed, self.device, channels_last=self.channels_last) if val is not None else None
        self.opponent = Opponent(against, self.fabric) if against is not None else None
        module = objective(
            twin(graph, training=True, taps=taps, device=self.device),
            outputs,
            task,
            alpha=teacher.alpha if teacher else self.own_past,
            soft=teacher.soft if teacher else soft_loss(task, 1.0) if self.own_past else None,
            smoothing=settings.label_smoothing,
            layers=teacher.layers if teacher else (),
            rising=self.own_past > 0,
            opponent=self.opponent.minds if self.opponent is not None else None,
        ).to(self.device)
        self.plain: Any = module
        self.optimizer = make_optimizer(graph, module, settings)
        for rider in self.riders:
            rider.board(graph)
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
        self.timing = Timing()
        self.past = Past(graph, outputs, self.device) if self.own_past else None
        self.taught = (
            Taught(teacher, train, plan, seed, work, self.fabric, channels_last=self.channels_last) if teacher is not None else None
        )

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
                for group in groups:
                    self._step(loader, view, len(group))
                    if time.monotonic() - last_save > CHECKPOINT_SECONDS:
                        self._save()
                        last_save = time.monotonic()
                    if self.budget.over:
                        break
            stop = self._end_of_epoch(epoch + 1)
            last_save = time.monotonic()
        return self._finish()

    def _step(self, loader: Iterator[Batch], view: int, batches: int) -> None:
        import torch

        settings, started = self.settings, time.monotonic()
        share = factor(self.budget.progress, settings.schedule, settings.warmup)
        rate = settings.lr * share
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed((self.seed * 1_000_003 + self.budget.done * 64 + self.fabric.global_rank) % 2**63)
        self.wrapped.zero_grad(set_to_none=True)
        if self.opponent is not None:
            self.opponent.begin(share)
        count = 0
        for part in range(batches):
            batch = next(loader)
            mixed = (self.seed, 78, self.budget.done, part, self.fabric.global_rank)
            first, pairing = mix(batch.inputs[0], settings.mixup, settings.cutmix, mixed)
            inputs = (first, *batch.inputs[1:])
            taught: Any = None
            layers: tuple[Tensor, ...] = ()
            if self.taught is not None:
                taught, layers = self.taught.outputs(inputs, batch.rows, view, keep=pairing is None)
            elif self.past is not None:
                taught = self.past.says(inputs)
            with self.fabric.no_backward_sync(self.module, enabled=part + 1 < batches):
                loss, parts = self.module(inputs, batch.target, pairing, taught, layers, self.budget.progress)
                self.fabric.backward(loss / batches)
            value = float(loss.detach())
            if not math.isfinite(value):
                told = f"training diverged at step {self.budget.done + 1}: the loss is {value} at rate {rate:.3g}"
                raise RecipeError(f"{told}; lower lr (now {settings.lr:g}) or set clip")
            if self.opponent is not None:
                target = batch.target if pairing is None else None
                own = self.opponent.learn(self.plain.shown, target, taught, batches, sync=part + 1 == batches)
                parts = {**parts, "discriminator": own}
            for name, figure in {"loss": loss.detach(), **parts}.items():
                self.sums[name] = self.sums.get(name, 0.0) + float(figure)
            self.sums["n"] = self.sums.get("n", 0.0) + 1
            count += len(batch.rows)
        for rider in self.riders:
            self.sums[rider.name] = self.sums.get(rider.name, 0.0) + batches * float(rider.before_step(self.budget.progress))
        if settings.clip:
            self.fabric.clip_gradients(self.module, self.wrapped, max_norm=settings.clip)
        self.wrapped.step()
        if self.opponent is not None:
            self.opponent.step()
        for rider in self.riders:
            rider.after_step()
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
        if self.past is not None:
            self.past.remember(self._state())
        self._plan()
        self._save()
        self._log()
        if self.taught is not None:
            self.taught.end_of_epoch(self._view(epoch - 1))
        told = "" if score is None else f"  {self.task.metric} {score:.4f} on validation"
        self.progress.say(f"  epoch {epoch}: loss {row['loss']:.4f}{told}  ({self.timing.rate:.0f} images/s)")
        return bool(self.settings.patience) and score is not None and epoch - self.best[0] >= self.settings.patience

    def _is_better(self, score: float | None) -> bool:
        best = self.best[1]
        if score is None or best is None or self.keep_last:
            return True
        return score >= best if self.task.higher_is_better else score <= best

    def _finish(self) -> Trained:
        import torch

        if self.best[2]:
            self._put(self.best[2])
        self.graph.to(device="cpu")
        lay_out(self.graph, torch.contiguous_format)
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
            peak_bytes=peak_bytes(self.device),
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
        value = self.task.score([np.concatenate(column) for column in zip(*outputs, strict=True)], np.concatenate(targets)).value
        return float(self._agreed(value))

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
        if self.budget.seconds is not None:
            self.budget.total = self._agreed(self.budget.total)

    def _agreed(self, value: Any) -> Any:
        """The first process's value, in every process."""
        return self.fabric.broadcast(value) if self.fabric.world_size > 1 else value

    def _spent(self) -> float:
        return self.spent_before + time.monotonic() - self.began

    def _view(self, epoch: int) -> int:
        views = self.teacher.views if self.teacher else None
        return epoch % views if views else epoch

    def _share(self, group: Sequence[Any]) -> list[Any]:
        """Each process's part of every batch."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        return [rows[rank::world] for rows in group] if world > 1 else list(group)

    def _key(self, train: Samples, plan: Augment) -> str:
        """Names the run, from everything that its course depends on."""
        about = [msgspec.to_builtins(self.settings), self.seed, self.label, len(train), train.source, msgspec.to_builtins(plan)]
        about += self.teacher.about() if self.teacher else []
        about += [[rider.about() for rider in self.riders], self.keep_last] if self.riders or self.keep_last else []
        about += [self.own_past] if self.own_past else []
        about += [self.against.about()] if self.against else []
        states = [part.graph.state_dict() for part in (self, self.teacher, self.against) if part is not None]
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
            "past": self.past.state() if self.past is not None else {},
            "opponent": self.opponent.state() if self.opponent is not None else {},
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
        if self.past is not None and state["past"]:
            self.past.remember(state["past"])
        if self.opponent is not None:
            self.opponent.put(state["opponent"])
        self.budget = Budget(self.budget.planned, self.budget.seconds, done=state["step"], progress=state["progress"])
        self.resumed_at = state["step"]
        self.progress.say(f"  {self.label} goes on from step {state['step']} of its checkpoint")
        return True

    def _log(self) -> None:
        if self.work is None or self.fabric.global_rank:
            return
        write_csv(self.work / f"{self.label}-{self.key}.csv", self.rows)
        write_tensorboard(self.work / f"{self.label}-{self.key}", self.rows[-1])
