"""The doctor measures: real runtimes on closed forms, real crashes of its child, and machines other than this one from their own words."""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from packlight.targets import doctor, probe
from packlight.targets.load import load_target
from packlight.targets.machine import Machine, instruction_sets, look
from packlight.targets.probe import Probed

# Features lines as the boards' kernels print them.
PI4 = "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU part\t: 0xd08\n"
PI5 = (
    "processor\t: 0\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp\n"
    "CPU part\t: 0xd0b\n"
)
ICE_LAKE = (
    "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz\nflags\t\t: fpu sse4_2 avx2 fma f16c avx512f avx512_vnni\n"
)


def machine(**fields: object) -> Machine:
    base = Machine(machine="x86_64", system="Linux", cpu="a CPU", isa=("avx2",), cores=4, ram_bytes=1 << 33, governor=None, board=None)
    return msgspec.structs.replace(base, **fields)


@pytest.fixture(scope="module")
def report() -> doctor.DoctorReport:
    return doctor.examine(load_target("raspberry-pi-5"))


class TestMachine:
    def fake(self, root: Path, cpuinfo: str, board: str = "", governor: str = "") -> Machine:
        for name, text in (
            ("proc/cpuinfo", cpuinfo),
            ("proc/meminfo", "MemTotal:        3884352 kB\n"),
            ("proc/device-tree/model", board),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", governor),
        ):
            if text:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
        return look(root)

    def test_a_pi_4(self, tmp_path: Path) -> None:
        found = self.fake(tmp_path, PI4 * 4, "Raspberry Pi 4 Model B Rev 1.4\x00", "ondemand\n")
        assert found.cpu == "4 x Cortex-A72"
        assert found.isa == load_target("raspberry-pi-4").device.isa
        assert found.board == "Raspberry Pi 4 Model B Rev 1.4"
        assert found.governor == "ondemand"
        assert found.ram_bytes == 3884352 * 1024

    def test_a_pi_5_has_what_its_profile_says(self, tmp_path: Path) -> None:
        assert self.fake(tmp_path, PI5 * 4).isa == load_target("raspberry-pi-5").device.isa

    def test_an_ice_lake_has_what_its_profile_says(self, tmp_path: Path) -> None:
        found = self.fake(tmp_path, ICE_LAKE * 8)
        assert set(load_target("x86-64-vnni").device.isa) <= set(found.isa)
        assert found.cpu is not None
        assert found.cpu.startswith("Intel(R) Xeon(R)")

    def test_cores_that_differ_share_only_the_common(self) -> None:
        assert instruction_sets(PI4 + PI5) == ("neon",)

    def test_nothing_known(self, tmp_path: Path) -> None:
        found = look(tmp_path)
        assert (found.isa, found.ram_bytes, found.governor, found.board) == ((), None, None, None)

    @pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="no /proc here")
    def test_this_one(self) -> None:
        assert look().cores


class TestSuggest:
    @pytest.mark.parametrize(
        ("fields", "saturates", "name", "word"),
        [
            ({}, True, "x86-64-avx2", "measured"),
            ({}, None, "x86-64-avx2", "no VNNI"),
            ({"isa": ("avx2", "avx512_vnni")}, False, "x86-64-vnni", "nothing saturates (measured)"),
            ({"isa": ("avx2", "avx_vnni")}, None, "x86-64-vnni", "was not measured"),
            ({"isa": ("avx2", "avx512_vnni")}, True, "x86-64-avx2", "saturate here (measured)"),
            ({}, False, "x86-64-avx2", "lists no VNNI"),
            ({"isa": ()}, None, None, "neither AVX2 nor VNNI"),
            ({"machine": "aarch64", "isa": ("neon",), "board": "Raspberry Pi 4 Model B Rev 1.4"}, None, "raspberry-pi-4", "board says"),
            ({"machine": "aarch64", "isa": ("neon",), "board": "NVIDIA Jetson Orin Nano Developer Kit"}, None, "jetson-orin-nano", "board"),
            ({"machine": "aarch64", "isa": ("neon", "dotprod")}, None, "raspberry-pi-5", "no shipped profile names this board"),
            ({"machine": "riscv64", "isa": ()}, None, None, "riscv64"),
        ],
    )
    def test_measured_before_listed(self, fields: dict[str, object], saturates: bool | None, name: str | None, word: str) -> None:
        found, why = doctor.suggest(machine(**fields), saturates)
        assert found == name
        assert word in why
        if found:
            assert load_target(found)


