"""Which sample serves for what: training, choosing, calibrating, reporting. Deterministic in the seed, and said in words.

What is given stays as it is; what is missing is held out: validation (a tenth) from the training data, calibration (512) from
what is left of it. With one set alone a fifth is reported on, a tenth chosen on. Calibration comes from the test
data only where there is nothing else, and its samples are then left out of the report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self

from ...core.errors import DataError
from ..samples import Samples, Splits, gather_targets

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TEST_SHARE = 0.2
VAL_SHARE = 0.1
VAL_MOST = 5000
CALIB_MOST = 512


class Part(Samples, Protocol):
    """Samples of which a part can be taken."""

    def take(self, positions: NDArray[np.intp], source: str) -> Self: ...


def make_splits(sets: Mapping[str, Part], seed: int, notes: tuple[str, ...] = ()) -> Splits:
    """The four splits from the sets that were found; keys are "train", "val", "test", "calib" or "all"."""
    sets, told = _same_classes(sets), list(notes)
    train, val, test, calib = (sets.get(k) for k in ("train", "val", "test", "calib"))
    everything = sets.get("all")
    if everything is None and train is not None and test is None and val is None:
        everything, train = train, None
    if train is not None and test is None:
        test, val = val, None
        told.append(f"no test split: '{_source(test)}' is reported on, and never chosen on")
    if everything is not None and train is None and test is not None:
        train, everything = everything, None
    if everything is not None:
        parts = _cut(everything, seed, {"test": TEST_SHARE, **({} if val is not None else {"val": VAL_SHARE})})
        train, test, val = parts["rest"], parts["test"], val or parts["val"]
        told.append(_told(everything, {"train": train, "val": val, "test": test}, seed))
    elif train is not None and val is None:
        parts = _cut(train, seed, {"val": min(VAL_SHARE, VAL_MOST / len(train))})
        told.append(_told(train, {"train": parts["rest"], "val": parts["val"]}, seed))
        train, val = parts["rest"], parts["val"]
    if calib is None:
        calib, test = _calibration(train, val, test, seed, told)
    spec = next((getattr(s, "spec", None) for s in (train, test, val, calib) if s is not None), None)
    return Splits(train, val, calib, test, spec, tuple(told))


def stratified_order(targets: NDArray[Any] | None, count: int, seed: int) -> NDArray[np.intp]:
    """A permutation of which every prefix (and every stretch) holds the classes in their proportion.

    Each class is shuffled; its k-th of n samples sorts at (k + u) / n with u uniform in [0, 1). Without class labels: a shuffle.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    if targets is None or targets.ndim != 1 or targets.dtype.kind not in "iub":
        return random.permutation(count)
    place = np.empty(count)
    for label in np.unique(targets):
        members = random.permutation(np.flatnonzero(targets == label))
        place[members] = (np.arange(len(members)) + random.random(len(members))) / len(members)
    return np.argsort(place, kind="stable")


def _cut(part: Part, seed: int, shares: Mapping[str, float]) -> dict[str, Part]:
    """Takes each share (at least one sample) off; "rest" is what is left. Kept in the order of the data."""
    import numpy as np

    if len(part) < len(shares) + 1:
        raise DataError(f"'{part.source}' has {len(part)} samples, too few to split into {', '.join(shares)} and train")
    order = stratified_order(gather_targets(part), len(part), seed)
    out: dict[str, Part] = {}
    start = 0
    for name, share in shares.items():
        size = max(1, round(share * len(part)))
        out[name] = part.take(np.sort(order[start : start + size]), f"{part.source}: {name}, {size} held out (seed {seed})")
        start += size
    out["rest"] = part.take(np.sort(order[start:]), f"{part.source}: {len(part) - start} of {len(part)} (seed {seed})")
    return out


def _calibration(train: Part | None, val: Part | None, test: Part | None, seed: int, told: list[str]) -> tuple[Part | None, Part | None]:
    """Calibration samples, and the test split without them where they had to come from it."""
    import numpy as np

    for part in (train, val):
        if part is not None:
            size = min(CALIB_MOST, len(part))
            order = stratified_order(gather_targets(part), len(part), seed + 1)
            return part.take(order[:size], f"{part.source}; {size} for calibration"), test
    if test is None or len(test) < 2:
        return None, test
    size = max(1, min(CALIB_MOST, len(test) // 10))
    order = stratified_order(gather_targets(test), len(test), seed + 1)
    told.append(f"only test data was given: {size} of its {len(test)} samples calibrate, {len(test) - size} are reported on (seed {seed})")
    return (
        test.take(order[:size], f"{test.source}; {size} for calibration"),
        test.take(np.sort(order[size:]), f"{test.source}; {len(test) - size} that don't calibrate"),
    )


def _same_classes(sets: Mapping[str, Part]) -> dict[str, Part]:
    """Gives every set the same class names: the longest where they are numbers; names that disagree raise DataError."""
    names = max((s.classes for s in sets.values()), key=len, default=())
    out: dict[str, Part] = {}
    for key, part in sets.items():
        if part.classes and part.classes != names:
            if any(mine != other for mine, other in zip(part.classes, names)):
                raise DataError(
                    f"'{part.source}' has other classes than the rest: {', '.join(part.classes[:6])} against {', '.join(names[:6])}"
                )
            part = dataclasses.replace(part, classes=names)  # type: ignore[type-var]
        out[key] = part
    return out


def _told(whole: Part, parts: Mapping[str, Part | None], seed: int) -> str:
    sizes = ", ".join(f"{name} {len(part)}" for name, part in parts.items() if part is not None)
    return f"'{whole.source}' ({len(whole)} samples) was split with seed {seed}, class by class: {sizes}"


def _source(part: Part | None) -> str:
    return part.source if part is not None else ""
