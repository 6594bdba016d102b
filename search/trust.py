"""What each file's answers lost against the model as it came, put beside its measurement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.report import Measurement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..bench.accuracy import Score


def with_trust(
    measurements: Sequence[Measurement], scores: Sequence[Score], reference: NDArray[Any] | None, targets: NDArray[Any] | None
) -> tuple[Measurement, ...]:
    """Adds ``trust``: flips against the reference's answers, and the agreement with every other file of the same precision.

    Files of tasks without discrete answers keep ``trust`` None.
    """
    from ..bench.accuracy import agreement
    from ..bench.trust.flips import flips

    found = {(s.file, s.runtime): s for s in scores}
    out = []
    for m in measurements:
        score = found.get((m.file, m.runtime))
        if score is None or score.answers is None or reference is None or targets is None:
            out.append(m)
            continue
        alike = [o for o in measurements if o.precision == m.precision and _stem(o) == _stem(m)]
        twins = [o for o in alike if (o.file, o.runtime) != (m.file, m.runtime)]
        trust = {
            "against": "the model as it came, in torch",
            **msgspec.to_builtins(flips(reference, score.answers, targets)),
            "agreement": {f"{o.file} ({o.runtime})": agreement(score, found[o.file, o.runtime]) for o in twins},
        }
        out.append(msgspec.structs.replace(m, trust=trust))
    return tuple(out)


def _stem(m: Measurement) -> str:
    return m.file.partition(f".{m.precision}.")[0]
