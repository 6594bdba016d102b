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
from .degrade import Degrade, read_degrade
from .factory import read_factory
from .folder import scan
from .latents import PREFIX, read_latents
from .npz import SPLITS, read_npz
from .pairs import degraded_folder, pair_folders, paired_folder
from .split import Part, make_splits

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMS = "a folder of class folders, or of low/ and high/, an .npz, a cifar-10-batches-py folder, latents:SHAPE, or file.py:factory"
_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


def load_data(
    spec: str | None,
    *,
    preprocess: Preprocess | None = None,
    seed: int = 0,
    val: str | None = None,
    calib: str | None = None,
    test: str | None = None,
    degrade: str | None = None,
    data_args: Mapping[str, Any] | None = None,
) -> Splits:
    """The splits of the data that ``spec`` names.

    ``spec``: class folders with images (or ``train/``, ``val/``, ``test/`` folders of such); ``.npz``, or a folder with ``train.npz``,
    ``test.npz``; a folder of CIFAR batches; ``file.py:factory`` called with ``data_args``; a folder with ``low/`` and ``high/`` images of
    the same names (pairs.py); ``latents:SHAPE`` (latents.py). ``degrade`` makes pairs of images: each is the truth, and made worse it is
    the input (degrade.py). ``val``, ``calib`` and ``test`` name data that takes the place of those splits. ``preprocess`` None means
    [0, 1], grey or RGB as the images are. Splits that are not given are held out with ``seed``; ``Splits.notes`` says how. Whatever
    can't be used raises DataError.
    """
    sets: dict[str, Part] = {}
    notes: tuple[str, ...] = ()
    worse = read_degrade(degrade) if degrade is not None else None
    if spec is not None:
        sets, notes = read_sets(spec, preprocess, data_args or {}, worse)
    others = (
        ("val", val, ("val", "all", "test", "train")),
        ("calib", calib, ("calib", "all", "train", "val")),
        ("test", test, ("test", "all", "val", "train")),
    )
    for name, other, order in others:
        if other is not None:
            found, more = read_sets(other, preprocess, {}, worse)
            sets[name] = next(found[key] for key in (*order, *found) if key in found)
            notes += (*more, f"{name} is '{sets[name].source}', {len(sets[name])} samples")
    if not sets:
        raise DataError(f"no data given; data is {FORMS}")
    if test is not None and test == calib:
        notes += (f"'{test}' is both calibrated on and reported on: the figure has seen its test data, though not their labels",)
    return make_splits(sets, seed, notes)


def splits_of(
    arrays: Mapping[str, tuple[NDArray[Any], NDArray[Any] | None]], *, preprocess: Preprocess | None = None, seed: int = 0
) -> Splits:
    """The splits of arrays in memory: ``{"all": (x, y)}`` or ``{"train": (x, y), "test": (x, y)}``; formats as in ``.npz``."""
    return make_splits({name: array_samples(x, y, preprocess, source=name) for name, (x, y) in arrays.items()}, seed)


def read_sets(
    spec: str, preprocess: Preprocess | None, data_args: Mapping[str, Any], degrade: Degrade | None = None
) -> tuple[dict[str, Part], tuple[str, ...]]:
    """The sets that ``spec`` holds as they are, by name ("train", "val", "test", or "all"), and notes."""
    path = Path(spec)
    if path.is_dir():
        return _read_folder(path, preprocess, degrade), ()
    if path.suffix == ".npz":
        return dict(read_npz(path, preprocess, degrade)), ()
    if degrade is not None and path.exists():
        raise DataError(f"data '{spec}' can't be made worse by --degrade, which takes folders of images and .npz")
    if spec.startswith(PREFIX):
        return dict(read_latents(spec)), ()
    if looks_like_source(spec):
        sets, notes = read_factory(spec, preprocess, data_args)
        return dict(sets), notes
    if not path.exists():
        raise DataError(f"data '{spec}' does not exist; data is {FORMS}")
    raise DataError(f"data '{spec}' is of no kind that can be read; data is {FORMS}")


def _read_folder(folder: Path, preprocess: Preprocess | None, degrade: Degrade | None = None) -> dict[str, Part]:
    if pair_folders(folder) and degrade is not None:
        raise DataError(f"'{folder}' holds pairs of images already; leave --degrade out")
    if is_cifar(folder) and degrade is None:
        splits, names = read_cifar(folder)
        return {n: array_samples(x, y, preprocess, classes=names, source=f"{folder}, {n}") for n, (x, y) in splits.items()}
    files = {name: folder / f"{name}.npz" for name in SPLITS if (folder / f"{name}.npz").is_file()}
    if files:
        sets: dict[str, Part] = {}
        for name, file in files.items():
            found = read_npz(file, preprocess, degrade)
            if set(found) != {"all"}:
                raise DataError(f"'{file}' holds {', '.join(found)}; a {name}.npz holds x and y")
            sets[name] = found["all"]
        return sets
    parts = {name: next((folder / n for n in names if (folder / n).is_dir()), None) for name, names in _FOLDERS.items()}
    if not any(parts.values()):
        return {"all": _read_images(folder, preprocess, degrade)}
    out: dict[str, Part] = {}
    classes: tuple[str, ...] = ()
    for name in ("train", "val", "test"):
        place = parts[name]
        if place is not None:
            found_part = _read_images(place, preprocess, degrade, classes)
            classes = classes or found_part.classes
            preprocess = preprocess or found_part.spec
            out[name] = found_part
    return out


def _read_images(folder: Path, preprocess: Preprocess | None, degrade: Degrade | None, classes: tuple[str, ...] = ()) -> Any:
    """One split in files: pairs of images where there are, or where they are made, else class folders."""
    if degrade is not None:
        return degraded_folder(folder, degrade, preprocess)
    sides = pair_folders(folder)
    return scan(folder, preprocess, classes) if sides is None else paired_folder(*sides, preprocess)
