"""How far two sets of images are apart, by a classifier's features. Pure; arrays in, one figure out.

    d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))       between normal distributions N(m1, S1) and N(m2, S2)

(Frechet, 1957; for images Heusel et al., 2017, arXiv:1706.08500, who take the features of one certain network: only then is it called FID.)
Features of another classifier give another number. It is biased by the number of samples (Chong and Forsyth, 2020, arXiv:1911.07023), so
compare equal numbers only, and take it for an indication.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def frechet_distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Of two sets of features (N, F) and (M, F); DataError where a set has fewer than two rows or the widths differ.

    tr((S1 S2)^(1/2)) is the sum of the roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), which is symmetric.
    """
    import numpy as np

    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise DataError(f"a Frechet distance needs features (N, F) and (M, F), two rows or more; got {list(a.shape)} and {list(b.shape)}")
    s1, s2 = np.cov(a, rowvar=False).reshape(a.shape[1], -1), np.cov(b, rowvar=False).reshape(a.shape[1], -1)
    values, vectors = np.linalg.eigh(s1)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ s2 @ root), 0)).sum()
    gap = a.mean(0) - b.mean(0)
    return float(gap @ gap + np.trace(s1) + np.trace(s2) - 2 * cross)
