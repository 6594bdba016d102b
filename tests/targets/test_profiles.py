"""The shipped profiles, and a user's own: every key checked, every refusal one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from packlight.core.errors import TargetError
from packlight.targets.load import load_target, parse_target, target_names

PROFILES = Path(__file__).resolve().parents[2] / "targets" / "profiles"
GOOD = (PROFILES / "raspberry-pi-5.toml").read_text(encoding="utf-8")


def test_the_issue_s_targets_are_there() -> None:
    wanted = {"x86-64-avx2", "x86-64-vnni", "raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano", "jetson-orin-nano-gpu"}
    wanted |= {"nvidia-gpu-x86-64", "intel-gpu-x86-64", "android-arm64", "android-arm64-gpu", "ios-arm64"}
    assert wanted <= set(target_names())


@pytest.mark.parametrize("name", target_names())
def test_profile_is_sound(name: str) -> None:
    target = load_target(name)
    assert target.name == name
    assert target.title
    assert target.quantization.reason
    assert len({(r.name, r.provider) for r in target.runtimes}) == len(target.runtimes)
    assert set(target.links) <= ({"adb"} if target.device.os == "android" else {"local", "ssh"})
    for precision in ("fp32", "fp16"):
        assert all(target.runtimes_for(f, precision) for f in target.formats)


@pytest.mark.parametrize("name", target_names())
def test_weights_saturate_nowhere(name: str) -> None:
    """Two u8 x s8 products in 16 bits: 2 * 255 * w <= 32767 must hold wherever an x86 CPU without VNNI runs int8 files."""
    target = load_target(name)
    integer_on_cpu = any("int8" in r.precisions for r in target.runtimes) and target.device.gpu is None
    vnni = any("vnni" in i for i in target.device.isa)
    if target.device.machine == "x86_64" and integer_on_cpu and not vnni:
        assert 2 * 255 * target.quantization.weight_max <= 2**15 - 1
        assert target.quantization.weight_max == 63
    else:
        assert target.quantization.weight_max == 127


def test_what_silicon_has() -> None:
    pi4, pi5 = load_target("raspberry-pi-4").device, load_target("raspberry-pi-5").device
    assert "dotprod" not in pi4.isa
    assert "dotprod" in pi5.isa
    assert "A72" in pi4.cpu
    assert "A76" in pi5.cpu
    orin = load_target("jetson-orin-nano").device
    assert (orin.cores, orin.ram_bytes) == (6, 8 << 30)


def test_gpu_targets_name_their_providers() -> None:
    for name in ("jetson-orin-nano-gpu", "nvidia-gpu-x86-64"):
        target = load_target(name)
        assert [r.provider for r in target.runtimes] == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
        assert not target.runtimes_for("onnx", "int8")
    with pytest.raises(TargetError, match="'nvidia-gpu-x86-64' does not run tflite; it runs: onnx"):
        load_target("nvidia-gpu-x86-64").require_format("tflite")


def test_a_user_s_own_profile(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace('name = "raspberry-pi-5"', 'name = "camera"', 1))
    assert load_target(str(path)).name == "camera"
    assert load_target(path).device.cores == 4


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(TargetError, match=r"unknown target 'raspberry-pi-6' \(did you mean 'raspberry-pi-5'\?\); known: android-arm64, "):
        load_target("raspberry-pi-6")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="'.*nowhere.toml' does not exist; known targets: "):
        load_target(tmp_path / "nowhere.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(TargetError, match="can't be read"):
        load_target(tmp_path / "folder.toml")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("cores = 4", "cores = 4\nspeed = 3", "unknown field `speed` - at `$.device`"),
        ("schema = 1", "schema = 2", r"Invalid enum value 2 - at `$.schema`"),
        ("schema = 1", "", None),
        ("cores = 4", 'cores = "four"', "Expected `int`, got `str` - at `$.device.cores`"),
        ("cores = 4", "cores = 0", "device.cores must be positive"),
        ("cores = 4", "", "missing required field `cores`"),
        ('name = "litert"', 'name = "litert2"', "Invalid enum value 'litert2' - at `$.runtimes[0].name`"),
        ('format = "tflite"', 'format = "onnx"', "litert does not read onnx; it reads tflite"),
        ('["fp32", "fp16", "int8"]', '["fp32", "int4"]', "unknown precision 'int4'"),
        ("weight_max = 127", "weight_max = 128", "weight_max is 128; it must be within 1 and 127"),
        ('name = "raspberry-pi-5"', 'name = "My Pi"', "must be lower case"),
        ("[device]", "[device", "is not a profile of schema 1"),
    ],
)
def test_a_wrong_profile_is_refused(old: str, new: str, told: str | None) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1).encode()
    if told is None:
        assert parse_target(text, "profile").schema == 1
        return
    with pytest.raises(TargetError) as caught:
        parse_target(text, "profile 'p.toml'")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_text() -> None:
    with pytest.raises(TargetError, match="is not a profile of schema 1"):
        parse_target(b"\xff\xfe\x00", "profile 'p.toml'")


def test_no_runtimes() -> None:
    head = GOOD.partition("[[runtimes]]")[0].replace("schema = 1", "schema = 1\nruntimes = []", 1)
    with pytest.raises(TargetError, match="has no runtimes"):
        parse_target(head.encode(), "profile 'p.toml'")
