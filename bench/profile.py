"""Where the time goes inside a file: seconds of each operator, as the runtime itself tells them."""

from __future__ import annotations

from typing import Any

import msgspec

from ..targets.link.link import Link
from . import stats
from .plan import BenchOptions
from .session import Pusher, Subject, subjects_of
from .stage import Inputs, Stage, fixed_rows


class OpTime(msgspec.Struct, frozen=True):
    """One operator after the runtime's own optimisation: median seconds of an inference and its share of all operators."""

    name: str
    type: str
    median_s: float
    share: float


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Operators, the slowest first; none where the runtime tells nothing (``why``). Profiling itself costs time: these seconds add
    up to more than an inference takes without it."""

    file: str
    runtime: str
    ops: tuple[OpTime, ...]
    why: str = ""


def profile_artifact(
    artifact: Subject | tuple[Any, ...], link: Link, *, inputs: Inputs, options: BenchOptions | None = None, runs: int = 50
) -> Profile:
    """Runs the file ``runs`` times with the runtime's profiler on."""
    options = options or BenchOptions()
    (subject,) = subjects_of([artifact])
    rows = fixed_rows(subject.artifact.signature) or options.batch
    with Stage(inputs, [subject.artifact.signature], max(rows, 8)) as stage:
        more = {"options": {"profile": True}}
        session = Pusher(link).start(subject, stage, options, rows=rows, threads=options.threads, more=more)
        try:
            session.wait_ready()
            session.ask("warm", max_s=options.warm_s, extra_s=options.warm_s)
            said = session.ask("profile", runs=runs)
            session.quit()
        finally:
            session.stop()
    medians = [(op["name"], op["type"], stats.median(op["values_s"])) for op in said["ops"]]
    total = sum(m for _, _, m in medians) or 1.0
    ops = [OpTime(name, kind, seconds, seconds / total) for name, kind, seconds in medians]
    return Profile(
        file=subject.artifact.file,
        runtime=subject.runtime,
        ops=tuple(sorted(ops, key=lambda op: -op.median_s)),
        why=said["why"],
    )
