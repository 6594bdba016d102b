"""Does a file compute what the model computed?

    error        e = reference - output
    max_abs      max |e|
    SQNR in dB   10 log10( sum(reference^2) / sum(e^2) )      (signal to quantization noise; the worst over the outputs)

The judge is SQNR, since it doesn't depend on the outputs' scale and one odd value can't hide many wrong ones; max_abs is reported.
Pure arithmetic: arrays in, figures out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ..core.artifact import Parity
from ..core.errors import ContractError, ParityError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Limit(msgspec.Struct, frozen=True):
    """The SQNR that a file of one precision must reach against its reference, and why that much."""

    sqnr_db: float
    reason: str


LIMITS: dict[tuple[str, str], Limit] = {
    ("fp32", "torch"): Limit(
        80.0, "the same float32 operations in another order: relative errors of 1e-6 to 1e-5 (100 to 120 dB), 80 dB leaves room for depth"
    ),
    ("fp16", "torch"): Limit(
        35.0,
        "half precision rounds to 11 bits (about 66 dB a rounding), and the errors of some dozens of layers add up; wrong graphs give < 20",
    ),
    ("weight-int8", "quantized graph"): Limit(
        35.0, "the same rounded weights but for those of recurrent layers and constant matrices, which the reference keeps whole"
    ),
    ("dynamic-int8", "quantized graph"): Limit(
        15.0, "inputs rounded to 8 bits over each one's own range, which the reference does not round; wrong graphs give less"
    ),
    ("int16", "quantized graph"): Limit(
        40.0, "the same integers, but kernels compute tables (sigmoid, tanh, softmax) to some steps of 16 bits"
    ),
    **{
        (precision, "host preprocessing"): Limit(
            25.0, "resized pixels may be a step of 255 from Pillow's, at the file's input some 40 dB; wrong colours, mean or size give < 15"
        )
        for precision in ("fp32", "fp16")
    },
    ("int8", "host preprocessing"): Limit(15.0, "the same, and values that fall on other steps of 8 bits on the way"),
    ("int8", "quantized graph"): Limit(
        20.0,
        "the same integers, but a runtime may round a sum the other way, one step of 8 bits a layer; wrong graphs give < 15",
    ),
}
"""What must hold, by (precision, reference). How far an int8 file is from the float graph is the quantizer's doing: reported only."""


AGREEMENT_DB = 1.0
"""How much further from the float graph than the quantized graph an integer file may be; the estimate's own spread over some dozens of
samples is about half of it."""


def max_abs(reference: NDArray[Any], output: NDArray[Any]) -> float:
    """Largest absolute difference of two arrays of one shape; inf where either is not finite and they differ."""
    import numpy as np

    a, b = np.asarray(reference, np.float64), np.asarray(output, np.float64)
    if not a.size or np.array_equal(a, b, equal_nan=True):
        return 0.0
    with np.errstate(invalid="ignore"):
        worst = float(np.max(np.abs(a - b)))
    return worst if np.isfinite(worst) else float("inf")


def sqnr_db(reference: NDArray[Any], output: NDArray[Any]) -> float | None:
    """SQNR in dB; None where the two are equal, -inf where the output is not finite or the reference is all zero."""
    import numpy as np

    a, b = np.asarray(reference, np.float64), np.asarray(output, np.float64)
    if np.array_equal(a, b, equal_nan=True):
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        signal, noise = float(np.sum(a * a)), float(np.sum((a - b) ** 2))
    if not np.isfinite(noise) or not np.isfinite(signal) or signal == 0:
        return float("-inf")
    return 10.0 * float(np.log10(signal / noise))


