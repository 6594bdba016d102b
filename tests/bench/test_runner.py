"""The runner: over the real Local link, and over a Fake whose clock is scripted so that the figures are known."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packlight.bench.plan import BenchOptions, turns
from packlight.bench.runner import bench_artifacts
from packlight.bench.session import Subject
from packlight.core.errors import DataError, InputError, LacksError, StorageError, TargetError
from packlight.targets.link.fake import Fake, Faults, Script
from packlight.targets.link.local import Local

QUICK = BenchOptions(launches=2, rounds=3, block_s=0.002, warm_s=0.5)


def test_all_three_runtimes_locally(files: Any) -> None:
    subjects = [
        (files.onnx, files.folder, "onnxruntime"),
        (files.write_onnx("slow.int8.onnx", repeat=20, precision="int8"), files.folder, "onnxruntime"),
        (files.openvino, files.folder, "openvino"),
        (files.tflite, files.folder, "litert"),
    ]
    with Local() as link:
        bench = bench_artifacts(subjects, link, options=QUICK, inputs=files.data(40))
    assert not Path(link.root).exists()
    assert [m.runtime for m in bench.measurements] == ["onnxruntime", "onnxruntime", "openvino", "litert"]
    for m in bench.measurements:
        latency = m.latency
        assert latency is not None
        assert len(latency.values_s) >= 44
        assert latency.median_s == pytest.approx(float(np.median(latency.values_s)))
        assert latency.p90_s in latency.values_s
        assert latency.p90_confidence is not None
        assert latency.p90_confidence >= 0.99
        assert latency.cold_start_s is not None
        assert latency.first_s is not None
        assert latency.cold_start_s > latency.first_s > 0
        assert len(latency.warmup_s) >= 20
        assert m.memory is not None
        assert m.memory.peak_bytes is not None
        assert m.memory.before_bytes is not None
        assert m.memory.peak_bytes > m.memory.before_bytes > 0
        assert m.why["energy"]
    slow = bench.measurements[1].speedup
    assert slow is not None
    assert slow.against == "net.fp32.onnx (onnxruntime)"
    assert slow.ci95[0] <= slow.value <= slow.ci95[1]
    fast_s, slow_s = (bench.measurements[i].latency.values_s for i in (0, 1))
    assert min(slow_s) > min(fast_s), "twenty more convolutions must be seen; their quickest run is not another process's fault"
    assert bench.measurements[0].why["speedup"] == "this is the baseline"
    assert bench.environment.cores == len(__import__("os").sched_getaffinity(0))
    assert {"onnxruntime", "openvino", "litert", "numpy"} <= set(bench.environment.versions)


def test_arrays_will_do_as_inputs_and_fixed_batches_are_kept(files: Any) -> None:
    two = files.write_onnx("two.onnx", batch=2)
    with Local() as link:
        bench = bench_artifacts([(two, files.folder, "onnxruntime")], link, options=QUICK, inputs=files.data(3).x)
    assert bench.measurements[0].latency is not None
    assert bench.measurements[0].latency.batch == 2


def test_wrong_inputs_and_damaged_files_are_refused_before_anything_runs(files: Any) -> None:
    with Fake() as link:
        with pytest.raises(DataError, match="wants shape"):
            bench_artifacts([(files.onnx, files.folder, "onnxruntime")], link, inputs=np.zeros((2, 1, 16, 16), np.float32))
        with pytest.raises(InputError, match="nothing to bench"):
            bench_artifacts([], link, inputs=files.data(2))
        damaged = files.write_onnx("damaged.onnx")
        (files.folder / "damaged.onnx").write_bytes(b"0")
        with pytest.raises(InputError, match="sha256 differs"):
            bench_artifacts([(damaged, files.folder, "onnxruntime")], link, inputs=files.data(2))
        assert link.log == []


def test_a_device_without_python_is_refused(files: Any) -> None:
    with Fake(python=None) as link, pytest.raises(LacksError, match="no Python"):
        bench_artifacts([(files.onnx, files.folder, "onnxruntime")], link, inputs=files.data(2))


# --- a scripted device ------------------------------------------------------------------------------------------------

STATE = {"governor": "performance", "frequency_mhz": 1500.0, "temperature_c": 50.0, "load": 0.1, "why": {}}
DEVICE = {"machine": "aarch64", "cpu": "4 x Cortex-A72", "isa": ["neon"], "cores": 4, "memory_bytes": 4 << 30, "why": {}}


def scripted(seconds: Callable[[str, int], float], state: Callable[[int], dict[str, Any]] = lambda turn: STATE) -> Any:
    """An agent whose i-th run of a file takes ``seconds(file, i)``."""

    def start(command: Sequence[str], folder: Path) -> Script:
        plan = json.loads((folder / command[-1]).read_text())
        count = 0

        def take(n: int) -> list[float]:
            nonlocal count
            count += n
            return [seconds(plan["file"], i) for i in range(count - n, count)]

        memory = {"peak_bytes": 100, "now_bytes": 60, "why": ""}
        yield json.dumps({"event": "hello", "versions": {"onnxruntime": "1"}, "device": DEVICE, "state": state(0)})
        yield "a runtime's own chatter"
        yield json.dumps({"event": "ready", "load_s": 0.5, "first_s": 0.1, "memory_before": memory})
        while True:
            line = yield None
            if line is None:
                return 3
            command_ = json.loads(line)
            if command_["cmd"] == "quit":
                return 0
            if command_["cmd"] == "warm":
                yield json.dumps({"event": "warm", "values_s": take(20), "stationary": True})
            elif command_["cmd"] == "run":
                before = state(count)
                values = take(command_["runs"])
                yield json.dumps({"event": "run", "values_s": values, "settle_values_s": [], "before": before, "state": state(count)})
            else:
                yield json.dumps({"event": "memory", **memory})

    return start


def noisy(factors: dict[str, float], seed: int = 0, noise: float = 0.01) -> Callable[[str, int], float]:
    rng = np.random.default_rng(seed)
    return lambda file, i: 0.01 * factors[file] * float(1 + noise * rng.gamma(2, 1))


@pytest.fixture
def pair(files: Any) -> list[tuple[Any, ...]]:
    return [(files.write_onnx(n, precision=p), files.folder, "onnxruntime") for n, p in (("a.onnx", "fp32"), ("b.onnx", "int8"))]


def test_figures_come_from_the_values_the_device_gave(files: Any, pair: list[tuple[Any, ...]]) -> None:
    with Fake(script=scripted(noisy({"a.onnx": 1.0, "b.onnx": 0.5}))) as link:
        bench = bench_artifacts(pair, link, inputs=files.data(2))
    a, b = bench.measurements
    assert a.latency is not None
    assert b.latency is not None
    assert b.speedup is not None
    assert a.latency.verdict == "stable"
    assert a.latency.median_s == pytest.approx(0.0117 * 0.87, rel=0.02)
    assert b.speedup.value == pytest.approx(2, rel=0.01)
    assert b.speedup.ci95[0] < 2 < b.speedup.ci95[1]
    assert b.speedup.ci95[1] - b.speedup.ci95[0] < 0.05
    assert a.latency.launches == 6
    assert len(a.latency.values_s) % 6 == 0
    assert bench.environment.kind == "simulated clock"
    assert bench.environment.cpu == "4 x Cortex-A72"


def test_the_journal_has_every_raw_value_even_where_the_link_breaks(files: Any, pair: list[tuple[Any, ...]], tmp_path: Path) -> None:
    device = scripted(noisy({"a.onnx": 1.0, "b.onnx": 1.0}))
    with Fake(script=device) as link:
        bench = bench_artifacts(pair, link, inputs=files.data(2), journal=tmp_path / "whole.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "whole.jsonl").read_text().splitlines()]
    assert bench.measurements[0].latency is not None
    assert (
        tuple(v for line in lines if line["file"].startswith("a.onnx") for v in line["values_s"]) == bench.measurements[0].latency.values_s
    )
    with Fake(script=device, faults=Faults(break_after=60)) as link, pytest.raises(TargetError):
        bench_artifacts(pair, link, inputs=files.data(2), journal=tmp_path / "part.jsonl")
    assert len((tmp_path / "part.jsonl").read_text().splitlines()) > 3


def test_energy_is_counted_per_inference(files: Any, pair: list[tuple[Any, ...]]) -> None:
    """A counter that gains 2 J between any two readings: 2 J a block, so 2 J by the runs of a block."""
    calls = itertools.count()
    even = scripted(noisy({"a.onnx": 1.0, "b.onnx": 1.0}), lambda turn: {**STATE, "energy_uj": {"package-0": 2_000_000 * next(calls)}})
    with Fake(script=even) as link:
        m = bench_artifacts(pair, link, inputs=files.data(2), options=BenchOptions(launches=2, rounds=2, runs=40)).measurements[0]
    assert m.energy is not None
    assert m.energy["joules_per_inference"] == pytest.approx(0.2)


def test_a_jetsons_rails_give_joules_from_its_input_alone(files: Any, pair: list[tuple[Any, ...]]) -> None:
    """5 W at the input, of which 2 W go to the CPU: 5 W times the seconds of a run."""
    rails = scripted(lambda file, i: 0.01, lambda turn: {**STATE, "power_mw": {"VDD_IN": 5000.0, "VDD_CPU_GPU_CV": 2000.0}})
    with Fake(script=rails) as link:
        m = bench_artifacts(pair, link, inputs=files.data(2), options=BenchOptions(launches=2, rounds=2, runs=40)).measurements[0]
    assert m.energy is not None
    assert m.energy["joules_per_inference"] == pytest.approx(0.05)
    assert m.energy["by_domain"] == {"VDD_IN": pytest.approx(0.05), "VDD_CPU_GPU_CV": pytest.approx(0.02)}
    assert m.energy["source"].startswith("ina3221")


def test_what_counts_is_whether_the_measured_process_waited(files: Any, pair: list[tuple[Any, ...]]) -> None:
    """Others may wait as much as they like where this process does not: it had a higher priority, or a core of its own."""
    even, clock = noisy({"a.onnx": 1.0, "b.onnx": 1.0}), itertools.count()

    def state(share: float) -> Callable[[int], dict[str, Any]]:
        return lambda turn: {**STATE, "pressure": 60.0, "ran_ns": (now := next(clock)) * 1e6, "waited_ns": now * 1e6 * share}

    with Fake(script=scripted(even, state(0.01))) as link:
        calm = bench_artifacts(pair, link, inputs=files.data(2))
    with Fake(script=scripted(even, state(1.0))) as link:
        pushed = bench_artifacts(pair, link, inputs=files.data(2))
    assert calm.measurements[0].latency is not None
    assert pushed.measurements[0].latency is not None
    assert calm.measurements[0].latency.verdict == "stable"
    assert pushed.measurements[0].latency.why == "it waited for a CPU 50% of the time: stop what else runs there"
    assert (calm.environment.waited, pushed.environment.waited) == (pytest.approx(0.01, rel=0.02), pytest.approx(0.5))


def test_other_work_on_the_device_is_told(files: Any, pair: list[tuple[Any, ...]]) -> None:
    busy = scripted(noisy({"a.onnx": 1.0, "b.onnx": 1.0}), lambda turn: {**STATE, "pressure": 60.0})
    with Fake(script=busy) as link:
        bench = bench_artifacts(pair, link, inputs=files.data(2))
    assert bench.measurements[0].latency is not None
    assert "waited for a CPU 60 %" in bench.measurements[0].latency.why
    assert bench.environment.pressure == 60


def test_a_device_that_turns_out_to_be_emulated_is_labelled(
    files: Any, pair: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DEVICE, "emulated", True)
    with Fake(script=scripted(noisy({"a.onnx": 1.0, "b.onnx": 1.0})), kind="real") as link:
        bench = bench_artifacts(pair, link, inputs=files.data(2))
    assert bench.environment.kind == "emulated"
    assert bench.measurements[0].latency is None


def test_files_take_turns(files: Any, pair: list[tuple[Any, ...]]) -> None:
    with Fake(script=scripted(noisy({"a.onnx": 1.0, "b.onnx": 1.0}))) as link:
        bench_artifacts(pair, link, inputs=files.data(2), options=BenchOptions(launches=2, rounds=5))
        runs = [what for doing, what in link.log if doing == "send" and '"run"' in what]
    assert len(runs) == 20


def test_a_slow_stretch_of_the_machine_does_not_move_the_speedup(files: Any, pair: list[tuple[Any, ...]]) -> None:
    """Both files suffer in the same rounds: their ratio stays, while the verdict says that the machine was not steady."""
    quiet = noisy({"a.onnx": 1.0, "b.onnx": 0.8})
    slow = itertools.count()
    with Fake(script=scripted(lambda file, i: quiet(file, i) * (1.5 if next(slow) > 400 else 1.0))) as link:
        bench = bench_artifacts(pair, link, inputs=files.data(2))
    b = bench.measurements[1]
    assert b.speedup is not None
    assert b.latency is not None
    assert b.speedup.value == pytest.approx(1.25, rel=0.005)
    assert b.speedup.ci95[1] - b.speedup.ci95[0] < 0.02
    assert b.latency.verdict == "unstable"


def test_false_proofs_of_the_same_file_are_rare(files: Any, pair: list[tuple[Any, ...]]) -> None:
    false = 0
    for seed in range(40):
        with Fake(script=scripted(noisy({"a.onnx": 1.0, "b.onnx": 1.0}, seed, noise=0.1))) as link:
            speedup = bench_artifacts(pair, link, inputs=files.data(2)).measurements[1].speedup
        assert speedup is not None
        false += not speedup.ci95[0] <= 1 <= speedup.ci95[1]
    assert false <= 5  # 5 % of 40 is 2; 6 or more has a chance of 1 %


def test_throttling_and_stolen_time_are_told(files: Any, pair: list[tuple[Any, ...]]) -> None:
    even = noisy({"a.onnx": 1.0, "b.onnx": 1.0})
    calls = itertools.count()
    with Fake(script=scripted(even, lambda turn: {**STATE, "throttle_count": next(calls) // 50})) as link:
        assert "throttled" in bench_artifacts(pair, link, inputs=files.data(2)).measurements[0].latency.why  # type: ignore[union-attr]
    with Fake(script=scripted(even, lambda turn: {**STATE, "steal_ticks": (now := next(calls)), "total_ticks": 10 * now})) as link:
        latency = bench_artifacts(pair, link, inputs=files.data(2)).measurements[0].latency
    assert latency is not None
    assert "10% of this virtual machine" in latency.why


def test_emulated_wall_time_is_never_shown(files: Any, pair: list[tuple[Any, ...]]) -> None:
    with Fake(script=scripted(noisy({"a.onnx": 1.0, "b.onnx": 1.0})), kind="emulated") as link:
        m = bench_artifacts(pair, link, inputs=files.data(2)).measurements[1]
    assert m.latency is None
    assert m.speedup is None
    assert "emulated" in m.why["latency"]


def test_two_fp32_files_need_a_marked_baseline(files: Any, pair: list[tuple[Any, ...]]) -> None:
    third = (files.write_onnx("c.onnx"), files.folder, "onnxruntime")
    device = scripted(noisy({"a.onnx": 1.0, "b.onnx": 0.5, "c.onnx": 0.8}))
    with Fake(script=device) as link:
        assert "marked" in bench_artifacts([*pair, third], link, inputs=files.data(2)).measurements[1].why["speedup"]
    with Fake(script=device) as link:
        marked = Subject(*pair[0], baseline=True)
        bench = bench_artifacts([marked, pair[1], third], link, inputs=files.data(2))
    assert bench.measurements[2].speedup is not None
    assert bench.measurements[2].speedup.value == pytest.approx(1.25, rel=0.02)


@pytest.mark.parametrize("after", [0, 2, 5, 9, 30])
def test_a_broken_link_is_one_clear_line(files: Any, pair: list[tuple[Any, ...]], after: int) -> None:
    with Fake(script=scripted(noisy({"a.onnx": 1.0, "b.onnx": 1.0})), faults=Faults(break_after=after)) as link:
        with pytest.raises(TargetError, match="link to device 'fake' broke") as caught:
            bench_artifacts(pair, link, inputs=files.data(2))
        assert "\n" not in str(caught.value)
        assert all(p.ended for p in link.running)
    assert not link.folder.exists()


def test_a_full_disk_and_a_silent_device_are_told(files: Any, pair: list[tuple[Any, ...]]) -> None:
    even = scripted(noisy({"a.onnx": 1.0, "b.onnx": 1.0}))
    with Fake(script=even, faults=Faults(disk_bytes=1000)) as link, pytest.raises(StorageError, match="disk of device 'fake' is full"):
        bench_artifacts(pair, link, inputs=files.data(2))
    with Fake(script=even, faults=Faults(silent=True)) as link, pytest.raises(TargetError, match="said nothing for 5 s"):
        bench_artifacts(pair, link, inputs=files.data(2), options=BenchOptions(answer_s=5))


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("lacks", LacksError, "runtime 'litert' is not usable; install it there with: pip install ai-edge-litert"),
        ("storage", StorageError, "the device's disk is full"),
        ("artifact", TargetError, "arrived damaged"),
        ("runtime", InputError, "Fail: no kernel for Foo"),
    ],
)
def test_what_the_agent_complains_of_becomes_the_right_error(
    files: Any, pair: list[tuple[Any, ...]], kind: str, error: type[Exception], message: str
) -> None:
    def script(command: Sequence[str], folder: Path) -> Script:
        yield json.dumps({"event": "error", "kind": kind, "message": message})
        return 1

    with Fake(script=script) as link, pytest.raises(error, match="a.onnx") as caught:
        bench_artifacts(pair, link, inputs=files.data(2))
    assert message in str(caught.value)


def test_an_agent_that_dies_is_told_with_its_last_words(files: Any, pair: list[tuple[Any, ...]]) -> None:
    def script(command: Sequence[str], folder: Path) -> Script:
        yield "not json"
        return 137

    with Fake(script=script) as link, pytest.raises(TargetError, match="killed, maybe for want of memory"):
        bench_artifacts(pair, link, inputs=files.data(2))


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_turns_give_enough_runs_and_stay_in_the_budget() -> None:
    options = BenchOptions(budget_s=20)
    plan = turns(options, [1e-5, 1e-3, 0.05])
    blocks = sum(map(len, plan.launches))
    assert blocks == options.launches * options.rounds
    assert all(runs * blocks >= 44 for runs in plan.runs)
    assert all(sorted(order) == [0, 1, 2] for launch in plan.launches for order in launch)
    assert len({order for launch in plan.launches for order in launch}) > 3
    assert turns(options, [1e-3] * 3) == turns(options, [1e-3] * 3)


def test_a_file_too_slow_for_the_budget_has_fewer_rounds_and_the_others_longer_blocks() -> None:
    plan = turns(BenchOptions(budget_s=20), [1e-3, 3.0])
    assert [len(launch) for launch in plan.launches] == [1] * 6
    assert plan.runs[1] == 1
    assert plan.runs[0] * 6 >= 44


def test_a_higher_percentile_asks_for_more_runs() -> None:
    plan = turns(BenchOptions(percentile=0.99), [0.01])
    assert plan.runs[0] * sum(map(len, plan.launches)) >= 459


@pytest.mark.parametrize("setting", [{"threads": 0}, {"percentile": 90.0}, {"rounds": 0}, {"launches": 0}, {"budget_s": 0.0}, {"runs": 0}])
def test_impossible_options_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(setting))):
        BenchOptions(**setting)
