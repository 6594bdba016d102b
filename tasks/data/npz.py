"""Splits in ``.npz``: ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test``, ...; never pickled objects."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ...core.errors import DataError
from ...core.preprocess import Preprocess
from .arrays import ArraySamples, array_samples
from .degrade import Degrade
from .pairs import PairSamples, degraded_arrays

SPLITS = ("train", "val", "test", "calib")


def read_npz(path: Path, spec: Preprocess | None, degrade: Degrade | None = None) -> dict[str, ArraySamples] | dict[str, PairSamples]:
    """The sets in one file by split name; a file with plain ``x`` and ``y`` gives one set, "all".

    ``x`` is uint8 (N, H, W[, C]) or float (N, C, H, W); ``y`` has N rows and may be absent; ``classes`` (text) may name the classes.
    With ``degrade`` the images ``x`` are the truth and, made worse, the input; ``y`` is then not read.
    """
    import numpy as np

    if not path.is_file():
        raise DataError(f"data file '{path}' does not exist")
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = {key: found[key] for key in found.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        told = "it holds pickled objects, which can run code" if "allow_pickle" in str(error) else str(error)
        raise DataError(f"'{path}' is not an .npz of plain arrays: {told}; write it with numpy.savez(path, x=..., y=...)") from error
    classes = tuple(map(str, arrays.get("classes", ())))
    names = {"all": ("x", "y"), **{s: (f"x_{s}", f"y_{s}") for s in SPLITS}}
    if degrade is not None:
        pairs = {n: degraded_arrays(arrays[x], degrade, spec, f"{path} ({x})") for n, (x, _) in names.items() if x in arrays}
        if not pairs:
            raise DataError(f"'{path}' holds {', '.join(arrays) or 'nothing'}; expected images in x")
        return pairs
    sets = {
        name: array_samples(arrays[x], arrays.get(y), spec, classes=classes, source=f"{path}" if name == "all" else f"{path} ({x})")
        for name, (x, y) in names.items()
        if x in arrays
    }
    if not sets:
        raise DataError(f"'{path}' holds {', '.join(arrays) or 'nothing'}; expected x and y, or x_train, y_train, x_test, y_test")
    return sets
