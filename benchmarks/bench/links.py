"""What goes wrong between host and device: each fault for real, over ssh to a private server on the loopback address.

    python benchmarks/bench/links.py        # writes links.md; a minute or two. tests/bench/test_faults.py runs the same.

For each: the line that the user gets, what is left on the device half a minute later, and whether the raw values that had come are kept.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tests")]

import models
import numpy as np
from sshd import Sshd, sshd

from packlight.bench.accuracy import score_artifacts
from packlight.bench.plan import BenchOptions
from packlight.bench.runner import bench_artifacts
from packlight.core.errors import PacklightError
from packlight.targets.link.ssh import Ssh

QUICK = BenchOptions(launches=2, rounds=4, warm_s=0.5)
PATIENCE_S = 30
DEVICE = "device"  # where the sessions' folders are, so that its disk can be made small


class Outcome(NamedTuple):
    """``said`` is the error's text, "" where there was none; ``left`` what is still on the device; ``blocks`` of raw values on the host."""

    said: str
    left: list[str]
    blocks: int


class Bed:
    """A device (the private server) with a file to bench, and a place for raw values."""

    def __init__(self, server: Sshd, folder: Path) -> None:
        self.server, self.folder, self.journal, self.device = server, folder, folder / "raw.jsonl", folder / DEVICE
        self.artifact = models.artifact(folder, "net.onnx")
        self.x = np.random.default_rng(0).normal(0, 1, (8, 3, models.SIDE, models.SIDE)).astype(np.float32)
        self.roots: list[Path] = []

    def link(self, host: str = "box", python: str = sys.executable) -> Ssh:
        link = Ssh(host, config=self.server.config, python=python)
        self.roots.append(Path(link.root))
        return link

    def bench(self, link: Ssh, runtime: str = "onnxruntime", **more: Any) -> None:
        subject = (self.artifact, self.folder, runtime)
        with contextlib.closing(link):
            bench_artifacts([subject], link, inputs=self.x, journal=self.journal, **{"options": QUICK, **more})


class At:
    """Does something once, when the second block of the timed part begins."""

    def __init__(self, do: Callable[[], None]) -> None:
        self.do, self.done = do, False

    def step(self, label: str, done: float, total: float | None, note: str = "") -> None:
        if label == "bench" and done and not self.done:
            self.done = True
            self.do()

    def say(self, line: str) -> None:
        return


def agents(root: Path) -> list[int]:
    """The agents that run in a session folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if Path(os.readlink(process / "cwd")).is_relative_to(root) and b"agent.py" in words:
                found.append(int(process.name))
    return found


def cut(bed: Bed) -> None:
    bed.bench(bed.link(), progress=At(bed.server.cut))


def wrong_key(bed: Bed) -> None:
    bed.bench(bed.link("changed"))


def unknown_key(bed: Bed) -> None:
    bed.bench(bed.link("stranger"))


@contextlib.contextmanager
def small_disk(bed: Bed, size: str) -> Iterator[None]:
    """The device's session folders lie on a disk of ``size``."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(bed.device)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(bed.device)], check=False, capture_output=True)


def full_on_push(bed: Bed) -> None:
    with small_disk(bed, "64k"):
        bed.bench(bed.link())


class Unlabelled:
    """Noise without end, for outputs that fill a disk."""

    classes: tuple[str, ...] = ()
    source = "noise"

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __len__(self) -> int:
        return 64

    def batch(self, indices: Any) -> Any:
        return (self.x[[i % 8 for i in indices]],), None

    def raw(self, index: int) -> None:
        return None

    def answers(self, outputs: Any) -> None:
        return None


def full_on_outputs(bed: Bed) -> None:
    """All that is pushed fits, and then nothing more does."""
    with small_disk(bed, "4m"), contextlib.closing(bed.link()) as link:
        root, push = Path(link.root), link.push

        def push_and_fill(local: Path, remote: str) -> None:
            push(local, remote)
            if "plan_" in remote:  # the last thing before the agent starts
                with contextlib.suppress(OSError), open(root / "filler", "wb", buffering=0) as file:
                    while file.write(b"0" * 512):
                        pass

        link.push = push_and_fill  # type: ignore[method-assign]
        data = Unlabelled(bed.x)
        score_artifacts([(bed.artifact, bed.folder, "onnxruntime")], link, samples=data, task=data)  # type: ignore[arg-type]


def no_runtime(bed: Bed) -> None:
    bed.bench(bed.link(), runtime="tflite-runtime")


def killed(bed: Bed) -> None:
    link = bed.link()
    root = bed.roots[-1]
    bed.bench(link, progress=At(lambda: [os.kill(pid, signal.SIGKILL) for pid in agents(root)] and None))


