"""tflite-runtime, which needs numpy 1 and so lives in a folder of its own, run by a process of its own.

``PACKLIGHT_TFLITE_RUNTIME`` names the folder: pip install --target FOLDER tflite-runtime==2.14.0 'numpy<2'
"""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

VARIABLE = "PACKLIGHT_TFLITE_RUNTIME"
HOW = f"pip install --target FOLDER tflite-runtime==2.14.0 'numpy<2', then set {VARIABLE}=FOLDER"


def missing() -> str:
    """Why tflite-runtime can't be run here; "" where it can."""
    folder = os.environ.get(VARIABLE, "")
    if not folder:
        return f"tflite-runtime is not installed aside: {HOW}"
    return "" if (Path(folder) / "tflite_runtime").is_dir() else f"{VARIABLE} names no folder with tflite_runtime in it: {HOW}"


class Aside:
    """The process: messages are a length and an npz each way."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.environ[VARIABLE]}
        script = Path(__file__).with_name("old_runtime.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def run(self, model: bytes, inputs: dict[str, np.ndarray], xnnpack: bool, batch: int = 0) -> dict[str, np.ndarray]:
        """The outputs by their signature names, for inputs by theirs; RuntimeError where it can't run the file."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        blob = io.BytesIO()
        given = {f"in.{name}": value for name, value in inputs.items()}
        np.savez(blob, model=np.frombuffer(model, np.uint8), xnnpack=np.array(xnnpack), batch=np.array(batch), **given)
        self._process.stdin.write(struct.pack("<q", blob.tell()) + blob.getvalue())
        self._process.stdin.flush()
        head = self._process.stdout.read(8)
        if len(head) < 8:
            self._process.wait(timeout=10)
            code = self._process.returncode
            self._start()
            raise RuntimeError(f"tflite-runtime's process died on this file ({code})")
        with np.load(io.BytesIO(self._process.stdout.read(struct.unpack("<q", head)[0])), allow_pickle=False) as answer:
            if "error" in answer:
                raise RuntimeError(str(answer["error"]))
            return {name.removeprefix("out."): answer[name] for name in answer}

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
