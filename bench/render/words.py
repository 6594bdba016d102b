"""What a report says, in sentences: what is recommended and why, what was gained, what was lost, what was not proven."""

from __future__ import annotations

from collections.abc import Iterator

from ...core.report import Measurement, Report
from . import units


def recommended(report: Report) -> Measurement | None:
    """The file that the report recommends, if any."""
    return next((m for m in report.artifacts if m.recommended), None)


def baseline_of(report: Report, measured: Measurement) -> Measurement | None:
    """The uncompressed file that ``measured`` stands against: the one its speed-up names, else the fp32 file of its own runtime.

    None for an uncompressed file itself.
    """
    against = measured.speedup.against if measured.speedup else None
    peers = [m for m in report.artifacts if m.runtime == measured.runtime]
    if report.baseline is not None:
        peers.append(report.baseline)
    for peer in peers:
        if against in (peer.file, f"{peer.file} ({peer.runtime})") and peer.file != measured.file:
            return peer
    if measured.precision == "fp32":
        return None
    return next((p for p in peers if p.precision == "fp32" and p.format == measured.format), None)


def headline(report: Report) -> str:
    """One sentence: what to ship; a report that only measured says so."""
    best = recommended(report)
    if best is None and not reason(report):
        count = len(report.artifacts)
        return f"{count} file{'' if count == 1 else 's'} measured; nothing was judged."
    if best is None:
        return "No file is recommended."
    if baseline_of(report, best) is None:
        return f"Keep the uncompressed {best.file}, in {best.runtime}."
    return f"Ship {best.file}, in {best.runtime}."


def reason(report: Report) -> str:
    """Why: the report's own note on the recommendation, "" where it has none."""
    told = next((n.removeprefix("recommended: ") for n in report.notes if n.startswith("recommended: ")), "")
    return f"Why: {told.rstrip('.')}." if told else ""


def notes(report: Report) -> tuple[str, ...]:
    """The notes that ``reason`` did not use up."""
    return tuple(n for n in report.notes if not n.startswith("recommended: "))


def gained(report: Report) -> tuple[str, ...]:
    """What the recommended file, or else the smallest compressed one, gains over its uncompressed peer."""
    best = subject(report)
    return tuple(_gained(report, best)) if best is not None else ()


def lost(report: Report) -> tuple[str, ...]:
    """What it loses against the model as it came."""
    best = subject(report)
    return tuple(_lost(report, best)) if best is not None else ()


def doubts(report: Report) -> tuple[str, ...]:
    """Which figures are not to be relied on, and why; one sentence for all files that share a reason.

    An uncompressed file has no speed-up: that is no doubt.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for m in report.artifacts:
        name = f"{m.file} in {m.runtime}"
        if m.latency is not None and m.latency.verdict != "stable":
            found.setdefault((f"latency is {m.latency.verdict}", m.latency.why), []).append(name)
        for what, why in sorted(m.why.items()):
            if what != "speedup" or baseline_of(report, m) is not None:
                found.setdefault((f"{what} was not measured", why), []).append(name)
    sentences = [_doubt(what, why, names, len(report.artifacts)) for (what, why), names in found.items()]
    if report.environment.kind != "real":
        sentences.append(f"The device was {report.environment.kind}: its times are not those of a real one.")
    return tuple(sentences)


def _doubt(what: str, why: str, names: list[str], count: int) -> str:
    who = f"all {count} files" if len(names) == count > 1 else ", ".join(names)
    return f"{who[:1].upper() + who[1:] if who.startswith('all') else who}: {what}{f': {why}' if why else ''}."


def subject(report: Report) -> Measurement | None:
    """The file that gains and losses are told of: the recommended one, or the smallest compressed one where that is a float file."""
    best = recommended(report)
    if best is not None and baseline_of(report, best) is not None:
        return best
    compressed = [m for m in report.artifacts if baseline_of(report, m) is not None]
    return min(compressed, key=lambda m: m.bytes, default=None)


def _gained(report: Report, m: Measurement) -> Iterator[str]:
    base = baseline_of(report, m)
    if base is None:
        return
    name = f"{m.file} in {m.runtime}"
    if base.bytes:
        ratio = m.bytes / base.bytes
        word = "Size" if ratio < 1 else "Size grew"
        yield f"{word}: {units.size(base.bytes)} → {units.size(m.bytes)}, {ratio:.2f} of {base.file} ({name})."
    if m.latency and m.latency.median_s and base.latency and base.latency.median_s:
        times = f"{units.seconds(base.latency.median_s)} → {units.seconds(m.latency.median_s)} median"
        yield f"Latency: {times}{_speed(m)}."
    if m.memory and m.memory.peak_bytes and base.memory and base.memory.peak_bytes:
        yield f"Peak memory: {units.size(base.memory.peak_bytes)} → {units.size(m.memory.peak_bytes)}."
    if m.macs and report.model.macs and m.macs != report.model.macs:
        was, share = units.count(report.model.macs), m.macs / report.model.macs
        yield f"Multiply-accumulates: {was} → {units.count(m.macs)}, {share:.2f} of the model's."


def _speed(m: Measurement) -> str:
    if m.speedup is None:
        return ""
    low, high = m.speedup.ci95
    told = f", {m.speedup.value:.2f}x (95 % interval {low:.2f} to {high:.2f})"
    if low > 1:
        return told + ": faster"
    return told + (": slower" if high < 1 else ": a difference is not proven")


def _lost(report: Report, m: Measurement) -> Iterator[str]:
    reference = report.model.metric
    if reference is None or m.metric is None:
        return
    name, drop, unit = units.metric_name(m.metric), units.worse_by(reference, m.metric), units.points(reference)
    change = (
        f"{abs(drop):.2f} {unit} {'lower' if (drop > 0) == reference.higher_is_better else 'higher'}" if round(drop, 2) else "no change"
    )
    values = f"{units.metric(reference)} → {units.metric(m.metric)}"
    yield f"{name[:1].upper() + name[1:]}: {values}, {change}, on {m.metric.n:,} samples (95 % interval {units.metric_span(m.metric)})."
    flips = m.trust or {}
    if flips.get("n"):
        answers = f"{flips.get('changed', 0):,} of {flips['n']:,} answers changed"
        yield f"{answers}: {flips.get('good_to_bad', 0):,} from right to wrong, {flips.get('bad_to_good', 0):,} from wrong to right."
