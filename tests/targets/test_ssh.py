"""The Ssh link against a private server on loopback: keys, jumps, faults, and what is left on the device after each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sshd import Sshd, sshd

from packlight.core.errors import StorageError, TargetError
from packlight.targets.link.ssh import Ssh

SPAWN = ("sh", "-c", "sleep 300 & echo $!; echo $$; wait")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def box(server: Sshd, host: str = "box", **fields: Any) -> Ssh:
    return Ssh(host, config=server.config, python=sys.executable, **fields)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


def wait_until(true: Any, within_s: float = 10) -> bool:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("stranger", "host key is not known: connect once by hand"),
        ("changed", "host key has changed"),
        ("keyless", "does not accept a key"),
        ("deaf", "nothing answers at its ssh port"),
        ("no.such.host.invalid", "host name is not known"),
    ],
)
def test_each_failure_to_connect_has_its_remedy(server: Sshd, host: str, words: str) -> None:
    with pytest.raises(TargetError, match=words) as caught:
        box(server, host)
    assert "\n" not in str(caught.value)
    assert f"ssh:{host}" in str(caught.value)


@pytest.mark.parametrize("host", ["-oProxyCommand=true", "a b", "x;reboot", "$(id)", ""])
def test_hosts_that_are_no_hosts_are_refused(host: str) -> None:
    with pytest.raises(TargetError, match="not a host"):
        Ssh(host)


def test_a_jump_host_is_passed(server: Sshd) -> None:
    with box(server, "jumped") as link:
        assert link.run(("echo", "there"), timeout_s=30).stdout == "there\n"


def test_nothing_is_left_on_the_device(server: Sshd) -> None:
    link = box(server)
    process = link.start(SPAWN)
    lines = process.lines(20)
    pids = [int(next(lines)), int(next(lines))]
    assert Path(link.root).is_dir()
    link.close()
    assert not Path(link.root).exists()
    assert wait_until(lambda: not any(map(running, pids)))


def test_leaving_the_block_ends_the_remote_session(server: Sshd) -> None:
    with box(server) as link:
        with link.start(SPAWN) as process:
            lines = process.lines(20)
            pids = [int(next(lines)), int(next(lines))]
        assert wait_until(lambda: not any(map(running, pids)))


def test_a_timeout_ends_the_remote_command(server: Sshd) -> None:
    with box(server) as link:
        with pytest.raises(TargetError, match=r"'sh' was not done after 1 s"):
            link.run(("sh", "-c", "echo $$ >pid; exec sleep 300"), timeout_s=1)
        pid = int((Path(link.root) / "pid").read_text())
        assert wait_until(lambda: not running(pid))


def test_quotes_and_shell_characters_arrive_as_they_were(server: Sshd) -> None:
    nasty = ["it's", 'a "b"', "$HOME", "`id`", "a;b", "*", "\\n", "", "ä"]
    with box(server) as link:
        ran = link.run(("printf", "%s|", *nasty), timeout_s=30, env={"X": "it's $Y"})
    assert ran.stdout == "".join(f"{n}|" for n in nasty)


def test_a_cut_connection_is_one_line_and_a_new_one_works(server: Sshd) -> None:
    with box(server) as link:
        with link.start(SPAWN) as process:
            lines = process.lines(20)
            pids = [int(next(lines)), int(next(lines))]
            server.cut()
            with pytest.raises(TargetError, match="the link to device 'ssh:box' broke while running sh") as caught:
                next(lines)
                pytest.fail("a line came over a connection that was cut")
            assert "\n" not in str(caught.value)
        assert wait_until(lambda: not any(map(running, pids))), "the remote session outlived its link"
        assert link.run(("echo", "again"), timeout_s=30).stdout == "again\n"


def test_a_killed_host_leaves_no_process_on_the_device(server: Sshd, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from packlight.targets.link.ssh import Ssh\n"
        f"link = Ssh('box', config=Path({str(server.config)!r}), python=sys.executable)\n"
        f"process = link.start({SPAWN!r})\n"
        "lines = process.lines(20); print(next(lines), next(lines), flush=True); time.sleep(100)"
    )
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    pids = [int(word) for word in host.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(running, pids))
    os.kill(host.pid, signal.SIGKILL)
    host.wait()
    assert wait_until(lambda: not any(map(running, pids)))


def test_many_processes_at_once(server: Sshd) -> None:
    """More than the ten sessions that a server allows on one connection."""
    with box(server) as link:
        processes = [link.start(("sh", "-c", "read line; echo $line")) for _ in range(12)]
        for number, process in enumerate(processes):
            process.send(str(number))
        assert [next(p.lines(30)) for p in processes] == [str(n) for n in range(12)]
        for process in processes:
            process.stop()


def test_a_full_device_disk_is_told(server: Sshd, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0" * 4096)
    with box(server) as link:
        os.symlink("/dev/full", Path(link.root) / ".f.part")
        with pytest.raises(StorageError, match="disk of device 'ssh:box' is full"):
            link.push(tmp_path / "f", "f")


def test_a_session_folder_that_vanished_is_told(server: Sshd) -> None:
    import shutil

    with box(server) as link:
        shutil.rmtree(link.root)
        with pytest.raises(TargetError, match="session folder is gone"):
            link.run(("true",), timeout_s=30)


def test_an_interpreter_that_is_not_there_is_told(server: Sshd) -> None:
    with pytest.raises(TargetError, match="no interpreter '/no/python'"):
        Ssh("box", config=server.config, python="/no/python")
