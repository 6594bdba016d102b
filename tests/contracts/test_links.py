"""One contract for every link. A rig gives an open link and whether it can run real commands."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import adb_stub
import pytest
from sshd import Sshd, sshd

from packlight.core.errors import TargetError
from packlight.targets.link.adb import Adb
from packlight.targets.link.fake import Fake, Script
from packlight.targets.link.link import Link, Ran
from packlight.targets.link.local import Local
from packlight.targets.link.ssh import Ssh

SAY = ("sh", "-c", "echo out; echo err >&2; exit 3")
SHOW = ("sh", "-c", 'pwd; echo "$PACKLIGHT_X y"')
ECHO = ("sh", "-c", "while read line; do echo got $line; done; echo end; exit 4")
COUNT = ("sh", "-c", "echo 1; echo 2; echo 3")
HANG = ("sh", "-c", "sleep 60 & sleep 60")
MISSING = ("packlight-no-such-command",)


def fake_answer(link: list[Fake]) -> Any:
    def answer(command: Sequence[str]) -> Ran:
        if tuple(command) == SAY:
            return Ran(3, "out\n", "err\n")
        if tuple(command) == SHOW:
            return Ran(0, f"{link[0].root}\na b y\n", "")
        return Ran(127, "", f"{command[0]}: not found")

    return answer


def fake_script(command: Sequence[str], folder: Path) -> Script:
    if tuple(command) == COUNT:
        yield from "123"
        return 0
    if tuple(command) == HANG:
        yield None
        return 0
    while (line := (yield None)) is not None:
        yield f"got {line}"
    yield "end"
    return 4


@contextlib.contextmanager
def local(tmp_path: Path) -> Iterator[Link]:
    with Local() as link:
        yield link


@contextlib.contextmanager
def fake(tmp_path: Path) -> Iterator[Link]:
    holder: list[Fake] = []
    with Fake(answer=fake_answer(holder), script=fake_script) as link:
        holder.append(link)
        yield link


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(params=["local", "fake", "ssh", "adb"])
def link(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Link]:
    if request.param == "ssh":
        server = request.getfixturevalue("server")
        with Ssh("box", config=server.config, python=sys.executable) as link:
            yield link
    elif request.param == "adb":
        with Adb("stub", program=str(adb_stub.install(tmp_path)), python=sys.executable, base=str(tmp_path)) as link:
            yield link
    else:
        with {"local": local, "fake": fake}[request.param](tmp_path) as link:
            yield link


def test_a_command_gives_its_code_and_both_streams_apart(link: Link) -> None:
    ran = link.run(SAY, timeout_s=30)
    assert (ran.code, ran.stdout, ran.stderr.strip()) == (3, "out\n", "err")


def test_commands_run_in_root_with_their_environment(link: Link) -> None:
    ran = link.run(SHOW, timeout_s=30, env={"PACKLIGHT_X": "a b"})
    folder, said = ran.stdout.splitlines()
    assert Path(folder).name == link.root.name
    assert said == "a b y"


def test_a_missing_command_is_told(link: Link) -> None:
    ran = link.run(MISSING, timeout_s=30)
    assert ran.code == 127
    assert MISSING[0] in ran.stderr


def test_a_program_that_was_pushed_can_be_run(link: Link, tmp_path: Path) -> None:
    if isinstance(link, Fake):
        pytest.skip("the Fake runs nothing")
    (tmp_path / "hello").write_text("#!/bin/sh\necho hello $1\n")
    link.push(tmp_path / "hello", "bin/hello")
    assert link.run(("chmod", "755", "bin/hello"), timeout_s=30).code == 0
    assert link.run(("./bin/hello", "you"), timeout_s=30).stdout == "hello you\n"


def test_lines_come_as_they_are_sent_for(link: Link) -> None:
    with link.start(ECHO) as process:
        lines = process.lines(30)
        process.send("a")
        assert next(lines) == "got a"
        process.send("b c")
        assert next(lines) == "got b c"
        ran = process.wait()
    assert (ran.code, ran.stdout) == (4, "end\n")


def test_lines_end_with_the_command(link: Link) -> None:
    with link.start(COUNT) as process:
        assert list(process.lines(30)) == ["1", "2", "3"]
        assert process.wait().code == 0
        with pytest.raises(TargetError, match="ended"):
            for _ in range(3):  # a pipe may take the first line
                process.send("x")
                time.sleep(0.1)


def test_silence_is_bounded(link: Link) -> None:
    with link.start(HANG) as process, pytest.raises(TargetError, match="said nothing for"):
        next(process.lines(0.2))


def test_files_and_folders_travel_both_ways(link: Link, tmp_path: Path) -> None:
    source = tmp_path / "some folder"
    (source / "inner").mkdir(parents=True)
    (source / "a b.bin").write_bytes(bytes(range(256)) * 40)
    (source / "inner" / "c.txt").write_text("c")
    link.push(source, "there")
    link.push(source / "inner" / "c.txt", "deep/er/c.txt")
    link.push(source / "a b.bin", "deep/er/c.txt")
    link.pull("there/a b.bin", tmp_path / "back" / "x.bin")
    link.pull("deep/er/c.txt", tmp_path / "y.bin")
    assert (tmp_path / "back" / "x.bin").read_bytes() == (source / "a b.bin").read_bytes() == (tmp_path / "y.bin").read_bytes()
    link.pull("there/inner/c.txt", tmp_path / "z")
    assert (tmp_path / "z").read_text() == "c"


def test_an_empty_file_travels(link: Link, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    link.push(tmp_path / "empty", "empty")
    link.pull("empty", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b""


@pytest.mark.parametrize("remote", ["../x", "/etc/x", "a/../../x", "", "."])
def test_paths_stay_inside_root(link: Link, tmp_path: Path, remote: str) -> None:
    (tmp_path / "f").write_text("f")
    with pytest.raises(TargetError, match="outside"):
        link.push(tmp_path / "f", remote)
    with pytest.raises(TargetError, match="outside"):
        link.pull(remote, tmp_path / "g")


def test_what_is_absent_is_told(link: Link, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"nothing\.bin"):
        link.pull("nothing.bin", tmp_path / "x")
    with pytest.raises(TargetError, match="does not exist"):
        link.push(tmp_path / "nothing.bin", "x")
    assert not (tmp_path / "x").exists()


def test_a_closed_link_refuses_and_closes_again(link: Link, tmp_path: Path) -> None:
    link.close()
    link.close()
    with pytest.raises(TargetError, match=link.name):
        link.run(SAY, timeout_s=30)
    (tmp_path / "f").write_text("f")
    with pytest.raises(TargetError, match=link.name):
        link.push(tmp_path / "f", "f")
