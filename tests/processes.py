"""Two processes of one training run, under torchrun on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).resolve().parents[1] / "src"


def two_processes(folder: Path, script: str, helpers: Path, name: str, written: str) -> tuple[np.ndarray, np.ndarray]:
    """Runs ``script`` (given ``folder``) twice in concert, the test file ``helpers`` beside it as the module ``name``; the numbers that
    each process wrote to ``<written>-<rank>``."""
    (folder / f"{name}.py").write_text(helpers.read_text())
    (folder / "spread.py").write_text(script)
    paths = [str(SOURCE), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "spread.py", str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    first, second = (np.array((folder / f"{written}-{rank}").read_text().split(), float) for rank in (0, 1))
    return first, second
