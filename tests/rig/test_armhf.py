"""A 32-bit Raspberry Pi: what it is seen as, what can be installed there, and a TFLite file in tflite-runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from packlight.bench.accuracy import differences, score_artifacts
from packlight.bench.device import check_device
from packlight.targets.link.local import Local


def test_a_32_bit_pi_runs_tflite_files_in_tflite_runtime(rig: Callable[[str], Path], files: Any) -> None:
    data = files.data(20)
    with Local("pi2", python=str(rig("armhf") / "python-armhf")) as link:
        check = check_device(link)
        (there,) = score_artifacts(
            [(files.tflite, files.folder, "tflite-runtime")], link, samples=data, task=files.task(), keep_outputs=True
        )
    assert (check.machine, check.cpu, check.board) == ("armv7l", "ARMv7 Processor rev 5 (v7l)", "Raspberry Pi 2 (emulated)")
    assert (check.kind, check.runtimes, check.versions["tflite-runtime"]) == ("emulated", ("tflite-runtime",), "2.14.0")
    wheels = {gap.what: gap.install for gap in check.missing if gap.what in ("onnxruntime", "openvino", "litert")}
    assert wheels == {"onnxruntime": None, "openvino": None, "litert": None}
    np.testing.assert_allclose(there.outputs[0], files.reference(data.x), rtol=1e-4, atol=1e-5)
    with Local() as link:
        (here,) = score_artifacts([(files.tflite, files.folder, "litert")], link, samples=data, task=files.task())
    assert differences(here, there) == 0
