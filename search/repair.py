"""Repair of a quantized model until its metric holds in the runtimes: the deeds behind ladder.py.

Every candidate is quantized, exported in every format of the job, proven, and run on the *validation* samples in each runtime that is
installed here; the test samples are left for the report. With a work folder every outcome is kept there, so that a run which was
stopped goes on where it was.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..core.bundle import Bundle
from ..core.errors import ContractError, DataError, ParityError, RecipeError
from ..core.files import storage_errors
from ..core.history import Step
from ..core.progress import Progress, Silent
from .formats import folded, integer_precision, subjects_here
from .judge import drop
from .ladder import Candidate, Climbed, Outcome, OutOfTime, Tried, climb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..bench.plan import BenchOptions
    from ..compress.passes import Context
    from ..compress.quantize.blame import Blamed
    from ..core.report import Metric
    from ..targets.target import Target
    from ..tasks.samples import Samples
    from ..tasks.task import Task

SAMPLES = 2000
BLAMED_ON = 64


@dataclasses.dataclass(frozen=True)
class Repair:
    """What to hold. ``limit``: points of the metric that the worst runtime may lose against ``reference``, the model as it came."""

    limit: float
    minutes: float
    formats: tuple[str, ...]
    reference: Bundle
    bench: BenchOptions


def repair(before: Bundle, settings: dict[str, Any], want: Repair, context: Context) -> tuple[Bundle | None, Climbed | None, str]:
    """The repaired bundle, made from the float ``before``, how it came about, and "" or the reason why nothing was repaired (then both are
    None). ``settings`` are the recipe's of "quantize"."""
    why = _refusal(before, want, context)
    if why:
        return None, None, why
    run = _Repair(before, want, context)
    if drop(run.metric, run.float_metric()) > want.limit:
        lost = drop(run.metric, run.float_metric())
        return None, None, f"the float model that is quantized loses {lost:.2f} itself; quantizing it otherwise can't hold {want.limit:g}"
    start = Candidate(equalize=False, settings=dict(settings))
    climbed = climb(start, run.measure, run.worst, want.limit, run.tell, not_wide(want.formats, context.target))
    if climbed.outcome.drop is None:
        raise RecipeError(f"no quantized file could be made: {climbed.outcome.why}")
    after = run.quantized(climbed.candidate)
    record = Step(
        name="repair",
        settings={"max-drop": want.limit, "minutes": want.minutes},
        changes={
            "held": climbed.held,
            "why": climbed.why,
            "validation-drop": climbed.outcome.drop,
            "samples": run.count,
            "chosen": msgspec.to_builtins(climbed.candidate),
            "tried": msgspec.to_builtins(climbed.log),
        },
        seed=context.seed,
        seconds=round(time.monotonic() - run.began, 3),
    )
    return after.replace(history=(*after.history, record)), climbed, ""


def not_wide(formats: Sequence[str], target: Target) -> str:
    """Why a model for ``formats`` can't have 16-bit activations, "" where it can: every file has the same quantization."""
    without = [f for f in formats if not target.runtimes_for(f, "int16")]
    if not without:
        return ""
    if len(without) == len(formats):
        return f"no runtime of '{target.name}' computes them in {', '.join(without)}"
    return f"{', '.join(without)} have no kernels for them, and all files have one quantization; --format tflite alone can"


def _refusal(before: Bundle, want: Repair, context: Context) -> str:
    from ..targets.runtime import installed
    from ..tasks.samples import gather_targets

    if context.val is None or not len(context.val) or gather_targets(context.val) is None:
        return "repair chooses by labelled validation samples, and there are none; give --val"
    runtimes = [r.name for f in want.formats for r in context.target.runtimes_for(f, "int8")]
    if not any(installed(r) for r in runtimes):
        return f"none of the runtimes ({', '.join(dict.fromkeys(runtimes))}) is installed here"
    return ""


