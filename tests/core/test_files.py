"""Outputs appear whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from packlight.core.errors import InputError, MissingDependencyError, OutputExistsError, StorageError, require
from packlight.core.files import inside, sha256, staged_file, staged_folder


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_nothing_is_left_after_a_failure(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), staged_folder(tmp_path / "out") as stage:
        (stage / "half").write_text("x")
        raise error
    with pytest.raises(type(error)), staged_file(tmp_path / "out.json") as file:
        file.write_text("x")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="full; free some space") as caught, staged_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_only_after_success(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with staged_folder(out) as stage:
        (stage / "a").write_text("1")
    with pytest.raises(OutputExistsError), staged_folder(out):
        pass
    with pytest.raises(ValueError), staged_folder(out, force=True) as stage:
        raise ValueError
    assert (out / "a").read_text() == "1"
    with staged_folder(out, force=True) as stage:
        (stage / "b").write_text("2")
    assert [p.name for p in out.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_file_in_the_way_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(InputError), staged_folder(tmp_path / "out", force=True):
        pass


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ".", ""])
def test_no_name_leads_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="outside"):
        inside(tmp_path, name)


def test_a_link_does_not_lead_outside(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path)
    with pytest.raises(InputError):
        inside(tmp_path / "in", "link/secret")


def test_sha256_of_a_published_vector(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_missing_package_names_the_command() -> None:
    with pytest.raises(MissingDependencyError, match=r"pip install 'packlight\[onnx\]'") as caught:
        require("no_such_package_at_all", "onnx")
    assert caught.value.exit_code == 3
