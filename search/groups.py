"""A column of the data that splits its samples into groups: the light, the camera, who drew it.

- ``.npz``: an array of that name beside ``x`` (``NAME_test`` beside ``x_test``), one value a sample;
- a folder of images: ``groups.csv`` in it, with a column ``file`` (relative to the folder) and one of that name.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..tasks.samples import Samples


def read_groups(data: str, name: str, samples: Samples) -> NDArray[Any]:
    """The group of each sample (N,), as text. Raises DataError where the data have no such column or it doesn't fit."""
    files = getattr(samples, "files", None)
    if files is not None:
        return _from_csv(Path(data), name, files)
    rows, whole = getattr(samples, "rows", None), getattr(samples, "x", None)
    if rows is not None and whole is not None:
        column: NDArray[Any] = _from_npz(Path(data), name, len(whole))[rows]
        return column
    raise DataError(f"data '{data}' has no columns; groups come from an .npz array, or from groups.csv in a folder of images")


def _from_npz(path: Path, name: str, count: int) -> NDArray[Any]:
    import numpy as np

    file = path / "test.npz" if path.is_dir() else path
    if file.suffix != ".npz" or not file.is_file():
        raise DataError(f"data '{path}' has no column '{name}'; groups come from an .npz array, or from groups.csv in a folder of images")
    with np.load(file, allow_pickle=False) as found:
        choices = [key for key in (name, f"{name}_test") if key in found.files and len(found[key]) == count]
        if not choices:
            columns = [k for k in found.files if not k.startswith(("x", "y"))]
            raise DataError(f"'{file}' has no column '{name}' with {count} values; it has: {', '.join(columns) or 'none'}")
        column: NDArray[Any] = found[choices[0]].astype(str)
        return column


def _from_csv(folder: Path, name: str, files: tuple[Path, ...]) -> NDArray[Any]:
    import numpy as np

    table = folder / "groups.csv"
    if not table.is_file():
        raise DataError(f"'{folder}' has no groups.csv; write one with the columns file and {name}")
    with open(table, newline="", encoding="utf-8") as text:
        reader = csv.DictReader(text)
        if "file" not in (reader.fieldnames or ()) or name not in (reader.fieldnames or ()):
            raise DataError(f"'{table}' has the columns {', '.join(reader.fieldnames or ())}; it must have file and {name}")
        column = {row["file"]: row[name] for row in reader}
    names = [f.relative_to(folder).as_posix() for f in files]
    missing = next((n for n in names if n not in column), None)
    if missing is not None:
        raise DataError(f"'{table}' has no row for '{missing}'; every image needs one")
    return np.asarray([column[n] for n in names], str)