class _Repair:
    """One repair: the float model, the validation samples, and what was measured."""

    def __init__(self, before: Bundle, want: Repair, context: Context) -> None:
        from ..tasks.evaluate import outputs_of

        assert context.val is not None
        assert context.task is not None
        self.began = time.monotonic()
        self.before, self.want, self.context = before, want, context
        self.task: Task = context.task
        self.val: Samples = context.val
        self.count = min(SAMPLES, len(self.val))
        self.progress: Progress = context.progress
        outputs, targets = outputs_of(want.reference, self.val, limit=self.count)
        assert targets is not None
        self.targets: NDArray[Any] = targets
        self.outputs = outputs
        self.metric: Metric = self.task.score(outputs, targets)
        self.answers = self.task.answers(outputs)
        self.floating = folded(before, context)
        self._quantized: tuple[Candidate, Bundle] | None = None
        self._bases: dict[bool, Bundle] = {False: before}
        self.journal = None if context.work is None else context.work / f"repair-{self._key()}.jsonl"
        self.known = _read(self.journal)
        self.measured = 0

    def float_metric(self) -> Metric:
        from ..tasks.evaluate import outputs_of

        if self.before is self.want.reference:
            return self.metric
        outputs, _ = outputs_of(self.before, self.val, limit=self.count)
        return self.task.score(outputs, self.targets)

    def quantized(self, candidate: Candidate) -> Bundle:
        """The candidate's integer model."""
        from ..compress.passes import run_passes
        from ..compress.recipe import make_pass

        if self._quantized is None or self._quantized[0] != candidate:
            quiet = dataclasses.replace(self.context, progress=_Steps(self.progress))
            if candidate.equalize not in self._bases:
                self._bases[True] = run_passes(self.before, [make_pass("equalize", {})], quiet)
            base = self._bases[candidate.equalize]
            self._quantized = candidate, run_passes(base, [make_pass("quantize", candidate.settings)], quiet)
        return self._quantized[1]

    def measure(self, candidate: Candidate) -> Outcome:
        key = msgspec.json.encode(candidate, order="deterministic").decode()
        if key in self.known:
            return self.known[key]
        if self.measured and time.monotonic() - self.began > 60 * self.want.minutes:
            raise OutOfTime
        started = time.monotonic()
        try:
            outcome = self._measure(candidate)
        except (ParityError, ContractError, RecipeError) as error:
            outcome = Outcome(drop=None, why=str(error))
        outcome = msgspec.structs.replace(outcome, seconds=round(time.monotonic() - started, 2))
        self.known[key] = outcome
        self.measured += 1
        if self.journal is not None:
            with storage_errors(self.journal.parent):
                self.journal.parent.mkdir(parents=True, exist_ok=True)
                with self.journal.open("ab") as file:
                    file.write(msgspec.json.encode({"candidate": key, "outcome": outcome}) + b"\n")
        return outcome

    def _measure(self, candidate: Candidate) -> Outcome:
        from ..bench.accuracy import score_artifacts
        from ..export.exporter import Options
        from ..export.run import export_bundle
        from ..targets.link.local import Local

        integer = self.quantized(candidate)
        target = self.context.target
        with tempfile.TemporaryDirectory(prefix="packlight-repair-") as name, Local() as link:
            folder = Path(name)
            options = Options(precision=integer_precision(integer))
            artifacts = export_bundle(integer, folder, self.want.formats, options, target, self.val, float_bundle=self.floating)
            subjects = [s for a in artifacts for s in subjects_here(a, folder, target, baseline=False)]
            scores = score_artifacts(
                subjects, link, samples=self.val, task=self.task, options=self.want.bench, limit=self.count, keep_outputs=True
            )
        worst, lost = scores[0], float("-inf")
        if all(score.metric is None for score in scores):
            raise DataError(f"no file can be judged on '{self.val.source}': {scores[0].why}")
        for score in scores:
            if score.metric is not None and drop(self.metric, score.metric) > lost:
                worst, lost = score, drop(self.metric, score.metric)
        return Outcome(
            drop=round(lost, 6),
            runtime=worst.runtime,
            changed=self._changed(worst.answers),
            sqnr_db=_sqnr(self.outputs, worst.outputs),
            ms={s.runtime: round(1e3 * s.seconds / max(s.n, 1), 4) for s in scores},
        )

    def _changed(self, answers: Any) -> float | None:
        if answers is None or self.answers is None:
            return None
        different = np.asarray(answers) != np.asarray(self.answers)
        return round(float(different.reshape(len(different), -1).any(1).mean()), 6)

    def worst(self, candidate: Candidate) -> list[str]:
        """The integer layers, worst first."""
        self.progress.say("  which layer does the damage: each quantized alone")
        after = self.quantized(candidate)
        found = blamed(self._bases[candidate.equalize], after, self.context)
        return list(dict.fromkeys(b.layer for b in found))

    def tell(self, tried: Tried) -> None:
        if tried.drop is None:
            self.progress.say(f"  {tried.step}: {tried.why}")
            return
        bought = "" if tried.bought is None else f", {tried.bought:+.2f} bought"
        self.progress.say(f"  {tried.step}: {tried.drop:.2f} lost in {tried.runtime}{bought}{' (kept)' if tried.kept else ''}")

    def _key(self) -> str:
        from ..compress.training.checkpoint import fingerprint

        scheme = msgspec.to_builtins(self.context.target.quantization)
        about = [scheme, list(self.want.formats), self.context.seed, self.count, self.val.source]
        return fingerprint(about, self.before.graph.state_dict())


def blamed(before: Bundle, after: Bundle, context: Context, samples: int = BLAMED_ON) -> tuple[Blamed, ...]:
    """The integer layers of ``after``, worst first, on calibration data (see compress/quantize/blame.py)."""
    from ..compress.quantize.blame import blame
    from ..compress.quantize.samples import batches_of, calibration_data, draw

    data = calibration_data(context)
    assert data is not None
    answers: Callable[..., Any] | None = None if context.task is None else context.task.answers
    return blame(before, after, batches_of(data, draw(samples, len(data), context.seed), before), answers)


def _sqnr(reference: Sequence[Any], outputs: Sequence[Any]) -> float | None:
    signal = noise = 0.0
    for r, v in zip(reference, outputs, strict=True):
        if r.dtype == object or r.shape != v.shape:
            return None
        r = r.astype(np.float64)
        signal, noise = signal + float((r * r).sum()), noise + float(((r - v) ** 2).sum())
    return round(10 * float(np.log10(signal / noise)), 2) if signal and noise else None


def _read(journal: Path | None) -> dict[str, Outcome]:
    """What was measured before; a last line that is torn is left out."""
    known: dict[str, Outcome] = {}
    if journal is None or not journal.is_file():
        return known
    for line in journal.read_bytes().splitlines():
        try:
            entry = msgspec.json.decode(line)
            known[entry["candidate"]] = msgspec.convert(entry["outcome"], Outcome)
        except (msgspec.DecodeError, msgspec.ValidationError, KeyError, TypeError):
            continue
    return known


class _Steps(Silent):
    """Shows how far a step is, without its headlines."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def step(self, label: str, done: float, total: float | None, note: str = "") -> None:
        self.progress.step(label, done, total, note)