def _jumping(bed: Bed, clock: str, by: float) -> None:
    """A bench by an interpreter whose ``clock`` (a function of ``time``, and its unit) jumps in the middle of an inference."""
    flag = bed.folder / "now"
    name, unit = clock.split()
    (bed.folder / "jumping.py").write_text(
        "import os, runpy, sys, time\n"
        f"real, readings, offset = time.{name}, [0], [0]\n"
        "def jumping():\n"
        "    readings[0] += 1\n"
        f"    if not offset[0] and readings[0] % 2 == 0 and os.path.exists({str(flag)!r}):\n"
        f"        offset[0] = int({by} * {unit})\n"
        "    return real() + offset[0]\n"
        f"time.{name} = jumping\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    script = bed.folder / "python"
    script.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{bed.folder}/jumping.py' \"$@\"\n")
    script.chmod(0o755)
    bed.bench(bed.link(python=str(script)), progress=At(flag.touch))


def clock_forward(bed: Bed) -> None:
    _jumping(bed, "perf_counter_ns 1e9", 90)


def clock_back(bed: Bed) -> None:
    _jumping(bed, "perf_counter_ns 1e9", -90)


def wall_clock(bed: Bed) -> None:
    """The date is set, as a Pi without a battery does when it finds the network: the agent's clock is another one."""
    _jumping(bed, "time 1", 1e8)


def two_at_once(bed: Bed) -> None:
    """Both come through, one after the other."""
    errors: list[BaseException] = []

    def one() -> None:
        try:
            bed.bench(bed.link())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def one_too_many(bed: Bed) -> None:
    """A second bench that is not willing to wait."""
    import msgspec

    said: list[BaseException] = []

    def second() -> None:
        try:
            bed.bench(bed.link(), options=msgspec.structs.replace(QUICK, wait_s=0.5))
        except PacklightError as error:
            said.append(error)

    bed.bench(bed.link(), progress=At(second))
    if said:
        raise said[0]


FAULTS: dict[str, tuple[str, Callable[[Bed], None]]] = {
    "cut": ("connection cut in the middle", cut),
    "wrong-key": ("host key changed", wrong_key),
    "unknown-key": ("host key not known", unknown_key),
    "full-push": ("device disk full while files are pushed", full_on_push),
    "full-outputs": ("device disk full while outputs are written", full_on_outputs),
    "no-runtime": ("runtime missing", no_runtime),
    "killed": ("agent killed in the middle", killed),
    "clock-forward": ("device's clock jumps 90 s forward (suspended)", clock_forward),
    "clock-back": ("device's clock jumps 90 s back", clock_back),
    "wall-clock": ("device's date is set in the middle", wall_clock),
    "two": ("two benches at once", two_at_once),
    "two-impatient": ("a second bench that waits half a second only", one_too_many),
}


def provoke(name: str, folder: Path) -> Outcome:
    """Runs one fault on a device of its own, in the empty ``folder``, and looks at what it leaves."""
    (folder / "ssh").mkdir()
    (folder / DEVICE).mkdir()
    said = ""
    with sshd(folder / "ssh", extra=f"SetEnv TMPDIR={folder / DEVICE}\n") as server:
        bed = Bed(server, folder)
        try:
            FAULTS[name][1](bed)
        except PacklightError as error:
            said = str(error)
        left = remains(bed)
    lines = bed.journal.read_text().splitlines() if bed.journal.is_file() else []
    return Outcome(said, left, sum(bool(json.loads(line)["values_s"]) for line in lines))


def remains(bed: Bed) -> list[str]:
    """What is on the device once it has had the time to clean up."""
    end = time.monotonic() + PATIENCE_S
    left: list[str] = ["?"]
    while left and time.monotonic() < end:
        left = [entry.name for entry in bed.device.iterdir()] + [f"process {pid}" for root in bed.roots for pid in agents(root)]
        time.sleep(0.1)
    return left


def main() -> None:
    out = [
        "# Faults between host and device\n",
        f"{datetime.date.today()}. Each provoked for real over ssh to a private server on the loopback address:",
        "`python benchmarks/bench/links.py`; `tests/bench/test_faults.py` runs the same in `make test`.",
        "The link's own faults (lines, quoting, timeouts, a killed host, adb) are in `tests/targets/test_ssh.py`,",
        "`tests/targets/test_adb.py` and, against a real adbd, `tests/rig/test_phone.py`.\n",
        "| fault | what the user reads | left on the device | blocks of raw values kept |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        for fault, (words, _) in FAULTS.items():
            folder = Path(name) / fault
            folder.mkdir()
            found = provoke(fault, folder)
            said = found.said.replace(str(folder), "...") or "nothing: it came through"
            out.append(f"| {words} | {said} | {', '.join(found.left) or 'nothing'} | {found.blocks} |")
            print(out[-1], flush=True)
    (HERE / "links.md").write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
