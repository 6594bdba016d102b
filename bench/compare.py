"""Two reports against each other: faster, slower or not proven; better, worse or not proven. Each with the size of the effect.

Two reports come from two runs at two times, so nothing was interleaved: what drifted between them can't be told from a real
change. The comparison therefore also asks for a least effect (``least``), and refuses what differs in device, threads or
versions. To prove a small effect bench both files in one run: its speed-up is interleaved.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from scipy import stats as sps

from ..core.errors import InputError
from ..core.report import Latency, Measurement, Metric, Report
from ..core.verdict import YES, Verdict, no
from .stats import Ratio, apart

Speed = Literal["faster", "slower", "not proven"]
Quality = Literal["better", "worse", "not proven"]

SHAKY_LEAST = 0.10  # the least change of speed that counts where a report is not stable


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One file, before and after. ``ratio`` is seconds after over seconds before with its 95 % interval (below one is faster);
    ``metric`` the difference after - before with its 95 % interval, in the metric's own unit."""

    file: str
    before: str
    runtime: str
    precision: str
    speed: Speed
    ratio: tuple[float, float, float] | None = None
    quality: Quality
    metric: tuple[float, float, float] | None = None
    metric_name: str = ""
    bytes_ratio: float | None = None
    why: dict[str, str] = {}

    def lines(self) -> list[str]:
        """What a person reads."""
        name = f"{self.file} ({self.runtime})"
        out = []
        if self.ratio is not None:
            value, low, high = self.ratio
            out.append(f"{name}: {self.speed}, time x {value:.3f} (95 % {low:.3f} to {high:.3f}){_because(self.why.get('speed'))}")
        else:
            out.append(f"{name}: speed not compared{_because(self.why.get('speed'))}")
        if self.metric is not None:
            value, low, high = self.metric
            told = f"{self.metric_name} {value:+.4f} (95 % {low:+.4f} to {high:+.4f})"
            out.append(f"{name}: {self.quality}, {told}{_because(self.why.get('quality'))}")
        else:
            out.append(f"{name}: quality not compared{_because(self.why.get('quality'))}")
        return out


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All files that both reports have, and those that only one has."""

    changes: tuple[Change, ...]
    only_before: tuple[str, ...] = ()
    only_after: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def regressed(self) -> tuple[str, ...]:
        """One line for each file that is proven slower or worse; what decides the exit code."""
        slower = [f"{c.file} ({c.runtime}) is slower" for c in self.changes if c.speed == "slower"]
        return tuple(slower + [f"{c.file} ({c.runtime}) is worse" for c in self.changes if c.quality == "worse"])

    def lines(self) -> list[str]:
        """What a person reads, one line a finding."""
        out = [line for change in self.changes for line in change.lines()]
        out += [f"{name}: only in the first report" for name in self.only_before]
        out += [f"{name}: only in the second report" for name in self.only_after]
        return out + list(self.notes)


def compare_reports(before: Report, after: Report, *, anyway: bool = False, least: float = 0.02) -> Comparison:
    """Pairs the files of two reports by runtime and precision and judges each pair.

    ``least`` is the smallest change of speed that counts (2 %; 10 % where one of the two is not stable). Raises InputError where
    device, threads or versions differ, unless ``anyway``; the differences are then notes.
    """
    fits = comparable(before, after)
    if not fits and not anyway:
        raise InputError(f"the reports can't be compared: {fits.why}; measure both the same way, or say --anyway")
    old, new = _keyed(before), _keyed(after)
    changes = tuple(_change(old[key], new[key], least) for key in new if key in old)
    if not changes:
        raise InputError("the reports have no file of the same runtime and precision in common; there is nothing to compare")
    notes = ("the reports were not measured interleaved: changes of the machine between them count as changes of the file",)
    return Comparison(
        changes=changes,
        only_before=tuple(m.file for key, m in old.items() if key not in new),
        only_after=tuple(m.file for key, m in new.items() if key not in old),
        notes=(*notes, *([f"compared although {fits.why}"] if not fits else [])),
    )


def comparable(before: Report, after: Report) -> Verdict:
    """Whether the two were measured on the same kind of device, with the same versions and threads; what differs where not."""
    a, b = before.environment, after.environment
    differences = []
    for name in ("device", "kind", "machine", "cpu", "cores", "governor"):
        if getattr(a, name) != getattr(b, name):
            differences.append(f"{name} is {getattr(a, name)!r} and {getattr(b, name)!r}")
    for name in sorted(a.versions.keys() & b.versions.keys()):
        if a.versions[name] != b.versions[name]:
            differences.append(f"{name} is {a.versions[name]} and {b.versions[name]}")
    old, new = _keyed(before), _keyed(after)
    for key in old.keys() & new.keys():
        x, y = old[key].latency, new[key].latency
        if x and y and (x.threads, x.batch) != (y.threads, y.batch):
            differences.append(f"{new[key].file} ran with {x.threads} and {y.threads} threads, batch {x.batch} and {y.batch}")
    return no("; ".join(differences)) if differences else YES


def _keyed(report: Report) -> dict[tuple[str, ...], Measurement]:
    """By runtime and precision, and by file name too where several share those."""
    out: dict[tuple[str, ...], Measurement] = {}
    seen: dict[tuple[str, str], int] = {}
    for m in report.artifacts:
        seen[(m.runtime, m.precision)] = seen.get((m.runtime, m.precision), 0) + 1
    for m in report.artifacts:
        key = (m.runtime, m.precision)
        out[key if seen[key] == 1 else (*key, m.file)] = m
    return out


def _change(before: Measurement, after: Measurement, least: float) -> Change:
    why: dict[str, str] = {}
    ratio, speed = _speed(before.latency, after.latency, least, why)
    metric, quality = _quality(before.metric, after.metric, why)
    return Change(
        file=after.file,
        before=before.file,
        runtime=after.runtime,
        precision=after.precision,
        speed=speed,
        ratio=(ratio.value, ratio.low, ratio.high) if ratio else None,
        quality=quality,
        metric=metric,
        metric_name=after.metric.name if after.metric else "",
        bytes_ratio=after.bytes / before.bytes if before.bytes else None,
        why=why,
    )


def _speed(before: Latency | None, after: Latency | None, least: float, why: dict[str, str]) -> tuple[Ratio | None, Speed]:
    if before is None or after is None or not before.values_s or not after.values_s:
        why["speed"] = "one of the two has no latency"
        return None, "not proven"
    if min(before.launches, after.launches) < 2:
        why["speed"] = "one of the two was launched only once, and processes of the same file differ: bench with more launches"
        return None, "not proven"
    ratio = apart(before.values_s, after.values_s, (before.launches, after.launches))
    shaky = [f"{name} is {x.verdict}" for name, x in (("the first", before), ("the second", after)) if x.verdict != "stable"]
    if shaky:
        least = max(least, SHAKY_LEAST)
        why["speed"] = f"{' and '.join(shaky)}, so only changes beyond {least:.0%} count: measure again for less"
    if ratio.high < 1 - least:
        return ratio, "faster"
    if ratio.low > 1 + least:
        return ratio, "slower"
    why.setdefault("speed", f"the interval reaches into +-{least:.0%}")
    return ratio, "not proven"


def _quality(before: Metric | None, after: Metric | None, why: dict[str, str]) -> tuple[tuple[float, float, float] | None, Quality]:
    """The difference of two metrics from their intervals, taken as independent (which overstates it for the same samples)."""
    if before is None or after is None:
        why["quality"] = "one of the two has no metric"
        return None, "not proven"
    if (before.name, before.n) != (after.name, after.n):
        why["quality"] = f"{before.name} over {before.n} samples and {after.name} over {after.n}"
        return None, "not proven"
    if before.ci95 is None or after.ci95 is None:
        why["quality"] = "one of the two has no interval"
        return None, "not proven"
    value = after.value - before.value
    z = float(sps.norm.ppf(0.975))
    sd = float(np.hypot(before.ci95[1] - before.ci95[0], after.ci95[1] - after.ci95[0])) / (2 * z)
    low, high = value - z * sd, value + z * sd
    if low <= 0 <= high:
        why["quality"] = "the interval holds zero; compare answer by answer with 'packlight trust'"
        return (value, low, high), "not proven"
    return (value, low, high), "better" if (value > 0) == after.higher_is_better else "worse"


def _because(why: str | None) -> str:
    return f" ({why})" if why else ""
