"""Figures as text, with their units. A figure that is not there is an en dash."""

from __future__ import annotations

import math

from ...core.report import Metric

NONE = "–"


def size(count: int | None) -> str:
    """Bytes in binary units: "271 KiB", "1.05 MiB"."""
    if count is None:
        return NONE
    if count < 1024:
        return f"{count} bytes"
    power = min(3, int(math.log2(count) // 10))
    return f"{_digits(count / 1024**power)} {('KiB', 'MiB', 'GiB')[power - 1]}"


def seconds(value: float | None, digits: int = 3) -> str:
    """Seconds with three significant digits: in ms below one second, so that a column of them compares at a glance."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{_digits(value, digits)} s" if value >= 1 else f"{_digits(1e3 * value, digits)} ms"


def span(low_high: tuple[float, float] | None) -> str:
    """An interval of seconds with four digits, the unit once where both ends share it: "1.104 to 1.152 ms"."""
    if low_high is None:
        return NONE
    low, high = (seconds(v, 4) for v in low_high)
    same = low.rpartition(" ")[2] == high.rpartition(" ")[2]
    return f"{low.rpartition(' ')[0] if same else low} to {high}"


def count(value: int | float | None) -> str:
    """A count with a decimal prefix: "0.27 M", "40.8 M", "1.82 G"."""
    if value is None:
        return NONE
    for scale, unit in ((1e9, "G"), (1e5, "M"), (1e3, "k")):
        if value >= scale:
            return f"{_digits(value / (1e6 if unit == 'M' else scale))} {unit}"
    return f"{value:g}"


def metric(value: Metric | None) -> str:
    """A metric with its unit; fractions are shown in percent."""
    return NONE if value is None else metric_value(value.value, value.unit)


def metric_value(value: float, unit: str) -> str:
    return f"{100 * value:.2f} %" if unit == "%" else f"{value:.3f}{' ' + unit if unit else ''}"


def metric_span(value: Metric | None) -> str:
    """The metric's interval."""
    if value is None or value.ci95 is None:
        return NONE
    low, high = value.ci95
    return f"{100 * low:.2f} to {100 * high:.2f} %" if value.unit == "%" else f"{low:.3f} to {metric_value(high, value.unit)}"


def worse_by(reference: Metric, other: Metric) -> float:
    """How much worse ``other`` is, in points where the unit is "%" and in its own unit otherwise; negative where it is better."""
    change = reference.value - other.value if reference.higher_is_better else other.value - reference.value
    return change * (100.0 if reference.unit == "%" else 1.0)


def points(reference: Metric) -> str:
    """What a difference of this metric is counted in."""
    return "points" if reference.unit == "%" else reference.unit or "units"


def metric_name(value: Metric | None) -> str:
    """The metric's name as people write it."""
    known = {"top1": "top-1", "top5": "top-5", "psnr": "PSNR", "ssim": "SSIM", "miou": "mIoU", "map": "mAP"}
    known |= {"word_accuracy": "word accuracy"}
    return "metric" if value is None else known.get(value.name, value.name)


def _digits(value: float, digits: int = 3) -> str:
    """So many significant digits, never with an exponent; whole numbers keep all of theirs."""
    if value <= 0:
        return f"{value:.{digits - 1}f}"
    places = digits - 1 - math.floor(math.log10(value))
    return f"{value:,.{max(0, min(places, 6))}f}"
