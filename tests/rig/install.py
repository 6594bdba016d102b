"""Installs the rig: emulated devices and what reaches them, from apt and pip alone, into one folder.

    PYTHONPATH=tests python -m rig.install .rig        # `make rig`: one to three minutes, 700 MB; again: nothing to do

Nothing is installed system-wide. What can't be had here is left out, loudly; ``parts.json`` in the folder says why.
"""

from __future__ import annotations

import concurrent.futures
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import android, armhf, phone, pi, tools
from .debian import CannotInstall

PARTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "tools": (tools.install, "ssh, sshd, a C compiler"),
    "pi": (pi.install, "aarch64 with onnxruntime, LiteRT and OpenVINO"),
    "armhf": (armhf.install, "32-bit Arm with tflite-runtime"),
    "phone": (phone.install, "a real adbd"),
    "android": (android.install, "Android's benchmark_model"),
}
ORDER = (("tools",), ("pi", "phone"), ("armhf", "android"))  # those of a group don't need each other
STATE = "parts.json"


def install(folder: Path) -> dict[str, str]:
    """Installs what is not there yet; for each part "" or why it is absent."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    state = read(folder)
    needs = {"pi": "tools", "phone": "tools", "armhf": "pi", "android": "pi"}
    for group in ORDER:
        with concurrent.futures.ThreadPoolExecutor(len(group)) as pool:
            todo = [name for name in group if state.get(name) != ""]
            for name in todo:
                before = needs.get(name)
                if before and state[before]:
                    state[name] = f"it needs '{before}': {state[before]}"
            todo = [name for name in todo if not (needs.get(name) and state[needs[name]])]
            for name, why in pool.map(lambda name: _one(name, folder), todo):
                state[name] = why
    (folder / STATE).write_text(json.dumps(state, indent=1))
    return state


def read(folder: Path) -> dict[str, str]:
    """What ``install`` found out, or nothing where it has not run."""
    file = folder / STATE
    return dict(json.loads(file.read_text())) if file.is_file() else {}


def _one(name: str, folder: Path) -> tuple[str, str]:
    start = time.monotonic()
    try:
        PARTS[name][0](folder)
    except CannotInstall as why:
        return name, str(why)
    print(f"rig: {name:<8} {PARTS[name][1]}, {time.monotonic() - start:.0f} s", file=sys.stderr)
    return name, ""


if __name__ == "__main__":
    for part, reason in install(Path(sys.argv[1])).items():
        if reason:
            print(f"rig: WITHOUT '{part}' ({PARTS[part][1]}): {reason}; its tests will be skipped", file=sys.stderr)
