"""A folder as one zip whose bytes depend on nothing but its files, and the safe opening of one that came from anywhere.

Writing: names sorted, stored without compression (so that no version of a compressor shows), fixed time and mode, no extra fields.

Opening refuses, before or while writing: names that leave the folder, two names that a file system may take for one, links and
devices, encryption, more or larger files than allowed, files that grow more than they may (a bomb), entries that overlap, and bytes
beyond those declared.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from ...core.errors import DataError
from ...core.files import inside, staged_file, staged_folder

EPOCH = (1980, 1, 1, 0, 0, 0)


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive may hold. ``ratio`` is unpacked over packed size of one file, looked at from ``ratio_from`` bytes on."""

    files: int = 20_000
    file_bytes: int = 2 << 30
    total_bytes: int = 4 << 30
    ratio: float = 200.0
    ratio_from: int = 1 << 20


class UnsafeArchive(DataError):
    """An archive that is not opened: what is wrong with it, and in which entry."""


def pack(folder: Path, out: Path, *, force: bool = False) -> Path:
    """Writes every file of ``folder`` into the zip ``out``; the same files give the same bytes on every machine."""
    with staged_file(out, force=force) as stage, zipfile.ZipFile(stage, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in files_of(folder):
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            info.file_size = (folder / name).stat().st_size
            with archive.open(info, "w") as target, open(folder / name, "rb") as source:
                while piece := source.read(1 << 20):
                    target.write(piece)
    return out


def files_of(folder: Path) -> list[str]:
    """The names of all files under ``folder``, POSIX, sorted by their bytes. Links and special files raise UnsafeArchive."""
    found = []
    for root, folders, files in os.walk(folder):
        for entry in (*folders, *files):
            path = Path(root) / entry
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                kind = "a link" if stat.S_ISLNK(mode) else "not a plain file"
                raise UnsafeArchive(f"'{path.relative_to(folder).as_posix()}' in '{folder}' is {kind}; a bundle holds plain files only")
        found += [(Path(root) / f).relative_to(folder).as_posix() for f in files]
    return sorted(found, key=str.encode)


def unpack(archive: Path, out: Path, *, bounds: Bounds | None = None, force: bool = False) -> Path:
    """Opens ``archive`` into the folder ``out``, which appears when everything in it was found to be safe."""
    bounds = bounds or Bounds()
    try:
        with zipfile.ZipFile(archive) as file, staged_folder(out, force=force) as stage:
            for info in check(file, archive.stat().st_size, bounds):
                _write(file, info, inside(stage, info.filename))
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise UnsafeArchive(f"'{archive}' is not a zip that can be opened: {error}") from error
    return out


def check(file: zipfile.ZipFile, packed: int, bounds: Bounds) -> Iterator[zipfile.ZipInfo]:
    """The entries to write, after all of them were looked at. ``packed`` is the size of the archive itself."""
    entries = file.infolist()
    if len(entries) > bounds.files:
        raise UnsafeArchive(f"the archive holds {len(entries):,} entries; {bounds.files:,} are allowed")
    seen: dict[str, str] = {}
    for info in entries:
        _check_name(info.filename)
        _check_kind(info)
        key = info.filename.rstrip("/").casefold()
        if key in seen:
            raise UnsafeArchive(f"the archive holds '{info.filename}' and '{seen[key]}', which are one file on some systems")
        seen[key] = info.filename
        _check_size(info, bounds)
    total = sum(i.file_size for i in entries)
    if total > bounds.total_bytes:
        raise UnsafeArchive(f"the archive unpacks to {total:,} bytes; {bounds.total_bytes:,} are allowed")
    if sum(i.compress_size for i in entries) > packed:
        raise UnsafeArchive("the archive's entries overlap: together they are longer than the archive")
    return (i for i in entries if not i.is_dir())


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    leaves = path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name
    if leaves or not path.parts or any(ord(c) < 32 for c in name):
        raise UnsafeArchive(f"the archive's entry {name!r} leads outside its folder")


def _check_kind(info: zipfile.ZipInfo) -> None:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        raise UnsafeArchive(f"the archive's entry '{info.filename}' is a link")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UnsafeArchive(f"the archive's entry '{info.filename}' is not a plain file")
    if info.flag_bits & 0x1:
        raise UnsafeArchive(f"the archive's entry '{info.filename}' is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnsafeArchive(f"the archive's entry '{info.filename}' is packed by method {info.compress_type}; stored or deflated is wanted")


def _check_size(info: zipfile.ZipInfo, bounds: Bounds) -> None:
    if info.file_size > bounds.file_bytes:
        raise UnsafeArchive(f"the archive's entry '{info.filename}' unpacks to {info.file_size:,} bytes; {bounds.file_bytes:,} are allowed")
    if info.file_size >= bounds.ratio_from and info.file_size > bounds.ratio * max(1, info.compress_size):
        grows = info.file_size / max(1, info.compress_size)
        raise UnsafeArchive(f"the archive's entry '{info.filename}' grows {grows:,.0f} times when unpacked; {bounds.ratio:g} are allowed")


def _write(file: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    left = info.file_size
    with file.open(info) as source, open(path, "xb") as target:
        while piece := source.read(min(1 << 20, left + 1)):
            left -= len(piece)
            if left < 0:
                raise UnsafeArchive(f"the archive's entry '{info.filename}' is longer than it says")
            target.write(piece)
    if left:
        raise UnsafeArchive(f"the archive's entry '{info.filename}' is shorter than it says")
