"""A file compiled for a simulated NPU: what falls back by evidence, where a published list can only promise.

Qualcomm's HTP through ``onnxruntime-qnn`` (the extra ``qnn``, x86-64; Qualcomm's licence lies in that package). As native code
it runs in a process of its own, under a time limit. What it took was compiled, not measured: no time of a simulator is reported.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from ...core.coverage import Coverage, Gap
from ...core.errors import TargetError, require
from .graph import read_graph
from .lists import load_list
from .simulator import HTP_ARCH, SOC_MODEL

SIMULATED = ("qnn",)
"""The operator lists whose runtime can be simulated here."""

TIMEOUT_S = 300.0
WHOLE = "whole file"
REMEDY = "replace the layer, or choose a CPU target"
_REASON = re.compile(r"Operator type: (\S+) Node name: (\S*) Node index: \d+\s+REASON : ([^\n]+)")


class _Answer(msgspec.Struct, frozen=True):
    elsewhere: list[tuple[str, str]]
    pieces: int
    alone: bool
    error: str


def simulate(path: Path, timeout_s: float = TIMEOUT_S) -> Coverage:
    """The ONNX file at ``path`` compiled for QNN's HTP. MissingDependencyError without the extra; TargetError where it gave no verdict.

    ``operators`` are the file's, ``gaps`` what ONNX Runtime gave to the CPU after its own folding, with the compiler's reason.
    """
    require("onnxruntime_qnn", "qnn")
    known = load_list("qnn")
    graph = read_graph(path, "onnx")
    if any(v.shape is not None and None in v.shape for v in graph.inputs):
        raise TargetError("the QNN simulator compiles fixed shapes only; fix the batch with --batch 1")
    answer, log = _compile(path, timeout_s)
    reasons = {(op, name): why.strip(" .") for op, name, why in _REASON.findall(log)}
    operators = sum(n.op not in known.ignored for n in graph.nodes)
    found: dict[tuple[str, str], list[str]] = {}
    for op, name in answer.elsewhere:
        found.setdefault((op, reasons.get((op, name), "the compiler left it to the CPU")), []).append(name)
    gaps = [
        Gap(op=op, layer=names[0], count=len(names), why=why, remedy=known.remedies.get(op, REMEDY)) for (op, why), names in found.items()
    ]
    if answer.error:
        gaps = [Gap(op=WHOLE, layer="", count=operators, why=f"it does not compile ({answer.error})", remedy=REMEDY)]
    elif not answer.alone and not gaps:
        raise TargetError("the QNN simulator refused the file without the CPU, yet left nothing to it")
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("onnxruntime-qnn", "onnxruntime"))
    return Coverage(
        runtime=f"{known.runtime} simulator",
        list="qnn-simulator",
        source=f"{versions}, simulated HTP (htp_arch {HTP_ARCH}, soc_model {SOC_MODEL})",
        operators=operators,
        elsewhere=operators if answer.error else min(len(answer.elsewhere), operators),
        partitions=answer.pieces,
        gaps=tuple(gaps),
    )


def _compile(path: Path, timeout_s: float) -> tuple[_Answer, str]:
    root = str(Path(__file__).parents[3])  # where ``packlight`` is found, installed or not
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    command = [sys.executable, "-m", f"{__package__}.simulator", str(path.resolve())]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s, env=env, check=False)
    except subprocess.TimeoutExpired:
        raise TargetError(f"the QNN simulator did not end within {timeout_s:g} s") from None
    except OSError as error:
        raise TargetError(f"{sys.executable} can't be started ({error.strerror})") from error
    if ran.returncode < 0:
        raise TargetError(f"the QNN simulator died of {signal.Signals(-ran.returncode).name}")
    try:
        return msgspec.json.decode(ran.stdout.splitlines()[-1], type=_Answer), ran.stderr
    except (IndexError, msgspec.DecodeError):
        last = (ran.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise TargetError(f"the QNN simulator ended with {ran.returncode}: {last[:200]}") from None
