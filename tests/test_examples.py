"""Every example is run: the commands in examples/README.md, in order, as a user types them, in a copy of the folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"^```sh\n(.*?)^```", (ROOT / "examples" / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like the repository's root to the examples; what they write stays there."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: " ".join(block.split()[:2]))
def test_block(block: str, place: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    for line in block.splitlines():
        program, *words = shlex.split(line)
        command = [sys.executable, *({"packlight": ["-m", "packlight"], "python": []}[program]), *words]
        ran = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, f"{line}\n{ran.stdout}\n{ran.stderr}"
        assert ran.stdout.strip()
        if "--out" in words:
            assert any((place / words[words.index("--out") + 1]).iterdir())


def test_every_file_is_used() -> None:
    """A file in examples/ that no command names is not an example."""
    text = "".join(BLOCKS)
    for path in (ROOT / "examples").iterdir():
        assert path.name in ("README.md", "__pycache__") or path.name in text


def test_the_examples_do_something() -> None:
    assert len(BLOCKS) >= 5