class TestProbe:
    def test_the_closed_form_is_a_convolution(self) -> None:
        torch = pytest.importorskip("torch")
        random = np.random.default_rng(3)
        x, w = random.standard_normal((1, 16, 6, 6)), random.standard_normal((8, 16, 3, 3))
        wanted = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w)).numpy()
        np.testing.assert_allclose(probe.convolve(x, w), wanted, atol=1e-12)

    @pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "litert"])
    def test_a_runtime_that_is_installed_works(self, runtime: str, report: doctor.DoctorReport) -> None:
        found = next(p for p in report.runtimes if p.runtime == runtime)
        if found.why == doctor.NOT_TRIED:
            pytest.skip(f"{runtime} is not installed")
        assert found.ok, found.why
        assert found.error is not None
        assert found.error < 1e-5

    def test_saturation_is_what_arithmetic_says(self, report: doctor.DoctorReport) -> None:
        """Pairs of 255 * 127 clipped to 32767: an AVX2 CPU keeps 32767 / 64770 of each; +-63 loses nothing anywhere."""
        asked = [p for p in report.runtimes if p.gap_full is not None]
        if not asked:
            pytest.skip("neither onnxruntime nor openvino is installed")
        clipped = 1 - 32767 / (2 * 255 * 127)
        for p in asked:
            assert p.gap_full is not None
            assert p.gap_63 is not None
            assert p.gap_63 < probe.ROUNDING
            assert p.gap_full < probe.ROUNDING or abs(p.gap_full - clipped) < 0.02
            if report.machine.machine == "x86_64" and not any("vnni" in i for i in report.machine.isa):
                assert p.saturates

    def test_a_wrong_result_is_not_ok(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("onnxruntime")
        monkeypatch.setattr(probe, "convolve", lambda x, w: 1.1 * np.ones((1, 8, 4, 4)))
        found = probe.probe("onnxruntime")
        assert not found.ok
        assert "came out wrong" in found.why


class TestExamine:
    def test_this_machine(self, report: doctor.DoctorReport) -> None:
        assert report.python == sys.version.split()[0]
        assert {p.name for p in report.packages} == set(doctor.PACKAGES)
        assert all(p.version for p in report.packages if p.name in ("torch", "numpy"))
        assert msgspec.json.decode(msgspec.json.encode(report), type=doctor.DoctorReport) == report

    def test_the_target_s_runtimes(self, report: doctor.DoctorReport) -> None:
        assert [e.runtime for e in report.exercises] == ["litert", "onnxruntime", "openvino"]
        for e in report.exercises:
            found = next(p for p in report.runtimes if p.runtime == e.runtime)
            assert e.ok == found.ok
            if e.ok and report.machine.machine == "x86_64":
                assert e.why == "parity and accuracy; latency needs the device (aarch64)"

    def test_lines_say_it_all(self, report: doctor.DoctorReport) -> None:
        text = "\n".join(doctor.lines(report))
        for p in report.runtimes:
            assert re.search(rf"^runtime    {p.runtime}\b.*(works|not installed|FAILS)", text, re.MULTILINE)
        assert f"target     {report.fits or 'none fits'}" in text
        assert "for target raspberry-pi-5:" in text

    def test_what_is_missing_has_its_command(self, report: doctor.DoctorReport) -> None:
        packages = tuple(msgspec.structs.replace(p, version=None) for p in report.packages if p.name in ("openvino", "torchao"))
        text = "\n".join(doctor.lines(msgspec.structs.replace(report, packages=packages)))
        assert "missing    openvino: pip install 'packlight[openvino]'" in text
        assert "missing    torchao: pip install 'packlight[quantize]'" in text

    def test_packages_and_extras_agree_with_pyproject(self) -> None:
        import tomllib

        project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
        wanted = {re.split(r"[\[<>=]", r)[0]: "" for r in project["dependencies"]}
        for extra, names in project["optional-dependencies"].items():
            wanted |= {re.split(r"[\[<>=]", r)[0]: extra for r in names if not r.startswith("packlight[")}
        assert {k: v for k, v in wanted.items() if k in doctor.PACKAGES} == doctor.PACKAGES

    def test_a_provider_that_is_not_there(self) -> None:
        target = load_target("nvidia-gpu-x86-64")
        probed = (Probed(runtime="onnxruntime", ok=True, devices=("CPUExecutionProvider",)),)
        found = doctor._exercise(target.runtimes[0], target, machine(), probed)
        assert not found.ok
        assert found.why == "this build has no TensorrtExecutionProvider; it has CPUExecutionProvider"
        probed = (Probed(runtime="onnxruntime", ok=True, devices=("TensorrtExecutionProvider", "CPUExecutionProvider")),)
        assert doctor._exercise(target.runtimes[0], target, machine(), probed).why == "parity, accuracy and latency"

    @pytest.mark.parametrize(
        ("script", "told"),
        [
            ("kill -ILL $$", "the process died of SIGILL: the package does not suit this CPU or system"),
            ("kill -SEGV $$", "died of SIGSEGV"),
            ("echo broken >&2; exit 5", "the probe ended with 5: broken"),
            ("exit 0", "it said nothing"),
            ("sleep 30", "did not end within 0.3 s"),
        ],
    )
    def test_a_child_that_fails_is_told(self, script: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(python))
        if "sleep" in script:
            monkeypatch.setattr(doctor, "PROBE_TIMEOUT_S", 0.3)
        found = doctor._probe("onnxruntime")
        assert not found.ok
        assert told in found.why
