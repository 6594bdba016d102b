"""Whose answers changed: what an average hides. Pure; arrays in, figures out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Flips(msgspec.Struct, frozen=True, kw_only=True):
    """Answers of one model against those of another on the same ``n`` samples.

    ``changed`` counts different answers; ``good_to_bad`` those that were right before and are wrong after;
    ``bad_to_good`` the reverse; the rest went from one wrong answer to another.
    """

    n: int
    changed: int
    good_to_bad: int
    bad_to_good: int

    @property
    def agreement(self) -> float:
        """The share of equal answers."""
        return 1.0 - self.changed / self.n if self.n else 1.0


def flips(before: NDArray[Any], after: NDArray[Any], target: NDArray[Any]) -> Flips:
    """Compares two arrays of answers (N,) with the truth (N,)."""
    changed = before != after
    was, now = before == target, after == target
    return Flips(n=len(target), changed=int(changed.sum()), good_to_bad=int((was & ~now).sum()), bad_to_good=int((~was & now).sum()))


def agreement(one: NDArray[Any], other: NDArray[Any]) -> float:
    """The share of equal answers of two models on the same samples."""
    return float((one == other).mean()) if len(one) else 1.0
