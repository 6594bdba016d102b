"""What the contract can't see: processes that must be gone, disks that are full, faults of the Fake."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

import pytest

from packlight.core.errors import StorageError, TargetError
from packlight.targets.link import local as local_module
from packlight.targets.link.fake import Fake, Faults
from packlight.targets.link.link import Ran
from packlight.targets.link.local import Local


def gone(pid: int, within_s: float = 5) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().split(") ")[1].startswith("Z"):
                return True
        time.sleep(0.05)
    return False


SPAWN = ("sh", "-c", "sleep 300 & echo $!; echo $$; wait")


def test_leaving_the_block_ends_children_too() -> None:
    with Local() as link:
        with link.start(SPAWN) as process:
            lines = process.lines(10)
            pids = [int(next(lines)), int(next(lines))]
        assert all(gone(pid) for pid in pids)


def test_closing_the_link_ends_what_runs_there_and_removes_its_folder() -> None:
    link = Local()
    process = link.start(SPAWN)
    pid = int(next(process.lines(10)))
    link.close()
    assert gone(pid)
    assert not Path(link.root).exists()


def test_a_stubborn_command_is_killed() -> None:
    with Local() as link:
        process = link.start(("sh", "-c", "trap '' TERM; echo $$; while :; do sleep 1; done"))
        pid = int(next(process.lines(10)))
        process.stop()
        assert gone(pid)


def test_a_slow_command_is_ended_in_time() -> None:
    with Local() as link:
        began = time.monotonic()
        with pytest.raises(TargetError, match=r"not done after 0\.3 s"):
            link.run(("sleep", "60"), timeout_s=0.3)
        assert time.monotonic() - began < 5


def test_a_long_line_and_strange_bytes_pass() -> None:
    with Local() as link, link.start(("sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x; printf '\\n\\377\\n'")) as process:
        lines = list(process.lines(10))
    assert len(lines[0]) == 300000
    assert lines[1] == "\ufffd"


def test_a_full_local_disk_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(source: str, target: str) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local_module, "_link_or_copy", full)
    (tmp_path / "f").write_text("f")
    with Local() as link, pytest.raises(StorageError, match="disk of device 'local' is full"):
        link.push(tmp_path / "f", "f")


def test_the_fake_breaks_when_told_and_stays_broken() -> None:
    with Fake(answer=lambda command: Ran(0, "", ""), faults=Faults(break_after=2)) as link:
        link.run(["a"], timeout_s=1)
        link.run(["b"], timeout_s=1)
        for _ in range(2):
            with pytest.raises(TargetError, match="broke during run c"):
                link.run(["c"], timeout_s=1)


def test_the_fake_has_a_disk_of_the_size_given(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0" * 600)
    with Fake(faults=Faults(disk_bytes=1000)) as link:
        link.push(tmp_path / "f", "a")
        with pytest.raises(StorageError, match="full"):
            link.push(tmp_path / "f", "b")
        assert not (link.folder / "b").exists()
