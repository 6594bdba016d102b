"""Data from the user's own Python: ``file.py:factory`` or ``package.module:factory``.

A factory may return arrays ``(x, y)``, a dict of splits ``{"train": (x, y), "test": (x, y)}``, an indexable data set
(``len(d)``, ``d[i] -> (inputs, target)``), or yield ``(inputs, target)`` one by one or in batches. One that must be given
exactly one argument is asked for its splits by name: ``factory("train")``, ``factory("test")``, ``factory("val")``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ...core.errors import DataError
from ...core.preprocess import Preprocess
from ...core.source import one_line, user_object
from .arrays import ArraySamples, array_samples
from .indexed import IndexedSamples, indexed_samples, split_item

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Part = ArraySamples | IndexedSamples

_NAMES = {"train": "train", "val": "val", "validation": "val", "test": "test", "calib": "calib", "all": "all"}
_MAX_BYTES = 4 << 30


def read_factory(text: str, spec: Preprocess | None, arguments: Mapping[str, Any]) -> tuple[dict[str, Part], tuple[str, ...]]:
    """The sets that the factory gives, by split name ("all" for a single one), and notes about splits that it doesn't have."""
    with user_object(text, "data", DataError) as factory:
        if not callable(factory):
            return _sets(factory, spec, text), ()
        if _wants_split_name(factory, arguments):
            return _by_name(factory, spec, text, arguments)
        try:
            inspect.signature(factory).bind(**arguments)
        except TypeError as error:
            raise DataError(
                f"data '{text}' can't be called with {dict(arguments) or 'no arguments'}: {error}; see --data-args k=v"
            ) from error
        return _sets(factory(**arguments), spec, text), ()


def _wants_split_name(factory: Any, arguments: Mapping[str, Any]) -> bool:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(factory).parameters.values()
    needed = [p for p in parameters if p.default is p.empty and p.kind in positional and p.name not in arguments]
    return len(needed) == 1


def _by_name(factory: Any, spec: Preprocess | None, text: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Part], tuple[str, ...]]:
    sets: dict[str, Part] = {}
    absent: dict[str, Exception] = {}
    for name in ("train", "test", "val"):
        try:
            sets[name] = _part(factory(name, **arguments), spec, f"{text}, {name}", ())
        except (KeyError, ValueError, FileNotFoundError, NotImplementedError) as error:
            absent[name] = error
    if not sets:
        raise DataError(f"data '{text}' gives neither 'train' nor 'test': {one_line(next(iter(absent.values())))}")
    notes = tuple(f"{text} has no split '{name}' ({one_line(error)})" for name, error in absent.items() if name != "val")
    return sets, notes


def _sets(value: Any, spec: Preprocess | None, source: str) -> dict[str, Part]:
    if not isinstance(value, Mapping):
        return {"all": _part(value, spec, source, ())}
    classes = tuple(map(str, value.get("classes", ())))
    unknown = [k for k in value if k not in _NAMES and k != "classes"]
    if unknown:
        raise DataError(f"data '{source}' returned a dict with the key '{unknown[0]}'; known: {', '.join(_NAMES)}, classes")
    sets = {_NAMES[key]: _part(part, spec, f"{source}, {key}", classes) for key, part in value.items() if key != "classes"}
    if not sets:
        raise DataError(f"data '{source}' returned no splits; expected {{'train': (x, y), 'test': (x, y)}}")
    return sets


def _part(value: Any, spec: Preprocess | None, source: str, classes: tuple[str, ...]) -> Part:
    if _is_array(value):
        return array_samples(_array(value), None, spec, classes=classes, source=source)
    if isinstance(value, tuple) and len(value) == 2 and _is_array(value[0]) and not _is_one_item(value):
        return array_samples(_array(value[0]), _array(value[1]), spec, classes=classes, source=source)
    if hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, str | bytes):
        return indexed_samples(value, spec, source)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return _collect(value, spec, source, classes)
    raise DataError(
        f"data '{source}' gave a {type(value).__name__}; expected (x, y), a dict of splits, a data set or (inputs, target) pairs"
    )


def _collect(items: Iterable[Any], spec: Preprocess | None, source: str, classes: tuple[str, ...]) -> ArraySamples:
    """Pairs from a generator or a loader, kept in memory. An item whose target is an array of as many rows as the input is a batch."""
    import numpy as np

    xs: list[NDArray[Any]] = []
    ys: list[NDArray[Any]] = []
    held = 0
    for item in items:
        pair = isinstance(item, tuple | list) and len(item) == 2
        inputs, target = split_item(item, pair)
        if len(inputs) != 1:
            raise DataError(
                f"data '{source}' yields {len(inputs)} inputs at once; return an indexable data set (len, [i]) for such a model"
            )
        x = inputs[0]
        batched = (
            target is not None and target.ndim >= 1 and x.ndim >= 2 and len(target) == len(x) and target.size == len(x) and x.ndim != 3
        )
        xs.append(x if batched else x[None])
        if target is not None:
            ys.append(target if batched else target[None])
        held += x.nbytes
        if held > _MAX_BYTES:
            raise DataError(f"data '{source}' yielded more than {_MAX_BYTES >> 30} GiB; return an indexable data set (len, [i]) instead")
    if not xs:
        raise DataError(f"data '{source}' yielded nothing")
    if ys and len(ys) != len(xs):
        raise DataError(f"data '{source}' yields some samples with a target and some without")
    try:
        return array_samples(np.concatenate(xs), np.concatenate(ys) if ys else None, spec, classes=classes, source=source)
    except ValueError as error:
        raise DataError(f"data '{source}' yields samples that differ in shape: {error}") from error


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "__array__")


def _is_one_item(value: tuple[Any, Any]) -> bool:
    """Whether a pair is a single (image, label) and not (images, labels)."""
    return not hasattr(value[1], "__len__") or getattr(value[1], "ndim", 1) == 0


def _array(value: Any) -> NDArray[Any]:
    import numpy as np

    return np.asarray(value)
