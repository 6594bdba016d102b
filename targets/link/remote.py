"""The shell scripts that Ssh and Adb run on a device, and what both do the same way with them.

A command runs there in a session of its own. What holds it is our end of stdin: when that closes, because the user stopped it,
this program died or the link broke, the script ends the whole session. Whatever watches stdin must let go of it when the command
has ended: adbd, unlike sshd, waits until nobody holds it. POSIX sh with ``setsid``, ``mkfifo``, ``cat`` and ``env`` is
all it needs (dash, busybox, Android's mksh and toybox).
"""

from __future__ import annotations

import shlex
import subprocess
import tarfile
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from ...core.errors import StorageError, TargetError
from ...core.files import storage_errors
from .link import MARKER, Ran, place
from .pipe import PipeProcess

GONE = 97
ABSENT = 96
FULL = ("No space left on device", "Disk quota exceeded")

_LIFELINE = """\
cd {root} || exit 97
setsid {command} </dev/null &
child=$!
exec 4<&0
(trap 'kill -KILL $!; exit' TERM
cat <&4 &
wait $!
exec 4<&-
kill -TERM -$child; sleep 2; kill -KILL -$child) >/dev/null 2>&1 &
watch=$!
exec 4<&-
wait $child
code=$?
kill $watch 2>/dev/null
kill -KILL -$child 2>/dev/null
exit $code
"""

_PIPED = """\
cd {root} || exit 97
pipe=.stdin.$$
mkfifo $pipe || exit 97
setsid {command} <$pipe &
child=$!
exec 3>$pipe 4<&0
rm -f $pipe
(trap 'kill -KILL $!; exit' TERM
cat <&4 >&3 &
exec 3>&- 4<&-
wait $!
sleep 3; kill -TERM -$child; sleep 2; kill -KILL -$child) >/dev/null 2>&1 &
watch=$!
exec 3>&- 4<&-
wait $child
code=$?
kill $watch 2>/dev/null
kill -KILL -$child 2>/dev/null
exit $code
"""

_OPEN = """\
base={base}
[ -d "$base" ] && [ -w "$base" ] || base=/tmp
root=$(mktemp -d "$base/packlight.XXXXXX") || exit 97
: >"$root/{marker}" || exit 97
echo "$root"
command -v {python} || echo
uname -m
"""

_CLOSE = "if [ -f {root}/{marker} ]; then rm -rf {root}; fi"


