"""A report as the main job makes it, built by hand: a ResNet-20 in three formats, fp32 and int8, on a CPU without VNNI."""

from __future__ import annotations

import numpy as np

from packlight.core.artifact import Ops, Parity
from packlight.core.history import Step
from packlight.core.report import Environment, Gate, Latency, Measurement, Memory, Metric, Model, Report, Speedup

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECALL = (0.935, 0.967, 0.886, 0.834, 0.934, 0.869, 0.949, 0.945, 0.957, 0.948)
TRUST = {
    "against": "the model as it came, in torch",
    "n": 10_000,
    "changed": 92,
    "good_to_bad": 41,
    "bad_to_good": 33,
    "agreement": {"resnet20.int8.onnx (onnxruntime)": 0.9961},
}


def latency(median_s: float, seed: int, verdict: str = "stable", why: str = "") -> Latency:
    random = np.random.default_rng(seed)
    values = median_s * (1 + 0.02 * random.standard_normal(220) + 0.3 * (random.random(220) > 0.96))
    ordered = np.sort(values)
    return Latency(
        values_s=tuple(round(float(v), 9) for v in values),
        warmup_s=(median_s * 1.6, median_s * 1.1),
        median_s=float(np.median(values)),
        p90_s=float(ordered[205]),
        p90_confidence=0.9926,
        ci95_s=(float(ordered[94]), float(ordered[125])),
        verdict=verdict,  # type: ignore[arg-type]
        why=why,
        cold_start_s=0.11,
        first_s=median_s * 1.8,
    )


def top1(correct: int, changes: tuple[float, ...]) -> Metric:
    value, n = correct / 10_000, 10_000
    half = 1.96 * (value * (1 - value) / n) ** 0.5
    per_class = [{"recall": round(r + d, 4), "n": 1000} for r, d in zip(RECALL, changes, strict=True)]
    return Metric(name="top1", value=value, n=n, ci95=(value - half, value + half), unit="%", more={"top5": 0.9972, "per_class": per_class})


def measurement(
    runtime: str, format: str, precision: str, file: str, bytes: int, median_s: float, metric: Metric, seed: int, speedup: Speedup | None
) -> Measurement:
    integer = precision == "int8"
    return Measurement(
        file=file,
        format=format,
        runtime=runtime,
        precision=precision,
        bytes=bytes,
        sha256=f"{seed:064x}",
        macs=40_813_184,
        parameters=272_474,
        parity=Parity(against="torch", max_abs=0.84 if integer else 2.1e-5, sqnr_db=28.4 if integer else 118.2, samples=64),
        ops=Ops(
            file={"Conv": 21, "Relu": 19, "QuantizeLinear": 22} if integer else {"Conv": 21, "Relu": 19, "Add": 9},
            optimised={"QLinearConv": 21, "QLinearAdd": 9} if integer else {"Conv": 21},
            float_left=("GlobalAveragePool (pool)",) if integer and runtime == "onnxruntime" else (),
        ),
        latency=latency(
            median_s, seed, *(("unstable", "the median drifts by 4 % over the run") if runtime == "litert" and integer else ())
        ),
        memory=Memory(peak_bytes=61_000_000 + bytes, before_bytes=48_000_000),
        metric=metric,
        speedup=speedup,
        trust=TRUST if integer else None,
        recommended=runtime == "openvino" and integer,
        notes=("slower than its float file: its gain is size",) if runtime == "litert" and integer else (),
    )


def example_report() -> Report:
    none, some = (0.0,) * 10, (0.002, -0.001, -0.006, 0.004, 0.001, -0.009, 0.0, -0.002, 0.001, 0.002)
    fp32, int8 = top1(9225, none), top1(9217, some)
    ort = Speedup(value=1.36, ci95=(1.34, 1.38), against="resnet20.fp32.onnx (onnxruntime)")
    vino = Speedup(value=1.62, ci95=(1.58, 1.66), against="resnet20.fp32.xml (openvino)")
    lite = Speedup(value=0.93, ci95=(0.91, 0.95), against="resnet20.fp32.tflite (litert)")
    artifacts = (
        measurement("onnxruntime", "onnx", "fp32", "resnet20.fp32.onnx", 1_101_204, 1.12e-3, fp32, 1, None),
        measurement("openvino", "openvino", "fp32", "resnet20.fp32.xml", 1_160_377, 1.05e-3, fp32, 2, None),
        measurement("litert", "tflite", "fp32", "resnet20.fp32.tflite", 1_094_032, 1.41e-3, fp32, 3, None),
        measurement("onnxruntime", "onnx", "int8", "resnet20.int8.onnx", 331_077, 0.82e-3, int8, 4, ort),
        measurement("openvino", "openvino", "int8", "resnet20.int8.xml", 410_880, 0.65e-3, top1(9214, some), 5, vino),
        measurement("litert", "tflite", "int8", "resnet20.int8.tflite", 319_536, 1.52e-3, top1(9219, some), 6, lite),
    )
    history = (
        Step(name="fold-batchnorm", changes={"folded": 21, "nodes": [164, 101]}, seconds=0.4),
        Step(
            name="quantize",
            settings={"method": "mse", "samples": 512},
            changes={"weight_max": 63, "quantized": 31, "sqnr_db": 28.6},
            seconds=14.2,
        ),
    )
    return Report(
        packlight="0.1.0",
        created="2026-11-24T06:30:00+00:00",
        model=Model(name="resnet20", parameters=272_474, macs=40_813_184, metric=fp32, source="cifar_resnet.py:resnet20", labels=CLASSES),
        task="classification",
        target="x86-64-avx2",
        environment=Environment(
            machine="x86_64",
            cpu="AMD EPYC",
            isa=("avx2", "fma"),
            cores=2,
            load=0.31,
            memory_bytes=24 << 30,
            versions={"onnxruntime": "1.32.0", "openvino": "2026.4.1", "litert": "2.3.0", "python": "3.11.7"},
            why={"governor": "no cpufreq here", "temperature_c": "no thermal zone here"},
        ),
        baseline=artifacts[0],
        artifacts=artifacts,
        history=history,
        gates=(
            Gate(name="max-drop", limit=0.3, value=0.08, ok=True, file="resnet20.int8.onnx"),
            Gate(name="max-drop", limit=0.3, value=0.11, ok=True, file="resnet20.int8.xml"),
            Gate(
                name="max-latency", limit=0.5, value=0.671, ok=False, file="resnet20.int8.xml", why="p90 is 0.671 ms, the limit is 0.5 ms"
            ),
        ),
        notes=(
            "recommended: resnet20.int8.xml in openvino: 1.62x the speed of resnet20.fp32.xml (95 % interval 1.58 to 1.66)",
            "calibrated on 512 images of the training split",
        ),
        seed=0,
    )
