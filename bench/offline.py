"""The offline scenario, as MLPerf means it: all samples are there, nobody waits for a single answer, rows per second count.

Batches of growing size are tried on all cores and the best is measured; each is a single process, one after the other, since what is
measured here is a device at full load. For one answer at a time see runner.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
from scipy import stats as sps

from ..core.progress import Progress, Silent
from ..core.report import Throughput
from ..targets.link.link import Link
from . import stats
from .plan import BenchOptions
from .session import Pusher, Session, Subject, subjects_of
from .stage import Inputs, Stage, fixed_rows

OFFLINE_ROWS = 64
BATCHES = (1, 4, 16, 64)
TRY_S = 1.0
CHUNKS = 20


class Offline(msgspec.Struct, frozen=True, kw_only=True):
    """Of one file: the throughput at its best batch, and rows per second at every batch tried."""

    file: str
    runtime: str
    throughput: Throughput
    tried: dict[int, float]
    verdict: stats.Steady
    why: str = ""


def offline(
    artifacts: Sequence[Subject | tuple[Any, ...]],
    link: Link,
    *,
    inputs: Inputs,
    options: BenchOptions | None = None,
    seconds: float = 10.0,
    progress: Progress | None = None,
) -> list[Offline]:
    """Rows per second of each (artifact, folder, runtime); a file with a fixed batch keeps it. ``options.threads`` 1 still means all
    cores here unless ``affinity`` narrows them."""
    options, progress = options or BenchOptions(), progress or Silent()
    subjects = subjects_of(artifacts)
    out = []
    with Stage(inputs, [s.artifact.signature for s in subjects], OFFLINE_ROWS) as stage:
        pusher = Pusher(link)
        for number, subject in enumerate(subjects):
            progress.step("offline", number, len(subjects), subject.label)
            fixed = fixed_rows(subject.artifact.signature)
            session = pusher.start(subject, stage, options, rows=fixed or 1, threads=0, more={"exclusive": True})
            try:
                session.wait_ready()
                out.append(_measure(subject, session, [fixed] if fixed else [b for b in BATCHES if b <= stage.count], seconds))
                session.quit()
            finally:
                session.stop()
    progress.step("offline", len(subjects), len(subjects))
    return out


def _measure(subject: Subject, session: Session, batches: Sequence[int], seconds: float) -> Offline:
    tried = {}
    for rows in batches if len(batches) > 1 else ():
        said = session.ask("throughput", seconds=TRY_S, rows=rows)
        tried[rows] = rows * len(said["values_s"]) / said["seconds"]
    best = max(tried, key=lambda rows: tried[rows]) if tried else batches[0]
    said = session.ask("throughput", seconds=seconds, rows=best, extra_s=seconds)
    values = said["values_s"]
    judged = stats.judge(values, p=0.5, confidence=0.9)
    return Offline(
        file=subject.artifact.file,
        runtime=subject.runtime,
        throughput=Throughput(
            rows_per_s=best * len(values) / said["seconds"],
            ci95=rate_interval(values, best),
            rows=best,
            threads=session.hello["device"]["cores"] or 0,
            values_s=tuple(values),
        ),
        tried=tried,
        verdict=judged.verdict,
        why=judged.why,
    )


def rate_interval(values_s: Sequence[float], rows: int, chunks: int = CHUNKS) -> tuple[float, float] | None:
    """The 95 % interval of rows per second: Student's, over the rates of up to 20 stretches of the run, since neighbouring inferences are
    alike. None below two stretches."""
    size = max(1, len(values_s) // chunks)
    stretches = [values_s[i : i + size] for i in range(0, len(values_s) - size + 1, size)]
    rates = [rows * len(s) / sum(s) for s in stretches]
    if len(rates) < 2:
        return None
    middle = sum(rates) / len(rates)
    sd = math.sqrt(sum((r - middle) ** 2 for r in rates) / (len(rates) - 1))
    half = float(sps.t.ppf(0.975, len(rates) - 1)) * sd / math.sqrt(len(rates))
    return middle - half, middle + half
