"""Data from whatever the user names, split for training, choosing, calibrating and reporting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import DataError
from ...core.preprocess import Preprocess
from ...core.source import looks_like_source
from ..samples import Splits
from .arrays import array_samples
from .cifar import is_cifar, read_cifar
from .factory import read_factory
from .folder import scan
from .npz import SPLITS, read_npz
from .split import Part, make_splits

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMS = "a folder of class folders, an .npz, a cifar-10-batches-py folder, or file.py:factory"
_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


def load_data(
    spec: str | None,
    *,
    preprocess: Preprocess | None = None,
    seed: int = 0,
    val: str | None = None,
    calib: str | None = None,
    data_args: Mapping[str, Any] | None = None,
) -> Splits:
    """The splits of the data that ``spec`` names.

    ``spec``: class folders with images (or ``train/``, ``val/``, ``test/`` folders of such); ``.npz``, or a folder with ``train.npz``,
    ``test.npz``; a folder of CIFAR batches; ``file.py:factory`` called with ``data_args``. ``val`` and ``calib`` name data that takes
    the place of those splits. ``preprocess`` None means [0, 1], grey or RGB as the images are. Splits that are not given are
    held out with ``seed``; ``Splits.notes`` says how. Whatever can't be used raises DataError.
    """
    sets: dict[str, Part] = {}
    notes: tuple[str, ...] = ()
    if spec is not None:
        sets, notes = read_sets(spec, preprocess, data_args or {})
    for name, other, order in (("val", val, ("val", "all", "test", "train")), ("calib", calib, ("calib", "all", "train", "val"))):
        if other is not None:
            found, more = read_sets(other, preprocess, {})
            sets[name] = next(found[key] for key in (*order, *found) if key in found)
            notes += (*more, f"{name} is '{sets[name].source}', {len(sets[name])} samples")
    if not sets:
        raise DataError(f"no data given; data is {FORMS}")
    return make_splits(sets, seed, notes)


def splits_of(
    arrays: Mapping[str, tuple[NDArray[Any], NDArray[Any] | None]], *, preprocess: Preprocess | None = None, seed: int = 0
) -> Splits:
    """The splits of arrays in memory: ``{"all": (x, y)}`` or ``{"train": (x, y), "test": (x, y)}``; formats as in ``.npz``."""
    return make_splits({name: array_samples(x, y, preprocess, source=name) for name, (x, y) in arrays.items()}, seed)


def read_sets(spec: str, preprocess: Preprocess | None, data_args: Mapping[str, Any]) -> tuple[dict[str, Part], tuple[str, ...]]:
    """The sets that ``spec`` holds as they are, by name ("train", "val", "test", or "all"), and notes."""
    path = Path(spec)
    if path.is_dir():
        return _read_folder(path, preprocess), ()
    if path.suffix == ".npz":
        return dict(read_npz(path, preprocess)), ()
    if looks_like_source(spec):
        sets, notes = read_factory(spec, preprocess, data_args)
        return dict(sets), notes
    if not path.exists():
        raise DataError(f"data '{spec}' does not exist; data is {FORMS}")
    raise DataError(f"data '{spec}' is of no kind that can be read; data is {FORMS}")


def _read_folder(folder: Path, preprocess: Preprocess | None) -> dict[str, Part]:
    if is_cifar(folder):
        splits, names = read_cifar(folder)
        return {n: array_samples(x, y, preprocess, classes=names, source=f"{folder}, {n}") for n, (x, y) in splits.items()}
    files = {name: folder / f"{name}.npz" for name in SPLITS if (folder / f"{name}.npz").is_file()}
    if files:
        sets: dict[str, Part] = {}
        for name, file in files.items():
            found = read_npz(file, preprocess)
            if set(found) != {"all"}:
                raise DataError(f"'{file}' holds {', '.join(found)}; a {name}.npz holds x and y")
            sets[name] = found["all"]
        return sets
    parts = {name: next((folder / n for n in names if (folder / n).is_dir()), None) for name, names in _FOLDERS.items()}
    if not any(parts.values()):
        return {"all": scan(folder, preprocess)}
    out: dict[str, Part] = {}
    classes: tuple[str, ...] = ()
    for name in ("train", "val", "test"):
        place = parts[name]
        if place is not None:
            found_part = scan(place, preprocess, classes)
            classes = classes or found_part.classes
            preprocess = preprocess or found_part.spec
            out[name] = found_part
    return out