def measure(
    against: str, reference: Sequence[NDArray[Any]], output: Sequence[NDArray[Any]], samples: int, runtime: str = "", at: str = ""
) -> Parity:
    """The figures of all outputs of a file against those of its reference: the worst output counts."""
    if len(reference) != len(output):
        raise ContractError(f"the file has {len(output)} outputs, the model {len(reference)}")
    for i, (a, b) in enumerate(zip(reference, output, strict=True)):
        if a.shape != b.shape:
            raise ContractError(f"output {i} of the file has shape {list(b.shape)}, the model's {list(a.shape)}")
    figures = [f for f in map(sqnr_db, reference, output) if f is not None]
    worst = max(map(max_abs, reference, output), default=0.0)
    return Parity(against=against, max_abs=worst, sqnr_db=min(figures) if figures else None, samples=samples, runtime=runtime, at=at)


FLOAT_DB = 6.0
"""How much further from the graph in float64 than torch's own float32 a float file may be: two roundings of one size differ by as much."""


def keeps(precision: str, parity: Parity) -> bool:
    """Whether ``parity`` keeps its limit, if it has one."""
    limit = LIMITS.get((precision, parity.against))
    return limit is None or parity.sqnr_db is None or parity.sqnr_db >= limit.sqnr_db


def judge_float(file: str, own: Parity, far: Parity, graph: Parity) -> None:
    """Judges a float32 file beyond its limit from torch (``own``): ``far`` is its distance from the graph in float64, ``graph`` torch's.

    A net that amplifies rounding gives other numbers in every order of the same sums; a file that is as near to the exact answer as torch
    itself is right. A wrong file is not.
    """
    if far.sqnr_db is None or (graph.sqnr_db is not None and far.sqnr_db >= graph.sqnr_db - FLOAT_DB):
        return
    graph_db = "equal" if graph.sqnr_db is None else f"{graph.sqnr_db:.1f} dB"
    raise ParityError(
        f"'{file}' in {own.runtime} differs from the torch: {_told(own)}, the limit for fp32 is {LIMITS['fp32', 'torch'].sqnr_db:g} dB; "
        f"and from the graph in float64 by {far.sqnr_db:.1f} dB where torch has {graph_db}; the file was removed"
    )


def judge(file: str, precision: str, parity: Parity) -> None:
    """Raises ParityError, with the file, the figure and the limit, where ``parity`` is below its limit."""
    if keeps(precision, parity):
        return
    limit = LIMITS[precision, parity.against]
    raise ParityError(
        f"'{file}' in {parity.runtime} differs from the {parity.against}: {_told(parity)}, the limit for {precision} is "
        f"{limit.sqnr_db:g} dB; the file was removed"
    )


def judge_quantized(file: str, precision: str, own: Parity, far: Parity, graph: Parity) -> None:
    """Judges an integer file: ``own`` is its distance from the quantized graph, ``far`` from the float graph, ``graph`` the quantized
    graph's own distance from the float graph.

    The file passes if it is near the quantized graph (LIMITS), or if it is not further from the float graph than the quantized graph is,
    within AGREEMENT_DB. The second counts because a rounding that goes the other way changes later roundings: torch with and without its
    fast kernels differs by 25 dB on a deep net of random weights, and is right both times.
    """
    limit = LIMITS[precision, "quantized graph"]
    if own.sqnr_db is None or own.sqnr_db >= limit.sqnr_db:
        return
    if far.sqnr_db is None or (graph.sqnr_db is not None and far.sqnr_db >= graph.sqnr_db - AGREEMENT_DB):
        return
    graph_db = "equal" if graph.sqnr_db is None else f"{graph.sqnr_db:.1f} dB"
    raise ParityError(
        f"'{file}' in {own.runtime} differs from the quantized graph: {_told(own)}, the limit for {precision} is {limit.sqnr_db:g} dB; "
        f"and from the float graph by {far.sqnr_db:.1f} dB where the quantized graph has {graph_db}; the file was removed"
    )


def _told(parity: Parity) -> str:
    figure = "equal" if parity.sqnr_db is None else f"SQNR {parity.sqnr_db:.1f} dB"
    return f"{figure} over {parity.samples} samples{f' at {parity.at}' if parity.at else ''} (largest error {parity.max_abs:.3g})"
