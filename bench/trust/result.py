"""What the gate found. All shares lie in [0, 1]; points are hundredths of a share."""

from __future__ import annotations

from typing import Any

import msgspec

from .flips import Flips
from .paired import McNemar


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that may not get worse. ``value`` is what was seen, ``limit`` what is tolerated, in ``unit``.

    ``p`` is the one-sided p-value of "the loss is within the limit"; ``p_adjusted`` holds it against all checks of the run (Holm). It fails
    (``ok`` False) where ``p_adjusted`` is at most alpha: the loss is proven to be beyond the limit, not only seen to be.
    """

    name: str
    where: str
    value: float
    limit: float
    unit: str = "points"
    ci95: tuple[float, float] | None = None
    p: float | None = None
    p_adjusted: float | None = None
    ok: bool = True

    def __str__(self) -> str:
        interval = f" (95 % interval {self.ci95[0]:.2f} to {self.ci95[1]:.2f})" if self.ci95 else ""
        chance = f", p = {self.p_adjusted:.2g} after correction" if self.p_adjusted is not None else ""
        return f"{self.name}: {self.where}, {self.value:.2f} {self.unit} worse{interval}, the limit is {self.limit:g}{chance}"


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the samples: a class, a group, or a class within a group.

    ``lost`` were right before and are wrong after, ``gained`` the reverse; ``loss`` = (lost - gained) / n with Tango's 95 % interval.
    ``p_exact``, ``p_mid`` are McNemar's, two-sided; ``p_holm`` and ``p_bh`` correct the mid-p for all slices of its kind.
    """

    name: str
    kind: str
    n: int
    before: float
    after: float
    lost: int
    gained: int
    loss: float
    ci95: tuple[float, float]
    p_exact: float
    p_mid: float
    p_holm: float = 1.0
    p_bh: float = 1.0


class ClassChange(msgspec.Struct, frozen=True, kw_only=True):
    """One class: its recall as a Slice, its precision (None where it was never answered), and errors that involve it.

    ``new_errors`` and ``mended_errors`` count samples where "is it this class?" went from right to wrong, and back: its own missed
    and others taken for it.
    """

    recall: Slice
    precision_before: float | None
    precision_after: float | None
    new_errors: int
    mended_errors: int
    detectable_points: float


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """Expected calibration error before and after, and its rise, each with a bootstrap 95 % interval (percentile)."""

    before: float
    before_ci95: tuple[float, float]
    after: float
    after_ci95: tuple[float, float]
    rise: float
    rise_ci95: tuple[float, float]
    rise_se: float
    bins: int


class Confidence(msgspec.Struct, frozen=True, kw_only=True):
    """How sure it is: probability of the answer given and of the truth, mean over the samples, with the 95 % interval of the change.

    ``collapsed`` is the share of samples whose truth lost more than 0.5. ``worst_class`` is the class whose truth lost most.
    """

    answer_before: float
    answer_after: float
    truth_before: float
    truth_after: float
    truth_change: float
    truth_change_ci95: tuple[float, float]
    collapsed: float
    worst_class: str
    worst_class_change: float


class Worst(msgspec.Struct, frozen=True, kw_only=True):
    """One of the samples that lost most. ``index`` counts from 0 in the data as given; ``png`` is a small picture, base64, or "".

    ``views`` are small pictures beside each other, by what they show (input, before, after, truth), where outputs are images.
    """

    index: int
    truth: str
    before: str
    after: str
    loss: float
    png: str = ""
    views: dict[str, str] = {}


class Values(msgspec.Struct, frozen=True, kw_only=True):
    """A number a sample, higher better: means, the loss with its bootstrap 95 % interval (BCa), and how the losses are spread.

    ``quantiles`` of the loss at 0.05, 0.25, 0.5, 0.75, 0.95 and 1. ``name`` says of which part of the samples, "" for all.
    """

    metric: str
    unit: str
    n: int
    before: float
    after: float
    loss: float
    ci95: tuple[float, float]
    p_wilcoxon: float
    quantiles: dict[str, float]
    name: str = ""


class Length(msgspec.Struct, frozen=True, kw_only=True):
    """Texts of one length: how many, and edits a hundred characters before and after."""

    length: int
    n: int
    before: float
    after: float


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """Edits (Levenshtein) a hundred characters, and the rise with its bootstrap 95 % interval."""

    n: int
    before: float
    after: float
    rise: float
    ci95: tuple[float, float]
    by_length: tuple[Length, ...]


class Enough(msgspec.Struct, frozen=True, kw_only=True):
    """Whether there are data enough to certify. ``needed`` says how many of what; ``why`` is one line, "" where there are enough.

    ``detectable_points`` is the loss in the worst-covered class that would have been found with 90 % power.
    """

    ok: bool
    why: str = ""
    needed: dict[str, int] = {}
    detectable_points: float | None = None


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's findings. ``ok``: no check failed. ``certified``: no check failed and there were data enough to find a failure.

    ``others`` are further figures of each sample (SSIM), ``group_values`` the first figure in each group, ``worst_group`` the group that
    lost most. What doesn't apply to the task is None or empty. ``later`` holds figures of kinds of damage that are added in other files.
    """

    against: str
    n: int
    ok: bool
    certified: bool
    why: str
    enough: Enough
    checks: tuple[Check, ...]
    alpha: float
    flips: Flips | None = None
    mcnemar: McNemar | None = None
    whole: Slice | None = None
    classes: tuple[ClassChange, ...] = ()
    groups: tuple[Slice, ...] = ()
    worst_slice: Slice | None = None
    calibration: Calibration | None = None
    confidence: Confidence | None = None
    values: Values | None = None
    others: tuple[Values, ...] = ()
    group_values: tuple[Values, ...] = ()
    worst_group: Values | None = None
    text: Text | None = None
    worst: tuple[Worst, ...] = ()
    later: dict[str, Any] = {}

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed, the most certain first."""
        return tuple(sorted((c for c in self.checks if not c.ok), key=lambda c: c.p_adjusted if c.p_adjusted is not None else 0.0))
