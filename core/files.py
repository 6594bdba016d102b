"""Files on disk: written aside and moved into place, hashed, never followed outside their folder."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError, OutputExistsError, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DENIED = {errno.EACCES, errno.EROFS, errno.EPERM}


@contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turns a full disk or a forbidden place into one line; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageError(f"the disk under '{place}' is full; free some space or choose another --out") from error
        if error.errno in _DENIED:
            raise StorageError(f"'{place}' can't be written ({os.strerror(error.errno)}); choose another --out") from error
        raise
    except Exception as error:  # safetensors and others wrap the system's error in their own
        if "No space left on device" in str(error) or "StorageFull" in str(error):
            raise StorageError(f"the disk under '{place}' is full; free some space or choose another --out") from error
        raise


def refuse_existing(out: Path, force: bool) -> None:
    """Raises OutputExistsError if ``out`` exists (an empty folder counts as absent) and ``force`` is not set."""
    if force or not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    raise OutputExistsError(f"output '{out}' exists; choose another --out or pass --force to replace it")


@contextmanager
def staged_folder(out: Path, *, force: bool = False) -> Iterator[Path]:
    """Yields an empty folder beside ``out``; on success it becomes ``out``, on any failure (Ctrl-C too) it is removed.

    With ``force`` a folder that was there is replaced in one rename, and only after everything was written.
    """
    out = Path(os.path.abspath(out))
    refuse_existing(out, force)
    if out.exists() and not out.is_dir():
        raise InputError(f"output '{out}' is a file, not a folder; choose another --out")
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        with storage_errors(out):
            yield stage
            _readable(stage)
            if out.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
                os.replace(out, old / "was")
                os.replace(stage, out)
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.replace(stage, out)
    except BaseException:
        shutil.rmtree(stage, ignore_errors=True)
        raise


@contextmanager
def staged_file(out: Path, *, force: bool = False) -> Iterator[Path]:
    """Like staged_folder, for one file: yields a path beside ``out`` with the same suffix."""
    out = Path(os.path.abspath(out))
    if out.is_dir():
        raise InputError(f"output '{out}' is a folder, not a file; choose another --out")
    refuse_existing(out, force)
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{out.stem}.", suffix=out.suffix, dir=out.parent)
    os.close(handle)
    stage = Path(name)
    try:
        with storage_errors(out):
            yield stage
            stage.chmod(0o666 & ~_umask())
            os.replace(stage, out)
    except BaseException:
        stage.unlink(missing_ok=True)
        raise


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """``folder / name``, refused if it would lie outside ``folder`` (absolute, "..", or through a link)."""
    base = folder.resolve()
    path = (base / name).resolve()
    if not path.is_relative_to(base) or path == base:
        raise InputError(f"file name '{name}' leads outside its folder '{folder}'")
    return path


def _readable(folder: Path) -> None:
    """Gives everything the usual permissions: temporary folders and some writers make theirs private."""
    mask = _umask()
    folder.chmod(0o777 & ~mask)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod((0o777 if path.is_dir() else 0o666) & ~mask)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
