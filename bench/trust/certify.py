"""Are there data enough to say that nothing broke? An absent alarm on few samples proves nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...core.trust import TrustLimits
from .result import Enough


def certify(
    n: int, parts: Mapping[str, int], limits: TrustLimits, detectable_points: float | None = None, least: int | None = None
) -> Enough:
    """Refuses below ``least`` samples (``limits.min_samples`` for None), or where a part (class or group, name -> count) has fewer than
    ``limits.min_class``.

    ``needed`` holds "samples" (how many there must be at the same mix) and, for each part that is short, how many of it.
    """
    enough = limits.min_samples if least is None else least
    short = {name: count for name, count in parts.items() if count < limits.min_class}
    if n >= enough and not short:
        return Enough(ok=True, detectable_points=detectable_points)
    rarest = min(parts.values(), default=n)
    mix = math.ceil(limits.min_class * n / rarest) if short and rarest else 0
    needed = {"samples": max(enough, mix), **dict.fromkeys(short, limits.min_class)}
    told = []
    if n < enough:
        told.append(f"{n:,} samples; {enough:,} are needed")
    if short:
        name = min(short, key=lambda k: short[k])
        more = f" (and {len(short) - 1} more are short)" if len(short) > 1 else ""
        total = f": about {mix:,} samples at this mix" if mix > n else ""
        told.append(f"'{name}' has {short[name]}; {limits.min_class} are needed{more}{total}")
    return Enough(ok=False, why="; ".join(told), needed=needed, detectable_points=detectable_points)
