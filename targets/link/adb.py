"""An Android device over the user's own ``adb``: by serial, or by host:port over the network."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from ...core.errors import MissingDependencyError, StorageError, TargetError
from .link import place
from .remote import FULL, Remote, quote, single

LOST = 255  # adb shell's answer where the device went away without an exit code
_SERIAL = re.compile(r"[A-Za-z0-9_.:\[\]-]+")
_CAUSES = (
    ("unauthorized", "it has not authorised this computer: unlock it and accept the question on its screen"),
    ("not found", "it is not connected: see 'adb devices', check the cable and USB debugging"),
    ("offline", "it is offline: plug it in again, or 'adb reconnect'"),
    ("no permissions", "this user may not use it: install the udev rules for Android devices"),
    ("more than one device", "several devices are connected: name one by its serial"),
    ("Connection refused", "nothing answers there: switch on wireless debugging, or 'adb tcpip 5555' over USB first"),
    ("failed to connect", "it does not answer: check the address and wireless debugging"),
    ("closed", "the connection was closed: plug it in again, or 'adb reconnect'"),
)


class Adb(Remote):
    """The Link to the device with this ``serial`` (``host:port`` is connected to first).

    ``python`` is an interpreter there that the shell user may run; phones usually have none, and then the runtime's own benchmark program
    is what can be run. ``base`` is where the session folder is made.
    """

    def __init__(
        self,
        serial: str,
        *,
        python: str | None = None,
        kind: str = "real",
        base: str = "/data/local/tmp",
        program: str = "adb",
        name: str | None = None,
        connect_s: float = 15,
    ) -> None:
        if serial.startswith("-") or not _SERIAL.fullmatch(serial):
            raise TargetError(f"'{serial}' is not an adb serial; see 'adb devices'")
        found = shutil.which(program)
        if found is None:
            raise MissingDependencyError("adb is not installed; install it with: apt install adb, or Android's platform-tools")
        self.serial, self.name, self.kind = serial, name or f"adb:{serial}", kind
        self._adb = [found, "-s", serial]
        self._connect(found, connect_s)
        self.open_root(python, base)

    def _connect(self, program: str, connect_s: float) -> None:
        if ":" in self.serial:
            code, said = self._ask([program, "connect", self.serial], connect_s)
            if code != 0 or "connected" not in said:
                raise self._failed("connecting", said)
        code, said = self._ask([*self._adb, "get-state"], connect_s)
        if code != 0 or said.strip() != "device":
            raise self._failed("connecting", said)
        code, said = self._ask([*self._adb, "features"], connect_s)
        if "shell_v2" not in said.split():
            raise TargetError(f"device '{self.name}' has an adb shell without exit codes (Android before 7); it can't be used")

    def _ask(self, command: list[str], timeout_s: float) -> tuple[int, str]:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            raise TargetError(f"device '{self.name}' does not answer adb within {timeout_s:g} s; check the connection") from None
        return done.returncode, done.stdout + done.stderr

    def argv(self, script: str) -> list[str]:
        return [*self._adb, "shell", "-T", f"exec sh -c {single(script)}"]

    def lost(self, code: int, stderr: str, doing: str) -> TargetError | None:
        own = re.search(r"^(?:error|adb(?:: error)?): (.*)$", stderr, re.M)
        if code == LOST or (code == 1 and own):
            return self._failed(doing, stderr)
        return None

    def _failed(self, doing: str, said: str) -> TargetError:
        for sign, cause in _CAUSES:
            if sign in said:
                return TargetError(f"device '{self.name}': {doing} failed; {cause}")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        told = f" ({lines[-1][:200]})" if lines else ""
        return TargetError(f"the link to device '{self.name}' broke while {doing}{told}; check the cable or network and run again")

    def push(self, local: Path, remote: str) -> None:
        target = place(self.root, remote)
        self._alive()
        if not local.exists():
            raise TargetError(f"'{local}' can't be pushed to device '{self.name}': it does not exist")
        if local.is_dir():
            self._script(f"mkdir -p {quote(target)}", f"pushing '{remote}'")
            self._sync(["push", f"{local}/.", str(target)], f"pushing '{remote}'")
            return
        part = target.with_name(f".{target.name}.part")
        self._script(f"mkdir -p {quote(target.parent)}", f"pushing '{remote}'")
        self._sync(["push", str(local), str(part)], f"pushing '{remote}'")
        self._script(f"mv -f {quote(part)} {quote(target)}", f"pushing '{remote}'")

    def _script(self, script: str, doing: str) -> None:
        code, stderr = self._carry(f"cd {quote(self.root)} || exit 97; {script}", subprocess.DEVNULL, subprocess.DEVNULL)
        self._check(code, stderr, doing, must_work=True)

    def _sync(self, words: list[str], doing: str) -> None:
        done = subprocess.run(
            [*self._adb, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            start_new_session=True,
        )
        if done.returncode == 0:
            return
        said = done.stdout.decode("utf-8", "replace")
        if any(word in said for word in FULL):
            raise StorageError(f"the disk of device '{self.name}' is full; free some space there")
        raise self._failed(doing, said)

    def __enter__(self) -> Adb:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
