"""The child of ``simulate``: compiles one ONNX file for the simulated NPU and prints, as the last line, a JSON object of where nodes went.

Run as ``python -m packlight.targets.coverage.simulator FILE``. First with the CPU ruled out: that is the verdict. Where it is refused, once
more with the CPU allowed, for the nodes that went there; ONNX Runtime's own log of that session, on stderr, holds QNN's reasons.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

HTP_ARCH, SOC_MODEL = "79", "69"
"""The simulated chip: Hexagon v79, Snapdragon 8 Elite (SM8750)."""


def compile_(path: str) -> dict[str, Any]:
    """``elsewhere``: [operator, node] of what the CPU got; ``pieces`` of QNN; ``error`` where it can't be compiled at all."""
    import onnxruntime as ort
    import onnxruntime_qnn as qnn

    ort.register_execution_provider_library(qnn.get_ep_name(), qnn.get_library_path())
    devices = [d for d in ort.get_ep_devices() if d.ep_name == qnn.get_ep_name()][:1]
    # the backend would leave the outermost quantize and dequantize to the CPU where it may, which is no gap
    settings = {
        "backend_path": qnn.get_qnn_htp_path(),
        "htp_arch": HTP_ARCH,
        "soc_model": SOC_MODEL,
        "offload_graph_io_quantization": "0",
    }
    error = ""
    for alone in (True, False):
        options = ort.SessionOptions()
        options.log_severity_level = 4 if alone else 0
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        options.add_session_config_entry("session.disable_cpu_ep_fallback", str(int(alone)))
        options.add_provider_for_devices(devices, settings)
        try:
            found = ort.InferenceSession(path, options).get_provider_graph_assignment_info()
        except Exception as refused:  # the runtime's errors share no narrower class
            error = str(refused)
            continue
        there = [piece.ep_name == qnn.get_ep_name() for piece in found]
        nodes = [[n.op_type, n.name] for piece, ok in zip(found, there, strict=True) if not ok for n in piece.get_nodes()]
        return {"elsewhere": nodes, "pieces": sum(there), "alone": alone, "error": ""}
    return {"elsewhere": [], "pieces": 0, "alone": False, "error": error.strip().splitlines()[0]}


if __name__ == "__main__":
    answer = json.dumps(compile_(sys.argv[1]))
    sys.stdout.write(f"\n{answer}\n")
    sys.stdout.flush()
    os._exit(0)  # the answer is out: a native library's way of ending can't spoil it
