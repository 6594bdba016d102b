"""The proof of an import: ONNX Runtime runs the file, torch runs the graph, and the two must agree on every output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, ParityError, require
from ..pt2 import first_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

LIMIT_DB = 80.0
"""Float32 in another order: errors of 1e-6 to 1e-5 relative are 100 to 120 dB; a wrong operator gives less than 40."""
LIMIT_HALF_DB = 35.0
"""A file in half precision is computed in float32 here, and rounds at every operator there."""


def run(path: Path, names: Sequence[str], inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """The file's outputs in ONNX Runtime, its graph as written."""
    ort: Any = require("onnxruntime", "onnx")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        wanted = {i.name: i.type for i in session.get_inputs()}
        feeds = {n: _as(x, wanted.get(n, "")) for n, x in zip(names, inputs, strict=True) if n in wanted}
        return list(session.run(None, feeds))
    except Exception as error:  # the runtime's own types
        raise ModelError(f"ONNX Runtime can't run '{path.name}', so an import could not be proven: {first_line(error)}") from error


def _as(x: NDArray[Any], kind: str) -> NDArray[Any]:
    import numpy as np

    return x.astype(np.float16) if kind == "tensor(float16)" else x


def compare(what: str, names: Sequence[str], theirs: Sequence[Any], ours: Sequence[Any], half: bool) -> float:
    """The worst signal to noise ratio of the outputs, in dB (inf where equal). Raises ParityError below the limit."""
    worst = float("inf")
    limit = LIMIT_HALF_DB if half else LIMIT_DB
    for name, a, b in zip(names, theirs, ours, strict=True):
        figure = sqnr_db(a, b)
        if figure < limit:
            raise ParityError(
                f"'{what}' was not imported: its output '{name}' differs from ONNX Runtime's, SQNR {figure:.1f} dB of at least {limit:g}; "
                "export the PyTorch model itself (file.py:factory or .pt2), and tell us about the file"
            )
        worst = min(worst, figure)
    return worst


def sqnr_db(theirs: Any, ours: Any) -> float:
    """10 log10(sum theirs^2 / sum (theirs - ours)^2); inf where equal, -inf where shapes differ or NaN stands elsewhere."""
    import numpy as np

    a, b = np.asarray(theirs), np.asarray(ours)
    if a.shape != b.shape:
        return float("-inf")
    if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
        return float("inf")
    a, b = a.astype(np.float64), b.astype(np.float64)
    odd = ~np.isfinite(a)
    if not np.array_equal(a[odd], b[odd], equal_nan=True):
        return float("-inf")
    signal, noise = float(np.sum(a[~odd] ** 2)), float(np.sum((a[~odd] - b[~odd]) ** 2))
    if noise == 0:
        return float("inf")
    if not np.isfinite(noise) or signal == 0:
        return float("-inf") if noise > 1e-10 or not np.isfinite(noise) else float("inf")
    return 10.0 * float(np.log10(signal / noise))
