"""Archives: the same bytes from the same files, and nothing hostile gets opened."""

import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from packlight.export.ship.archive import Bounds, UnsafeArchive, files_of, pack, unpack


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "bundle"
    (place / "b" / "c").mkdir(parents=True)
    (place / "a.txt").write_bytes(b"a" * 1000)
    (place / "b" / "c" / "d.bin").write_bytes(bytes(range(256)) * 10)
    (place / "B.txt").write_bytes(b"")
    return place


def test_round_trip_and_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    one = pack(folder, tmp_path / "one.zip").read_bytes()
    os.utime(folder / "a.txt", (1, 1))
    (folder / "a.txt").chmod(0o600)
    assert pack(folder, tmp_path / "two.zip").read_bytes() == one
    out = unpack(tmp_path / "one.zip", tmp_path / "out")
    assert files_of(out) == files_of(folder) == ["B.txt", "a.txt", "b/c/d.bin"]
    for name in files_of(folder):
        assert (out / name).read_bytes() == (folder / name).read_bytes()


def test_no_machine_shows_in_the_archive(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(pack(folder, tmp_path / "one.zip")) as archive:
        for info in archive.infolist():
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.extra == b""
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.external_attr >> 16 == stat.S_IFREG | 0o644


def made(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "name", ["../out.txt", "a/../../out.txt", "/etc/out.txt", "a\\..\\out.txt", "C:/out.txt", "..", "a/\x01b", "./../x"]
)
def test_names_that_leave_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchive, match="leads outside"):
        unpack(made(tmp_path / "x.zip", ("ok.txt", b"1"), (name, b"2")), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.zip"]


def test_links_and_special_files(tmp_path: Path) -> None:
    for kind, words in ((stat.S_IFLNK, "is a link"), (stat.S_IFIFO, "not a plain file")):
        info = zipfile.ZipInfo("door")
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16
        with pytest.raises(UnsafeArchive, match=words):
            unpack(made(tmp_path / f"{kind}.zip", (info, b"/etc/passwd")), tmp_path / "out")


def test_bombs(tmp_path: Path) -> None:
    bomb = made(tmp_path / "bomb.zip", ("zeros", bytes(8 << 20)))
    with pytest.raises(UnsafeArchive, match=r"'zeros' grows .* times"):
        unpack(bomb, tmp_path / "out")
    many = made(tmp_path / "many.zip", *((f"{i}", b"") for i in range(50)))
    with pytest.raises(UnsafeArchive, match="50 entries; 20 are allowed"):
        unpack(many, tmp_path / "out", bounds=Bounds(files=20))
    large = made(tmp_path / "large.zip", ("a", os.urandom(6000)), ("b", os.urandom(6000)))
    with pytest.raises(UnsafeArchive, match="'a' unpacks to 6,000 bytes"):
        unpack(large, tmp_path / "out", bounds=Bounds(file_bytes=5000))
    with pytest.raises(UnsafeArchive, match="unpacks to 12,000 bytes"):
        unpack(large, tmp_path / "out", bounds=Bounds(total_bytes=10_000))


def test_a_size_that_lies(tmp_path: Path) -> None:
    """The directory says 10 bytes; the entry inflates to a thousand."""
    path = made(tmp_path / "lie.zip", ("a", b"a" * 1000))
    raw = bytearray(path.read_bytes())
    at = raw.index(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 10)
    path.write_bytes(raw)
    with pytest.raises(UnsafeArchive):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_entries_that_overlap(tmp_path: Path) -> None:
    """Two names in the directory for one stretch of bytes: the way of bombs that need no ratio."""
    path = made(tmp_path / "o.zip", ("a", os.urandom(5000)), ("b", b"x"))
    raw = bytearray(path.read_bytes())
    first = raw.index(b"PK\x01\x02")
    second = raw.index(b"PK\x01\x02", first + 4)
    raw[second + 16 : second + 28] = raw[first + 16 : first + 28]
    raw[second + 42 : second + 46] = raw[first + 42 : first + 46]
    path.write_bytes(raw)
    with pytest.raises(UnsafeArchive):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_names_for_one_file(tmp_path: Path) -> None:
    with pytest.raises(UnsafeArchive, match="one file on some systems"):
        unpack(made(tmp_path / "x.zip", ("Readme", b"1"), ("README", b"2")), tmp_path / "out")


def test_not_a_zip_and_a_broken_one(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"hello")
    with pytest.raises(UnsafeArchive, match="not a zip"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    path = made(tmp_path / "y.zip", ("a", b"hello" * 100), method=zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"hello") + 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(UnsafeArchive, match="CRC"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_in_a_folder_is_not_packed(folder: Path, tmp_path: Path) -> None:
    (folder / "door").symlink_to("/etc")
    with pytest.raises(UnsafeArchive, match="'door' .* is a link"):
        pack(folder, tmp_path / "x.zip")
