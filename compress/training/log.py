"""The metrics of a run, one row an epoch: a CSV file, and TensorBoard's where it is installed."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.files import storage_errors


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes all rows anew, aside first: a run that went on from a checkpoint has no gap and no double in it."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    stage = path.with_name(f".{path.name}.{os.getpid()}")
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        stage.write_text(text.getvalue(), encoding="utf-8")
        os.replace(stage, path)


def write_tensorboard(folder: Path, row: dict[str, Any]) -> bool:
    """Adds one row, every figure under its name against the step; False where TensorBoard isn't installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return False
    with SummaryWriter(str(folder)) as writer:
        for name, value in row.items():
            if name not in ("epoch", "step") and isinstance(value, int | float):
                writer.add_scalar(name, value, row["step"])
    return True
