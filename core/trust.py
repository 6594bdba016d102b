"""How much a compressed model may lose, and how much data it takes to say so: the ``[trust]`` table of a recipe."""

from __future__ import annotations

import msgspec

from .errors import RecipeError


class TrustLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename="kebab"):
    """What the gate tolerates. A check fails where the data prove a loss greater than its limit, all checks of a run together
    at the error rate ``alpha``; None leaves a check out, and so does 100 (for TOML, which has no None). Points are hundredths of a share.

    ``drop``: points of the whole's metric. ``class_drop``: points of recall of one class. ``class_errors``: more errors that
    involve one class (its own missed, others taken for it), in points of the class's size. ``group_drop``: points of one group of
    the data. ``ece_rise``: points of expected calibration error. ``flips``: the largest share of changed answers, in points.
    ``edit_rise``: for text, more edits a hundred characters.

    For tasks that score each sample with a number (PSNR in dB), ``value_drop``: mean loss in that unit; ``ssim_drop``: mean loss of SSIM;
    ``bad_drop``: a sample that loses more than this is ruined, and ``bad_share`` is the largest share of ruined ones, in points. Where the
    truth is what the uncompressed model gives (generated images), ``fidelity`` is the least mean PSNR to it, in dB (None or 0: not
    judged).

    ``min_samples`` and ``min_class`` are what it takes to certify at all, in the whole and of each class and group; ``min_values`` in the
    whole where each sample has a number, which says more than right or wrong.
    """

    drop: float | None = 1.0
    class_drop: float | None = 1.0
    class_errors: float | None = 1.0
    group_drop: float | None = 1.0
    ece_rise: float | None = 2.0
    flips: float | None = None
    value_drop: float | None = 0.5
    ssim_drop: float | None = 0.02
    bad_drop: float | None = 3.0
    bad_share: float = 1.0
    fidelity: float | None = 25.0
    edit_rise: float | None = 1.0
    alpha: float = 0.05
    min_samples: int = 1000
    min_class: int = 50
    min_values: int = 100

    def __post_init__(self) -> None:
        points = ("drop", "class_drop", "class_errors", "group_drop", "ece_rise", "flips", "value_drop", "edit_rise", "ssim_drop")
        for name in (*points, "bad_drop", "bad_share", "fidelity"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 100:
                raise RecipeError(f"trust: {name.replace('_', '-')} is {value:g}; it must lie between 0 and 100 (which never fails)")
        if not 0 < self.alpha < 0.5:
            raise RecipeError(f"trust: alpha is {self.alpha:g}; it must lie between 0 and 0.5")
        for name, count in (("min-samples", self.min_samples), ("min-class", self.min_class), ("min-values", self.min_values)):
            if count < 1:
                raise RecipeError(f"trust: {name} is {count}; it must be 1 or more")
