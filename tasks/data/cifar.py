"""CIFAR-10 and CIFAR-100 as their authors publish them: the Python version (pickles) and the binary version.

A pickle can run code. These are read by an unpickler that builds plain containers, text and numpy arrays and refuses the rest.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays = tuple["NDArray[Any]", "NDArray[Any]"]

_MAX_BYTES = 512 << 20
_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
# Layout of a folder: (files of a split, label key, names key)
_PYTHON = {
    "data_batch_1": (_TRAIN, ("test_batch",), "labels", "batches.meta", "label_names"),
    "train": (("train",), ("test",), "fine_labels", "meta", "fine_label_names"),
}
# Binary records: label bytes before the 3072 pixel bytes, which of them counts, names file
_BINARY = {
    "data_batch_1.bin": (tuple(f"{t}.bin" for t in _TRAIN), ("test_batch.bin",), 1, 0, "batches.meta.txt"),
    "train.bin": (("train.bin",), ("test.bin",), 2, 1, "fine_label_names.txt"),
}


def is_cifar(folder: Path) -> bool:
    """Whether ``folder`` looks like one of the four."""
    python = (folder / "batches.meta").is_file() or ((folder / "meta").is_file() and (folder / "train").is_file())
    return python or any((folder / first).is_file() for first in ("data_batch_1", *_BINARY))


def read_cifar(folder: Path) -> tuple[dict[str, Arrays], tuple[str, ...]]:
    """``{"train": (x, y), "test": (x, y)}`` with x uint8 (N, 32, 32, 3) RGB, y int64, and the class names."""
    for first, (train, test, key, meta, names) in _PYTHON.items():
        if (folder / first).is_file():
            splits = {
                n: _join([_python_batch(folder / f, key) for f in _present(folder, files)])
                for n, files in (("train", train), ("test", test))
            }
            return splits, _python_names(folder / meta, names)
    for first, (train, test, labels, which, meta) in _BINARY.items():
        if (folder / first).is_file():
            splits = {
                n: _join([_binary_batch(folder / f, labels, which) for f in _present(folder, files)])
                for n, files in (("train", train), ("test", test))
            }
            text = folder / meta
            return splits, tuple(text.read_text().split()) if text.is_file() else ()
    raise DataError(f"folder '{folder}' holds no CIFAR batches (data_batch_1, data_batch_1.bin, train or train.bin)")


class PlainUnpickler(pickle.Unpickler):
    """Builds lists, dicts, tuples, numbers, text, bytes and numpy arrays; anything else raises UnpicklingError."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy as np
        from numpy._core import multiarray

        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): multiarray._reconstruct,
            ("numpy._core.multiarray", "_reconstruct"): multiarray._reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it holds '{module}.{name}', which is code")
        return allowed[module, name]


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """What a pickle of protocol 2 calls to rebuild bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it wants the encoding '{encoding}'")
    return text.encode("latin1")


def read_plain_pickle(path: Path) -> Any:
    """The plain data in a pickle; DataError where it is damaged, larger than 512 MiB, or holds anything that could run code."""
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(f"'{path}' is larger than {_MAX_BYTES >> 20} MiB; it is not read")
    try:
        return PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises anything
        raise DataError(f"'{path}' can't be read safely: {error}; get the file again") from error


def _python_batch(path: Path, key: str) -> Arrays:
    import numpy as np

    found = read_plain_pickle(path)
    if not isinstance(found, Mapping) or "data" not in found or key not in found:
        raise DataError(f"'{path}' is not a CIFAR batch: it lacks 'data' or '{key}'")
    data, labels = np.asarray(found["data"]), np.asarray(found[key])
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072 or labels.shape != (len(data),) or labels.dtype.kind not in "iu":
        raise DataError(
            f"'{path}': expected data uint8 (N, 3072) and {key} (N,), got {data.dtype} {list(data.shape)} and {list(labels.shape)}"
        )
    return _images(data), labels.astype(np.int64)


def _binary_batch(path: Path, labels: int, which: int) -> Arrays:
    import numpy as np

    data = np.fromfile(path, np.uint8)
    if not len(data) or len(data) % (labels + 3072):
        raise DataError(f"'{path}' has {len(data)} bytes, not a whole number of records of {labels + 3072}; get the file again")
    data = data.reshape(-1, labels + 3072)
    return _images(data[:, labels:]), data[:, which].astype(np.int64)


def _images(planes: NDArray[Any]) -> NDArray[Any]:
    import numpy as np

    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _present(folder: Path, files: tuple[str, ...]) -> list[str]:
    missing = [f for f in files if not (folder / f).is_file()]
    if missing:
        raise DataError(f"CIFAR folder '{folder}' lacks '{missing[0]}'; unpack the archive again")
    return list(files)


def _python_names(path: Path, key: str) -> tuple[str, ...]:
    found = read_plain_pickle(path) if path.is_file() else {}
    return tuple(map(str, found.get(key, ()))) if isinstance(found, Mapping) else ()


def _join(parts: list[Arrays]) -> Arrays:
    import numpy as np

    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])
