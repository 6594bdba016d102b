"""How far a text is from the one it should be, and texts from the steps of a CTC model. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def edits(a: str, b: str) -> int:
    """Levenshtein's distance: insertions, deletions and substitutions."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def greedy(path: Sequence[int], alphabet: Sequence[str], blank: int = 0) -> str:
    """The text of one path through the classes: repeats dropped, then blanks; class k is ``alphabet[k - (k > blank)]``.

    The best path of a connectionist temporal classifier (Graves, Fernandez, Gomez and Schmidhuber, 2006, section 3.2).
    """
    kept = [k for i, k in enumerate(path) if k != blank and (i == 0 or path[i - 1] != k)]
    return "".join(alphabet[k - (k > blank)] for k in kept)


def best_path(scores: NDArray[Any]) -> list[int]:
    """The best class of every step of (steps, classes)."""
    path: list[int] = scores.argmax(-1).tolist()
    return path
