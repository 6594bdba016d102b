"""Random cases of every operator that the TFLite emitter lowers, and what judges them: used by the tests and by benchmarks/tflite."""

from .draw import CASES, Case, Draw, cases
from .judge import Judge, Outcome, run_ways

__all__ = ["CASES", "Case", "Draw", "Judge", "Outcome", "cases", "run_ways"]