class Remote:
    """What Ssh and Adb share: everything, given how to run one sh script there.

    ``name`` is the user's word for the device. Subclasses give ``argv`` and call ``open_root``.
    """

    name: str
    kind: str
    python: str | None
    root: PurePosixPath
    machine: str = ""
    closed = False

    def argv(self, script: str) -> list[str]:
        """The local command that runs ``script`` with sh on the device, stdin and both outputs connected."""
        raise NotImplementedError

    def lost(self, code: int, stderr: str, doing: str) -> TargetError | None:
        """The error where a finished command's code and stderr say that the link failed, not the command."""
        raise NotImplementedError

    # --- the Link ---

    def run(self, command: Sequence[str], *, timeout_s: float, env: Mapping[str, str] | None = None) -> Ran:
        with self._start(_LIFELINE, command, env) as process:
            ran = process.wait(timeout_s, close_stdin=False)
        self._check(ran.code, ran.stderr, f"running {command[0]}")
        return ran

    def start(self, command: Sequence[str], *, env: Mapping[str, str] | None = None) -> PipeProcess:
        return self._start(_PIPED, command, env)

    def push(self, local: Path, remote: str) -> None:
        target = place(self.root, remote)
        self._alive()
        if not local.exists():
            raise TargetError(f"'{local}' can't be pushed to device '{self.name}': it does not exist")
        if local.is_dir():
            with tempfile.TemporaryFile() as archive:
                with storage_errors(Path(tempfile.gettempdir())), tarfile.open(fileobj=archive, mode="w", dereference=True) as tar:
                    tar.add(local, arcname=".", filter=_plain)
                archive.seek(0)
                self._feed(f"cd {self._root} && mkdir -p {quote(target)} && tar -xf - -C {quote(target)}", archive, f"pushing '{remote}'")
            return
        part = quote(target.with_name(f".{target.name}.part"))
        script = f"cd {self._root} || exit {GONE}; mkdir -p {quote(target.parent)} && cat >{part} && mv -f {part} {quote(target)}"
        with open(local, "rb") as file:
            self._feed(script, file, f"pushing '{remote}'")

    def pull(self, remote: str, local: Path) -> None:
        source = place(self.root, remote)
        self._alive()
        with storage_errors(local.parent):
            local.parent.mkdir(parents=True, exist_ok=True)
        part = local.with_name(f".{local.name}.part")
        try:
            with storage_errors(local.parent), open(part, "wb") as file:
                script = f"cd {self._root} || exit {GONE}; [ -f {quote(source)} ] || exit {ABSENT}; cat {quote(source)}"
                code, stderr = self._carry(script, subprocess.DEVNULL, file)
            if code == ABSENT:
                raise TargetError(f"device '{self.name}' has no file '{remote}'")
            self._check(code, stderr, f"pulling '{remote}'", must_work=True)
            part.replace(local)
        finally:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        for process in list(self._running):
            process.stop()
        subprocess.run(
            self.argv(_CLOSE.format(root=self._root, marker=MARKER)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
            start_new_session=True,
        )

    # --- inside ---

    def open_root(self, python: str | None, base: str) -> None:
        """Makes the session folder there and finds the interpreter."""
        self._running: weakref.WeakSet[PipeProcess] = weakref.WeakSet()
        wanted = quote(PurePosixPath(python)) if python else "python3"
        with tempfile.TemporaryFile() as out:
            code, stderr = self._carry(_OPEN.format(base=base, marker=MARKER, python=wanted), subprocess.DEVNULL, out)
            out.seek(0)
            lines = out.read().decode("utf-8", "replace").splitlines()
        self._check(code, stderr, "opening a session", must_work=True)
        if len(lines) < 3 or not lines[0].startswith("/"):
            raise TargetError(
                f"device '{self.name}' answers {lines[:1]} to a shell command; it needs a POSIX shell and a quiet login script"
            )
        self.root = PurePosixPath(lines[0])
        self.python = lines[1] or None
        self.machine = lines[2]
        if python and not self.python:
            self.close()
            raise TargetError(f"device '{self.name}' has no interpreter '{python}'; give the path of one there")

    @property
    def _root(self) -> str:
        return quote(self.root)

    def _alive(self) -> None:
        if self.closed:
            raise TargetError(f"device '{self.name}': the link is closed; open it again")

    def _start(self, script: str, command: Sequence[str], env: Mapping[str, str] | None) -> PipeProcess:
        self._alive()
        words = [*(f"{k}={v}" for k, v in (env or {}).items()), *command]
        text = script.format(root=self._root, command=shlex.join(["env", *words]))
        doing = f"running {command[0]}"
        process = PipeProcess(self.argv(text), device=self.name, what=command[0], lost=lambda code, stderr: self.lost(code, stderr, doing))
        self._running.add(process)
        return process

    def _feed(self, script: str, source: IO[bytes], doing: str) -> None:
        with tempfile.TemporaryFile() as out:
            code, stderr = self._carry(script, source, out)
        self._check(code, stderr, doing, must_work=True)

    def _carry(self, script: str, stdin: IO[bytes] | int, stdout: IO[bytes] | int) -> tuple[int, str]:
        done = subprocess.run(
            self.argv(script), stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, check=False, start_new_session=True, timeout=None
        )
        return done.returncode, done.stderr.decode("utf-8", "replace")

    def _check(self, code: int, stderr: str, doing: str, *, must_work: bool = False) -> None:
        error = self.lost(code, stderr, doing)
        if error is not None:
            raise error
        if code == GONE:
            raise TargetError(f"device '{self.name}': the session folder is gone; open the link again")
        if must_work and code != 0:
            if any(word in stderr for word in FULL):
                raise StorageError(f"the disk of device '{self.name}' is full; free some space there")
            raise TargetError(f"device '{self.name}': {doing} failed with exit code {code} ({_last(stderr)})")


def quote(path: PurePosixPath) -> str:
    return shlex.quote(str(path))


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member if member.isfile() or member.isdir() else None


def _last(stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def single(text: str) -> str:
    """One word for any login shell: in single quotes, with single quotes inside as '"'"'."""
    return "'" + text.replace("'", "'\"'\"'") + "'"
